"""Where AᴴA + λLᴴL is no convolution: the positions near the borders, and its rows and columns there.

Away from the borders all rows of the matrix are alike. So a short x with the same borders has all rows that there are. The
positions whose rows differ are found on it, axis by axis, and their part of the matrix is copied from its matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, sparse

from convmat._messages import scaled
from convmat._runtime import available_memory, call_single_threaded
from convmat.geometry import Array, Axis, Border, IntArray
from convmat.inverse._system import System

_MOST, _LONGEST = (
    2e10,
    1.0,
)  # flops that a factorisation may take, and seconds that listing rows may: about a second each
_FACTOR, _COPY = 3e10, 1.5e8  # flops a second of a factorisation, and numbers of a band that are filled; round numbers
_MEETING = 6e-6  # seconds for each tap through which a row of a short axis meets others
_MARGIN = 3  # the penalty's differences reach two positions further


class Band(NamedTuple):
    """What a banded factorisation takes, about.

    Attributes
    ----------
    size, width : int
        Number of rows, and of diagonals beside the main one.
    listing : float
        Seconds that listing the rows of the Gram matrix takes.
    """

    size: int
    width: int
    listing: float

    @property
    def flops(self) -> float:
        """The operations of a factorisation."""
        return float(self.size) * self.width**2

    @property
    def nbytes(self) -> float:
        """The bytes of the factor."""
        return 8.0 * self.size * self.width

    @property
    def seconds(self) -> float:
        """The time until it is factored."""
        return self.listing + self.size * self.width / _COPY + self.flops / _FACTOR

    def is_affordable(self) -> bool:
        """Tell whether it takes some seconds at most, and fits into memory."""
        return self.flops <= _MOST and self.listing <= _LONGEST and 3 * self.nbytes <= available_memory()

    def __str__(self) -> str:
        return f"{scaled(self.flops)} operations, {scaled(self.nbytes, 'B')} and {scaled(self.seconds, 's')}"


class _Line(NamedTuple):
    """One axis of x.

    Attributes
    ----------
    axis : Axis
        The same axis with fewer positions in the middle.
    size, removed, period, middle : int
        Positions of x, how many of them the short axis lacks, after how many rows are alike, and where they are left out.
    first, last : int
        How many positions at each end belong to the strip.
    """

    axis: Axis
    size: int
    removed: int
    period: int
    middle: int
    first: int
    last: int

    @property
    def is_apart(self) -> Array:
        """Which positions belong to the strip, (size,)."""
        positions = np.arange(self.size)
        return (positions < self.first) | (positions >= self.size - self.last)

    @property
    def length(self) -> int:
        """The number of positions of the short axis."""
        return self.size - self.removed

    def short(self, positions: IntArray) -> IntArray:
        """Return positions of the short axis with rows like those of given positions."""
        cut = self.middle
        inside = cut + (positions - cut) % self.period
        ends = np.where(positions < cut, positions, positions - self.removed)
        return np.where((positions < cut) | (positions >= cut + self.removed), ends, inside)

    def long(self) -> IntArray:
        """Return for each position of the short axis one with a row like it."""
        short = np.arange(self.length)
        return np.where(short < self.middle, short, short + self.removed)

    def columns(self, offsets: IntArray) -> IntArray:
        """Return how far columns are from their row, given how far they are on the short axis."""
        far = self.length // 2
        return offsets + self.removed * ((offsets > far).astype(np.int64) - (offsets < -far))


def _line(axis: Axis, adjoint: bool, penalised: bool) -> _Line:
    shown = 0 if axis.border is Border.NOTHING else max(axis.before, axis.overrun)
    # Inputs from `bound` to `end` are alike, and as many of them are kept as two rows at both sides of the cut reach. Two
    # outputs that meet in what is shown again may be twice as far apart.
    bound = max(axis.reach, 2 * shown + 1) + _MARGIN
    end = min(axis.size - bound, axis.outputs * axis.stride - axis.before)
    steps = max(0, (end - bound - 2 * (axis.reach + _MARGIN) - 4 * axis.stride) // axis.stride)
    short = replace(axis, size=axis.size - steps * axis.stride, outputs=axis.outputs - steps)
    middle = (bound + end - steps * axis.stride) // 2
    if adjoint:
        middle = (middle + axis.before - axis.reach // 2) // axis.stride
    period, size = 1 if adjoint else axis.stride, axis.rows(not adjoint)
    middle = min(max(middle, 0), short.rows(not adjoint) - 1)
    first, last = (min(max(depth, 2 * penalised), size) for depth in _depths(axis, adjoint))
    return _Line(short, size, size - short.rows(not adjoint), period, middle, first, last)


def _depths(axis: Axis, adjoint: bool) -> tuple[int, int]:
    """Return how many positions at each end have rows unlike those in the middle, or nearly all that such rows do.

    A row of the Gram matrix of W lacks the outputs that would begin before the first, or after the last. Where borders show
    the input again, rows of what they show have more. Rows further inside that meet these differ, too, but little depends
    on it. A row of the other Gram matrix differs where an output reads beyond an end, or reads what is shown there.
    """
    folds = axis.border is not Border.NOTHING
    behind = axis.outputs * axis.stride - axis.before  # from here on, no output begins
    if not adjoint:
        before, after = axis.reach - axis.before, axis.size - behind
        return max(before, axis.before * folds, 0), max(after, axis.overrun * folds, 0)
    copied = (axis.before + 1) * folds, (axis.overrun + 1) * folds
    first = -(-(axis.before + copied[0] * (axis.before > 0)) // axis.stride)
    inside = (axis.size - 1 - axis.reach + axis.before - copied[1] * (axis.overrun > 0)) // axis.stride + 1
    return max(first, 0), max(axis.outputs - inside, 0)


@dataclass(frozen=True)
class Strip:
    """Positions of x, and how they meet: those near its borders, or all.

    Attributes
    ----------
    system : System
        What is solved.
    lines : sequence of _Line
        The axes of x.
    indices : int64 array
        The positions, as indices into flat arrays, in an order in which those that meet are near each other.
    band : Band
        What a factorisation of their part of the matrix takes.
    """

    system: System
    lines: Sequence[_Line]
    indices: IntArray
    band: Band

    @classmethod
    def of(cls, system: System) -> Strip:
        """Return the positions near the borders, where the rows of the matrix differ from those in the middle."""
        lines = [_line(axis, system.adjoint, system.word != "identity") for axis in system.part.axes]
        # In the order of the sums of their coordinates, those of neighbouring sides are neighbours.
        return cls._ordered(system, lines, range(len(lines)))

    @classmethod
    def whole(cls, system: System) -> Strip:
        """Return all positions, with the whole matrix."""
        sizes = system.shape[1:]
        lines = [_Line(axis, size, 0, 1, 0, size, 0) for axis, size in zip(system.part.axes, sizes, strict=True)]
        return cls._ordered(system, lines, [sizes.index(max(sizes))])

    @classmethod
    def _ordered(cls, system: System, lines: list[_Line], by: Sequence[int]) -> Strip:
        """Order positions by the sum of their coordinates on some axes, so that those that meet are near each other."""
        apart = reduce(np.logical_or.outer, (line.is_apart for line in lines))
        places = np.argwhere(apart)
        keys, reach = np.zeros(len(places), np.int64), 0
        for number in by:
            axis, place, size = system.part.axes[number], places[:, number], lines[number].size
            around = axis.border is Border.SHIFTED  # the ends are neighbours: both count from their end
            keys += np.minimum(2 * place, 2 * (size - 1 - place) + 1) if around else 2 * place
            reach += 2 * _reach(axis, system.adjoint)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        channels = system.shape[0]
        width = int((np.searchsorted(keys, keys + reach, "right") - np.arange(len(keys))).max(initial=0)) * channels
        flat = np.ravel_multi_index(tuple(places[order].T), apart.shape)
        indices = (flat[:, None] + np.arange(channels) * apart.size).ravel()
        return cls(system, lines, indices, Band(len(indices), min(width, len(indices)), _listing(system)))

    def parts(self) -> tuple[Any, Any]:
        """Return the strip's parts of AᴴA and of ΣLᵢᴴLᵢ, as (rows, columns, values) of the lower triangles."""
        operator, terms = self.system.shortened([line.axis for line in self.lines])
        gram = self._expanded(operator.gram())
        if self.system.word == "identity":
            diagonal = np.arange(len(self.indices))
            return gram, (diagonal, diagonal, np.ones(len(diagonal)))
        penalty: Any = sum((term.gram() for term in terms), sparse.csr_array((operator.shape[1],) * 2))
        return gram, self._expanded(penalty)

    def _expanded(self, gram: Any) -> tuple[IntArray, IntArray, Array]:
        """Copy the rows of a short matrix to where the strip has rows like them."""
        channels, sizes = self.system.shape[0], [line.size for line in self.lines]
        channel, *places = np.unravel_index(self.indices, (channels, *sizes))
        near = [line.short(place) for line, place in zip(self.lines, places, strict=True)]
        short_sizes = [line.length for line in self.lines]
        rows = np.ravel_multi_index((channel, *near), (channels, *short_sizes))
        # Only those columns that are in the strip.
        apart = reduce(np.logical_or.outer, (line.is_apart[line.long()] for line in self.lines))
        kept = np.flatnonzero(np.tile(apart.ravel(), channels))
        used, number = np.unique(rows, return_inverse=True)
        some = sparse.csr_array(gram)[used][:, kept]
        counts = np.diff(some.indptr)[number]
        own = np.repeat(np.arange(len(rows)), counts)
        entries = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + some.indptr[number][own]
        columns = np.unravel_index(kept[some.indices[entries]], (channels, *short_sizes))
        moved = [columns[0]]
        for line, column, start, place in zip(self.lines, columns[1:], near, places, strict=True):
            moved.append(place[own] + line.columns(column - start[own]))
        order = np.full(channels * prod(sizes), -1)
        order[self.indices] = np.arange(len(self.indices))
        targets = order[np.ravel_multi_index(tuple(moved), (channels, *sizes))]
        lower = (targets <= own) & (targets >= 0)
        return own[lower], targets[lower], some.data[entries[lower]]


