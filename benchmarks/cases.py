"""Convolutions of realistic sizes, as the benchmarks take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from convmat import ConvolutionGeometry, convolution_matrix, transposed_convolution_matrix


@dataclass(frozen=True, eq=False)
class Case:
    """A kernel and the shape that it is applied to."""

    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float64"
    flip: bool = False
    quick: bool = False  # whether a quick run takes it

    @property
    def name(self) -> str:
        """What a table calls it."""
        geometry = self.geometry
        words = []
        if geometry.has_channels:
            words.append(f"{geometry.in_channels}→{geometry.out_channels}")
        words.append("×".join(map(str, geometry.spatial_input)))
        kernel = "×".join(map(str, geometry.spatial_kernel))
        words.append(kernel if len(geometry.axes) > 1 else f"{kernel} taps")
        shown = (option for option in ("stride", "dilation", "groups") if option in self.options)
        words += [f"{option} {self.options[option]}" for option in shown]
        if isinstance(self.options.get("padding"), str):
            words.append(self.options["padding"])
        if geometry.padding_mode != "zeros":
            words.append(geometry.padding_mode)
        return " ".join(words) + " f32" * (self.dtype == "float32")

    @cached_property
    def geometry(self) -> ConvolutionGeometry:
        """Its integers."""
        return ConvolutionGeometry(self.kernel_shape, self.input_shape, **self.options)

    @cached_property
    def kernel(self) -> npt.NDArray[Any]:
        """Random values, none of them zero."""
        return np.random.default_rng(7).uniform(0.5, 1.5, self.kernel_shape).astype(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of W."""
        return self.geometry.matrix_nbytes(self.dtype)

    def builder(self, transposed: bool = False, workers: int | None = 1) -> Callable[[], Any]:
        """Return the call that builds W or Wᵀ."""
        kernel, geometry = self.kernel, self.geometry
        options = {**self.options, "flip": self.flip, "workers": workers}
        if transposed:
            return lambda: transposed_convolution_matrix(
                kernel, geometry.output_shape, output_shape=geometry.input_shape, **options
            )
        return lambda: convolution_matrix(kernel, geometry.input_shape, **options)


