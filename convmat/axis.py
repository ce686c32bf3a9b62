"""One axis of a convolution: which input position an output reads through which tap, in either direction.

Everything here is integers in closed form. An axis never stores outputs × taps numbers: the relation between outputs and
sources is affine away from the borders, so it is described by a few :class:`Run` objects, and only border rows of the
padding modes that fold outside positions back in are listed one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

_NOTHING: IntArray = np.zeros(0, np.int64)

PADDING_MODES = ("zeros", "circular", "reflect", "symmetric", "replicate")


class Run(NamedTuple):
    """Consecutive rows that repeat: row r + period has the taps of row r, and its columns plus `shift`.

    Attributes
    ----------
    start : int
        The first row.
    period : int
        The number of rows after which they repeat.
    periods : int
        How many of them there are.
    shift : int
        What each period adds to the columns.
    """

    start: int
    period: int
    periods: int
    shift: int


class Table(NamedTuple):
    """The nonzeros of some rows of an axis, one row of the axis a column here, by ascending column of the axis.

    Attributes
    ----------
    columns : int64 array (most, rows)
        The columns, as many for each row as the longest one has.
    taps : int64 array (most, rows) or (most, 1)
        The taps that they are read through; from the number of taps on, sums of taps: the first is that of the first part
        of `merged`.
    inside : bool array (most, rows)
        Which of them there are.
    merged : int64 array
        Taps that read the same source, one sum after the other.
    starts : int64 array
        Where each sum begins.
    """

    columns: IntArray
    taps: IntArray
    inside: npt.NDArray[np.bool_]
    merged: IntArray = _NOTHING
    starts: IntArray = _NOTHING


@dataclass(frozen=True, slots=True)
class Axis:
    """The relation source(o, t) = o·stride − before + t·dilation, folded back into the input by the padding mode.

    Attributes
    ----------
    size : int
        Number of input positions, n.
    taps : int
        Length of the kernel, k.
    stride, before, after, dilation : int
        Step of the outputs, padding on either side, distance of the taps.
    outputs : int
        Number of outputs, at most ⌊(n + before + after − dilation·(k − 1) − 1)/stride⌋ + 1.
    mode : str
        One of ``PADDING_MODES``.
    """

    size: int
    taps: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    outputs: int = 0
    mode: str = "zeros"

    @property
    def reach(self) -> int:
        """The distance from the first tap to the last, dilation·(k − 1)."""
        return self.dilation * (self.taps - 1)

    @property
    def overrun(self) -> int:
        """How many positions after the last input are read; less than `after` where the stride leaves some unread."""
        return max(0, (self.outputs - 1) * self.stride - self.before + self.reach - self.size + 1)

    def rows(self, transposed: bool) -> int:
        """Return the number of rows of the axis' matrix: outputs, or sources where it is transposed."""
        return self.size if transposed else self.outputs

    def span(self, tap: int) -> tuple[int, int]:
        """Return the range of outputs for which `tap` reads inside the input."""
        origin = self.before - tap * self.dilation
        low = max(0, -(-origin // self.stride))
        return low, max(low, min(self.outputs, (self.size - 1 + origin) // self.stride + 1))

    @property
    def pairs(self) -> int:
        """The number of (output, tap) pairs that read something, before taps with one source are merged."""
        return _pairs(self) if self.mode == "zeros" else self.outputs * self.taps

    @property
    def entries(self) -> int:
        """The number of nonzeros of the axis' matrix."""
        return _pairs(self) if self.mode == "zeros" else _entries(self)

    def count(self, transposed: bool, start: int, stop: int) -> int:
        """Return the number of nonzeros of rows `start` to `stop` of the axis' matrix."""
        if (start, stop) == (0, self.rows(transposed)):
            return self.entries
        total = 0
        for run in self.runs(transposed, start, stop):
            rows = np.arange(run.start, run.start + run.period, dtype=np.int64)
            total += run.periods * int(np.count_nonzero(self.table(transposed, rows).inside))
        return total

    def sources(self, outputs: IntArray) -> IntArray:
        """Return the input positions that the given outputs read, one column for each tap; −1 reads nothing."""
        taps = np.arange(self.taps, dtype=np.int64)
        return self.fold(outputs[:, None] * self.stride - self.before + taps * self.dilation)

    def fold(self, position: IntArray) -> IntArray:
        """Return the input positions that the padding mode gives for positions of the padded input; −1 is no input."""
        n = self.size
        match self.mode:
            case "zeros":
                return np.where((position >= 0) & (position < n), position, -1)
            case "circular":
                return position % n
            case "replicate":
                return np.clip(position, 0, n - 1)
        edge = 1 if self.mode == "symmetric" else 0  # symmetric repeats the edge, reflect does not
        folded = np.where(position < 0, -edge - position, position)
        return np.where(folded >= n, 2 * (n - 1) + edge - folded, folded)

    def most(self, transposed: bool) -> int:
        """Return how many nonzeros a row has at most; the padding modes that fold may give border rows more."""
        return -(-self.taps // (self.stride // gcd(self.stride, self.dilation))) if transposed else self.taps

    def table(self, transposed: bool, rows: IntArray) -> Table:
        """List the nonzeros of the given rows of the axis' matrix, which ascend."""
        if self.mode != "zeros":
            return self._folded_table(transposed, rows)
        if not transposed:
            taps = np.arange(self.taps, dtype=np.int64)[:, None]
            columns = taps * self.dilation + (rows * self.stride - self.before)
            return Table(columns, taps, columns.view(np.uint64) < self.size)  # in which negative numbers are large
        # Output o reads source r through tap t: o·stride + t·dilation = r + before. The taps that meet a source lie on one
        # residue class modulo the step.
        common = gcd(self.stride, self.dilation)
        step, most = self.stride // common, self.most(True)
        taps = np.arange((most - 1) * step, -1, -step, dtype=np.int64)[:, None]
        rows = rows + self.before
        if step > 1:
            taps = taps + rows // common * pow(self.dilation // common, -1, step) % step
        columns = rows - taps * self.dilation
        if self.stride == 1:
            return Table(columns, taps, columns.view(np.uint64) < self.outputs)
        columns //= self.stride
        inside = columns.view(np.uint64) < self.outputs
        if most * step > self.taps:
            inside &= taps < self.taps
        if common > 1:
            inside &= rows % common == 0
        return Table(columns, taps, inside)

    def _folded_table(self, transposed: bool, rows: IntArray) -> Table:
        """Sort the (row, column, tap) triples of the given rows, and merge those that differ in the tap alone."""
        outputs = self._readers(rows) if transposed else rows
        sources = self.sources(outputs)
        if transposed:
            row = np.searchsorted(rows, sources)
            reader, tap = np.nonzero(rows.take(row, mode="clip") == sources)
            row, column = row[reader, tap], outputs[reader]
            order = np.lexsort((column, row))
        else:
            row, tap = np.divmod(np.arange(sources.size, dtype=np.int64), self.taps)
            column = sources.ravel()
            order = np.lexsort((column, row))
        row, column, tap = row[order], column[order], tap[order]
        first = np.ones(row.size, bool)
        np.logical_or(row[1:] != row[:-1], column[1:] != column[:-1], out=first[1:])
        starts = np.flatnonzero(first)
        sizes = np.diff(starts, append=row.size)
        row, column, merges = row[starts], column[starts], sizes > 1
        taps = tap[starts]
        taps[merges] = np.arange(self.taps, self.taps + np.count_nonzero(merges))
        lengths = np.bincount(row, minlength=rows.size)
        slot = np.arange(row.size) - (np.cumsum(lengths) - lengths)[row]
        listed = np.zeros((2, lengths.max(initial=0), rows.size), np.int64)
        listed[:, slot, row] = column, taps
        inside = np.arange(listed.shape[1])[:, None] < lengths
        sizes_merged = sizes[merges]
        return Table(
            listed[0], listed[1], inside, tap[np.repeat(merges, sizes)], np.cumsum(sizes_merged) - sizes_merged
        )

    def _readers(self, rows: IntArray) -> IntArray:
        """Return, ascending, all outputs that read any of the given sources, directly or folded, and maybe others."""
        reach = np.arange(0, self.reach + 1, self.dilation, dtype=np.int64)
        outside = np.r_[-self.before : 0, self.size : self.size + self.overrun]
        positions = np.concatenate([rows, outside])[:, None] + self.before - reach
        outputs, remainder = np.divmod(positions, self.stride)
        readers: IntArray = np.unique(outputs[(remainder == 0) & (outputs >= 0) & (outputs < self.outputs)])
        return readers

    def runs(self, transposed: bool = False, start: int = 0, stop: int | None = None) -> list[Run]:
        """Describe rows `start` to `stop` of the axis' matrix.

        Parameters
        ----------
        transposed : bool
            False: rows are outputs and columns are sources. True: rows are sources and columns are outputs.
        start, stop : int
            Range of rows; all by default.

        Returns
        -------
        list of Run
            In the order of the rows, without gaps.
        """
        rows = self.rows(transposed)
        stop = rows if stop is None else stop
        low, high = self._affine_rows(transposed)
        affine = self._affine_sources if transposed else self._affine_outputs
        return [
            *_alone(start, min(stop, low)),
            *affine(max(start, low), min(stop, high)),
            *_alone(max(start, high), stop),
        ]

    def _affine_rows(self, transposed: bool) -> tuple[int, int]:
        """Return the range of rows that the padding mode does not fold into."""
        n, before, after = self.size, self.before, self.overrun
        if self.mode == "zeros":
            return 0, self.rows(transposed)
        if not transposed:
            low = min(self.outputs, -(-before // self.stride))
            high = min(self.outputs, (n - 1 + before - self.reach) // self.stride + 1)
        else:
            low, high = {
                "circular": (after, n - before),
                "reflect": (before and before + 1, n - (after and after + 1)),
                "symmetric": (before, n - after),
                "replicate": (min(before, 1), n - min(after, 1)),
            }[self.mode]
        return (low, high) if low < high else (0, 0)

    def _affine_outputs(self, start: int, stop: int) -> Iterator[Run]:
        """Cut outputs where a tap enters or leaves the input; between cuts, each output moves on by the stride."""
        if start >= stop:
            return
        cuts = {start, stop}
        for origin in range(self.before, self.before - self.reach - 1, -self.dilation):
            cuts.add(-(-origin // self.stride))
            cuts.add((self.size - 1 + origin) // self.stride + 1)
        for first, last in pairwise(sorted(cut for cut in cuts if start <= cut <= stop)):
            yield Run(first, 1, last - first, self.stride)

    def _affine_sources(self, start: int, stop: int) -> Iterator[Run]:
        """Cut sources, taken in periods of the stride, where a tap's first or last output comes; a period moves by 1."""
        if start >= stop:
            return
        stride, periods = self.stride, (stop - start) // self.stride
        cuts = {0, periods}
        for tap in range(self.taps):
            low, high = self.span(tap)
            if low < high:
                first = tap * self.dilation - self.before - start
                cuts.update(cut for o in (low, high) if 0 < (cut := (first + o * stride) // stride) < periods)
        for first, last in pairwise(sorted(cuts)):
            yield Run(start + first * stride, stride, last - first, 1)
        yield from _alone(start + periods * stride, stop)


def _alone(start: int, stop: int) -> list[Run]:
    """Return the run of rows that do not repeat."""
    return [Run(start, stop - start, 1, 0)] if start < stop else []


@lru_cache
def _pairs(axis: Axis) -> int:
    """Return the number of (output, tap) pairs inside the input."""
    return sum(high - low for low, high in map(axis.span, range(axis.taps)))


@lru_cache
def _entries(axis: Axis) -> int:
    """Return the number of nonzeros, which for the padding modes that fold is less where taps read the same source."""
    total = 0
    for run in axis.runs():
        sources = np.sort(axis.sources(np.arange(run.start, run.start + run.period, dtype=np.int64)), axis=1)
        total += run.periods * (run.period + int(np.count_nonzero(sources[:, 1:] != sources[:, :-1])))
    return total
