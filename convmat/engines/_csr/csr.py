"""The engine that stores W, or Wᵀ, as CSR and multiplies row blocks of it in threads.

SciPy multiplies, or, where the matrix is large and there is compiled code, the loop in `convmat.engines._csr.loops`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from convmat._runtime import count_blocks, quietly, run_blocks
from convmat.engines._base import Cost, PerDirection, Scratch, address
from convmat.engines._compiled.loader import Code, CompilerUnavailable, load_loop, loop_code, refusal
from convmat.engines._machine import Machine
from convmat.engines._sums import most_terms
from convmat.geometry import PADDING_MODES, Array, ConvolutionGeometry
from convmat.matrices import assemble

_SERIAL = 1 << 16  # nonzeros of a block that is worth another thread
_SECONDS = 1e-9  # of a thread for a nonzero, about
_COMPILED = 1 << 22  # nonzeros from which a product takes milliseconds, and loading numba, if there is one, is worth it
_GROUP = 4  # columns that the compiled loop multiplies together, as `loops` says, which needs numba


class _Estimate:
    """Constants of 2026-11; `python -m benchmarks.peers --regret` prints estimate / measured time."""

    FIRST = 0.7  # nanoseconds of a thread for a nonzero and the first column,
    FURTHER, BYTE = 0.55, 0.05  # for each further one, and for each byte of its numbers
    LOOP = 0.75  # of SciPy's time that the compiled loop takes
    CALLS = 4  # NumPy calls of a product


class CSREngine:
    """Products with a stored matrix: 2 flops for each 8 to 20 bytes of it, whatever the geometry."""

    name = "csr"
    pads = frozenset(PADDING_MODES)
    automatic = True
    local = True
    silent = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse nothing: what does not fit into memory says so when it is built."""
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count one pass over the matrix for each product, and one of writing it before the first."""
        matrix, vectors = geometry.matrix_nbytes(dtype), batch * sum(geometry.shape) * dtype.itemsize
        nanoseconds = _Estimate.FIRST + (_Estimate.FURTHER + _Estimate.BYTE * dtype.itemsize) * (batch - 1)
        entries = geometry.nnz * nanoseconds * 1e-9
        state, code = float(matrix), tuple[Code, ...]()
        if _is_compiled(geometry.nnz):
            entries *= _Estimate.LOOP
            state += batch // _GROUP * _GROUP * geometry.shape[not transposed] * dtype.itemsize
            code = _code(dtype, geometry.index_dtype)
        workers = max(1, min(machine.workers, geometry.nnz // _SERIAL))
        seconds = max(entries, machine.moving(matrix + vectors)) / workers + _Estimate.CALLS * machine.call
        return Cost(2.0 * geometry.nnz * batch, matrix + vectors, seconds, matrix / machine.bandwidth, state, code)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Keep the geometry; the pattern of the matrix is written with its values."""
        return geometry, dtype, workers

    def load(self, plan: Any) -> None:
        """Load or compile the loops, if the matrix is large enough for them."""
        geometry, dtype, _ = plan
        if _is_compiled(geometry.nnz):
            _load(dtype, geometry.index_dtype)

    def all_code(self, number: np.dtype[Any]) -> list[Code]:
        """Return the loops, for indices of either size."""
        return list(dict.fromkeys(code for index in (np.int32, np.int64) for code in _code(number, np.dtype(index))))

    def bind(self, plan: Any, kernel: Array) -> CSRProducts:
        """Return products that build the matrix of a direction when it is first needed."""
        geometry, _, workers = plan
        return CSRProducts(geometry, workers, kernel)


