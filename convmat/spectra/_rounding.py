"""Bounds of rounding errors, and norms rounded to the safe side.

Inner products of n terms, summed in any order, with or without fused operations, are within γ(n)·Σ|aᵢ·bᵢ| of the exact
sum, with γ(n) = n·u/(1 − n·u) and u = 2⁻⁵³ (Higham 2002, "Accuracy and Stability of Numerical Algorithms", sections 3.1
and 3.6). A complex product is a few real ones; `gamma` counts them all.
"""

from __future__ import annotations

from math import fsum, inf, nextafter, sqrt
from typing import Any

import numpy as np

from convmat.geometry import Array

UNIT = 2.0**-53
_COMPLEX = 4  # real roundings that a term of a complex sum stands for, with room to spare
TINY = 1e-150  # more than what underflow takes from a norm near 1, for any array that fits into memory


def gamma(terms: int, dtype: np.dtype[Any]) -> float:
    """Return a bound of the relative error of a sum of products, by the dtype of the factors."""
    rounded = float(terms + 2) * (_COMPLEX if dtype.kind == "c" else 1) * UNIT
    if rounded >= 0.5:
        return inf
    return up(rounded / (1 - rounded))


def up(value: float) -> float:
    """Return the next larger number: what a correctly rounded result is less than."""
    return nextafter(value, inf)


def down(value: float) -> float:
    """Return the next smaller number."""
    return nextafter(value, -inf)


def norm_between(array: Array) -> tuple[float, float]:
    """Return a lower and an upper bound of an array's Euclidean norm, which is not far from 1.

    `math.fsum` rounds the sum of the squares once; each square is rounded once.
    """
    flat = np.ascontiguousarray(array).ravel()
    parts = flat.view(np.float64)
    root = sqrt(fsum((parts * parts).tolist()))
    return max(0.0, root * (1 - 4 * UNIT) - TINY), root * (1 + 4 * UNIT) + TINY


def product_norm_up(norm_1: float, norm_inf: float) -> float:
    """Return an upper bound of a matrix' norm by Schur's test, √(‖W‖₁·‖W‖∞)."""
    return up(sqrt(up(norm_1 * norm_inf)))
