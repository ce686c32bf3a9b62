"""P in W = V·P: writes the padded input, or, as its transpose, adds borders back to where they were read from."""

from __future__ import annotations

from typing import Any

import numpy as np

from convmat.geometry import Array, Axis, ConvolutionGeometry

Border = tuple[slice, slice]


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
            out[..., border, *rest] = 0 if axis.mode == "zeros" else out[..., source, *rest]


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
        if axis.mode == "zeros":
            continue
        rest = _inside(geometry)[index + 2 :]
        for border, source in _borders(axis):
            added = y[..., border, *rest]
            if axis.mode == "replicate":
                # In double precision: a wide border is a sum of many terms.
                wide = y.dtype if y.dtype.kind in "iu" else np.result_type(y.dtype, np.float64)
                added = added.sum(axis=index - len(geometry.axes), keepdims=True, dtype=wide).astype(y.dtype)
            y[..., source, *rest] += added
    out[...] = y[_inside(geometry)]


def _inside(geometry: ConvolutionGeometry) -> tuple[Any, ...]:
    return (..., *(slice(axis.before, axis.before + axis.size) for axis in geometry.axes))


def _borders(axis: Axis) -> list[Border]:
    """Return, for either border that there is, its slice of the padded axis and that of what it reads, in its order."""
    n, before, after = axis.size, axis.before, axis.after
    first, end = before, before + n  # of the input, in the padded axis
    left, right = slice(0, before), slice(end, end + after)
    match axis.mode:
        case "circular":
            sources = slice(end - before, end), slice(first, first + after)
        case "reflect":
            sources = _backwards(first + before, before), _backwards(end - 2, after)
        case "symmetric":
            sources = _backwards(first + before - 1, before), _backwards(end - 1, after)
        case _:  # replicate; zeros read nothing
            sources = slice(first, first + 1), slice(end - 1, end)
    return [pair for pair in zip((left, right), sources, strict=True) if pair[0].stop > pair[0].start]


def _backwards(start: int, count: int) -> slice:
    stop = start - count
    return slice(start, stop if stop >= 0 else None, -1)
