"""The engine that multiplies spectra: overlap-save forward, and as its transpose overlap-add, in tiles of a good size.

Its cost grows with the logarithm of the kernel's size instead of with the size, so it wins for large kernels and few
channels. A NaN or Inf reaches all outputs of its tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, log2, prod
from threading import Lock
from typing import Any

import numpy as np

from convmat.axis import Axis
from convmat.dtypes import Array
from convmat.engines.base import Cost, Machine, PerDirection
from convmat.geometry import ConvolutionGeometry
from convmat.parallel import run_blocks

Index = tuple[Any, ...]

_CACHED = 1 << 16  # bytes of spectra that are multiplied by one call: more would leave the first-level cache


class FFTEngine:
    """Products as multiplications of spectra."""

    name = "fft"
    pads: frozenset[str] = frozenset()
    automatic = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse integers, which a Fourier transform does not keep exact."""
        if dtype.kind in "iu":
            return f"a Fourier transform is not exact for integers, got {dtype}; use engine='gemm' or 'csr'"
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count the transforms of all channels and the products of their spectra, tile by tile."""
        lengths, tiles = _tile(geometry)
        size, count = prod(lengths), batch * prod(tiles)
        real = 1 if dtype.kind == "c" else 0.5  # share of a spectrum that is kept
        planes = geometry.in_channels + geometry.out_channels
        pairs = geometry.out_channels * geometry.in_channels // geometry.groups
        transforms = 5 * size * log2(max(2, size)) * planes * real
        products = 8 * size * real * pairs
        complex_size = np.result_type(dtype, np.complex64).itemsize
        moved = count * size * real * complex_size * (4 * planes + 2 * pairs)
        spectra = pairs * size * real * complex_size
        rate = machine.fft * 8 / np.finfo(dtype).dtype.itemsize
        work = transforms / rate + products / machine.stream
        seconds = (1.3 if transposed else 1) * count * work / min(machine.workers, max(count, 1))
        rows, terms = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
        if transposed:
            rows, terms = terms, rows
        steps = -(-rows // _rows_at_once(rows, int(size * real * complex_size)))
        seconds += count * (25 + geometry.groups * steps * 2 * terms) * machine.call
        return Cost(count * (transforms + products), moved, seconds, transforms * pairs / planes / rate, spectra)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Choose the tiles."""
        lengths, tiles = _tile(geometry)
        return _Plan(geometry, workers, lengths, tiles)

    def bind(self, plan: Any, kernel: Array) -> FFTProducts:
        """Return the products of one kernel."""
        return FFTProducts(plan, kernel)


@dataclass(frozen=True, slots=True)
class _Plan:
    geometry: ConvolutionGeometry
    workers: int
    lengths: tuple[int, ...]  # of a tile's transform on each axis
    tiles: tuple[int, ...]  # number of tiles on each axis

    @property
    def steps(self) -> tuple[int, ...]:
        """Outputs of a tile on each axis, before the stride takes its share."""
        return tuple(length - axis.reach for length, axis in zip(self.lengths, self.geometry.axes, strict=True))


