"""The sparsity pattern of W or Wᵀ: the rows that are listed, and where they repeat.

A row of the matrix is a product of one row of each axis, and away from the borders the rows of an axis repeat. So a
block of rows has one pattern of taps, columns and row ends: it is listed once, and each next block is that plus a constant.
Axes whose rows are all in the pattern make blocks large; one axis is cut into blocks; those before it repeat them.

All of this follows from the geometry alone, so that the pattern of a matrix is kept for the next kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convmat.geometry import Array, Axis, IntArray, Table

Span = tuple[int, int]

_BLOCK = 3072  # entries of a pattern of several rows: its data and indices stay in a 48 KiB first-level cache
_LINE = 1 << 15  # entries of a pattern that spans whole axes: stays in the second-level cache
_TABLE = 1 << 17  # entries that are listed at once; more would take memory to speak of
_SHARE = 16  # of all entries, about one in so many is listed where that takes more than the above
_KEPT = 1 << 21  # bytes of a pattern that is kept


class Box(NamedTuple):
    """Rows of W or Wᵀ for one row channel: a range of rows of each axis."""

    axes: tuple[Axis, ...]
    transposed: bool
    spans: tuple[Span, ...]
    inner: int  # column channels of a group
    dtype: np.dtype[Any]  # of the matrix' indices


class Repeats(NamedTuple):
    """How listed rows repeat: a grid of places."""

    counts: tuple[int, ...]
    rows: tuple[int, ...]  # from one to the next, along each dimension of the grid
    entries: tuple[int, ...]
    columns: Array  # (*counts, 1): what each place adds to the indices
    ends: Array  # (*counts, 1): and to the ends


class Step(NamedTuple):
    """Consecutive listed rows, and where they are written first."""

    rows: slice  # of the pattern
    entries: slice
    row: int  # of the box
    entry: int
    repeats: int  # which of the pattern's


class Pattern(NamedTuple):
    """Listed rows, and all that follow from them."""

    taps: npt.NDArray[np.intp]  # (entries,): of the flattened kernel of one row channel, with the sums after its taps
    indices: Array  # (entries,)
    ends: Array  # (rows,)
    sums: list[tuple[int, IntArray, IntArray]]  # axis, taps and starts of the sums of taps: see Axis.table
    repeats: list[Repeats]
    groups: list[list[Step]]  # steps with the same first repeats; none if nothing repeats

    @property
    def nbytes(self) -> int:
        """The bytes that it takes."""
        listed = self.taps.nbytes + self.indices.nbytes + self.ends.nbytes
        return listed + sum(repeats.columns.nbytes + repeats.ends.nbytes for repeats in self.repeats)


def patterns(box: Box) -> Iterator[Pattern]:
    """Yield patterns that together cover a box, each listed when it is its turn; one that is small and alone is kept."""
    yield from _known(box).patterns()


def forget() -> None:
    """Drop all patterns that are kept."""
    _known.cache_clear()


class _Known:
    """The pattern of a box, once it has been listed."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._kept: Pattern | None = None

    def patterns(self) -> Iterator[Pattern]:
        """Yield what is kept, or list it."""
        if self._kept is not None:
            yield self._kept
            return
        lister = _Lister(self._box)
        for pattern in lister.patterns():
            if lister.batches == 1 and pattern.nbytes <= _KEPT:
                self._kept = pattern
            yield pattern


_known = lru_cache(maxsize=8)(_Known)


class _Part(NamedTuple):
    """Consecutive rows of an axis: the first ones are listed, and the others repeat them."""

    start: int
    rows: int
    times: int
    shift: int  # of the columns in the matrix, from one to the next


class _List(NamedTuple):
    """The listed rows of one axis."""

    table: Table
    lengths: IntArray  # (rows,): number of nonzeros
    before: IntArray  # (rows + 1,): nonzeros listed before each row, and all
    parts: list[tuple[_Part, int, int]]  # with the listed rows and all nonzeros of the axis before them
    total: int  # nonzeros of the axis in all parts, listed or not


class _Place(NamedTuple):
    """Where a block is written, and how it repeats."""

    row: int = 0
    entry: int = 0
    repeats: tuple[tuple[int, int, int, int], ...] = ()  # count; rows, entries and columns from one to the next

    def moved(self, rows: int, entries: int) -> _Place:
        return _Place(self.row + rows, self.entry + entries, self.repeats)

    def repeated(self, count: int, rows: int, entries: int, columns: int) -> _Place:
        if count == 1 and self.repeats:
            return self
        return self._replace(repeats=(*self.repeats, (count, rows, entries, columns)))


