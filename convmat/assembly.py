"""W and its transpose as sparse matrices: geometry and kernel in, canonical CSR out, in either direction.

A row of the matrix is a product of one row of each axis, so the nonzeros of a product of runs are strided arrays: the
pattern of one block of rows, and the same again plus a constant for each next block. A pattern is written once, into
arrays small enough for the nearest cache, and the matrix is written from it by whole-array copies and additions, at about
the speed at which memory can be filled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import dataclass
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
        pieces = min(4 * workers, nnz // _SERIAL, stop - start) if workers > 1 else 1
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
    base, widths = np.zeros(1, ends.dtype), np.full(1, width, ends.dtype)
    *leading, last = runs
    totals = [sum(run.count * run.entries for run in axis) for axis in runs]
    for axis, run_list in enumerate(leading):
        lengths = np.concatenate(
            [np.tile(np.array([len(row.columns) for row in run.rows], ends.dtype), run.count) for run in run_list]
        )
        before = np.cumsum(lengths, dtype=ends.dtype) - lengths
        base = (base[:, None] + widths[:, None] * (before * prod(totals[axis + 1 :]))).ravel()
        widths = (widths[:, None] * lengths).ravel()
    per_channel = width * prod(totals)
    if not leading:
        _write_progression(last, width, entry, ends[0])
        ends[1:] = ends[0] + np.arange(1, len(ends), dtype=ends.dtype)[:, None] * per_channel
        return
    line = np.empty(sum(run.count * run.period for run in last), ends.dtype)
    _write_progression(last, 1, 0, line)
    lines = ends.reshape(len(ends), base.size, line.size)
    for channel, out in enumerate(lines):
        np.multiply(widths[:, None], line, out=out)
        out += (base + (entry + channel * per_channel))[:, None]


def _write_progression(runs: list[Run], width: int, entry: int, ends: Array) -> None:
    """Write where the rows of one axis end, at `width` entries for each of the axis' own."""
    row = 0
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
            own = np.asarray(row.columns, columns.dtype)
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
