"""Where AᴴA + λLᴴL is no convolution: the positions near the borders, and its rows and columns there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from convmat._messages import scaled
from convmat._runtime import available_memory, call_single_threaded
from convmat.geometry import Array, Axis, Border, IntArray
from convmat.inverse._system import System
from convmat.matrices import GramRows
from convmat.operators import correlation_kernel

# Flops that a factorisation may take, and seconds that the values of the rows may: about a second each.
_MOST, _LONGEST = 2e10, 1.0
_FACTOR = 3e10  # flops a second of a factorisation; a round number, as are those below
_ENTRY = 48  # bytes of a value with its row and column, listed and joined
_FILL, _SUM = 3e7, 3e8  # values of a band that are placed in a second, and products of taps that are summed


class Band(NamedTuple):
    """What a banded factorisation takes, about.

    Attributes
    ----------
    size, width : int
        Number of rows, and of diagonals beside the main one.
    values : float
        How many values of the lower triangle there are.
    sums : float
        How many products of taps are summed for the values of all kinds of rows.
    """

    size: int
    width: int
    values: float
    sums: float

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
        return self.filling + self.flops / _FACTOR

    @property
    def filling(self) -> float:
        """The time until the values are in their places."""
        return self.values / _FILL + self.sums / _SUM

    def is_affordable(self) -> bool:
        """Tell whether it takes some seconds at most, and fits into memory."""
        nbytes = 3 * self.nbytes + _ENTRY * self.values
        return self.flops <= _MOST and self.filling <= _LONGEST and nbytes <= available_memory()

    def __str__(self) -> str:
        return f"{scaled(self.flops)} operations, {scaled(self.nbytes, 'B')} and {scaled(self.seconds, 's')}"


def _ends(axis: Axis, adjoint: bool, penalised: bool) -> Array:
    """Return which positions of an axis of x belong to the strip, as a mask."""
    size = axis.rows(not adjoint)
    first, last = (min(max(depth, 2 * penalised), size) for depth in _depths(axis, adjoint))
    positions = np.arange(size)
    return (positions < first) | (positions >= size - last)


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
    places : int64 array (positions, N)
        The positions, in an order in which those that meet are near each other.
    by : tuple of int
        The axes whose coordinates are summed for that order; positions with the same sum are in the order of arrays.
    band : Band
        What a factorisation of their part of the matrix takes.
    """

    system: System
    places: IntArray
    by: tuple[int, ...]
    band: Band

    @classmethod
    def of(cls, system: System) -> Strip:
        """Return the positions near the borders, where the rows of the matrix differ from those in the middle."""
        penalised = system.word != "identity"
        apart = reduce(np.logical_or.outer, (_ends(axis, system.adjoint, penalised) for axis in system.part.axes))
        # In the order of the sums of their coordinates, those of neighbouring sides are neighbours.
        return cls._ordered(system, np.argwhere(apart), tuple(range(apart.ndim)))

    @classmethod
    def whole(cls, system: System) -> Strip:
        """Return all positions, with the whole matrix."""
        sizes = system.shape[1:]
        return cls._ordered(system, np.argwhere(np.ones(sizes, bool)), (sizes.index(max(sizes)),))

    @classmethod
    def _ordered(cls, system: System, places: IntArray, by: tuple[int, ...]) -> Strip:
        keys, reach = np.zeros(len(places), np.int64), 0
        for number in by:
            axis, place, size = system.part.axes[number], places[:, number], system.shape[1 + number]
            around = axis.border is Border.SHIFTED  # the ends are neighbours: both count from their end
            keys += np.minimum(2 * place, 2 * (size - 1 - place) + 1) if around else 2 * place
            reach += 2 * _reach(axis, system.adjoint)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        channels = system.shape[0]
        width = int((np.searchsorted(keys, keys + reach, "right") - np.arange(len(keys))).max(initial=0)) * channels
        size = channels * len(places)
        return cls(system, places[order], by, _band(system, size, width))

    @property
    def indices(self) -> IntArray:
        """The positions in all channels, as indices into flat arrays."""
        channels, *sizes = self.system.shape
        flat = np.ravel_multi_index(tuple(self.places.T), sizes)
        indices: IntArray = (flat[:, None] + np.arange(channels) * prod(sizes)).ravel()
        return indices

    def parts(self) -> tuple[Any, Any]:
        """Return the strip's parts of AᴴA and of ΣLᵢᴴLᵢ, as (rows, columns, values) of the lower triangles."""
        system = self.system
        gram = self._triangle([(system.A, system.adjoint)])
        if system.word == "identity":
            diagonal = np.arange(len(self.places) * system.shape[0])
            return gram, (diagonal, diagonal, np.ones(len(diagonal)))
        return gram, self._triangle([(term, False) for term in system.terms])

    def _triangle(self, operators: Sequence[tuple[Any, bool]]) -> tuple[IntArray, IntArray, Array]:
        """Return the lower triangle of the strip's part of the sum of Gram matrices."""
        found = [
            (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)),
            *(
                entries
                for operator, transposed in operators
                for entries in self._entries(GramRows(operator.geometry, correlation_kernel(operator), transposed))
            ),
        ]
        rows, columns, values = zip(*found, strict=True)
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)

    def _entries(self, gram: GramRows) -> Iterator[tuple[IntArray, IntArray, Array]]:
        """Yield the lower triangle of the strip's part of a Gram matrix, some rows at a time."""
        chosen = np.arange(len(gram.offsets))
        # Where nothing leads around a circle, a column that comes first in order lies before the row.
        if not any(gram.around) and not any(axis.border is Border.SHIFTED for axis in self.system.part.axes):
            sums = gram.offsets[:, list(self.by)].sum(axis=1)
            chosen = chosen[(sums < 0) | ((sums == 0) & (chosen <= len(chosen) // 2))]
        order, start, steps = self._numbered(gram)
        shifts = gram.offsets[chosen] @ steps
        for numbers, values in gram.of(self.places, chosen):
            columns = order[start[numbers][:, None] + shifts].ravel()
            rows = np.repeat(numbers, len(chosen))
            kept = np.flatnonzero((columns >= 0) & (columns <= rows))
            yield self._in_channels(rows[kept], columns[kept], values.reshape(-1, *values.shape[2:])[kept])

    def _numbered(self, gram: GramRows) -> tuple[IntArray, IntArray, IntArray]:
        """Number the positions, as a flat array with margins for all offsets, and −1 where there is none.

        Returns
        -------
        order, start, steps : int64 array
            The numbers; where the positions are among them; how far apart neighbours on each axis are.
        """
        sizes = self.system.shape[1:]
        order: IntArray = np.full(sizes, -1)
        order[tuple(self.places.T)] = np.arange(len(self.places))
        low, high = -gram.offsets.min(axis=0), gram.offsets.max(axis=0)
        for axis, around in enumerate(gram.around):
            margins = [(low[axis], high[axis]) if number == axis else (0, 0) for number in range(order.ndim)]
            order = np.pad(order, margins, "wrap") if around else np.pad(order, margins, constant_values=-1)
        steps = np.array(order.strides) // order.itemsize
        return order.ravel(), (self.places + low) @ steps, steps

    def _in_channels(self, rows: IntArray, columns: IntArray, values: Array) -> tuple[IntArray, IntArray, Array]:
        """Return the entries of all channels, for entries between positions with values (entries, G, C, C)."""
        groups, inner = values.shape[1:3]
        channel = np.arange(groups * inner).reshape(groups, inner)
        shape = values.shape
        rows = np.broadcast_to((rows[:, None, None] * channel.size + channel)[..., None], shape)
        columns = np.broadcast_to((columns[:, None, None] * channel.size + channel)[:, :, None, :], shape)
        if channel.size == 1:
            return rows.ravel(), columns.ravel(), values.ravel()
        lower = columns <= rows
        return rows[lower], columns[lower], values[lower]


def whole_band(system: System) -> Band:
    """Return what a factorisation of the whole matrix takes, before anything is listed."""
    sizes = system.shape[1:]
    longest = sizes.index(max(sizes))
    axis = system.part.axes[longest]
    around = axis.border is Border.SHIFTED and (axis.before > 0 or axis.overrun > 0)
    rest = system.size // sizes[longest]
    return _band(system, system.size, (_reach(axis, system.adjoint) + 1) * rest * (2 if around else 1))


def _reach(axis: Axis, adjoint: bool) -> int:
    """Return how far apart two positions of x that meet are at most, where nothing is shown again; at least 2."""
    return max(axis.reach // axis.stride + 2 if adjoint else axis.reach, 2)


def _band(system: System, size: int, width: int) -> Band:
    """Return what a band takes, from the numbers of kinds of rows and of columns on each axis."""
    sizes, axes = system.shape[1:], system.part.axes
    channels = system.shape[0] // len(system.part.kernel)
    kinds = [min(length, 2 * (axis.reach + max(axis.before, axis.overrun)) + 4 * axis.stride)
             for length, axis in zip(sizes, axes, strict=True)]  # fmt: skip
    columns = [min(2 * _reach(axis, system.adjoint) + 1, length) for length, axis in zip(sizes, axes, strict=True)]
    pairs = [float(axis.taps) ** 2 for axis in axes]
    # Axis by axis: what is summed for all kinds of rows of an axis, and how much of the other axes each of these has.
    sums, others = 0.0, float(channels**2 * len(system.part.kernel)) * prod(pairs)
    for number, pair in enumerate(pairs):
        others /= pair
        sums += prod(kinds[: number + 1]) * prod(columns[:number]) * pair * others
    return Band(size, min(width, size), size * prod(columns) * channels / 2.0, sums)


class StripSolver:
    """Solves with the strip's part of AᴴA + λΣLᵢᴴLᵢ by a banded Cholesky factorisation."""

    def __init__(self, strip: Strip) -> None:
        self._system, self._indices = strip.system, strip.indices
        (rows, columns, values), penalty = strip.parts()
        width = 1 + max(int((each[0] - each[1]).max(initial=0)) for each in ((rows, columns), penalty))
        self._gram = np.zeros((width, len(self._indices)), np.result_type(values, penalty[2]), order="F")
        self._gram[rows - columns, columns] = values
        self._penalty = penalty
        self._factor: Array = np.zeros((0, 0))

    def factor(self, weight: float) -> None:
        """Factor the matrix for a λ.

        Raises
        ------
        ValueError
            If it is not positive definite.
        """
        band = self._gram.copy(order="F")
        rows, columns, values = self._penalty
        np.add.at(band, (rows - columns, columns), weight * values)
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
