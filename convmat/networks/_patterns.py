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
AxisPattern = sparse.csr_array | None  # None is the identity


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
        sizes = zip(self.axes, self.output_shape, strict=True)
        lines = [np.ones(size, np.int64) if axis is None else np.diff(axis.indptr) for axis, size in sizes]
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
        return full_pattern(*matrix.shape)
    own: Any = sparse.csr_array(matrix)
    return sparse.csr_array((np.ones(own.nnz, np.int8), own.indices, own.indptr), shape=own.shape)


def full_pattern(rows: int, columns: int) -> sparse.csr_array:
    """Return the pattern of a matrix without zeros."""
    indices = np.tile(np.arange(columns, dtype=np.int32), rows)
    starts = np.arange(rows + 1, dtype=np.int64) * columns
    return sparse.csr_array((np.ones(rows * columns, np.int8), indices, starts), shape=(rows, columns))


def diagonal_pattern(sizes: Sequence[int]) -> Pattern:
    """Return the pattern of a diagonal matrix."""
    return Pattern(tuple(sizes), tuple(sizes), (None,) * len(sizes), keeps=True)


def _product(first: AxisPattern, second: AxisPattern) -> AxisPattern:
    if first is None or second is None:
        return first if second is None else second
    rows, inner = first.shape
    if first.nnz == rows * inner and second.nnz and np.diff(second.tocsc().indptr).all():
        return full_pattern(rows, second.shape[1])
    return axis_pattern(first.astype(bool) @ second.astype(bool))


def _contains(large: AxisPattern, small: AxisPattern, size: int) -> bool:
    if small is large:
        return True
    eye = sparse.csr_array(sparse.eye_array(size, dtype=np.int8))
    whole, part = (eye if each is None else each for each in (large, small))
    if whole.shape != part.shape:
        return False
    return bool(sparse.csr_array(whole.astype(bool).multiply(part.astype(bool))).nnz == part.nnz)
