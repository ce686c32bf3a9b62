"""Bounds of what a network returns for all inputs between bounds, by interval arithmetic with outward rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convmat.geometry import Array
from convmat.networks._convolution_map import ConvolutionMap
from convmat.networks._functions import Interval
from convmat.networks._maps import Diagonal, Gather, LinearMap
from convmat.networks._stages import Stage

_UNIT = 2.0**-53  # of rounding in double precision
_LEAST = 2.0**-1074  # what underflow may take from a product


def stage_bounds(stage: Stage, intervals: Sequence[Interval]) -> Interval:
    """Return bounds of what a stage in double precision returns for arrays between bounds."""
    if stage.function is not None:
        return stage.function.bounds(*intervals)
    parts = [map_bounds(each, interval) for each, interval in zip(stage.maps, intervals, strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = _plus(total, part)
    return total if stage.offset is None else _plus(total, Interval(stage.offset, stage.offset))


def map_bounds(each: LinearMap, interval: Interval) -> Interval:
    """Return bounds of a map's products, for arrays between bounds.

    With c the middle and r half of the width, |M·x − M·c| ≤ |M|·r. What is computed of a sum of n products is off by at most
    γ = nu/(1 − nu) times the sum of their magnitudes, in any order (Higham, "Accuracy and Stability of Numerical
    Algorithms", 2002, section 3.1).
    """
    if isinstance(each, Gather):
        return Interval(each.apply(interval.low), each.apply(interval.high))
    if isinstance(each, Diagonal):
        with np.errstate(invalid="ignore"):
            ends = [np.nan_to_num(each.factors * end, nan=0.0, posinf=np.inf, neginf=-np.inf) for end in interval]
        return Interval(np.minimum(*ends), np.maximum(*ends)).outward()
    if not all(np.isfinite(end).all() for end in interval):
        nothing = np.full(each.output_shape, np.inf)
        return Interval(-nothing, nothing)
    plain = each.plain() if isinstance(each, ConvolutionMap) else each
    middle = interval.low / 2 + interval.high / 2
    radius = np.nextafter(np.maximum(interval.high - middle, middle - interval.low), np.inf)
    count = each.terms + 8
    gamma = count * _UNIT / (1 - count * _UNIT)
    sizes = plain.absolute().apply(np.stack([radius, abs(middle)]))
    reach = (sizes[0] + gamma * sizes[1]) * (1 + 2 * gamma + 8 * _UNIT) + count * _LEAST
    centre = plain.apply(middle)
    return Interval(np.nextafter(centre - reach, -np.inf), np.nextafter(centre + reach, np.inf))


def _plus(first: Interval, second: Interval) -> Interval:
    """Return the sum of intervals; what is added to zero is not rounded."""
    low, high = first.low + second.low, first.high + second.high
    return Interval(
        np.where(_is_exact(first.low, second.low), low, np.nextafter(low, -np.inf)),
        np.where(_is_exact(first.high, second.high), high, np.nextafter(high, np.inf)),
    )


def _is_exact(first: Array, second: Array) -> Array:
    return np.asarray((first == 0) | (second == 0))
