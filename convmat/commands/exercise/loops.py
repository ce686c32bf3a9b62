"""The textbook's loops for numba, with channels, dilation and groups. Imports numba; import it late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba

from convmat.geometry import Array

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
# No fastmath, so the arithmetic is as written. No cache: a run takes a minute, and a cache may not be writable.
_compiled: _Decorator = cast(Any, numba).njit(nogil=True)


@_compiled
def corr2d(
    X: Array, K: Array, Y: Array, s_h: int, s_w: int, d_h: int, d_w: int, groups: int, first: int, last: int
) -> None:
    """Write rows of the convolution of a padded image (C_in, H, W). Rows are numbered over all channels."""
    C_out, C_in, h, w = K.shape
    _, n_h, n_w = Y.shape
    for row in range(first, last):
        o, i = row // n_h, row % n_h
        channel = o // (C_out // groups) * C_in  # the first input channel of the group
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
    """Add the contributions of rows of an image (C_out, n_h, n_w) to its transposed convolution, with its padding."""
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
