"""One axis of W or Wᵀ: the nonzeros of its rows, and which rows repeat.

An axis never stores outputs × taps numbers: the relation between outputs and sources is affine but for a few rows, so it is
described by a few :class:`Run` objects, and a table lists the nonzeros of as many rows as are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import gcd
from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from convmat.geometry._counts import count_nonzeros, count_pairs
from convmat.geometry._modes import MODES, Border
from convmat.geometry._relation import IntArray, Relation

_NOTHING: IntArray = np.zeros(0, np.int64)


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
        The columns, as many for each row as one may have.
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
class Axis(Relation):
    """An axis of W or Wᵀ: which nonzeros its rows have, and which rows repeat."""

    @property
    def pairs(self) -> int:
        """The number of (output, tap) pairs that read something, before taps with one source are merged."""
        return count_pairs(self)

    @property
    def entries(self) -> int:
        """The number of nonzeros of the axis' matrix."""
        return _entries(self)

    def count(self, transposed: bool, start: int, stop: int) -> int:
        """Return the number of nonzeros of rows `start` to `stop` of the axis' matrix."""
        if (start, stop) == (0, self.rows(transposed)):
            return self.entries
        spans = (start, stop), (0, self.rows(not transposed))
        return count_nonzeros(self, *(spans[::-1] if transposed else spans))

    def most(self, transposed: bool) -> int:
        """Return how many nonzeros a row has at most; the padding modes that fold may give border rows more."""
        most = self._most_taps(transposed)
        if transposed:
            return min(most, -(-self.outputs // (self.dilation // gcd(self.stride, self.dilation))))
        return min(most, -(-self.size // self.dilation)) if self.border is Border.NOTHING else most

    def table(self, transposed: bool, rows: IntArray) -> Table:
        """List the nonzeros of the given rows of the axis' matrix, which ascend."""
        if self.border is not Border.NOTHING:
            return self._folded_sources(rows) if transposed else self._folded_outputs(rows)
        if self.most(transposed) < self._most_taps(transposed):  # taps far outside are not listed
            return self._progressions(transposed, rows)
        return self._sources(rows) if transposed else self._outputs(rows)

    def _outputs(self, outputs: IntArray) -> Table:
        """List what outputs read, where borders are empty: every tap, and whether it reads inside."""
        taps = np.arange(self.taps, dtype=np.int64)[:, None]
        columns = taps * self.dilation + (outputs * self.stride - self.before)
        return Table(columns, taps, columns.view(np.uint64) < self.size)  # in which negative numbers are large

    def _sources(self, sources: IntArray) -> Table:
        """List which outputs read sources, where borders are empty: o·stride + t·dilation = source + before.

        The taps that meet a source are alike modulo `step`, and fall by it as outputs rise.
        """
        common = gcd(self.stride, self.dilation)
        step, most = self.stride // common, self._most_taps(True)
        taps = np.arange((most - 1) * step, -1, -step, dtype=np.int64)[:, None]
        padded = sources + self.before
        if step > 1:
            taps = taps + padded // common % step * pow(self.dilation // common, -1, step) % step
        columns = padded - taps * self.dilation
        if self.stride == 1:
            return Table(columns, taps, columns.view(np.uint64) < self.outputs)
        columns //= self.stride
        inside = columns.view(np.uint64) < self.outputs
        if most * step > self.taps:
            inside &= taps < self.taps
        if common > 1:
            inside &= padded % common == 0
        return Table(columns, taps, inside)

    def _most_taps(self, transposed: bool) -> int:
        """Return how many taps may meet a row, were the other side of the relation without end."""
        return -(-self.taps // (self.stride // gcd(self.stride, self.dilation))) if transposed else self.taps

    def _progressions(self, transposed: bool, rows: IntArray) -> Table:
        """List what the strands of each row hold, one strand after the other, each by ascending column."""
        counts, columns, taps, step, tap_steps = self.strands(transposed, rows)
        nth: IntArray = np.arange(counts.max(initial=0))[:, None]
        inside = nth < counts[:, None]
        nth = np.minimum(nth, np.maximum(counts[:, None] - 1, 0))  # so that no tap is there that the kernel lacks
        columns, taps = columns[:, None] + nth * step, taps[:, None] + nth * tap_steps[:, None]
        shape = columns.shape[0] * columns.shape[1], rows.size
        return Table(columns.reshape(shape), np.maximum(taps, 0).reshape(shape), inside.reshape(shape))

    def _readings(self, sources: IntArray) -> Table:
        """List the outputs that read each source, in any order; where two are the same, taps are to be summed."""
        if self.most(True) < self._most_taps(True):
            return self._progressions(True, sources)
        # Whoever reads an image of a source reads the source: first look at all positions as at those of an empty border.
        images = self.images
        positions = np.concatenate([image.sign * sources + image.offset for image in images])
        shown = np.concatenate([(sources >= image.first) & (sources < image.end) for image in images])
        columns, taps, inside = replace(self, mode="zeros")._sources(positions)[:3]
        shape = len(columns) * len(images), sources.size
        taps = np.broadcast_to(taps, columns.shape)
        return Table(columns.reshape(shape), taps.reshape(shape), (inside & shown).reshape(shape))

    def _folded_outputs(self, outputs: IntArray) -> Table:
        """List what outputs read, where borders show sources again."""
        taps = np.arange(self.taps, dtype=np.int64)[:, None]
        columns = self.source_at(taps * self.dilation + (outputs * self.stride - self.before))
        return _merge(columns, taps, self.size, self.taps)

    def _folded_sources(self, sources: IntArray) -> Table:
        """List which outputs read sources, where borders show sources again."""
        table = self._readings(sources)
        if self.border is Border.EDGE:
            return self._clamped_table(sources, table)
        return _merge(np.where(table.inside, table.columns, self.outputs), table.taps, self.outputs, self.taps)

    def _clamped_table(self, rows: IntArray, table: Table) -> Table:
        """Give the first and the last source what `clamped` has."""
        edges = self._edges(rows)
        if not edges.size:
            return table
        clamped = [self.clamped(int(rows[edge])) for edge in edges]
        most = max(len(table.inside), *(len(outputs) for outputs, _ in clamped))
        listed, inside = np.zeros((2, most, rows.size), np.int64), np.zeros((most, rows.size), bool)
        for whole, part in zip((*listed, inside), table[:3], strict=True):
            whole[: len(table.inside)] = part
        for edge, nonzeros in zip(edges, clamped, strict=True):
            inside[:, edge] = np.arange(most) < len(nonzeros[0])
            listed[:, inside[:, edge], edge] = nonzeros
        return Table(listed[0], listed[1], inside, *self.clamped_sums())

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
        stop = self.rows(transposed) if stop is None else stop
        match self.border:
            case Border.NOTHING | Border.SHIFTED:
                return _gathered((self._affine_sources if transposed else self._affine_outputs)(start, stop))
            case Border.MIRRORED | Border.EDGE:
                pieces = self._source_pieces() if transposed else self._output_pieces()
            case _:
                assert_never(self.border)
        return _gathered(
            run
            for low, high, affine in pieces
            if max(start, low) < min(stop, high)
            for run in affine(max(start, low), min(stop, high))
        )

    def _output_pieces(self) -> list[_Piece]:
        """Cut outputs where their taps are all before, all in or all behind the input, if borders mirror or repeat."""
        n, stride, before = self.size, self.stride, self.before
        shift = 0 if self.border is Border.EDGE else -stride
        outside, low = -(-(before - self.reach) // stride), -(-before // stride)
        high, end = (n - 1 + before - self.reach) // stride + 1, -(-(n + before) // stride)
        return [
            (0, outside, lambda start, stop: [Run(start, 1, stop - start, shift)]),
            (max(0, outside), min(low, end), _alone),
            (low, high, lambda start, stop: [Run(start, 1, stop - start, stride)]),
            (max(low, high), end, _alone),
            (end, self.outputs, lambda start, stop: [Run(start, 1, stop - start, shift)]),
        ]

    def _source_pieces(self) -> list[_Piece]:
        """Cut sources that borders show, too, from those between, if borders mirror or repeat."""
        n, before, after, edge = self.size, self.before, self.overrun, MODES[self.mode].edge
        if self.border is Border.EDGE:
            low, high = min(before, 1), n - min(after, 1)
        else:
            low, high = before and before + 1 - edge, n - (after and after + 1 - edge)
        if low >= high:
            return [(0, n, _alone)]
        return [(0, low, _alone), (low, high, self._affine_sources), (high, n, _alone)]

    def _affine_outputs(self, start: int, stop: int) -> Iterator[Run]:
        """Cut outputs where a tap enters or leaves the input; between cuts, each output moves on by the stride."""
        origins = range(self.before - self.reach, self.before + 1, self.dilation)
        low, high = start * self.stride, (stop - 1) * self.stride  # an origin outside cuts no row of these
        cuts = {start, stop}
        for origin in _between(origins, low + 1, high + 1):
            cuts.add(-(-origin // self.stride))
        for origin in _between(origins, low + 1 - self.size, high + 1 - self.size):
            cuts.add((self.size - 1 + origin) // self.stride + 1)
        for first, last in pairwise(sorted(cuts)):
            yield Run(first, 1, last - first, self.stride)

    def _affine_sources(self, start: int, stop: int) -> Iterator[Run]:
        """Cut sources, taken in periods of the stride, where a tap's first or last output comes; a period moves by 1."""
        stride, periods = self.stride, (stop - start) // self.stride
        cuts = {0, periods}
        for offset in (-self.size, 0, self.size) if self.border is Border.SHIFTED else (0,):
            first = -self.before - offset - start
            reads = range(first, first + self.reach + 1, self.dilation)
            for output in (0, self.outputs):
                moved = output * stride
                cuts.update(
                    (read + moved) // stride for read in _between(reads, stride - moved, periods * stride - moved)
                )
        for first, last in pairwise(sorted(cuts)):
            yield Run(start + first * stride, stride, last - first, 1)
        yield from _alone(start + periods * stride, stop)


def _pack(columns: IntArray, taps: IntArray, bits: int) -> IntArray:
    """Return one integer for each column and tap, which sort by column, then by tap: ``column · 2**bits + tap``."""
    return columns << bits | taps


def _unpack(codes: IntArray, bits: int) -> tuple[IntArray, IntArray]:
    """Return the columns and taps of such integers."""
    return codes >> bits, codes & (1 << bits) - 1


def _merge(columns: IntArray, taps: IntArray, end: int, count: int) -> Table:
    """Sort what each row reads by column, and merge taps that read the same.

    A row that reads columns 2, 1, 2 through taps 0, 1, 2 has the columns 1, 2 through the taps 1 and `count`, which is the
    first sum: that of taps 0 and 2.

    Parameters
    ----------
    columns, taps : int64 array (readings, rows)
        What each row reads; a column of at least `end` is none.
    end, count : int
        Numbers of columns and of taps.
    """
    bits = count.bit_length()
    codes = np.sort(_pack(columns, taps, bits), axis=0)
    nothing = end << bits  # the least code of a column that is none
    # What is none comes last: readings that no row has are dropped.
    codes = codes[: np.count_nonzero(codes.min(axis=1, initial=nothing) < nothing)]
    columns, taps = _unpack(codes, bits)
    inside = columns < end
    same = (columns[1:] == columns[:-1]) & inside[1:]  # as the reading before
    if not same.any():
        return Table(columns, taps, inside)
    summed = np.zeros_like(inside)
    summed[1:] = same
    summed[:-1] |= same
    inside[1:] &= ~same  # the first of equal columns stands for all
    # One row after the other, so that the taps of a sum are neighbours.
    merged, starts = taps.T[summed.T], np.flatnonzero(inside.T[summed.T])
    taps.T[(summed & inside).T] = np.arange(count, count + starts.size)
    most = int(inside.sum(axis=0).max())
    if most < len(inside):
        order = (~inside).argsort(axis=0, kind="stable")[:most]
        columns, taps = np.take_along_axis(columns, order, 0), np.take_along_axis(taps, order, 0)
        inside = np.take_along_axis(inside, order, 0)
    return Table(columns, taps, inside, merged, starts)


def _between(numbers: range, low: int, high: int) -> range:
    """Return those of ascending numbers that are at least `low` and below `high`."""
    first, step = numbers.start, numbers.step
    return numbers[max(0, -((first - low) // step)) : max(0, -((first - high) // step))]


_Piece = tuple[int, int, Callable[[int, int], Iterable[Run]]]


def _alone(start: int, stop: int) -> list[Run]:
    """Return the run of rows that do not repeat."""
    return [Run(start, stop - start, 1, 0)] if start < stop else []


def _gathered(runs: Iterable[Run]) -> list[Run]:
    """Return the runs, those together that follow one another and do not repeat."""
    gathered: list[Run] = []
    for run in runs:
        if run.periods == 1:
            alone = gathered and gathered[-1].periods == 1
            start = gathered.pop().start if alone else run.start
            run = Run(start, run.start + run.period - start, 1, 0)
        gathered.append(run)
    return gathered


@lru_cache
def _entries(axis: Axis) -> int:
    return count_nonzeros(axis, (0, axis.outputs), (0, axis.size))
