"""Writes the nonzeros of rows of W or Wᵀ, at about the speed at which memory can be filled.

A row of the matrix is a product of one row of each axis, and away from the borders the rows of an axis repeat. So a
block of rows has one pattern of data, indices and row ends: it is listed once, and each next block is that plus a constant.
Axes whose rows are all in the pattern make blocks large; one axis is cut into blocks; those before it repeat them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import copy_context
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convmat.axis import IntArray
from convmat.dtypes import Array
from convmat.geometry import ConvolutionGeometry
from convmat.parallel import run_blocks

Span = tuple[int, int]

_BLOCK = 3072  # entries of a pattern of several rows: its data and indices stay in a 48 KiB first-level cache
_LINE = 1 << 15  # entries of a pattern that spans whole axes: stays in the second-level cache
_TABLE = 1 << 17  # entries that are listed at once; more would take memory to speak of
_CHUNK = 1 << 23  # bytes that are written by all patterns before the next bytes, so that they are still in a cache
_BUFFER = 256  # elements; NumPy buffers operands if several inner loops fit into its default of 8192, which costs 3 x
_SERIAL = 1 << 21  # entries for which another thread is worth waking, which lists the patterns once more


class MatrixRows:
    """W or Wᵀ: its axes, its kernel with the row channels first, and how its rows are counted and written."""

    def __init__(self, geometry: ConvolutionGeometry, kernel: Array, transposed: bool) -> None:
        axes, groups = geometry.axes, geometry.groups
        kernel = kernel.reshape(
            groups, geometry.out_channels // groups, geometry.in_channels // groups, *geometry.spatial_kernel
        )
        if transposed:
            kernel = kernel.swapaxes(1, 2)
        self._kernel = kernel.reshape(-1, *kernel.shape[2:])  # (row channels, column channels of a group, *taps)
        self._group_size = kernel.shape[1]
        self._rows = (len(self._kernel), *(axis.rows(transposed) for axis in axes))
        # Columns between channels, then between positions of each axis.
        self.strides = [1]
        for axis in reversed(axes):
            self.strides.insert(0, self.strides[0] * axis.rows(not transposed))
        self.shape = (prod(self._rows), self._kernel.shape[1] * groups * self.strides[0])
        self.axes, self.transposed = axes, transposed

    def count(self, start: int, stop: int) -> int:
        """Return the number of nonzeros of a range of rows."""
        return sum(self._entries(box) for box in _boxes(start, stop, self._rows))

    def write(self, start: int, stop: int, data: Array, indices: Array, ends: Array, workers: int = 1) -> None:
        """Write a range of rows.

        Parameters
        ----------
        start, stop : int
            The range.
        data, indices : array
            Contiguous, of the range's number of nonzeros, and of the kernel's and of an integer dtype.
        ends : array
            Contiguous, of the indices' dtype: where each row's entries end.
        workers : int
            Number of threads.
        """

        def write_large_block(first: int, last: int) -> None:
            np.setbufsize(_BUFFER)
            write_block(first, last)

        def write_block(first: int, last: int) -> None:
            begin = self.count(start, first) if first > start else 0
            boxes = list(_boxes(first, last, self._rows))
            for box in boxes:
                row, rows = first - start, prod(high - low for low, high in box)
                end = data.size if last == stop and box is boxes[-1] else begin + self._entries(box)
                self._write_box(box, data[begin:end], indices[begin:end], ends[row : row + rows], begin)
                first, begin = first + rows, end

        if data.size < _TABLE:
            write_block(start, stop)
            return
        pieces = min(workers, data.size // _SERIAL, stop - start)
        line = self._rows[-1] if self._rows[-1] * 4 * pieces <= stop - start else 1  # whole lines if they are short
        cuts = {(start + (stop - start) * piece // pieces) // line * line for piece in range(1, pieces)}
        blocks = list(pairwise(sorted({start, stop, *(cut for cut in cuts if start < cut)})))
        copy_context().run(run_blocks, write_large_block, blocks, workers)

    def _entries(self, box: tuple[Span, ...]) -> int:
        """Return the number of nonzeros of a box: a range of channels, and a range of rows of each axis."""
        (first, last), *spans = box
        counts = (axis.count(self.transposed, *span) for axis, span in zip(self.axes, spans, strict=True))
        return (last - first) * int(self._kernel.shape[1]) * prod(counts)

    def _write_box(self, box: tuple[Span, ...], data: Array, indices: Array, ends: Array, begin: int) -> None:
        """Write the rows of a box into contiguous arrays; `begin` is the number of entries before it."""
        if not data.size:
            ends[...] = begin
            return
        (first, last), *spans = box
        shape = last - first, -1
        channel = np.arange(first, last, dtype=indices.dtype)
        column = channel // self._group_size * (self._kernel.shape[1] * self.strides[0])
        target = _Block(data.reshape(shape), indices.reshape(shape), ends.reshape(shape))
        end = np.arange(begin, begin + data.size, target.data.shape[1], dtype=ends.dtype)
        _Writer(self, spans, self._kernel[first:last], target, column, end)


class _Part(NamedTuple):
    """Consecutive rows of an axis: the first ones are listed, and the others repeat them."""

    start: int
    rows: int
    times: int
    shift: int  # of the columns in the matrix, from one to the next


class _List(NamedTuple):
    """The listed rows of one axis, each nonzero as one number: its tap in the high bits, its column in the low ones."""

    codes: IntArray  # (most, rows)
    inside: npt.NDArray[np.bool_]  # (most, rows): where there is a nonzero
    lengths: IntArray  # (rows,): number of nonzeros
    before: IntArray  # (rows + 1,): nonzeros listed before each row
    parts: list[tuple[_Part, int, int]]  # with the listed rows and all nonzeros of the axis before them
    total: int  # nonzeros of the axis in all parts, listed or not


class _Block(NamedTuple):
    """Consecutive rows for several row channels. In a pattern, indices and ends are what all channels have in common."""

    data: Array  # (channels, entries)
    indices: Array  # (channels, entries)
    ends: Array  # (channels, rows)


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


class _Step(NamedTuple):
    """A pattern, and views (channels, *repeats, entries or rows) of the places that it is written to."""

    data: tuple[Array, Array]
    indices: tuple[Array, Array, Array]
    ends: tuple[Array, Array, Array]

    @property
    def nbytes(self) -> int:
        """The bytes that it writes for a channel and one of the first repeats."""
        return sum(views[0][0, 0].nbytes for views in self)

    def write(self, channels: slice, repeats: slice) -> None:
        """Write it for a range of the channels and a range of the first repeats."""
        out, pattern = self.data
        out[channels, repeats] = pattern[channels]
        for out, base, pattern in (self.indices, self.ends):
            np.add(base[channels, repeats], pattern, out=out[channels, repeats])


class _Writer:
    """Writes a box of rows: channels times a span of each axis."""

    def __init__(
        self, matrix: MatrixRows, spans: list[Span], kernel: Array, target: _Block, column: Array, end: Array
    ) -> None:
        self.axes, self.transposed, self.strides = matrix.axes, matrix.transposed, matrix.strides
        self.bits = matrix.shape[1].bit_length()
        self.spans, self.sizes = spans, [stop - start for start, stop in spans]
        self.target, self.column, self.end = target, column, end
        # The last axes are listed whole, as far as a pattern can span them; the one before is cut into blocks.
        entries, cut = kernel.shape[1] * prod(axis.most(self.transposed) for axis in self.axes), len(spans) - 1
        while cut and entries * self.sizes[cut] <= _LINE:
            entries, cut = entries * self.sizes[cut], cut - 1
        whole = not cut and entries * self.sizes[0] <= _LINE
        self.cut, self.room = (
            cut,
            (self.sizes[0], 0) if whole else (max(1, _BLOCK // entries), max(1, _LINE // entries)),
        )
        self.write(kernel)

    def write(self, kernel: Array) -> None:
        """List the rows that others follow from, so many at once as take little memory, and write everything from them."""
        lists: list[_List] = []
        for axis in range(len(self.axes) - 1, 0, -1):
            listed, kernel = self.list_axis(axis, self.parts(axis), kernel)
            lists.insert(0, listed)
        self.entries_after = [prod(listed.total for listed in lists[axis:]) for axis in range(len(self.axes))]
        self.rows_after = [prod(self.sizes[axis + 1 :]) for axis in range(len(self.axes))]
        most = kernel.shape[1] * self.axes[0].most(self.transposed) * prod(listed.codes.size for listed in lists)
        before, groups, nbytes = 0, [], 0
        for parts in _batches(self.parts(0), max(1, _TABLE // most)):
            first, extended = self.list_axis(0, parts, kernel, before)
            before = first.total
            self.lists = [first, *lists]
            self.pattern = self.list_rows(extended)
            if self.pattern.ends.size == self.target.ends.shape[1]:  # nothing repeats
                self.target.data[...], indices, ends = self.pattern
                np.add(self.column[:, None], indices, out=self.target.indices)
                np.add(self.end[:, None], ends, out=self.target.ends)
                return
            self.starts = np.concatenate([[0], self.pattern.ends])
            groups += [list(self.steps_of(0, placed, 0, kernel.shape[1], _Place())) for placed in first.parts]
            nbytes += self.pattern.data.nbytes
            if nbytes > self.target.data.nbytes // 16:
                _write_groups(groups)
                groups, nbytes = [], 0
        _write_groups(groups)

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

    def list_axis(self, axis: int, parts: list[_Part], kernel: Array, entries: int = 0) -> tuple[_List, Array]:
        """List rows of an axis; return the kernel with the sums of taps that they need, too."""
        ranges = [np.arange(part.start, part.start + part.rows, dtype=np.int64) for part in parts]
        rows = np.concatenate(ranges) if len(ranges) > 1 else ranges[0]
        table = self.axes[axis].table(self.transposed, rows)
        if table.starts.size:
            sums = np.add.reduceat(kernel.take(table.merged, axis + 2), table.starts, axis + 2, dtype=kernel.dtype)
            kernel = np.concatenate([kernel, sums], axis + 2)
        codes = table.columns * self.strides[axis + 1] + table.taps * (prod(kernel.shape[axis + 3 :]) << self.bits)
        before = np.zeros(rows.size + 1, np.int64)
        lengths = np.add.reduce(table.inside, axis=0, dtype=np.int64)
        lengths.cumsum(out=before[1:])
        placed, listed = [], 0
        for part in parts:
            placed.append((part, listed, entries))
            block = int(before[listed + part.rows] - before[listed])
            listed, entries = listed + part.rows, entries + block * part.times
        return _List(codes, table.inside, lengths, before, placed, entries), kernel

    def list_rows(self, kernel: Array) -> _Block:
        """Return the pattern of all listed rows, the first axis' outermost."""
        inner, taps = kernel.shape[1], prod(kernel.shape[2:])
        above = inner * taps << self.bits  # all codes
        if above * (len(self.axes) + 1) >= 1 << 63:
            raise ValueError(f"kernel must have fewer taps for 2**{self.bits} columns, got {inner * taps} for each row")
        integer = np.int32 if above * (len(self.axes) + 1) < 1 << 31 else np.int64
        channels = np.arange(inner, dtype=integer) * (self.strides[0] + (taps << self.bits))
        codes, lengths, complete = np.zeros((1, 1), integer), np.full(1, inner), True
        for axis in reversed(self.lists):
            own = axis.codes.astype(integer)
            if int(axis.before[-1]) < own.size:
                own[~axis.inside] = -above  # so that every sum with it is negative
                complete = False
            lengths = (axis.lengths[:, None] * lengths).ravel()
            codes = (own[:, None, :, None] + codes[:, None]).reshape(-1, lengths.size)
        if inner > 1:
            codes = (channels[:, None, None] + codes).reshape(-1, lengths.size)
        flat = codes.T.ravel()
        if not complete:
            flat = flat.take((flat >= 0).nonzero()[0])
        data = kernel.reshape(len(kernel), -1).take(flat >> self.bits, axis=1)
        flat &= (1 << self.bits) - 1
        indices = flat.astype(self.target.indices.dtype, copy=False)
        return _Block(data, indices, lengths.cumsum(dtype=self.target.ends.dtype))

    def steps_of(
        self, axis: int, placed: tuple[_Part, int, int], listed: int, width: int, place: _Place
    ) -> Iterator[_Step]:
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
            yield self.step(slice(listed * rows_after, (listed + part.rows) * rows_after), place)
            return
        for row in range(part.rows):
            entries = int(own[first + row + 1] - own[first + row])
            for inner in self.lists[axis + 1].parts:
                yield from self.steps_of(axis + 1, inner, listed + row, width // after * entries, place)
            place = place.moved(rows_after, entries * width)

    def step(self, rows: slice, place: _Place) -> _Step:
        """Return the step that writes listed rows at a place."""
        begin, end = int(self.starts[rows.start]), int(self.starts[rows.stop])
        counts, row_steps, entry_steps, column_steps = zip(*place.repeats, strict=True)
        ones = (1,) * len(counts)
        data, indices, ends = self.pattern
        return _Step(
            (
                _window(self.target.data, place.entry, end - begin, counts, entry_steps),
                data[:, begin:end].reshape(len(data), *ones, end - begin),
            ),
            (
                _window(self.target.indices, place.entry, end - begin, counts, entry_steps),
                _bases(self.column, 0, counts, column_steps),
                indices[begin:end],
            ),
            (
                _window(self.target.ends, place.row, rows.stop - rows.start, counts, row_steps),
                _bases(self.end, place.entry - begin, counts, entry_steps),
                ends[rows],
            ),
        )


def _write_groups(groups: list[list[_Step]]) -> None:
    """Write groups of steps with the same repeats of the first axis, as much of memory as a cache holds after the other."""
    sizes = [(steps[0].data[0].shape[:2], sum(step.nbytes for step in steps)) for steps in groups]
    total = sum(count * nbytes for (_, count), nbytes in sizes)
    channels = sizes[0][0][0] if sizes else 0
    some = max(1, _CHUNK // max(total, 1))
    for channel in range(0, channels, some):
        for steps, ((_, count), nbytes) in zip(groups, sizes, strict=True):
            repeats = count if len(steps) == 1 else max(1, _CHUNK // nbytes)
            for repeat in range(0, count, repeats):
                for step in steps:
                    step.write(slice(channel, channel + some), slice(repeat, repeat + repeats))


def _batches(parts: list[_Part], rows: int) -> Iterator[list[_Part]]:
    """Group consecutive parts with at most so many listed rows, or one part."""
    batch: list[_Part] = []
    for part in parts:
        if batch and sum(other.rows for other in batch) + part.rows > rows:
            yield batch
            batch = []
        batch.append(part)
    yield batch


def _window(array: Array, start: int, size: int, counts: tuple[int, ...], steps: tuple[int, ...]) -> Array:
    """Return a view (channels, *counts, size) of a contiguous array (channels, entries or rows)."""
    item = array.itemsize
    strides = (array.strides[0], *(step * item for step in steps), item)
    return np.ndarray((len(array), *counts, size), array.dtype, array, start * item, strides)


def _bases(first: Array, start: int, counts: tuple[int, ...], steps: tuple[int, ...]) -> Array:
    """Return an array (channels, *counts, 1) of what is added at each place."""
    bases = first + first.dtype.type(start) if start else first
    for count, step in zip(counts, steps, strict=True):
        bases = bases[..., None] + np.arange(count, dtype=first.dtype) * first.dtype.type(step)
    return bases[..., None]


def _boxes(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[Span, ...]]:
    """Cut a range of the C-order positions of an array into products of ranges, in order."""
    if start >= stop:
        return
    if len(shape) == 1:
        yield ((start, stop),)
        return
    inner = prod(shape[1:])
    head, tail = -(-start // inner), stop // inner
    if head > tail:  # all within one index of the first dimension
        for box in _boxes(start - tail * inner, stop - tail * inner, shape[1:]):
            yield ((tail, tail + 1), *box)
        return
    for box in _boxes(start - (head - 1) * inner, inner, shape[1:]) if start < head * inner else ():
        yield ((head - 1, head), *box)
    if head < tail:
        yield ((head, tail), *((0, size) for size in shape[1:]))
    for box in _boxes(0, stop - tail * inner, shape[1:]):
        yield ((tail, tail + 1), *box)
