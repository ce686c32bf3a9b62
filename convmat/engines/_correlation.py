"""Products that sum over outputs instead of taps: of the same columns as `gemm`'s, each used for the kernel's gradient.

A product of V with x is linear in the kernel, too. That map's matrix holds the inputs that taps meet, which are the columns
of im2col. So its transpose is a matrix product of y with these columns, block by block.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from convmat._runtime import run_blocks
from convmat.engines._sums import matmul
from convmat.geometry import Array, ConvolutionGeometry

BLOCK = 1 << 19  # bytes of a block of columns, for about half of a second-level cache
_SUMS, _ROOM = 16, 64 << 20  # sums that are computed one beside the other, and their bytes
SERIAL = 1 << 20  # multiplications below which one thread is faster


def view_windows(x: Array, geometry: ConvolutionGeometry) -> Array:
    """Return a view (B, groups, C_in / groups, *k, *outputs) of the input of every tap for every output.

    Parameters
    ----------
    x : array (B, C_in, *spatial_input)
        The input.
    geometry : ConvolutionGeometry
        A convolution without padding.
    """
    x = x.reshape(len(x), geometry.groups, geometry.in_channels // geometry.groups, *geometry.spatial_input)
    steps = x.strides[3:]
    taps = tuple(step * dilation for step, dilation in zip(steps, geometry.dilation, strict=True))
    moves = tuple(step * stride for step, stride in zip(steps, geometry.stride, strict=True))
    shape = (*x.shape[:3], *geometry.spatial_kernel, *geometry.spatial_output)
    return np.lib.stride_tricks.as_strided(x, shape, (*x.strides[:3], *taps, *moves))


def correlate(x: Array, y: Array | None, geometry: ConvolutionGeometry, workers: int) -> Array:
    """Return the sums over outputs of y times the input that each tap meets.

    Parameters
    ----------
    x : array (B, C_in, *spatial_input)
        The input, of the dtype of `y`.
    y : array (B, C_out, *spatial_output) or None
        What is given for each output; None means each group's columns themselves.
    geometry : ConvolutionGeometry
        A convolution without padding.
    workers : int
        Number of threads.

    Returns
    -------
    array (groups, C_out / groups, C_in / groups · ∏ k)
        For a channel o of group g, an input channel i and a tap t: Σ y[b, o, q] · x[b, i, q·stride + t·dilation]. Without
        `y` (groups, C_in / groups · ∏ k, C_in / groups · ∏ k), with the conjugate of the columns for y.
    """
    groups, outputs = geometry.groups, geometry.spatial_output
    inner = geometry.in_channels // groups * prod(geometry.spatial_kernel)
    outer = inner if y is None else geometry.out_channels // groups
    seen, line = view_windows(x, geometry), prod(outputs[1:])
    lines = max(1, BLOCK // max(1, inner * line * x.itemsize))
    blocks = [
        (item, group, slice(first, min(first + lines, outputs[0])))
        for item in range(len(x))
        for first in range(0, outputs[0], lines)
        for group in range(groups)
    ]
    size = groups * outer * inner
    count = max(1, min(_SUMS, len(blocks), _ROOM // max(1, size * x.itemsize)))
    sums = np.zeros((count, groups, outer, inner), x.dtype)

    def add(number: int) -> None:
        for item, group, some in blocks[len(blocks) * number // count : len(blocks) * (number + 1) // count]:
            at: Any = (item, group, ..., some, *(slice(None),) * (len(outputs) - 1))
            columns = seen[at].reshape(inner, -1)
            if y is None:
                given = columns.conj()
            else:
                given = y[item].reshape(groups, outer, *outputs)[group, :, some].reshape(outer, -1)
            sums[number, group] += matmul(given, columns.T)

    large = len(x) * prod(outputs) * size > SERIAL
    run_blocks(add, [(number,) for number in range(count)], workers if large else 1, single_threaded_blas=large)
    total: Array = np.add.reduce(sums, axis=0)
    return total