class FFTProducts:
    """Products with V and Vᵀ; the kernel's spectrum is computed once for each direction."""

    def __init__(self, plan: _Plan, kernel: Array) -> None:
        self._plan, self._kernel = plan, kernel
        self._spectra = PerDirection[Array]()
        self._complex = kernel.dtype.kind == "c"
        self._axes = tuple(range(-len(plan.lengths), 0))

    def forward(self, x: Array, out: Array) -> None:
        """Correlate tile by tile, keeping the outputs that the wrap-around does not reach."""
        plan = self._plan

        def correlate(item: int, *tile: int) -> None:
            spans = list(zip(tile, plan.steps, plan.lengths, strict=True))
            inputs: Index = (item, ..., *(slice(i * step, i * step + length) for i, step, length in spans))
            result = self._inverse(self._product(False, self._transform(x[inputs])))
            target, source = self._outputs(tile)
            out[item][target] = result[source]

        self._run(correlate, len(x))

    def transpose(self, y: Array, out: Array) -> None:
        """Convolve the zero-stretched outputs of each tile, and add up where tiles overlap."""
        plan = self._plan
        stretched_shape = (y.shape[1], *plan.lengths)
        out[...] = 0
        lock = Lock()

        def convolve(item: int, *tile: int) -> None:
            stretched = np.zeros(stretched_shape, y.dtype)
            source, target = self._outputs(tile)
            stretched[target] = y[item][source]
            result = self._inverse(self._product(True, self._transform(stretched)))
            begins = [i * step for i, step in zip(tile, plan.steps, strict=True)]
            sizes = [
                min(length, axis.size - begin)
                for begin, length, axis in zip(begins, plan.lengths, plan.geometry.axes, strict=True)
            ]
            inputs: Index = (..., *(slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True)))
            kept: Index = (..., *(slice(0, size) for size in sizes))
            with lock:
                out[item][inputs] += result[kept]

        self._run(convolve, len(y))

    def _run(self, function: Any, items: int) -> None:
        blocks = list(product(range(items), *map(range, self._plan.tiles)))
        run_blocks(function, blocks, self._plan.workers)

    def _outputs(self, tile: tuple[int, ...]) -> tuple[Index, Index]:
        """Return, on each axis, the outputs that begin in a tile, and where they begin in it."""
        outputs, places = [], []
        for index, step, axis in zip(tile, self._plan.steps, self._plan.geometry.axes, strict=True):
            begin = index * step
            first = -(-begin // axis.stride)
            last = max(first, min(axis.outputs, -(-(begin + step) // axis.stride)))
            place = first * axis.stride - begin
            outputs.append(slice(first, last))
            places.append(
                slice(place, place + (last - first) * axis.stride, axis.stride) if last > first else slice(0, 0)
            )
        return (..., *outputs), (..., *places)

    def _spectrum(self, transposed: bool) -> Array:
        """Return the kernel's spectrum (groups, C_out / groups, C_in / groups, *frequencies)."""
        geometry = self._plan.geometry
        kernel = self._kernel.reshape(geometry.groups, -1, *self._kernel.shape[1:])
        stretched = np.zeros((*kernel.shape[:3], *self._plan.lengths), kernel.dtype)
        # Tap t sits at t·dilation for the transpose, and backwards from 0 for a correlation.
        sign = 1 if transposed else -1
        places = [
            sign * axis.dilation * np.arange(axis.taps) % length
            for axis, length in zip(geometry.axes, self._plan.lengths, strict=True)
        ]
        where: Index = (slice(None),) * 3 + np.ix_(*places)
        stretched[where] = kernel
        return self._transform(stretched)

    def _product(self, transposed: bool, x: Array) -> Array:
        """Sum over the channels of a group; forward sums over the inputs, transposed over the outputs."""
        spectrum = self._spectra.get(transposed, self._spectrum)
        groups, outer, inner = spectrum.shape[:3]
        x = x.reshape(groups, len(x) // groups, *x.shape[1:])
        rows, terms = (inner, outer) if transposed else (outer, inner)
        result = np.empty((groups, rows, *x.shape[2:]), x.dtype)
        # As many rows at once as stay in a cache: fewer calls.
        step = _rows_at_once(rows, prod(x.shape[2:]) * x.itemsize)
        scratch = np.empty((step, *x.shape[2:]), x.dtype)
        for group, first in product(range(groups), range(0, rows, step)):
            total = result[group, first : first + step]
            for term in range(terms):
                factors = (spectrum[group, term] if transposed else spectrum[group, :, term])[first : first + step]
                if term == 0:
                    np.multiply(factors, x[group, term], out=total)
                else:
                    np.multiply(factors, x[group, term], out=scratch[: len(total)])
                    total += scratch[: len(total)]
        return result.reshape(groups * rows, *x.shape[2:])

    def _transform(self, x: Array) -> Array:
        import scipy.fft  # here, since it takes a tenth of the time to import this package

        function: Any = scipy.fft.fftn if self._complex else scipy.fft.rfftn
        spectrum: Array = function(x, self._plan.lengths, self._axes, workers=self._transform_workers())
        return spectrum

    def _inverse(self, spectrum: Array) -> Array:
        import scipy.fft

        function: Any = scipy.fft.ifftn if self._complex else scipy.fft.irfftn
        x: Array = function(spectrum, self._plan.lengths, self._axes, workers=self._transform_workers())
        return x

    def _transform_workers(self) -> int:
        return self._plan.workers if prod(self._plan.tiles) == 1 else 1


def _rows_at_once(rows: int, row_bytes: int) -> int:
    return max(1, min(rows, _CACHED // row_bytes))


def _tile(geometry: ConvolutionGeometry) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the length of a tile's transform, and the number of tiles, on each axis."""
    choices = [_tile_axis(axis) for axis in geometry.axes]
    return tuple(length for length, _ in choices), tuple(count for _, count in choices)


def _tile_axis(axis: Axis) -> tuple[int, int]:
    """Choose the length whose transforms cost least for all outputs of one axis."""
    span = (axis.outputs - 1) * axis.stride + 1  # outputs before the stride
    best: tuple[float, int, int] | None = None
    length = axis.reach + 1
    while True:
        length = _fast_length(max(length, min(64, span + axis.reach)))
        count = ceil(span / (length - axis.reach))
        cost = count * length * (log2(length) + 8)  # 8: passes over a tile besides its transform
        if best is None or cost < best[0]:
            best = (cost, length, count)
        if count == 1:
            return best[1], best[2]
        length = length * 5 // 4 + 1


def _fast_length(least: int) -> int:
    """Return the next length without a prime factor above 5, as `scipy.fft.next_fast_len` does, which plans need not import.

    Examples
    --------
    >>> [_fast_length(least) for least in (1, 7, 1001, 65537)]
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


engine = FFTEngine()
