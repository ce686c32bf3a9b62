"""One axis of a product of the engine `taps`: which positions of a result read which positions of a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from convmat.geometry import Axis


class Line(NamedTuple):
    """An axis without its padding mode."""

    size: int
    taps: int
    stride: int
    before: int
    dilation: int
    outputs: int


class Kind(NamedTuple):
    """Results on one axis: positions `low` to `high`, result q at ``q·step + first``, one tap for each read, or −1."""

    low: int
    high: int
    first: int
    step: int
    taps: tuple[int, ...]


class Pattern(NamedTuple):
    """Kinds of one axis that read alike.

    At position q, read (phase, delta) is the source at ``(q + delta)·phases + phase − before``.
    """

    reads: tuple[tuple[int, int], ...]
    kinds: tuple[Kind, ...]
    size: int
    phases: int
    before: int

    @property
    def used(self) -> list[int]:
        """The phases that are read: of a long stride, few are."""
        return sorted({phase for phase, _ in self.reads})

    @property
    def low(self) -> int:
        """The first position."""
        return min(kind.low for kind in self.kinds)

    @property
    def positions(self) -> int:
        """The number of positions."""
        return max(kind.high for kind in self.kinds) - self.low

    @property
    def start(self) -> int:
        """The first coordinate of the plane."""
        return self.low + min(delta for _, delta in self.reads)

    @property
    def extent(self) -> int:
        """The number of coordinates of the plane."""
        return self.low + self.positions + max(delta for _, delta in self.reads) - self.start

    def inside(self, phase: int) -> tuple[int, int]:
        """Return the range of plane coordinates, relative to the first, that the source has."""
        low = -((phase - self.before) // self.phases) - self.start
        high = (self.size - 1 + self.before - phase) // self.phases + 1 - self.start
        low = min(max(low, 0), self.extent)
        return low, min(max(high, low), self.extent)

    def without_idle_reads(self) -> Pattern:
        """Drop the reads that meet only padding: a tap far outside must not make the planes as large as its distance."""
        used = []
        for number, (phase, delta) in enumerate(self.reads):
            low = max(self.low, -((phase - self.before) // self.phases) - delta)
            high = min(self.low + self.positions, (self.size - 1 + self.before - phase) // self.phases + 1 - delta)
            if low < high:
                used.append(number)
        kinds = (kind._replace(taps=tuple(kind.taps[number] for number in used)) for kind in self.kinds)
        return self._replace(reads=tuple(self.reads[number] for number in used), kinds=tuple(kinds))


def fold(axes: Sequence[Axis]) -> list[Line]:
    """Return the axes as lines; one that a kernel does not extend over is joined to the axis before it."""
    lines: list[Line] = []
    for axis in reversed(axes):
        line = Line(axis.size, axis.taps, axis.stride, axis.before, axis.dilation, axis.outputs)
        if (
            lines
            and (line.stride == 1 or lines[-1].size == 1)
            and lines[-1] == Line(n := lines[-1].size, 1, 1, 0, lines[-1].dilation, n)
        ):
            lines.pop()
            line = Line(line.size * n, line.taps, line.stride, line.before * n, line.dilation * n, line.outputs * n)
        lines.append(line)
    return lines[::-1]


def patterns(line: Line, transposed: bool) -> list[Pattern]:
    """Return the patterns of one direction of an axis; one without reads stands for results that are 0."""
    size, taps, stride, before, dilation, outputs = line
    if not transposed:
        reads = tuple((tap * dilation % stride, tap * dilation // stride) for tap in range(taps))
        kind = Kind(0, outputs, 0, 1, tuple(range(taps)))
        return [Pattern(reads, (kind,), size, stride, before).without_idle_reads()]
    readers: dict[int, list[int]] = {}
    for tap in reversed(range(taps)):
        readers.setdefault(tap * dilation % stride, []).append(tap)
    alike: dict[tuple[tuple[int, int], ...], list[Kind]] = {}
    for phase, used in sorted(readers.items()):  # of the padded target
        low, high = -((phase - before) // stride), -((phase - before - size) // stride)
        if low < high:
            reads = tuple((0, (phase - tap * dilation) // stride) for tap in used)
            alike.setdefault(reads, []).append(Kind(low, high, phase - before, stride, tuple(used)))
    if sum(map(len, alike.values())) < min(size, stride):  # there are results in other phases, which read nothing
        alike[()] = []
    return [Pattern(reads, tuple(kinds), outputs, 1, 0).without_idle_reads() for reads, kinds in alike.items()]


def banded(pattern: Pattern, most: int) -> Pattern:
    """Return the pattern of several neighbouring results at once, which share what they read, or the pattern itself.

    Only where each phase has at least as many reads as there are rows, one beside the other: then each read belongs to
    row 0, or to rows 0 and 1, …, or to all, or to all but row 0, …, or to the last one, and none has to be multiplied by
    zero for the others, which would turn what is not finite into NaN.
    """
    phases: dict[int, list[int]] = {}
    for phase, delta in pattern.reads:
        phases.setdefault(phase, []).append(delta)
    rows = min(most, pattern.positions, *map(len, phases.values()))
    if rows < 2 or len(pattern.kinds) > 1 or any(max(d) - min(d) >= len(d) for d in phases.values()):
        return pattern
    tap_of = dict(zip(pattern.reads, pattern.kinds[0].taps, strict=True))
    reads = {(phase, delta + row): None for phase, delta in pattern.reads for row in range(rows)}
    kind = pattern.kinds[0]
    kinds = (
        Kind(
            kind.low, kind.high - row, kind.first + row * kind.step, kind.step,
            tuple(tap_of.get((phase, delta - row), -1) for phase, delta in reads),
        )
        for row in range(rows)
    )  # fmt: skip
    return pattern._replace(reads=tuple(reads), kinds=tuple(kinds))
