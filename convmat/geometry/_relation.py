"""Which input position an output reads through which tap, on one axis: integers in closed form.

A border may show the input once more, shifted or mirrored (`convmat.geometry._modes`). A row of the axis' matrix, in either
direction, is then one arithmetic progression of columns and taps for each of these images (:class:`Strands`). Only where
images meet, or a border repeats the edge, do several taps of a row read the same source, and are summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from convmat.geometry._modes import MODES, Border, Image

IntArray = npt.NDArray[np.int64]


class Strands(NamedTuple):
    """The nonzeros of some rows of an axis, as progressions of columns and taps; where two have a column, taps are summed.

    Attributes
    ----------
    counts : int64 array (strands, rows)
        How many nonzeros each progression has.
    columns, taps : int64 array (strands, rows)
        The first of them, by ascending column; from the number of taps on, taps are sums: see `Relation.clamped_sums`.
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
class Relation:
    """The relation source(o, t) = o·stride − before + t·dilation; the padding mode says what is read outside the input.

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
        A padding mode.
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
    def border(self) -> Border:
        """What the padding mode puts into the borders."""
        return MODES[self.mode].border

    def sources(self, outputs: IntArray) -> IntArray:
        """Return the input positions that the given outputs read, one column for each tap; −1 reads nothing."""
        taps = np.arange(self.taps, dtype=np.int64)
        return self.source_at(outputs[:, None] * self.stride - self.before + taps * self.dilation)

    def source_at(self, position: IntArray) -> IntArray:
        """Return the source that the padded input shows at a position, counted from the first source; −1 is none."""
        n = self.size
        match self.border:
            case Border.NOTHING:
                return np.where((position >= 0) & (position < n), position, -1)
            case Border.EDGE:
                return np.clip(position, 0, n - 1)
            case Border.SHIFTED | Border.MIRRORED:
                before, after = MODES[self.mode].images(n)
                source = np.where(position < 0, before.sign * (position - before.offset), position)
                return np.where(position >= n, after.sign * (position - after.offset), source)
            case _:
                assert_never(self.border)

    @property
    def images(self) -> list[Image]:
        """Where the padded input shows sources once each: the input itself, and the images in borders that are read.

        A border that repeats the edge shows no image. There the first and the last source are left out: `clamped` has them.
        """
        if self.border is Border.EDGE:
            return [Image(1, 0, 1, self.size - 1)]
        images = [Image(1, 0, 0, self.size)]
        if borders := MODES[self.mode].images(self.size):
            images += borders[:1] * (self.before > 0) + borders[1:] * (self.overrun > 0)
        return images

    def strands(self, transposed: bool, rows: IntArray) -> Strands:
        """Return the nonzeros of the given rows of the axis' matrix.

        Of a transposed axis whose mode repeats the edge, the first and the last row are left out: `clamped` has them.
        """
        return self._strands_of_sources(rows) if transposed else self._strands_of_outputs(rows)

    def _strands_of_outputs(self, outputs: IntArray) -> Strands:
        """Return what outputs read, a progression for each image.

        Of 4 sources under reflect, 3 taps and padding 1, output 0 reads position −1, which is source 1, through tap 0, and
        sources 0 and 1 through taps 1 and 2. In the image before the input, that is 1 source from tap 0 on; in the input
        itself, 2 sources from tap 1 on.
        """
        sign, offset, first, end = np.array(self.images).T[:, :, None]
        start = outputs * self.stride - self.before  # the position that tap 0 reads
        # Positions that an image covers, and the first and last tap that reads one of them.
        low, high = np.where(sign > 0, first, 1 - end) + offset, np.where(sign > 0, end, 1 - first) + offset
        first_tap = np.maximum(0, -((start - low) // self.dilation))
        last_tap = np.minimum(self.taps - 1, (high - 1 - start) // self.dilation)
        counts = np.maximum(last_tap - first_tap + 1, 0)
        taps = np.where(sign > 0, first_tap, last_tap)  # in a mirrored image the last tap reads the first source
        columns = sign * (start + taps * self.dilation - offset)
        if self.border is Border.EDGE:
            (at_first, first_sum), (at_last, last_sum) = self._clamped(start, False), self._clamped(start, True)
            counts = np.stack([counts[0], at_first > 0, at_last > 0])
            columns = np.stack([columns[0], np.zeros_like(at_first), np.full_like(at_last, self.size - 1)])
            taps, sign = np.stack([taps[0], first_sum, last_sum]), np.ones((3, 1), np.int64)
        return Strands(counts, columns, taps, self.dilation, sign)

    def _strands_of_sources(self, sources: IntArray) -> Strands:
        """Return which outputs read sources, a progression for each image.

        Output o reads position p through tap t where o·stride + t·dilation = p + before. So t is the same modulo
        ``stride / gcd(stride, dilation)`` for all o that read p. With stride 2, dilation 1 and p + before = 4, these are
        t = 4, 2, 0 for o = 0, 1, 2: taps fall by 2 where outputs rise by 1.
        """
        sign, offset, first, end = np.array(self.images).T[:, :, None]
        common = gcd(self.stride, self.dilation)
        tap_step, step = self.stride // common, self.dilation // common
        padded = sign * sources + offset + self.before  # o·stride + t·dilation
        first_tap = np.maximum(0, -(((self.outputs - 1) * self.stride - padded) // self.dilation))
        last_tap = np.minimum(self.taps - 1, padded // self.dilation)
        residue = padded // common % tap_step * pow(step, -1, tap_step) % tap_step
        last_tap -= (last_tap - residue) % tap_step
        first_tap += (residue - first_tap) % tap_step
        counts = (last_tap - first_tap + tap_step) // tap_step
        counts[(padded % common != 0) | (sources < first) | (sources >= end) | (counts < 0)] = 0
        columns = (padded - last_tap * self.dilation) // self.stride  # the last tap belongs to the first output
        return Strands(counts, columns, last_tap, step, np.full_like(sign, -tap_step))

    def empty_rows(self, transposed: bool) -> IntArray:
        """Return the rows of the axis' matrix that have no nonzero: outputs of padding, or sources that are not read."""
        empty = self.strands(transposed, np.arange(self.rows(transposed), dtype=np.int64)).counts.sum(axis=0) == 0
        if transposed and self.border is Border.EDGE:
            for row in (0, self.size - 1):
                first, last = self.readers(row)
                empty[row] = first >= last
        return np.flatnonzero(empty)

    def clamped(self, row: int) -> tuple[IntArray, IntArray]:
        """Return the outputs that read the first or the last source, where the padding mode repeats it, and their taps.

        Taps from their number on are those of `clamped_sums`.
        """
        outputs = np.arange(*self.readers(row), dtype=np.int64)
        return outputs, self._clamped(outputs * self.stride - self.before, row > 0)[1]

    def readers(self, row: int) -> tuple[int, int]:
        """Return the range of outputs that read the first or the last source, where the padding mode repeats it."""
        if self.size == 1:
            return 0, self.outputs
        if not row:
            return 0, min(self.outputs, self.before // self.stride + 1)
        return min(self.outputs, max(0, -((self.reach - self.before - row) // self.stride))), self.outputs

    def clamped_sums(self) -> tuple[IntArray, IntArray]:
        """Return the sums of first taps, then those of last taps, that read a source which is repeated.

        Returns
        -------
        merged, starts : int64 array
            Taps, one sum after the other: 0, 1; 0, 1, 2; and so on; and where each sum begins.
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

    def _edges(self, rows: IntArray) -> npt.NDArray[np.intp]:
        """Return which of the given sources are the first or the last of all."""
        return np.flatnonzero((rows == 0) | (rows == self.size - 1))
