"""The engine that multiplies spectra, tile by tile: overlap-save forward and, as its transpose, overlap-add.

They equal the definition y[o] = Σ_t K[t] · x[o·s + t·d] and its transpose (Oppenheim & Schafer, Discrete-Time Signal
Processing, section 8.7.3). On an axis with the reach r = d·(k − 1), a tile has a transform of length L and the step L − r:

- Overlap-save reads L inputs, one step after those of the tile before. In their cyclic correlation with the kernel only the
  last r positions wrap around. They are dropped; of the others, those at multiples of the stride are outputs.
- Overlap-add takes the same outputs at the same positions, with zeros between them and r zeros behind. So nothing wraps
  around in their cyclic convolution with the kernel. All of it is added to the same L inputs, of which neighbouring tiles
  have r in common.

Its cost grows with the logarithm of the kernel's size instead of with the size, so it wins for large kernels and few
channels. A NaN or Inf reaches all outputs of its tile.

With few channels, spectra are multiplied element by element, tile by tile, while they are in a cache. With many, reading the
kernel's spectrum takes longer than anything else. Then many tiles share it: at each frequency, their channels are a matrix,
and so is the kernel. Transforms of such tiles write channels last, so that BLAS takes these matrices as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise, product
from math import ceil, log2, prod
from typing import Any, ClassVar

import numpy as np

from convmat._runtime import InOrder, run_blocks, undisturbed
from convmat.engines._base import Cost, PerDirection
from convmat.engines._compiled.loader import module_code
from convmat.engines._fft.tiles import Index, Tiling, count_at_once, count_operations, count_pairs, plan_tiles
from convmat.engines._machine import Machine
from convmat.engines._sums import cuts, matmul
from convmat.geometry import Array, ConvolutionGeometry

Block = tuple[int, ...]  # which array of a batch, and which tile on each axis


class _Estimate:
    """Constants of 2026-11; `python -m benchmarks.peers --regret` prints estimate / measured time."""

    TRANSFORM_FLOPS = 5  # flops for each complex number and factor of 2 of a transform's size
    PRODUCT_FLOPS = 8  # flops of a complex multiplication and addition
    PASSES = 4  # over the spectra of tiles, which either transform and the product read or write
    KERNEL_PASSES = 2  # over the kernel's spectrum, each time that it is read
    PRECISION = 0.75  # power of 8 / bytes of a real number with which the rate of transforms grows


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
        plan = plan_tiles(geometry, dtype, machine.workers)
        size, count = prod(plan.lengths), batch * prod(plan.tiles)
        kept = 1 if dtype.kind == "c" else 0.5  # of a spectrum's frequencies
        planes, pairs = geometry.in_channels + geometry.out_channels, count_pairs(geometry)
        transforms = _Estimate.TRANSFORM_FLOPS * size * log2(max(2, size)) * planes * kept
        products = _Estimate.PRODUCT_FLOPS * size * kept * pairs
        reads = ceil(count / plan.together)
        moved = plan.plane * (_Estimate.PASSES * count * planes + _Estimate.KERNEL_PASSES * reads * pairs)
        rate = machine.fft * (8 / np.finfo(dtype).dtype.itemsize) ** _Estimate.PRECISION
        operations, calls = count_operations(geometry, plan.lengths, plan.tiles, batch, machine.workers)
        seconds = 2 * kept * operations / rate + calls * machine.call  # operations are those of real numbers
        setup = transforms * pairs / planes / rate
        code = (module_code("scipy.fft"),)
        return Cost(count * (transforms + products), moved, seconds, setup, pairs * plan.plane, code)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Choose the tiles."""
        return plan_tiles(geometry, dtype, workers)

    def bind(self, plan: Any, kernel: Array) -> FFTProducts:
        """Return the products of one kernel."""
        return FFTProducts(plan, kernel)


