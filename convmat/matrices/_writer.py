"""Writes the nonzeros of rows of W or Wᵀ, from their pattern and a kernel, at about the speed of filling memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import copy_context
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convmat._runtime import run_blocks
from convmat.geometry import Array, Border, ConvolutionGeometry
from convmat.matrices._diagonals import count_diagonals
from convmat.matrices._pattern import Block, Box, Pattern, Span, patterns

_CHUNK = 1 << 23  # bytes that are written by all patterns before the next bytes, so that they are still in a cache
_BUFFER = 256  # elements; NumPy buffers operands if several inner loops fit into its default of 8192, which costs 3 x
_SMALL = 1 << 17  # entries that need none of this
_EXTENT = 1 << 62  # of matrices whose diagonals have numbers of 64 bits
_SOON = 1 << 26  # entries that are written in a part of a second
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
        self._column_channels = int(self._kernel.shape[1])  # of a group
        self._group_columns = self._column_channels * prod(axis.rows(not transposed) for axis in axes)
        self.shape = (prod(self._rows), groups * self._group_columns)
        self._geometry, self._axes, self._transposed = geometry, axes, transposed

    def count(self, start: int, stop: int) -> int:
        """Return the number of nonzeros of a range of rows."""
        if stop - start == self.shape[0]:
            return len(self._kernel) * self._column_channels * prod(axis.entries for axis in self._axes)
        return sum(self._entries(box) for box in _boxes(start, stop, self._rows))

    def count_diagonals(self, start: int, stop: int) -> tuple[int, int]:
        """Return how many diagonals a range of rows has, and the number of columns up to the last one used."""
        if max(self.shape) >= _EXTENT:
            return min(self.count(start, stop), sum(self.shape)), self.shape[1]
        return count_diagonals(self._geometry, self._transposed, _boxes(start, stop, self._rows))

    def check_sums(self, start: int, stop: int) -> None:
        """Raise for a range of rows with a sum of taps that the kernel's dtype, of integers, does not hold."""
        dtype, mode = self._kernel.dtype, self._axes[0].mode
        if dtype.kind not in "iu" or self._axes[0].border is Border.NOTHING:
            return
        limits = np.iinfo(dtype)
        taps = prod(self._kernel.shape[2:])
        least, most = (int(extreme.reduce(self._kernel, axis=None)) for extreme in (np.minimum, np.maximum))
        if limits.min <= taps * least and taps * most <= limits.max:
            return
        kernel = self._kernel.astype(np.int64 if dtype.itemsize < 8 else object)  # Python's integers are exact
        low, high = 0, 0
        for box in _boxes(start, stop, self._rows):
            (first, last), *spans = box
            # Indices of 8 bytes hold any column, and the pattern is the writer's but for them.
            for pattern in self._patterns(spans, np.dtype(np.int64)):
                values = _with_sums(kernel[first:last], pattern)[:, np.unique(pattern.taps)]
                low, high = min(low, int(values.min(initial=0))), max(high, int(values.max(initial=0)))
        if limits.min <= low and high <= limits.max:
            return
        names = (f"{'u' if dtype.kind == 'u' else ''}int{bits}" for bits in (16, 32, 64))
        wide = next((name for name in names if np.iinfo(name).min <= low and high <= np.iinfo(name).max), "float64")
        raise ValueError(
            f"kernel must be of a dtype that holds the sums of taps which padding_mode={mode!r} merges, got {dtype.name} "
            f"and a sum of {high if high > limits.max else low}; cast it to {wide}"
        )

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
            # In a context of its own, so that no interrupt leaves the size as it is here.
            context = copy_context()
            context.run(np.setbufsize, _BUFFER)
            context.run(write_block, first, last)

        def write_block(first: int, last: int) -> None:
            begin = self.count(start, first) if first > start else 0
            boxes = list(_boxes(first, last, self._rows))
            for box in boxes:
                row, rows = first - start, prod(high - low for low, high in box)
                end = data.size if last == stop and box is boxes[-1] else begin + self._entries(box)
                self._write_box(box, data[begin:end], indices[begin:end], ends[row : row + rows], begin)
                first, begin = first + rows, end

        if data.size < _SMALL:
            write_block(start, stop)
            return
        # An interrupt waits for the end of the blocks that are being written.
        count = max(min(workers, data.size // _SERIAL), -(-data.size // (_SOON * workers)) * workers)
        count = max(1, min(count, stop - start))
        line = self._rows[-1] if self._rows[-1] * 4 * count <= stop - start else 1  # whole lines if they are short
        cuts = {(start + (stop - start) * n // count) // line * line for n in range(1, count)}
        blocks = list(pairwise(sorted({start, stop, *(cut for cut in cuts if start < cut)})))
        run_blocks(write_large_block, blocks, workers)

    def _entries(self, box: tuple[Span, ...]) -> int:
        """Return the number of nonzeros of a box: a range of channels, and a range of rows of each axis."""
        (first, last), *spans = box
        counts = (axis.count(self._transposed, *span) for axis, span in zip(self._axes, spans, strict=True))
        return (last - first) * self._column_channels * prod(counts)

    def _patterns(self, spans: Iterable[Span], dtype: np.dtype[Any]) -> Iterator[Pattern]:
        """Yield the patterns of a range of rows of each axis, with indices of a dtype."""
        return patterns(Box(self._axes, self._transposed, tuple(spans), self._column_channels, dtype))

    def _write_box(self, box: tuple[Span, ...], data: Array, indices: Array, ends: Array, begin: int) -> None:
        """Write the rows of a box into contiguous arrays; `begin` is the number of entries before it."""
        if not data.size:
            ends[...] = begin
            return
        (first, last), *spans = box
        shape, index = (last - first, -1), indices.dtype
        data, indices, ends = data.reshape(shape), indices.reshape(shape), ends.reshape(shape)
        column = np.arange(first, last, dtype=index) // self._group_size * index.type(self._group_columns)
        end = np.arange(begin, begin + data.size, data.shape[1], dtype=index)
        target, kernel = _Target(data, indices, ends, column, end), self._kernel[first:last]
        for pattern in self._patterns(spans, index):
            values = _with_sums(kernel, pattern)
            if pattern.groups:
                _write_groups(target.views(pattern, values.take(pattern.taps, axis=1)))
            else:  # everything is listed
                values.take(pattern.taps, axis=1, out=data, mode="clip")
                np.add(column[:, None], pattern.columns, out=indices)
                np.add(end[:, None], pattern.ends, out=ends)


class _Views(NamedTuple):
    """A block, and views (channels, *times of its repeats, entries or rows) of what its copies are written to."""

    data: tuple[Array, Array]  # view, values of the block
    indices: tuple[Array, Array, Array]  # view, what each channel and copy adds, columns of the block
    ends: tuple[Array, Array, Array]  # view, what each channel and copy adds, ends of the block

    @property
    def nbytes(self) -> int:
        """The bytes that are written for a channel and one of the first repeat."""
        return sum(views[0][0, 0].nbytes for views in self)

    def write(self, channels: slice, copies: slice) -> None:
        """Write for a range of the channels and a range of the first repeat."""
        out, block = self.data
        out[channels, copies] = block[channels]
        for out, base, block in (self.indices, self.ends):
            np.add(base[channels, copies], block, out=out[channels, copies])


class _Target(NamedTuple):
    """The rows of a box, for several row channels, and what each channel adds to indices and ends."""

    data: Array  # (channels, entries)
    indices: Array  # (channels, entries)
    ends: Array  # (channels, rows)
    column: Array  # (channels,)
    end: Array  # (channels,)

    def views(self, pattern: Pattern, values: Array) -> list[list[_Views]]:
        """Return the views of each group of a pattern's blocks; `values` (channels, entries) is the pattern's data."""
        added = {}  # to columns and ends, by each channel and copy
        for repeats, grid in pattern.grids.items():
            channels = (-1, *(1,) * grid.columns.ndim)
            added[repeats] = self.column.reshape(channels) + grid.columns, self.end.reshape(channels) + grid.ends
        return [
            [self.view(pattern, values, block, *added[block.repeats]) for block in blocks] for blocks in pattern.groups
        ]

    def view(self, pattern: Pattern, values: Array, block: Block, columns: Array, ends: Array) -> _Views:
        """Return the views of a block; each channel and copy adds `columns` to its columns and `ends` to its ends."""
        times, rows, entries, _ = zip(*block.repeats, strict=True)
        own_values, own_columns, own_ends = (
            values[:, block.entries],
            pattern.columns[block.entries],
            pattern.ends[block.rows],
        )
        data = _window(self.data, block.entry, own_columns.size, times, entries)
        indices = _window(self.indices, block.entry, own_columns.size, times, entries)
        return _Views(
            (data, own_values.reshape(len(values), *(1,) * len(times), -1)),
            (indices, columns, own_columns),
            (
                _window(self.ends, block.row, own_ends.size, times, rows),
                ends,
                own_ends + own_ends.dtype.type(block.entry - block.entries.start),  # so that they count from the box
            ),
        )


def _with_sums(kernel: Array, pattern: Pattern) -> Array:
    """Return the values that a pattern's taps index for each row channel: the kernel's, and sums of them."""
    for axis, merged, starts in pattern.sums:
        # In double precision: with long borders these are sums of many terms.
        wide = kernel.dtype if kernel.dtype.kind in "iuO" else np.result_type(kernel.dtype, np.float64)
        sums = np.add.reduceat(kernel.take(merged, axis + 2), starts, axis + 2, dtype=wide).astype(kernel.dtype)
        kernel = np.concatenate([kernel, sums], axis + 2)
    return kernel.reshape(len(kernel), -1)


def _write_groups(groups: list[list[_Views]]) -> None:
    """Write groups of views with the same first repeat, as much of memory as a cache holds after the other."""
    sizes = [(views[0].data[0].shape[1], sum(view.nbytes for view in views)) for views in groups]
    channels = max(1, _CHUNK // max(1, sum(count * nbytes for count, nbytes in sizes)))
    for channel in range(0, len(groups[0][0].data[0]), channels):
        for views, (count, nbytes) in zip(groups, sizes, strict=True):
            copies = count if len(views) == 1 else max(1, _CHUNK // max(1, nbytes))
            for copy in range(0, count, copies):
                for view in views:
                    view.write(slice(channel, channel + channels), slice(copy, copy + copies))


def _window(array: Array, start: int, size: int, times: tuple[int, ...], steps: tuple[int, ...]) -> Array:
    """Return a view (channels, *times, size) of a contiguous array (channels, entries or rows)."""
    item = array.itemsize
    strides = (array.strides[0], *(step * item for step in steps), item)
    return np.ndarray((len(array), *times, size), array.dtype, array, start * item, strides)


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
