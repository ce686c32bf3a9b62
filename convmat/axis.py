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
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

PADDING_MODES = ("zeros", "circular", "reflect", "symmetric", "replicate")


@dataclass(frozen=True, slots=True)
class Row:
    """The nonzeros of one row of an axis, by ascending column.

    Attributes
    ----------
    columns : range or int64 array
        The distinct columns.
    taps : slice or int64 array
        The taps that the columns are read through, in the order of the columns.
    starts : int64 array or None
        Where each column's taps begin in `taps`; None means one tap for each column.
    """

    columns: range | IntArray
    taps: slice | IntArray
    starts: IntArray | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows that repeat: row r + period has the taps of row r, and its columns plus `shift`.

    Attributes
    ----------
    start : int
        The first row.
    rows : tuple of Row
        The rows of the first period.
    count : int
        The number of periods.
    shift : int
        What each period adds to the columns.
    """

    start: int
    rows: tuple[Row, ...]
    count: int
    shift: int

    @property
    def period(self) -> int:
        """The number of rows of a period."""
        return len(self.rows)

    @property
    def entries(self) -> int:
        """The number of nonzeros of a period."""
        return sum(len(row.columns) for row in self.rows)


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
        return _pairs(self) if self.mode == "zeros" else sum(run.count * run.entries for run in self.runs())

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

    def table(
        self, transposed: bool, start: int, stop: int, dtype: npt.DTypeLike
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """List the column of every tap in rows `start` to `stop`; zeros padding only.

        Returns
        -------
        columns : array (taps, rows)
            In the order of the columns, which for the transpose is the last tap first.
        outside : bool array (taps, rows)
            Where a tap reads nothing.
        """
        rows = np.arange(start, stop, dtype=dtype)
        reach = np.arange(0, self.reach + 1, self.dilation, dtype=dtype)[:, None]
        unsigned = f"u{rows.itemsize}"  # in which negative numbers are large
        if not transposed:
            source = (rows * self.stride - self.before) + reach
            return source, source.view(unsigned) >= self.size
        output = (rows + self.before) - reach[::-1]
        if self.stride == 1:
            return output, output.view(unsigned) >= self.outputs
        output, phase = np.divmod(output, self.stride)
        return output, (output.view(unsigned) >= self.outputs) | (phase != 0)

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
        listed = self._listed_sources if transposed else self._listed_outputs
        affine = self._affine_sources if transposed else self._affine_outputs
        return [
            *listed(start, min(stop, low)),
            *affine(max(start, low), min(stop, high)),
            *listed(max(start, high), stop),
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
        spans = [span for span in map(self.span, range(self.taps)) if span[0] < span[1]]
        cuts = {start, stop, *(cut for span in spans for cut in span if start < cut < stop)}
        for first, last in pairwise(sorted(cuts)):
            yield Run(first, (self._output(first),), last - first, self.stride)

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
            row = start + first * stride
            yield Run(row, tuple(map(self._source, range(row, row + stride))), last - first, 1)
        tail = start + periods * stride
        if tail < stop:
            yield Run(tail, tuple(map(self._source, range(tail, stop))), 1, 0)

    def _output(self, output: int) -> Row:
        """Return what one output reads inside the input."""
        step = self.dilation
        origin = output * self.stride - self.before
        first = max(0, -(origin // step))
        last = max(first, min(self.taps, (self.size - 1 - origin) // step + 1))
        return Row(range(origin + first * step, origin + last * step, step), slice(first, last))

    def _source(self, source: int) -> Row:
        """Return the outputs that read one source of the input itself: o·stride + t·dilation = source + before."""
        common = gcd(self.stride, self.dilation)
        step, position = self.stride // common, source + self.before
        last = min(self.taps - 1, position // self.dilation)
        first = max(0, -(((self.outputs - 1) * self.stride - position) // self.dilation))
        if position % common:
            return Row(range(0), slice(0, 0))
        # The taps that meet the source lie on one residue class modulo the step.
        residue = position // common * pow(self.dilation // common, -1, step) % step
        first += (residue - first) % step
        last -= (last - residue) % step
        if last < first:
            return Row(range(0), slice(0, 0))
        low, high = ((position - tap * self.dilation) // self.stride for tap in (last, first))
        columns = range(low, high + 1, self.dilation // common)
        return Row(columns, slice(last, first - 1 if first else None, -step))

    def _listed_outputs(self, start: int, stop: int) -> Iterator[Run]:
        """List outputs one by one, their sources sorted and merged."""
        if start >= stop:
            return
        sources = self.sources(np.arange(start, stop, dtype=np.int64))
        order = np.argsort(sources, axis=1, kind="stable")
        sources = np.take_along_axis(sources, order, axis=1)
        for output, columns, taps in zip(range(start, stop), sources, order, strict=True):
            yield Run(output, (_merge(columns, taps),), 1, 0)

    def _listed_sources(self, start: int, stop: int) -> Iterator[Run]:
        """List sources one by one, with every output that reads them, directly or folded."""
        if start >= stop:
            return
        positions = [(start, stop), (-self.before, 0), (self.size, self.size + self.overrun)]
        readers = np.unique(np.concatenate([np.arange(*self._readers(*span), dtype=np.int64) for span in positions]))
        sources = self.sources(readers)
        reader, taps = np.nonzero((sources >= start) & (sources < stop))
        sources, outputs = sources[reader, taps], readers[reader]
        order = np.lexsort((taps, outputs, sources))
        sources, outputs, taps = sources[order], outputs[order], taps[order]
        cuts = np.searchsorted(sources, np.arange(start, stop + 1)).tolist()
        for source, (first, last) in zip(range(start, stop), pairwise(cuts), strict=True):
            yield Run(source, (_merge(outputs[first:last], taps[first:last]),), 1, 0)

    def _readers(self, first: int, last: int) -> tuple[int, int]:
        """Return the range of outputs that read any of the positions `first` to `last` of the padded input."""
        if first >= last:
            return 0, 0
        low = max(0, -((self.reach - first - self.before) // self.stride))
        return low, max(low, min(self.outputs, (last - 1 + self.before) // self.stride + 1))


@lru_cache
def _pairs(axis: Axis) -> int:
    """Return the number of (output, tap) pairs inside the input."""
    return sum(high - low for low, high in map(axis.span, range(axis.taps)))


def _merge(columns: IntArray, taps: IntArray) -> Row:
    """Merge the equal ones among sorted columns."""
    starts = np.flatnonzero(np.concatenate([[True], columns[1:] != columns[:-1]])) if columns.size else columns
    if starts.size == columns.size:
        return Row(columns, taps)
    return Row(columns[starts], taps, starts)
