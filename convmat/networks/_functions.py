"""Functions that are not linear: their values, their derivatives at a point, and bounds of their values.

At kinks the derivatives are those that PyTorch has: that of ReLU at 0 is 0, and the first of equal numbers is the largest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from convmat.geometry import Array
from convmat.networks._maps import Diagonal, LinearMap

Shape = tuple[int, ...]
ULPS = 16  # that elementary functions of NumPy and SciPy may be off


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
    is_elementwise = False  # whether a number of the output depends on one of each input

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
    slope_range : (float, float)
        Bounds of its slope; infinite where none are known.
    cancels : bool
        Whether parts of the function cancel: its rounding is then relative to its input as well, and to 1.
    """

    op: str
    output_shape: Shape
    function: Callable[..., Array]
    slope: Callable[..., Array]
    parameters: tuple[Any, ...] = ()
    turns: tuple[float, ...] = ()
    domain: tuple[float, float] = (-np.inf, np.inf)
    pole: float | None = None
    slope_range: tuple[float, float] = (-np.inf, np.inf)
    cancels: bool = False

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
            given = f"{least:.3g} to {high.max():.3g}"
            raise ValueError(f"{self.op} must have inputs from {self.domain[0]:g} to {self.domain[1]:g}, got {given}")
        if self.pole is not None and ((low <= self.pole) & (high >= self.pole)).any():
            raise ValueError(
                f"{self.op} must have inputs that cannot be {self.pole:g}, got bounds with it between them"
            )
        places = [low, high, *(np.clip(turn, low, high) for turn in self.turns)]
        with np.errstate(all="ignore"):
            values = [np.asarray(self.function(place, *self.parameters), float) for place in places]
        # What is undefined, as at infinity, may be anything. Parts that cancel are each rounded.
        eps = ULPS * np.finfo(float).eps
        margins = [eps * (1 + abs(place)) if self.cancels else 0.0 for place in places]
        pairs = list(zip(values, margins, strict=True))
        bottom = np.array([np.where(np.isnan(value), -np.inf, value - margin) for value, margin in pairs])
        top = np.array([np.where(np.isnan(value), np.inf, value + margin) for value, margin in pairs])
        return Interval(bottom.min(axis=0), top.max(axis=0)).outward(ULPS)

    def steepness(self) -> float:
        """Return a bound of the magnitude of its slope."""
        return max(map(abs, self.slope_range))

    def astype(self, dtype: npt.DTypeLike) -> Elementwise:
        """Return the function with parameters of another dtype."""
        cast = tuple(np.asarray(each, dtype) if isinstance(each, np.ndarray) else each for each in self.parameters)
        return replace(self, parameters=cast)


@dataclass(frozen=True)
class Multiply(Function):
    """The product of two arrays, number by number."""

    output_shape: Shape
    op: str = "Mul"
    is_elementwise = True

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
    is_elementwise = True

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
    is_elementwise = True

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
