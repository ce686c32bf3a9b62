"""The convolution that AᴴA is, where all its rows are alike."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple, Self

import numpy as np

from convmat.geometry import Array, Axis, Border, ConvolutionGeometry
from convmat.matrices._gram import pair_products
from convmat.matrices._gram_axis import Meeting, contract


class GramConvolution(NamedTuple):
    """A convolution with stride 1 and as many outputs as inputs.

    Attributes
    ----------
    kernel : array
        Its kernel, with channels where the geometry has them.
    padding : list of (int, int)
        Before and after each axis.
    dilation : list of int
        Of each axis.
    padding_mode : str
        "zeros" or "circular".
    """

    kernel: Array
    padding: list[tuple[int, int]]
    dilation: list[int]
    padding_mode: str


def gram_convolution(geometry: ConvolutionGeometry, kernel: Array, transposed: bool) -> GramConvolution | None:
    """Return the convolution that AᴴA is, with A = W or Wᵀ; None if it is none, or wraps around its axis more than once.

    WᴴW is one where every output that reads an input is there, and all inputs are read alike: with stride 1 and zeros on
    both sides as far as the kernel reaches, or with stride 1 around a circle. conj(W)Wᵀ is one where no output reads outside
    of the input, or where the outputs' steps fill a circle.
    """
    axes = [_Lags.of(axis, transposed) for axis in geometry.axes]
    modes = {"zeros", "circular"}
    for lags in axes:
        modes &= lags.modes
    if not modes:
        return None
    pairs = pair_products(geometry, kernel, transposed)
    for lags in axes:
        pairs = np.moveaxis(contract(pairs, 2 * lags.most + 1, lags.meetings), 0, -4)
    count = len(axes)
    result = pairs.transpose(count, count + 1, count + 2, *range(count))
    channels = (result.shape[0] * result.shape[1], result.shape[2]) if geometry.has_channels else ()
    result = np.ascontiguousarray(result.reshape(*channels, *result.shape[3:]))
    padding = [(lags.most * lags.dilation,) * 2 for lags in axes]
    return GramConvolution(result, padding, [lags.dilation for lags in axes], max(modes))


class _Lags(NamedTuple):
    """The columns that each row of an axis meets, up to `most` steps of `dilation` away on either side.

    Attributes
    ----------
    meetings : list of Meeting
        How a row meets them.
    modes : set of str
        The padding modes under which all rows do so.
    """

    most: int
    dilation: int
    meetings: list[Meeting]
    modes: set[str]

    @classmethod
    def of(cls, axis: Axis, transposed: bool) -> Self:
        """Return what the middle rows of an axis meet, and where that holds for all rows."""
        common = gcd(axis.stride, axis.dilation)
        # A lag of 1 is so many positions, and so many taps less.
        dilation, step = (axis.dilation // common, axis.stride // common) if transposed else (axis.dilation, -1)
        most = (axis.taps - 1) // abs(step)
        lags = np.arange(-most, most + 1)
        meetings = []
        for tap in range(axis.taps):
            taps = tap - lags * step
            inside = (taps >= 0) & (taps < axis.taps)
            meetings.append(Meeting(tap, np.flatnonzero(inside), taps[inside]))
        return cls(most, dilation, meetings, _modes(axis, transposed, most * dilation))


def _modes(axis: Axis, transposed: bool, reach: int) -> set[str]:
    """Return the padding modes under which a convolution that reaches so far has all rows of the Gram matrix."""
    modes = set()
    pads = axis.before > 0 or axis.overrun > 0
    around = axis.border is Border.SHIFTED and axis.outputs * axis.stride == axis.size
    if transposed:
        is_open = not pads
    else:
        around = around and axis.stride == 1
        all_there = axis.before >= axis.reach and axis.outputs >= axis.size + axis.before
        is_open = axis.stride == 1 and all_there and (axis.border is Border.NOTHING or not pads)
    if is_open:
        modes.add("zeros")
    if (around or (is_open and not reach)) and reach <= axis.rows(not transposed):
        modes.add("circular")
    return modes