class _Lister:
    """Lists a box: a span of each axis, for the column channels of a group."""

    def __init__(self, box: Box) -> None:
        self.axes, self.transposed, self.spans, self.inner, self.dtype = box
        self.sizes = [stop - start for start, stop in self.spans]
        # Columns between channels, then between positions of each axis.
        self.strides = [1]
        for axis in reversed(self.axes):
            self.strides.insert(0, self.strides[0] * axis.rows(not self.transposed))
        self.bits = (self.inner * self.strides[0]).bit_length()
        # The last axes are listed whole, as far as a pattern can span them; the one before is cut into blocks.
        each = [axis.entries / axis.rows(self.transposed) for axis in self.axes]
        entries, cut = max(1.0, self.inner * prod(each)), len(self.axes) - 1
        listed = max(_LINE, entries * prod(self.sizes) / _SHARE)
        while cut and entries * self.sizes[cut] <= min(_LINE, listed / self.edges(cut)):
            entries, cut = entries * self.sizes[cut], cut - 1
        whole = not cut and entries * self.sizes[0] <= _LINE
        self.cut = cut
        self.room = (self.sizes[0], 0) if whole else (max(1, int(_BLOCK / entries)), max(1, int(_LINE / entries)))
        self.listed: Any = None
        self.repeats: dict[tuple[tuple[int, int, int, int], ...], int] = {}
        self.batches = 0

    def edges(self, cut: int) -> int:
        """Return about how many combinations of rows of the axes before one are listed."""
        return prod(
            min(size, axis.reach + axis.stride if self.transposed else axis.reach // axis.stride + 1)
            for axis, size in zip(self.axes[:cut], self.sizes, strict=False)
        )

    def patterns(self) -> Iterator[Pattern]:
        """Yield patterns of so many rows of the first axis as take little memory."""
        lists = [self.list_axis(axis, self.parts(axis)) for axis in range(1, len(self.axes))]
        after = [1]
        for size in reversed(self.sizes[1:]):
            after.insert(0, after[0] * size)
        self.rows_after = after
        self.entries_after = [prod(listed.total for listed in lists[n:]) for n in range(len(after))]
        most = self.inner * self.axes[0].most(self.transposed) * prod(listed.table.inside.size for listed in lists)
        batches, before = _batches(self.parts(0), max(1, _TABLE // most)), 0
        self.batches = len(batches)
        for parts in batches:
            first = self.list_axis(0, parts, before)
            before = first.total
            self.lists = [first, *lists]
            tables = [listed.table for listed in self.lists]
            sums = [(n, table.merged, table.starts) for n, table in enumerate(tables) if table.starts.size]
            taps, indices, ends = self.list_rows()
            groups: list[list[Step]] = []
            if ends.size < prod(self.sizes):
                self.ends = ends
                self.repeats.clear()
                groups = [list(self.steps_of(0, placed, 0, self.inner, _Place())) for placed in first.parts]
            yield Pattern(taps, indices, ends, sums, [*map(self.grid, self.repeats)], groups)

    def parts(self, axis: int) -> list[_Part]:
        """Tell which rows of an axis are listed."""
        start, stop = self.spans[axis]
        room, most = self.room if axis == self.cut else (1, 1) if axis < self.cut else (stop - start,) * 2
        if room >= stop - start:
            return [_Part(start, stop - start, 1, 0)]
        parts: list[_Part] = []
        for run in self.axes[axis].runs(self.transposed, start, stop):
            fit = max(1, room // run.period)
            blocks = run.periods // fit
            if blocks > 1:
                parts.append(_Part(run.start, fit * run.period, blocks, fit * run.shift * self.strides[axis + 1]))
            else:
                blocks = 0
            # What is left over is listed, together with what is left before it.
            alone, stop = run.start + blocks * fit * run.period, run.start + run.periods * run.period
            if parts and parts[-1].times == 1 and parts[-1].rows + stop - alone <= most:
                alone = parts.pop().start
            parts += [_Part(first, min(most, stop - first), 1, 0) for first in range(alone, stop, most)]
        return parts

    def list_axis(self, axis: int, parts: list[_Part], entries: int = 0) -> _List:
        """List rows of an axis, of which `entries` are before them."""
        key = self.axes[axis], tuple((part.start, part.rows) for part in parts)
        if key != self.listed:  # by the axis before, which is often of the same kind
            ranges = [np.arange(part.start, part.start + part.rows, dtype=np.int64) for part in parts]
            table = self.axes[axis].table(self.transposed, np.concatenate(ranges) if len(ranges) > 1 else ranges[0])
            lengths = np.add.reduce(table.inside, axis=0, dtype=np.int64)
            before = np.zeros(lengths.size + 1, np.int64)
            lengths.cumsum(out=before[1:])
            self.listed, self.table = key, (table, lengths, before)
        table, lengths, before = self.table
        placed, listed = [], 0
        for part in parts:
            placed.append((part, listed, entries))
            entries += int(before[listed + part.rows] - before[listed]) * part.times
            listed += part.rows
        return _List(table, lengths, before, placed, entries)

    def list_rows(self) -> tuple[npt.NDArray[np.intp], Array, Array]:
        """Return taps, indices and ends of all listed rows, the first axis' outermost.

        Each nonzero is one number to begin with: its tap in the high bits, its column in the low ones.
        """
        # Taps between channels, then between positions of each axis, where sums of taps come after an axis' taps.
        taps = [1]
        for axis, listed in zip(reversed(self.axes), reversed(self.lists), strict=True):
            taps.insert(0, taps[0] * (axis.taps + listed.table.starts.size))
        above = self.inner * taps[0] << self.bits  # all codes
        if above * (len(self.axes) + 1) >= 1 << 63:
            raise ValueError(
                f"input_shape or kernel must be smaller, as columns and taps are listed as one 64-bit integer, got "
                f"2**{self.bits} columns and {self.inner * taps[0]} taps for each row"
            )
        integer = np.int32 if above * (len(self.axes) + 1) < 1 << 31 else np.int64
        codes, lengths, complete = np.zeros((1, 1), integer), np.full(1, self.inner), True
        for n in range(len(self.lists) - 1, -1, -1):
            table, own_lengths, before, *_ = self.lists[n]
            own: Array = table.columns.astype(integer)  # what wraps around is outside
            own *= integer(self.strides[n + 1])
            own += (table.taps * (taps[n + 1] << self.bits)).astype(integer)
            if before[-1] < own.size:
                own = np.where(table.inside, own, integer(-above))  # so that every sum with it is negative
                complete = False
            lengths = np.multiply.outer(own_lengths, lengths).ravel()
            codes = (own[:, None, :, None] + codes[:, None]).reshape(-1, lengths.size)
        if self.inner > 1:
            channels = np.arange(self.inner, dtype=integer) * (self.strides[0] + (taps[0] << self.bits))
            codes = (channels[:, None, None] + codes).reshape(-1, lengths.size)
        flat = codes.T.ravel()
        if not complete:
            flat = flat.take((flat >= 0).nonzero()[0])
        tap = (flat >> self.bits).astype(np.intp, copy=False)
        flat &= (1 << self.bits) - 1
        return tap, flat.astype(self.dtype, copy=False), lengths.cumsum(dtype=self.dtype)

    def steps_of(
        self, axis: int, placed: tuple[_Part, int, int], listed: int, width: int, place: _Place
    ) -> Iterator[Step]:
        """Yield what writes a part of an axis times the axes after it.

        `listed` is the index of the row of the axes before it in the pattern, and `width` the number of its entries.
        """
        part, first, before = placed
        own, after, rows_after = self.lists[axis].before, self.entries_after[axis], self.rows_after[axis]
        listed = listed * (own.size - 1) + first
        width *= after
        place = place.moved((part.start - self.spans[axis][0]) * rows_after, before * width)
        block = int(own[first + part.rows] - own[first]) * width
        place = place.repeated(part.times, part.rows * rows_after, block, part.shift)
        if axis == self.cut:
            yield self.step(listed * rows_after, (listed + part.rows) * rows_after, place)
            return
        for row in range(part.rows):
            entries = int(own[first + row + 1] - own[first + row])
            for inner in self.lists[axis + 1].parts:
                yield from self.steps_of(axis + 1, inner, listed + row, width // after * entries, place)
            place = place.moved(rows_after, entries * width)

    def step(self, first: int, last: int, place: _Place) -> Step:
        """Return the step that writes listed rows at a place."""
        entries = slice(int(self.ends[first - 1]) if first else 0, int(self.ends[last - 1]))
        repeats = self.repeats.setdefault(place.repeats, len(self.repeats))
        return Step(slice(first, last), entries, place.row, place.entry, repeats)

    def grid(self, repeats: tuple[tuple[int, int, int, int], ...]) -> Repeats:
        """Return what the places of a grid add."""
        columns = ends = np.zeros(1, self.dtype)
        for count, _, entries, shift in reversed(repeats):
            times = np.arange(count, dtype=self.dtype).reshape(-1, *(1,) * columns.ndim)
            columns, ends = columns + times * self.dtype.type(shift), ends + times * self.dtype.type(entries)
        counts, rows, steps, _ = zip(*repeats, strict=True)
        return Repeats(counts, rows, steps, columns, ends)


def _batches(parts: list[_Part], rows: int) -> list[list[_Part]]:
    """Group consecutive parts with at most so many listed rows, or one part."""
    batches: list[list[_Part]] = []
    total = rows
    for part in parts:
        if total + part.rows > rows:
            batches.append([])
            total = 0
        batches[-1].append(part)
        total += part.rows
    return batches
