"""One axis of AᴴA: which columns its rows have, through which pairs of taps, and which rows are alike.

A row of A's Gram matrix meets a column where some position in the middle is connected to both: an output that reads two
inputs or, where A is a transposed convolution, an input that two outputs read. Only rows near the ends of an axis differ
from others. So a short axis with the same ends and options has all rows that there are, and lists them; the long one has its
middle rows more often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from convmat._runtime import check_memory
from convmat.geometry import Array, Axis, Border, IntArray

_LISTED = 100  # bytes that listing a pair of an output and a tap takes


class Meeting(NamedTuple):
    """What a row meets through one of its taps: columns, each through another tap.

    Attributes
    ----------
    tap : int
        The row's tap.
    columns : slice or int64 array
        Which of the row's columns, in order; repeated where they are met through several taps.
    taps : slice or int64 array
        Their taps.
    """

    tap: int
    columns: slice | IntArray
    taps: slice | IntArray


class RowClass(NamedTuple):
    """Rows of an axis that are alike.

    Attributes
    ----------
    columns : int64 array
        The columns less the row, by ascending column.
    meetings : callable
        Lists how the row meets its columns.
    runs : list of range
        The rows.
    """

    columns: IntArray
    meetings: Callable[[], Iterable[Meeting]]
    runs: list[range]


@dataclass(frozen=True)
class GramAxis:
    """The rows of one axis.

    Attributes
    ----------
    rows : int
        Their number.
    counts : int64 array (rows,)
        The number of columns of each.
    classes : list of RowClass
        All rows, sorted into those that are alike.
    """

    rows: int
    counts: IntArray
    classes: list[RowClass]

    @classmethod
    def of(cls, axis: Axis, transposed: bool) -> GramAxis:
        """Return the axis of the Gram matrix of W, or of that of Wᵀ."""
        short, removed, centre = _shortened(axis, transposed)
        period = 1 if transposed else axis.stride
        links = _Links.of(short, transposed)
        kinds, firsts = links.alike()
        start, stop = _middle(kinds, period, centre)
        added = removed * period
        classes: list[RowClass] = []
        rows = axis.rows(not transposed)
        counts = np.zeros(rows, np.int64)
        runs = _runs(kinds, start, stop, period, added)
        for kind, first in enumerate(firsts):
            columns = links.columns_of(first)
            # Columns far away are at the other end, which the long axis has further away.
            far = links.rows // 2
            offsets = columns - first
            offsets = offsets + added * ((offsets > far).astype(np.int64) - (offsets < -far))
            classes.append(RowClass(offsets, partial(links.meetings, first, columns), runs[kind]))
            for run in runs[kind]:
                counts[run.start : run.stop : run.step] = len(columns)
        return cls(rows, counts, classes)


def _shortened(axis: Axis, transposed: bool) -> tuple[Axis, int, int]:
    """Return an axis with the same ends and fewer positions between, how many periods it lacks, and a row in the middle."""
    folds = axis.border is not Border.NOTHING
    bound = max(axis.reach, *(axis.before + 1, axis.overrun + 1) if folds else (0,))
    end = min(axis.size - bound, axis.outputs * axis.stride - axis.before)  # inputs from `bound` to here are alike
    removed = max(0, (end - bound - (2 * bound + 4 * axis.stride)) // axis.stride)
    centre = (bound + end - removed * axis.stride) // 2
    if transposed:
        centre = (centre + axis.before - axis.reach // 2) // axis.stride
    short = replace(axis, size=axis.size - removed * axis.stride, outputs=axis.outputs - removed) if removed else axis
    return short, removed, centre


def _middle(kinds: IntArray, period: int, centre: int) -> tuple[int, int]:
    """Return the range of rows around `centre` that repeat after a period."""
    same = kinds[period:] == kinds[:-period]
    centre = min(max(centre, 0), max(0, len(same) - 1))
    breaks = np.flatnonzero(~same)
    before, after = breaks[breaks < centre], breaks[breaks >= centre]
    start = int(before[-1]) + 1 if before.size else 0
    stop = int(after[0]) if after.size else len(same)
    return start, min(max(start, stop) + period, len(kinds))


def _runs(kinds: IntArray, start: int, stop: int, period: int, added: int) -> list[list[range]]:
    """Return the rows of each kind, with `added` rows put into the middle, from `start` to `stop`."""
    runs: list[list[range]] = [[] for _ in range(int(kinds.max(initial=-1)) + 1)]

    def add_ends(first: int, last: int, shift: int) -> None:
        cuts = np.flatnonzero(np.diff(kinds[first:last])) + first + 1
        for low, high in zip([first, *cuts], [*cuts, last], strict=True):
            if low < high:
                runs[kinds[low]].append(range(int(low) + shift, int(high) + shift))

    add_ends(0, start, 0)
    if (kinds[start:stop] == kinds[start:stop][:1]).all():
        period = 1
    for phase in range(min(period, stop - start)):
        runs[kinds[start + phase]].append(range(start + phase, stop + added, period))
    add_ends(stop, len(kinds), added)
    return runs


class _Lists(NamedTuple):
    """Pairs of numbers, a list of them for each key, one list after the other.

    Attributes
    ----------
    starts : int64 array (keys + 1,)
        Where each list begins, and where the last one ends.
    major, minor : int64 array
        The pairs, sorted in each list.
    """

    starts: IntArray
    major: IntArray
    minor: IntArray

    @classmethod
    def of(cls, keys: IntArray, count: int, major: IntArray, minor: IntArray) -> _Lists:
        """Sort pairs by key."""
        order = np.lexsort((minor, major, keys))
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))])
        return cls(starts, major[order], minor[order])

    @property
    def owners(self) -> IntArray:
        """The key of each pair."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def places(self, keys: IntArray) -> IntArray:
        """Return where the pairs of some keys are."""
        counts = np.diff(self.starts)[keys]
        before: IntArray = np.cumsum(counts) - counts
        return np.arange(counts.sum()) + np.repeat(self.starts[keys] - before, counts)

    def kinds(self, *values: IntArray) -> tuple[IntArray, list[int]]:
        """Return which keys have the same `values` for their pairs, as a number for each, and one key of each kind."""
        counts, kinds, firsts = np.diff(self.starts), np.zeros(len(self.starts) - 1, np.int64), list[int]()
        for count in np.unique(counts):  # lists of different lengths are different
            keys = np.flatnonzero(counts == count)
            places = self.starts[keys][:, None] + np.arange(count)
            table = np.concatenate([np.zeros((len(keys), 1), np.int64), *(value[places] for value in values)], axis=1)
            _, first, own = np.unique(table, axis=0, return_index=True, return_inverse=True)
            kinds[keys] = len(firsts) + own.ravel()
            firsts.extend(keys[first].tolist())
        return kinds, firsts


