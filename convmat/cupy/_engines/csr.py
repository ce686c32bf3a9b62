"""The engine that stores W, or Wᵀ, as CSR and multiplies by cuSPARSE."""

from __future__ import annotations

from typing import Any

import numpy as np
from cupyx import cusparse

from convmat.cupy._arrays import Array
from convmat.cupy._assembly import assemble
from convmat.engines import Cost, Machine, PerDirection
from convmat.geometry import PADDING_MODES, ConvolutionGeometry


class CSREngine:
    """Products with a stored matrix, one for each direction: cuSPARSE scatters for the transpose of a stored one."""

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
        gathered = 0.25 * geometry.nnz * batch * dtype.itemsize  # from a cache
        seconds = (matrix + vectors + gathered) / (0.7 * machine.bandwidth) + 4 * machine.call
        return Cost(2.0 * geometry.nnz * batch, matrix + vectors, seconds, 2 * matrix / machine.bandwidth, matrix)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Keep the geometry; the pattern of the matrix is written with its values."""
        return geometry

    def bind(self, plan: Any, kernel: Array) -> CSRProducts:
        """Return products that build the matrix of a direction when it is first needed."""
        return CSRProducts(plan, kernel)


class CSRProducts:
    """Products with W and Wᵀ, each built directly, once, and only if it is used."""

    def __init__(self, geometry: ConvolutionGeometry, kernel: Array) -> None:
        self._geometry, self._kernel = geometry, kernel
        self._matrices = PerDirection[Any]()

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by W."""
        self._product(False, x, out)

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Wᵀ."""
        self._product(True, y, out)

    def _product(self, transposed: bool, x: Array, out: Array) -> None:
        matrix = self._matrices.get(transposed, self._build)
        if len(x) == 1:
            cusparse.spmv(matrix, x.reshape(-1), out.reshape(-1))
        else:  # a C-ordered batch of rows is a Fortran-ordered matrix of columns
            cusparse.spmm(matrix, x.reshape(len(x), -1).T, out.reshape(len(out), -1).T)

    def _build(self, transposed: bool) -> Any:
        return assemble(self._geometry, self._kernel, transposed)


engine = CSREngine()