class FFTProducts:
    """Products with V and Vᵀ; the kernel's spectrum is computed once for each direction."""

    def __init__(self, plan: Tiling, kernel: Array) -> None:
        self._plan = plan
        self._filter = (_MatrixFilter if plan.matrices else _ElementFilter)(plan, kernel)

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by V: correlate tile by tile."""
        self._run(_OverlapSave(self._plan, x, out))

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Vᵀ: convolve tile by tile, and add up where tiles overlap."""
        out[...] = 0
        self._run(_OverlapAdd(self._plan, y, out))

    def _run(self, overlap: _Overlap) -> None:
        """Compute all tiles of all arrays: threads share each step, or, where spectra are small, the tiles."""
        plan = self._plan
        blocks = list(product(range(len(overlap.source)), *map(range, plan.tiles)))
        threads = plan.threads(len(blocks))
        if plan.matrices or len(blocks) == 1:
            for some in _slices(len(blocks), -(-len(blocks) // plan.together)):
                self._compute_blocks(overlap, blocks[some], threads)
            return
        # Where three or more tiles overlap, the order of their sum shows in its last digits.
        order = InOrder() if overlap.transposed else None
        run_blocks(self._compute_block, [(overlap, order, *numbered) for numbered in enumerate(blocks)], threads)

    def _compute_blocks(self, overlap: _Overlap, blocks: Sequence[Block], threads: int) -> None:
        overlap.scatter(blocks, self._filter_blocks(overlap, blocks, threads), threads)

    def _compute_block(self, overlap: _Overlap, order: InOrder | None, number: int, block: Block) -> None:
        if order is None:
            self._compute_blocks(overlap, [block], 1)
        else:
            order.call(number, partial(overlap.scatter, [block], self._filter_blocks(overlap, [block], 1), 1))

    def _filter_blocks(self, overlap: _Overlap, blocks: Sequence[Block], threads: int) -> Array:
        """Return the results of tiles, (n, C, *lengths)."""
        return self._filter.apply(overlap.transposed, overlap.gather(blocks, threads), threads)


@dataclass(slots=True)
class _Overlap(ABC):
    """One product: where its tiles come from, and where their results go.

    Attributes
    ----------
    plan : Tiling
        The tiles.
    source, out : array (B, C, *spatial)
        What is read, and what is written.
    """

    plan: Tiling
    source: Array
    out: Array
    transposed: ClassVar[bool]

    @abstractmethod
    def read(self, channels: slice, block: Block, tile: Array) -> None:
        """Copy channels of the source into a tile (C, *lengths) of zeros."""

    @abstractmethod
    def write(self, channels: slice, block: Block, result: Array) -> None:
        """Write channels of a tile's result (C, *lengths)."""

    def gather(self, blocks: Sequence[Block], threads: int) -> Array:
        """Return tiles (n, C, *lengths); or (1, C, *spatial), where a transform appends the zeros."""
        if not (self.transposed or self.plan.matrices):
            ((item, *tile),) = blocks
            return self.source[item : item + 1][self.plan.inputs(tile)]
        tiles = np.zeros((len(blocks), self.source.shape[1], *self.plan.lengths), self.source.dtype)
        self._copy(self.read, blocks, tiles, threads)
        return tiles

    def scatter(self, blocks: Sequence[Block], results: Array, threads: int) -> None:
        """Write the results (n, C, *lengths) of tiles."""
        self._copy(self.write, blocks, results, threads)

    def _copy(
        self, copy: Callable[[slice, Block, Array], None], blocks: Sequence[Block], tiles: Array, threads: int
    ) -> None:
        """Copy all channels, which threads share where there are many: they have no number in common."""
        channels = tiles.shape[1]
        slices = _slices(channels, min(channels, threads) if self.plan.matrices else 1)
        run_blocks(_copy_tiles, [(copy, some, blocks, tiles) for some in slices], threads)


def _copy_tiles(
    copy: Callable[[slice, Block, Array], None], channels: slice, blocks: Sequence[Block], tiles: Array
) -> None:
    for block, tile in zip(blocks, tiles, strict=True):
        copy(channels, block, tile)


class _OverlapSave(_Overlap):
    """Forward: tiles of inputs, whose results are outputs where nothing wraps around."""

    __slots__ = ()
    transposed = False

    def read(self, channels: slice, block: Block, tile: Array) -> None:
        item, *index = block
        given = self.source[item, channels][self.plan.inputs(index)]
        tile[channels][tuple(map(slice, given.shape))] = given

    def write(self, channels: slice, block: Block, result: Array) -> None:
        item, *index = block
        outputs, positions = self.plan.outputs(index)
        self.out[item, channels][outputs] = result[channels][positions]


class _OverlapAdd(_Overlap):
    """Transposed: tiles of outputs as far apart as the stride, whose results are added to the inputs."""

    __slots__ = ()
    transposed = True

    def read(self, channels: slice, block: Block, tile: Array) -> None:
        item, *index = block
        outputs, positions = self.plan.outputs(index)
        tile[channels][positions] = self.source[item, channels][outputs]

    def write(self, channels: slice, block: Block, result: Array) -> None:
        item, *index = block
        sums = self.out[item, channels][self.plan.inputs(index)]
        sums += result[channels][tuple(map(slice, sums.shape))]


class _Filter(ABC):
    """A kernel that tiles (n, C, *lengths) are cyclically correlated with, or convolved, through their spectra."""

    def __init__(self, plan: Tiling, kernel: Array) -> None:
        self._plan, self._kernel = plan, kernel
        self._spectra = PerDirection[Array]()

    @abstractmethod
    def apply(self, transposed: bool, tiles: Array, threads: int) -> Array:
        """Return the results (n, C, *lengths)."""

    def _stretched(self, transposed: bool) -> Array:
        """Return the kernel (groups, results, terms, *lengths): channels of a group that are computed, and that are given.

        Tap t sits at t·dilation for the convolution, and at −t·dilation modulo the length for the correlation.
        """
        plan, sign = self._plan, 1 if transposed else -1
        kernel = self._kernel.reshape(plan.geometry.groups, -1, *self._kernel.shape[1:])
        stretched = np.zeros((*kernel.shape[:3], *plan.lengths), kernel.dtype)
        positions = [
            sign * axis.dilation * np.arange(axis.taps) % length
            for axis, length in zip(plan.geometry.axes, plan.lengths, strict=True)
        ]
        taps: Index = (slice(None), slice(None), slice(None), *np.ix_(*positions))
        stretched[taps] = kernel
        return stretched.swapaxes(1, 2) if transposed else stretched

    def _transform(self, x: Array, axes: tuple[int, ...], threads: int) -> Array:
        forward = "fftn" if self._plan.dtype.kind == "c" else "rfftn"
        return _call_scipy(forward, x, self._plan.lengths, axes, threads)

    def _inverse(self, spectra: Array, axes: tuple[int, ...], threads: int) -> Array:
        inverse = "ifftn" if self._plan.dtype.kind == "c" else "irfftn"
        return _call_scipy(inverse, spectra, self._plan.lengths, axes, threads)


class _ElementFilter(_Filter):
    """Multiplies the spectra of one tile element by element."""

    def apply(self, transposed: bool, tiles: Array, threads: int) -> Array:
        axes = tuple(range(2, tiles.ndim))
        spectra = self._transform(tiles, axes, threads)
        spectrum = self._spectra.get(transposed, self._spectrum)
        groups, _, terms = spectrum.shape[:3]
        products = _multiply(spectrum, spectra.reshape(groups, terms, *spectra.shape[2:]))
        return self._inverse(products.reshape(1, -1, *spectra.shape[2:]), axes, threads)

    def _spectrum(self, transposed: bool) -> Array:
        """Return the kernel's spectrum (groups, results, terms, *frequencies)."""
        stretched = self._stretched(transposed)
        return self._transform(stretched, tuple(range(3, stretched.ndim)), self._plan.workers)


def _multiply(spectrum: Array, x: Array) -> Array:
    """Return Σ_t spectrum[g, r, t] · x[g, t] for all groups g and results r: einsum("grt…, gt… → gr…"), in few calls.

    One call multiplies as many results and groups as stay in a cache.
    """
    groups, rows, terms = spectrum.shape[:3]
    result = np.empty((groups, rows, *x.shape[2:]), x.dtype)
    several_rows, several_groups = count_at_once(rows, groups, prod(x.shape[2:]) * x.itemsize)
    scratch = np.empty((2, several_groups, several_rows, *x.shape[2:]), x.dtype)
    ranges = cuts(terms, x.dtype)
    for group, row in product(range(0, groups, several_groups), range(0, rows, several_rows)):
        some = slice(group, group + several_groups)
        total, factors = result[some, row : row + several_rows], spectrum[some, row : row + several_rows]
        more, one = scratch[:, : total.shape[0], : total.shape[1]]
        for first, last in ranges:
            sums = more if first else total
            np.multiply(factors[:, :, first], x[some, None, first], out=sums)
            for term in range(first + 1, last):
                np.multiply(factors[:, :, term], x[some, None, term], out=one)
                sums += one
            if first:
                total += more
    return result


class _MatrixFilter(_Filter):
    """Multiplies the spectra of several tiles as matrices (tiles, channels), one for each frequency and group."""

    def apply(self, transposed: bool, tiles: Array, threads: int) -> Array:
        axes = tuple(range(1, tiles.ndim - 1))
        spectra = self._transform(np.moveaxis(tiles, 1, -1), axes, threads)
        products = self._multiply(self._spectra.get(transposed, self._spectrum), spectra, threads)
        return np.moveaxis(self._inverse(products, axes, threads), -1, 1)

    def _spectrum(self, transposed: bool) -> Array:
        """Return the kernel's spectrum (groups, frequencies, terms, results)."""
        stretched = np.moveaxis(self._stretched(transposed), (2, 1), (-2, -1))
        axes = tuple(range(1, stretched.ndim - 2))
        return self._transform(stretched, axes, self._plan.workers).reshape(len(stretched), -1, *stretched.shape[-2:])

    @staticmethod
    def _multiply(spectrum: Array, x: Array, threads: int) -> Array:
        """Return the products of spectra (n, *frequencies, C); threads share the frequencies."""
        groups, count, terms, rows = spectrum.shape
        result = np.empty((*x.shape[:-1], groups * rows), x.dtype)
        given = x.reshape(-1, count, groups, terms).transpose(2, 1, 0, 3)
        target = result.reshape(-1, count, groups, rows).transpose(2, 1, 0, 3)

        def multiply(some: slice) -> None:
            matmul(given[:, some], spectrum[:, some], out=target[:, some])

        slices = [(some,) for some in _slices(count, min(count, threads))]
        run_blocks(multiply, slices, threads, single_threaded_blas=True)
        return result


def _slices(count: int, number: int) -> list[slice]:
    """Return so many slices of about equal lengths, which cover 0 to `count`."""
    return [slice(*cut) for cut in pairwise(count * i // number for i in range(number + 1))] if number else []


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


engine = FFTEngine()
