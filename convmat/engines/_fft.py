"""The engine that multiplies spectra: overlap-save forward, and as its transpose overlap-add, in tiles of a good size.

Its cost grows with the logarithm of the kernel's size instead of with the size, so it wins for large kernels and few
channels. A NaN or Inf reaches all outputs of its tile.

With few channels, spectra are multiplied element by element, tile by tile, while they are in a cache. With many, reading the
kernel's spectrum takes longer than anything else. Then many tiles share it: at each frequency, their channels are a matrix,
and so is the kernel. Transforms of such tiles write channels last, so that BLAS takes these matrices as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise, product
from math import ceil, log2, prod
from typing import Any

import numpy as np

from convmat._runtime import InOrder, run_blocks, undisturbed
from convmat.engines._base import Cost, Machine, PerDirection
from convmat.engines._sums import cuts, matmul
from convmat.geometry import Array, Axis, ConvolutionGeometry

Index = tuple[Any, ...]
Block = tuple[int, ...]  # which array of a batch, and which tile on each axis

_CACHED = 1 << 16  # bytes of spectra that are multiplied by one call: more would leave the first-level cache
_TILE = 12 << 20  # bytes of a tile's channels in and out at most, in double precision, if there is such a tile
_TOGETHER = 24 << 20  # bytes of tiles that share the kernel's spectrum at least; as many as that has if it is larger
_MANY = 12  # channels, as the harmonic mean of a group's, above which spectra are multiplied as matrices
_SERIAL = 1 << 17  # numbers to transform that are worth another thread, which takes long to wake up
_CALL = 7500  # operations, of those that `_count` counts, in the time of a NumPy call


class FFTEngine:
    """Products as multiplications of spectra."""

    name = "fft"
    pads: frozenset[str] = frozenset()
    automatic = True
    local = False
    silent = False

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse integers, which a Fourier transform does not keep exact."""
        if dtype.kind in "iu":
            return f"a Fourier transform is not exact for integers, got {dtype}; use engine='gemm' or 'csr'"
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count the transforms of all channels and the products of their spectra, tile by tile."""
        plan = _plan(geometry, dtype, machine.workers)
        size, count = prod(plan.lengths), batch * prod(plan.tiles)
        real = 1 if dtype.kind == "c" else 0.5  # share of a spectrum that is kept
        planes, pairs = geometry.in_channels + geometry.out_channels, _pairs(geometry)
        transforms = 5 * size * log2(max(2, size)) * planes * real
        products = 8 * size * real * pairs
        reads = ceil(count / plan.together)
        moved = plan.plane * (4 * count * planes + 2 * reads * pairs)
        rate = machine.fft * (8 / np.finfo(dtype).dtype.itemsize) ** 0.75
        operations, calls = _count(geometry, plan.lengths, plan.tiles, batch, machine.workers)
        seconds = 2 * real * operations / rate + calls * machine.call
        setup = transforms * pairs / planes / rate
        return Cost(count * (transforms + products), moved, seconds, setup, pairs * plan.plane)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Choose the tiles."""
        return _plan(geometry, dtype, workers)

    def bind(self, plan: Any, kernel: Array) -> FFTProducts:
        """Return the products of one kernel."""
        return FFTProducts(plan, kernel)


@dataclass(frozen=True, slots=True)
class _Plan:
    geometry: ConvolutionGeometry
    dtype: np.dtype[Any]
    workers: int
    lengths: tuple[int, ...]  # of a tile's transform on each axis
    tiles: tuple[int, ...]  # number of tiles on each axis
    matrices: bool  # whether spectra are multiplied as matrices
    plane: int  # bytes of the spectrum of a tile's channel
    together: int  # number of tiles that are multiplied together
    work: int  # numbers to transform for a tile, and what takes as long

    @property
    def steps(self) -> tuple[int, ...]:
        """Outputs of a tile on each axis, before the stride takes its share."""
        return tuple(length - axis.reach for length, axis in zip(self.lengths, self.geometry.axes, strict=True))

    def threads(self, tiles: int) -> int:
        """Return how many threads are worth waking for so many tiles."""
        return self.workers if tiles * self.work > _SERIAL else 1


