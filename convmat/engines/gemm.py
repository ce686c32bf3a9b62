"""The engine that needs NumPy alone: blocks of im2col times the kernel as a matrix, through BLAS where the dtype has it.

Only a block of the k²-fold copy exists at a time, so that it stays in a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from convmat.dtypes import Array
from convmat.engines.base import Cost, Machine
from convmat.geometry import ConvolutionGeometry

_BLOCK = 1 << 19  # bytes of a block of columns, for about half of a second-level cache


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
            rate = machine.gemm * 8 / dtype.itemsize * min(1, rows / 8) * (0.25 if dtype.kind == "c" else 1)
        blocks = batch * -(-outputs * taps * dtype.itemsize // _BLOCK)
        calls = (1 + (prod(geometry.spatial_kernel) if transposed else 1)) * blocks
        passes = 3 if transposed else 1.5
        seconds = (
            flops / rate / machine.workers + passes * columns / machine.bandwidth + (20 + 2 * calls) * machine.call
        )
        moved = 2 * columns + batch * sum(geometry.shape) * dtype.itemsize
        return Cost(flops, moved, seconds, 0.0, float(geometry.out_channels * taps * dtype.itemsize))

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Choose how many outputs of the first axis make a block."""
        taps = geometry.in_channels * prod(geometry.spatial_kernel)
        line = taps * prod(geometry.spatial_output[1:]) * dtype.itemsize
        return geometry, max(1, _BLOCK // line)

    def bind(self, plan: Any, kernel: Array) -> GemmProducts:
        """Return the products of one kernel."""
        geometry, lines = plan
        groups = geometry.groups
        return GemmProducts(geometry, kernel.reshape(groups, kernel.shape[0] // groups, -1), lines)


@dataclass(frozen=True, slots=True)
class GemmProducts:
    """Products with V and Vᵀ."""

    geometry: ConvolutionGeometry
    kernel: Array  # (groups, C_out / groups, C_in / groups · ∏ k)
    lines: int

    def forward(self, x: Array, out: Array) -> None:
        """Multiply the kernel by the columns that gather each output's taps."""
        geometry = self.geometry
        groups, rows, taps = self.kernel.shape
        outputs = geometry.spatial_output
        windows = self._windows(x)
        out = out.reshape(len(x), groups, rows, *outputs)
        for item, first in product(range(len(x)), range(0, outputs[0], self.lines)):
            last = min(first + self.lines, outputs[0])
            at: tuple[Any, ...] = (item, ..., slice(first, last), *(slice(None),) * (len(outputs) - 1))
            part = windows[at]
            columns = part.reshape(groups, taps, -1)  # copies, unless the kernel is a point
            view = out[item, :, :, first:last]
            view[...] = np.matmul(self.kernel, columns).reshape(view.shape)

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by the transposed kernel, and add each tap's row to the inputs that it gathered."""
        geometry = self.geometry
        groups, rows, _ = self.kernel.shape
        outputs, lengths = geometry.spatial_output, geometry.spatial_kernel
        out[...] = 0
        windows = self._windows(out)
        y = y.reshape(len(y), groups, rows, *outputs)
        turned = self.kernel.swapaxes(1, 2)
        offsets = list(product(*map(range, lengths)))
        for item, first in product(range(len(y)), range(0, outputs[0], self.lines)):
            last = min(first + self.lines, outputs[0])
            columns = np.matmul(turned, y[item, :, :, first:last].reshape(groups, rows, -1))
            columns = columns.reshape(groups, -1, *lengths, last - first, *outputs[1:])
            for offset in offsets:  # one tap at a time, so that no input is written twice at once
                at: tuple[Any, ...] = (item, slice(None), slice(None), *offset, slice(first, last))
                windows[at] += columns[at[1:-1]]

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
