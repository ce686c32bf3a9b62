"""Convolutions that are equivalent to another one: with fewer axes, or, as its transpose, with another kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from convmat.geometry._axis import Axis
from convmat.geometry._dtypes import flip_spatial
from convmat.geometry._modes import Border


def merge_axes(axes: Iterable[Axis]) -> list[Axis]:
    """Return axes of the same convolution, each one that the kernel does not extend over merged with the axis before it.

    Such an axis has one tap and gives back what it gets, as that of the colours of an image does where they come last. It
    multiplies what is between positions of the axis before it, as a larger dilation does. Lines are longer then.

    Examples
    --------
    >>> from convmat.geometry import Axis
    >>> merge_axes([Axis(100, 5, outputs=96), Axis(3, 1, outputs=3)])
    [Axis(size=300, taps=5, stride=1, before=0, after=0, dilation=3, outputs=288, mode='zeros')]
    """
    merged: list[Axis] = []
    for axis in axes:
        n, carried = axis.size, axis.taps == axis.stride == 1 and axis.before == 0 and axis.outputs == axis.size
        if carried and merged and merged[-1].border is Border.NOTHING and (merged[-1].stride == 1 or n == 1):
            last = merged.pop()
            sizes = last.before * n, last.after * n, last.dilation * n, last.outputs * n
            axis = Axis(last.size * n, last.taps, last.stride, *sizes)
        merged.append(axis)
    return merged


def dual_kernel(kernel: Any, groups: int, axes: int) -> Any:
    """Return the kernel of the dual, the convolution that a transpose is at stride 1: reversed, with channels exchanged.

    Parameters
    ----------
    kernel : array (C_out, C_in // groups, *k)
        Of NumPy or of CuPy.
    groups, axes : int
        Number of groups, and of spatial axes.

    Returns
    -------
    array (C_in, C_out // groups, *k)
        A view or a copy.
    """
    grouped = kernel.reshape(groups, len(kernel) // groups, *kernel.shape[1:]).swapaxes(1, 2)
    reverse: Any = flip_spatial(grouped, axes)
    return reverse.reshape(-1, *reverse.shape[2:])