def _same(*kernel: int) -> dict[str, Any]:
    return {"padding": tuple(taps // 2 for taps in kernel)}


def _case(
    kernel: tuple[int, ...], shape: tuple[int, ...], *, quick: bool = False, dtype: str = "float64", **options: Any
) -> Case:
    """Return a case with padding that keeps the size, for each unit of stride."""
    spatial = kernel[-(len(shape) if len(kernel) == len(shape) else len(shape) - 1) :]
    return Case(kernel, shape, {**_same(*spatial), **options}, dtype, quick=quick)


# W of 64 MB or more, up to 5 taps an axis.
LARGE = (
    _case((3,), (4_000_000,)),
    _case((5,), (2_000_000,), quick=True),
    _case((4,), (8_000_000,), stride=2, padding=1),
    _case((32, 32, 5), (32, 4096), dtype="float32"),
    _case((3, 3), (1024, 1024), quick=True),
    _case((5, 5), (1024, 1024)),
    _case((5, 5), (1024, 1024), stride=2),
    _case((3, 3), (1024, 1024), dilation=4, padding=4),
    _case((3, 1, 3, 3), (3, 1536, 2048), groups=3),
    _case((16, 16, 3, 3), (16, 112, 112)),
    _case((64, 32, 3, 3), (32, 56, 56), stride=2, quick=True),
    _case((64, 64, 3, 3), (64, 56, 56)),
    _case((64, 64, 3, 3), (64, 56, 56), dtype="float32"),
    _case((3, 3, 3), (96, 96, 96)),
    _case((3, 3, 3), (128, 128, 128), stride=2),
    _case((5, 5, 5), (64, 64, 64)),
    _case((8, 8, 3, 3, 3), (8, 32, 32, 32), dtype="float32"),
)

# W of 64 MB or more, 6 to 15 taps on an axis.
LARGE_LONG = (
    _case((15,), (1_000_000,), quick=True),
    _case((9,), (2_000_000,), stride=2),
    _case((7, 7), (1024, 1024)),
    _case((11, 11), (1024, 1024), stride=2),
    _case((15, 15), (512, 512)),
    _case((3, 15), (1024, 1024), quick=True),
    _case((32, 1, 7, 7), (32, 112, 112), groups=32),
    _case((64, 3, 7, 7), (3, 224, 224), stride=2, dtype="float32"),
    _case((7, 7, 7), (64, 64, 64)),
    _case((9, 9, 9), (64, 64, 64), stride=2),
)

# From a million nonzeros to 64 MB.
MEDIUM = (
    _case((3,), (1_000_000,), quick=True),
    _case((9,), (200_000,)),
    _case((8,), (500_000,), stride=2, padding=3),
    _case((3, 3), (512, 512)),
    _case((5, 5), (256, 256), quick=True),
    _case((7, 7), (512, 512), stride=2),
    _case((32, 16, 3, 3), (16, 28, 28)),
    _case((64, 64, 1, 1), (64, 28, 28)),
    _case((64, 3, 7, 7), (3, 32, 32), stride=2, dtype="float32"),
    _case((3, 3, 3), (48, 48, 48), quick=True),
    _case((4, 4, 4), (64, 64, 64), stride=2, padding=1),
)

# The other padding modes, of any size.
MODES = (
    _case((15,), (1_000_000,), padding_mode="symmetric"),
    _case((5, 5), (1024, 1024), padding_mode="circular"),
    _case((3, 3), (1024, 1024), padding_mode="reflect", quick=True),
    _case((7, 7), (1024, 1024), stride=2, padding_mode="reflect"),
    _case((5, 5), (256, 256), padding_mode="symmetric"),
    _case((16, 16, 3, 3), (16, 112, 112), padding_mode="circular"),
    _case((5, 5, 5), (64, 64, 64), padding_mode="replicate"),
)

# About ten thousand nonzeros; the limit is for zeros padding.
SMALL = (
    _case((5,), (2000,)),
    Case((100,), (200,), {"padding": "valid"}, flip=True, quick=True),
    _case((3, 3), (34, 34), quick=True),
    _case((7, 7), (28, 28), stride=2),
    _case((3, 3, 3), (8, 8, 8)),
    _case((16, 16, 3, 3), (16, 3, 3)),
    _case((8, 4, 3, 3), (4, 7, 7), quick=True),
    _case((3, 3), (34, 34), padding_mode="reflect"),
)

# What the peers can do as well. PyLops applies its operator once for each column.
SHARED = (
    _case((9,), (200_000,), quick=True),
    Case((5, 5), (48, 48), {"padding": "same"}, flip=True, quick=True),
    Case((5, 5), (256, 256), {"padding": "full"}, flip=True),
    _case((3, 3), (1024, 1024)),
    _case((5, 5), (512, 512), stride=2),
    _case((16, 8, 3, 3), (8, 56, 56)),
    _case((3, 3, 3), (48, 48, 48)),
)

# Two workers against one, peak memory, and products: a few of W's shapes.
THREADED = (
    _case((5,), (2_000_000,)),
    _case((5, 5), (1024, 1024)),
    _case((5, 5), (1024, 1024), stride=2, quick=True),
    _case((16, 16, 3, 3), (16, 112, 112)),
    _case((64, 3, 7, 7), (3, 224, 224), stride=2, dtype="float32"),
    _case((5, 5, 5), (64, 64, 64)),
)
MEMORY = (
    _case((5,), (2_000_000,)),
    _case((3, 3), (1024, 1024), quick=True),
    _case((16, 16, 3, 3), (16, 112, 112)),
)
PRODUCTS = (
    _case((9,), (2_000_000,)),
    _case((5, 5), (1024, 1024)),
    _case((16, 16, 3, 3), (16, 112, 112)),
    _case((5, 5, 5), (64, 64, 64), quick=True),
    _case((5, 5), (1024, 1024), dtype="float32"),
    _case((16, 16, 3, 3), (16, 112, 112), dtype="float32"),
    _case((5, 5, 5), (64, 64, 64), dtype="float32", quick=True),
)
