"""The convolutions that products are compared on: images, layers of networks, sound and volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from convmat import Convolution, ConvolutionGeometry, TransposedConvolution

Array = npt.NDArray[Any]

WORKERS = 2  # threads of everything that is compared
DTYPES = ("float64", "float32")
DIRECTIONS = ("forward", "adjoint")
BATCHES = (1, 8)


@dataclass(frozen=True, eq=False)
class Workload:
    """A kernel and the shape of what it is applied to; of a transposed convolution, if it is one."""

    name: str
    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    transposed: bool = False
    quick: bool = True  # whether a quick run takes it: not where some package needs long
    separable: bool = False  # whether the kernel is an outer product, of one channel

    def kernel(self, dtype: str) -> Array:
        """Return random values, or the outer product of the vectors."""
        if self.separable:
            return reduce(np.multiply.outer, self.vectors(dtype))  # type: ignore[no-any-return]
        return np.random.default_rng(7).standard_normal(self.kernel_shape).astype(dtype)

    def vectors(self, dtype: str) -> list[Array]:
        """Return random values for each axis, of which a separable kernel is the outer product."""
        generator = np.random.default_rng(7)
        return [generator.standard_normal(length).astype(dtype) for length in self.kernel_shape]

    def operator(
        self, dtype: str, engine: str = "auto", kernel: Array | None = None
    ) -> Convolution | TransposedConvolution:
        """Return the operator whose product is the forward one, with the kernel given, or else its own."""
        kind = TransposedConvolution if self.transposed else Convolution
        kernel = self.kernel(dtype) if kernel is None else kernel
        return kind(kernel, self.input_shape, **self.options, engine=engine, workers=WORKERS)

    @cached_property
    def geometry(self) -> ConvolutionGeometry:
        """The integers of the convolution, also of a transposed one."""
        kind = ConvolutionGeometry.of_transposed if self.transposed else ConvolutionGeometry
        return kind(self.kernel_shape, self.input_shape, **self.options)


@dataclass(frozen=True, eq=False)
class Product:
    """What is timed: a convolution or its adjoint, of so many arrays of some dtype."""

    workload: Workload
    dtype: str
    adjoint: bool
    batch: int

    def __str__(self) -> str:
        return f"{self.workload.name} {self.direction} {self.dtype} ×{self.batch}"

    @property
    def direction(self) -> str:
        """Forward or adjoint."""
        return DIRECTIONS[self.adjoint]

    @property
    def geometry(self) -> ConvolutionGeometry:
        """The integers of the convolution."""
        return self.workload.geometry

    @property
    def transposed(self) -> bool:
        """Whether the product is with Wᵀ: the adjoint of a transposed convolution is a convolution."""
        return self.workload.transposed != self.adjoint

    @cached_property
    def x(self) -> Array:
        """Random values (B, *input_shape)."""
        geometry = self.geometry
        shape = geometry.output_shape if self.transposed else geometry.input_shape
        return np.random.default_rng(8).standard_normal((self.batch, *shape)).astype(self.dtype)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape (B, *output_shape) of the result."""
        geometry = self.geometry
        return self.batch, *(geometry.input_shape if self.transposed else geometry.output_shape)

    @cached_property
    def kernel(self) -> Array:
        """The operator's kernel as (C_out, C_in / groups, *k), whether or not there are channels."""
        geometry = self.geometry
        shape = (geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.spatial_kernel)
        return self.workload.kernel(self.dtype).reshape(shape)

    @property
    def images(self) -> Array:
        """The values `x` as (B, C, *spatial), whether or not there are channels."""
        return self.x.reshape(self.batch, -1, *self.x.shape[-len(self.geometry.axes) :])


def products(
    workloads: Iterable[Workload], dtypes: Iterable[str] = DTYPES, batches: Iterable[int] = BATCHES
) -> Iterator[Product]:
    """Yield all products, those that share an operator after each other, and a batch after the single array."""
    for workload, dtype, adjoint, batch in product(workloads, dtypes, (False, True), batches):
        yield Product(workload, dtype, adjoint, batch)


_SAME = {"padding": "same"}

WORKLOADS = (
    Workload("image-3", (3, 3), (1024, 1024), _SAME),
    Workload("image-7", (7, 7), (1024, 1024), _SAME),
    Workload("image-31", (31, 31), (1024, 1024), _SAME, quick=False),
    Workload("rgb-5", (3, 3, 5, 5), (3, 512, 512), _SAME),
    Workload("stem", (64, 3, 7, 7), (3, 224, 224), {"stride": 2, "padding": 3}),
    Workload("mid", (64, 64, 3, 3), (64, 56, 56), _SAME),
    Workload("deep", (256, 256, 3, 3), (256, 14, 14), _SAME, quick=False),
    Workload("depthwise", (192, 1, 5, 5), (192, 32, 32), {**_SAME, "groups": 192}),
    Workload("pointwise", (96, 96, 1, 1), (96, 40, 40)),
    Workload("up", (128, 64, 4, 4), (128, 32, 32), {"stride": 2, "padding": 1}, transposed=True),
    Workload("dilated", (32, 32, 3, 3), (32, 64, 64), {**_SAME, "dilation": 2}),
    Workload("audio-stft", (258, 1, 256), (1, 48_000), {"stride": 128}),
    Workload("audio-tcn", (64, 64, 9), (64, 16_000), _SAME),
    Workload("volume", (3, 3, 3), (128, 128, 128), _SAME, quick=False),
    Workload("volume-c", (8, 8, 3, 3, 3), (8, 48, 48, 48), _SAME),
)
# Only where they are asked for by name: kernels that are outer products, which others do axis by axis as well.
OUTER_PRODUCTS = (
    Workload("outer-7", (7, 7), (1024, 1024), _SAME, separable=True),
    Workload("outer-15", (15, 15), (1024, 1024), _SAME, separable=True),
    Workload("outer-31", (31, 31), (1024, 1024), _SAME, separable=True),
    Workload("outer-volume-9", (9, 9, 9), (96, 96, 96), _SAME, separable=True),
)
