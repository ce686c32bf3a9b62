"""Axes that nothing happens on, merged with the axis before them, so that threads find long lines to work on."""

from __future__ import annotations

from collections.abc import Iterable

from convmat.geometry import Axis, Border


def merge_axes(axes: Iterable[Axis]) -> list[Axis]:
    """Return axes that describe the same convolution, fewer where a position of one is only carried along.

    Such an axis has one tap and gives back what it gets, as that of the colours of an image does where they come last. It
    multiplies what is between positions of the axis before it, as a larger dilation does.

    Examples
    --------
    >>> from convmat.geometry import Axis
    >>> merge_axes([Axis(100, 5, outputs=96), Axis(3, 1, outputs=3)])
    [Axis(size=300, taps=5, stride=1, before=0, after=0, dilation=3, outputs=288, mode='zeros')]
    """
    result: list[Axis] = []
    for axis in axes:
        carried = axis.taps == axis.stride == 1 and axis.before == 0 and axis.outputs == axis.size
        if carried and result and result[-1].stride == 1 and result[-1].border is Border.NOTHING:
            last, size = result.pop(), axis.size
            axis = Axis(
                last.size * size,
                last.taps,
                1,
                last.before * size,
                last.after * size,
                last.dilation * size,
                last.outputs * size,
            )
        result.append(axis)
    return result
