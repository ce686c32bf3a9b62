"""Which nonzeros matrices have, and how many their products will have, before any is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from convmat.geometry import IntArray, csr_nbytes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Full:
    """The pattern of an axis where all is nonzero, without a list of it.

    Attributes
    ----------
    shape : (int, int)
        Numbers of rows and of columns.
    """

    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        """The number of nonzeros."""
        return self.shape[0] * self.shape[1]


AxisPattern = sparse.csr_array | Full | None  # None is the identity


@dataclass(frozen=True)
class Pattern:
    """Nonzeros of a matrix between arrays.

    Where they are a product of one pattern for each axis, all is exact: products of such patterns are taken axis by axis.
    Otherwise only the number in each row is known, and may be less than is said.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Shapes of the arrays.
    axes : tuple of csr_array or None
        The pattern of each axis; None for the identity. Or None as a whole, where there is no such product.
    counts : int64 array, optional
        The number of nonzeros of each row, where `axes` does not say it.
    is_exact : bool
        Whether there are not fewer.
    keeps : bool
        Whether each row has one nonzero, and each column has: a product has as many nonzeros as its first matrix.
    """

    input_shape: Shape
    output_shape: Shape
    axes: tuple[AxisPattern, ...] | None
    counts: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    is_exact: bool = True
    keeps: bool = False

    @property
    def nnz(self) -> int:
        """The number of nonzeros."""
        if self.axes is None:
            return int(self.counts.sum())
        sizes = zip(self.axes, self.output_shape, strict=True)
        return prod(size if axis is None else axis.nnz for axis, size in sizes)

    @cached_property
    def row_counts(self) -> IntArray:
        """The number of nonzeros of each row."""
        if self.axes is None:
            return self.counts
        lines = [_row_counts(axis, size) for axis, size in zip(self.axes, self.output_shape, strict=True)]
        counts: IntArray = reduce(np.multiply.outer, lines, np.ones((), np.int64)).ravel()
        return counts

    def __matmul__(self, other: Pattern) -> Pattern:
        """Return the pattern of a product of matrices."""
        if self.axes is not None and other.axes is not None:
            pairs = zip(self.axes, other.axes, strict=True)
            axes = tuple(_product(first, second) for first, second in pairs)
            return Pattern(other.input_shape, self.output_shape, axes, is_exact=self.is_exact and other.is_exact)
        most = prod(other.input_shape)
        if other.keeps:
            return Pattern(other.input_shape, self.output_shape, None, self.row_counts, self.is_exact)
        counts = np.minimum(self.row_counts * int(other.row_counts.max(initial=0)), most)
        is_full = bool((other.row_counts == most).all()) and self.is_exact and other.is_exact
        return Pattern(other.input_shape, self.output_shape, None, counts, is_full)

    def __or__(self, other: Pattern) -> Pattern:
        """Return the pattern of a sum of matrices."""
        if self.axes is not None and other.axes is not None:
            for large, small in ((self, other), (other, self)):
                if all(map(_contains, large.axes or (), small.axes or (), large.output_shape)):
                    return large
        counts = np.minimum(self.row_counts + other.row_counts, prod(self.input_shape))
        return Pattern(self.input_shape, self.output_shape, None, counts, False)


def csr_sizes(pattern: Pattern, itemsize: int) -> int:
    """Return the bytes of a matrix in CSR form."""
    return csr_nbytes(prod(pattern.output_shape), prod(pattern.input_shape), pattern.nnz, itemsize)


def axis_pattern(matrix: Any) -> AxisPattern:
    """Return the pattern of a matrix for one axis: all of an array, what is stored of a sparse one, none for none."""
    if matrix is None:
        return None
    if isinstance(matrix, np.ndarray):
        return Full((matrix.shape[0], matrix.shape[1]))
    own: Any = sparse.csr_array(matrix)
    if own.nnz == own.shape[0] * own.shape[1]:
        return Full(own.shape)
    return sparse.csr_array((np.ones(own.nnz, np.int8), own.indices, own.indptr), shape=own.shape)


def diagonal_pattern(sizes: Sequence[int]) -> Pattern:
    """Return the pattern of a diagonal matrix."""
    return Pattern(tuple(sizes), tuple(sizes), (None,) * len(sizes), keeps=True)


def _row_counts(axis: AxisPattern, size: int) -> IntArray:
    if axis is None:
        return np.ones(size, np.int64)
    if isinstance(axis, Full):
        return np.full(axis.shape[0], axis.shape[1], np.int64)
    counts: IntArray = np.diff(axis.indptr).astype(np.int64)
    return counts


def _product(first: AxisPattern, second: AxisPattern) -> AxisPattern:
    if first is None or second is None:
        return first if second is None else second
    shape = first.shape[0], second.shape[1]
    # A row that reads all reads whatever anything does, and one that reads anything reads all of what is full.
    if isinstance(first, Full) and isinstance(second, Full):
        return Full(shape)
    if isinstance(first, Full):
        columns = np.unique(second.indices)  # type: ignore[union-attr]
        return Full(shape) if columns.size == shape[1] else _listed(np.arange(shape[0]), columns, shape)
    if isinstance(second, Full):
        rows = np.flatnonzero(np.diff(first.indptr))
        return Full(shape) if rows.size == shape[0] else _listed(rows, np.arange(shape[1]), shape)
    return axis_pattern(first.astype(bool) @ second.astype(bool))


def _listed(rows: Any, columns: Any, shape: tuple[int, int]) -> sparse.csr_array:
    """Return the pattern of some rows that all have some columns."""
    counts = np.zeros(shape[0] + 1, np.int64)
    counts[rows + 1] = columns.size
    indices = np.tile(columns.astype(np.int32), rows.size)
    return sparse.csr_array((np.ones(indices.size, np.int8), indices, np.cumsum(counts)), shape=shape)


def _contains(large: AxisPattern, small: AxisPattern, size: int) -> bool:
    if small is large or isinstance(large, Full):
        return True
    if isinstance(small, Full):
        return False
    eye = sparse.csr_array(sparse.eye_array(size, dtype=np.int8))
    whole, part = (eye if each is None else each for each in (large, small))
    if whole.shape != part.shape:
        return False
    return bool(sparse.csr_array(whole.astype(bool).multiply(part.astype(bool))).nnz == part.nnz)
