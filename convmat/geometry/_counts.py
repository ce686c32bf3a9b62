"""How many nonzeros an axis has, in closed form and exactly: lattice points under a line, counted by Euclid's algorithm.

Outputs read positions o·stride − before + t·dilation, so the pairs (o, t) that read a range of positions are the lattice
points between two parallel lines. Padding modes that fold show a source at several positions: pairs of an output and a
source that meet at two or three of them are counted by inclusion and exclusion.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple, Self, assert_never

from convmat.geometry._modes import MODES, Border
from convmat.geometry._relation import Relation

Span = tuple[int, int]


class _Lattice(NamedTuple):
    """The positions ``origin + j·stride + t·dilation`` of some outputs j, evenly spaced, through all taps t."""

    origin: int
    stride: int
    outputs: int
    dilation: int
    taps: int

    @classmethod
    def of(cls, axis: Relation, outputs: Span) -> Self:
        """Return the positions that a range of an axis' outputs reads."""
        first, last = outputs
        return cls(first * axis.stride - axis.before, axis.stride, last - first, axis.dilation, axis.taps)

    @property
    def reach(self) -> int:
        """The distance from the first tap to the last."""
        return (self.taps - 1) * self.dilation

    def within(self, low: int, high: int) -> int:
        """Return the number of pairs (j, t) that read positions `low` to `high`."""
        return self._below(high) - self._below(low) if low < high else 0

    def _below(self, limit: int) -> int:
        _, *steps = self
        return pairs_below(limit - self.origin, *steps)

    def centred(self, twice: int) -> Self:
        """Keep the outputs whose positions are symmetric about ``twice / 2``: 2·origin = twice, modulo the dilation."""
        common = gcd(2 * self.stride, self.dilation)
        needed, rest = divmod(twice - 2 * self.origin, common)
        if rest:
            return self._replace(outputs=0)
        period = self.dilation // common
        first = needed * pow(2 * self.stride // common, -1, period) % period
        count = max(0, -((first - self.outputs) // period))
        return self._replace(origin=self.origin + first * self.stride, stride=self.stride * period, outputs=count)

    def mirrored(self, twice: int) -> Self:
        """Return the same positions seen from the other end: position p becomes twice − p."""
        last = self.origin + (self.outputs - 1) * self.stride
        return self._replace(origin=twice - last - self.reach)

    def twice_read(self, edge: int, low: int, high: int) -> int:
        """Return the pairs of an output and a source from `low` to `high` that it reads at r and, mirrored, at −edge − r."""
        centred = self.centred(-edge)
        return centred._mirrored_from(edge, low) - centred._mirrored_from(edge, high) if low < high else 0

    def _mirrored_from(self, edge: int, low: int) -> int:
        """Count sources from `low` on. They end at the mirror image of the first tap, or at the last tap if that is less."""
        turn = -((2 * self.origin + edge + self.reach) // (2 * self.stride))  # from which output on the image is less
        turn = min(max(turn, 0), self.outputs)
        image = 1 - edge - low - (self.origin + turn * self.stride)
        last = 1 - low + self.reach + self.origin + (turn - 1) * self.stride
        return pairs_below(image, self.stride, self.outputs - turn, self.dilation, image) + pairs_below(
            last, self.stride, turn, self.dilation, last
        )


def count_nonzeros(axis: Relation, outputs: Span, sources: Span) -> int:
    """Return the number of nonzeros of an axis' matrix in a range of outputs and a range of sources."""
    positions, (low, high), n = _Lattice.of(axis, outputs), sources, axis.size
    match axis.border:
        case Border.NOTHING:
            return positions.within(low, high)
        case Border.SHIFTED:
            # Taps that are n / gcd(n, dilation) apart read the same.
            distinct = positions._replace(taps=min(axis.taps, n // gcd(n, axis.dilation)))
            return sum(distinct.within(low + shift, high + shift) for shift in (-n, 0, n))
        case Border.EDGE:
            inner = positions.within(max(low, 1), min(high, n - 1))
            return inner + sum(_length(outputs, axis.readers(row)) for row in {0, n - 1} if low <= row < high)
        case Border.MIRRORED:
            return _count_mirrored(positions, n, MODES[axis.mode].edge, sources)
        case _:
            assert_never(axis.border)


def _count_mirrored(positions: _Lattice, n: int, edge: int, sources: Span) -> int:
    """Return the nonzeros where borders mirror the input: those of all images, less what is read in two, and so on."""
    low, high = sources
    far = 2 * (n - 1) + edge  # a position behind the input is far − r, one before it −edge − r
    first, last = max(low, 1 - edge), min(high, n - 1 + edge)  # the edge itself is not mirrored under reflect
    read = positions.within(low, high)
    read += positions.within(1 - edge - high, 1 - edge - first) + positions.within(far + 1 - last, far + 1 - low)
    read -= positions.twice_read(edge, first, high)
    read -= positions.mirrored(n - 1).twice_read(edge, n - last, n - low)
    apart = far + edge  # from an image before the input to that behind it
    if apart % positions.dilation == 0 and first < last:
        both = positions._replace(taps=max(0, positions.taps - apart // positions.dilation))
        # An output that reads both images reads the source between them, too, where it is on its taps.
        images = 1 - edge - last, 1 - edge - first
        read += both.centred(-edge).within(*images) - both.within(*images)
    return read


def count_pairs(axis: Relation) -> int:
    """Return the number of pairs of an output and a tap that read something."""
    if axis.border is not Border.NOTHING:
        return axis.outputs * axis.taps
    return _Lattice.of(axis, (0, axis.outputs)).within(0, axis.size)


def pairs_below(limit: int, stride: int, outputs: int, dilation: int, taps: int) -> int:
    """Return the number of pairs (o, t), o < outputs and t < taps, with o·stride + t·dilation < limit.

    Examples
    --------
    >>> pairs_below(4, 2, 3, 3, 5)  # 0, 3 of output 0 and 2 of output 1
    3
    """
    taps = min(taps, -(-limit // dilation))
    if outputs <= 0 or taps <= 0:
        return 0
    whole = min(taps, max(0, -(((outputs - 1) * stride - limit) // dilation)))  # taps that every output has
    rest = taps - whole
    return whole * outputs + rest + _floor_sum(rest, stride, dilation, limit - 1 - (taps - 1) * dilation)


def _floor_sum(count: int, divisor: int, step: int, start: int) -> int:
    """Return the sum of ⌊(start + i·step) / divisor⌋ for i < count; nothing is negative."""
    total = 0
    while count > 0:
        total += count * (count - 1) // 2 * (step // divisor) + count * (start // divisor)
        step, start = step % divisor, start % divisor
        # What is left is counted by columns instead of rows.
        count, start = divmod(start + count * step, divisor)
        divisor, step = step, divisor
    return total


def _length(span: Span, other: Span) -> int:
    """Return how much two ranges have in common."""
    return max(0, min(span[1], other[1]) - max(span[0], other[0]))
