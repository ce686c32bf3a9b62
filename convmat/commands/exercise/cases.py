"""The convolutions of the exercise: a ladder of image sizes, a ladder of kernel sizes, and layers of networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from convmat.geometry import Array, ConvolutionGeometry


@dataclass(frozen=True, eq=False)
class Case:
    """A convolution of one image with channels, and arrays for it.

    Attributes
    ----------
    name : str
        Its name in tables and results.
    kernel_shape : tuple of int
        ``(C_out, C_in // groups, h, w)``.
    input_shape : tuple of int
        ``(C_in, H, W)``.
    options : dict
        Stride, padding, dilation and groups, as `Convolution` takes them; the padding is zeros.
    brief : bool
        Whether a run of about a minute includes it.
    dtype : str
        The dtype of all arrays.
    """

    name: str
    kernel_shape: tuple[int, int, int, int]
    input_shape: tuple[int, int, int]
    options: dict[str, Any] = field(default_factory=lambda: {"padding": "same"})
    brief: bool = True
    dtype: str = "float64"

    def __str__(self) -> str:
        outer, inner, h, w = self.kernel_shape
        groups = self.geometry.groups
        channels = "1 channel" if outer == inner * groups == 1 else f"{inner * groups} → {outer} channels"
        grouped = f" in {groups} groups" if groups > 1 else ""
        return f"{h} × {w} on {self.input_shape[1]} × {self.input_shape[2]}, {channels}{grouped}"

    @cached_property
    def geometry(self) -> ConvolutionGeometry:
        """The integers of the convolution."""
        return ConvolutionGeometry(self.kernel_shape, self.input_shape, **self.options)

    @property
    def single(self) -> bool:
        """Whether it has one channel in and one out."""
        return self.geometry.in_channels == self.geometry.out_channels == 1

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return np.dtype(self.dtype).itemsize

    @cached_property
    def kernel(self) -> Array:
        """Random values ``(C_out, C_in // groups, h, w)``."""
        return self._random(7, self.kernel_shape)

    @cached_property
    def x(self) -> Array:
        """Random values ``(C_in, H, W)`` to convolve."""
        return self._random(8, self.input_shape)

    @cached_property
    def y(self) -> Array:
        """Random values ``(C_out, H_out, W_out)`` to apply the transpose to."""
        return self._random(9, self.geometry.output_shape)

    def _random(self, seed: int, shape: tuple[int, ...]) -> Array:
        return np.random.default_rng(seed).standard_normal(shape).astype(self.dtype)


def square(name: str, size: int, kernel: int, channels: int = 1, **options: Any) -> Case:
    """Return the convolution of a square image with a square kernel; the output has the same size and channels."""
    return Case(name, (channels, channels, kernel, kernel), (channels, size, size), **options)


SIZES = tuple(square(f"size-{n}", n, 3) for n in (32, 64, 256, 1024))
KERNELS = tuple(square(f"kernel-{k}", 256, k) for k in (7, 15, 31))
LAYERS = (
    Case("stem", (64, 3, 7, 7), (3, 224, 224), {"stride": 2, "padding": 3}, brief=False),
    square("mid", 56, 3, 64),
    square("deep", 14, 3, 256, brief=False),
    Case("depthwise", (192, 1, 5, 5), (192, 32, 32), {"padding": "same", "groups": 192}),
    square("pointwise", 40, 1, 96),
)
CASES = SIZES + KERNELS + LAYERS
