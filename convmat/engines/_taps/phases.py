"""One axis of a product of the engine `taps`: which results read which inputs, sorted by phase.

A stride s splits an axis into s phases, the polyphase components of signal processing (Vaidyanathan, Multirate Systems and
Filter Banks, 1993, section 4.3): phase r of a padded input has its elements r, r + s, r + 2·s, …. Within a phase the
convolution has stride 1, so that each tap reads a shifted view.

An axis of 7 inputs under 3 taps, with stride 2 and padding 1, has 4 outputs::

    padded input           0  x0 x1 x2 x3 x4 x5 x6 0        V:   y[o]   = K0·x[2o−1] + K1·x[2o] + K2·x[2o+1]
    its phase 0            0     x1    x3    x5    0        Vᵀ:  z[2q]   = K1·y[q]                     phase 1
    its phase 1               x0    x2    x4    x6               z[2q−1] = K2·y[q−1] + K0·y[q]         phase 0

In V, output q reads (phase, delta) = (0, 0), (1, 0) and (0, 1): element q of phase 0, element q of phase 1, and element
q + 1 of phase 0. In Vᵀ, the results of phase 0 read (0, −1) and (0, 0), those of phase 1 read (0, 0): two `Phases`. With a
fourth tap both would read (0, −1) and (0, 0), and be one `Phases` of two classes.
"""

from __future__ import annotations

from typing import NamedTuple

from convmat.geometry import Axis


class ResultClass(NamedTuple):
    """The results at positions `low` to `high` of an axis.

    The one at position q is result ``q·step + first``. `taps` has the tap of each read, or −1 if the class does not use it.
    """

    low: int
    high: int
    first: int
    step: int
    taps: tuple[int, ...]


class Phases(NamedTuple):
    """Classes of results of one axis that have the same reads.

    At position q, read (phase, delta) is the source at ``(q + delta)·stride + phase − before``. The source's elements of one
    phase, at coordinates q + delta, are what a plane has along this axis.
    """

    reads: tuple[tuple[int, int], ...]
    classes: tuple[ResultClass, ...]
    size: int
    stride: int
    before: int

    @property
    def used(self) -> list[int]:
        """The phases that are read: of a long stride, few are."""
        return sorted({phase for phase, _ in self.reads})

    @property
    def low(self) -> int:
        """The first position."""
        return min(results.low for results in self.classes)

    @property
    def positions(self) -> int:
        """The number of positions."""
        return max(results.high for results in self.classes) - self.low

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
        low, high = (coordinate - self.start for coordinate in self._source_range(phase))
        low = min(max(low, 0), self.extent)
        return low, min(max(high, low), self.extent)

    def without_idle_reads(self) -> Phases:
        """Drop the reads that meet only padding: a tap far outside must not make the planes as large as its distance."""
        used = []
        for number, (phase, delta) in enumerate(self.reads):
            low, high = (coordinate - delta for coordinate in self._source_range(phase))
            if max(low, self.low) < min(high, self.low + self.positions):
                used.append(number)
        classes = (results._replace(taps=tuple(results.taps[n] for n in used)) for results in self.classes)
        return self._replace(reads=tuple(self.reads[n] for n in used), classes=tuple(classes))

    def _source_range(self, phase: int) -> tuple[int, int]:
        """Return the coordinates c with 0 ≤ c·stride + phase − before < size, as a range: ⌈low⌉ to ⌈high⌉."""
        return -((phase - self.before) // self.stride), -((phase - self.before - self.size) // self.stride)


def result_phases(axis: Axis, transposed: bool) -> list[Phases]:
    """Return the results of one direction of an axis by what they read; one without reads stands for results that are 0."""
    size, taps, stride, before, dilation, outputs = (
        axis.size, axis.taps, axis.stride, axis.before, axis.dilation, axis.outputs,
    )  # fmt: skip
    if not transposed:  # output q reads q·stride + tap·dilation of the padded input, at each position the same
        reads = tuple((tap * dilation % stride, tap * dilation // stride) for tap in range(taps))
        every = ResultClass(0, outputs, 0, 1, tuple(range(taps)))
        return [Phases(reads, (every,), size, stride, before).without_idle_reads()]
    # Input q·stride + phase of the padded ones is read by output q + delta through the taps with
    # delta·stride + tap·dilation = phase: those whose tap·dilation is of this phase. Falling taps have rising deltas.
    taps_of: dict[int, list[int]] = {}
    for tap in reversed(range(taps)):
        taps_of.setdefault(tap * dilation % stride, []).append(tap)
    alike: dict[tuple[tuple[int, int], ...], list[ResultClass]] = {}
    for phase, used in sorted(taps_of.items()):
        low, high = -((phase - before) // stride), -((phase - before - size) // stride)
        if low < high:
            reads = tuple((0, (phase - tap * dilation) // stride) for tap in used)
            alike.setdefault(reads, []).append(ResultClass(low, high, phase - before, stride, tuple(used)))
    if sum(map(len, alike.values())) < min(size, stride):  # there are results in other phases, which read nothing
        alike[()] = []
    return [Phases(reads, tuple(classes), outputs, 1, 0).without_idle_reads() for reads, classes in alike.items()]


def banded(alone: Phases, most: int) -> Phases:
    """Return the classes of up to `most` neighbouring results at once, which have reads in common, or `alone`, unchanged.

    With 3 taps, results q and q + 1 read together what q reads at 0, 1, 2, 3: class 0 has taps 0 1 2 −, class 1 − 0 1 2.

    Only where each phase has at least as many reads as there are rows, one beside the other: then each read belongs to
    row 0, or to rows 0 and 1, …, or to all, or to all but row 0, …, or to the last one, and none has to be multiplied by
    zero for the others, which would turn what is not finite into NaN.
    """
    deltas: dict[int, list[int]] = {}
    for phase, delta in alone.reads:
        deltas.setdefault(phase, []).append(delta)
    rows = min(most, alone.positions, *map(len, deltas.values()))
    if rows < 2 or len(alone.classes) > 1 or any(max(d) - min(d) >= len(d) for d in deltas.values()):
        return alone
    (first,) = alone.classes
    tap_of = dict(zip(alone.reads, first.taps, strict=True))
    reads = {(phase, delta + row): None for phase, delta in alone.reads for row in range(rows)}
    classes = (
        ResultClass(
            first.low, first.high - row, first.first + row * first.step, first.step,
            tuple(tap_of.get((phase, delta - row), -1) for phase, delta in reads),
        )
        for row in range(rows)
    )  # fmt: skip
    return alone._replace(reads=tuple(reads), classes=tuple(classes))
