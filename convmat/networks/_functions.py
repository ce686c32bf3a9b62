"""Functions that are not linear: their values, their derivatives at a point, and bounds of their values.

At kinks the derivatives are those that PyTorch has: that of ReLU at 0 is 0, and the first of equal numbers is the largest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from convmat.geometry import Array, Axis, IntArray
from convmat.networks._maps import Diagonal, Gather, LinearMap
from convmat.networks._projections import Projection

Shape = tuple[int, ...]
_ULPS = 16  # that elementary functions of NumPy and SciPy may be off


class Interval(NamedTuple):
    """Bounds of each number of an array, in double precision.

    Attributes
    ----------
    low, high : float64 array
        The least and the largest value.
    """

    low: Array
    high: Array

    def outward(self, ulps: int = 1) -> Interval:
        """Return an interval that is wider by some units in the last place."""
        size = ulps * np.finfo(float).eps
        low, high = self.low - size * abs(self.low), self.high + size * abs(self.high)
        return Interval(np.nextafter(low, -np.inf), np.nextafter(high, np.inf))


class Function(ABC):
    """A function of one or more arrays.

    Attributes
    ----------
    op : str
        Its name.
    output_shape : tuple of int
        Shape of what comes out.
    """

    op: str
    output_shape: Shape

    @abstractmethod
    def value(self, *arrays: Array) -> Array:
        """Return the values for arrays with the same batch axes in front."""

    @abstractmethod
    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative for each array, at a point."""

    @abstractmethod
    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values for arrays between bounds."""

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """Return the function with parameters of another dtype."""
        return self


@dataclass(frozen=True)
class Elementwise(Function):
    """A function of each number by itself.

    Attributes
    ----------
    op : str
        Its name.
    output_shape : tuple of int
        Shape of the array.
    function, slope : callable
        The function and its derivative, of an array and the parameters.
    parameters : tuple of array
        Numbers, or arrays of that shape.
    turns : tuple of float
        Where the function turns from falling to rising or back: between these it is monotone.
    domain : (float, float)
        Where it is defined.
    pole : float, optional
        Where it is not.
    """

    op: str
    output_shape: Shape
    function: Callable[..., Array]
    slope: Callable[..., Array]
    parameters: tuple[Any, ...] = ()
    turns: tuple[float, ...] = ()
    domain: tuple[float, float] = (-np.inf, np.inf)
    pole: float | None = None

    def value(self, *arrays: Array) -> Array:
        """Return the values for an array with batch axes in front."""
        (x,) = arrays
        with np.errstate(all="ignore"):
            return self.function(x, *self.parameters).astype(x.dtype, copy=False)

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative at a point."""
        (x,) = arrays
        with np.errstate(all="ignore"):
            slopes = np.broadcast_to(self.slope(x, *self.parameters), x.shape).astype(x.dtype)
        return (Diagonal(slopes),)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values for an array between bounds."""
        ((low, high),) = intervals
        if (least := low.min(initial=np.inf)) < self.domain[0] or high.max(initial=-np.inf) > self.domain[1]:
            raise ValueError(
                f"{self.op} must have inputs from {self.domain[0]:g} to {self.domain[1]:g}, got {least:.3g}"
            )
        if self.pole is not None and ((low <= self.pole) & (high >= self.pole)).any():
            raise ValueError(
                f"{self.op} must have inputs that cannot be {self.pole:g}, got bounds with it between them"
            )
        places = [low, high, *(np.clip(turn, low, high) for turn in self.turns)]
        with np.errstate(all="ignore"):
            values = [np.asarray(self.function(place, *self.parameters), float) for place in places]
        # A function that saturates, as a sigmoid, leaves nothing undefined at infinity.
        found = np.array([np.where(np.isnan(value), np.inf, value) for value in values])
        least = np.array([np.where(np.isnan(value), -np.inf, value) for value in values])
        return Interval(least.min(axis=0), found.max(axis=0)).outward(_ULPS)

    def astype(self, dtype: npt.DTypeLike) -> Elementwise:
        """Return the function with parameters of another dtype."""
        cast = tuple(np.asarray(each, dtype) if isinstance(each, np.ndarray) else each for each in self.parameters)
        return replace(self, parameters=cast)


@dataclass(frozen=True)
class Multiply(Function):
    """The product of two arrays, number by number."""

    output_shape: Shape
    op: str = "Mul"

    def value(self, *arrays: Array) -> Array:
        """Return the values for arrays with the same batch axes in front."""
        first, second = arrays
        product: Array = first * second
        return product

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative for each array, at a point."""
        first, second = arrays
        return Diagonal(second), Diagonal(first)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values for arrays between bounds."""
        first, second = intervals
        with np.errstate(invalid="ignore"):
            corners = np.array(
                [np.nan_to_num(a * b, nan=0.0, posinf=np.inf, neginf=-np.inf) for a in first for b in second]
            )
        return Interval(corners.min(axis=0), corners.max(axis=0)).outward()


@dataclass(frozen=True)
class Divide(Function):
    """The quotient of two arrays, number by number."""

    output_shape: Shape
    op: str = "Div"

    def value(self, *arrays: Array) -> Array:
        """Return the values for arrays with the same batch axes in front."""
        upper, lower = arrays
        quotient: Array = upper / lower
        return quotient

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative for each array, at a point."""
        upper, lower = arrays
        return Diagonal(1 / lower), Diagonal(-upper / lower / lower)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values for arrays between bounds."""
        upper, lower = intervals
        if ((lower.low <= 0) & (lower.high >= 0)).any():
            raise ValueError("Div must have a divisor that cannot be zero, got bounds with zero between them")
        return Multiply(self.output_shape).bounds(upper, Interval(1 / lower.high, 1 / lower.low).outward())


@dataclass(frozen=True)
class Extremum(Function):
    """The larger, or the smaller, of two arrays, number by number. Where they are equal, each has half of the derivative.

    Attributes
    ----------
    output_shape : tuple of int
        Shape of each array.
    is_largest : bool
        Whether the larger is taken.
    """

    output_shape: Shape
    is_largest: bool = True

    @property
    def op(self) -> str:  # type: ignore[override]
        """Its name."""
        return "Max" if self.is_largest else "Min"

    def value(self, *arrays: Array) -> Array:
        """Return the values for arrays with the same batch axes in front."""
        result: Array = (np.maximum if self.is_largest else np.minimum)(*arrays)
        return result

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative for each array, at a point."""
        first, second = arrays if self.is_largest else arrays[::-1]
        share = np.where(first == second, 0.5, first > second).astype(first.dtype)
        return Diagonal(share), Diagonal(1 - share)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values for arrays between bounds."""
        first, second = intervals
        return Interval(self.value(first.low, second.low), self.value(first.high, second.high))


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
        return (Projection(root, root[None], root, (self._place,)),)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values: a share is the largest where its own number is, and all others are the smallest."""
        ((low, high),) = intervals
        return Interval(self._extreme(low, high), self._extreme(high, low)).outward(
            _ULPS * self.output_shape[self._place]
        )

    def _extreme(self, own: Array, others: Array) -> Array:
        """Return 1 / (1 + Σ exp(otherⱼ − ownᵢ)), the sum over j ≠ i."""
        own, others = np.moveaxis(own, self._place, -1), np.moveaxis(others, self._place, -1)
        shares = np.empty_like(own)
        with np.errstate(over="ignore"):
            for number in range(own.shape[-1]):
                powers = np.exp(others - own[..., number, None])
                powers[..., number] = 1.0
                shares[..., number] = 1 / powers.sum(axis=-1)
        return np.moveaxis(shares, -1, self._place)


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
        return (Projection(factors, vectors, np.ones_like(centred), self._places),)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values, which are never larger than √(n − 1)."""
        ((low, high),) = intervals
        margin = 2 * self._count * np.finfo(float).eps
        means = [each.mean(axis=self._places, keepdims=True) for each in (low, high)]
        slack = margin * np.maximum(abs(low), abs(high)).mean(axis=self._places, keepdims=True)
        least, most = low - means[1] - slack, high - means[0] + slack
        smallest = np.where((least <= 0) & (most >= 0), 0.0, np.minimum(abs(least), abs(most)))
        divisor = np.sqrt((smallest**2).mean(axis=self._places, keepdims=True) * (1 - margin) + self.epsilon) * (
            1 - 1e-15
        )
        limit = np.sqrt(max(self._count - 1, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            top = np.nan_to_num(np.where(most > 0, most / divisor, 0.0), nan=np.inf)
            bottom = np.nan_to_num(np.where(least < 0, least / divisor, 0.0), nan=-np.inf)
        return Interval(np.maximum(bottom, -limit), np.minimum(top, limit)).outward(4)
