"""Derivatives of what normalises groups of numbers: a scaling, less a few vectors."""

from __future__ import annotations

from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat.geometry import Array, IntArray
from convmat.networks._maps import AxisProducts, LinearMap, csr
from convmat.networks._patterns import Full, Pattern


class Projection(LinearMap):
    """diag(left)·(I − Σᵢ uᵢ·vᵢᵀ)·diag(right), for the numbers along some axes of an array, each group by itself.

    Parameters
    ----------
    left, right : array
        Of the array's shape.
    outer, inner : array (count, *shape)
        The uᵢ and the vᵢ of all groups.
    axes : tuple of int
        The axes, negative.
    """

    def __init__(self, left: Array, outer: Array, inner: Array, right: Array, axes: tuple[int, ...]) -> None:
        self.left, self.outer, self.inner, self.right, self.axes = left, outer, inner, right, axes
        self._set(right.dtype, right.shape, right.shape)

    def _forward(self, x: Array) -> Array:
        return self._without(x * self.right, self.outer, self.inner) * self.left

    def _backward(self, y: Array) -> Array:
        return self._without(y * self.left, self.inner, self.outer) * self.right

    def _without(self, x: Array, outer: Array, inner: Array) -> Array:
        result = x.copy()
        for first, second in zip(outer, inner, strict=True):
            result -= first * (second * x).sum(axis=self.axes, keepdims=True)
        return result

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
        flat = (each.reshape(len(each), -1) for each in (self.outer, self.inner))
        for first, second in zip(*flat, strict=True):
            values -= first[rows, None] * second[columns]
        values *= self.left.ravel()[rows, None] * self.right.ravel()[columns]
        return csr(np.full(len(rows), columns.shape[1]), columns.ravel(), values.ravel(), self.shape[1])

    def absolute(self) -> LinearMap:
        """Refuse: bounds of what normalises are its own."""
        raise NotImplementedError("there are closer bounds than those of the derivative")

    def structure(self) -> AxisProducts:
        """Return a map with the same nonzeros, all of them positive."""
        sizes = {axis % len(self.input_shape): self.input_shape[axis] for axis in self.axes}
        return AxisProducts(self.input_shape, {axis: np.ones((n, n), self.dtype) for axis, n in sizes.items()})

    def astype(self, dtype: npt.DTypeLike) -> Projection:
        """Return the map in another dtype."""
        left, outer, inner, right = (each.astype(dtype) for each in (self.left, self.outer, self.inner, self.right))
        return Projection(left, outer, inner, right, self.axes)

    @property
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""
        places = {axis % len(self.input_shape) for axis in self.axes}
        axes = [Full((size, size)) if axis in places else None for axis, size in enumerate(self.input_shape)]
        return Pattern(self.input_shape, self.output_shape, tuple(axes))
