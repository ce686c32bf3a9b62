"""Which input position an output reads through which tap, on one axis: integers in closed form.

A padding mode that folds outside positions back in shows the input once more on either side, shifted or mirrored: a row of
the axis' matrix, in either direction, is a progression for each of these images (:class:`Strands`). Only where they overlap,
or a border holds on to the edge, are taps summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

PADDING_MODES = ("zeros", "circular", "reflect", "symmetric", "replicate")


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

    @property
    def images(self) -> list[tuple[int, int, int, int]]:
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
        sign, offset, low, high = np.array(self.images).T[:, :, None]
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
        residue = position // common % step * pow(self.dilation // common, -1, step) % step
        last -= (last - residue) % step
        counts = (last - (first + (residue - first) % step) + step) // step
        counts[(position % common != 0) | (rows < low) | (rows >= high) | (counts < 0)] = 0
        columns = (position - last * self.dilation) // self.stride
        return Strands(counts, columns, last, self.dilation // common, np.full_like(sign, -step))

    def empty_rows(self, transposed: bool) -> IntArray:
        """Return the rows of the axis' matrix that have no nonzero: outputs of padding, or sources that are not read."""
        empty = self.strands(transposed, np.arange(self.rows(transposed), dtype=np.int64)).counts.sum(axis=0) == 0
        if transposed and self.mode == "replicate":
            for row in (0, self.size - 1):
                first, last = self.readers(row)
                empty[row] = first >= last
        return np.flatnonzero(empty)

    def clamped(self, row: int) -> tuple[IntArray, IntArray]:
        """Return the outputs that read the first or the last source, where the padding mode replicates it, and their taps.

        Taps from their number on are those of `clamped_sums`.
        """
        outputs = np.arange(*self.readers(row), dtype=np.int64)
        return outputs, self._clamped(outputs * self.stride - self.before, row > 0)[1]

    def readers(self, row: int) -> tuple[int, int]:
        """Return the range of outputs that read the first or the last source, where the padding mode replicates it."""
        if self.size == 1:
            return 0, self.outputs
        if not row:
            return 0, min(self.outputs, self.before // self.stride + 1)
        return min(self.outputs, max(0, -((self.reach - self.before - row) // self.stride))), self.outputs

    def clamped_sums(self) -> tuple[IntArray, IntArray]:
        """Return the sums of first taps, then those of last taps, that read a source which is replicated.

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
