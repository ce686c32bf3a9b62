"""The engines for 3 × 3 kernels and many channels: Winograd's minimal filtering, F(2 × 2, 3 × 3) and F(4 × 4, 3 × 3).

A tile of m × m results needs (m + 2) × (m + 2) sources d and the 3 × 3 kernel k, and is Aᵀ [(G k Gᵀ) ∘ (Bᵀ d B)] A; for
m = 2 with

    Bᵀ = ⎛1  0 −1  0⎞   G = ⎛1  0  0⎞   Aᵀ = ⎛1  1  1  0⎞
         ⎜0  1  1  0⎟       ⎜½  ½  ½⎟        ⎝0  1 −1 −1⎠
         ⎜0 −1  1  0⎟       ⎜½ −½  ½⎟
         ⎝0  1  0 −1⎠       ⎝0  0  1⎠

that is 16 products instead of 36, and for m = 4 it is 36 instead of 144 (Lavin & Gray 2016, Fast Algorithms for
Convolutional Neural Networks, section 4). Summed over channels they are matrix products, transformed kernel × transformed
tiles. A task does all three stages for a range of tiles, one after the other in memory that stays in its thread's cache:
tiles of all images are numbered through, so that vectors of tiles are full whatever the images' size.

The transpose of such a convolution is itself one, the dual: with the kernel reversed, its channels exchanged, and 2 − p
instead of a padding p, cropping where that is negative. Only the tables differ.

Why there are two engines
-------------------------
In tiles of 2 × 2, a NaN in the source reaches exactly the results that it reaches by definition, since the first row and
column of d are in nothing but the first of the tile's results, and the last in the last; so does an Inf, but it may become
NaN there. Rounding errors are about those of a direct sum. In tiles of 4 × 4 the inner rows and columns of d are in all
of the tile's results, and two of those four read no such row: a NaN, or the rounding errors of a large value, spread in the
tile. So `winograd` is local, and `winograd4` is not. Which of them `auto` takes follows from their estimates: 4 × 4 tiles
need fewer products, but waste more at the borders and in the last vector, and read a kernel that is 2.25 times as large.

The points of `winograd4` are 0, ±11/16, ±3/2 and ∞ (Barabasz, Anderson, Soodhalter & Gregg 2020, Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks): their numbers in A and B are exact in float32, and
max Σₜ |A|ₜ Σ|B|ₜ |G|ₜ, which bounds how far rounding errors grow, is 12.8 on an axis, where 0, ±1, ±2 and ∞ have 29.3 and
`winograd` 4.

Why `winograd4` is for float64
------------------------------
Over random layers its error is small: in float32, of 8 to 256 channels, 0.08 of the 1e-5 ‖W‖∞‖x‖∞ that is promised. But
errors of sums whose terms are all alike add up with the number of channels. They come nearest where the signs of kernel and
source are those of the rows of G and Bᵀ, as a pattern of 4 × 4 that all channels have in common. There float32 has 0.25 of
what is promised at 8 channels, 1.5 at 64 and 5.6 at 256; kernels and sources that are random, but the same in all channels,
have 1.6 at 256. In float64 it is 0.07 of 1e-12 ‖W‖∞‖x‖∞ at 256 channels, 0.35 at 1024 and 0.94 at 4096. So `winograd4` takes
float64, and up to 1024 channels.

`convmat.engines._winograd.loops` has the compiled loops, compiled for either tile, float32 and float64, and
`convmat.engines._compiled.simd` the matrix product in registers, which is the one of the engine `taps`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from convmat._runtime import count_blocks, run_blocks
from convmat.engines._base import Cost, PerDirection, Scratch, address
from convmat.engines._compiled.loader import Code, load_loop, load_tile, loop_code, refusal, tile_code, vector_unit
from convmat.engines._machine import Machine
from convmat.engines._winograd.matrices import kernel_step
from convmat.geometry import Array, ConvolutionGeometry, IntArray, dual_kernel

_CHANNELS = 8  # with fewer, the transforms cost more than they save
# By the edge of a tile: so that scratch memory stays within bounds, and for 4 × 4 the errors of sums that are all alike.
_MOST_CHANNELS = MappingProxyType({2: 1 << 15, 4: 1 << 10})
_NUMBERS = MappingProxyType({2: "fd", 4: "d"})  # the dtypes that its errors allow
_WIDEST = 3  # vectors of a tile of the matrix product, so that its accumulators fit; at least 2
_SERIAL = 1e-4  # seconds of work that are worth another thread, which takes about half of that to wake up
_PIECES = 8  # of the tiles for each thread
_CACHE = 700 << 10  # bytes of scratch memory of one thread, for most of a second-level cache
_RESULTS = 64  # channels of products that are transformed back together, before they leave the cache
_SCRATCH = 48 << 20  # bytes of scratch memory of all threads of a product
_VECTOR = 64  # bytes of the widest vector


class _Estimate:
    """Constants of 2026-11; `python -m benchmarks.peers --regret` prints estimate / measured time."""

    # × `Machine.gemm`, the rate of the matrix products in registers, by the edge of a tile
    TILES = MappingProxyType({2: 1.5, 4: 1.25})
    CACHE_SPEED = 8  # × `Machine.bandwidth`, at which transformed tiles move in a cache
    TRANSFORM = 8  # passes over the weights to transform the kernel
    TABLES = 1e-3  # seconds to build the tables
    CALLS = 4  # NumPy calls of a product
    WORK = 4e11  # flops per second of a thread, times the bytes of a number, about


class WinogradEngine:
    """Products with fewer multiplications than the definition has.

    Parameters
    ----------
    name : str
        What it is called.
    edge : int
        Rows and columns of results of a tile: 2 or 4.
    """

    pads = frozenset({"zeros"})
    automatic = True
    silent = True

    def __init__(self, name: str, edge: int) -> None:
        self.name, self.edge = name, edge
        self.local = edge == 2
        self._loop = f"run_tasks_of_{edge}"

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse all but 3 × 3 kernels at stride 1 with many real channels, and all without compiled code."""
        if dtype.char not in _NUMBERS[self.edge]:
            return f"it computes {' and '.join(np.dtype(char).name for char in _NUMBERS[self.edge])}, got {dtype}"
        if geometry.spatial_kernel != (3, 3):
            return f"it is for kernels of 3 × 3, got {' × '.join(map(str, geometry.spatial_kernel))}"
        if geometry.stride != (1, 1) or geometry.dilation != (1, 1):
            return f"it is for stride 1 and dilation 1, got {geometry.stride} and {geometry.dilation}"
        channels = _channels(geometry, False)
        most = _MOST_CHANNELS[self.edge]
        if not _CHANNELS <= min(channels) <= max(channels) <= most:
            return f"it is for {_CHANNELS} to {most} channels in and out of each group, got {channels}"
        return refusal()

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count the products for each tile and pair of channels, and the transformed tiles, written and read."""
        grid, channels = _grid(geometry, transposed, self.edge), _channels(geometry, transposed)
        products = (self.edge + 2) ** 2
        lanes, pairs = _VECTOR // dtype.itemsize, prod(channels) * geometry.groups
        vectors = -(-batch * prod(grid) // lanes)
        flops = 2.0 * products * pairs * vectors * lanes
        # Transformed tiles stay in the cache; there a vector has tiles of one row.
        rows = sum(channels) * geometry.groups * batch * grid[0] * -(-grid[1] // lanes)
        cached = 2.0 * products * _VECTOR * rows
        state = float(products) * pairs * dtype.itemsize
        moved = 2.0 * batch * sum(geometry.shape) * dtype.itemsize
        rate = _Estimate.TILES[self.edge] * machine.gemm * 8 / dtype.itemsize
        moving = cached / (_Estimate.CACHE_SPEED * machine.bandwidth) + machine.moving(moved) + machine.moving(state)
        single = flops / rate + moving
        shared = single if single < _SERIAL else _SERIAL / 2 + single / machine.workers
        seconds = _Estimate.CALLS * machine.call + shared
        setup = _Estimate.TABLES + _Estimate.TRANSFORM * state / machine.bandwidth
        vector_bytes = products * _VECTOR * (channels[0] + min(channels[1], _RESULTS))
        scratch = machine.workers * max(_CACHE, max(_WIDEST, channels[1] // (8 * lanes)) * vector_bytes)
        code = loop_code("winograd", self._loop, dtype.name), tile_code(dtype.itemsize)
        return Cost(flops, moved + state, seconds, setup, state + min(scratch, _SCRATCH), code)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> WinogradPlan:
        """Return a plan; the tables of a direction are built when it is first used."""
        return WinogradPlan(self.edge, geometry, dtype, workers)

    def load(self, plan: WinogradPlan) -> None:
        """Load or compile the loop, and the tiles of both directions."""
        for transposed in (False, True):
            plan.direction(transposed)

    def all_code(self, number: np.dtype[Any]) -> list[Code]:
        """Return the loop, and the tiles; nothing for a dtype that is refused."""
        if number.char not in _NUMBERS[self.edge]:
            return []
        tiles = [tile_code(number.itemsize, *shape) for shape in _tile_shapes(vector_unit()[1])]
        return [loop_code("winograd", self._loop, number.name), *tiles]

    def bind(self, plan: WinogradPlan, kernel: Array) -> WinogradProducts:
        """Return products that transform the kernel for a direction when it is first used."""
        return WinogradProducts(plan, kernel)


@dataclass
class WinogradPlan:
    """What depends on the geometry alone, for each direction once it is used."""

    edge: int
    geometry: ConvolutionGeometry
    dtype: np.dtype[Any]
    workers: int
    _directions: PerDirection[Direction] = field(default_factory=PerDirection)

    def direction(self, transposed: bool) -> Direction:
        """Return what a direction needs."""
        return self._directions.get(transposed, self._build)

    def _build(self, transposed: bool) -> Direction:
        geometry, itemsize, products = self.geometry, self.dtype.itemsize, (self.edge + 2) ** 2
        run_tasks = load_loop("winograd", f"run_tasks_of_{self.edge}", self.dtype.name)
        register, registers = vector_unit()
        lanes, line = register // itemsize, 64 // itemsize
        shapes = _tile_shapes(registers)
        rows = shapes[-1][0]
        addresses = [load_tile(itemsize, *shape) for shape in shapes]
        sources, results = _channels(geometry, transposed)
        blocks = -(-results // rows)
        most_blocks = min(blocks, -(-_RESULTS // rows))
        vector_bytes = products * (sources + most_blocks * rows) * register
        # A task reads the whole kernel. Where that has many channels, more tiles have to share it than fit into the cache.
        vectors = max(_CACHE // vector_bytes, results // (8 * lanes), _WIDEST)
        vectors = max(1, min(vectors, _SCRATCH * 2 // 3 // (self.workers * vector_bytes)))
        # An odd number of cache lines: with powers of two, channels would compete for the same places in a cache. What the
        # last vector of a channel has too much is overwritten by the next channel; the last one needs room for it.
        length = _odd(vectors * lanes, line)
        source_distance = _odd(sources * length + lanes, line)
        result_distance = _odd(most_blocks * rows * length + lanes, line)
        shape, target, grid = geometry.spatial_input, geometry.spatial_output, _grid(geometry, transposed, self.edge)
        if transposed:
            shape, target = target, shape
        origin = [axis.before - 2 if transposed else -axis.before for axis in geometry.axes]
        sizes = [
            geometry.groups, sources, results, rows, blocks, most_blocks, length, source_distance, result_distance,
            *shape, *target, *grid, *origin,
        ]  # fmt: skip
        offsets = np.arange(sources, dtype=np.int64) * (length * itemsize)
        tables = np.array(sizes, np.int64), np.array(addresses, np.int64), offsets, np.array([sources], np.int64)
        scratch = products * (source_distance + result_distance) + lanes  # which may have to be skipped for alignment
        work = 2 * products * prod(grid) * sources * results * geometry.groups * itemsize / _Estimate.WORK
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
        return _pack(kernel.reshape(groups, len(kernel) // groups, *kernel.shape[1:]), rows, self._plan.edge)


def _pack(kernel: Array, rows: int, edge: int) -> Array:
    """Return G k Gᵀ of a kernel (groups, results, sources, 3, 3).

    It is the ravel of (groups, products, blocks of rows, sources, rows).
    """
    groups, results, sources = kernel.shape[:3]
    blocks, side = -(-results // rows), edge + 2
    packed = np.zeros((groups, side, side, blocks * rows, sources), kernel.dtype)
    # In double precision, and rounded once.
    for i, line in enumerate(kernel_step(np.moveaxis(kernel.astype(np.float64, copy=False), 3, 0), edge)):
        for j, value in enumerate(kernel_step(np.moveaxis(line, 3, 0), edge)):
            packed[:, i, j, :results] = value
    packed = packed.reshape(groups, side**2, blocks, rows, sources)
    return np.ascontiguousarray(packed.swapaxes(3, 4)).ravel()


def _channels(geometry: ConvolutionGeometry, transposed: bool) -> tuple[int, int]:
    """Return the channels of a group that a direction reads and computes."""
    inner, outer = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    return (outer, inner) if transposed else (inner, outer)


def _grid(geometry: ConvolutionGeometry, transposed: bool, edge: int) -> tuple[int, int]:
    """Return how many rows and columns of tiles cover the results of a direction."""
    height, width = geometry.spatial_input if transposed else geometry.spatial_output
    return -(-height // edge), -(-width // edge)


def _odd(count: int, line: int) -> int:
    """Return a count of elements, rounded up to an odd number of cache lines."""
    return (-(-count // line) | 1) * line


def _tile_shapes(registers: int) -> list[tuple[int, int, int]]:
    """Return the shapes of tiles of the matrix products, the widest last: as many sums as there are registers for."""
    return [(8 if registers > 16 else 4, vectors, 0) for vectors in range(1, _WIDEST + 1)]


engine, engine4 = WinogradEngine("winograd", 2), WinogradEngine("winograd4", 4)
