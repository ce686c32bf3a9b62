"""W or Wᵀ cut into ranges of rows of a limited size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from convmat._runtime import count_workers, quietly
from convmat.geometry import Array, ConvolutionGeometry, csr_nbytes, integer
from convmat.matrices._assembly import assemble
from convmat.matrices._pattern import Span
from convmat.matrices._writer import MatrixRows


def split_rows(geometry: ConvolutionGeometry, kernel: Array, transposed: bool, max_bytes: int) -> Iterator[Span]:
    """Yield ranges of rows, each as long as its CSR form fits into `max_bytes`; a row that does not is alone.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution.
    kernel : array
        Its kernel, of shape ``geometry.kernel_shape``.
    transposed : bool
        Whether the matrix is Wᵀ.
    max_bytes : int
        The most bytes.
    """
    matrix = MatrixRows(geometry, kernel, transposed)
    rows, columns = matrix.shape

    def fits(start: int, stop: int) -> bool:
        return csr_nbytes(stop - start, columns, matrix.count(start, stop), kernel.itemsize) <= max_bytes

    start = 0
    while start < rows:
        low, high = start + 1, rows  # the largest stop that fits lies between, as counts only grow
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(start, middle) else (low, middle - 1)
        yield start, low
        start = low


def matrix_blocks(
    geometry: ConvolutionGeometry, kernel: Array, transposed: bool, max_bytes: object, workers: int | None
) -> Iterator[tuple[slice, Any]]:
    """Check what users give, and return an iterator over ranges of rows and their CSR arrays."""
    limit, count = integer("max_bytes", max_bytes, 1), count_workers(workers)

    def blocks() -> Iterator[tuple[slice, Any]]:
        build: Any = assemble
        for rows in split_rows(geometry, kernel, transposed, limit):
            yield slice(*rows), quietly(build, geometry, kernel, transposed, rows, count, exact=True)

    return blocks()
