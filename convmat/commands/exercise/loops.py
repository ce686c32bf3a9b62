"""The textbook's loops for numba, with channels, dilation and groups. Imports numba; import it late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba

from convmat.geometry import Array

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
# Arithmetic as it is written, no fastmath. Nothing is cached: a run takes a minute, and a cache may be unwritable.
_compiled: _Decorator = cast(Any, numba).njit(nogil=True)


@_compiled
def corr2d(
    X: Array, K: Array, Y: Array, s_h: int, s_w: int, d_h: int, d_w: int, groups: int, first: int, last: int
) -> None:
    """Write rows of the convolution, counted over all channels, of a padded image (C_in, H, W)."""
    C_out, C_in, h, w = K.shape
    _, n_h, n_w = Y.shape
    for row in range(first, last):
        o, i = row // n_h, row % n_h
        channel = o // (C_out // groups) * C_in  # the first of the group's
        for j in range(n_w):
            total = K.dtype.type(0)
            for c in range(C_in):
                for a in range(h):
                    for b in range(w):
                        total += X[channel + c, i * s_h + a * d_h, j * s_w + b * d_w] * K[o, c, a, b]
            Y[o, i, j] = total


@_compiled
def trans_conv(
    Y: Array, K: Array, Z: Array, s_h: int, s_w: int, d_h: int, d_w: int, groups: int, first: int, last: int
) -> None:
    """Add what rows of an image (C_out, n_h, n_w) contribute to its transposed convolution, padding included."""
    C_out, C_in, h, w = K.shape
    _, n_h, n_w = Y.shape
    for row in range(first, last):
        o, i = row // n_h, row % n_h
        channel = o // (C_out // groups) * C_in
        for j in range(n_w):
            for c in range(C_in):
                for a in range(h):
                    for b in range(w):
                        Z[channel + c, i * s_h + a * d_h, j * s_w + b * d_w] += Y[o, i, j] * K[o, c, a, b]
