"""How many diagonals a matrix has, and how far they reach, before it is built: what the format DIA stores.

A nonzero of W lies on diagonal column − row, which is a sum over the channels and the axes. Through one tap, the outputs of
an axis lie on diagonals that are evenly spaced, often all on one. So an axis has a set of them, the matrix has their sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from convmat.geometry import Axis, Border, ConvolutionGeometry, IntArray

Span = tuple[int, int]

_LISTED = 1 << 20  # diagonals that are listed one by one; more are bounded


class Diagonals(NamedTuple):
    """Diagonals, listed or bounded.

    Attributes
    ----------
    size : int
        How many there are; at most, where they are not listed.
    low, high : int
        The first and the last.
    column : int
        The last column that has something on them.
    listed : int64 array or None
        Each once; None if they are too many.
    """

    size: int
    low: int
    high: int
    column: int
    listed: IntArray | None

    @classmethod
    def of(cls, starts: IntArray, steps: IntArray, counts: IntArray, column: int) -> Diagonals:
        """Return those of some progressions, each of one diagonal at least."""
        counts = np.where(steps == 0, 1, counts)
        total, ends = int(counts.sum()), starts + steps * (counts - 1)
        low, high = int(min(starts.min(), ends.min())), int(max(starts.max(), ends.max()))
        if total > _LISTED:
            return cls(min(total, high - low + 1), low, high, column, None)
        nth = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        listed = np.unique(np.repeat(starts, counts) + np.repeat(steps, counts) * nth)
        return cls(len(listed), low, high, column, listed)

    def plus(self, other: Diagonals) -> Diagonals:
        """Return the sums of these and others, as of two axes."""
        low, high, column = self.low + other.low, self.high + other.high, self.column + other.column
        if self.listed is None or other.listed is None or self.size * other.size > _LISTED:
            return Diagonals(min(self.size * other.size, high - low + 1), low, high, column, None)
        listed = np.unique(np.add.outer(self.listed, other.listed))
        return Diagonals(len(listed), low, high, column, listed)


def count_diagonals(
    geometry: ConvolutionGeometry, transposed: bool, boxes: Iterable[tuple[Span, ...]]
) -> tuple[int, int]:
    """Return how many diagonals some rows of W or Wᵀ have, or a few more, and how many columns to the last one used.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution.
    transposed : bool
        Whether the matrix is Wᵀ.
    boxes : iterable of tuple of (int, int)
        The rows, as ranges of channels and of rows of each axis.
    """
    parts = [part for box in boxes if (part := _of_box(geometry, transposed, box))]
    if not parts:
        return 0, 0
    columns = max(part.column for part in parts) + 1
    if all(part.listed is not None for part in parts):
        return len(np.unique(np.concatenate([part.listed for part in parts if part.listed is not None]))), columns
    span = max(part.high for part in parts) - min(part.low for part in parts) + 1
    return min(sum(part.size for part in parts), span), columns


def _of_box(geometry: ConvolutionGeometry, transposed: bool, box: tuple[Span, ...]) -> Diagonals | None:
    """Return the diagonals of rows that are a product of ranges, counted from the first row of the matrix."""
    (first, last), *spans = box
    rows = [prod(axis.rows(transposed) for axis in geometry.axes[n:]) for n in range(len(spans) + 1)]
    columns = [prod(axis.rows(not transposed) for axis in geometry.axes[n:]) for n in range(len(spans) + 1)]
    channels = np.arange(first, last, dtype=np.int64)
    outer, inner = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
    if transposed:
        outer, inner = inner, outer
    begins = channels // outer * inner
    starts = begins * columns[0] - channels * rows[0]
    steps = np.full_like(starts, columns[0])
    total = Diagonals.of(starts, steps, np.full_like(starts, inner), (int(begins[-1]) + inner - 1) * columns[0])
    for axis, span, row, column in zip(geometry.axes, spans, rows[1:], columns[1:], strict=True):
        own = _of_axis(axis, transposed, span, row, column)
        if own is None:
            return None
        total = total.plus(own)
    return total


def _of_axis(axis: Axis, transposed: bool, span: Span, row: int, column: int) -> Diagonals | None:
    """Return the diagonals of rows of an axis, whose rows and columns are so far apart in the matrix; None if nothing."""
    outputs, sources = ((0, axis.outputs), span) if transposed else (span, (0, axis.size))
    pieces = list(_readings(axis, outputs, sources))
    first, last, source, step = (
        map(np.concatenate, zip(*pieces, strict=True)) if pieces else [np.zeros(0, np.int64)] * 4
    )
    there = first < last
    if not there.any():
        return None
    first, last, source, step = first[there], last[there], source[there], step[there]
    source += first * step
    if transposed:
        farthest = int(last.max() - 1) * column
        return Diagonals.of(first * column - source * row, column - step * row, last - first, farthest)
    farthest = int(np.maximum(source, source + (last - 1 - first) * step).max()) * column
    return Diagonals.of(source * column - first * row, step * column - row, last - first, farthest)


def _readings(axis: Axis, outputs: Span, sources: Span) -> Iterator[tuple[IntArray, IntArray, IntArray, IntArray]]:
    """Yield, for some taps, from which output to which one they read the sources, and that output o reads first + o·step."""
    taps = np.arange(axis.taps, dtype=np.int64) * axis.dilation - axis.before
    for sign, offset, low, high in axis.images:
        low, high = max(low, sources[0]), min(high, sources[1])
        if low >= high:
            continue
        least, most = sorted((sign * low + offset, sign * (high - 1) + offset))
        first = np.maximum(outputs[0], -((taps - least) // axis.stride))
        last = np.minimum(outputs[1], (most - taps) // axis.stride + 1)
        yield first, last, sign * (taps - offset), np.full_like(taps, sign * axis.stride)
    if axis.border is Border.EDGE:
        ends = np.array([source for source in {0, axis.size - 1} if sources[0] <= source < sources[1]], np.int64)
        readers = np.array([axis.readers(int(end)) for end in ends], np.int64).reshape(-1, 2)
        first, last = np.clip(readers, *outputs).T
        yield first, last, ends, np.zeros_like(ends)
