"""The tiles of the engine `fft`: how long and how many they are, where they lie, and what a product in them costs.

Names on one axis: `length` of a tile's transform, `reach` of the kernel (dilation·(k − 1)), and `step` from a tile to the
next, which is length − reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, log2, prod
from typing import Any

import numpy as np

from convmat.geometry import Axis, ConvolutionGeometry

Index = tuple[Any, ...]

_CACHED = 1 << 16  # bytes of spectra that are multiplied by one call: more would leave the first-level cache
_TILE = 12 << 20  # bytes of a tile's channels in and out at most, in double precision, if there is such a tile
_TOGETHER = 24 << 20  # bytes of tiles that share the kernel's spectrum at least; as many as that has if it is larger
_MANY = 12  # channels, as the harmonic mean of a group's, above which spectra are multiplied as matrices
_SERIAL = 1 << 17  # numbers to transform that are worth another thread, which takes long to wake up
_CALL = 7500  # operations, of those that `count_operations` counts, in the time of a NumPy call


class _Estimate:
    """Constants of 2026-11; `python -m benchmarks.peers --regret` prints estimate / measured time.

    Operations are for each number of a tile, or of a line, which is what a transform of one axis takes at a time.
    """

    LINE = 8  # operations of a line, besides log2(length)
    ODD = 0.5  # operations for each log2 of a line's odd factors, which take longer
    LONG_LINE, LONG = 13, 5  # log2 of the longest line in a first-level cache, and operations for each doubling beyond
    LARGE_PLANE, LARGE = 17, 20  # log2 of the largest channel of a tile in a second-level cache, and the same
    PRODUCT = 8  # operations of a complex multiplication and addition, of half the frequencies
    ONE_CALL, TERM_CALLS = 20, 2  # NumPy calls of a tile, and for each term of a sum
    MATRIX_PRODUCT, THIN = 0.65, 26  # operations for each pair of channels, and what few channels add, divided by them
    READ = 5  # operations for each pair, to read the kernel's spectrum once
    COPIED = 1.8  # × a transform, with the copies from the inputs and to the outputs
    STEP_CALLS = 20  # calls to multiply tiles together
    SHARED_STEP_CALLS = 100  # the same, as other threads wake up
    COPY_CALLS = 4  # calls to copy a tile
    PAIRS = 8  # pairs of channels whose products take as long as the transform of one channel


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of a geometry in a dtype.

    Attributes
    ----------
    geometry, dtype, workers
        What they are for.
    lengths, tiles : tuple of int
        The length of a tile's transform, and the number of tiles, on each axis.
    matrices : bool
        Whether spectra are multiplied as matrices.
    plane : int
        Bytes of the spectrum of one channel of a tile.
    together : int
        How many tiles are multiplied together.
    work : int
        How many numbers a tile has to transform, and what takes as long.
    """

    geometry: ConvolutionGeometry
    dtype: np.dtype[Any]
    workers: int
    lengths: tuple[int, ...]
    tiles: tuple[int, ...]
    matrices: bool
    plane: int
    together: int
    work: int

    @property
    def steps(self) -> tuple[int, ...]:
        """Positions from a tile to the next on each axis, which are those of its outputs at stride 1."""
        return tuple(length - axis.reach for length, axis in zip(self.lengths, self.geometry.axes, strict=True))

    def threads(self, tiles: int) -> int:
        """Return how many threads are worth waking for so many tiles."""
        return self.workers if tiles * self.work > _SERIAL else 1

    def inputs(self, tile: Sequence[int]) -> Index:
        """Return, on each axis, the inputs that a tile reads, the last ones maybe beyond the end."""
        axes = zip(tile, self.steps, self.lengths, strict=True)
        return (..., *(slice(number * step, number * step + length) for number, step, length in axes))

    def outputs(self, tile: Sequence[int]) -> tuple[Index, Index]:
        """Return, on each axis, the outputs that a tile computes, and their positions in it.

        Output o is at o·stride. With stride 3 and step 8, tile 1 has the positions 8 to 15, where outputs 3, 4 and 5 are at
        9, 12 and 15: slice(3, 6), and slice(1, 10, 3) in the tile.
        """
        outputs, positions = [], []
        for number, step, axis in zip(tile, self.steps, self.geometry.axes, strict=True):
            begin = number * step
            first = -(-begin // axis.stride)
            last = min(axis.outputs, -(-(begin + step) // axis.stride))
            count = max(0, last - first)  # none where the stride is longer than the step
            offset = first * axis.stride - begin if count else 0
            outputs.append(slice(first, first + count))
            positions.append(slice(offset, offset + count * axis.stride, axis.stride))
        return (..., *outputs), (..., *positions)


def plan_tiles(geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Tiling:
    """Return the tiles that cost least."""
    lengths, tiles = _best_tiles(geometry, workers)
    matrices, plane = _mean_channels(geometry) > _MANY, _spectrum_bytes(lengths, dtype)
    together = _count_together(geometry, plane) if matrices else 1
    return Tiling(geometry, dtype, workers, lengths, tiles, matrices, plane, together, _work(geometry, lengths))


@lru_cache
def _best_tiles(geometry: ConvolutionGeometry, workers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the length of a tile's transform, and the number of tiles, on each axis, that cost least for one array."""

    def cost(choice: tuple[tuple[int, int], ...]) -> float:
        lengths, tiles = zip(*choice, strict=True)
        operations, calls = count_operations(geometry, lengths, tiles, 1, workers)
        return operations + _CALL * calls

    most = _TILE // (8 * (geometry.in_channels + geometry.out_channels))
    choices = list(product(*map(_tile_lengths, geometry.axes)))
    fitting = [choice for choice in choices if prod(length for length, _ in choice) <= most]
    lengths, tiles = zip(*min(fitting or choices, key=cost), strict=True)
    return lengths, tiles


def _tile_lengths(axis: Axis) -> Iterator[tuple[int, int]]:
    """Yield what there is to choose from on an axis: a length, and how many tiles of it give all outputs."""
    span = (axis.outputs - 1) * axis.stride + 1  # outputs at stride 1
    tiles, needed = 1, span + axis.reach
    # Steps below 8, or a quarter of the reach, would compute the same positions many times.
    while tiles == 1 or needed - axis.reach >= max(8, axis.reach // 4):
        # Multiples of 16 may be faster than the next length: they have fewer odd factors.
        length = min(fast_length(needed), 16 * fast_length(ceil(needed / 16)), key=lambda n: n * _line(n))
        yield length, ceil(span / (length - axis.reach))
        tiles += 1 << max(0, tiles.bit_length() - 2)  # 1, 2, 3, 4, 6, 8, 12, 16, …
        needed = ceil(span / tiles) + axis.reach


def count_operations(
    geometry: ConvolutionGeometry, lengths: tuple[int, ...], tiles: tuple[int, ...], batch: int, workers: int
) -> tuple[float, float]:
    """Return operations of one of the threads, a few for each number and step of a transform, and NumPy calls."""
    size, blocks = prod(lengths), batch * prod(tiles)
    planes, pairs = geometry.in_channels + geometry.out_channels, count_pairs(geometry)
    transforms = planes * (sum(map(_line, lengths)) + _Estimate.LARGE * max(0.0, log2(size) - _Estimate.LARGE_PLANE))
    workers = workers if blocks * _work(geometry, lengths) > _SERIAL else 1
    shared = (1 + workers) / 2  # transforms gain less from threads than all else
    if _mean_channels(geometry) > _MANY:
        reads = ceil(blocks / _count_together(geometry, _spectrum_bytes(lengths, np.dtype(np.float64))))
        each = _Estimate.MATRIX_PRODUCT + _Estimate.THIN / _mean_channels(geometry)
        step_calls = _Estimate.SHARED_STEP_CALLS if workers > 1 else _Estimate.STEP_CALLS
        calls = step_calls * reads + _Estimate.COPY_CALLS * blocks
        products = (blocks * each + _Estimate.READ * reads) * pairs / workers
        return size * (_Estimate.COPIED * blocks * transforms / shared + products), calls
    # Real numbers have half the last axis' frequencies, and the one in the middle.
    products = _Estimate.PRODUCT * pairs * (1 + 2 / lengths[-1])
    rows, terms = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
    several_rows, several_groups = count_at_once(rows, geometry.groups, 8 * size)
    sums = ceil(rows / several_rows) * ceil(geometry.groups / several_groups)
    calls = blocks * (_Estimate.ONE_CALL + _Estimate.TERM_CALLS * terms * sums)
    if blocks == 1:  # threads share its transforms, where those are more than one line
        return size * (transforms / (shared if planes > 2 or len(lengths) > 1 else 1) + products), calls
    # Threads that wake up late or have fewer tiles cost some of a tile.
    return size * (blocks + workers - 1) / workers * (transforms + products), calls


def _line(length: int) -> float:
    """Return the operations for each number of a line: odd factors take longer, and so do lines that leave a cache."""
    odd = length // (length & -length)
    beyond = max(0.0, log2(length) - _Estimate.LONG_LINE)
    return _Estimate.LINE + log2(length) + _Estimate.ODD * log2(odd) + _Estimate.LONG * beyond


def _work(geometry: ConvolutionGeometry, lengths: tuple[int, ...]) -> int:
    """Return the numbers of a tile to transform, and so many more as their products take."""
    return prod(lengths) * (geometry.in_channels + geometry.out_channels + count_pairs(geometry) // _Estimate.PAIRS)


def count_pairs(geometry: ConvolutionGeometry) -> int:
    """Return the number of pairs of channels that see each other."""
    return geometry.in_channels * geometry.out_channels // geometry.groups


def _mean_channels(geometry: ConvolutionGeometry) -> float:
    """Return the harmonic mean of the channels in and out of a group: twice the products for each transform."""
    return 2 * count_pairs(geometry) / (geometry.in_channels + geometry.out_channels)


def _spectrum_bytes(lengths: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the bytes of the spectrum of a tile's channel; that of real numbers has half of the last axis' frequencies."""
    *others, last = lengths
    frequencies = last if dtype.kind == "c" else last // 2 + 1
    return prod(others) * frequencies * np.result_type(dtype, np.complex64).itemsize


def _count_together(geometry: ConvolutionGeometry, plane: int) -> int:
    """Return how many tiles are multiplied together as matrices."""
    room = max(_TOGETHER, count_pairs(geometry) * plane)
    return max(1, room // (2 * (geometry.in_channels + geometry.out_channels) * plane))  # 2: tiles, and their spectra


def count_at_once(rows: int, groups: int, row_bytes: int) -> tuple[int, int]:
    """Return how many rows, and how many groups of them, are multiplied by one call."""
    most = max(1, _CACHED // row_bytes)
    return min(rows, most), min(groups, max(1, most // rows))


def fast_length(least: int) -> int:
    """Return the next length without a prime factor above 5, as `scipy.fft.next_fast_len` does, which plans need not import.

    Examples
    --------
    >>> [fast_length(least) for least in (1, 7, 1001, 65537)]
    [1, 8, 1024, 65610]
    """
    best, fives = 1 << (least - 1).bit_length(), 1
    while fives < best:
        odd = fives
        while odd < best:
            best = min(best, odd << (-(-least // odd) - 1).bit_length())
            odd *= 3
        fives *= 5
    return best
