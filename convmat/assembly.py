"""W and its transpose as sparse matrices: geometry and kernel in, canonical CSR out, in either direction.

A row of the matrix is a product of one row of each axis, so the nonzeros of a product of runs are strided arrays: the
pattern of one block of rows, and the same again plus a constant for each next block. A pattern is written once, into
arrays small enough for the nearest cache, and the matrix is written from it by whole-array copies and additions, at about
the speed at which memory can be filled.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat.axis import Row, Run
from convmat.dtypes import Array, as_array, check_dtype, flip_spatial
from convmat.geometry import ConvolutionGeometry, IntPerAxis, Padding, Shape
from convmat.parallel import count_workers, run_blocks

_BLOCK = 3072  # entries of a pattern: its data and indices stay in a 48 KiB first-level cache
_LINE = 24576  # entries of a pattern that spans whole lines of the axes after it: stays in the second-level cache
_BUFFER = 1024  # elements; NumPy buffers operands if several inner loops fit into its default of 8192, which costs 3 x
_SERIAL = 1 << 17  # entries for which another thread is worth waking

Span = tuple[int, int]


def convolution_matrix(
    kernel: npt.ArrayLike,
    input_shape: Shape,
    *,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    flip: bool = False,
    format: str = "csr",
    dtype: npt.DTypeLike | None = None,
    rows: Span | None = None,
    workers: int | None = None,
) -> Any:
    """Return the sparse matrix W of a convolution, so that ``(W @ x.ravel()).reshape(output_shape)`` is the convolution.

    As in deep learning, convolution means cross-correlation: ``y[c, o] = Σ K[c, i, t] · x[i, source(o, t)]`` with
    ``source(o, t) = o·stride − before + t·dilation`` on each axis, and the kernel is not flipped unless `flip` says so.

    Parameters
    ----------
    kernel : array_like
        ``(*k,)`` for one channel in and out, or ``(C_out, C_in // groups, *k)``, for any number of axes.
    input_shape : int or sequence of int
        ``(*spatial,)`` or ``(C_in, *spatial)``; which of the two follows from the kernel's number of dimensions.
    stride, dilation : int or sequence of int
        For all axes, or one per axis.
    padding : int, str or sequence
        An int for all axes, one int per axis, one ``(before, after)`` pair per axis, ``"valid"``, ``"same"`` or ``"full"``.
    groups : int
        Number of groups of channels that do not see each other.
    padding_mode : {"zeros", "circular", "reflect", "symmetric", "replicate"}
        What a position outside the input reads; see `ConvolutionGeometry` for the names elsewhere.
    flip : bool
        Reverse the kernel's spatial axes first: convolution as in signal processing.
    format : {"csr", "csc", "coo", "bsr", "dia", "dok", "lil"}
        Sparse format of the result.
    dtype : dtype, optional
        Dtype of the result, a "same_kind" cast of the kernel's; that of the kernel by default.
    rows : (int, int), optional
        Build only rows ``start`` to ``stop`` of the matrix.
    workers : int, optional
        Number of threads; None means the CPUs available to the process, negative numbers count back from all of them.

    Returns
    -------
    sparse array
        Of shape (size of the output, size of the input), or as many rows as asked for. CSR has sorted indices without
        duplicates, int32 while the number of nonzeros and both dimensions fit, else int64. Zeros in the kernel are stored,
        so the pattern depends on the geometry alone.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel of an unsupported dtype.
    ValueError
        If an argument has a wrong value.
    MemoryError
        If the matrix does not fit into memory.

    See Also
    --------
    Convolution : the same map without storing the matrix.
    transposed_convolution_matrix : the transpose, written directly.
    scipy.linalg.convolution_matrix : dense, one axis; ``flip=True`` with "full" or "valid" padding gives the same.

    References
    ----------
    .. [1] A. Zhang, Z. C. Lipton, M. Li, A. J. Smola, "Dive into Deep Learning", section "Transposed Convolution".

    Examples
    --------
    >>> from convmat import convolution_matrix
    >>> convolution_matrix([[1, 2], [3, 4]], (3, 3)).toarray()
    array([[1, 2, 0, 3, 4, 0, 0, 0, 0],
           [0, 1, 2, 0, 3, 4, 0, 0, 0],
           [0, 0, 0, 1, 2, 0, 3, 4, 0],
           [0, 0, 0, 0, 1, 2, 0, 3, 4]])
    """
    kernel = _as_kernel(kernel, dtype)
    geometry = ConvolutionGeometry(
        kernel.shape,
        input_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
    )
    return assemble_as(geometry, kernel, False, flip, format, rows, workers)


def transposed_convolution_matrix(
    kernel: npt.ArrayLike,
    input_shape: Shape,
    *,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    flip: bool = False,
    output_padding: IntPerAxis = 0,
    output_shape: Shape | None = None,
    format: str = "csr",
    dtype: npt.DTypeLike | None = None,
    rows: Span | None = None,
    workers: int | None = None,
) -> Any:
    """Return the sparse matrix Wᵀ of a transposed convolution, written directly in its own form.

    A transposed convolution is described by the convolution that it transposes: the same kernel array and the same
    options. Only sizes are seen from the other side.

    Parameters
    ----------
    kernel : array_like
        ``(*k,)``, or ``(C_in, C_out // groups, *k)`` as in PyTorch's ``ConvTranspose``.
    input_shape : int or sequence of int
        What goes in: ``(*spatial,)`` or ``(C_in, *spatial)``.
    stride, padding, dilation, groups, padding_mode, flip
        The options of the convolution, as in `convolution_matrix`. What the padding mode reads from a border, the
        transpose adds back to it.
    output_padding : int or sequence of int
        Added to the smallest of the output sizes that the strided convolution maps to `input_shape`; below
        ``max(stride, dilation)``. It chooses a size and pads nothing.
    output_shape : int or sequence of int, optional
        The same choice by name, channels included if there are any. Not together with `output_padding`.
    format, dtype, rows, workers
        As in `convolution_matrix`.

    Returns
    -------
    sparse array
        Of shape (size of the output, size of the input), or as many rows as asked for, canonical as that of
        `convolution_matrix`.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel of an unsupported dtype.
    ValueError
        If an argument has a wrong value.
    MemoryError
        If the matrix does not fit into memory.

    See Also
    --------
    TransposedConvolution : the same map without storing the matrix.

    Examples
    --------
    >>> from convmat import transposed_convolution_matrix
    >>> W_T = transposed_convolution_matrix([[0, 1], [2, 3]], (2, 2), stride=2)
    >>> (W_T @ [0, 1, 2, 3]).reshape(4, 4)
    array([[0, 0, 0, 1],
           [0, 0, 2, 3],
           [0, 2, 0, 3],
           [4, 6, 6, 9]])
    """
    kernel = _as_kernel(kernel, dtype)
    geometry = ConvolutionGeometry.of_transposed(
        kernel.shape,
        input_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        output_padding=output_padding,
        output_shape=output_shape,
    )
    return assemble_as(geometry, kernel, True, flip, format, rows, workers)


def assemble_as(
    geometry: ConvolutionGeometry,
    kernel: Array,
    transposed: bool,
    flip: bool,
    format: str = "csr",
    rows: Span | None = None,
    workers: int | None = None,
) -> Any:
    """Return `assemble`'s matrix in any format, after checking the options that all callers take from their users."""
    if not isinstance(format, str):
        raise TypeError(f"format must be a str, got {format!r}")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if not isinstance(flip, bool | np.bool_):
        raise TypeError(f"flip must be a bool, got {flip!r}")
    count = count_workers(workers)
    rows = _check_rows(rows, geometry.shape[int(transposed)])
    if flip:
        kernel = flip_spatial(kernel, len(geometry.axes))
    if format == "csc" and rows is None:  # the other direction's CSR, read by columns
        other = assemble(geometry, kernel, not transposed, None, count)
        result = sparse.csc_array((other.data, other.indices, other.indptr), shape=other.shape[::-1])
        result.has_canonical_format = True
        return result
    return assemble(geometry, kernel, transposed, rows, count).asformat(format)


def _as_kernel(kernel: npt.ArrayLike, dtype: npt.DTypeLike | None) -> Array:
    """Return the kernel as an array of a supported dtype."""
    array = as_array("kernel", kernel)
    if dtype is None:
        return array
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a NumPy dtype, got {dtype!r}") from None
    check_dtype("dtype", wanted)
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise TypeError(f"dtype must be a same_kind cast of the kernel's, {array.dtype}, got {wanted}")
    return array.astype(wanted.newbyteorder("="), copy=False)


def _check_rows(rows: object, size: int) -> Span | None:
    """Return a checked range of rows, or None."""
    if rows is None:
        return None
    if not isinstance(rows, Sequence) or isinstance(rows, str) or len(rows) != 2:
        raise TypeError(f"rows must be a pair (start, stop) of ints or None, got {rows!r}")
    try:
        start, stop = map(operator.index, rows)
    except TypeError:
        raise TypeError(f"rows must be a pair (start, stop) of ints or None, got {rows!r}") from None
    if not 0 <= start <= stop <= size:
        raise ValueError(f"rows must satisfy 0 <= start <= stop <= {size}, got {rows!r}")
    return start, stop


def assemble(
    geometry: ConvolutionGeometry,
    kernel: Array,
    transposed: bool = False,
    rows: Span | None = None,
    workers: int = 1,
) -> sparse.csr_array[Any, tuple[int, int]]:
    """Return rows of W or Wᵀ as a canonical CSR array.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution.
    kernel : array
        Its values, of ``geometry.kernel_shape``.
    transposed : bool
        Whether the matrix is Wᵀ.
    rows : (int, int), optional
        Range of rows of the matrix; all by default.
    workers : int
        Number of threads.

    Returns
    -------
    csr_array
        With as many rows as asked for, and the dtype of the kernel.

    Raises
    ------
    MemoryError
        If the matrix does not fit into the memory of the machine or of the control group.
    """
    matrix = _Matrix(geometry, kernel, transposed)
    first, last = rows or (0, matrix.shape[0])
    shape = (last - first, matrix.shape[1])
    nnz = matrix.count(first, last)
    index_dtype = sparse.get_index_dtype(maxval=max(nnz, *shape))
    _check_memory(shape, nnz, nnz * (kernel.itemsize + index_dtype().itemsize) + (shape[0] + 1) * index_dtype().itemsize)
    data, indices = np.empty(nnz, kernel.dtype), np.empty(nnz, index_dtype)
    indptr = np.empty(shape[0] + 1, index_dtype)
    indptr[0] = 0

    def write(start: int, stop: int) -> None:
        np.setbufsize(_BUFFER)
        entry = matrix.count(first, start)
        for box, rows_in_box, entries_in_box in matrix.boxes(start, stop):
            row, end = start - first, entry + entries_in_box
            matrix.write(box, data[entry:end], indices[entry:end], indptr[row + 1 : row + 1 + rows_in_box], entry)
            start, entry = start + rows_in_box, end

    copy_context().run(run_blocks, write, matrix.blocks(first, last, nnz, workers), workers)
    result = sparse.csr_array((data, indices, indptr), shape=shape)
    result.has_canonical_format = True
    return result


class _Matrix:
    """W or Wᵀ: its axes, its kernel with the row channels first, and how its rows are counted and written."""

    def __init__(self, geometry: ConvolutionGeometry, kernel: Array, transposed: bool) -> None:
        axes, groups = geometry.axes, geometry.groups
        outer, inner = geometry.out_channels // groups, geometry.in_channels // groups
        taps = geometry.spatial_kernel
        kernel = kernel.reshape(groups, outer, inner, *taps)
        if transposed:
            kernel = kernel.swapaxes(1, 2)
        self.kernel = kernel.reshape(-1, *kernel.shape[2:])  # (row channels, column channels of a group, *taps)
        self.group_size = kernel.shape[1]
        self.rows = (len(self.kernel), *(axis.rows(transposed) for axis in axes))
        columns = [axis.rows(not transposed) for axis in axes]
        self.steps = [prod(columns[i:]) for i in range(len(axes) + 1)]  # columns between channels, then between positions
        self.shape = (prod(self.rows), self.kernel.shape[1] * groups * self.steps[0])
        self._axes, self._transposed = axes, transposed
        self._runs: dict[tuple[int, Span], list[Run]] = {}

    def runs(self, axis: int, span: Span) -> list[Run]:
        """Return the runs of a range of rows of one axis."""
        key = axis, span
        if key not in self._runs:
            self._runs[key] = self._axes[axis].runs(self._transposed, *span)
        return self._runs[key]

    def boxes(self, start: int, stop: int) -> Iterator[tuple[tuple[Span, ...], int, int]]:
        """Cut a range of rows into products of ranges of channels and axes; yield each with its rows and entries."""
        for box in _boxes(start, stop, self.rows):
            entries = self.kernel.shape[1] * (box[0][1] - box[0][0])
            for axis, span in enumerate(box[1:]):
                entries *= sum(run.count * run.entries for run in self.runs(axis, span))
            yield box, prod(last - first for first, last in box), entries

    def count(self, start: int, stop: int) -> int:
        """Return the number of nonzeros of a range of rows."""
        return sum(entries for _, _, entries in self.boxes(start, stop))

    def blocks(self, start: int, stop: int, nnz: int, workers: int) -> list[Span]:
        """Cut a range of rows into blocks for threads, at whole lines of the last axis where lines are short enough."""
        pieces = min(workers, nnz // _SERIAL, stop - start)
        if pieces < 2:
            return [(start, stop)]
        line = self.rows[-1] if self.rows[-1] * 4 * pieces <= stop - start else 1
        cuts = sorted({start, stop, *((start + (stop - start) * i // pieces) // line * line for i in range(1, pieces))})
        return [(low, high) for low, high in zip(cuts[:-1], cuts[1:], strict=True) if start <= low]

    def write(self, box: tuple[Span, ...], data: Array, indices: Array, ends: Array, entry: int) -> None:
        """Write the rows of a box into contiguous arrays; `entry` is the number of entries before it."""
        (first, last), *spans = box
        kernel, integer = self.kernel[first:last], indices.dtype.type
        runs = [self.runs(axis, span) for axis, span in enumerate(spans)]
        _write_ends(runs, kernel.shape[1], entry, ends.reshape(len(kernel), -1))
        if data.size:
            group = np.arange(first, last, dtype=indices.dtype) // integer(self.group_size)
            target = _Entries(data.reshape(len(kernel), -1), indices.reshape(len(kernel), -1))
            columns = np.arange(kernel.shape[1], dtype=indices.dtype) * integer(self.steps[0])
            base = group * integer(kernel.shape[1] * self.steps[0])
            _Writer(runs, self.steps[1:], target.data.shape[1]).write(target, 0, kernel, columns, _Place(0, base))


def _write_ends(runs: list[list[Run]], width: int, entry: int, ends: Array) -> None:
    """Write where each row's entries end, for rows (channels, all rows of the axes) and `width` entries a channel."""
    integer = ends.dtype.type
    if len(runs) == 1:
        per_channel = width * _write_progression(runs[0], width, entry, ends[0])
        ends[1:] = ends[0] + np.arange(1, len(ends), dtype=ends.dtype)[:, None] * integer(per_channel)
        return
    # Rows of all axes but the first few end as they do for a single entry of those few, scaled by their entries.
    lead, count = 1, sum(run.count * run.period for run in runs[0])
    while count < 16 and lead + 1 < len(runs):
        count *= sum(run.count * run.period for run in runs[lead])
        lead += 1
    line = np.empty((1, ends.shape[1] // count), ends.dtype)
    _write_ends(runs[lead:], 1, 0, line)
    per_line = integer(line[0, -1])
    starts, widths = np.zeros(1, ends.dtype), np.full(1, width, ends.dtype)
    for axis in runs[:lead]:
        period = [np.array([len(row.columns) for row in run.rows], ends.dtype) for run in axis]
        lengths = np.concatenate([np.tile(part, run.count) for part, run in zip(period, axis, strict=True)])
        before = np.cumsum(lengths, dtype=ends.dtype)
        starts = (starts[:, None] * before[-1] + widths[:, None] * (before - lengths)).ravel()
        widths = (widths[:, None] * lengths).ravel()
    per_channel = int(starts[-1] + widths[-1]) * int(per_line)
    for channel, out in enumerate(ends.reshape(len(ends), count, line.size)):
        np.multiply(widths[:, None], line, out=out)
        out += (starts * per_line + integer(entry + channel * per_channel))[:, None]


def _write_progression(runs: list[Run], width: int, entry: int, ends: Array) -> int:
    """Write where the rows of one axis end, at `width` entries for each of the axis' own; return the number of those."""
    row = total = 0
    for run in runs:
        period = np.cumsum([width * len(row.columns) for row in run.rows], dtype=ends.dtype)
        fit = max(1, min(run.count, _BLOCK // run.period))
        step = int(period[-1])
        pattern = (np.arange(fit, dtype=ends.dtype)[:, None] * ends.dtype.type(step) + period).ravel()
        whole, rest = divmod(run.count, fit)
        starts = np.arange(whole, dtype=ends.dtype) * ends.dtype.type(fit * step) + ends.dtype.type(entry)
        size = whole * pattern.size
        np.add(starts[:, None], pattern, out=ends[row : row + size].reshape(whole, -1))
        rest *= run.period
        np.add(pattern[:rest], ends.dtype.type(entry + whole * fit * step), out=ends[row + size : row + size + rest])
        row, entry = row + size + rest, entry + run.count * step
        total += run.count * run.entries
    return total


@dataclass(frozen=True, slots=True)
class _Entries:
    """Data and indices of consecutive rows, the same rows for several row channels."""

    data: Array  # (channels, entries)
    indices: Array  # (channels, entries), or (1, entries) in a pattern


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a pattern is written: the first entry, what is added to its columns, and how both repeat."""

    entry: int
    column: Array  # (channels,)
    counts: tuple[int, ...] = ()
    entry_steps: tuple[int, ...] = ()
    column_steps: tuple[int, ...] = ()

    def moved(self, entry: int, column: int = 0) -> _Place:
        shifted = self.column + self.column.dtype.type(column) if column else self.column
        return _Place(self.entry + entry, shifted, self.counts, self.entry_steps, self.column_steps)

    def repeated(self, count: int, entry: int, column: int) -> _Place:
        if count == 1:
            return self
        counts, entries, columns = (*self.counts, count), (*self.entry_steps, entry), (*self.column_steps, column)
        return _Place(self.entry, self.column, counts, entries, columns)


class _Writer:
    """Writes the product of the rows of all axes, axis by axis: every run of an axis times all of the axes after it."""

    def __init__(self, runs: list[list[Run]], steps: list[int], size: int) -> None:
        self.steps = steps
        self.tail = [1]  # entries of all axes from one on, for one entry of the axes before it
        self.runs = []
        for axis in reversed(runs):
            sized = [(run, run.entries) for run in axis]
            self.tail.insert(0, self.tail[0] * sum(run.count * entries for run, entries in sized))
            self.runs.insert(0, sized)
        # Patterns must take no memory to speak of.
        self.block, self.line = min(_BLOCK, size // 8), min(_LINE, size // 8)

    def write(self, target: _Entries, axis: int, kernel: Array, columns: Array, place: _Place, plain: bool = False) -> None:
        """Write all rows of the axes from `axis` on, for the entries (kernel values and columns) of the axes before it."""
        if axis == len(self.runs):
            _repeat(_Entries(kernel.reshape(len(kernel), columns.size), columns[None]), target, place)
            return
        width = columns.size * self.tail[axis + 1]
        parts, entry = [], 0
        for run, entries in self.runs[axis]:
            parts.append((run, entries * width, entry))
            entry += run.count * entries * width
        # Largest first: memory is then touched for the first time, and in order, by the run that fills most of it.
        for run, size, entry in sorted(parts, key=lambda part: -part[0].count):
            if not size:
                continue
            here = place.moved(entry) if entry else place
            fit = 0 if plain else min(run.count, self.block // size)
            if not fit and not plain and axis + 1 < len(self.runs) and size <= self.line:
                fit = 1
            if fit * run.period * self.tail[axis + 1] > 1 and (place.counts or run.count > fit):
                self.write_blocks(target, axis, run, fit, size, kernel, columns, here)
            else:
                self.write_periods(target, axis, run, run.count, size, kernel, columns, here, plain)

    def write_periods(
        self,
        target: _Entries,
        axis: int,
        run: Run,
        count: int,
        size: int,
        kernel: Array,
        columns: Array,
        place: _Place,
        plain: bool,
    ) -> None:
        """Write a run by the rows of its period, each of which repeats at a constant distance."""
        step, tail = self.steps[axis], self.tail[axis + 1]
        place = place.repeated(count, size, run.shift * step)
        for row in run.rows:
            own = _columns(row, columns.dtype)
            if step != 1:
                own = own * columns.dtype.type(step)
            joined = (columns[:, None] + own).ravel()
            if joined.size:
                self.write(target, axis + 1, _restrict(kernel, axis + 2, row), joined, place, plain)
                place = place.moved(joined.size * tail)

    def write_blocks(
        self, target: _Entries, axis: int, run: Run, fit: int, size: int, kernel: Array, columns: Array, place: _Place
    ) -> None:
        """Write a run by a pattern of `fit` periods, and what is left by the beginning of that pattern."""
        data = np.empty((len(kernel), fit * size), kernel.dtype)
        indices = np.empty((1, fit * size), columns.dtype)
        self.write_periods(
            _Entries(data, indices), axis, run, fit, size, kernel, columns, _Place(0, np.zeros(1, columns.dtype)), True
        )
        whole, rest = divmod(run.count, fit)
        shift = run.shift * self.steps[axis]
        _repeat(_Entries(data, indices), target, place.repeated(whole, fit * size, fit * shift))
        if rest:
            place = place.moved(whole * fit * size, whole * fit * shift)
            _repeat(_Entries(data[:, : rest * size], indices[:, : rest * size]), target, place)


def _columns(row: Row, dtype: npt.DTypeLike) -> Array:
    """Return the columns of a row as an array."""
    if isinstance(row.columns, range):
        return np.arange(row.columns.start, row.columns.stop, row.columns.step, dtype)
    return row.columns.astype(dtype)


def _restrict(kernel: Array, axis: int, row: Row) -> Array:
    """Return the kernel's values for the columns of a row of one axis, taps of the same column added up."""
    values = kernel[(slice(None),) * axis + (row.taps,)]
    if row.starts is None:
        return values
    return np.add.reduceat(values, row.starts, axis, dtype=kernel.dtype)


def _repeat(pattern: _Entries, target: _Entries, place: _Place) -> None:
    """Write a pattern at every place, each with its own constant added to the columns."""
    size, columns = pattern.data.shape[1], place.column
    if not place.counts:
        span = slice(place.entry, place.entry + size)
        target.data[:, span] = pattern.data
        np.add(columns[:, None], pattern.indices, out=target.indices[:, span])
        return
    for count, step in zip(place.counts, place.column_steps, strict=True):
        columns = columns[..., None] + np.arange(0, count * step, step, dtype=columns.dtype)
    data = _window(target.data, place, size)
    data[...] = pattern.data.reshape(-1, *(1,) * len(place.counts), size)
    np.add(columns[..., None], pattern.indices[0], out=_window(target.indices, place, size))


def _window(array: Array, place: _Place, size: int) -> Array:
    """Return a view (channels, *counts, size) of a contiguous (channels, entries) array."""
    item = array.itemsize
    strides = (array.strides[0], *(step * item for step in place.entry_steps), item)
    return np.ndarray((len(array), *place.counts, size), array.dtype, array, place.entry * item, strides)


def _boxes(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[Span, ...]]:
    """Cut a range of the C-order positions of an array into products of ranges, in order."""
    if start >= stop:
        return
    if len(shape) == 1:
        yield ((start, stop),)
        return
    inner = prod(shape[1:])
    head, tail = -(-start // inner), stop // inner
    if head > tail:  # all within one index of the first dimension
        for box in _boxes(start - tail * inner, stop - tail * inner, shape[1:]):
            yield ((tail, tail + 1), *box)
        return
    for box in _boxes(start - (head - 1) * inner, inner, shape[1:]) if start < head * inner else ():
        yield ((head - 1, head), *box)
    if head < tail:
        yield ((head, tail), *((0, size) for size in shape[1:]))
    for box in _boxes(0, stop - tail * inner, shape[1:]):
        yield ((tail, tail + 1), *box)


def _check_memory(shape: tuple[int, int], nnz: int, nbytes: int) -> None:
    """Raise MemoryError for a matrix that the machine cannot hold: under overcommit, allocating it would succeed."""
    limit = _memory_limit()
    if nbytes > limit:
        raise MemoryError(
            f"the {shape[0]} × {shape[1]} matrix has {nnz} nonzeros and takes {nbytes} bytes, more than the {limit} bytes "
            "of memory; apply it without storing it (convmat.Convolution, convmat.TransposedConvolution), or build a "
            "range of its rows with rows="
        )


@cache
def _memory_limit() -> int:
    """Return the bytes of physical memory, or the control group's limit if that is lower."""
    limits = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(limits, default=2**63 - 1)
