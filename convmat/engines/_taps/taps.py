"""The engine that multiplies shifted views: one matrix product in registers, whatever stride, dilation or direction.

`tables` explains the idea, `sweeps` builds the tables, `loops` has the compiled loops, and `simd` the innermost one. The
loops are compiled once for float32 and once for float64, in about 3 s; the innermost one also for each shape of tile, in
about 0.2 s: 31 shapes at most, of which a geometry needs one or two. All are cached on disk, for the processor they were
compiled for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convmat._runtime import count_blocks, run_blocks
from convmat.engines._base import Cost, PerDirection, Scratch, address
from convmat.engines._compiled.loader import Code, load_loop, load_tile, loop_code, refusal, tile_code, vector_unit
from convmat.engines._machine import Machine
from convmat.engines._taps.sweeps import PACKED, sweeps
from convmat.engines._taps.tables import Fit, Sweep, Tables
from convmat.engines._taps.tiling import tile_shapes
from convmat.geometry import Array, ConvolutionGeometry, merge_axes

_SERIAL = 1e-4  # seconds of work that are worth another thread, which takes about half of that to wake up
_SCRATCH = 48 << 20  # bytes of scratch memory of all threads of a product


class _Model(NamedTuple):
    """Figures of the estimates, fitted on 2026-11-22; ``python -m benchmarks.regret`` shows how far they are off."""

    vector: int = 64  # bytes of the widest vectors
    peak: float = 1.5  # rate of a tile that loads nothing, of `Machine.gemm`
    # Efficiencies: the rate of a tile, of `peak`.
    one_axis: float = 0.5  # of one channel and a kernel along one axis: each product has a load of its own
    one_channel: float = 0.75  # of one channel and few taps: neighbouring outputs are rows of a tile
    many_taps: float = 0.6  # what large kernels add to that, for they leave little else to do …
    taps: int = 500  # … from so many taps on
    few_rows: float = 0.6  # of several channels, but for what rows add, for which a vector is loaded once together …
    rows: int = 10  # … the number of rows that would add 1; the sum is 1 at most
    calls: float = 5.5  # NumPy calls that take as long as a product of nothing
    setup: float = 1e-3  # seconds to build the tables
    rate: float = 4e11  # operations of one thread in a second, times bytes of an element: 5·10¹⁰ on float64
    bandwidth: float = 1e10  # bytes moved in a second by one thread


_MODEL = _Model()


class TapsEngine:
    """Products as a matrix product of the kernel with shifted views of the padded input."""

    name = "taps"
    pads = frozenset({"zeros"})
    automatic = True
    local = True
    silent = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse integers, and everything where there is no compiled code."""
        if dtype.char not in "fdFD":
            return f"it computes float32, float64, complex64 and complex128, got {dtype}"
        return refusal()

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count all products with a kernel, zeros of the padding included, and a copy of what is read."""
        components = _components(dtype)
        flops = batch * _flops(geometry, components)
        moved = 2.0 * batch * sum(geometry.shape) * dtype.itemsize
        # A vector that reaches beyond the positions is computed in whole.
        positions, lanes = prod(geometry.spatial_output), _MODEL.vector * components // dtype.itemsize
        in_use = positions / (-(-positions // lanes) * lanes)
        peak = _MODEL.peak * machine.gemm * 8 * components / dtype.itemsize
        single = flops / (peak * _efficiency(geometry, components, transposed) * in_use) + machine.moving(moved)
        together = single if single < _SERIAL else _SERIAL / 2 + single / machine.workers
        state = float(dtype.itemsize * components * prod(geometry.kernel_shape))
        setup = _MODEL.setup + state / machine.bandwidth
        source = geometry.shape[not transposed] // geometry.groups * dtype.itemsize
        scratch = machine.workers * min(source, PACKED)
        number = _number(dtype)
        code = loop_code("taps", "run_tasks", number.name), tile_code(number.itemsize)
        return Cost(flops, moved, _MODEL.calls * machine.call + together, setup, state + scratch, code)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> TapsPlan:
        """Return a plan; the tables of a direction are built when it is first used."""
        return TapsPlan(geometry, dtype, workers)

    def load(self, plan: TapsPlan) -> None:
        """Load or compile the loop, and the tiles of both directions."""
        for transposed in (False, True):
            plan.direction(transposed)

    def all_code(self, number: np.dtype[Any]) -> list[Code]:
        """Return the loop, and the tiles of all shapes."""
        size, registers = number.itemsize, vector_unit()[1]
        tiles = ((*tile, banded) for banded in (False, True) for tile in tile_shapes(registers, banded))
        return [loop_code("taps", "run_tasks", number.name), *(tile_code(size, *map(int, tile)) for tile in tiles)]

    def bind(self, plan: TapsPlan, kernel: Array) -> TapsProducts:
        """Return products that pack the kernel for a direction when it is first used."""
        return TapsProducts(plan, kernel)


@dataclass
class TapsPlan:
    """What depends on the geometry alone, for each direction once it is used."""

    geometry: ConvolutionGeometry
    dtype: np.dtype[Any]
    workers: int
    _directions: PerDirection[Direction] = field(default_factory=PerDirection)

    def direction(self, transposed: bool) -> Direction:
        """Return what a direction needs."""
        return self._directions.get(transposed, self._build)

    def _build(self, transposed: bool) -> Direction:
        geometry, number = self.geometry, _number(self.dtype)
        components = _components(self.dtype)
        run_tasks = load_loop("taps", "run_tasks", number.name)
        vector_bytes, registers = vector_unit()
        fit = Fit(vector_bytes // number.itemsize, registers, number.itemsize, components, self.workers)
        inner, outer = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
        channels = (outer, inner) if transposed else (inner, outer)
        found, missing = sweeps(merge_axes(geometry.axes), transposed, geometry.groups, *channels, fit)
        tiles = [load_tile(number.itemsize, *sweep.tile) for sweep in found]
        moved = sum(geometry.shape) * self.dtype.itemsize
        work = _flops(geometry, components) * number.itemsize / _MODEL.rate + moved / _MODEL.bandwidth
        return Direction(found, tiles, run_tasks, missing, number, work, self.workers)


@dataclass
class Direction:
    """The sweeps of one direction, and scratch memory that products use again.

    Attributes
    ----------
    sweeps : list of Sweep
        What to compute.
    tiles : list of int
        The address of the compiled tile of each sweep.
    run_tasks : callable
        The compiled loop.
    missing : bool
        Whether there are results that no sweep computes, which are 0.
    number : dtype
        Of what is computed with: float32 or float64.
    work : float
        About the seconds that one thread takes for each array of a batch.
    workers : int
        Number of threads.
    """

    sweeps: list[Sweep]
    tiles: list[int]
    run_tasks: Callable[..., None]
    missing: bool
    number: np.dtype[Any]
    work: float
    workers: int

    def __post_init__(self) -> None:
        """Bound the memory of all threads together."""
        self._size = max((sweep.scratch for sweep in self.sweeps), default=1)
        self.workers = max(1, min(self.workers, _SCRATCH // (self._size * self.number.itemsize)))
        self._scratch = Scratch(self.number, self.workers)

    def product(self, weights: list[Array], source: Array, out: Array) -> None:
        """Compute one product."""
        batch = len(out)
        if batch == 0:
            return
        if self.missing:
            out.fill(0)
        workers = self.workers if self.work * batch > _SERIAL else 1
        blocks: list[tuple[object, ...]] = []
        for sweep, tile, packed in zip(self.sweeps, self.tiles, weights, strict=True):
            tasks = sweep.tasks * batch
            chunks = count_blocks(tasks, workers, self.work * batch / len(self.sweeps))
            arguments = source, out, tile, packed, sweep.tables
            blocks += [(tasks * i // chunks, tasks * (i + 1) // chunks, *arguments) for i in range(chunks)]
        run_blocks(self._run, blocks, workers)

    def _run(self, start: int, stop: int, source: Array, out: Array, tile: int, weights: Array, tables: Tables) -> None:
        scratch = self._scratch.take(self._size)
        # Addresses instead of arrays: code that takes arrays would be compiled again for read-only ones.
        self.run_tasks(start, stop, address(source), address(out), tile, weights, scratch, *tables)
        self._scratch.give_back(scratch)


class TapsProducts:
    """Products with V and Vᵀ, each with its kernel packed once, and only if it is used."""

    def __init__(self, plan: TapsPlan, kernel: Array) -> None:
        self._plan, self._kernel = plan, kernel
        self._weights = PerDirection[list[Array]]()

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by V."""
        self._plan.direction(False).product(self._weights.get(False, self._packed), x, out)

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Vᵀ."""
        self._plan.direction(True).product(self._weights.get(True, self._packed), y, out)

    def _packed(self, transposed: bool) -> list[Array]:
        """Return the weights of each sweep."""
        direction, groups = self._plan.direction(transposed), self._plan.geometry.groups
        kernel = self._kernel.reshape(groups, len(self._kernel) // groups, self._kernel.shape[1], -1)
        kernel = kernel.swapaxes(1, 2) if transposed else kernel
        return [_pack(kernel, sweep, direction.number) for sweep in direction.sweeps]


def _pack(kernel: Array, sweep: Sweep, number: np.dtype[Any]) -> Array:
    """Return the weights of a sweep, (groups, blocks of rows, factors, rows of a block), raveled.

    So the tile reads them one after the other. The rows of a group are (results, classes). What fills up the last block has
    weights 0, as have the factors that a class does not use. The kernel is (groups, results, sources, taps).
    """
    taps = sweep.taps[:, sweep.reads]
    weights = kernel[:, :, sweep.channels, np.maximum(taps, 0)]  # (groups, results, classes, factors)
    if kernel.dtype.kind == "c":  # for each number the matrix ((re, −im), (im, re)): a class has one of its rows
        row, column = np.arange(len(taps))[:, None] % 2, sweep.components
        crossed = np.where(row > column, weights.imag, -weights.imag)
        weights = np.where(row == column, weights.real, crossed)
    groups, rows, factors = len(kernel), sweep.tile[0], len(sweep.reads)
    packed = np.zeros((groups, sweep.blocks * rows, factors), number)
    packed[:, : weights.shape[1] * weights.shape[2]] = np.where(taps >= 0, weights, 0).reshape(groups, -1, factors)
    return np.ascontiguousarray(packed.reshape(groups, sweep.blocks, rows, factors).swapaxes(2, 3)).ravel()


def _efficiency(geometry: ConvolutionGeometry, components: int, transposed: bool) -> float:
    """Return the rate of a tile, of what it would be if it loaded nothing."""
    inner, outer = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    if inner == 1 == outer:
        if sum(length > 1 for length in geometry.spatial_kernel) == 1:
            return _MODEL.one_axis
        return _MODEL.one_channel + _MODEL.many_taps * min(1, prod(geometry.spatial_kernel) / _MODEL.taps)
    rows = components * (inner if transposed else outer)
    if transposed:  # phases that have the same reads are rows too
        rows *= prod(axis.stride for axis in geometry.axes if axis.taps % axis.stride == 0)
    return min(1, _MODEL.few_rows + rows / _MODEL.rows)


def _number(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of what is computed with: that of the components of complex numbers."""
    return np.dtype(f"f{dtype.itemsize // _components(dtype)}")


def _components(dtype: np.dtype[Any]) -> int:
    """Return the real elements of a number."""
    return 2 if dtype.kind == "c" else 1


def _flops(geometry: ConvolutionGeometry, components: int) -> float:
    """Return the multiplications and additions of real numbers, those with zeros of the padding included."""
    return 2.0 * components**2 * prod(geometry.kernel_shape) * prod(geometry.spatial_output)


engine = TapsEngine()
