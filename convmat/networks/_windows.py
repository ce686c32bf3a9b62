"""Rows of a product of convolutions' matrices, each as the small window of an image that it reads.

A row of a convolution's matrix, seen as an image, is zero but for a window. So is a row of a product of such matrices, and
multiplying it by one more is a transposed convolution of that window: a dense product for all rows at once, where a product
of sparse matrices would look up each number by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat._runtime import quietly
from convmat.geometry import Array, Border, IntArray
from convmat.networks._convolution_map import ConvolutionMap
from convmat.networks._maps import Diagonal, LinearMap, Shape, csr
from convmat.operators import Convolution, correlation_kernel

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Windows:
    """Rows of a matrix whose columns are numbers of an array (1, C, *sizes).

    Attributes
    ----------
    shape : tuple of int
        That of the array, (C, *sizes).
    starts : tuple of int64 array (R,)
        For each axis, where the window of each row begins; it may lie outside in part.
    data : array (R, *window, C)
        The values, zero where there is no nonzero.
    channels : bool array (R, C)
        In which channels a row has nonzeros,
    reach : tuple of bool array (R, w)
        and at which positions of its window along each axis: it has one wherever all say so.
    """

    shape: Shape
    starts: tuple[IntArray, ...]
    data: Array
    channels: Flags
    reach: tuple[Flags, ...]

    @classmethod
    def of_rows(cls, shape: Shape, rows: IntArray, dtype: Any) -> Windows | None:
        """Return rows of the identity for arrays of a shape (1, C, *sizes), or None if it has another number of axes."""
        if len(shape) < 3 or shape[0] != 1:
            return None
        own = shape[1:]
        channel, *places = np.unravel_index(rows, own)
        there = channel[:, None] == np.arange(own[0])
        data = there.astype(dtype).reshape(len(rows), *(1 for _ in places), own[0])
        reach = tuple(np.ones((len(rows), 1), bool) for _ in places)
        return cls(own, tuple(np.asarray(place, np.int64) for place in places), data, there, reach)

    def times(self, each: LinearMap) -> Windows | None:
        """Return the product with a map, or None if its rows are no windows."""
        if isinstance(each, Diagonal):
            return self._scaled(each.factors)
        if not isinstance(each, ConvolutionMap) or not isinstance(each.operator, Convolution) or each.outer != (1,):
            return None
        if any(
            axis.border is not Border.NOTHING and (axis.before or axis.overrun) for axis in each.operator.geometry.axes
        ):
            return None
        return quietly(self._convolved, each.operator).cropped()

    def _scaled(self, factors: Array) -> Windows:
        """Return the windows times factors (1, C, *sizes)."""
        count, axes = len(self.data), range(len(self.starts))
        places = []
        for axis in axes:
            positions = np.clip(self._positions(axis), 0, self.shape[axis + 1] - 1)
            places.append(positions.reshape(count, *(-1 if other == axis else 1 for other in axes)))
        moved = np.moveaxis(factors[0], 0, -1)
        return replace(self, data=self.data * moved[tuple(places)])

    def _positions(self, axis: int) -> IntArray:
        return self.starts[axis][:, None] + np.arange(self.reach[axis].shape[1])

    def _convolved(self, operator: Convolution) -> Windows:
        """Return the product with the matrix of a convolution: through each tap, each channel moves to others."""
        geometry = operator.geometry
        groups, axes = geometry.groups, geometry.axes
        kernel = correlation_kernel(operator)
        data = self.data.reshape(*self.data.shape[:-1], groups, -1)
        sizes = [
            (reach.shape[1] - 1) * axis.stride + axis.reach + 1 for reach, axis in zip(self.reach, axes, strict=True)
        ]
        inner = kernel.shape[1]
        result = np.zeros((len(data), *sizes, groups, inner), self.data.dtype)
        weights = kernel.reshape(groups, -1, *kernel.shape[1:])
        for taps in np.ndindex(*geometry.spatial_kernel):
            place = tuple(
                slice(tap * axis.dilation, tap * axis.dilation + (size - 1) * axis.stride + 1, axis.stride)
                for tap, axis, size in zip(taps, axes, self.data.shape[1:-1], strict=True)
            )
            own = weights[(slice(None), slice(None), slice(None), *taps)]
            result[(slice(None), *place)] += (data[..., None, :] @ own)[..., 0, :] if groups > 1 else data @ own[0]
        starts = tuple(start * axis.stride - axis.before for start, axis in zip(self.starts, axes, strict=True))
        channels = np.repeat(self.channels.reshape(-1, groups, self.shape[0] // groups).any(axis=2), inner, axis=1)
        reach = tuple(map(_spread, self.reach, axes, sizes))
        shape = geometry.input_shape
        return Windows(shape, starts, result.reshape(*result.shape[:-2], -1), channels, reach)._inside()

    def _inside(self) -> Windows:
        """Return the windows without what lies outside the array."""
        data, reach = self.data, []
        for axis, own in enumerate(self.reach):
            positions = self._positions(axis)
            inside = (positions >= 0) & (positions < self.shape[axis + 1])
            reach.append(own & inside)
            if not inside.all():
                shape = (len(data), *(-1 if other == axis else 1 for other in range(len(self.reach))), 1)
                data = data * inside.reshape(shape)
        return replace(self, data=data, reach=tuple(reach))

    def cropped(self) -> Windows:
        """Return the windows, no longer than the array: those that are have all of it."""
        own = self
        for axis, size in enumerate(self.shape[1:]):
            if own.reach[axis].shape[1] > size:
                own = own._moved(axis, np.zeros(len(own.data), np.int64), size)
        return own

    def _moved(self, axis: int, starts: IntArray, size: int) -> Windows:
        """Return windows that begin elsewhere along an axis, and have another size."""
        places = starts[:, None] + np.arange(size) - self.starts[axis][:, None]
        inside = (places >= 0) & (places < self.reach[axis].shape[1])
        places = np.where(inside, places, 0)
        shape = (len(places), *(-1 if other == axis else 1 for other in range(len(self.reach))), 1)
        data = np.take_along_axis(self.data, places.reshape(shape), axis + 1) * inside.reshape(shape)
        reach = np.take_along_axis(self.reach[axis], places, 1) & inside
        exchanged = list(self.starts), list(self.reach)
        exchanged[0][axis], exchanged[1][axis] = starts, reach
        return replace(self, data=data, starts=tuple(exchanged[0]), reach=tuple(exchanged[1]))

    def plus(self, other: Windows) -> Windows | None:
        """Return a sum, or None if the nonzeros of neither are among the other's."""
        first, second = self, other
        for axis in range(len(self.reach)):
            begins = np.minimum(first.starts[axis], second.starts[axis])
            ends = [each.starts[axis] + each.reach[axis].shape[1] for each in (first, second)]
            size = int((np.maximum(*ends) - begins).max(initial=1))
            first, second = first._moved(axis, begins, size), second._moved(axis, begins, size)
        pairs = [(first.channels, second.channels), *zip(first.reach, second.reach, strict=True)]
        for large, is_within in ((first, [b <= a for a, b in pairs]), (second, [a <= b for a, b in pairs])):
            if all(each.all() for each in is_within):
                return replace(large, data=first.data + second.data)
        return None

    def tocsr(self) -> sparse.csr_array:
        """Return the rows as a canonical CSR array."""
        count = len(self.data)
        axes = [self.channels, *self.reach]
        places = [np.broadcast_to(np.arange(self.shape[0]), self.channels.shape)]
        places += [self._positions(axis) for axis in range(len(self.reach))]
        inside, columns = np.ones((count, 1), bool), np.zeros((count, 1), np.int64)
        for there, place, size in zip(axes, places, self.shape, strict=True):
            inside = (inside[:, :, None] & there[:, None]).reshape(count, -1)
            columns = (columns[:, :, None] * size + place[:, None]).reshape(count, -1)
        values = np.moveaxis(self.data, -1, 1).reshape(count, -1)
        return csr(inside.sum(axis=1), columns[inside], values[inside], prod(self.shape))


def sum_of(windows: Sequence[Windows]) -> Windows | None:
    """Return a sum of windows, or None if it is no window."""
    total: Windows | None = windows[0]
    for each in windows[1:]:
        total = None if total is None else total.plus(each)
    return total


def _spread(reach: Flags, axis: Any, size: int) -> Flags:
    """Return what a convolution reads along an axis, of windows at whose positions something is read."""
    result = np.zeros((len(reach), size), bool)
    for tap in range(axis.taps):
        first = tap * axis.dilation
        result[:, first : first + (reach.shape[1] - 1) * axis.stride + 1 : axis.stride] |= reach
    return result
