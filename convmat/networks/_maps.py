"""The matrices that networks are made of, each known by what it does: scale, select, multiply along axes, convolve."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat._runtime import quietly
from convmat.geometry import Array, IntArray, RowRange, as_dtype
from convmat.matrices import check_rows
from convmat.networks._patterns import Pattern, axis_pattern, diagonal_pattern
from convmat.operators import ArrayOperator

Shape = tuple[int, ...]


class LinearMap(ArrayOperator):
    """A real linear map between arrays, a linear operator of SciPy for flat vectors.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Of one array; `apply` takes any batch axes in front.
    pattern : Pattern
        Which nonzeros the matrix has, or how many.
    terms : int
        The most products that are summed for a number of the output.
    """

    def _set(self, dtype: Any, input_shape: Shape, output_shape: Shape) -> None:
        super()._set(np.dtype(dtype), tuple(input_shape), tuple(output_shape))

    @abstractmethod
    def _forward(self, x: Array) -> Array:
        """Return the product with arrays (B, *input_shape)."""

    @abstractmethod
    def _backward(self, y: Array) -> Array:
        """Return the transpose's product with arrays (B, *output_shape)."""

    @abstractmethod
    def take(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the matrix, which ascend, as a canonical CSR array."""

    @abstractmethod
    def absolute(self) -> LinearMap:
        """Return the map with the magnitudes of the matrix."""

    @abstractmethod
    def structure(self) -> LinearMap:
        """Return a map with the same nonzeros, all of them positive."""

    @abstractmethod
    def astype(self, dtype: npt.DTypeLike) -> Self:
        """Return the map in another dtype."""

    @property
    @abstractmethod
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""

    @property
    def terms(self) -> int:
        """The most products that are summed for a number of the output."""
        return int(self.pattern.row_counts.max(initial=0))

    @property
    def nnz(self) -> int:
        """The number of nonzeros of the matrix, which is not built for it."""
        return self.pattern.nnz

    def apply(self, x: npt.ArrayLike) -> Array:
        """Return the product with an array, or with those of a batch.

        Parameters
        ----------
        x : array_like (..., *input_shape)
            What goes in.

        Returns
        -------
        array (..., *output_shape)
            What comes out.

        Raises
        ------
        ValueError
            If `x` has another shape.
        """
        return _in_batches(self._forward, np.asarray(x), self.input_shape, self.output_shape)

    def apply_adjoint(self, y: npt.ArrayLike) -> Array:
        """Return the transpose's product with arrays (..., *output_shape)."""
        return _in_batches(self._backward, np.asarray(y), self.output_shape, self.input_shape)

    def tocsr(self, rows: RowRange = None) -> sparse.csr_array:
        """Return the matrix, or a range of its rows, as a new canonical CSR array."""
        return self.take(np.arange(*row_range(rows, self.shape[0])))

    def _apply_each(self, vectors: Array) -> Array:
        results = self.apply(vectors.reshape(*vectors.shape[:-1], *self.input_shape))
        return results.reshape(*vectors.shape[:-1], self.shape[0])

    def _adjoint(self) -> Transpose:
        return Transpose(self)

    _transpose = _adjoint


class Transpose(ArrayOperator):
    """The transpose of a linear map."""

    def __init__(self, forward: LinearMap) -> None:
        self._forward = forward
        self._set(forward.dtype, forward.output_shape, forward.input_shape)

    def apply(self, array: npt.ArrayLike) -> Array:
        """Return the product with arrays (..., *input_shape)."""
        return self._forward.apply_adjoint(array)

    def tocsr(self) -> sparse.csr_array:
        """Return the matrix as a new canonical CSR array."""
        matrix = self._forward.tocsr().T.tocsr()
        matrix.sort_indices()
        return matrix

    def _apply_each(self, vectors: Array) -> Array:
        results = self.apply(vectors.reshape(*vectors.shape[:-1], *self.input_shape))
        return results.reshape(*vectors.shape[:-1], self.shape[0])

    def _adjoint(self) -> LinearMap:
        return self._forward

    _transpose = _adjoint


def row_range(rows: RowRange, count: int) -> tuple[int, int]:
    """Return the first of some rows of a matrix, and the one after the last."""
    return check_rows(rows, count) or (0, count)


def _in_batches(function: Any, x: Array, shape: Shape, result: Shape) -> Array:
    outer = x.ndim - len(shape)
    if outer < 0 or x.shape[outer:] != shape:
        raise ValueError(f"x must have shape (..., {', '.join(map(str, shape))}), got {x.shape}")
    values: Array = quietly(function, x.reshape(prod(x.shape[:outer]), *shape))
    return values.reshape((*x.shape[:outer], *result))


def csr(counts: Any, columns: Any, values: Array, width: int) -> sparse.csr_array:
    """Return the canonical CSR array of rows with so many nonzeros each, whose columns ascend."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    index = sparse.get_index_dtype(maxval=max(int(starts[-1]), width, len(counts)))
    shape = len(counts), width
    matrix = sparse.csr_array((values, columns.astype(index), starts.astype(index)), shape=shape)
    matrix.has_canonical_format = True
    return matrix


class Diagonal(LinearMap):
    """Each number times its own factor."""

    def __init__(self, factors: Array) -> None:
        self.factors = factors
        self._set(factors.dtype, factors.shape, factors.shape)

    def _forward(self, x: Array) -> Array:
        return x * self.factors

    def _backward(self, y: Array) -> Array:
        return y * self.factors

    def take(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the matrix."""
        return csr(np.ones(len(rows), np.int64), rows, self.factors.ravel()[rows], self.shape[1])

    def absolute(self) -> Diagonal:
        """Return the map with the magnitudes of the matrix."""
        return Diagonal(abs(self.factors))

    def structure(self) -> Diagonal:
        """Return a map with the same nonzeros, all of them positive."""
        return Diagonal(np.ones_like(self.factors))

    def astype(self, dtype: npt.DTypeLike) -> Diagonal:
        """Return the map in another dtype."""
        return Diagonal(self.factors.astype(dtype))

    @property
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""
        return diagonal_pattern(self.input_shape)


class Gather(LinearMap):
    """Each number of the output is one of the input, or zero.

    Parameters
    ----------
    sources : int64 array
        Of the shape of the output: the flat index of the number that it is; −1 for none.
    input_shape : tuple of int
        Shape of what goes in.
    dtype : dtype
        That of the ones.
    """

    def __init__(self, sources: IntArray, input_shape: Shape, dtype: npt.DTypeLike) -> None:
        self.sources = sources
        self._set(as_dtype(dtype), input_shape, sources.shape)

    @cached_property
    def _is_reshaped(self) -> bool:
        flat = self.sources.ravel()
        return flat.size == self.shape[1] and bool((flat == np.arange(flat.size)).all())

    @cached_property
    def _has_gaps(self) -> bool:
        return bool(self.sources.size and self.sources.min() < 0)

    def _forward(self, x: Array) -> Array:
        flat = x.reshape(len(x), -1)
        if self._is_reshaped:
            return flat
        taken = flat.take(self.sources.ravel(), axis=1, mode="wrap")
        if self._has_gaps:
            taken[:, self.sources.ravel() < 0] = 0
        return taken

    def _backward(self, y: Array) -> Array:
        flat = y.reshape(len(y), -1)
        if self._is_reshaped:
            return flat
        result: Array = (self._transposed @ flat.T).T
        return result

    @cached_property
    def _transposed(self) -> sparse.csr_array:
        return self.tocsr().T.tocsr()

    def take(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the matrix."""
        columns = self.sources.ravel()[rows]
        inside = columns >= 0
        columns = columns[inside]
        return csr(inside.astype(np.int64), columns, np.ones(len(columns), self.dtype), self.shape[1])

    def absolute(self) -> Gather:
        """Return the map with the magnitudes of the matrix."""
        return self

    structure = absolute

    def astype(self, dtype: npt.DTypeLike) -> Gather:
        """Return the map in another dtype."""
        return Gather(self.sources, self.input_shape, dtype)

    @cached_property
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""
        counts = (self.sources.ravel() >= 0).astype(np.int64)
        keeps = self._is_reshaped
        return Pattern(self.input_shape, self.output_shape, self._axes(), counts, keeps=keeps)

    def _axes(self) -> tuple[sparse.csr_array | None, ...] | None:
        """Return the pattern of each axis, if each number is selected by one index for each axis."""
        sources, shape = self.sources, self.input_shape
        if self._is_reshaped and shape == sources.shape:
            return (None,) * len(shape)
        if len(shape) != sources.ndim or not sources.size or not prod(shape):
            return None
        lines = []
        if (first := np.unravel_index(int(np.argmax(sources >= 0)), sources.shape)) and sources[first] < 0:
            return None
        for axis, size in enumerate(shape):
            place = tuple(slice(None) if other == axis else index for other, index in enumerate(first))
            line, step = sources[place], prod(shape[axis + 1 :])
            lines.append(np.where(line >= 0, line // step % size, -1))
        grids = np.ix_(*lines)
        inside = np.logical_and.reduce(np.broadcast_arrays(*(grid >= 0 for grid in grids)))
        flat = sum(grid * prod(shape[axis + 1 :]) for axis, grid in enumerate(grids))
        if not np.array_equal(np.where(inside, flat, -1), sources):
            return None
        return tuple(
            csr((line >= 0).astype(np.int64), line[line >= 0], np.ones(int((line >= 0).sum()), np.int8), size)
            for line, size in zip(lines, shape, strict=True)
        )


class AxisProducts(LinearMap):
    """A matrix for each of some axes, each multiplied along its axis: the Kronecker product of all.

    Parameters
    ----------
    shape : tuple of int
        Shape of what goes in.
    factors : dict of int to array or csr_array
        For axes, the matrix (outputs × inputs); other axes have the identity.
    """

    def __init__(self, shape: Shape, factors: dict[int, Any]) -> None:
        self.factors = factors
        sizes = tuple(factors[axis].shape[0] if axis in factors else size for axis, size in enumerate(shape))
        self._set(np.result_type(*(factor.dtype for factor in factors.values())), shape, sizes)

    def _forward(self, x: Array) -> Array:
        for axis, factor in self.factors.items():
            x = _along(factor, x, axis + 1)
        return x

    def _backward(self, y: Array) -> Array:
        for axis, factor in self.factors.items():
            y = _along(factor.T, y, axis + 1)
        return y

    def take(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the matrix."""
        places = np.unravel_index(rows, self.output_shape)
        columns, values = np.zeros((len(rows), 1), np.int64), np.ones((len(rows), 1), self.dtype)
        inside = np.ones((len(rows), 1), bool)
        for axis, (size, place) in enumerate(zip(self.input_shape, places, strict=True)):
            if axis in self._tables:
                own, weights, there = (table[place] for table in self._tables[axis])
            else:
                own, weights, there = place[:, None], np.ones((len(rows), 1), self.dtype), np.ones((len(rows), 1), bool)
            columns = (columns[:, :, None] * size + own[:, None]).reshape(len(rows), -1)
            values = (values[:, :, None] * weights[:, None]).reshape(len(rows), -1)
            inside = (inside[:, :, None] & there[:, None]).reshape(len(rows), -1)
        return csr(inside.sum(axis=1), columns[inside], values[inside], self.shape[1])

    @cached_property
    def _tables(self) -> dict[int, tuple[IntArray, Array, Any]]:
        """For each axis, the columns of each row's nonzeros, their values, and which there are."""
        return {axis: _padded_rows(factor) for axis, factor in self.factors.items()}

    def absolute(self) -> AxisProducts:
        """Return the map with the magnitudes of the matrix."""
        return AxisProducts(self.input_shape, {axis: abs(factor) for axis, factor in self.factors.items()})

    def structure(self) -> AxisProducts:
        """Return a map with the same nonzeros, all of them positive."""
        ones = {axis: _ones(factor) for axis, factor in self.factors.items()}
        return AxisProducts(self.input_shape, ones)

    def astype(self, dtype: npt.DTypeLike) -> AxisProducts:
        """Return the map in another dtype."""
        return AxisProducts(self.input_shape, {axis: factor.astype(dtype) for axis, factor in self.factors.items()})

    @cached_property
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""
        axes = [axis_pattern(self.factors.get(axis)) for axis in range(len(self.input_shape))]
        return Pattern(self.input_shape, self.output_shape, tuple(axes))


def _ones(factor: Any) -> Any:
    if isinstance(factor, np.ndarray):
        return np.ones_like(factor)
    return sparse.csr_array((np.ones_like(factor.data), factor.indices, factor.indptr), shape=factor.shape)


def _along(factor: Any, x: Array, axis: int) -> Array:
    moved = np.moveaxis(x, axis, 0)
    product = factor @ moved.reshape(len(moved), -1)
    return np.moveaxis(product.reshape(len(product), *moved.shape[1:]), 0, axis)


def _padded_rows(matrix: Any) -> tuple[IntArray, Array, Any]:
    if isinstance(matrix, np.ndarray):  # all of which is stored
        columns = np.broadcast_to(np.arange(matrix.shape[1]), matrix.shape)
        return columns, matrix, np.ones(matrix.shape, bool)
    counts = np.diff(matrix.indptr)
    inside = np.arange(counts.max(initial=0)) < counts[:, None]
    columns, values = np.zeros(inside.shape, np.int64), np.zeros(inside.shape, matrix.dtype)
    columns[inside], values[inside] = matrix.indices, matrix.data
    return columns, values, inside


def identity(shape: Sequence[int], dtype: npt.DTypeLike) -> Gather:
    """Return the map that changes nothing."""
    return Gather(np.arange(prod(shape), dtype=np.int64).reshape(tuple(shape)), tuple(shape), dtype)
