"""One affine map out of many: products without a matrix, the matrix by sparse products, and what these cost before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat._messages import scaled
from convmat._runtime import check_memory
from convmat.geometry import Array, IntArray, RowRange, csr_nbytes
from convmat.networks._maps import LinearMap, Shape, csr, row_range
from convmat.networks._patterns import Pattern, diagonal_pattern
from convmat.networks._sparse_products import added, factors_of, filled, stacked
from convmat.networks._stages import Stage, Value
from convmat.networks._windows import Windows

_DENSE = 4.0  # how much faster a product by an engine is than a sparse one, for a multiplication
_BLOCK = 1 << 21  # bytes of the largest product that a block of rows has on its way


class ProductCost(NamedTuple):
    """A product of what comes after a value with the stage that returns it.

    Attributes
    ----------
    stage : str
        The stage whose matrix is multiplied.
    op : str
        What it does.
    nonzeros : int
        Those of the product: the derivative of the output for the stage's inputs.
    nbytes : int
        Its bytes in CSR form.
    is_exact : bool
        Whether there are not fewer nonzeros.
    """

    stage: str
    op: str
    nonzeros: int
    nbytes: int
    is_exact: bool


@dataclass(frozen=True)
class AffineExplanation:
    """What the matrix of an affine map takes, and each product on the way, which is made for blocks of rows.

    Attributes
    ----------
    products : tuple of ProductCost
        One for each stage, from the last one to the first.
    nonzeros, nbytes : int
        Those of the whole matrix.
    is_exact : bool
        Whether there are not fewer.
    method : {"rows", "products"}
        How it is built: rows one stage after the other, or by products with unit vectors, as many as rows or columns.
    """

    products: tuple[ProductCost, ...]
    nonzeros: int
    nbytes: int
    is_exact: bool
    method: str

    def __str__(self) -> str:
        about = "" if self.is_exact else "at most "
        lines = [f"{'stage':32} {'op':20} {'nonzeros':>12} {'bytes':>10}"]
        for row in self.products:
            bound = "" if row.is_exact else "≤ "
            numbers = f"{bound + scaled(row.nonzeros):>12} {scaled(row.nbytes, 'B'):>10}"
            lines.append(f"{row.stage[-32:]:32} {row.op[:20]:20} {numbers}")
        return "\n".join(
            [
                *lines,
                f"the matrix has {about}{self.nonzeros:,} nonzeros in {scaled(self.nbytes, 'B')}, by {self.method}",
            ]
        )

    __repr__ = __str__


class NetworkMatrix(LinearMap):
    """The product of the matrices of affine stages, branches added, applied one after the other.

    Parameters
    ----------
    stages : tuple of Stage
        The stages, all affine.
    source, target : Value
        What goes in and what comes out.
    dtype : dtype
        That of the stages.
    """

    def __init__(
        self, stages: tuple[Stage, ...], source: Value, target: Value, dtype: Any, shapes: tuple[Shape, Shape]
    ) -> None:
        self._source, self._target = source, target
        self._stages = _needed(stages, target)
        self._limit = np.inf  # of what stages return: 1 where only zero or not is asked for
        self._set(dtype, *shapes)

    def _forward(self, x: Array) -> Array:
        values: dict[int, Any] = {0: x.reshape(-1, *self._source.shape)}
        last = {value.number: number for number, stage in self._stages for value in stage.inputs}
        for number, stage in self._stages:
            parts = [each.apply(values[value.number]) for each, value in zip(stage.maps, stage.inputs, strict=True)]
            values[number] = self._limited(sum(parts))
            for value in stage.inputs:
                if last[value.number] == number and value.number != self._target.number:
                    values.pop(value.number, None)
        result: Array = values[self._target.number]
        return result

    def _backward(self, y: Array) -> Array:
        values: dict[int, Any] = {self._target.number: y.reshape(-1, *self._target.shape)}
        for number, stage in reversed(self._stages):
            whole = values.pop(number)
            for each, value in zip(stage.maps, stage.inputs, strict=True):
                values[value.number] = self._limited(values.get(value.number, 0) + each.apply_adjoint(whole))
        result = values.get(0, 0)
        return np.broadcast_to(result, (len(y), *self._source.shape)) if np.ndim(result) == 0 else result

    def _limited(self, array: Any) -> Any:
        return array if self._limit == np.inf else np.minimum(array, self._limit)

    def take(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the matrix: what is needed of each stage is what the rows read, and no more."""
        if not rows.size:
            return stacked([], self.shape[1], self.dtype)
        start: Any = Windows.of_rows(self._target.shape, rows, self.dtype)
        if start is None:
            ones = np.ones(len(rows), self.dtype)
            start = csr(np.ones(len(rows), np.int64), rows, ones, prod(self._target.shape)), None
        # For each value, what is to be added: windows, or two factors, what comes after it and rows of the stage's matrix.
        pending: dict[int, list[Any]] = {self._target.number: [start]}
        for number, stage in reversed(self._stages):
            whole = added(pending.pop(number))
            for each, value in zip(stage.maps, stage.inputs, strict=True):
                pending.setdefault(value.number, []).append(factors_of(whole, each))
        if 0 not in pending:
            return sparse.csr_array((len(rows), self.shape[1]), dtype=self.dtype)
        result = added(pending[0])
        return result.tocsr() if isinstance(result, Windows) else result

    def tocsr(self, rows: RowRange = None) -> sparse.csr_array:
        """Return the matrix, or a range of its rows, as a new canonical CSR array.

        Parameters
        ----------
        rows : (int, int) or slice, optional
            Only these rows: of each stage only what they read is built.

        Returns
        -------
        csr_array
            Entries that cancel stay: which there are depends on the stages alone.

        Raises
        ------
        MemoryError
            If it does not fit into the available memory; nothing has been built then.
        """
        first, last = row_range(rows, self.shape[0])
        counts = self.pattern.row_counts[first:last]
        nnz = int(counts.sum())
        check_memory(
            lambda: f"the {last - first} × {self.shape[1]} matrix has up to {nnz} nonzeros and needs",
            csr_nbytes(last - first, self.shape[1], nnz, self.dtype.itemsize) * (1 if self.pattern.is_exact else 2),
            "apply it without storing it, or build a range of its rows with rows=",
        )
        if self.takes_products(last - first):
            return self._by_products(first, last)
        cuts = self._blocks(first, last)
        blocks = (self.take(np.arange(start, stop)) for start, stop in pairwise(cuts))
        if not self.pattern.is_exact:
            return stacked(list(blocks), self.shape[1], self.dtype)
        return filled(blocks, counts, self.shape[1], self.dtype)

    def takes_products(self, rows: int) -> bool:
        """Tell whether so many rows are made by products with unit vectors: where no zero of the matrix is known.

        These take the work of all stages for each row, or for each column, whichever are fewer. Rows one stage after the
        other take less where they read little of what comes before, but sparse products are slower.
        """
        if self.pattern.nnz < prod(self.shape):
            return False
        whole = sum(each.nnz for _, stage in self._stages for each in stage.maps)
        share, work = rows / max(1, self.shape[0]), 0.0
        for number, stage in self._stages:
            after = self._patterns[0][number]
            work += share * after.nnz * sum(each.nnz for each in stage.maps) / max(1, prod(after.input_shape))
        return min(rows, self.shape[1]) * whole < _DENSE * work

    def _by_products(self, first: int, last: int) -> sparse.csr_array:
        """Return rows of a matrix by products with unit vectors."""
        dense = self._unit_products(first, last)
        if self.pattern.is_exact:
            return csr(
                np.full(len(dense), self.shape[1]),
                np.tile(np.arange(self.shape[1]), len(dense)),
                dense.ravel(),
                self.shape[1],
            )
        rows, columns = np.nonzero(self.structure()._unit_products(first, last))
        return csr(np.bincount(rows, minlength=len(dense)), columns, dense[rows, columns], self.shape[1])

    def _unit_products(self, first: int, last: int) -> Array:
        """Return rows as a dense array, from as many products as there are rows, or columns if these are fewer."""
        rows, columns = last - first, self.shape[1]
        is_adjoint = rows <= columns
        size, shape = (rows, self.output_shape) if is_adjoint else (columns, self.input_shape)
        result = np.empty((rows, columns), self.dtype)
        step = max(1, _BLOCK // (self.dtype.itemsize * max(prod(stage.output_shape) for _, stage in self._stages)))
        for start in range(0, size, step):
            numbers = np.arange(start, min(start + step, size))
            units = np.zeros((len(numbers), prod(shape)), self.dtype)
            units[np.arange(len(numbers)), numbers + (first if is_adjoint else 0)] = 1
            units = units.reshape(len(numbers), *shape)
            if is_adjoint:
                result[numbers] = self.apply_adjoint(units).reshape(len(numbers), -1)
            else:
                result[:, numbers] = self.apply(units).reshape(len(numbers), -1)[:, first:last].T
        return result

    def structure(self) -> NetworkMatrix:
        """Return a map with the same nonzeros, all of them positive."""
        maps = [tuple(each.structure() for each in stage.maps) for _, stage in self._stages]
        return self._with(
            [replace(stage, maps=own) for (_, stage), own in zip(self._stages, maps, strict=True)], self.dtype, 1.0
        )

    def _blocks(self, first: int, last: int) -> list[int]:
        """Return where rows are cut, so that what is on the way stays small."""
        widest = max((cost.nonzeros for cost in self.products()), default=1) / max(1, self.shape[0])
        size = max(1, int(_BLOCK / (self.dtype.itemsize + 8) / max(widest, 1.0)))
        return [*range(first, last, size), last]

    @cached_property
    def _patterns(self) -> tuple[dict[int, Pattern], Pattern]:
        """For each stage, that of the derivative of the output for its first input; and that of the whole."""
        found: dict[int, Pattern] = {self._target.number: diagonal_pattern(self._target.shape)}
        products = {}
        for number, stage in reversed(self._stages):
            whole = found.pop(number)
            for each, value in zip(stage.maps, stage.inputs, strict=True):
                product = whole @ each.pattern
                products[number] = product
                found[value.number] = found[value.number] | product if value.number in found else product
        nothing = Pattern(self._source.shape, self._target.shape, None, np.zeros(self.shape[0], np.int64))
        return products, found.get(0, nothing)

    @property
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""
        return self._patterns[1]

    def products(self) -> list[ProductCost]:
        """Return what each product of the whole matrix takes, from the last stage to the first."""
        costs = []
        for number, stage in reversed(self._stages):
            pattern = self._patterns[0][number]
            nbytes = csr_nbytes(self.shape[0], prod(pattern.input_shape), pattern.nnz, self.dtype.itemsize)
            costs.append(ProductCost(stage.name, stage.op, pattern.nnz, nbytes, pattern.is_exact))
        return costs

    def absolute(self) -> NetworkMatrix:
        """Refuse: magnitudes of a product are no product of magnitudes."""
        raise NotImplementedError("build the matrix with tocsr() and take its magnitudes")

    def astype(self, dtype: npt.DTypeLike) -> NetworkMatrix:
        """Return the map in another dtype."""
        return self._with([stage.astype(dtype) for _, stage in self._stages], dtype, self._limit)

    def _with(self, stages: Sequence[Stage], dtype: Any, limit: float) -> NetworkMatrix:
        matrix = NetworkMatrix((), self._source, self._target, dtype, (self.input_shape, self.output_shape))
        matrix._stages = [(number, stage) for (number, _), stage in zip(self._stages, stages, strict=True)]
        matrix._limit = limit
        return matrix


@dataclass(frozen=True)
class AffineMap:
    """x ↦ A·x + b.

    Attributes
    ----------
    matrix : NetworkMatrix
        A, a linear operator of SciPy with `tocsr`, `apply`, `T` and `H`.
    offset : array
        b, of the shape of what comes out.
    """

    matrix: NetworkMatrix
    offset: Array

    def __repr__(self) -> str:
        return f"<AffineMap of shape {self.input_shape} to {self.output_shape}, {self.matrix.dtype}>"

    @property
    def input_shape(self) -> Shape:
        """Shape of what goes in."""
        return self.matrix.input_shape

    @property
    def output_shape(self) -> Shape:
        """Shape of what comes out."""
        return self.matrix.output_shape

    def apply(self, x: npt.ArrayLike) -> Array:
        """Return A·x + b for an array (..., *input_shape), without storing A."""
        return self.matrix.apply(x) + self.offset

    __call__ = apply

    def explain(self) -> AffineExplanation:
        """Return what A would take as a matrix, and each product on the way; nothing is built."""
        products, pattern = tuple(self.matrix.products()), self.matrix.pattern
        nbytes = csr_nbytes(*self.matrix.shape, pattern.nnz, self.matrix.dtype.itemsize)
        method = "products" if self.matrix.takes_products(self.matrix.shape[0]) else "rows"
        return AffineExplanation(products, pattern.nnz, nbytes, pattern.is_exact, method)


def _needed(stages: tuple[Stage, ...], target: Value) -> list[tuple[int, Stage]]:
    """Return the stages that a value depends on, each with the number of what it returns."""
    numbers, needed = {target.number}, []
    for number in range(len(stages), 0, -1):
        if number in numbers:
            needed.append((number, stages[number - 1]))
            numbers |= {value.number for value in stages[number - 1].inputs}
    return needed[::-1]