def whole_band(system: System) -> Band:
    """Return what a factorisation of the whole matrix takes, before anything is listed."""
    sizes = system.shape[1:]
    longest = sizes.index(max(sizes))
    axis = system.part.axes[longest]
    around = axis.border is Border.SHIFTED and (axis.before > 0 or axis.overrun > 0)
    rest = system.size // sizes[longest]
    width = (_reach(axis, system.adjoint) + 1) * rest * (2 if around else 1)
    return Band(system.size, min(width, system.size), _listing(system))


def _reach(axis: Axis, adjoint: bool) -> int:
    """Return how far apart two positions of x that meet are at most, where nothing is shown again; at least 2."""
    return max(axis.reach // axis.stride + 2 if adjoint else axis.reach, 2)


def _listing(system: System) -> float:
    """Return the seconds that listing the rows of a Gram matrix takes: for each kind of rows, how they meet others."""
    kinds = [min(size, 2 * (axis.reach + max(axis.before, axis.overrun)) + 4 * axis.stride)
             for size, axis in zip(system.shape[1:], system.part.axes, strict=True)]  # fmt: skip
    return _MEETING * prod(kinds) * system.part.axes[-1].taps


class StripSolver:
    """Solves with the strip's part of AᴴA + λΣLᵢᴴLᵢ by a banded Cholesky factorisation."""

    def __init__(self, strip: Strip) -> None:
        self._system, self._indices = strip.system, strip.indices
        self._gram, self._penalty = strip.parts()
        widths = [int((rows - columns).max(initial=0)) for rows, columns, _ in (self._gram, self._penalty)]
        self._shape = max(widths) + 1, len(strip.indices)
        self._factor: Array = np.zeros((0, 0))

    def factor(self, weight: float) -> None:
        """Factor the matrix for a λ.

        Raises
        ------
        ValueError
            If it is not positive definite.
        """
        dtype = np.result_type(self._gram[2], self._penalty[2])
        band = np.zeros(self._shape, dtype, order="F")
        for (rows, columns, values), each in ((self._gram, 1.0), (self._penalty, weight)):
            band[rows - columns, columns] += each * values
        try:  # with one thread: a second one gains little, and waits where a processor is busy
            self._factor = call_single_threaded(
                lambda: linalg.cholesky_banded(band, overwrite_ab=True, lower=True, check_finite=False)
            )
        except np.linalg.LinAlgError:
            raise ValueError(self._system.no_inverse(weight)) from None

    def solve(self, vector: Array) -> Array:
        """Return the solution on the strip for a flat vector, and zeros elsewhere."""
        result = np.zeros_like(vector)
        own = vector[self._indices]
        result[self._indices] = call_single_threaded(
            lambda: linalg.cho_solve_banded((self._factor, True), own, overwrite_b=True, check_finite=False)
        )
        return result

    def is_left(self, vector: Array) -> bool:
        """Tell whether a vector has anything on the strip, compared with what it has elsewhere."""
        return bool(abs(vector[self._indices]).max(initial=0.0) > 1e-9 * abs(vector).max(initial=0.0))
