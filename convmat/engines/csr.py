"""The engine that stores W, or Wᵀ, as CSR and multiplies row blocks of it in threads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from convmat.assembly import assemble
from convmat.axis import PADDING_MODES
from convmat.dtypes import Array
from convmat.engines.base import Cost, Machine, PerDirection
from convmat.geometry import ConvolutionGeometry
from convmat.parallel import run_blocks

_SERIAL = 1 << 16  # nonzeros of a block that is worth another thread


class CSREngine:
    """Products with a stored matrix: 2 flops for each 8 to 20 bytes of it, whatever the geometry."""

    name = "csr"
    pads = frozenset(PADDING_MODES)
    automatic = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse nothing: what does not fit into memory says so when it is built."""
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count one pass over the matrix for each product, and one of writing it before the first."""
        matrix, vectors = geometry.matrix_nbytes(dtype), batch * sum(geometry.shape) * dtype.itemsize
        # One thread takes about 1 ns for a nonzero, and as much again for every 6 bytes of further columns.
        entries = geometry.nnz * (1 + dtype.itemsize / 6 * (batch - 1)) * 1e-9
        workers = machine.workers if geometry.nnz > _SERIAL else 1
        seconds = max(entries, (matrix + vectors) / machine.bandwidth) / workers + 4 * machine.call
        return Cost(2.0 * geometry.nnz * batch, matrix + vectors, seconds, matrix / machine.bandwidth, matrix)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Keep the geometry; the pattern of the matrix is written with its values."""
        return geometry, workers

    def bind(self, plan: Any, kernel: Array) -> CSRProducts:
        """Return products that build the matrix of a direction when it is first needed."""
        geometry, workers = plan
        return CSRProducts(geometry, workers, kernel)


class CSRProducts:
    """Products with W and Wᵀ, each built directly, once, and only if it is used."""

    def __init__(self, geometry: ConvolutionGeometry, workers: int, kernel: Array) -> None:
        self._geometry, self._workers, self._kernel = geometry, workers, kernel
        self._blocks = PerDirection[list[tuple[int, int, Any]]]()

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by W."""
        self._product(False, x, out)

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Wᵀ."""
        self._product(True, y, out)

    def _product(self, transposed: bool, x: Array, out: Array) -> None:
        columns, results = x.reshape(len(x), -1), out.reshape(len(out), -1)
        single = len(x) == 1
        operand = columns[0] if single else np.ascontiguousarray(columns.T)

        def multiply(first: int, last: int, block: Any) -> None:
            product = block @ operand
            results[:, first:last] = product if single else product.T

        run_blocks(multiply, self._blocks.get(transposed, self._cut), self._workers)

    def _cut(self, transposed: bool) -> list[tuple[int, int, Any]]:
        """Return the matrix in blocks of rows with about as many nonzeros: (first row, last row, view)."""
        matrix = assemble(self._geometry, self._kernel, transposed, workers=self._workers)
        pieces = max(1, min(self._workers, matrix.nnz // _SERIAL))
        if pieces == 1:
            return [(0, matrix.shape[0], matrix)]
        data, indices, indptr = matrix.data, matrix.indices, matrix.indptr
        cuts = np.searchsorted(indptr, [matrix.nnz * piece // pieces for piece in range(pieces + 1)]).tolist()
        cuts[0], cuts[-1] = 0, matrix.shape[0]
        blocks = []
        for first, last in pairwise(cuts):
            begin, end = indptr[first], indptr[last]
            rows = sparse.csr_array(
                (data[begin:end], indices[begin:end], indptr[first : last + 1] - begin),
                shape=(last - first, matrix.shape[1]),
            )
            rows.has_canonical_format = True
            blocks.append((first, last, rows))
        return blocks


engine = CSREngine()
