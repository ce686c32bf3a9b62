"""What a penalty measures of x: x itself, its differences, or its second differences, with the operator's own borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convmat.geometry import MODES, Array, Axis, Border
from convmat.operators import Convolution

WORDS = ("identity", "gradient", "laplacian")


@dataclass(frozen=True)
class Borders:
    """What lies beyond the ends of x.

    Attributes
    ----------
    mode : str
        A padding mode.
    is_empty : bool
        Whether that is nothing, so that x is zero there.
    """

    mode: str
    is_empty: bool

    @classmethod
    def of(cls, axes: Sequence[Axis]) -> Borders:
        """Return the borders of a convolution; ends are free, as where they are repeated, if it pads none of its axes."""
        if not any(axis.before or axis.overrun for axis in axes):
            return cls("replicate", False)
        return cls(axes[0].mode, MODES[axes[0].mode].border is Border.NOTHING)


def penalty_terms(word: str, shape: tuple[int, ...], borders: Borders) -> list[Convolution]:
    """Return operators L₁, L₂, … with penalty Σ ‖Lᵢ·x‖², for arrays (C, *sizes); none for the identity.

    Parameters
    ----------
    word : str
        One of `WORDS`.
    shape : tuple of int
        The shape of x, channels first.
    borders : Borders
        What differences across the ends are taken to.
    """
    axes = [number for number, size in enumerate(shape[1:]) if size > 1]
    if word == "gradient":
        return [_convolution(_difference(axis, len(shape) - 1), shape, borders) for axis in axes]
    if word == "laplacian":
        kernel = sum(_second_difference(axis, axes, len(shape) - 1) for axis in axes)
        return [_convolution(np.asarray(kernel), shape, borders)] if axes else []
    return []


def penalty_symbol(word: str, angles: Sequence[Array]) -> Array:
    """Return Σ |L̂ᵢ|² for frequencies, where differences go on around circles or are mirrored with the edge.

    Parameters
    ----------
    word : str
        One of `WORDS`.
    angles : sequence of array
        What a frequency turns by from one position to the next, in radians, one array for each axis; they broadcast.
    """
    if word == "identity":
        return np.ones(np.broadcast_shapes(*(each.shape for each in angles)))
    total: Array = np.asarray(sum(2 - 2 * np.cos(each) for each in angles))
    return total if word == "gradient" else total**2


def _difference(axis: int, count: int) -> Array:
    """Return the kernel [−1, 1] along an axis."""
    return np.array([-1.0, 1.0]).reshape([2 if number == axis else 1 for number in range(count)])


def _second_difference(axis: int, axes: Sequence[int], count: int) -> Array:
    """Return the kernel [1, −2, 1] along an axis, in an array with three taps along each of some axes."""
    kernel = np.zeros([3 if number in axes else 1 for number in range(count)])
    place: list[int | slice] = [1 if number in axes else 0 for number in range(count)]
    place[axis] = slice(None)
    kernel[tuple(place)] = [1.0, -2.0, 1.0]
    return kernel


def _convolution(kernel: Array, shape: tuple[int, ...], borders: Borders) -> Convolution:
    """Return a convolution of each channel with a kernel of one to three taps along each axis."""
    channels = shape[0]
    # Where x is zero outside, there are differences across both ends; one that shows x again has one difference per step.
    pairs = {1: (0, 0), 2: (1, 1) if borders.is_empty else (0, 1), 3: (1, 1)}
    return Convolution(
        np.broadcast_to(kernel, (channels, 1, *kernel.shape)),
        shape,
        padding=[pairs[taps] for taps in kernel.shape],
        padding_mode=borders.mode,
        groups=channels,
    )
