"""The engine for 3 × 3 kernels and many channels: Winograd's minimal filtering, F(2 × 2, 3 × 3).

A 2 × 2 tile of results needs 4 × 4 sources d and the 3 × 3 kernel k, and is Aᵀ [(G k Gᵀ) ∘ (Bᵀ d B)] A with

    Bᵀ = ⎛1  0 −1  0⎞   G = ⎛1  0  0⎞   Aᵀ = ⎛1  1  1  0⎞
         ⎜0  1  1  0⎟       ⎜½  ½  ½⎟        ⎝0  1 −1 −1⎠
         ⎜0 −1  1  0⎟       ⎜½ −½  ½⎟
         ⎝0  1  0 −1⎠       ⎝0  0  1⎠

that is 16 products instead of 36 (Lavin & Gray 2016, Fast Algorithms for Convolutional Neural Networks, section 4.1).
Summed over channels they are 16 matrix products, transformed kernel × transformed tiles. A task does all three stages for
a range of tiles, one after the other in memory that stays in its thread's cache: tiles of all images are numbered through,
so that vectors of tiles are full whatever the images' size.

The transpose of such a convolution is itself one, the dual: with the kernel reversed, its channels exchanged, and 2 − p
instead of a padding p, cropping where that is negative. Only the tables differ.

A NaN in the source reaches exactly the results that it reaches by definition, since the first row and column of d are in
nothing but the first of the tile's results, and the last in the last; so does an Inf, but it may become NaN there. Rounding
errors are about those of a direct sum; larger tiles would need fewer products still, but lose digits.

`convmat.engines._winograd.loops` has the compiled loops, compiled once for float32 and once for float64, and
`convmat.engines._compiled.simd` the matrix product in registers, which is the one of the engine `taps`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from convmat._runtime import count_blocks, run_blocks
from convmat.engines._base import Cost, Machine, PerDirection, Scratch, address
from convmat.engines._compiled.loader import load_loop, load_tile, refusal, seconds_to_load, vector_unit
from convmat.geometry import Array, ConvolutionGeometry, IntArray, dual_kernel

_CHANNELS = 8  # with fewer, the transforms cost more than they save
_MOST_CHANNELS = 32768  # for which scratch memory stays within its bounds
_SERIAL = 1e-4  # seconds of work that are worth another thread, which takes about half of that to wake up
_PIECES = 8  # of the tiles for each thread
_CACHE = 700 << 10  # bytes of scratch memory of one thread, for most of a second-level cache
_RESULTS = 64  # channels of products that are transformed back together, before they leave the cache
_SCRATCH = 48 << 20  # bytes of scratch memory of all threads of a product
_PRODUCTS = 16  # of a tile and a pair of channels
_VECTOR = 64  # bytes of the widest vector


class _Estimate:
    """Constants of 2026-11; `python -m benchmarks.peers --regret` prints estimate / measured time."""

    TILES = 1.5  # × `Machine.gemm`, the rate of the matrix products in registers
    CACHE_SPEED = 8  # × `Machine.bandwidth`, at which transformed tiles move in a cache
    TRANSFORM = 8  # passes over the weights to transform the kernel
    TABLES = 1e-3  # seconds to build the tables
    CALLS = 4  # NumPy calls of a product
    WORK = 4e11  # flops per second of a thread, times the bytes of a number, about


class WinogradEngine:
    """Products with fewer multiplications than the definition has."""

    name = "winograd"
    pads = frozenset({"zeros"})
    automatic = True
    local = True
    silent = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse all but 3 × 3 kernels at stride 1 with many real channels, and all without compiled code."""
        if dtype.char not in "fd":
            return f"it computes float32 and float64, got {dtype}"
        if geometry.spatial_kernel != (3, 3):
            return f"it is for kernels of 3 × 3, got {' × '.join(map(str, geometry.spatial_kernel))}"
        if geometry.stride != (1, 1) or geometry.dilation != (1, 1):
            return f"it is for stride 1 and dilation 1, got {geometry.stride} and {geometry.dilation}"
        channels = _channels(geometry, False)
        if not _CHANNELS <= min(channels) <= max(channels) <= _MOST_CHANNELS:
            return f"it is for {_CHANNELS} to {_MOST_CHANNELS} channels in and out of each group, got {channels}"
        return refusal()

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count 16 products for each tile and pair of channels, and the transformed tiles, written and read."""
        grid, channels = _grid(geometry, transposed), _channels(geometry, transposed)
        lanes, pairs = _VECTOR // dtype.itemsize, prod(channels) * geometry.groups
        vectors = -(-batch * prod(grid) // lanes)
        flops = 2.0 * _PRODUCTS * pairs * vectors * lanes
        # Transformed tiles stay in the cache; there a vector has tiles of one row.
        rows = sum(channels) * geometry.groups * batch * grid[0] * -(-grid[1] // lanes)
        cached = 2.0 * _PRODUCTS * _VECTOR * rows
        state = float(_PRODUCTS) * pairs * dtype.itemsize
        moved = 2.0 * batch * sum(geometry.shape) * dtype.itemsize
        rate = _Estimate.TILES * machine.gemm * 8 / dtype.itemsize
        moving = cached / (_Estimate.CACHE_SPEED * machine.bandwidth) + machine.moving(moved) + machine.moving(state)
        single = flops / rate + moving
        shared = single if single < _SERIAL else _SERIAL / 2 + single / machine.workers
        seconds = _Estimate.CALLS * machine.call + shared
        loading = seconds_to_load("winograd", "run_tasks", dtype.name) if machine.loading is None else machine.loading
        setup = _Estimate.TABLES + _Estimate.TRANSFORM * state / machine.bandwidth + loading
        vector_bytes = _PRODUCTS * _VECTOR * (channels[0] + min(channels[1], _RESULTS))
        scratch = machine.workers * max(_CACHE, channels[1] // (8 * lanes) * vector_bytes)
        return Cost(flops, moved + state, seconds, setup, state + min(scratch, _SCRATCH))

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> WinogradPlan:
        """Return a plan; the tables of a direction are built when it is first used."""
        return WinogradPlan(geometry, dtype, workers)

    def bind(self, plan: WinogradPlan, kernel: Array) -> WinogradProducts:
        """Return products that transform the kernel for a direction when it is first used."""
        return WinogradProducts(plan, kernel)


@dataclass
class WinogradPlan:
    """What depends on the geometry alone, for each direction once it is used."""

    geometry: ConvolutionGeometry
    dtype: np.dtype[Any]
    workers: int
    _directions: PerDirection[Direction] = field(default_factory=PerDirection)

    def direction(self, transposed: bool) -> Direction:
        """Return what a direction needs."""
        return self._directions.get(transposed, self._build)

    def _build(self, transposed: bool) -> Direction:
        geometry, itemsize = self.geometry, self.dtype.itemsize
        run_tasks = load_loop("winograd", "run_tasks", self.dtype.name)
        register, registers = vector_unit()
        lanes, line = register // itemsize, 64 // itemsize
        rows, widest = 8 if registers > 16 else 4, 3  # of a tile of the matrix product: so many accumulators fit
        addresses = [load_tile(itemsize, rows, vectors, 0) for vectors in range(1, widest + 1)]
        sources, results = _channels(geometry, transposed)
        blocks = -(-results // rows)
        most_blocks = min(blocks, -(-_RESULTS // rows))
        vector_bytes = _PRODUCTS * (sources + most_blocks * rows) * register
        # A task reads the whole kernel. Where that has many channels, more tiles have to share it than fit into the cache.
        vectors = max(_CACHE // vector_bytes, results // (8 * lanes))
        vectors = max(1, min(vectors, _SCRATCH * 2 // 3 // (self.workers * vector_bytes)))
        # An odd number of cache lines: with powers of two, channels would compete for the same places in a cache. What the
        # last vector of a channel has too much is overwritten by the next channel; the last one needs room for it.
        length = _odd(vectors * lanes, line)
        source_distance = _odd(sources * length + lanes, line)
        result_distance = _odd(most_blocks * rows * length + lanes, line)
        shape, target, grid = geometry.spatial_input, geometry.spatial_output, _grid(geometry, transposed)
        if transposed:
            shape, target = target, shape
        origin = [axis.before - 2 if transposed else -axis.before for axis in geometry.axes]
        sizes = [
            geometry.groups, sources, results, rows, blocks, most_blocks, length, source_distance, result_distance,
            *shape, *target, *grid, *origin,
        ]  # fmt: skip
        offsets = np.arange(sources, dtype=np.int64) * (length * itemsize)
        tables = np.array(sizes, np.int64), np.array(addresses, np.int64), offsets, np.array([sources], np.int64)
        scratch = _PRODUCTS * (source_distance + result_distance) + lanes  # which may have to be skipped for alignment
        work = 2 * _PRODUCTS * prod(grid) * sources * results * geometry.groups * itemsize / _Estimate.WORK
        return Direction(
            tables, run_tasks, self.dtype, geometry.groups, prod(grid), lanes, length // lanes, rows, blocks, scratch,
            work, self.workers,
        )  # fmt: skip


@dataclass
class Direction:
    """The tables of one direction, and scratch memory that products use again.

    Attributes
    ----------
    tables : tuple of int64 array
        What the compiled loop takes: sizes, the compiled matrix products for 1, 2, … vectors, and the offsets and the
        number of source channels for those.
    run_tasks : callable
        The compiled loop.
    dtype : dtype
        Of everything.
    groups, tiles : int
        Number of groups, and of tiles of an image.
    lanes, vectors : int
        Tiles in a vector, and the most vectors of a task.
    rows, blocks : int
        Result channels of a tile of the matrix product, and how many such blocks there are.
    scratch : int
        Elements of scratch memory for a task.
    work : float
        About the seconds that one thread takes for each array of a batch.
    workers : int
        Number of threads.
    """

    tables: tuple[IntArray, ...]
    run_tasks: Callable[..., None]
    dtype: np.dtype[Any]
    groups: int
    tiles: int
    lanes: int
    vectors: int
    rows: int
    blocks: int
    scratch: int
    work: float
    workers: int

    def __post_init__(self) -> None:
        """Bound the memory of all threads together."""
        self.workers = max(1, min(self.workers, _SCRATCH // (self.scratch * self.dtype.itemsize)))
        self._scratch = Scratch(self.dtype, self.workers)

    def product(self, weights: Array, source: Array, out: Array) -> None:
        """Compute one product."""
        batch = len(out)
        if batch == 0:
            return
        tiles = batch * self.tiles
        vectors = -(-tiles // self.lanes)
        workers = self.workers if self.work * batch > _SERIAL else 1
        pieces = -(-vectors // self.vectors)
        if workers > 1 and pieces * self.groups < _PIECES * workers:
            pieces = min(vectors, -(-pieces // workers) * workers)
        # Where there are too few tiles, results are divided, and the tiles transformed for each share of them.
        shares = min(self.blocks, -(-workers // (pieces * self.groups)))
        tasks = pieces * self.groups * shares
        chunks = count_blocks(tasks, workers, self.work * batch)
        arguments = source, out, (tiles, pieces, shares, weights)
        blocks = [(tasks * i // chunks, tasks * (i + 1) // chunks, *arguments) for i in range(chunks)]
        run_blocks(self._run, blocks, workers)

    def _run(self, start: int, stop: int, source: Array, out: Array, arguments: tuple[Any, ...]) -> None:
        scratch = self._scratch.take(self.scratch)
        # Addresses instead of arrays: code that takes arrays would be compiled again for read-only ones.
        self.run_tasks(start, stop, address(source), address(out), *arguments, scratch, *self.tables)
        self._scratch.give_back(scratch)


class WinogradProducts:
    """Products with V and Vᵀ, each with its kernel transformed once, and only if it is used."""

    def __init__(self, plan: WinogradPlan, kernel: Array) -> None:
        self._plan, self._kernel = plan, kernel
        self._weights = PerDirection[Array]()

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by V."""
        self._plan.direction(False).product(self._weights.get(False, self._transformed), x, out)

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Vᵀ."""
        self._plan.direction(True).product(self._weights.get(True, self._transformed), y, out)

    def _transformed(self, transposed: bool) -> Array:
        """Return the weights of a direction."""
        rows, groups = self._plan.direction(transposed).rows, self._plan.geometry.groups
        kernel = dual_kernel(self._kernel, groups, 2) if transposed else self._kernel
        return _pack(kernel.reshape(groups, len(kernel) // groups, *kernel.shape[1:]), rows)


def _pack(kernel: Array, rows: int) -> Array:
    """Return G k Gᵀ of a kernel (groups, results, sources, 3, 3): (groups, 16, blocks of rows, sources, rows), raveled."""
    groups, results, sources = kernel.shape[:3]
    blocks = -(-results // rows)
    packed = np.zeros((groups, 4, 4, blocks * rows, sources), kernel.dtype)
    # In double precision, and rounded once.
    for i, line in enumerate(_kernel_step(*np.moveaxis(kernel.astype(np.float64, copy=False), 3, 0))):
        for j, value in enumerate(_kernel_step(*np.moveaxis(line, 3, 0))):
            packed[:, i, j, :results] = value
    packed = packed.reshape(groups, _PRODUCTS, blocks, rows, sources)
    return np.ascontiguousarray(packed.swapaxes(3, 4)).ravel()


def _kernel_step(a: Array, b: Array, c: Array) -> tuple[Array, ...]:
    """Return G k for the rows of k."""
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _channels(geometry: ConvolutionGeometry, transposed: bool) -> tuple[int, int]:
    """Return the channels of a group that a direction reads and computes."""
    inner, outer = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    return (outer, inner) if transposed else (inner, outer)


def _grid(geometry: ConvolutionGeometry, transposed: bool) -> tuple[int, int]:
    """Return how many rows and columns of tiles cover the results of a direction."""
    height, width = geometry.spatial_input if transposed else geometry.spatial_output
    return -(-height // 2), -(-width // 2)


def _odd(count: int, line: int) -> int:
    """Return a count of elements, rounded up to an odd number of cache lines."""
    return (-(-count // line) | 1) * line


engine = WinogradEngine()
