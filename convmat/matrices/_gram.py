"""AᴴA of a convolution or a transposed one as a canonical CSR array, written directly.

An entry is a sum over pairs of taps (t, u) through which its row and its column meet in a middle position::

    (WᴴW)[(i, p), (j, q)]     = Σ conj(K[o, i, t]) · K[o, j, u]    over o, r, t, u with source(r, t) = p, source(r, u) = q
    (conj(W)Wᵀ)[(o, r), (c, s)] = Σ conj(K[o, i, t]) · K[c, i, u]    over i, t, u with source(r, t) = source(s, u)

The sum over channels is the same for all rows, and is made once, for all pairs of taps. What remains goes axis by axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from convmat._runtime import call_single_threaded, check_memory, quietly, run_blocks
from convmat.geometry import Array, ConvolutionGeometry, IntArray, csr_nbytes, index_dtype
from convmat.matrices._assembly import check_format
from convmat.matrices._formats import FORMATS, conversion_nbytes
from convmat.matrices._gram_axis import GramAxis, RowClass, contract

_BLOCK = 1 << 17  # nonzeros that a thread writes at a time


class GramSize(NamedTuple):
    """What is known of a Gram matrix before it is made.

    Attributes
    ----------
    rows, nnz : int
        Number of rows, which is that of columns, and of nonzeros.
    """

    rows: int
    nnz: int

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """That of the indices."""
        return index_dtype(self.nnz, self.rows)

    def nbytes(self, itemsize: int) -> int:
        """Return the bytes of the matrix in CSR form."""
        return csr_nbytes(self.rows, self.rows, self.nnz, itemsize)


def gram_size(geometry: ConvolutionGeometry, transposed: bool) -> GramSize:
    """Return the size of AᴴA, where A is W or Wᵀ."""
    return _size(geometry, transposed, [GramAxis.of(axis, transposed) for axis in geometry.axes])


def _size(geometry: ConvolutionGeometry, transposed: bool, axes: list[GramAxis]) -> GramSize:
    channels = geometry.out_channels if transposed else geometry.in_channels
    rows = geometry.shape[0 if transposed else 1]
    nnz = channels * (channels // geometry.groups) * prod(int(axis.counts.sum()) for axis in axes)
    return GramSize(rows, nnz)


def assemble_gram_as(geometry: ConvolutionGeometry, kernel: Array, transposed: bool, format: str, workers: int) -> Any:
    """Check the format that users give, and return the Gram matrix in it."""
    check_format(format, FORMATS)
    matrix = quietly(assemble_gram, geometry, kernel, transposed, workers, format)
    return matrix.asformat(format)  # type: ignore[call-overload]


def assemble_gram(
    geometry: ConvolutionGeometry, kernel: Array, transposed: bool, workers: int, format: str = "csr"
) -> sparse.csr_array[Any, tuple[int, int]]:
    """Return AᴴA, where A is W or Wᵀ, as a canonical CSR array.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution.
    kernel : array
        Its kernel, of shape ``geometry.kernel_shape``.
    transposed : bool
        Whether A is Wᵀ.
    workers : int
        Number of threads.
    format : str
        The format that the caller converts the matrix to; the check of memory counts it too.

    Raises
    ------
    MemoryError
        If the matrix does not fit into the available memory.
    """
    axes = [GramAxis.of(axis, transposed) for axis in geometry.axes]
    size = _size(geometry, transposed, axes)
    group = (geometry.out_channels if transposed else geometry.in_channels) // geometry.groups
    pairs_nbytes = geometry.groups * (group * prod(geometry.spatial_kernel)) ** 2 * kernel.itemsize
    shape = size.rows, size.rows

    def diagonals() -> tuple[int, int]:  # at most
        offsets = (len(np.unique(np.concatenate([kind.columns for kind in axis.classes]))) for axis in axes)
        return min(2 * size.rows - 1, 2 * group * prod(offsets)), size.rows

    conversion = conversion_nbytes(format, shape, size.nnz, kernel.itemsize, size.index_dtype.itemsize, diagonals)
    check_memory(
        lambda: f"the {size.rows} × {size.rows} Gram matrix has {size.nnz} nonzeros and needs",
        size.nbytes(kernel.itemsize) + conversion + 3 * pairs_nbytes,
        "apply it without storing it: A.H @ (A @ x)",
    )
    data, indices = np.empty(size.nnz, kernel.dtype), np.empty(size.nnz, size.index_dtype)
    writer = _Writer(axes, geometry.groups, group, data, indices, workers)
    writer.write(pair_products(geometry, kernel, transposed))
    result = sparse.csr_array((data, indices, writer.indptr()), shape=shape)
    result.has_canonical_format = True
    return result


def pair_products(geometry: ConvolutionGeometry, kernel: Array, transposed: bool) -> Array:
    """Return the sums over channels of products of two taps, (t, u of the first axis, t, u of the second, …, G, C, C)."""
    groups, taps = geometry.groups, prod(geometry.spatial_kernel)
    inner, outer = geometry.in_channels // groups, geometry.out_channels // groups
    by_group = kernel.reshape(groups, outer, inner, taps)
    if transposed:  # the inputs' channels are summed over
        by_group, inner = by_group.swapaxes(1, 2), outer
    flat = by_group.reshape(groups, -1, inner * taps)
    products = call_single_threaded(lambda: flat.conj().swapaxes(1, 2) @ flat)
    products = products.reshape(groups, inner, *geometry.spatial_kernel, inner, *geometry.spatial_kernel)
    axes = len(geometry.axes)
    order = [place for axis in range(axes) for place in (2 + axis, 3 + axes + axis)]
    return np.ascontiguousarray(products.transpose(*order, 0, 1, 2 + axes))


class _Writer:
    """Writes the rows, one kind of rows after the other: rows of a kind hold the same values, in columns that move on."""

    def __init__(
        self, axes: list[GramAxis], groups: int, group: int, data: Array, indices: IntArray, workers: int
    ) -> None:
        self.axes, self.groups, self.group, self.workers = axes, groups, group, workers
        self.data, self.indices = data, indices
        self.starts = [np.concatenate([[0], np.cumsum(axis.counts)]) for axis in axes]
        # Those of the first axis are used once; there may be too many to be listed all at once.
        self._meetings = [[], *([list(kind.meetings()) for kind in axis.classes] for axis in axes[1:])]
        self.positions = prod(axis.rows for axis in axes)
        self.per_channel = group * prod(int(starts[-1]) for starts in self.starts)

    def indptr(self) -> IntArray:
        """Return where each row begins."""
        counts = np.full(1, self.group, np.int64)
        for axis in self.axes:
            counts = np.multiply.outer(counts, axis.counts)
        indptr = np.zeros(self.groups * self.group * self.positions + 1, self.indices.dtype)
        np.cumsum(np.tile(counts.ravel(), self.groups * self.group), out=indptr[1:])
        return indptr

    def write(self, pairs: Array, kinds: tuple[RowClass, ...] = ()) -> None:
        """Write the rows that are of given kinds on the first axes, from what remains to be summed on the others."""
        depth = len(kinds)
        if depth == len(self.axes):
            self._write_kind(kinds, pairs)
            return
        for number, kind in enumerate(self.axes[depth].classes):
            meetings = self._meetings[depth][number] if depth else kind.meetings()
            # The columns come behind the pairs of the other axes, and in front of the channels.
            rest = np.moveaxis(contract(pairs, len(kind.columns), meetings), 0, -4)
            self.write(rest, (*kinds, kind))

    def _write_kind(self, kinds: tuple[RowClass, ...], values: Array) -> None:
        """Write all rows of a kind; `values` are (columns of each axis, G, C, C)."""
        axes = len(kinds)
        by_channel = values.transpose(axes, axes + 1, axes + 2, *range(axes))
        by_channel = by_channel.reshape(self.groups * self.group, -1)
        columns = self._columns(kinds)
        for runs in product(*(kind.runs for kind in kinds)):
            blocks = [(by_channel, columns, kinds, piece) for piece in self._pieces(runs, by_channel.size)]
            run_blocks(self._write_rows, blocks, self.workers)

    def _columns(self, kinds: tuple[RowClass, ...]) -> IntArray:
        """Return the columns of a row of the first group, less those of the row."""
        columns = np.arange(self.group, dtype=np.int64) * self.positions
        for kind, stride in zip(kinds, self._strides(), strict=True):
            columns = np.add.outer(columns, kind.columns * stride)
        return columns.ravel()

    def _strides(self) -> list[int]:
        """Return the distance between neighbours on each axis, in columns of the matrix."""
        return [prod(axis.rows for axis in self.axes[number + 1 :]) for number in range(len(self.axes))]

    def _pieces(self, runs: tuple[range, ...], each: int) -> Iterator[tuple[range, ...]]:
        """Cut rows into pieces that threads write, where there are many."""
        axis = next((number for number, run in enumerate(runs) if len(run) > 1), 0)
        size = max(1, _BLOCK * len(runs[axis]) // max(1, each * prod(map(len, runs))))
        for first in range(0, len(runs[axis]), size):
            yield (*runs[:axis], runs[axis][first : first + size], *runs[axis + 1 :])

    def _write_rows(
        self, values: Array, columns: IntArray, kinds: tuple[RowClass, ...], runs: tuple[range, ...]
    ) -> None:
        """Write some rows of a kind, in all channels."""
        length = values.shape[1]
        steps = [self.per_channel]  # from one row to the next, in nonzeros
        start, before = 0, self.group  # nonzeros for each nonzero of the axes that follow
        for number, (run, kind) in enumerate(zip(runs, kinds, strict=True)):
            behind = before * prod(int(starts[-1]) for starts in self.starts[number + 1 :])
            starts = self.starts[number]
            start += int(starts[run[0]]) * behind
            steps.append(int(starts[run[1]] - starts[run[0]]) * behind if len(run) > 1 else 0)
            before *= len(kind.columns)
        shape = (len(values), *map(len, runs), length)

        def view(array: Array) -> Array:
            strides = [step * array.itemsize for step in (*steps, 1)]
            return np.lib.stride_tricks.as_strided(array[start:], shape, strides)

        ones = (1,) * len(runs)
        view(self.data)[...] = values.reshape(len(values), *ones, length)
        rows = np.repeat(np.arange(self.groups) * (self.group * self.positions), self.group)
        for run, stride in zip(runs, self._strides(), strict=True):
            rows = np.add.outer(rows, np.arange(run.start, run.stop, run.step) * stride)
        dtype = self.indices.dtype
        np.add(rows.astype(dtype)[..., None], columns.astype(dtype), out=view(self.indices))
