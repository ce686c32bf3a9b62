"""What the kernel that writes a matrix needs to know of an axis: a few integers for each run of rows, laid out for it.

A row of the matrix is a product of one row of each axis, and an axis comes in the runs of `Axis.runs`, which are the same
for both directions and all padding modes. Its rows are described by their parts (:mod:`convmat.cupy._parts`). Columns and
places in the kernel ("slots") are scaled here, so that those of a nonzero are sums over the axes. Where taps share a source
their sum is a slot of its own, behind the taps of that axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from convmat.cupy._joined import joined
from convmat.cupy._parts import parts_of
from convmat.geometry import Axis, ConvolutionGeometry, IntArray

Span = tuple[int, int]

_HEADER, _AXIS, _ROW = 11, 4, 8  # numbers that describe the matrix, each axis, and a row of one
_NOTHING: IntArray = np.zeros(0, np.int64)
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
        stretches = list(_lines(start, stop, self.axes[-1].rows(transposed)))
        leading = [_Rows(axis, transposed, 0, axis.rows(transposed)) for axis in self.axes[:-1]]
        self._width = self._inner * prod(rows.longest for rows in leading)  # nonzeros for one of a row of the last axis
        trailing: list[_Rows] = []
        for _, span in stretches:
            known = sum(len(rows.sums[1]) for rows in trailing)
            trailing.append(_Rows(self.axes[-1], transposed, *span, known, max(1, _JOB // max(1, self._width))))
        self.sums = [rows.sums for rows in leading]
        merged = [rows.sums[0] for rows in trailing]
        begins = np.cumsum([0, *map(len, merged)])
        starts = [rows.sums[1] + begin for rows, begin in zip(trailing, begins, strict=False)]
        self.sums.append((np.concatenate([_NOTHING, *merged]), np.concatenate([_NOTHING, *starts])))
        between = [axis.rows(not transposed) for axis in self.axes]
        slots = [axis.taps + len(starts) for axis, (_, starts) in zip(self.axes, self.sums, strict=True)]
        self._columns, self._slots = _strides(between), _strides(slots)
        self.launches = [
            self._launch(lines, [*leading, rows]) for (lines, _), rows in zip(stretches, trailing, strict=True)
        ]

    def _entries_before(self, row: int) -> int:
        """Return the number of nonzeros of all rows before one."""
        sizes = _strides([axis.rows(self._transposed) for axis in self.axes])
        tails = _strides(self._entries)
        at, rest = divmod(row, sizes[0])
        total, width = at * self._inner * tails[0], self._inner
        for axis, size, tail in zip(self.axes, sizes[1:], tails[1:], strict=True):
            if not rest:
                break
            at, rest = divmod(rest, size)
            total += width * tail * axis.count(self._transposed, 0, at)
            width *= axis.count(self._transposed, at, at + 1)
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
        _, _, periods, _, _, entries, _ = axes[-1].runs.T
        fit = np.maximum(1, _JOB // np.maximum(1, self._width * entries))
        pieces = -(-periods // fit)
        run = np.repeat(np.arange(len(pieces)), pieces)
        first = (np.arange(run.size) - (np.cumsum(pieces) - pieces)[run]) * fit[run]
        table = np.stack([run, first, np.minimum(fit[run], periods[run] - first)], axis=1)
        jobs = (lines[1] - lines[0]) * len(table)
        header = [jobs, lines[0], len(table), self._outer, self._inner, self._columns[0], self._slots[0], tails[0]]
        header += [self._start, self._begin, offset]
        head = np.array(header + descriptions, np.int64)
        return Launch(np.concatenate([head, *blocks, table.ravel()]), jobs)


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
    runs : int64 array (runs, 7)
        What a `Run` is, and the nonzeros of all runs before it, those of a period, and which is the first of its rows.
    sums : (int64 array, int64 array)
        The sums of taps and where they begin.
    """

    def __init__(
        self, axis: Axis, transposed: bool, start: int, stop: int, sums: int = 0, room: int | None = None
    ) -> None:
        runs = np.array(axis.runs(transposed, start, stop), np.int64).reshape(-1, 4)
        first = np.cumsum(runs[:, 1]) - runs[:, 1]
        rows = np.arange(runs[:, 1].sum()) + np.repeat(runs[:, 0] - first, runs[:, 1])
        self._parts = parts = parts_of(axis, transposed, rows, sums)
        self.sums = parts.merged, parts.starts
        before = np.cumsum(parts.counts) - parts.counts
        if room is not None:
            whole = np.repeat(np.arange(len(runs)), runs[:, 1])
            begins = np.diff(whole, prepend=-1) > 0
            begins |= (runs[whole, 2] == 1) & (np.diff(before // room, prepend=-1) > 0)
            first = np.flatnonzero(begins)
            runs = runs[whole[first]]
            runs[:, 0], runs[:, 1] = rows[first], np.diff(first, append=len(rows))
        entries = np.diff(before[first], append=parts.counts.sum())
        self._before = before - np.repeat(before[first], runs[:, 1])
        total = np.cumsum(runs[:, 2] * entries) - runs[:, 2] * entries + axis.count(transposed, 0, start)
        self.runs = np.concatenate([runs, np.stack([total, entries, first], axis=1)], axis=1)

    @property
    def longest(self) -> int:
        """The number of nonzeros of the longest row."""
        return int(self._parts.counts.max(initial=0))

    def lay_out(self, offset: int, column: int, slot: int) -> tuple[IntArray, int]:
        """Return all integers for a place in the plan, columns and slots so far apart, and where the runs begin there."""
        counts, row, table, *_ = self._parts
        table = table * (1, 1, column, column, slot, slot)
        parts = np.bincount(row, minlength=len(counts))
        several = (parts > 1)[row]
        kept = np.where(parts > 1, parts, 0)
        records = np.zeros((len(counts), _ROW), np.int64)
        records[:, 0], records[:, 1], records[:, 6] = self._before, counts, parts
        records[row[~several], 2:6] = table[~several, 2:]
        records[:, 7] = offset + records.size + (np.cumsum(kept) - kept) * table.shape[1]
        start, period, _, shift, before, entries, first = self.runs.T
        runs = np.stack([start, period, shift * column, before, entries, offset + first * _ROW], axis=1)
        blocks = [records.ravel(), table[several].ravel(), runs.ravel()]
        return np.concatenate(blocks), offset + blocks[0].size + blocks[1].size


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
