"""The engine that needs NumPy alone: blocks of im2col times the kernel as a matrix, through BLAS where the dtype has it.

Only a block of the k²-fold copy exists at a time, so that it stays in a cache.

At stride 1 the transpose is itself a convolution, the dual: of the outputs with a border of zeros, by the reversed kernel
with its channels exchanged. It gathers too. At other strides, and where the border would be most of the dual's input, each
tap's products are added to the inputs that it read.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np

from convmat._runtime import run_blocks
from convmat.engines._base import Cost
from convmat.engines._correlation import BLOCK, SERIAL, view_windows
from convmat.engines._machine import Machine
from convmat.engines._padding import pad
from convmat.engines._sums import matmul, most_terms
from convmat.geometry import Array, ConvolutionGeometry, dual_kernel

Index = tuple[Any, ...]

_MOST_AXES = (64 - 3) // 2  # windows have two dimensions for each, and three more


class _Estimate:
    """Constants of 2026-11; `python -m benchmarks.peers --regret` prints estimate / measured time."""

    BLAS = 0.85  # of `Machine.gemm` that products of blocks reach
    COMPLEX = 0.25  # of that in complex numbers, of which a product is four
    INTEGERS = 1e9  # flops per second in integers, which BLAS does not multiply
    GATHER, GATHER_ONE = 0.6, 0.25  # passes over memory for each byte of the columns, and where the kernel is one row
    SCATTER = 4  # passes to add the columns to what they were gathered from
    LINE = 64  # bytes that take as long as to begin a line of the columns, which are copied line by line
    CALLS, STEP_CALLS = 10, 2  # NumPy calls of a product, and of each step of a block: its product, its copy or a tap


class GemmEngine:
    """Products as matrix multiplications of the kernel with gathered inputs."""

    name = "gemm"
    pads: frozenset[str] = frozenset()
    automatic = True
    local = True
    silent = False

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse more axes than a view of all windows can have; integers are multiplied without BLAS, exactly."""
        if len(geometry.axes) > _MOST_AXES:
            return f"it is for up to {_MOST_AXES} axes, as arrays have up to 64 dimensions, got {len(geometry.axes)}"
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count the copy of every tap, written and read in a cache, and the arithmetic."""
        kernel_bytes = dtype.itemsize * prod(geometry.kernel_shape)
        dual = _dual(geometry)
        moved = batch * sum(geometry.shape) * dtype.itemsize
        state = float(kernel_bytes if dual is None else 2 * kernel_bytes)
        scatters = transposed and dual is None
        if transposed and dual is not None:
            geometry = dual.padded
            moved += 2 * batch * geometry.shape[1] * dtype.itemsize
        outputs, offsets = prod(geometry.spatial_output), prod(geometry.spatial_kernel)
        rows = geometry.out_channels // geometry.groups
        columns = float(batch * outputs * geometry.in_channels * offsets * dtype.itemsize)
        flops = 2.0 * columns / dtype.itemsize * rows
        rate = _Estimate.INTEGERS if dtype.kind in "iu" else _Estimate.BLAS * machine.gemm * 8 / dtype.itemsize
        rate *= _Estimate.COMPLEX if dtype.kind == "c" else 1
        # A product with one row reads the columns only once. Threads share the arithmetic.
        passes = _Estimate.GATHER if rows > 1 else _Estimate.GATHER_ONE
        passes += _Estimate.LINE / dtype.itemsize / geometry.spatial_output[-1]
        if scatters:
            passes = _Estimate.SCATTER
        calls = _Estimate.CALLS + _Estimate.STEP_CALLS * (1 + (offsets if scatters else 1)) * -(-columns // BLOCK)
        seconds = flops / rate / (machine.workers if flops > 2 * SERIAL else 1)
        results = 2.0 * batch * outputs * geometry.out_channels * dtype.itemsize
        seconds += (passes * columns + results) / machine.bandwidth + calls * machine.call
        return Cost(flops, 2 * columns + moved, seconds, 0.0, state)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Keep the geometry, and that of the transpose where it is a convolution."""
        return geometry, _dual(geometry), workers

    def bind(self, plan: Any, kernel: Array) -> GemmProducts:
        """Return the products of one kernel."""
        geometry, dual, workers = plan
        blocks = _Blocks(geometry, kernel, workers)
        if dual is None:
            return GemmProducts(blocks, None, None)
        reverse = np.ascontiguousarray(dual_kernel(kernel, geometry.groups, len(geometry.axes)))
        return GemmProducts(blocks, dual, _Blocks(dual.padded, reverse, workers))


@dataclass(frozen=True, slots=True)
class GemmProducts:
    """Products with V and Vᵀ."""

    blocks: _Blocks
    dual: ConvolutionGeometry | None
    dual_blocks: _Blocks | None

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by V."""
        self.blocks.gather(x, out)

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Vᵀ."""
        if self.dual is None or self.dual_blocks is None:
            self.blocks.scatter(y, out)
            return
        inner = self.dual.padded
        bordered = np.empty((len(y), inner.in_channels, *inner.spatial_input), y.dtype)
        pad(y, self.dual, bordered)
        self.dual_blocks.gather(bordered, out)


