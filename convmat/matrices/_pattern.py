"""The sparsity pattern of W or Wᵀ: the rows that are listed, and where they repeat.

A row of the matrix is a product of one row of each axis, and away from the borders the rows of an axis repeat. So a block
of rows is listed once, as taps, columns and row ends, and each copy of it is that plus a constant:

    axis        before the cut           the cut                  after the cut
    listed      rows of borders, and     rows of borders, and     all rows
                one period in between    one block in between

A 3 × 3 kernel with padding 1 on 6 × 3000 inputs is cut at axis 1. Axis 0 has the segments 0, 1 to 4 and 5: row 1 is listed,
and rows 2 to 4 repeat it. Axis 1 has the segments 0, 1 to 2688 (rows 1 to 384 are listed, and there 7 times) and 2689 to
2999. So there are nine blocks, and the one in the middle is written 4 × 7 times.

`logical_rows` is the definition: a loop over all rows. All of this follows from the geometry alone, so that the pattern of
a matrix is kept for the next kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, product
from math import prod
from operator import mul
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convmat.geometry import Array, Axis, IntArray, Table

Span = tuple[int, int]
Taps = npt.NDArray[np.intp]

_BLOCK = 3072  # entries of a block of several rows: its data and indices stay in a 48 KiB first-level cache
_LINE = 1 << 15  # entries of a block that spans whole axes: stays in the second-level cache
_TABLE = 1 << 17  # entries that are listed at once; more would take memory to speak of
_FRACTION = 16  # of all entries, about one in so many may be listed where that is more than _LINE
_KEPT = 1 << 21  # bytes of a pattern that is kept


class Box(NamedTuple):
    """Rows of W or Wᵀ for one row channel: a range of rows of each axis."""

    axes: tuple[Axis, ...]
    transposed: bool
    spans: tuple[Span, ...]
    channels: int  # column channels of a group
    dtype: np.dtype[Any]  # of the matrix' indices


class Repeat(NamedTuple):
    """How a block repeats along one axis: how many times it is there, and what is between the beginnings of two copies."""

    times: int
    rows: int
    entries: int
    columns: int


class Grid(NamedTuple):
    """What each copy of a block adds, where the copies are a grid with one dimension for each repeat."""

    columns: Array  # (*times, 1): to the columns
    ends: Array  # (*times, 1): to the ends


class Block(NamedTuple):
    """Consecutive listed rows, and where they are written."""

    rows: slice  # of the pattern
    entries: slice
    row: int  # of the box, with which the first copy begins
    entry: int
    repeats: tuple[Repeat, ...]


class Pattern(NamedTuple):
    """Listed rows, and all that follow from them."""

    taps: Taps  # (entries,): of the flattened kernel of one row channel, with the sums of each axis after its taps
    columns: Array  # (entries,)
    ends: Array  # (rows,): the number of entries up to the end of each row
    sums: list[tuple[int, IntArray, IntArray]]  # axis, merged and starts of taps with one source: see Axis.table
    groups: list[list[Block]]  # blocks with the same first repeat; none if nothing repeats
    grids: dict[tuple[Repeat, ...], Grid]  # for the repeats of each block

    @property
    def nbytes(self) -> int:
        """The bytes that it takes."""
        listed = self.taps.nbytes + self.columns.nbytes + self.ends.nbytes
        return listed + sum(grid.columns.nbytes + grid.ends.nbytes for grid in self.grids.values())


def patterns(box: Box) -> Iterator[Pattern]:
    """Yield patterns that together cover a box, each listed when it is its turn; one that is small and alone is kept."""
    kept = _kept(box)
    if kept:
        yield kept[0]
        return
    lister = _Lister(box)
    for pattern in lister.patterns():
        if len(lister.batches) == 1 and pattern.nbytes <= _KEPT:
            kept[:] = [pattern]
        yield pattern


@lru_cache(maxsize=8)
def _kept(box: Box) -> list[Pattern]:
    """Return a list for the pattern of a box, which `patterns` puts there."""
    return []


def forget() -> None:
    """Drop all patterns that are kept."""
    _kept.cache_clear()


def logical_rows(box: Box) -> Iterator[dict[int, list[int]]]:
    """Yield what `patterns` lists by its definition, which takes long: each row's columns, and the taps summed in each.

    Columns ascend. Taps are those of the flattened kernel (channels, taps of each axis) of one row channel.
    """
    factors = [(box.channels, box.channels, [{channel: [channel] for channel in range(box.channels)}])]
    factors += [(axis.rows(not box.transposed), axis.taps, _logical_axis(axis, box.transposed)) for axis in box.axes]
    for rows in product([0], *(range(*span) for span in box.spans)):
        nonzeros = {0: [0]}
        for row, (columns, taps, rows_of_axis) in zip(rows, factors, strict=True):
            nonzeros = {
                before * columns + column: [tap * taps + own_tap for tap in summed for own_tap in own_summed]
                for before, summed in nonzeros.items()
                for column, own_summed in sorted(rows_of_axis[row].items())
            }
        yield nonzeros


def _logical_axis(axis: Axis, transposed: bool) -> list[dict[int, list[int]]]:
    """Return the columns of each row of an axis, and the taps summed in each."""
    rows: list[dict[int, list[int]]] = [{} for _ in range(axis.rows(transposed))]
    for (output, tap), source in np.ndenumerate(axis.sources(np.arange(axis.outputs))):
        if source >= 0:
            row, column = (int(source), output) if transposed else (output, int(source))
            rows[row].setdefault(column, []).append(tap)
    return rows


class _Segment(NamedTuple):
    """Consecutive rows of an axis: the first ones are listed, and the others repeat them."""

    start: int
    rows: int  # that are listed
    times: int  # that they are there
    shift: int  # of the columns in the matrix, from one time to the next
    first: int = 0  # listed rows of the axis before it; this and the next are known once the axis is listed
    before: int = 0  # nonzeros of the axis before it, listed or not


class _ListedAxis(NamedTuple):
    """The listed rows of an axis."""

    table: Table
    lengths: IntArray  # (rows,): nonzeros of each row
    before: IntArray  # (rows + 1,): listed nonzeros before each row, and all
    segments: list[_Segment]
    total: int  # nonzeros up to the end of the last segment, listed or not


def _divide(box: Box) -> tuple[int, int, int]:
    """Choose the axis that is cut into blocks, the rows of a block, and the most rows that are listed without a copy."""
    sizes = [stop - start for start, stop in box.spans]
    # Of a row of the matrix, on average; further down, of a row of the axes up to the cut.
    entries = max(1.0, box.channels * prod(axis.entries / axis.rows(box.transposed) for axis in box.axes))
    if entries * prod(sizes) <= _LINE:
        return 0, sizes[0], sizes[0]  # all rows are listed
    budget, cut = max(_LINE, entries * prod(sizes) / _FRACTION), len(sizes) - 1
    # From the last axis on, axes are listed whole: once for each combination of rows that are listed of the axes before.
    borders = [axis.reach + axis.stride if box.transposed else axis.reach // axis.stride + 1 for axis in box.axes[:-1]]
    while cut and entries * sizes[cut] <= min(_LINE, budget / prod(map(min, sizes[:cut], borders))):
        entries, cut = entries * sizes[cut], cut - 1
    return cut, max(1, int(_BLOCK / entries)), max(1, int(_LINE / entries))


class _Lister:
    """Lists the rows of a box."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.cut, self.block, self.alone = _divide(box)
        # Columns of a group, of a channel, and then for each axis those from one of its positions to the next.
        self.column_strides = _strides([box.channels, *(axis.rows(not box.transposed) for axis in box.axes)])
        self._tabulate = lru_cache(maxsize=1)(_tabulate)  # axes that are equal have one table
        self._others = [self.list_axis(self.segments(axis), axis) for axis in range(1, len(box.axes))]
        self.rows = prod(stop - start for start, stop in box.spans)
        # The first axis is listed by as many rows at a time as take little memory.
        most = box.channels * box.axes[0].most(box.transposed)
        most *= prod(other.table.inside.size for other in self._others)
        self.batches = _batches(self.segments(0), max(1, _TABLE // most))

    def patterns(self) -> Iterator[Pattern]:
        """Yield a pattern for each batch of rows of the first axis."""
        before = 0
        for segments in self.batches:
            first = self.list_axis(segments, 0, before)
            before = first.total
            axes = [first, *self._others]
            sums = [(n, table.merged, table.starts) for n, (table, *_) in enumerate(axes) if table.starts.size]
            taps, columns, ends = _list_rows(self.box, self.column_strides, axes)
            groups, grids = [], {}
            if ends.size < self.rows:
                copies = _Copies(self.box, self.cut, axes, ends)
                groups = [list(copies.blocks(segment)) for segment in first.segments]
                repeats = {block.repeats for blocks in groups for block in blocks}
                grids = {each: _grid(each, self.box.dtype) for each in repeats}
            yield Pattern(taps, columns, ends, sums, groups, grids)

    def segments(self, axis: int) -> list[_Segment]:
        """Tell which rows of an axis are listed, and which repeat them.

        For blocks of 4, and 5 rows alone at most, a run of rows 1 to 10 becomes a segment of rows 1 to 4 and their copy 5 to
        8. What is left over, 9 and 10, is listed alone, in one segment with rows 11, 12 and 13 if the next run has no copy.
        """
        start, stop = self.box.spans[axis]
        block, alone = (self.block, self.alone) if axis == self.cut else (1, 1)
        if axis > self.cut or block >= stop - start:
            return [_Segment(start, stop - start, 1, 0)]
        segments: list[_Segment] = []
        for run in self.box.axes[axis].runs(self.box.transposed, start, stop):
            periods = max(1, block // run.period)  # of a block
            times, rows = run.periods // periods, periods * run.period
            times = times if times > 1 else 0  # a block without a copy is left over, too
            if times:
                segments.append(_Segment(run.start, rows, times, periods * run.shift * self.column_strides[axis + 2]))
            low, high = run.start + times * rows, run.start + run.periods * run.period
            if segments and segments[-1].times == 1 and segments[-1].rows + high - low <= alone:
                low = segments.pop().start
            segments += [_Segment(row, min(alone, high - row), 1, 0) for row in range(low, high, alone)]
        return segments

    def list_axis(self, segments: list[_Segment], axis: int, before: int = 0) -> _ListedAxis:
        """List rows of an axis, which has `before` nonzeros before them."""
        ranges = tuple((segment.start, segment.start + segment.rows) for segment in segments)
        table, lengths, listed_before = self._tabulate(self.box.axes[axis], self.box.transposed, ranges)
        listed, first = [], 0
        for segment in segments:
            listed.append(_Segment(*segment[:4], first, before))
            end = first + segment.rows
            before += int(listed_before[end] - listed_before[first]) * segment.times
            first = end
        return _ListedAxis(table, lengths, listed_before, listed, before)


def _tabulate(axis: Axis, transposed: bool, ranges: Sequence[Span]) -> tuple[Table, IntArray, IntArray]:
    """List ranges of rows of an axis; return the nonzeros of each row, and those before each row and in all, too."""
    rows = [np.arange(*span, dtype=np.int64) for span in ranges]
    table = axis.table(transposed, np.concatenate(rows) if len(rows) > 1 else rows[0])
    lengths = np.add.reduce(table.inside, axis=0, dtype=np.int64)
    before = np.zeros(lengths.size + 1, np.int64)
    lengths.cumsum(out=before[1:])
    return table, lengths, before


def _list_rows(box: Box, column_strides: list[int], axes: list[_ListedAxis]) -> tuple[Taps, Array, Array]:
    """Return taps, columns and ends of all listed rows, those of the first axis outermost."""
    # Sums of taps are numbered from the number of taps of their axis on.
    numbers = [own.taps + axis.table.starts.size for own, axis in zip(box.axes, axes, strict=True)]
    tap_strides = _strides([box.channels, *numbers])
    bits = (box.channels * column_strides[1]).bit_length()
    integer, outside = _code_integer(bits, tap_strides[0], len(box.axes))
    codes_of_axes = []
    for axis, tap, column in zip(axes, tap_strides[2:], column_strides[2:], strict=True):
        own: Array = axis.table.columns.astype(integer)  # what wraps around is outside
        own *= integer(column)
        own += (axis.table.taps * pack(tap, 0, bits)).astype(integer)
        codes_of_axes.append(own if axis.before[-1] == own.size else np.where(axis.table.inside, own, outside))
    # From the last axis to the first; codes are (nonzeros of a row, listed rows) of the axes so far.
    codes, lengths = codes_of_axes[-1], axes[-1].lengths * box.channels
    for own, axis in zip(codes_of_axes[-2::-1], axes[-2::-1], strict=True):
        lengths = np.multiply.outer(axis.lengths, lengths).ravel()
        codes = (own[:, None, :, None] + codes[:, None]).reshape(-1, lengths.size)
    if box.channels > 1:
        own = np.arange(box.channels, dtype=integer) * integer(pack(tap_strides[1], column_strides[1], bits))
        codes = (own[:, None, None] + codes).reshape(-1, lengths.size)
    flat, ends = codes.T.ravel(), lengths.cumsum(dtype=box.dtype)  # one row of the matrix after the other
    if ends[-1] < flat.size:
        flat = flat.take((flat >= 0).nonzero()[0])
    taps, columns = unpack(flat, bits)
    return taps.astype(np.intp, copy=False), columns.astype(box.dtype, copy=False), ends


# While rows are listed, a tap and a column are one integer, the code of a nonzero:
#
#     31 or 63   …   bits   bits − 1  …  0
#     | sign |   tap   |      column     |
#
# The sum of two codes is the code of both sums, as columns of all axes together stay below 2**bits. So a product of axes is
# one outer sum. For 9 taps and bits = 5: tap 6, column 16 by the first axis is 208; tap 1, column 3 by the last is 35; their
# sum 243 is tap 7, column 19. All codes are below 9·32 = 288. So −288, for what is outside, makes every sum negative.


def pack(tap: int, column: int, bits: int) -> int:
    """Return the code of a tap and a column; n times it is the code of n times both."""
    return (tap << bits) + column


def unpack(codes: Array, bits: int) -> tuple[Array, Array]:
    """Return the taps and the columns of codes that are not negative, whose memory then holds the columns."""
    taps = codes >> bits
    codes &= (1 << bits) - 1
    return taps, codes


def _code_integer(bits: int, taps: int, axes: int) -> tuple[type[np.signedinteger[Any]], Any]:
    """Return the type of codes with columns of `bits` bits and so many taps, and the code of what is outside."""
    above = taps << bits  # all codes; a sum may be this far below zero for each axis
    if above * (axes + 1) >= 1 << 63:
        raise ValueError(
            f"input_shape or kernel must be smaller, as columns and taps are listed as one 64-bit integer, got "
            f"2**{bits} columns and {taps} taps for each row"
        )
    integer = np.int32 if above * (axes + 1) < 1 << 31 else np.int64
    return integer, integer(-above)


class _Outer(NamedTuple):
    """One listed row of each of the first axes, and what it says of the rows of the axes after them."""

    listed: int  # how many such combinations are listed before it
    nonzeros: int  # that it has, channels included
    row: int  # of the box, with which its first copy begins
    entry: int
    repeats: tuple[Repeat, ...]


class _Copies:
    """Where listed rows, which end at `ends`, are written in a box."""

    def __init__(self, box: Box, cut: int, axes: list[_ListedAxis], ends: Array) -> None:
        self.box, self.cut, self.axes, self.ends = box, cut, axes, ends
        self.row_strides = _strides([stop - start for start, stop in box.spans])
        self.entry_strides = _strides([axis.total for axis in axes])

    def blocks(self, segment: _Segment, axis: int = 0, outer: _Outer | None = None) -> Iterator[Block]:
        """Yield the blocks of a segment of an axis times the axes after it.

        For a 3 × 3 kernel with padding 1 on 4 × 5 inputs, rows of axis 0 have 2, 3, 3, 2 nonzeros, and rows of axis 1 have
        2, 3, 3, 3, 2, which is 13. Row (1, 2) is row 1·5 + 2 = 7 of the box. Its first entry is 2·13 + 3·(2 + 3) = 41: the
        2 nonzeros before row 1 of axis 0 have 13 entries each, and the 3 of row 1 have 5 each before row 2 of axis 1.
        """
        outer = outer or _Outer(0, self.box.channels, 0, 0, ())
        _, lengths, before, *_ = self.axes[axis]
        # Of the box, for each row of this axis, and for each nonzero of such a row:
        rows, entries = self.row_strides[axis + 1], outer.nonzeros * self.entry_strides[axis + 1]
        first, last = segment.first, segment.first + segment.rows
        row = outer.row + (segment.start - self.box.spans[axis][0]) * rows
        entry = outer.entry + segment.before * entries
        repeats, listed = outer.repeats, outer.listed * lengths.size + first
        if segment.times > 1 or not repeats:  # the first repeat is always that of axis 0
            own = int(before[last] - before[first])
            repeats = (*repeats, Repeat(segment.times, segment.rows * rows, own * entries, segment.shift))
        if axis == self.cut:  # the axes after it are listed whole
            low, high = listed * rows, (listed + segment.rows) * rows
            start, stop = int(self.ends[low - 1]) if low else 0, int(self.ends[high - 1])
            yield Block(slice(low, high), slice(start, stop), row, entry, repeats)
            return
        for n, length in enumerate(lengths[first:last].tolist()):
            one = _Outer(listed + n, outer.nonzeros * length, row, entry, repeats)
            for inner in self.axes[axis + 1].segments:
                yield from self.blocks(inner, axis + 1, one)
            row, entry = row + rows, entry + length * entries


def _grid(repeats: tuple[Repeat, ...], dtype: np.dtype[Any]) -> Grid:
    """Return what the copies of a block add: times 0, 1, 2, … what one repeat adds, summed over the repeats."""
    columns = ends = np.zeros(1, dtype)
    for repeat in reversed(repeats):
        times = np.arange(repeat.times, dtype=dtype).reshape(-1, *(1,) * columns.ndim)
        columns, ends = columns + times * dtype.type(repeat.columns), ends + times * dtype.type(repeat.entries)
    return Grid(columns, ends)


def _strides(sizes: Sequence[int]) -> list[int]:
    """Return the number of positions of an array, then from one to the next on each axis: 24, 12, 4, 1 for 2 × 3 × 4."""
    return [*accumulate(reversed(sizes), mul, initial=1)][::-1]


def _batches(segments: list[_Segment], rows: int) -> list[list[_Segment]]:
    """Group consecutive segments with at most so many listed rows, or one segment."""
    batches: list[list[_Segment]] = []
    total = rows
    for segment in segments:
        if total + segment.rows > rows:
            batches.append([])
            total = 0
        batches[-1].append(segment)
        total += segment.rows
    return batches
