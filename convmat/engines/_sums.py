"""Sums of many terms, as sums of sums of not too many: the rounding error then grows far slower than their number."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from convmat._runtime import undisturbed
from convmat.geometry import Array

SINGLE, DOUBLE = 1 << 9, 1 << 13  # terms of a sum in either precision
_LARGE = 1 << 21  # multiplications; OpenBLAS counts 10⁶ as small


def most_terms(dtype: np.dtype[Any]) -> int:
    """Return how many terms are added up one after another.

    The rounding error of n terms in sums of m is at most about (m + n/m)·ε/2 of the sum of their absolute values (Higham,
    Accuracy and Stability of Numerical Algorithms, section 4.2). Where all terms are alike, and errors add up, it is about
    a sixth of that, which is within the accuracy that is promised.
    """
    if dtype.kind in "iu":
        return 1 << 62  # exact in any order
    return SINGLE if np.finfo(dtype).eps > 1e-10 else DOUBLE


def cuts(terms: int, dtype: np.dtype[Any]) -> list[tuple[int, int]]:
    """Return the ranges of terms that are added up by themselves."""
    parts = -(-terms // most_terms(dtype))
    return list(pairwise(terms * part // parts for part in range(parts + 1)))


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return matrix products (..., n, m).

    BLAS divides the terms of large products of matrices itself, so that they stay in a cache. It has other kernels for small
    products and for vectors, and those add all terms one after another.
    """
    rows, terms, columns = *a.shape[-2:], b.shape[-1]
    if terms <= most_terms(a.dtype) or (min(rows, columns) > 1 and rows * terms * columns > _LARGE):
        with undisturbed():
            return np.matmul(a, b, out=out)
    for first, last in cuts(terms, a.dtype):
        with undisturbed():
            product = np.matmul(a[..., first:last], b[..., first:last, :], out=None if first else out)
        out = product if first == 0 else np.add(out, product, out=out)  # type: ignore[arg-type]
    return out  # type: ignore[return-value]
