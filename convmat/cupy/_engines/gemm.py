"""The engine for many channels: blocks of gathered inputs times the kernel as a matrix, through cuBLAS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import cupy
import numpy as np

from convmat.cupy._arrays import Array
from convmat.cupy._device import arithmetic
from convmat.cupy._engines.dual import dual_axes, has_dual
from convmat.engines import Cost, Machine
from convmat.geometry import ConvolutionGeometry, dual_kernel

_BLOCK = 1 << 25  # bytes of a block of columns: written and read again while it is in the device's second-level cache

Index = tuple[Any, ...]


class GemmEngine:
    """Products as matrix multiplications of the kernel with gathered inputs."""

    name = "gemm"
    pads: frozenset[str] = frozenset()
    automatic = True
    local = True
    silent = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse nothing."""
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count the copy of every tap, written and read once in a cache, and the arithmetic."""
        results = geometry.spatial_output
        rows = geometry.out_channels // geometry.groups
        if transposed and has_dual(geometry):  # done as a convolution, of the output
            results, rows = geometry.spatial_input, geometry.in_channels // geometry.groups
        taps = geometry.in_channels * geometry.out_channels // geometry.groups // rows * prod(geometry.spatial_kernel)
        flops = 2.0 * batch * prod(results) * taps * rows
        columns = float(batch * prod(results) * taps * dtype.itemsize)
        strided = transposed and not has_dual(geometry)
        blocks = -(-int(columns) // _BLOCK) * (prod(geometry.spatial_kernel) + 1 if strided else 2)
        moving = (3 if strided else 0.8) * columns / machine.bandwidth
        arrays = 3 * batch * sum(geometry.shape) * dtype.itemsize / machine.bandwidth  # padding copies too
        rate = 0.7 * arithmetic(machine, dtype) * min(1, rows / 32)
        seconds = flops / rate + moving + arrays + blocks * machine.call
        return Cost(flops, 2 * columns, seconds, 0.0, 0.0)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Keep the geometry."""
        return geometry

    def bind(self, plan: Any, kernel: Array) -> GemmProducts:
        """Return the products of one kernel."""
        return GemmProducts(plan, kernel)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution without padding, as the product of a matrix with gathered inputs."""

    kernel: Array  # (groups, results, data · ∏ k), channels of a group
    taps: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    outputs: tuple[int, ...]

    def blocks(self, batch: int) -> Iterator[tuple[slice, slice]]:
        """Yield ranges of arrays and of lines of outputs whose columns fill a block."""
        line = self.kernel.shape[0] * self.kernel.shape[2] * prod(self.outputs[1:]) * self.kernel.itemsize
        lines = max(1, min(self.outputs[0], _BLOCK // line))
        arrays = max(1, _BLOCK // (line * self.outputs[0]))
        for first in range(0, batch, arrays):
            for low in range(0, self.outputs[0], lines):
                yield slice(first, min(first + arrays, batch)), slice(low, min(low + lines, self.outputs[0]))

    def windows(self, x: Array) -> Array:
        """Return a view (B, groups, C / groups, *k, *outputs) of every tap of every output."""
        x = x.reshape(len(x), len(self.kernel), -1, *x.shape[2:])
        steps = x.strides[3:]
        apart = tuple(step * dilation for step, dilation in zip(steps, self.dilation, strict=True))
        moves = tuple(step * stride for step, stride in zip(steps, self.stride, strict=True))
        shape = (*x.shape[:3], *self.taps, *self.outputs)
        return cupy.lib.stride_tricks.as_strided(x, shape, (*x.strides[:3], *apart, *moves))

    def multiply(self, x: Array, out: Array) -> None:
        """Write the kernel times the columns that gather each output's taps."""
        groups, results, taps = self.kernel.shape
        windows, out = self.windows(x), out.reshape(len(out), groups, results, *self.outputs)
        for arrays, lines in self.blocks(len(x)):
            at: Index = (arrays, ..., lines, *(slice(None),) * (len(self.outputs) - 1))
            block = windows[at]
            columns = block.reshape(len(block), groups, taps, -1)  # copies, unless the kernel is a point
            view = out[at]
            view[...] = cupy.matmul(self.kernel, columns).reshape(view.shape)

    def multiply_transposed(self, y: Array, out: Array) -> None:
        """Add each tap's row, times the transposed kernel, to the inputs that it gathered."""
        groups, results, _ = self.kernel.shape
        windows = self.windows(out)
        y = y.reshape(len(y), groups, results, *self.outputs)
        kernel = self.kernel.swapaxes(1, 2)
        out[...] = 0
        for arrays, lines in self.blocks(len(y)):
            at: Index = (arrays, ..., lines, *(slice(None),) * (len(self.outputs) - 1))
            block = y[at]
            columns = cupy.matmul(kernel, block.reshape(len(block), groups, results, -1))
            columns = columns.reshape(len(block), groups, -1, *self.taps, *block.shape[3:])
            sums = windows[at]
            for offset in product(*map(range, self.taps)):  # inputs of one tap are different ones
                tap = (slice(None), slice(None), slice(None), *offset)
                view = sums[tap]
                view += columns[tap]


class GemmProducts:
    """Products with V and Vᵀ."""

    def __init__(self, geometry: ConvolutionGeometry, kernel: Array) -> None:
        options = geometry.spatial_kernel, geometry.stride, geometry.dilation
        self._groups = geometry.groups
        self._layer = _Layer(self._matrix(kernel), *options, geometry.spatial_output)
        self._dual: _Layer | None = None
        if has_dual(geometry):
            axes = dual_axes(geometry)
            self._before = tuple(axis.before for axis in axes)
            self._padded = tuple(axis.outputs + axis.reach for axis in axes)
            matrix = self._matrix(dual_kernel(kernel, geometry.groups, len(geometry.axes)))
            self._dual = _Layer(matrix, *options, geometry.spatial_input)

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by V."""
        self._layer.multiply(x, out)

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Vᵀ."""
        if self._dual is None:
            self._layer.multiply_transposed(y, out)
            return
        padded = cupy.zeros((*y.shape[:2], *self._padded), y.dtype)
        inside = (slice(first, first + size) for first, size in zip(self._before, y.shape[2:], strict=True))
        padded[(..., *inside)] = y
        self._dual.multiply(padded, out)

    def _matrix(self, kernel: Array) -> Array:
        return cupy.ascontiguousarray(kernel).reshape(self._groups, len(kernel) // self._groups, -1)


engine = GemmEngine()
