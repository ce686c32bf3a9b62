"""P in W = V·P: writes the padded input, or, as its transpose, adds borders back to where they were read from."""

from __future__ import annotations

from typing import Any

import numpy as np

from convmat.geometry import MODES, Array, Axis, Border, ConvolutionGeometry


def pad(x: Array, geometry: ConvolutionGeometry, out: Array) -> None:
    """Write the padded input.

    Parameters
    ----------
    x : array (..., *spatial_input)
        The input.
    geometry : ConvolutionGeometry
        The convolution whose padding is meant.
    out : array (..., *padded)
        All of it is overwritten.
    """
    out[_inside(geometry)] = x
    for index, axis in enumerate(geometry.axes):
        # Axes before this one are padded already, those after it not yet.
        rest = _inside(geometry)[index + 2 :]
        for border, source in _borders(axis):
            out[..., border, *rest] = 0 if axis.border is Border.NOTHING else out[..., source, *rest]


def fold(y: Array, geometry: ConvolutionGeometry, out: Array) -> None:
    """Apply the transpose of `pad`.

    Parameters
    ----------
    y : array (..., *padded)
        Overwritten on the way.
    geometry : ConvolutionGeometry
        The convolution whose padding is meant.
    out : array (..., *spatial_input)
        All of it is overwritten.
    """
    for index, axis in reversed(list(enumerate(geometry.axes))):
        if axis.border is Border.NOTHING:
            continue
        rest = _inside(geometry)[index + 2 :]
        for border, source in _borders(axis):
            added = y[..., border, *rest]
            if axis.border is Border.EDGE:
                # In double precision: a wide border is a sum of many terms.
                wide = y.dtype if y.dtype.kind in "iu" else np.result_type(y.dtype, np.float64)
                added = added.sum(axis=index - len(geometry.axes), keepdims=True, dtype=wide).astype(y.dtype)
            y[..., source, *rest] += added
    out[...] = y[_inside(geometry)]


def _inside(geometry: ConvolutionGeometry) -> tuple[Any, ...]:
    return (..., *(slice(axis.before, axis.before + axis.size) for axis in geometry.axes))


def _borders(axis: Axis) -> list[tuple[slice, slice]]:
    """Return, for either border that there is, its slice of the padded axis and that of what it reads, in its order.

    Of 4 inputs with padding 2 under reflect, the slices 0:2 and 6:8 read 4:2:-1 and 4:2:-1 of ``2 1 | 0 1 2 3 | 2 1``.
    """
    n, before, after = axis.size, axis.before, axis.after
    end = before + n  # of the input, in the padded axis
    borders = slice(0, before), slice(end, end + after)
    if images := MODES[axis.mode].images(n):
        firsts = (image.sign * (position - image.offset) for image, position in zip(images, (-before, n), strict=True))
        sources = [
            _progression(before + first, count, image.sign)
            for first, count, image in zip(firsts, (before, after), images, strict=True)
        ]
    else:  # the edge, or nothing that is read
        sources = [slice(before, before + 1), slice(end - 1, end)]
    return [(border, source) for border, source in zip(borders, sources, strict=True) if border.stop > border.start]


def _progression(start: int, count: int, step: int) -> slice:
    stop = start + count * step
    return slice(start, stop if stop >= 0 else None, step)
