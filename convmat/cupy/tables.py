"""What the kernel that writes a matrix needs to know of an axis: a few integers for each run of rows, laid out for it.

A row of the matrix is a product of one row of each axis, and an axis comes in the runs of `Axis.runs`, which are the same
for both directions and all padding modes. Rows that no border folds into are progressions of columns and taps; the others
are listed. Columns and places in the kernel ("slots") are scaled here, so that those of a nonzero are sums over the axes.
Where taps share a source their sum is a slot of its own, behind the taps of that axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd, prod
from typing import NamedTuple

import numpy as np

from convmat.axis import Axis, IntArray
from convmat.cupy.joined import joined
from convmat.geometry import ConvolutionGeometry

Span = tuple[int, int]

_HEADER, _AXIS, _ROW = 11, 4, 7  # numbers that describe the matrix, each axis, and a row of one
_LISTED = -1  # instead of a tap, where the nonzeros of a row are listed
_NOTHING: IntArray = np.zeros(0, np.int64)
_NO_ROWS: IntArray = np.zeros((0, 5), np.int64)
_NO_PAIRS: IntArray = np.zeros((0, 2), np.int64)
_JOB = 4096  # nonzeros of a job: a few for each thread, and enough jobs to fill a device from 10⁷ nonzeros on


class Launch(NamedTuple):
    """One launch of the kernel: all that it needs to know, and how many blocks of threads have something to do."""

    plan: IntArray
    jobs: int


class MatrixTables:
    """Rows of W or Wᵀ, described for the device.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution.
    transposed : bool
        Whether the matrix is Wᵀ.
    start, stop : int
        Range of rows; all by default.

    Attributes
    ----------
    shape : (int, int)
        Of the matrix with these rows.
    nnz : int
        The number of its nonzeros.
    axes : list of Axis
        The axes of the rows, `joined` where that is possible.
    sums : list of (int array, int array)
        For each axis the taps that share a source, one sum after the other, and where each sum begins.
    launches : list of Launch
        At most three: whole lines of the last axis, and a part of a line before and after them.
    """

    def __init__(
        self, geometry: ConvolutionGeometry, transposed: bool, start: int = 0, stop: int | None = None
    ) -> None:
        outer, inner = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
        self.axes, self._transposed = joined(geometry.axes), transposed
        self._outer, self._inner = (inner, outer) if transposed else (outer, inner)
        rows, columns = geometry.shape[::-1] if transposed else geometry.shape
        stop = rows if stop is None else stop
        self._entries = [axis.entries for axis in self.axes]
        self._start, self._begin = start, self._entries_before(start)
        self.shape = (stop - start, columns)
        self.nnz = self._entries_before(stop) - self._begin
        parts = list(_lines(start, stop, self.axes[-1].rows(transposed)))
        leading = [_Rows(axis, transposed, 0, axis.rows(transposed)) for axis in self.axes[:-1]]
        trailing: list[_Rows] = []
        for _, span in parts:
            known = sum(len(rows.sums[1]) for rows in trailing)
            trailing.append(_Rows(self.axes[-1], transposed, *span, known))
        self.sums = [rows.sums for rows in leading]
        merged = [rows.sums[0] for rows in trailing]
        begins = np.cumsum([0, *map(len, merged)])
        starts = [rows.sums[1] + begin for rows, begin in zip(trailing, begins, strict=False)]
        self.sums.append((np.concatenate([_NOTHING, *merged]), np.concatenate([_NOTHING, *starts])))
        between = [axis.rows(not transposed) for axis in self.axes]
        slots = [axis.taps + len(starts) for axis, (_, starts) in zip(self.axes, self.sums, strict=True)]
        self._columns, self._slots = _strides(between), _strides(slots)
        self.launches = [
            self._launch(lines, [*leading, rows]) for (lines, _), rows in zip(parts, trailing, strict=True)
        ]

    def _entries_before(self, row: int) -> int:
        """Return the number of nonzeros of all rows before one."""
        sizes = _strides([axis.rows(self._transposed) for axis in self.axes])
        tails = _strides(self._entries)
        at, rest = divmod(row, sizes[0])
        total, width = at * self._inner * tails[0], self._inner
        for axis, size, tail in zip(self.axes, sizes[1:], tails[1:], strict=True):
            at, rest = divmod(rest, size)
            total += width * tail * _Rows(axis, self._transposed, 0, at).entries
            width *= _Rows(axis, self._transposed, at, min(at + 1, axis.rows(self._transposed))).entries
        return total

    def _launch(self, lines: Span, axes: list[_Rows]) -> Launch:
        """Lay out the integers of consecutive lines of the last axis."""
        tails = _strides(self._entries)
        blocks: list[IntArray] = []
        offset, descriptions = _HEADER + _AXIS * len(axes), []
        for i, rows in enumerate(axes):
            block, runs = rows.lay_out(offset, self._columns[i + 1], self._slots[i + 1])
            descriptions += [self.axes[i].rows(self._transposed), tails[i + 1], runs, len(rows.runs)]
            blocks.append(block)
            offset += block.size
        width = self._inner * prod(rows.longest for rows in axes[:-1])
        pieces = [_NOTHING.reshape(0, 3)]
        for index, run in enumerate(axes[-1].runs):
            fit = max(1, _JOB // max(1, width * run.entries))
            first = np.arange(0, run.periods, fit, dtype=np.int64)
            pieces.append(np.stack([np.full_like(first, index), first, np.minimum(fit, run.periods - first)], axis=1))
        table = np.concatenate(pieces)
        jobs = (lines[1] - lines[0]) * len(table)
        header = [jobs, lines[0], len(table), self._outer, self._inner, self._columns[0], self._slots[0], tails[0]]
        header += [self._start, self._begin, offset]
        head = np.array(header + descriptions, np.int64)
        return Launch(np.concatenate([head, *blocks, table.ravel()]), jobs)


class _Run(NamedTuple):
    """A run of `Axis.runs`, with what its nonzeros are."""

    start: int
    period: int
    periods: int
    shift: int
    before: int  # nonzeros of all runs before it
    entries: int  # nonzeros of a period
    first: int  # of its rows, among those that are described


class _Rows:
    """Consecutive rows of an axis: its runs, and the rows of their periods, one after the other.

    Parameters
    ----------
    axis, transposed, start, stop
        The rows.
    sums : int
        How many sums of taps there are already, which come before its own.
    """

    def __init__(self, axis: Axis, transposed: bool, start: int, stop: int, sums: int = 0) -> None:
        self.runs: list[_Run] = []
        self.sums: tuple[IntArray, IntArray]
        self.entries: int
        rows, listed, merged, starts = [_NO_ROWS], [_NO_PAIRS], [_NOTHING], [_NOTHING]
        begin = before = _Rows(axis, transposed, 0, start).entries if start else 0
        first = entries = taps = 0
        for row, length, periods, shift in axis.runs(transposed, start, stop) if start < stop else ():
            numbers = np.arange(row, row + length, dtype=np.int64)
            if axis.mode == "zeros" or shift:
                own = _progressions(axis, transposed, numbers)
            else:
                table = axis.table(transposed, numbers)
                inside = table.inside.T
                slots = np.broadcast_to(table.taps.T, inside.shape)[inside]
                slots = slots + np.where(slots < axis.taps, 0, sums)
                listed.append(np.stack([table.columns.T[inside], slots], axis=1))
                merged.append(table.merged)
                starts.append(table.starts + taps)
                lengths = inside.sum(axis=1)
                own = np.zeros((length, 5), np.int64)
                own[:, 0], own[:, 1], own[:, 2] = lengths, entries + np.cumsum(lengths) - lengths, _LISTED
                entries, sums, taps = entries + len(slots), sums + len(table.starts), taps + len(table.merged)
            rows.append(own)
            period = int(own[:, 0].sum())
            self.runs.append(_Run(row, length, periods, shift, before, period, first))
            before, first = before + periods * period, first + length
        self._rows, self._listed = np.concatenate(rows), np.concatenate(listed)
        self.sums = np.concatenate(merged), np.concatenate(starts)
        self.entries = before - begin

    @property
    def longest(self) -> int:
        """The number of nonzeros of the longest row."""
        return int(self._rows[:, 0].max(initial=0))

    def lay_out(self, offset: int, column: int, slot: int) -> tuple[IntArray, int]:
        """Return all integers for a place in the plan, columns and slots so far apart, and where the runs begin there."""
        count, first, tap, column_step, tap_step = self._rows.T
        within = np.cumsum(count) - count
        for run in self.runs:
            within[run.first : run.first + run.period] -= within[run.first]
        is_listed = tap == _LISTED
        where = np.where(is_listed, offset + len(count) * _ROW + 2 * first, _LISTED)
        records = np.stack(
            [within, count, first * column, column_step * column, tap * slot, tap_step * slot, where], axis=1
        )
        runs = [
            (run.start, run.period, run.shift * column, run.before, run.entries, offset + run.first * _ROW)
            for run in self.runs
        ]
        parts = [records.ravel(), (self._listed * (column, slot)).ravel(), np.array(runs, np.int64).ravel()]
        return np.concatenate(parts), offset + parts[0].size + parts[1].size


def _progressions(axis: Axis, transposed: bool, rows: IntArray) -> IntArray:
    """Return the number of nonzeros, the first column and tap, and the steps of both, for rows that nothing folds into."""
    if not transposed:
        origin = rows * axis.stride - axis.before
        first = np.maximum(0, -(origin // axis.dilation))
        last = np.minimum(axis.taps - 1, (axis.size - 1 - origin) // axis.dilation)
        parts = last - first + 1, origin + first * axis.dilation, first, axis.dilation, 1
    else:
        common = gcd(axis.stride, axis.dilation)
        step, position = axis.stride // common, rows + axis.before
        first = np.maximum(0, -(((axis.outputs - 1) * axis.stride - position) // axis.dilation))
        last = np.minimum(axis.taps - 1, position // axis.dilation)
        # The taps that meet a source lie on one residue class modulo the step; the last one reads the first output.
        residue = position // common * pow(axis.dilation // common, -1, step) % step
        last = last - (last - residue) % step
        count = np.where(position % common, 0, last - (first + (residue - first) % step) + step) // step
        parts = count, (position - last * axis.dilation) // axis.stride, last, axis.dilation // common, -step
    described = np.stack(np.broadcast_arrays(*parts), axis=1)
    described[described[:, 0] <= 0] = 0
    return described


def _lines(start: int, stop: int, size: int) -> Iterator[tuple[Span, Span]]:
    """Cut a range of rows into whole lines and parts of a line: yield the lines, and the rows of each."""
    head, tail = -(-start // size), stop // size
    if start >= stop:
        return
    if head > tail:
        yield (tail, tail + 1), (start - tail * size, stop - tail * size)
        return
    if start < head * size:
        yield (head - 1, head), (start - (head - 1) * size, size)
    if head < tail:
        yield (head, tail), (0, size)
    if tail * size < stop:
        yield (tail, tail + 1), (0, stop - tail * size)


def _strides(sizes: Iterable[int]) -> list[int]:
    """Return the products of all sizes, of all but the first, and so on to 1."""
    strides = [1]
    for size in reversed(list(sizes)):
        strides.insert(0, strides[0] * size)
    return strides
