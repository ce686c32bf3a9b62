"""Writes the nonzeros of rows of W or Wᵀ, at about the speed at which memory can be filled.

A row of the matrix is a product of one row of each axis, so the nonzeros of a product of runs are strided arrays: the
pattern of one block of rows, and the same again plus a constant for each next block. A pattern is written once, into
arrays small enough for a cache, and the matrix is written from it by whole-array copies and additions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import copy_context
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convmat.axis import Row, Run
from convmat.dtypes import Array, flip_spatial
from convmat.geometry import ConvolutionGeometry
from convmat.parallel import run_blocks

Span = tuple[int, int]

_BLOCK = 3072  # entries of a pattern: its data and indices stay in a 48 KiB first-level cache
_LINE = 49152  # entries of a pattern that spans whole lines of the axes after it: stays in the second-level cache
_TABLE = 1 << 17  # cells of a table, at most; more would take memory to speak of
_TABLE_FOR_RUNS = 4000  # cells of a table that cost as much as writing one product of runs
_WORTH = 1 << 15  # entries for which writing a pattern first costs less than the short inner loops it saves
_BUFFER = 256  # elements; NumPy buffers operands if several inner loops fit into its default of 8192, which costs 3 x
_SERIAL = 1 << 17  # entries for which another thread is worth waking


class MatrixRows:
    """W or Wᵀ: its axes, its kernel with the row channels first, and how its rows are counted and written."""

    def __init__(self, geometry: ConvolutionGeometry, kernel: Array, transposed: bool) -> None:
        axes, groups = geometry.axes, geometry.groups
        outer, inner = geometry.out_channels // groups, geometry.in_channels // groups
        taps = geometry.spatial_kernel
        kernel = kernel.reshape(groups, outer, inner, *taps)
        if transposed:
            kernel = kernel.swapaxes(1, 2)
        self.kernel = kernel.reshape(-1, *kernel.shape[2:])  # (row channels, column channels of a group, *taps)
        self._group_size = kernel.shape[1]
        self.rows = (len(self.kernel), *(axis.rows(transposed) for axis in axes))
        columns = [axis.rows(not transposed) for axis in axes]
        # Columns between channels, then between positions of each axis.
        self._steps = [prod(columns[i:]) for i in range(len(axes) + 1)]
        self.shape = (prod(self.rows), self.kernel.shape[1] * groups * self._steps[0])
        self._axes, self._transposed = axes, transposed
        self._known: dict[tuple[int, Span], list[Run]] = {}

    def count(self, start: int, stop: int) -> int:
        """Return the number of nonzeros of a range of rows."""
        return sum(self._entries(box) for box in _boxes(start, stop, self.rows))

    def write(self, start: int, stop: int, data: Array, indices: Array, ends: Array, workers: int = 1) -> None:
        """Write a range of rows.

        Parameters
        ----------
        start, stop : int
            The range.
        data, indices : array
            Contiguous, of the range's number of nonzeros, and of the kernel's and of an integer dtype.
        ends : array
            Contiguous, of the indices' dtype: where each row's entries end.
        workers : int
            Number of threads.
        """

        def write_large_block(first: int, last: int) -> None:
            np.setbufsize(_BUFFER)
            write_block(first, last)

        def write_block(first: int, last: int) -> None:
            begin = self.count(start, first) if first > start else 0
            boxes = list(_boxes(first, last, self.rows))
            for box in boxes:
                row, rows = first - start, prod(high - low for low, high in box)
                end = data.size if last == stop and box is boxes[-1] else begin + self._entries(box)
                self._write_box(box, data[begin:end], indices[begin:end], ends[row : row + rows], begin)
                first, begin = first + rows, end

        pieces = min(workers, data.size // _SERIAL, stop - start)
        line = self.rows[-1] if self.rows[-1] * 4 * pieces <= stop - start else 1  # whole lines if they are short
        cuts = {(start + (stop - start) * piece // pieces) // line * line for piece in range(1, pieces)}
        blocks = list(pairwise(sorted({start, stop, *(cut for cut in cuts if start < cut)})))
        if data.size < _TABLE:
            write_block(start, stop)
        else:
            copy_context().run(run_blocks, write_large_block, blocks, workers)

    def _runs(self, axis: int, span: Span) -> list[Run]:
        """Return the runs of a range of rows of one axis."""
        if (axis, span) not in self._known:
            self._known[axis, span] = self._axes[axis].runs(self._transposed, *span)
        return self._known[axis, span]

    def _entries(self, box: tuple[Span, ...]) -> int:
        """Return the number of nonzeros of a box: a range of channels, and a range of rows of each axis."""
        entries: int = (box[0][1] - box[0][0]) * self.kernel.shape[1]
        for i, (axis, span) in enumerate(zip(self._axes, box[1:], strict=True)):
            whole = span == (0, axis.rows(self._transposed)) and axis.mode == "zeros"
            entries *= axis.pairs if whole else sum(run.count * run.entries for run in self._runs(i, span))
        return entries

    def _write_box(self, box: tuple[Span, ...], data: Array, indices: Array, ends: Array, begin: int) -> None:
        """Write the rows of a box into contiguous arrays; `begin` is the number of entries before it."""
        (first, last), *spans = box
        kernel, integer = self.kernel[first:last], indices.dtype.type
        between = self._steps[0]  # columns between channels
        columns = np.arange(0, kernel.shape[1] * between, between, dtype=indices.dtype)
        base = np.arange(first, last, dtype=indices.dtype)[:, None] // integer(self._group_size)
        base *= integer(kernel.shape[1] * between)
        target = _Entries(data.reshape(len(kernel), -1), indices.reshape(len(kernel), -1), base)
        ends = ends.reshape(len(kernel), -1)
        if self._small(spans, kernel.size):
            size = kernel.shape[1] * between
            wide = np.dtype(np.int64) if size * len(spans) > np.iinfo(indices.dtype).max else indices.dtype
            axes = zip(self._axes, spans, strict=True)
            tables = [axis.table(self._transposed, *span, wide) for axis, span in axes]
            if self._transposed:
                kernel = flip_spatial(kernel, len(spans))
            lengths = _write_tables(tables, self._steps[1:], kernel, columns.astype(wide, copy=False), size, target)
            np.cumsum(lengths, out=ends[0])
            ends[1:] = ends[0]
            if len(kernel) > 1 or begin:
                ends += (np.arange(len(kernel), dtype=ends.dtype) * integer(target.data.shape[1]) + integer(begin))[
                    :, None
                ]
        else:
            runs = [self._runs(i, span) for i, span in enumerate(spans)]
            _write_ends(runs, kernel.shape[1], begin, ends)
            if data.size:
                _Writer(runs, self._steps[1:], target).write(target, 0, kernel, columns, _Place())

    def _small(self, spans: list[Span], kernel_size: int) -> bool:
        """Tell whether a box has so few nonzeros, or so many products of runs, that a table of all taps is cheaper."""
        pairs = list(zip(self._axes, spans, strict=True))
        cells = kernel_size * prod(last - first for _, (first, last) in pairs)
        products = prod(min(last - first, 2 * axis.taps + 1) for axis, (first, last) in pairs)
        return cells <= min(_TABLE, _TABLE_FOR_RUNS * products) and all(axis.mode == "zeros" for axis in self._axes)


def _write_tables(
    tables: list[tuple[Array, Array]],
    steps: list[int],
    kernel: Array,
    columns: Array,
    size: int,
    target: _Entries,
) -> Array:
    """Write a small box from tables of all taps of all rows; return row lengths."""
    integer, complete = columns.dtype.type, True
    position = np.zeros((1, 1), columns.dtype)  # (taps, rows) of the axes so far, from the last on
    lengths = np.full(1, columns.size, columns.dtype)
    for (own, outside), step in zip(reversed(tables), reversed(steps), strict=True):
        lengths = ((len(own) - np.add.reduce(outside, axis=0, dtype=columns.dtype))[:, None] * lengths).ravel()
        own *= integer(step)
        if outside.any():
            own[outside] = integer(-size)  # so that every sum with it is negative
            complete = False
        position = (own[:, None, :, None] + position[:, None]).reshape(own.shape[0] * len(position), -1)
    if columns.size > 1:
        position = (columns[:, None, None] + position).reshape(-1, len(lengths))
    kernel = kernel.reshape(len(kernel), 1, -1)
    position = position.T  # (rows, taps)
    if complete:
        target.data.reshape(len(kernel), *position.shape)[...] = kernel
        np.add(target.base[..., None], position, out=target.indices.reshape(len(kernel), *position.shape))
        return lengths
    data = np.empty((len(kernel), *position.shape), kernel.dtype)
    data[...] = kernel
    flat: Array = position.ravel()
    cells = np.flatnonzero(flat >= 0)
    data.reshape(len(kernel), -1).take(cells, axis=1, out=target.data, mode="clip")
    np.add(target.base, flat.take(cells), out=target.indices)
    return lengths


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
    line = np.ones(1, ends.dtype)
    for axis in reversed(runs[lead:]):
        lengths = _lengths(axis, ends.dtype)
        line = (
            ((np.cumsum(lengths, dtype=ends.dtype) - lengths) * line[-1])[:, None] + lengths[:, None] * line
        ).ravel()
    starts, widths = np.zeros(1, ends.dtype), np.full(1, width, ends.dtype)
    for axis in runs[:lead]:
        lengths = _lengths(axis, ends.dtype)
        before = np.cumsum(lengths, dtype=ends.dtype)
        starts = (starts[:, None] * before[-1] + widths[:, None] * (before - lengths)).ravel()
        widths = (widths[:, None] * lengths).ravel()
    per_channel = int(starts[-1] + widths[-1]) * int(line[-1])
    for channel, out in enumerate(ends.reshape(len(ends), count, line.size)):
        np.multiply(widths[:, None], line, out=out)
        out += (starts * line[-1] + integer(entry + channel * per_channel))[:, None]


def _lengths(runs: list[Run], dtype: np.dtype[Any]) -> Array:
    """Return the number of entries of each row of one axis."""
    periods = [np.array([len(row.columns) for row in run.rows], dtype) for run in runs]
    if all(run.period == 1 for run in runs):
        return np.repeat(np.concatenate(periods), [run.count for run in runs])
    return np.concatenate([np.tile(period, run.count) for period, run in zip(periods, runs, strict=True)])


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


class _Entries(NamedTuple):
    """Data and indices of consecutive rows, the same rows for several row channels."""

    data: Array  # (channels, entries)
    indices: Array  # (channels, entries), or (1, entries) in a pattern
    base: Array  # (channels, 1) or (1, 1): what is added to the columns


class _Place(NamedTuple):
    """Where a pattern is written: the first entry, what is added to its columns, and how both repeat."""

    entry: int = 0
    column: int = 0
    counts: tuple[int, ...] = ()
    entry_steps: tuple[int, ...] = ()
    column_steps: tuple[int, ...] = ()

    def moved(self, entry: int, column: int = 0) -> _Place:
        return _Place(self.entry + entry, self.column + column, self.counts, self.entry_steps, self.column_steps)

    def repeated(self, count: int, entry: int, column: int) -> _Place:
        if count == 1:
            return self
        counts, entries, columns = (*self.counts, count), (*self.entry_steps, entry), (*self.column_steps, column)
        return _Place(self.entry, self.column, counts, entries, columns)


class _Part(NamedTuple):
    """A run of one axis, with what the writer needs of it."""

    run: Run
    entries: int  # of a period
    before: int  # entries of the runs before it
    rows: list[tuple[Row, Array]]  # of a period, with their columns in the matrix
    shift: int  # of the columns in the matrix, by a period


class _Writer:
    """Writes the product of the rows of all axes, axis by axis: every run of an axis times all of the axes after it."""

    def __init__(self, runs: list[list[Run]], steps: list[int], target: _Entries) -> None:
        self.tail = [1]  # entries of all axes from one on, for one entry of the axes before it
        self.parts: list[list[_Part]] = []
        for axis, step in zip(reversed(runs), reversed(steps), strict=True):
            parts, before = [], 0
            for run in axis:
                rows = [(row, _columns(row, step, target.indices.dtype)) for row in run.rows if len(row.columns)]
                part = _Part(run, run.entries, before, rows, run.shift * step)
                before += run.count * part.entries
                parts.append(part)
            # Largest first: memory is then touched for the first time, and in order, by the run that fills most of it.
            self.parts.insert(0, sorted((part for part in parts if part.rows), key=lambda part: -part.run.count))
            self.tail.insert(0, self.tail[0] * before)
        # Patterns must take no memory to speak of.
        size = target.data.shape[1]
        self.block, self.line = min(_BLOCK, size // 8), min(_LINE, size // 8)

    def write(
        self, target: _Entries, axis: int, kernel: Array, columns: Array, place: _Place, plain: bool = False
    ) -> None:
        """Write all rows of the axes from `axis` on, for the entries (kernel values and columns) of the axes before it."""
        if axis == len(self.parts):
            _repeat(kernel.reshape(len(kernel), columns.size), columns, target, place)
            return
        width = columns.size * self.tail[axis + 1]
        for part in self.parts[axis]:
            count, size = part.run.count, part.entries * width
            here = place.moved(part.before * width)
            fit = 0
            if not plain:
                fit = min(count, self.block // size) or int(axis + 1 < len(self.parts) and size <= self.line)
            worth = count * size * prod(place.counts) > max(_WORTH, fit * size)
            if worth and fit * part.run.period * self.tail[axis + 1] > 1:
                self.write_blocks(target, axis, part, fit, size, kernel, columns, here)
            else:
                here = here.repeated(count, size, part.shift)
                self.write_period(target, axis, part, kernel, columns, here, plain)

    def write_period(
        self, target: _Entries, axis: int, part: _Part, kernel: Array, columns: Array, place: _Place, plain: bool
    ) -> None:
        """Write a run by the rows of its period, each of which repeats as `place` says."""
        for row, own in part.rows:
            joined = (columns[:, None] + own).ravel()
            self.write(target, axis + 1, _restrict(kernel, axis + 2, row), joined, place, plain)
            place = place.moved(joined.size * self.tail[axis + 1])

    def write_blocks(
        self,
        target: _Entries,
        axis: int,
        part: _Part,
        fit: int,
        size: int,
        kernel: Array,
        columns: Array,
        place: _Place,
    ) -> None:
        """Write a run by a pattern of `fit` periods, and what is left by the beginning of that pattern."""
        block, shift = fit * size, fit * part.shift
        data, indices = np.empty((len(kernel), block), kernel.dtype), np.empty((1, block), columns.dtype)
        pattern = _Entries(data, indices, np.zeros((1, 1), columns.dtype))
        self.write_period(pattern, axis, part, kernel, columns, _Place().repeated(fit, size, part.shift), True)
        whole, rest = divmod(part.run.count, fit)
        _repeat(data, indices[0], target, place.repeated(whole, block, shift))
        if rest:
            end = rest * size
            _repeat(data[:, :end], indices[0, :end], target, place.moved(whole * block, whole * shift))


def _columns(row: Row, step: int, dtype: np.dtype[Any]) -> Array:
    """Return the columns of a row, `step` apart in the matrix."""
    own = row.columns
    if isinstance(own, range):
        columns: Array = np.arange(own.start * step, own.stop * step, own.step * step, dtype=dtype)
        return columns
    listed: Array = own.astype(dtype) * dtype.type(step)
    return listed


def _restrict(kernel: Array, axis: int, row: Row) -> Array:
    """Return the kernel's values for the columns of a row of one axis, taps of the same column added up."""
    values = kernel[(slice(None),) * axis + (row.taps,)]
    if row.starts is None:
        return values
    return np.add.reduceat(values, row.starts, axis, dtype=kernel.dtype)


def _repeat(data: Array, indices: Array, target: _Entries, place: _Place) -> None:
    """Write data (channels, entries) and indices (entries) at every place, a constant added to the columns of each."""
    size, base = len(indices), target.base
    if place.column:
        base = base + base.dtype.type(place.column)
    if not place.counts:
        span = slice(place.entry, place.entry + size)
        target.data[:, span] = data
        np.add(base, indices, out=target.indices[:, span])
        return
    for count, step in zip(place.counts, place.column_steps, strict=True):
        base = base[..., None, :] + np.arange(0, count * step, step, dtype=base.dtype)[:, None]
    _window(target.data, place, size)[...] = data.reshape(-1, *(1,) * len(place.counts), size)
    np.add(base, indices, out=_window(target.indices, place, size))


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
