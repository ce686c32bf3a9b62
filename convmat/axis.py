"""One axis of a convolution: which input position an output reads through which tap, in either direction.

Everything here is integers in closed form. An axis never stores outputs × taps numbers: the relation between outputs and
sources is affine but for a few rows, so it is described by a few :class:`Run` objects. A padding mode that folds outside
positions back in shows the input once more on either side, shifted or mirrored: a row is a progression of sources for
each of these images (:class:`Strands`), and only where they overlap, or a border holds on to the edge, are taps summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, pairwise
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


class Strands(NamedTuple):
    """The nonzeros of some rows of an axis, as progressions of columns and taps; where two have a column, taps are summed.

    Attributes
    ----------
    counts : int64 array (strands, rows)
        How many nonzeros each progression has.
    columns, taps : int64 array (strands, rows)
        The first of them, by ascending column; from the number of taps on, taps are sums: see `Axis.clamped_sums`.
    step : int
        From one column to the next.
    tap_steps : int64 array (strands, 1)
        From one tap to the next.
    """

    counts: IntArray
    columns: IntArray
    taps: IntArray
    step: int
    tap_steps: IntArray


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
        if start == stop:
            return 0
        if (start, stop) == (0, self.rows(transposed)):
            return self.entries
        total = 0
        for run in self.runs(transposed, start, stop):
            rows = np.arange(run.start, run.start + run.period, dtype=np.int64)
            total += run.periods * int(self.lengths(transposed, rows).sum())
        return total

    def lengths(self, transposed: bool, rows: IntArray) -> IntArray:
        """Return the number of nonzeros of each of the given rows of the axis' matrix."""
        strands = self.strands(transposed, rows)
        lengths: IntArray = strands.counts.sum(axis=0)
        begins, ends = strands.columns, strands.columns + strands.counts * strands.step
        for size in range(2, len(begins) + 1):  # inclusion and exclusion
            for some in map(list, combinations(range(len(begins)), size)):
                begin, end = begins[some].max(axis=0), ends[some].min(axis=0)
                same = ((begins[some] - begin) % strands.step == 0).all(axis=0)
                lengths += (-1) ** (size - 1) * np.where(same, np.maximum(end - begin, 0) // strands.step, 0)
        if transposed and self.mode == "replicate":
            for row in self._edges(rows):
                lengths[row] = len(self.clamped(int(rows[row]))[0])
        return lengths

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
        """Sort what each row reads by column, and merge taps that read the same."""
        end = self.rows(not transposed)
        if not transposed:
            taps = np.arange(self.taps, dtype=np.int64)[:, None]
            columns = self.fold(taps * self.dilation + (rows * self.stride - self.before))
        else:
            images = self._images
            positions = np.concatenate([sign * rows + offset for sign, offset, _, _ in images])
            columns, taps, inside = replace(self, mode="zeros").table(True, positions)[:3]
            there = np.concatenate([(rows >= low) & (rows < high) for _, _, low, high in images])
            inside = inside & there
            if self.mode == "replicate":
                return self._clamped_table(rows, Table(columns, taps, inside))
            columns = np.where(inside, columns, end)
        bits = self.taps.bit_length()
        codes = columns << bits | taps
        codes = codes.reshape(codes.size // max(1, rows.size), rows.size)
        codes.sort(axis=0)
        if transposed:  # what is not there comes last
            codes = codes[: np.count_nonzero(codes.min(axis=1, initial=end << bits) < end << bits)]
        columns, taps = codes >> bits, codes & (1 << bits) - 1
        inside = columns < end
        same = (columns[1:] == columns[:-1]) & inside[1:]
        if not same.any():
            return Table(columns, taps, inside)
        summed = np.zeros_like(inside)
        summed[1:] = same
        summed[:-1] |= same
        inside[1:] &= ~same
        # One row after the other, so that the taps of a sum are neighbours.
        merged, starts = taps.T[summed.T], np.flatnonzero(inside.T[summed.T])
        taps.T[(summed & inside).T] = np.arange(self.taps, self.taps + starts.size)
        most = int(inside.sum(axis=0).max())
        if most < len(inside):
            order = (~inside).argsort(axis=0, kind="stable")[:most]
            columns, taps = np.take_along_axis(columns, order, 0), np.take_along_axis(taps, order, 0)
            inside = np.take_along_axis(inside, order, 0)
        return Table(columns, taps, inside, merged, starts)

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

    def _edges(self, rows: IntArray) -> npt.NDArray[np.intp]:
        """Return which of the given sources are the first or the last of all."""
        return np.flatnonzero((rows == 0) | (rows == self.size - 1))

    @property
    def _images(self) -> list[tuple[int, int, int, int]]:
        """Where the padded input shows the input: sign, offset, first, end; source r is at position sign·r + offset."""
        n = self.size
        if self.mode == "replicate":
            return [(1, 0, 1, n - 1)]  # what is held on to is not repeated
        images = [(1, 0, 0, n)]
        if self.mode != "zeros":
            before, after = {
                "circular": ((1, -n, 0, n), (1, n, 0, n)),
                "reflect": ((-1, 0, 1, n), (-1, 2 * (n - 1), 0, n - 1)),
                "symmetric": ((-1, -1, 0, n), (-1, 2 * n - 1, 0, n)),
            }[self.mode]
            images += [before] * (self.before > 0) + [after] * (self.overrun > 0)
        return images

    def strands(self, transposed: bool, rows: IntArray) -> Strands:
        """Return the nonzeros of the given rows of the axis' matrix; not of those that `clamped` has."""
        sign, offset, low, high = np.array(self._images).T[:, :, None]
        if not transposed:
            origin = rows * self.stride - self.before
            low, high = np.where(sign > 0, low, 1 - high) + offset, np.where(sign > 0, high, 1 - low) + offset
            first = np.maximum(0, -((origin - low) // self.dilation))
            last = np.minimum(self.taps - 1, (high - 1 - origin) // self.dilation)
            taps = np.where(sign > 0, first, last)
            counts, columns = np.maximum(last - first + 1, 0), sign * (origin + taps * self.dilation - offset)
            if self.mode == "replicate":
                (first, first_sum), (last, last_sum) = self._clamped(origin, False), self._clamped(origin, True)
                counts = np.stack([counts[0], first > 0, last > 0])
                columns = np.stack([columns[0], np.zeros_like(first), np.full_like(last, self.size - 1)])
                taps, sign = np.stack([taps[0], first_sum, last_sum]), np.ones((3, 1), np.int64)
            return Strands(counts, columns, taps, self.dilation, sign)
        position, common = sign * rows + offset + self.before, gcd(self.stride, self.dilation)
        step = self.stride // common
        first = np.maximum(0, -(((self.outputs - 1) * self.stride - position) // self.dilation))
        last = np.minimum(self.taps - 1, position // self.dilation)
        # The taps that meet a source lie on one residue class modulo the step; the last one reads the first output.
        residue = position // common * pow(self.dilation // common, -1, step) % step
        last -= (last - residue) % step
        counts = (last - (first + (residue - first) % step) + step) // step
        counts[(position % common != 0) | (rows < low) | (rows >= high) | (counts < 0)] = 0
        columns = (position - last * self.dilation) // self.stride
        return Strands(counts, columns, last, self.dilation // common, np.full_like(sign, -step))

    def clamped(self, row: int) -> tuple[IntArray, IntArray]:
        """Return the outputs that read the first or the last source, where the padding mode replicates it, and their taps.

        Taps from their number on are those of `clamped_sums`.
        """
        counts, sums = self._clamped(np.arange(self.outputs) * self.stride - self.before, row > 0)
        outputs = np.flatnonzero(counts)
        return outputs, sums[outputs]

    def clamped_sums(self) -> tuple[IntArray, IntArray]:
        """Return the sums of first taps, then those of last taps, that read a source which is replicated.

        Returns
        -------
        merged, starts : int64 array
            As in :class:`Table`: 0, 1; 0, 1, 2; and so on.
        """
        first, last = self._most_clamped
        sizes = np.r_[2 : first + 1, 2 : last + 1]
        starts = np.cumsum(sizes) - sizes
        taps = np.where(np.arange(sizes.size) < first - 1, 0, self.taps - sizes)
        return np.arange(sizes.sum()) + np.repeat(taps - starts, sizes), starts

    @property
    def _most_clamped(self) -> tuple[int, int]:
        """How many first taps an output reads the first source through at most, and how many last taps the last."""
        if self.size == 1:
            return self.taps, 0
        return min(self.taps, self.before // self.dilation + 1), min(self.taps, self.overrun // self.dilation + 1)

    def _clamped(self, origin: IntArray, last: bool) -> tuple[IntArray, IntArray]:
        """Return how many taps are at the first source or before it, or at the last or behind it, and which sum they are."""
        if self.size == 1:
            counts = np.full_like(origin, 0 if last else self.taps)
        elif last:
            counts = self.taps + (origin - self.size + 1) // self.dilation
        else:
            counts = -origin // self.dilation + 1
        counts = np.minimum(np.maximum(counts, 0), self.taps)
        single, sums = (self.taps - 1, self._most_clamped[0] - 1) if last else (0, 0)
        return counts, np.where(counts > 1, counts + (self.taps - 2 + sums), single)

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
        if self.mode in ("zeros", "circular"):
            return _gathered((self._affine_sources if transposed else self._affine_outputs)(start, stop))
        pieces = self._source_pieces() if transposed else self._output_pieces()
        return _gathered(
            run
            for low, high, affine in pieces
            if max(start, low) < min(stop, high)
            for run in affine(max(start, low), min(stop, high))
        )

    def _output_pieces(self) -> list[_Piece]:
        """Cut outputs where their taps are all before, all in or all behind the input, if the mode mirrors or replicates."""
        n, stride, before = self.size, self.stride, self.before
        shift = 0 if self.mode == "replicate" else -stride
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
        """Cut sources where others are read in their place, if the mode mirrors or replicates."""
        n, before, after = self.size, self.before, self.overrun
        low, high = {
            "reflect": (before and before + 1, n - (after and after + 1)),
            "symmetric": (before, n - after),
            "replicate": (min(before, 1), n - min(after, 1)),
        }[self.mode]
        if low >= high:
            return [(0, n, _alone)]
        return [(0, low, _alone), (low, high, self._affine_sources), (high, n, _alone)]

    def _affine_outputs(self, start: int, stop: int) -> Iterator[Run]:
        """Cut outputs where a tap enters or leaves the input; between cuts, each output moves on by the stride."""
        cuts = {start, stop}
        for origin in range(self.before, self.before - self.reach - 1, -self.dilation):
            cuts.add(-(-origin // self.stride))
            cuts.add((self.size - 1 + origin) // self.stride + 1)
        for first, last in pairwise(sorted(cut for cut in cuts if start <= cut <= stop)):
            yield Run(first, 1, last - first, self.stride)

    def _affine_sources(self, start: int, stop: int) -> Iterator[Run]:
        """Cut sources, taken in periods of the stride, where a tap's first or last output comes; a period moves by 1."""
        stride, periods = self.stride, (stop - start) // self.stride
        cuts = {0, periods}
        for offset in (-self.size, 0, self.size) if self.mode == "circular" else (0,):
            first = -self.before - offset - start
            for tap in range(first, first + self.reach + 1, self.dilation):
                cuts.update(cut for o in (0, self.outputs) if 0 < (cut := (tap + o * stride) // stride) < periods)
        for first, last in pairwise(sorted(cuts)):
            yield Run(start + first * stride, stride, last - first, 1)
        yield from _alone(start + periods * stride, stop)


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
def _pairs(axis: Axis) -> int:
    """Return the number of (output, tap) pairs inside the input."""
    return sum(high - low for low, high in map(axis.span, range(axis.taps)))


@lru_cache
def _entries(axis: Axis) -> int:
    """Return the number of nonzeros, which for the padding modes that fold is less where taps read the same source."""
    return sum(
        run.periods * int(axis.lengths(False, np.arange(run.start, run.start + run.period, dtype=np.int64)).sum())
        for run in axis.runs()
    )
