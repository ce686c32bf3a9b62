"""What W is made of: groups of channels that do not see each other, and factors of a Kronecker product.

W does not mix groups: its singular values are those of all groups. Where the kernel of a group is an outer product of
one vector for some axes and of an array for the others, its part of W is a Kronecker product, up to the order of rows
and columns, and has the products of the factors' singular values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from convmat._runtime import call_single_threaded
from convmat.geometry import MODES, Array, Axis, Border, binary_scale
from convmat.operators import Convolution, TransposedConvolution, correlation_kernel

Operator = Convolution | TransposedConvolution

T = TypeVar("T")

_SMALL = 800  # singular values of a matrix from which on a second thread pays
_RANK_ONE = 4  # times float64's rounding, of a kernel's largest value: what an outer product may leave of the kernel


@dataclass(frozen=True)
class Part:
    """A convolution of several groups, in double precision.

    Attributes
    ----------
    kernel : array (G, C_out, C_in, *k)
        The kernel of each group.
    axes : tuple of Axis
        The spatial axes; there may be none.
    scale : float
        The power of two that the kernel has been divided by, so that nothing overflows or vanishes in a square.
    """

    kernel: Array
    axes: tuple[Axis, ...]
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a group's matrix."""
        _, outer, inner = self.kernel.shape[:3]
        return outer * prod(axis.outputs for axis in self.axes), inner * prod(axis.size for axis in self.axes)

    @property
    def count(self) -> int:
        """The number of singular values of a group's matrix."""
        return min(self.shape)

    def groups(self) -> list[Part]:
        """Return the groups, each alone."""
        return [Part(self.kernel[number : number + 1], self.axes) for number in range(len(self.kernel))]

    def operator(self, **options: Any) -> Convolution:
        """Return W of all groups as an operator; `options` are those of `Convolution` for its products."""
        axes = self.axes or (Axis(1, 1, outputs=1),)
        groups, outer, inner = self.kernel.shape[:3]
        transpose = TransposedConvolution(
            self.kernel.reshape(groups * outer, inner, *(axis.taps for axis in axes)),
            (groups * outer, *(axis.outputs for axis in axes)),
            groups=groups,
            stride=[axis.stride for axis in axes],
            padding=[(axis.before, axis.after) for axis in axes],
            dilation=[axis.dilation for axis in axes],
            padding_mode=axes[0].mode,
            output_shape=(groups * inner, *(axis.size for axis in axes)),
            **options,
        )
        return transpose.T  # type: ignore[return-value]

    @property
    def is_periodic(self) -> bool:
        """Whether all axes are circles that the outputs' steps fill."""
        return all(map(_is_circle, self.axes))

    @property
    def is_even(self) -> bool:
        """Whether the kernel is even in each axis, and all axes are mirrored with their edge, as a DCT-II takes them."""
        return all(_is_mirrored(axis) for axis in self.axes) and all(
            np.array_equal(self.kernel, np.flip(self.kernel, 3 + number)) for number in range(len(self.axes))
        )

    @property
    def is_diagonal(self) -> bool:
        """Whether a transform makes W block diagonal."""
        return self.is_periodic or self.is_even

    def pieces(self) -> list[list[Part]]:
        """Return what the singular values are made of: those of all lists together, each the products of its factors'.

        That is the part itself where a transform makes it block diagonal, or the factors of each group. An axis with a
        single tap is a factor in any case: the blocks of all its frequencies are the same.
        """
        if self.is_diagonal and all(axis.taps > 1 for axis in self.axes):
            return [[self]]
        return [group.factors() for group in self.groups()]

    def without(self, number: int) -> Part:
        """Return all groups but one."""
        return Part(np.delete(self.kernel, number, axis=0), self.axes)

    def factors(self) -> list[Part]:
        """Return the factors of a single group: one for each axis whose vector the kernel contains, then what remains."""
        factors, kernel, axes = [], self.kernel, list(self.axes)
        for axis in self.axes:
            place = 3 + axes.index(axis)
            split = _split(kernel, place)
            is_alone = len(axes) == 1 and kernel.shape[1:3] == (1, 1)
            if split is not None and not is_alone:
                vector, kernel = split
                factors.append(Part(vector[None, None, None], (axis,)))
                axes.remove(axis)
        return [*factors, Part(kernel, tuple(axes))]


def part_of(A: Operator) -> Part:
    """Return W of an operator, or of the one that it transposes, which has the same singular values.

    Raises
    ------
    TypeError
        If `A` is no operator of this package for NumPy arrays.
    ValueError
        If its kernel has values that are not finite.
    """
    if not isinstance(A, Convolution | TransposedConvolution):
        raise TypeError(f"A must be a Convolution or a TransposedConvolution, got {type(A).__name__}")
    geometry, kernel = A.geometry, correlation_kernel(A)
    if not np.isfinite(kernel).all():
        raise ValueError("A must have a kernel of finite values, got one with NaN or infinite values")
    groups = geometry.groups
    shape = groups, geometry.out_channels // groups, geometry.in_channels // groups, *geometry.spatial_kernel
    wide = kernel.astype(np.result_type(kernel.dtype, np.float64))
    scale = binary_scale(wide)
    return Part(wide.reshape(shape) / scale, geometry.axes, scale)


def compute(part: Part, function: Callable[[], T]) -> T:
    """Return what a function returns; where the matrices of a part are small, BLAS has one thread meanwhile."""
    return call_single_threaded(function) if part.count <= _SMALL else function()


def _is_circle(axis: Axis) -> bool:
    around = axis.border is Border.SHIFTED or _is_in_place(axis)
    return around and axis.outputs * axis.stride == axis.size


def _is_mirrored(axis: Axis) -> bool:
    if axis.outputs != axis.size or axis.stride != 1:
        return False
    with_edge = axis.border is Border.MIRRORED and MODES[axis.mode].edge == 1
    return _is_in_place(axis) or (with_edge and 2 * axis.before == axis.reach)


def _is_in_place(axis: Axis) -> bool:
    """Tell whether outputs read the input where they are, and nowhere else."""
    return axis.taps == 1 and axis.before == 0 and axis.overrun == 0


def _split(kernel: Array, place: int) -> tuple[Array, Array] | None:
    """Return a kernel as an outer product of a vector for one axis and what remains, or None if it is none."""
    rows = np.moveaxis(kernel, place, 0).reshape(kernel.shape[place], -1)
    peak = np.unravel_index(abs(rows).argmax(), rows.shape)
    largest = rows[peak]
    if not largest:
        return None
    vector, rest = rows[:, peak[1]], rows[peak[0]]
    left = abs(rows - np.multiply.outer(vector / largest, rest)).max()
    if not left <= _RANK_ONE * np.finfo(np.float64).eps * abs(largest):
        return None
    shape = kernel.shape[:place] + kernel.shape[place + 1 :]
    return vector / largest, rest.reshape(shape)
