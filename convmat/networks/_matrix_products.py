"""Products of two arrays of matrices that both depend on the input, as in attention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat._runtime import quietly
from convmat.geometry import Array, IntArray
from convmat.networks._functions import Function, Interval
from convmat.networks._maps import LinearMap, Shape, csr
from convmat.networks._patterns import Full, Pattern

_UNIT = 2.0**-53
_LEAST = 2.0**-1074


class Stack(LinearMap):
    """Arrays of matrices (*outer, m, n), each multiplied by a matrix of its own, from the left or from the right.

    Parameters
    ----------
    matrices : array (*outer, k, m) or (*outer, n, k)
        The matrices that are multiplied by.
    shape : tuple of int
        Shape of what goes in.
    is_left : bool
        Whether they stand on the left.
    """

    def __init__(self, matrices: Array, shape: Shape, is_left: bool) -> None:
        self.matrices, self.is_left = matrices, is_left
        last = (matrices.shape[-2], shape[-1]) if is_left else (shape[-2], matrices.shape[-1])
        self._set(matrices.dtype, shape, (*shape[:-2], *last))

    def _forward(self, x: Array) -> Array:
        product: Array = np.matmul(self.matrices, x) if self.is_left else np.matmul(x, self.matrices)
        return product

    def _backward(self, y: Array) -> Array:
        turned = self.matrices.swapaxes(-1, -2)
        product: Array = np.matmul(turned, y) if self.is_left else np.matmul(y, turned)
        return product

    def take(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the matrix."""
        height, width = self.output_shape[-2:]
        inner, length = self.input_shape[-2:]
        item, place = np.divmod(rows, height * width)
        line, column = np.divmod(place, width)
        flat = self.matrices.reshape(-1, *self.matrices.shape[-2:])
        if self.is_left:
            values = flat[item, line]
            columns = np.arange(inner) * length + column[:, None]
        else:
            values = flat[item, :, column]
            columns = np.arange(length) + (line * length)[:, None]
        columns = columns + (item * inner * length)[:, None]
        return csr(np.full(len(rows), columns.shape[1]), columns.ravel(), values.ravel(), self.shape[1])

    def absolute(self) -> Stack:
        """Return the map with the magnitudes of the matrix."""
        return Stack(abs(self.matrices), self.input_shape, self.is_left)

    def structure(self) -> Stack:
        """Return a map with the same nonzeros, all of them positive."""
        return Stack(np.ones_like(self.matrices), self.input_shape, self.is_left)

    def astype(self, dtype: npt.DTypeLike) -> Stack:
        """Return the map in another dtype."""
        return Stack(self.matrices.astype(dtype), self.input_shape, self.is_left)

    @cached_property
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""
        rows, columns = self.matrices.shape[-2:]
        own = Full((rows, columns)) if self.is_left else Full((columns, rows))
        last = (own, None) if self.is_left else (None, own)
        return Pattern(self.input_shape, self.output_shape, (*(None for _ in self.input_shape[:-2]), *last))


@dataclass(frozen=True)
class MatrixProduct(Function):
    """The products of two arrays of matrices (*outer, m, k) and (*outer, k, n).

    Attributes
    ----------
    first, second : tuple of int
        Their shapes.
    """

    first: Shape
    second: Shape
    op: str = "MatMul"

    @property
    def output_shape(self) -> Shape:  # type: ignore[override]
        """Shape of what comes out."""
        return (*self.first[:-1], self.second[-1])

    def value(self, *arrays: Array) -> Array:
        """Return the values for arrays with the same batch axes in front."""
        first, second = arrays
        product: Array = quietly(np.matmul, first, second)
        return product

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative for each array, at a point."""
        first, second = arrays
        return Stack(second, self.first, False), Stack(first, self.second, True)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values, by the middles and half widths of both arrays."""
        middles = [low / 2 + high / 2 for low, high in intervals]
        if not all(np.isfinite(middle).all() for middle in middles):
            nothing = np.full(self.output_shape, np.inf)
            return Interval(-nothing, nothing)
        radii = [
            np.nextafter(np.maximum(high - middle, middle - low), np.inf)
            for (low, high), middle in zip(intervals, middles, strict=True)
        ]
        sizes = [abs(middle) for middle in middles]
        count = self.first[-1] + 8
        gamma = count * _UNIT / (1 - count * _UNIT)
        centre = quietly(np.matmul, *middles)
        parts = [(sizes[0], radii[1]), (radii[0], sizes[1]), radii, sizes]
        *products, whole = (quietly(np.matmul, *pair) for pair in parts)
        spread = sum(products)
        reach = (spread + gamma * whole) * (1 + 4 * gamma + 8 * _UNIT) + 4 * count * _LEAST
        return Interval(np.nextafter(centre - reach, -np.inf), np.nextafter(centre + reach, np.inf))


def fitting_shapes(first: Shape, second: Shape) -> tuple[Shape, Shape]:
    """Return the shapes that two arrays of matrices have when their outer axes are alike.

    Raises
    ------
    ValueError
        If they do not fit together.
    """
    if len(first) < 2 or len(second) < 2 or first[-1] != second[-2]:
        raise ValueError(f"matrices must fit together, got shapes {first} and {second}")
    outer = np.broadcast_shapes(first[:-2], second[:-2])
    return (*outer, *first[-2:]), (*outer, *second[-2:])