class CSRProducts:
    """Products with W and Wᵀ, each built directly, once, and only if it is used."""

    def __init__(self, geometry: ConvolutionGeometry, workers: int, kernel: Array) -> None:
        self._geometry, self._workers, self._kernel = geometry, workers, kernel
        self._multiply = PerDirection[Callable[[Array, Array], None]]()

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by W."""
        self._multiply.get(False, self._build)(x.reshape(len(x), -1), out.reshape(len(out), -1))

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Wᵀ."""
        self._multiply.get(True, self._build)(y.reshape(len(y), -1), out.reshape(len(out), -1))

    def _build(self, transposed: bool) -> Callable[[Array, Array], None]:
        """Return what multiplies vectors (B, columns) by the matrix, into (B, rows)."""
        matrix = assemble(self._geometry, self._kernel, transposed, workers=self._workers)
        if int(np.diff(matrix.indptr).max()) > most_terms(matrix.dtype):
            matrix, starts = _split_rows(matrix)
            multiply = self._product(matrix)

            def multiply_and_add(x: Array, out: Array) -> None:
                sums = np.empty((len(x), matrix.shape[0]), out.dtype)
                multiply(x, sums)
                quietly(np.add.reduceat, sums, starts, axis=1, out=out)

            return multiply_and_add
        return self._product(matrix)

    def _product(self, matrix: Any) -> Callable[[Array, Array], None]:
        """Return the product in blocks of rows with about equal numbers of nonzeros."""
        tasks = max(1, matrix.nnz // _SERIAL)
        blocks = count_blocks(tasks, self._workers, matrix.nnz * _SECONDS)
        cuts = np.searchsorted(matrix.indptr, [matrix.nnz * i // blocks for i in range(blocks + 1)]).tolist()
        cuts[0], cuts[-1] = 0, matrix.shape[0]
        arguments = matrix, list(pairwise(cuts)), self._workers
        if _is_compiled(matrix.nnz):
            with suppress(CompilerUnavailable):  # SciPy can do it
                return _compiled_product(*arguments)
        return _scipy_product(*arguments)


def _split_rows(matrix: Any) -> tuple[Any, Array]:
    """Return a matrix whose rows are segments of another's, of not too many terms each, and the first segment of each row.

    A row of 5 nonzeros from 7 on, of which 2 may be added up, has 3 segments. They begin at 7 + 5·(0, 1, 2) // 3 = 7, 8, 10.
    """
    lengths = np.diff(matrix.indptr).astype(np.int64)
    counts = np.maximum(1, -(-lengths // most_terms(matrix.dtype)))  # of segments
    ends = counts.cumsum()
    starts = ends - counts
    number = np.arange(ends[-1]) - np.repeat(starts, counts)  # of a segment in its row
    begins = np.repeat(matrix.indptr[:-1], counts) + np.repeat(lengths, counts) * number // np.repeat(counts, counts)
    indptr = np.append(begins, matrix.indptr[-1]).astype(matrix.indptr.dtype)
    split = sparse.csr_array((matrix.data, matrix.indices, indptr), shape=(indptr.size - 1, matrix.shape[1]))
    split.has_canonical_format = True
    return split, starts


def _is_compiled(nnz: int) -> bool:
    return nnz >= _COMPILED and refusal() is None


def _scipy_product(matrix: Any, cuts: list[tuple[int, int]], workers: int) -> Callable[[Array, Array], None]:
    """Return SciPy's product, of one block of rows after the other: it releases the GIL."""
    whole = len(cuts) == 1
    blocks = [(first, last, matrix if whole else _rows(matrix, first, last)) for first, last in cuts]

    def multiply(x: Array, out: Array) -> None:
        single = len(x) == 1
        operand = x[0] if single else np.ascontiguousarray(x.T)

        def multiply_block(first: int, last: int, block: Any) -> None:
            product = block @ operand
            out[:, first:last] = product if single else product.T

        run_blocks(multiply_block, blocks, workers)

    return multiply


def _rows(matrix: Any, first: int, last: int) -> Any:
    """Return a view of rows of a CSR matrix, with an `indptr` of its own."""
    begin, end = matrix.indptr[first], matrix.indptr[last]
    arrays = matrix.data[begin:end], matrix.indices[begin:end], matrix.indptr[first : last + 1] - begin
    rows = sparse.csr_array(arrays, shape=(last - first, matrix.shape[1]))
    rows.has_canonical_format = True
    return rows


def _unsigned(index: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that compiled code indexes with: signed indices would be checked for being negative."""
    return np.dtype(f"u{index.itemsize}")


def _code(dtype: np.dtype[Any], index: np.dtype[Any]) -> tuple[Code, Code]:
    """Return the code for a matrix of a dtype, with indices of another."""
    multiply_rows = loop_code("csr", "multiply_rows", dtype.name, _unsigned(index).name)
    return loop_code("csr", "interleave", dtype.name), multiply_rows


def _load(dtype: np.dtype[Any], index: np.dtype[Any]) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return the loops for a matrix of a dtype, with indices of another."""
    multiply_rows = load_loop("csr", "multiply_rows", dtype.name, _unsigned(index).name)
    return load_loop("csr", "interleave", dtype.name), multiply_rows


def _compiled_product(matrix: Any, cuts: list[tuple[int, int]], workers: int) -> Callable[[Array, Array], None]:
    """Return the product by the compiled loop, which writes straight into the result and waits for no sum."""
    data, columns = matrix.data, matrix.shape[1]
    interleave, multiply_rows = _load(data.dtype, matrix.indices.dtype)
    index = _unsigned(matrix.indices.dtype)
    arrays = matrix.indptr.view(index), matrix.indices.view(index), data
    scratch = Scratch(data.dtype, 1)
    slices = list(pairwise(columns * i // len(cuts) for i in range(len(cuts) + 1)))

    def multiply(x: Array, out: Array) -> None:
        groups = len(x) // _GROUP
        grouped = scratch.take(groups * _GROUP * columns)

        # Addresses instead of arrays: code that takes arrays would be compiled again for read-only ones.
        def interleave_columns(first: int, last: int) -> None:
            interleave(first, last, data, address(x), address(grouped), columns, groups)

        def multiply_block(first: int, last: int) -> None:
            multiply_rows(first, last, *arrays, address(x), address(grouped), address(out), len(x), matrix.shape)

        if groups:
            run_blocks(interleave_columns, slices, workers)
        run_blocks(multiply_block, cuts, workers)
        scratch.give_back(grouped)

    return multiply


engine = CSREngine()
