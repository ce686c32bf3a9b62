"""Derivatives of what normalises groups of numbers: a scaling, less a few vectors."""

from __future__ import annotations

from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat.geometry import Array, IntArray
from convmat.networks._maps import LinearMap, csr
from convmat.networks._patterns import Pattern, full_pattern


class Projection(LinearMap):
    """diag(left)·(I − Σᵢ uᵢ·uᵢᵀ)·diag(right), for the numbers along some axes of an array, each group by itself.

    Parameters
    ----------
    left, right : array
        Of the array's shape.
    vectors : array (count, *shape)
        The uᵢ of all groups.
    axes : tuple of int
        The axes, negative.
    """

    def __init__(self, left: Array, vectors: Array, right: Array, axes: tuple[int, ...]) -> None:
        self.left, self.vectors, self.right, self.axes = left, vectors, right, axes
        self._set(right.dtype, right.shape, right.shape)

    def _forward(self, x: Array) -> Array:
        return self._product(self.left, x * self.right)

    def _backward(self, y: Array) -> Array:
        return self._product(self.right, y * self.left)

    def _product(self, factors: Array, x: Array) -> Array:
        result = x.copy()
        for vector in self.vectors:
            result -= vector * (vector * x).sum(axis=self.axes, keepdims=True)
        return result * factors

    @cached_property
    def _groups(self) -> IntArray:
        """The flat indices of each group's numbers, ascending."""
        numbers = np.arange(self.shape[0]).reshape(self.input_shape)
        count = len(self.axes)
        size = prod(self.input_shape[axis] for axis in self.axes)
        return np.moveaxis(numbers, sorted(self.axes), range(-count, 0)).reshape(-1, size)

    @cached_property
    def _own(self) -> IntArray:
        """The group of each number."""
        own = np.empty(self.shape[0], np.int64)
        own[self._groups] = np.arange(len(self._groups))[:, None]
        return own

    def take(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the matrix."""
        columns = self._groups[self._own[rows]]
        values = (columns == rows[:, None]).astype(self.dtype)
        for vector in self.vectors.reshape(len(self.vectors), -1):
            values -= vector[rows, None] * vector[columns]
        values *= self.left.ravel()[rows, None] * self.right.ravel()[columns]
        return csr(np.full(len(rows), columns.shape[1]), columns.ravel(), values.ravel(), self.shape[1])

    def absolute(self) -> LinearMap:
        """Refuse: bounds of what normalises are its own."""
        raise NotImplementedError("there are closer bounds than those of the derivative")

    def astype(self, dtype: npt.DTypeLike) -> Projection:
        """Return the map in another dtype."""
        return Projection(self.left.astype(dtype), self.vectors.astype(dtype), self.right.astype(dtype), self.axes)

    @property
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""
        places = {axis % len(self.input_shape) for axis in self.axes}
        axes = [full_pattern(size, size) if axis in places else None for axis, size in enumerate(self.input_shape)]
        return Pattern(self.input_shape, self.output_shape, tuple(axes))
