"""Functions of groups of numbers: the largest of windows, shares, and what normalises."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from convmat.geometry import Array, Axis, IntArray
from convmat.networks._functions import ULPS, Function, Interval
from convmat.networks._maps import Gather, LinearMap, Shape
from convmat.networks._projections import Projection


@dataclass(frozen=True)
class MaxPool(Function):
    """The largest number of each window of arrays (*outer, *spatial).

    Attributes
    ----------
    input_shape : tuple of int
        Shape of what goes in.
    axes : tuple of Axis
        The relation of the last axes of the array; what lies outside is never the largest.
    """

    input_shape: Shape
    axes: tuple[Axis, ...]
    op: str = "MaxPool"

    @property
    def output_shape(self) -> Shape:  # type: ignore[override]
        """Shape of what comes out."""
        return (*self.input_shape[: -len(self.axes)], *(axis.outputs for axis in self.axes))

    def value(self, *arrays: Array) -> Array:
        """Return the values for an array with batch axes in front."""
        (x,) = arrays
        count = len(self.axes)
        for number, axis in enumerate(self.axes):  # the largest of a window is that of its lines' largest
            x = self._along(x, x.ndim - count + number, axis)
        return x

    def _along(self, x: Array, place: int, axis: Axis) -> Array:
        moved = np.moveaxis(x, place, -1)
        sources = axis.sources(np.arange(axis.outputs))
        result = np.full((*moved.shape[:-1], axis.outputs), -np.inf, x.dtype)
        for line in sources.T:
            inside = line >= 0
            result[..., inside] = np.maximum(result[..., inside], moved[..., line[inside]])
        return np.moveaxis(result, -1, place)

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative at a point."""
        (x,) = arrays
        return (Gather(self._largest(x), self.input_shape, x.dtype),)

    def _largest(self, x: Array) -> IntArray:
        """Return where the largest number of each window is: the first, where several are."""
        count = len(self.axes)
        spatial = self.input_shape[-count:]
        flat = x.reshape(prod(self.input_shape[:-count]), -1)
        tables = [axis.sources(np.arange(axis.outputs)) for axis in self.axes]
        shape = tuple(axis.outputs for axis in self.axes)
        best = np.full((len(flat), prod(shape)), -np.inf, x.dtype)
        where = np.full(best.shape, -1, np.int64)
        for taps in np.ndindex(*(axis.taps for axis in self.axes)):
            grids = np.ix_(*(table[:, tap] for table, tap in zip(tables, taps, strict=True)))
            inside = np.logical_and.reduce(np.broadcast_arrays(*(grid >= 0 for grid in grids))).ravel()
            place = np.ravel_multi_index([np.maximum(grid, 0) for grid in np.broadcast_arrays(*grids)], spatial).ravel()
            values = flat[:, place]
            better = inside & ((values > best) | (where < 0) | (np.isnan(values) & ~np.isnan(best)))
            best, where = np.where(better, values, best), np.where(better, place, where)
        offsets = np.arange(len(flat))[:, None] * prod(spatial)
        return np.where(where >= 0, where + offsets, -1).reshape(self.output_shape)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values for an array between bounds."""
        ((low, high),) = intervals
        return Interval(self.value(low), self.value(high))


@dataclass(frozen=True)
class Softmax(Function):
    """eˣ over its sum along an axis."""

    output_shape: Shape
    axis: int
    op: str = "Softmax"

    @property
    def _place(self) -> int:
        return self.axis % len(self.output_shape) - len(self.output_shape)

    def value(self, *arrays: Array) -> Array:
        """Return the values for an array with batch axes in front."""
        (x,) = arrays
        powers = np.exp(x - x.max(axis=self._place, keepdims=True))
        shares: Array = powers / powers.sum(axis=self._place, keepdims=True)
        return shares

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative at a point: diag(s) − s·sᵀ."""
        root = np.sqrt(self.value(*arrays))
        return (Projection(root, root[None], root[None], root, (self._place,)),)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values: a share is the largest where its own number is, and all others are the smallest."""
        ((low, high),) = intervals
        sums = self._others(high, low, np.inf), self._others(low, high, -np.inf)
        return Interval(1 / (1 + sums[0]), 1 / (1 + sums[1])).outward(ULPS)

    def _others(self, others: Array, own: Array, end: float) -> Array:
        """Return a bound, towards an end, of Σ exp(otherⱼ − ownᵢ), the sum over j ≠ i.

        Each difference is rounded towards the end before it becomes a power, which is as much off as the difference is.
        """
        own, others = np.moveaxis(own, self._place, -1), np.moveaxis(others, self._place, -1)
        sums = np.empty_like(own)
        count = own.shape[-1]
        with np.errstate(over="ignore"):
            for number in range(count):
                powers = np.exp(np.nextafter(others - own[..., number, None], end))
                powers[..., number] = 0.0
                sums[..., number] = powers.sum(axis=-1)
            margin = (ULPS + count) * np.finfo(float).eps
            sums = np.maximum(sums * (1 + np.copysign(margin, end)), 0.0)
        return np.moveaxis(np.nextafter(sums, end) if end > 0 else sums, -1, self._place)


@dataclass(frozen=True)
class LogSoftmax(Softmax):
    """The logarithm of eˣ over its sum along an axis."""

    op: str = "LogSoftmax"

    def value(self, *arrays: Array) -> Array:
        """Return the values for an array with batch axes in front."""
        (x,) = arrays
        moved = x - x.max(axis=self._place, keepdims=True)
        logarithms: Array = moved - np.log(np.exp(moved).sum(axis=self._place, keepdims=True))
        return logarithms

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative at a point: I − 1·sᵀ, where s are the shares."""
        shares = np.exp(self.value(*arrays))
        ones = np.ones_like(shares)
        return (Projection(ones, ones[None], shares[None], ones, (self._place,)),)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values."""
        ((low, high),) = intervals
        ends = []
        for own, others, end in ((low, high, np.inf), (high, low, -np.inf)):
            sums = self._others(others, own, end)
            with np.errstate(invalid="ignore"):
                # Where powers are too large, the logarithm is that of the largest, or of n times that.
                largest = others.max(axis=self._place, keepdims=True)
                rest = own - largest - (np.log(self.output_shape[self._place]) if end > 0 else 0.0)
                ends.append(np.where(np.isfinite(sums), -np.log1p(sums), rest))
        return Interval(*ends).outward(ULPS)


@dataclass(frozen=True)
class Normalise(Function):
    """(x − mean)/√(variance + ε) of the numbers along some axes.

    Attributes
    ----------
    output_shape : tuple of int
        Shape of the array.
    axes : tuple of int
        The axes.
    epsilon : float
        What is added to the variance.
    op : str
        Its name.
    """

    output_shape: Shape
    axes: tuple[int, ...]
    epsilon: float
    op: str = "LayerNormalization"

    @property
    def _places(self) -> tuple[int, ...]:
        return tuple(axis % len(self.output_shape) - len(self.output_shape) for axis in self.axes)

    @property
    def _count(self) -> int:
        return prod(self.output_shape[axis] for axis in self._places)

    def _parts(self, x: Array) -> tuple[Array, Array]:
        """Return x without its mean, and the divisor."""
        centred = x - x.mean(axis=self._places, keepdims=True)
        return centred, np.sqrt((centred**2).mean(axis=self._places, keepdims=True) + self.epsilon)

    def value(self, *arrays: Array) -> Array:
        """Return the values for an array with batch axes in front."""
        centred, divisor = self._parts(arrays[0])
        quotient: Array = centred / divisor
        return quotient

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative at a point: (I − 1·1ᵀ/n − z·zᵀ/n)/divisor, where z is the value."""
        centred, divisor = self._parts(arrays[0])
        root = np.sqrt(np.asarray(self._count, centred.dtype))
        vectors = np.stack([np.ones_like(centred) / root, centred / divisor / root])
        factors = np.broadcast_to(1 / divisor, centred.shape)
        return (Projection(factors, vectors, vectors, np.ones_like(centred), self._places),)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values, which are never larger than √(n − 1)."""
        ((low, high),) = intervals
        margin = 2 * self._count * np.finfo(float).eps
        means = [each.mean(axis=self._places, keepdims=True) for each in (low, high)]
        slack = margin * np.maximum(abs(low), abs(high)).mean(axis=self._places, keepdims=True)
        least, most = low - means[1] - slack, high - means[0] + slack
        largest = np.maximum(abs(least), abs(most))
        smallest = np.where((least <= 0) & (most >= 0), 0.0, np.minimum(abs(least), abs(most)))
        squares = [(each**2).mean(axis=self._places, keepdims=True) for each in (smallest, largest)]
        divisors = [
            np.sqrt(square * (1 + sign * margin) + self.epsilon) * (1 + sign * margin)
            for square, sign in zip(squares, (-1, 1), strict=True)
        ]
        limit = np.sqrt(max(self._count - 1, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            top = np.nan_to_num(most / np.where(most > 0, *divisors), nan=np.inf, posinf=np.inf)
            bottom = np.nan_to_num(least / np.where(least < 0, *divisors), nan=-np.inf, neginf=-np.inf)
        return Interval(np.maximum(bottom, -limit), np.minimum(top, limit)).outward(4)
