"""W as small matrices, one for each frequency, where a Fourier or a cosine transform makes it block diagonal.

On circles of n positions, which the outputs' steps of `stride` fill, a convolution maps the input's frequency ν to the
output's frequency ν modulo m = n / stride. So W is unitarily equivalent to m blocks (for each axis); that of frequency f
has the kernel's transform at the `stride` frequencies f, f + m, f + 2·m, … side by side, divided by √stride. With stride
1 these are the blocks of Sedghi, Gupta & Long (2019, "The singular values of convolutional layers", ICLR); with a stride
those of Senderovich et al. (2022, "Towards practical control of singular values of convolutional layers", NeurIPS).

The transform is summed tap by tap: a kernel has few taps, and the error of such a sum is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convmat._runtime import count_workers, run_blocks
from convmat.geometry import Array, Axis, IntArray
from convmat.spectra._parts import Part

_EACH = 4  # pieces for each thread
_BYTES = 1 << 25  # of the blocks that are made at a time


class Blocks(NamedTuple):
    """Some of the blocks.

    Attributes
    ----------
    matrices : array (blocks, C_out, columns)
        The blocks.
    repeats : int64 array (blocks,)
        How many blocks have the singular values of each: 2, where one stands for its complex conjugate as well.
    """

    matrices: Array
    repeats: IntArray


class Torus(NamedTuple):
    """A circle for each axis, and what a kernel does on it.

    Attributes
    ----------
    size, stride, dilation, taps : int
        Number of positions, a multiple of the stride; step of the outputs; distance and number of the taps.
    """

    size: int
    stride: int
    dilation: int
    taps: int

    @classmethod
    def of(cls, axis: Axis, size: int) -> Torus:
        """Return a circle of `size` positions with the kernel and the steps of an axis."""
        return cls(size, axis.stride, axis.dilation, axis.taps)

    @property
    def outputs(self) -> int:
        """The number of outputs, and of output frequencies."""
        return self.size // self.stride

    def waves(self, frequencies: IntArray) -> Array:
        """Return exp(2πi · ν · position / size) of each tap, (aliases, frequencies, taps)."""
        aliases = np.arange(self.stride)[:, None, None] * self.outputs
        taps = np.arange(self.taps) * self.dilation % self.size
        # The angle is reduced as an integer, so that its error is that of one division, not of a large product.
        turns = (aliases + frequencies[:, None]) * taps % self.size
        waves: Array = np.exp(2j * np.pi / self.size * turns) / np.sqrt(self.stride)
        return waves


def periodic_blocks(kernel: Array, circles: list[Torus]) -> Iterator[Blocks]:
    """Return the blocks of a convolution on circles, some at a time.

    Parameters
    ----------
    kernel : array (G, C_out, C_in, *k)
        The kernel of each group.
    circles : list of Torus
        One for each axis.
    """
    if not circles:  # the channels alone
        yield Blocks(kernel, np.ones(len(kernel), np.int64))
        return
    is_real = kernel.dtype.kind != "c"
    ranges = [np.arange(circle.outputs) for circle in circles]
    repeats = np.ones(len(ranges[-1]), np.int64)
    if is_real:  # the block of −f is the conjugate of that of f, with its columns in another order
        half = circles[-1].outputs // 2 + 1
        ranges[-1] = ranges[-1][:half]
        repeats = np.where((ranges[-1] == 0) | (2 * ranges[-1] == circles[-1].outputs), 1, 2)
    groups, outer, inner = kernel.shape[:3]
    aliases = prod(circle.stride for circle in circles)
    each = groups * outer * inner * aliases * 16 * prod(map(len, ranges[1:]))
    for first in _chunks(len(ranges[0]), each):
        frequencies = [ranges[0][first], *ranges[1:]]
        own_repeats = repeats[first] if len(circles) == 1 else repeats
        result = kernel
        for circle, some in zip(circles, frequencies, strict=True):  # the first axis of taps becomes the last ones
            result = np.tensordot(result, circle.waves(some), (3, 2))
        # (G, C_out, C_in, aliases, frequencies, aliases, …)
        count = len(circles)
        order = [*range(4, 4 + 2 * count, 2), 0, 1, 2, *range(3, 3 + 2 * count, 2)]
        blocks = result.transpose(order).reshape(-1, outer, inner * aliases)
        number = prod(map(len, frequencies[:-1])) if count > 1 else 1
        yield Blocks(blocks, np.repeat(np.tile(own_repeats, number), groups))


def frequency_of(index: int, circles: Sequence[Torus], is_real: bool) -> tuple[int, ...]:
    """Return the frequency of a block by its number, groups not counted, in the order of `periodic_blocks`."""
    counts = [circle.outputs for circle in circles]
    if is_real and circles:
        counts[-1] = counts[-1] // 2 + 1
    return tuple(int(each) for each in np.unravel_index(index, counts))


def waves_of(rows: Array, frequency: tuple[int, ...], circles: Sequence[Torus], axes: Sequence[Axis]) -> Array:
    """Return the inputs of one group that belong to columns of a frequency's block, (rows, C_in, *sizes of the circles).

    They are Σ rows[(i, j)] · exp(2πi · ν_j · (p + before) / size) for every input (i, p), with the alias j of the frequency.
    """
    inner = rows.shape[1] // prod(circle.stride for circle in circles)
    result = rows.reshape(len(rows), inner, *(circle.stride for circle in circles))
    for axis, circle, each in zip(axes, circles, frequency, strict=True):
        aliases = each + np.arange(circle.stride) * circle.outputs
        turns = aliases[:, None] * (np.arange(circle.size) + axis.before) % circle.size
        result = np.tensordot(result, np.exp(2j * np.pi / circle.size * turns) / np.sqrt(circle.size), (2, 0))
    return result


def cosine_blocks(part: Part) -> Iterator[Blocks]:
    """Return the blocks of an even kernel under "symmetric" padding, some at a time.

    The DCT-II makes W block diagonal (Strang 1999, "The discrete cosine transform", SIAM Review 41). An axis' basis vector
    j is cos(π·j·(p + ½)/n) at position p. The kernel multiplies it by Σ K[t]·cos(π·j·(t − c)·dilation/n) with the kernel's
    centre c; the sines cancel.
    """
    groups, outer, inner = part.kernel.shape[:3]
    each = groups * outer * inner * 8 * prod(axis.size for axis in part.axes[1:])
    for first in _chunks(part.axes[0].size, each):
        result = part.kernel
        for number, axis in enumerate(part.axes):
            frequencies = np.arange(axis.size)[first if number == 0 else slice(None)]
            twice = (2 * np.arange(axis.taps) - axis.taps + 1) * axis.dilation  # the distance from the centre, doubled
            turns = frequencies[:, None] * twice % (4 * axis.size)
            result = np.tensordot(result, np.cos(np.pi / (2 * axis.size) * turns), (3, 1))
        blocks = np.moveaxis(result, (0, 1, 2), (-3, -2, -1)).reshape(-1, outer, inner)
        yield Blocks(blocks, np.ones(len(blocks), np.int64))


def part_blocks(part: Part) -> Iterator[Blocks]:
    """Return the blocks of a part that is periodic, or else even and mirrored."""
    if part.is_periodic:
        return periodic_blocks(part.kernel, [Torus.of(axis, axis.size) for axis in part.axes])
    return cosine_blocks(part)


def in_pieces(matrices: Array, function: Callable[[Array], Any]) -> Any:
    """Return what a function returns of matrices, an array or several: piece by piece, in threads with their own BLAS."""
    workers = count_workers(None)
    size = max(1, -(-len(matrices) // (_EACH * workers)))
    firsts = range(0, len(matrices), size)
    results: list[Any] = [None] * len(firsts)

    def run(number: int, first: int) -> None:
        results[number] = function(matrices[first : first + size])

    run_blocks(run, list(enumerate(firsts)), workers, single_threaded_blas=True)
    if isinstance(results[0], tuple):
        return tuple(map(np.concatenate, zip(*results, strict=True)))
    return np.concatenate(results)


def _chunks(count: int, each: int) -> Iterator[slice]:
    """Cut so many steps of `each` bytes into chunks of about `_BYTES`."""
    size = max(1, _BYTES // max(1, each))
    return (slice(first, first + size) for first in range(0, count, size))