def _plan(geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> _Plan:
    lengths, tiles = _tile(geometry, workers)
    matrices, plane = _channels(geometry) > _MANY, _plane(lengths, dtype)
    together = _together(geometry, plane) if matrices else 1
    return _Plan(geometry, dtype, workers, lengths, tiles, matrices, plane, together, _work(geometry, lengths))


class FFTProducts:
    """Products with V and Vᵀ; the kernel's spectrum is computed once for each direction."""

    def __init__(self, plan: _Plan, kernel: Array) -> None:
        self._plan, self._kernel = plan, kernel
        self._spectra = PerDirection[Array]()
        # Of tiles (n, C, *lengths), or (n, *lengths, C).
        first = 1 if plan.matrices else 2
        self._axes = tuple(range(first, first + len(plan.lengths)))

    def forward(self, x: Array, out: Array) -> None:
        """Correlate tile by tile, keeping the outputs that the wrap-around does not reach."""

        def write(result: Array, out: Array, tile: Sequence[int]) -> None:
            target, source = self._outputs(tile)
            out[target] = result[source]

        self._run(False, x, out, write)

    def transpose(self, y: Array, out: Array) -> None:
        """Convolve the zero-stretched outputs of each tile, and add up where tiles overlap."""
        out[...] = 0

        def add(result: Array, out: Array, tile: Sequence[int]) -> None:
            sums = out[self._inputs(tile)]
            sums += result[tuple(map(slice, sums.shape))]

        self._run(True, y, out, add)

    def _run(self, transposed: bool, source: Array, out: Array, store: Callable[..., None]) -> None:
        """Store the results of all blocks, as many at once as are computed together."""
        plan = self._plan
        blocks = list(product(range(len(source)), *map(range, plan.tiles)))
        threads = plan.threads(len(blocks))

        def compute(blocks: list[Block], threads: int) -> Callable[[], None]:
            results = self._filter(transposed, source, blocks, threads)

            def finish(channels: slice) -> None:
                for result, (item, *tile) in zip(results, blocks, strict=True):
                    store(result[channels], out[item, channels], tile)

            return lambda: self._share(finish, out.shape[1], threads)

        if plan.matrices or len(blocks) == 1:
            calls = -(-len(blocks) // plan.together)
            for first, last in pairwise(len(blocks) * call // calls for call in range(calls + 1)):
                compute(blocks[first:last], threads)()
        else:  # where three or more tiles overlap, the order of their sum shows in its last digits
            call = InOrder().call if transposed else lambda _, finish: finish()
            run_blocks(lambda i, block: call(i, compute([block], 1)), list(enumerate(blocks)), threads)

    def _filter(self, transposed: bool, source: Array, blocks: Sequence[Block], threads: int) -> Array:
        """Return the tiles (n, C, *lengths) of results."""
        spectrum = self._spectra.get(transposed, self._spectrum)
        tiles = self._gather(transposed, source, blocks, threads)
        if not self._plan.matrices:
            spectra = self._transform(tiles, self._axes, threads)
            return self._inverse(self._multiply(transposed, spectrum, spectra), threads)
        spectra = self._transform(np.moveaxis(tiles, 1, -1), self._axes, threads)
        return np.moveaxis(self._inverse(self._multiply_matrices(spectrum, spectra, threads), threads), -1, 1)

    def _gather(self, transposed: bool, source: Array, blocks: Sequence[Block], threads: int) -> Array:
        """Return tiles (n, C, *lengths) of inputs, or of outputs as far apart as the stride."""
        if not (transposed or self._plan.matrices):
            ((item, *tile),) = blocks
            return source[item : item + 1][self._inputs(tile)]  # the transform appends what is missing
        tiles = np.zeros((len(blocks), source.shape[1], *self._plan.lengths), source.dtype)

        def copy(channels: slice) -> None:
            for target, (item, *tile) in zip(tiles, blocks, strict=True):
                given = source[item, channels]
                if transposed:
                    outputs, places = self._outputs(tile)
                    target[channels][places] = given[outputs]
                else:
                    given = given[self._inputs(tile)]
                    target[channels][tuple(map(slice, given.shape))] = given

        self._share(copy, source.shape[1], threads)
        return tiles

    def _inputs(self, tile: Sequence[int]) -> Index:
        """Return, on each axis, the inputs that a tile reads, the last ones maybe beyond the end."""
        spans = zip(tile, self._plan.steps, self._plan.lengths, strict=True)
        return (..., *(slice(index * step, index * step + length) for index, step, length in spans))

    def _outputs(self, tile: Sequence[int]) -> tuple[Index, Index]:
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
        """Return the kernel's spectrum (groups, C_out / groups, C_in / groups, *frequencies).

        As matrices, it is (groups, frequencies, channels given, channels of results).
        """
        plan = self._plan
        groups, axes = plan.geometry.groups, tuple(range(3, 3 + len(plan.lengths)))
        kernel = self._kernel.reshape(groups, -1, *self._kernel.shape[1:])
        stretched = np.zeros((*kernel.shape[:3], *plan.lengths), kernel.dtype)
        # Tap t sits at t·dilation for the transpose, and backwards from 0 for a correlation.
        sign = 1 if transposed else -1
        places = [
            sign * axis.dilation * np.arange(axis.taps) % length
            for axis, length in zip(plan.geometry.axes, plan.lengths, strict=True)
        ]
        where: Index = (slice(None),) * 3 + np.ix_(*places)
        stretched[where] = kernel
        if not plan.matrices:
            return self._transform(stretched, axes, plan.workers)
        stretched = stretched.transpose(0, *axes, *((1, 2) if transposed else (2, 1)))
        return self._transform(stretched, self._axes, plan.workers).reshape(groups, -1, *stretched.shape[-2:])

    def _multiply(self, transposed: bool, spectrum: Array, x: Array) -> Array:
        """Sum over the channels of a group; forward sums over the inputs, transposed over the outputs."""
        if transposed:
            spectrum = spectrum.swapaxes(1, 2)
        groups, rows, terms = spectrum.shape[:3]
        x = x.reshape(groups, 1, terms, *x.shape[2:])
        result = np.empty((groups, rows, *x.shape[3:]), x.dtype)
        # As many rows and groups at once as stay in a cache: fewer calls.
        step, several = _at_once(rows, groups, prod(x.shape[3:]) * x.itemsize)
        scratch = np.empty((2, several, step, *x.shape[3:]), x.dtype)
        for group, row in product(range(0, groups, several), range(0, rows, step)):
            some, total = slice(group, group + several), result[group : group + several, row : row + step]
            part, more = scratch[:, : total.shape[0], : total.shape[1]]
            for first, last in cuts(terms, x.dtype):
                sums = more if first else total
                for term in range(first, last):
                    factor = spectrum[some, row : row + step, term]
                    np.multiply(factor, x[some, :, term], out=part if term > first else sums)
                    if term > first:
                        sums += part
                if first:
                    total += sums
        return result.reshape(1, groups * rows, *x.shape[3:])

    def _multiply_matrices(self, spectrum: Array, x: Array, threads: int) -> Array:
        """Do so for spectra (n, *frequencies, C) of several tiles, at each frequency at once."""
        groups, count, terms, rows = spectrum.shape
        result = np.empty((*x.shape[:-1], groups * rows), x.dtype)
        given = x.reshape(-1, count, groups, terms).transpose(2, 1, 0, 3)
        target = result.reshape(-1, count, groups, rows).transpose(2, 1, 0, 3)

        def multiply(some: slice) -> None:
            matmul(given[:, some], spectrum[:, some], out=target[:, some])

        self._share(multiply, count, threads, single_threaded_blas=True)
        return result

    def _share(
        self, function: Callable[[slice], None], count: int, threads: int, single_threaded_blas: bool = False
    ) -> None:
        """Call a function for all of so many channels or frequencies, which threads share where there are many."""
        parts = min(count, threads) if self._plan.matrices else 1
        cuts = [count * part // parts for part in range(parts + 1)]
        run_blocks(function, [(slice(*cut),) for cut in pairwise(cuts)], threads, single_threaded_blas)

    def _transform(self, x: Array, axes: tuple[int, ...], threads: int) -> Array:
        forward = "fftn" if self._plan.dtype.kind == "c" else "rfftn"
        return _call_scipy(forward, x, self._plan.lengths, axes, threads)

    def _inverse(self, spectrum: Array, threads: int) -> Array:
        inverse = "ifftn" if self._plan.dtype.kind == "c" else "irfftn"
        return _call_scipy(inverse, spectrum, self._plan.lengths, self._axes, threads)


@cache
def _transform_of_scipy(name: str) -> Any:
    # Late, since it takes a tenth of the time to import this package, and once: when Python ends, nothing can be imported.
    import scipy.fft

    return getattr(scipy.fft, name)


def _call_scipy(name: str, x: Array, lengths: tuple[int, ...], axes: tuple[int, ...], threads: int) -> Array:
    """Return one of SciPy's transforms."""
    with undisturbed():  # SciPy guards its plans, and its threads, by locks that a forked child could not free
        function = _transform_of_scipy(name)
        try:
            result: Array = function(x, lengths, axes, workers=threads)
        except RuntimeError:  # the system gives no more threads
            if threads == 1:
                raise
            result = function(x, lengths, axes, workers=1)
    return result


def _pairs(geometry: ConvolutionGeometry) -> int:
    """Return the number of pairs of channels that see each other."""
    return geometry.in_channels * geometry.out_channels // geometry.groups


def _plane(lengths: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the bytes of the spectrum of a tile's channel; that of real numbers has half of the last axis' frequencies."""
    *others, last = lengths
    frequencies = last if dtype.kind == "c" else last // 2 + 1
    return prod(others) * frequencies * np.result_type(dtype, np.complex64).itemsize


def _together(geometry: ConvolutionGeometry, plane: int) -> int:
    """Return how many tiles are multiplied together as matrices."""
    room = max(_TOGETHER, _pairs(geometry) * plane)
    return max(1, room // (2 * (geometry.in_channels + geometry.out_channels) * plane))  # 2: tiles, and their spectra


def _channels(geometry: ConvolutionGeometry) -> float:
    """Return the harmonic mean of the channels in and out of a group: twice the products for each transform."""
    return 2 * _pairs(geometry) / (geometry.in_channels + geometry.out_channels)


def _at_once(rows: int, groups: int, row_bytes: int) -> tuple[int, int]:
    """Return how many rows, and how many groups of them, are multiplied by one call."""
    most = max(1, _CACHED // row_bytes)
    return min(rows, most), min(groups, max(1, most // rows))


def _work(geometry: ConvolutionGeometry, lengths: tuple[int, ...]) -> int:
    """Return the numbers of a tile to transform, and so many more as their products take."""
    return prod(lengths) * (geometry.in_channels + geometry.out_channels + _pairs(geometry) // 8)


@lru_cache
def _tile(geometry: ConvolutionGeometry, workers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the length of a tile's transform, and the number of tiles, on each axis, that cost least for one array."""

    def cost(choice: tuple[tuple[int, int], ...]) -> float:
        lengths, tiles = zip(*choice, strict=True)
        operations, calls = _count(geometry, lengths, tiles, 1, workers)
        return operations + _CALL * calls

    most = _TILE // (8 * (geometry.in_channels + geometry.out_channels))
    choices = list(product(*map(_tile_lengths, geometry.axes)))
    fitting = [choice for choice in choices if prod(length for length, _ in choice) <= most]
    lengths, tiles = zip(*min(fitting or choices, key=cost), strict=True)
    return lengths, tiles


def _tile_lengths(axis: Axis) -> Iterator[tuple[int, int]]:
    """Yield what there is to choose from on an axis: a length, and how many tiles of it give all outputs."""
    span = (axis.outputs - 1) * axis.stride + 1  # outputs before the stride
    tiles, needed = 1, span + axis.reach
    while tiles == 1 or needed - axis.reach >= max(8, axis.reach // 4):
        length = min(_fast_length(needed), 16 * _fast_length(ceil(needed / 16)), key=lambda n: n * _line(n))
        yield length, ceil(span / (length - axis.reach))
        tiles += 1 << max(0, tiles.bit_length() - 2)  # 1, 2, 3, 4, 6, 8, 12, 16, …
        needed = ceil(span / tiles) + axis.reach


def _count(
    geometry: ConvolutionGeometry, lengths: tuple[int, ...], tiles: tuple[int, ...], batch: int, workers: int
) -> tuple[float, float]:
    """Return operations of one of the threads, a few for each number and step of a transform, and NumPy calls.

    The weights were fitted to products measured on one machine.
    """
    size, blocks = prod(lengths), batch * prod(tiles)
    planes, pairs = geometry.in_channels + geometry.out_channels, _pairs(geometry)
    # Planes that leave a cache take longer.
    transforms = planes * (sum(map(_line, lengths)) + 20 * max(0.0, log2(size) - 17))
    workers = workers if blocks * _work(geometry, lengths) > _SERIAL else 1
    shared = (1 + workers) / 2  # transforms gain less from threads than all else
    if _channels(geometry) > _MANY:
        reads = ceil(blocks / _together(geometry, _plane(lengths, np.dtype(np.float64))))
        each = 0.65 + 26 / _channels(geometry)
        # 1.8: tiles are copied from the inputs and to the outputs. Other threads wake up for each of five steps.
        calls = (100 if workers > 1 else 20) * reads + 4 * blocks
        return size * (1.8 * blocks * transforms / shared + (blocks * each + 5 * reads) * pairs / workers), calls
    products = 8 * pairs * (1 + 2 / lengths[-1])  # of half the last axis' frequencies, and the one in the middle
    rows, terms = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
    step, several = _at_once(rows, geometry.groups, 8 * size)
    calls = blocks * (20 + 2 * terms * ceil(rows / step) * ceil(geometry.groups / several))
    if blocks == 1:  # threads share its transforms, where those are more than one line
        return size * (transforms / (shared if planes > 2 or len(lengths) > 1 else 1) + products), calls
    # Threads that wake up late or have fewer tiles cost some of a tile.
    return size * (blocks + workers - 1) / workers * (transforms + products), calls


def _line(length: int) -> float:
    """Return the operations for each number of a line: odd factors take longer, and so do lines that leave a cache."""
    odd = length // (length & -length)
    return 8 + log2(length) + log2(odd) / 2 + 5 * max(0.0, log2(length) - 13)


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
