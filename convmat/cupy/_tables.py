"""The plan for the kernel that writes a matrix: what it needs to know of each axis, a few integers for each run of rows.

A row of the matrix is a product of one row of each axis, and an axis comes in the runs of `Axis.runs`, which are the same
for both directions and all padding modes. Its rows are described by their segments (:mod:`convmat.cupy._segments`). Columns
and weights are scaled here, so that those of a nonzero are sums over the axes. Where taps share a source their sum is a
weight of its own, behind the taps of that axis. The records are those of :mod:`convmat.cupy._records`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from convmat.cupy._records import (
    MATRIX,
    MATRIX_AXIS,
    PERIODS,
    PROGRESSION,
    ROW,
    RUN,
    SEGMENT,
    Records,
    integers,
    plan_of,
    records,
)
from convmat.cupy._segments import segments_of
from convmat.geometry import Axis, ConvolutionGeometry, IntArray, merge_axes

Span = tuple[int, int]

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
        The axes of the rows, after `merge_axes`.
    sums : list of (int array, int array)
        For each axis the taps that share a source, one sum after the other, and where each sum begins.
    launches : list of Launch
        At most three: whole lines of the last axis, and an incomplete line before and after them.
    """

    def __init__(
        self, geometry: ConvolutionGeometry, transposed: bool, start: int = 0, stop: int | None = None
    ) -> None:
        outer, inner = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
        self.axes, self._transposed = merge_axes(geometry.axes), transposed
        self._row_channels, self._column_channels = (inner, outer) if transposed else (outer, inner)
        self._inner_entries = _strides(axis.entries for axis in self.axes)
        rows, columns = geometry.shape[::-1] if transposed else geometry.shape
        stop = rows if stop is None else stop
        self._start, self._begin = start, self._entries_before(start)
        self.shape = (stop - start, columns)
        self.nnz = self._entries_before(stop) - self._begin
        stretches = list(_lines(start, stop, self.axes[-1].rows(transposed)))
        leading = [_Rows(axis, transposed, 0, axis.rows(transposed)) for axis in self.axes[:-1]]
        # Nonzeros for one of a row of the last axis, at most.
        self._width = self._column_channels * prod(rows.longest for rows in leading)
        last: list[_Rows] = []
        for _, span in stretches:
            known = sum(len(rows.sums[1]) for rows in last)
            last.append(_Rows(self.axes[-1], transposed, *span, known, max(1, _JOB // max(1, self._width))))
        self.sums = [*(rows.sums for rows in leading), _chain([rows.sums for rows in last])]
        self._columns = _strides(axis.rows(not transposed) for axis in self.axes)
        self._weights = _strides(axis.taps + len(sums[1]) for axis, sums in zip(self.axes, self.sums, strict=True))
        self.launches = [
            self._launch(lines, [*leading, rows]) for (lines, _), rows in zip(stretches, last, strict=True)
        ]

    def _entries_before(self, row: int) -> int:
        """Return the number of nonzeros of all rows before one.

        A row is channel, row of the first axis, and so on, as the digits of a number. Before row (2, 3) of two axes there
        are rows 0 and 1 of the first with all of the second, and row 2 with rows 0 to 2 of the second.
        """
        sizes = _strides(axis.rows(self._transposed) for axis in self.axes)
        inner_entries, width = self._inner_entries, self._column_channels
        at, rest = divmod(row, sizes[0])
        total = at * width * inner_entries[0]
        for axis, size, inner in zip(self.axes, sizes[1:], inner_entries[1:], strict=True):
            if not rest:
                break
            at, rest = divmod(rest, size)
            total += width * inner * axis.count(self._transposed, 0, at)
            width *= axis.count(self._transposed, at, at + 1)
        return total

    def _launch(self, lines: Span, axes: list[_Rows]) -> Launch:
        """Lay out the plan of consecutive lines of the last axis: the matrix, its axes, what they point to, and the jobs."""
        blocks: list[Records] = []
        offset, descriptions = integers(MATRIX) + len(axes) * integers(MATRIX_AXIS), []
        for axis, rows, inner_entries, column, weight in zip(
            self.axes, axes, self._inner_entries[1:], self._columns[1:], self._weights[1:], strict=True
        ):
            listed, segments, runs = rows.lay_out(offset, column, weight)
            runs_at = offset + len(listed) * integers(ROW) + len(segments) * integers(SEGMENT)
            offset = runs_at + len(runs) * integers(RUN)
            described = {"rows": axis.rows(self._transposed), "inner_entries": inner_entries}
            descriptions.append(records(MATRIX_AXIS, **described, runs_at=runs_at, runs=len(runs)))
            blocks += listed, segments, runs
        ranges = self._ranges(axes[-1])
        jobs = (lines[1] - lines[0]) * len(ranges)
        matrix = records(
            MATRIX,
            jobs=jobs,
            first_line=lines[0],
            ranges=len(ranges),
            row_channels=self._row_channels,
            column_channels=self._column_channels,
            channel_columns=self._columns[0],
            channel_weights=self._weights[0],
            channel_entries=self._inner_entries[0],
            first_row=self._start,
            first_entry=self._begin,
            ranges_at=offset,
        )
        return Launch(plan_of(matrix, *descriptions, *blocks, ranges), jobs)

    def _ranges(self, rows: _Rows) -> Records:
        """Cut the runs of the last axis into ranges of periods, of about as many nonzeros as a job has.

        A run of 10 periods of which 4 fit into a job gives three ranges: 4 periods from 0, 4 from 4 and 2 from 8.
        """
        fit = np.maximum(1, _JOB // np.maximum(1, self._width * rows.runs["entries"]))
        ranges = -(-rows.periods // fit)
        run = np.repeat(np.arange(len(ranges)), ranges)
        first = (np.arange(run.size) - (np.cumsum(ranges) - ranges)[run]) * fit[run]
        return records(PERIODS, run=run, first=first, count=np.minimum(fit[run], rows.periods[run] - first))


class _Rows:
    """Consecutive rows of an axis: its runs, and the rows of their periods, one after the other.

    Parameters
    ----------
    axis, transposed, start, stop
        The rows.
    sums : int
        How many sums of taps there are already, which come before its own.
    room : int, optional
        Cut runs that do not repeat after so many nonzeros.

    Attributes
    ----------
    runs : array of `RUN`
        With columns that are not scaled, and `rows_at` counted in rows from the first.
    periods : int64 array (runs,)
        How often each repeats.
    sums : (int64 array, int64 array)
        The sums of taps and where they begin.
    """

    def __init__(
        self, axis: Axis, transposed: bool, start: int, stop: int, sums: int = 0, room: int | None = None
    ) -> None:
        runs = np.array(axis.runs(transposed, start, stop), np.int64).reshape(-1, 4)
        starts, period, periods, shift = runs.T
        first = np.cumsum(period) - period
        run = np.repeat(np.arange(len(runs)), period)  # of every row that is listed
        rows = np.arange(run.size) + (starts - first)[run]
        self._segments = segments_of(axis, transposed, rows, sums)
        self.sums = self._segments.merged, self._segments.starts
        counts = self._segments.counts
        before = np.cumsum(counts) - counts
        if room is not None:
            begins = np.diff(run, prepend=-1) > 0
            begins |= (periods[run] == 1) & (np.diff(before // room, prepend=-1) > 0)
            first = np.flatnonzero(begins)
            starts, period = rows[first], np.diff(first, append=len(rows))
            periods, shift = periods[run[first]], shift[run[first]]
        entries = np.diff(before[first], append=counts.sum())
        total = np.cumsum(periods * entries) - periods * entries + axis.count(transposed, 0, start)
        self.periods, self._before = periods, before - np.repeat(before[first], period)
        self.runs = records(RUN, start=starts, period=period, shift=shift, before=total, entries=entries, rows_at=first)

    @property
    def longest(self) -> int:
        """The number of nonzeros of the longest row."""
        return int(self._segments.counts.max(initial=0))

    def lay_out(self, offset: int, column: int, weight: int) -> tuple[Records, Records, Records]:
        """Return rows, segments and runs as they come in the plan from an offset on, columns and weights so far apart."""
        counts, row, table, *_ = self._segments
        table = table.copy()
        for name in PROGRESSION.names or ():
            table["progression"][name] *= weight if name.startswith("weight") else column
        segments = np.bincount(row, minlength=len(counts))
        several = (segments > 1)[row]
        kept = np.where(segments > 1, segments, 0)
        segments_at = offset + len(counts) * integers(ROW) + (np.cumsum(kept) - kept) * integers(SEGMENT)
        only = np.zeros(len(counts), PROGRESSION)
        only[row[~several]] = table["progression"][~several]
        rows = records(ROW, before=self._before, count=counts, only=only, segments=segments, segments_at=segments_at)
        runs = self.runs.copy()
        runs["shift"] *= column
        runs["rows_at"] = offset + runs["rows_at"] * integers(ROW)
        return rows, table[several], runs


def _chain(sums: list[tuple[IntArray, IntArray]]) -> tuple[IntArray, IntArray]:
    """Return sums of taps one behind the other."""
    nothing: IntArray = np.zeros(0, np.int64)
    begins = np.cumsum([0, *(len(merged) for merged, _ in sums)])
    starts = [starts + begin for (_, starts), begin in zip(sums, begins, strict=False)]
    return np.concatenate([nothing, *(merged for merged, _ in sums)]), np.concatenate([nothing, *starts])


def _lines(start: int, stop: int, size: int) -> Iterator[tuple[Span, Span]]:
    """Cut a range of rows into whole lines of the last axis and incomplete ones: yield the lines, and the rows of each.

    Rows 5 to 22 with 6 to a line: row 5 of line 0, lines 1 and 2 whole, rows 0 to 4 of line 3.

    >>> list(_lines(5, 22, 6))
    [((0, 1), (5, 6)), ((1, 3), (0, 6)), ((3, 4), (0, 4))]
    """
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
