"""At stride 1 a transposed convolution is a convolution: with the kernel turned round, and its channels exchanged."""

from __future__ import annotations

from convmat.geometry import Axis, ConvolutionGeometry


def has_dual(geometry: ConvolutionGeometry) -> bool:
    """Return whether Vᵀ is a convolution: with stride 1 on all axes."""
    return set(geometry.stride) == {1}


def dual_axes(geometry: ConvolutionGeometry) -> tuple[Axis, ...]:
    """Return the axes of the convolution that Vᵀ is; `before` may be negative where padding exceeds the kernel's reach."""
    return tuple(
        Axis(axis.outputs, axis.taps, 1, axis.reach - axis.before, 0, axis.dilation, axis.size)
        for axis in geometry.axes
    )