class _Blocks:
    """Products with V, and additions with Vᵀ, block by block.

    Attributes
    ----------
    matrix : array (groups, C_out / groups, C_in / groups · ∏ k)
        The kernel as matrices.
    ranges : list of (int, int)
        The ranges of outputs of the first axis whose columns are computed at a time.
    """

    def __init__(self, geometry: ConvolutionGeometry, kernel: Array, workers: int) -> None:
        self.geometry, self.workers = geometry, workers
        self.matrix = kernel.reshape(geometry.groups, len(kernel) // geometry.groups, -1)
        count, *others = geometry.spatial_output
        lines = max(1, BLOCK // (self.matrix.shape[2] * prod(others) * kernel.itemsize))
        self.ranges = [(first, min(first + lines, count)) for first in range(0, count, lines)]

    def gather(self, x: Array, out: Array) -> None:
        """Multiply the kernel by the columns that gather each output's taps."""
        groups, rows, taps = self.matrix.shape
        outputs = self.geometry.spatial_output
        windows = view_windows(x, self.geometry)
        out, line = out.reshape(len(x), groups, rows, -1), prod(outputs[1:])
        ranges = self.ranges
        # Where all outputs of a group are less than a block, several groups make one.
        several = max(1, BLOCK // (taps * prod(outputs) * self.matrix.itemsize)) if len(ranges) == 1 else 1

        def multiply(item: int, group: int, first: int, last: int) -> None:
            some = slice(group, group + several)
            at: Index = (item, some, ..., slice(first, last), *(slice(None),) * (len(outputs) - 1))
            gathered = windows[at]
            columns = gathered.reshape(len(gathered), taps, -1)  # copies, unless the kernel is a point
            matmul(self.matrix[some], columns, out[item, some, :, first * line : last * line])

        starts = range(0, groups, several)
        self._run(multiply, [(item, group, *lines) for item in range(len(x)) for group in starts for lines in ranges])

    def scatter(self, y: Array, out: Array) -> None:
        """Multiply by the transposed kernel, and add each tap's row to the inputs that it gathered."""
        offsets = list(product(*map(range, self.geometry.spatial_kernel)))
        most = most_terms(out.dtype)
        out[...] = 0
        self._add(y, out, offsets[:most], 0)
        for first in range(most, len(offsets), most):
            total = np.zeros_like(out)
            self._add(y, total, offsets[first : first + most], first)
            out += total

    def _add(self, y: Array, out: Array, offsets: list[tuple[int, ...]], first_tap: int) -> None:
        """Add the products of some taps, at `offsets` in the kernel and from `first_tap` on in its ravel."""
        groups, rows, _ = self.matrix.shape
        windows = view_windows(out, self.geometry)
        y = y.reshape(len(y), groups, rows, *self.geometry.spatial_output)
        kernel = self.matrix.swapaxes(1, 2).reshape(groups, -1, prod(self.geometry.spatial_kernel), rows)
        kernel = kernel[:, :, first_tap : first_tap + len(offsets)]

        def multiply(item: int, low: int, high: int) -> None:
            # Channels share no input, so that they can be added to at once; taps do, so they come one after another.
            some = kernel[:, low:high].reshape(groups, -1, rows)
            for first, last in self.ranges:
                columns = matmul(some, y[item, :, :, first:last].reshape(groups, rows, -1))
                columns = columns.reshape(groups, high - low, len(offsets), last - first, *y.shape[4:])
                for tap, offset in enumerate(offsets):
                    at: Index = (item, slice(None), slice(low, high), *offset, slice(first, last))
                    windows[at] += columns[:, :, tap]

        channels = kernel.shape[1]
        count = min(self.workers, channels) if len(y) == 1 else 1
        cuts = [channels * i // count for i in range(count + 1)]
        self._run(multiply, [(item, *cut) for item in range(len(y)) for cut in pairwise(cuts)])

    def _run(self, multiply: Any, blocks: list[tuple[int, ...]]) -> None:
        """Share blocks among threads, each with a BLAS of one, where they are large."""
        large = self.matrix.size * prod(self.geometry.spatial_output) > SERIAL
        run_blocks(multiply, blocks, self.workers if large else 1, single_threaded_blas=large)


def _dual(geometry: ConvolutionGeometry) -> ConvolutionGeometry | None:
    """Return the convolution that Vᵀ is; None where there is none, or zeros would be most of its input."""
    axes = geometry.axes
    if geometry.stride != (1,) * len(axes) or prod(a.size + a.reach for a in axes) > 2 * prod(a.size for a in axes):
        return None
    return ConvolutionGeometry(
        (geometry.in_channels, geometry.out_channels // geometry.groups, *geometry.spatial_kernel),
        (geometry.out_channels, *geometry.spatial_output),
        padding=tuple((axis.reach, axis.size - axis.outputs) for axis in axes),
        dilation=geometry.dilation,
        groups=geometry.groups,
    )


engine = GemmEngine()
