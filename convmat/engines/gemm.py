"""The engine that needs NumPy alone: blocks of im2col times the kernel as a matrix, through BLAS where the dtype has it.

Only a block of the k²-fold copy exists at a time, so that it stays in a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np

from convmat.dtypes import Array
from convmat.engines.base import Cost, Machine
from convmat.geometry import ConvolutionGeometry
from convmat.parallel import run_blocks, single_threaded_blas

Index = tuple[Any, ...]

_BLOCK = 1 << 19  # bytes of a block of columns, for about half of a second-level cache
_SERIAL = 1 << 20  # multiplications below which one thread is faster


class GemmEngine:
    """Products as matrix multiplications of the kernel with gathered inputs."""

    name = "gemm"
    pads: frozenset[str] = frozenset()
    automatic = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse nothing: integers are multiplied without BLAS, exactly."""
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count the copy of every tap, written and read once in a cache, and the arithmetic."""
        outputs = prod(geometry.spatial_output)
        taps = geometry.in_channels * prod(geometry.spatial_kernel)
        flops = 2.0 * batch * outputs * taps * geometry.out_channels / geometry.groups
        columns = float(batch * outputs * taps * dtype.itemsize)
        rows = geometry.out_channels // geometry.groups
        if dtype.kind in "iu":
            rate = 1e9
        else:  # a product with few rows is bound by reading the columns
            rate = 0.7 * machine.gemm * 8 / dtype.itemsize * min(1, rows / 4) * (0.25 if dtype.kind == "c" else 1)
        blocks = batch * -(-outputs * taps * dtype.itemsize // _BLOCK)
        calls = 10 + 2 * (1 + (prod(geometry.spatial_kernel) if transposed else 1)) * blocks
        work = flops / rate + (3 if transposed else 0.9) * columns / machine.bandwidth
        seconds = work / (machine.workers if flops > 2 * _SERIAL else 1) + calls * machine.call
        moved = 2 * columns + batch * sum(geometry.shape) * dtype.itemsize
        return Cost(flops, moved, seconds, 0.0, float(geometry.out_channels * taps * dtype.itemsize))

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Choose how many outputs of the first axis make a block of columns."""
        taps = geometry.in_channels * prod(geometry.spatial_kernel)
        line = taps * prod(geometry.spatial_output[1:]) * dtype.itemsize
        return geometry, max(1, _BLOCK // line), workers

    def bind(self, plan: Any, kernel: Array) -> GemmProducts:
        """Return the products of one kernel."""
        geometry, lines, workers = plan
        groups = geometry.groups
        return GemmProducts(geometry, kernel.reshape(groups, kernel.shape[0] // groups, -1), lines, workers)


@dataclass(frozen=True, slots=True)
class GemmProducts:
    """Products with V and Vᵀ."""

    geometry: ConvolutionGeometry
    kernel: Array  # (groups, C_out / groups, C_in / groups · ∏ k)
    lines: int
    workers: int

    def forward(self, x: Array, out: Array) -> None:
        """Multiply the kernel by the columns that gather each output's taps."""
        groups, rows, taps = self.kernel.shape
        outputs = self.geometry.spatial_output
        windows = self._windows(x)
        out = out.reshape(len(x), groups, rows, *outputs)

        def multiply(item: int, first: int, last: int) -> None:
            at: Index = (item, ..., slice(first, last), *(slice(None),) * (len(outputs) - 1))
            columns = windows[at].reshape(groups, taps, -1)  # copies, unless the kernel is a point
            view = out[item, :, :, first:last]
            view[...] = np.matmul(self.kernel, columns).reshape(view.shape)

        self._run(multiply, [(item, *lines) for item in range(len(x)) for lines in self._blocks()])

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by the transposed kernel, and add each tap's row to the inputs that it gathered."""
        geometry = self.geometry
        groups, rows, _ = self.kernel.shape
        lengths = geometry.spatial_kernel
        windows = self._windows(out)
        y = y.reshape(len(y), groups, rows, *geometry.spatial_output)
        kernel = self.kernel.swapaxes(1, 2).reshape(groups, -1, prod(lengths), rows)
        offsets = list(product(*map(range, lengths)))
        out[...] = 0

        def multiply(item: int, low: int, high: int) -> None:
            # Channels share no input, so that they can be added to at once; taps do, so they come one after another.
            part = kernel[:, low:high].reshape(groups, -1, rows)
            for first, last in self._blocks():
                columns = np.matmul(part, y[item, :, :, first:last].reshape(groups, rows, -1))
                columns = columns.reshape(groups, high - low, *lengths, last - first, *y.shape[4:])
                for offset in offsets:
                    at: Index = (item, slice(None), slice(low, high), *offset, slice(first, last))
                    windows[at] += columns[(slice(None), slice(None), *offset)]

        channels = kernel.shape[1]
        parts = min(self.workers, channels) if len(y) == 1 else 1
        cuts = [channels * part // parts for part in range(parts + 1)]
        self._run(multiply, [(item, *cut) for item in range(len(y)) for cut in pairwise(cuts)])

    def _blocks(self) -> list[tuple[int, int]]:
        """Return the ranges of outputs of the first axis whose columns are gathered at a time."""
        count = self.geometry.spatial_output[0]
        return [(first, min(first + self.lines, count)) for first in range(0, count, self.lines)]

    def _run(self, multiply: Any, blocks: list[tuple[int, ...]]) -> None:
        """Share blocks among threads where BLAS can be held at one; else BLAS has the threads."""
        large = self.kernel.size * prod(self.geometry.spatial_output) > _SERIAL
        if large and single_threaded_blas.available:
            with single_threaded_blas:
                run_blocks(multiply, blocks, self.workers)
        else:
            run_blocks(multiply, blocks, 1)

    def _windows(self, x: Array) -> Array:
        """Return a view (B, groups, C_in / groups, *k, *outputs) of every tap of every output."""
        geometry = self.geometry
        x = x.reshape(len(x), geometry.groups, -1, *geometry.spatial_input)
        steps = x.strides[3:]
        taps = tuple(step * dilation for step, dilation in zip(steps, geometry.dilation, strict=True))
        moves = tuple(step * stride for step, stride in zip(steps, geometry.stride, strict=True))
        shape = (*x.shape[:3], *geometry.spatial_kernel, *geometry.spatial_output)
        return np.lib.stride_tricks.as_strided(x, shape, (*x.strides[:3], *taps, *moves))


engine = GemmEngine()