@dataclass(frozen=True)
class _Links:
    """Which rows are connected to which middle positions, and through which taps; columns are connected as rows are.

    Attributes
    ----------
    by_row : _Lists
        The taps and middle positions of each row, by ascending tap.
    by_middle : _Lists
        The columns and taps of each middle position, by ascending column.
    """

    by_row: _Lists
    by_middle: _Lists

    @classmethod
    def of(cls, axis: Axis, transposed: bool) -> _Links:
        check_memory(
            lambda: "listing how rows of the Gram matrix meet takes",
            _LISTED * axis.outputs * axis.taps,
            "apply it without storing it: A.H @ (A @ x)",
        )
        sources = axis.sources(np.arange(axis.outputs, dtype=np.int64))
        outputs, taps = np.nonzero(sources >= 0)
        rows, middles = sources[outputs, taps], outputs
        if transposed:
            rows, middles = middles, rows
        count, others = axis.rows(not transposed), axis.rows(transposed)
        return cls(_Lists.of(rows, count, taps, middles), _Lists.of(middles, others, rows, taps))

    @property
    def rows(self) -> int:
        """The number of rows, and of columns."""
        return len(self.by_row.starts) - 1

    def alike(self) -> tuple[IntArray, list[int]]:
        """Return the kind of each row, and a row of each kind."""
        first = self._ends[0]
        kinds, _ = self.by_middle.kinds(self.by_middle.major - first[self.by_middle.owners], self.by_middle.minor)
        middles = self.by_row.minor
        return self.by_row.kinds(self.by_row.major, first[middles] - self.by_row.owners, kinds[middles])

    def _list(self, row: int) -> slice:
        return slice(int(self.by_row.starts[row]), int(self.by_row.starts[row + 1]))

    def columns_of(self, row: int) -> IntArray:
        """Return the columns of a row."""
        is_met = np.zeros(self.rows, bool)
        is_met[self.by_middle.major[self.by_middle.places(self.by_row.minor[self._list(row)])]] = True
        return np.flatnonzero(is_met)

    def meetings(self, row: int, columns: IntArray) -> Iterator[Meeting]:
        """Return how a row meets its columns."""
        own, middles = self.by_row.major[self._list(row)], self.by_row.minor[self._list(row)]
        first, last = np.searchsorted(columns, self._ends[:2, middles])
        _, _, first_tap, last_tap, counts = self._ends[:, middles]
        # Most meet neighbouring columns through neighbouring taps.
        even = (last - first + 1 == counts) & (abs(last_tap - first_tap) + 1 == counts) & self._ordered[middles]
        lists = (each.tolist() for each in (own, middles, first, last, first_tap, last_tap, even))
        for tap, middle, low, high, low_tap, high_tap, plain in zip(*lists, strict=True):
            if plain:
                step = 1 if high_tap >= low_tap else -1
                end = high_tap + step
                yield Meeting(tap, slice(low, high + 1), slice(low_tap, None if end < 0 else end, step))
            else:
                some = slice(int(self.by_middle.starts[middle]), int(self.by_middle.starts[middle + 1]))
                met = np.searchsorted(columns, self.by_middle.major[some])
                yield Meeting(tap, met, self.by_middle.minor[some])

    @cached_property
    def _ends(self) -> IntArray:
        """The first and the last column of each middle position, their taps, and the number of columns; 0 where none are."""
        starts, *lists = self.by_middle
        counts = np.diff(starts)
        ends = np.zeros((5, len(counts)), np.int64)
        some = counts > 0
        ends[:4, some] = [each[place[some]] for each in lists for place in (starts[:-1], starts[1:] - 1)]
        ends[4] = counts
        return ends

    @cached_property
    def _ordered(self) -> Array:
        """Whether the columns of each middle position are different, and its taps go up or down with them one by one."""
        owners = self.by_middle.owners
        inside, steps = owners[1:] == owners[:-1], np.diff(self.by_middle.minor)

        def has_none(broken: Array) -> Array:
            none: Array = np.bincount(owners[1:][inside & broken], minlength=len(self.by_middle.starts) - 1) == 0
            return none

        return has_none(np.diff(self.by_middle.major) <= 0) & (has_none(steps != 1) | has_none(steps != -1))


def contract(pairs: Array, count: int, meetings: Iterable[Meeting]) -> Array:
    """Return Σ pairs[t, u, …] over the pairs of taps (t, u) through which a row meets each of its columns, (count, …)."""
    result: Array = np.zeros((count, *pairs.shape[2:]), pairs.dtype)
    for tap, columns, taps in meetings:
        if isinstance(columns, slice) or not (columns[1:] == columns[:-1]).any():
            result[columns] += pairs[tap, taps]
        else:
            np.add.at(result, columns, pairs[tap, taps])
    return result
