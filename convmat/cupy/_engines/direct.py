"""The engine that sums what each result reads, in one kernel: no matrix, no columns; for few channels."""

from __future__ import annotations

from math import prod
from typing import Any

import cupy
import numpy as np

from convmat.cupy._arrays import Array
from convmat.cupy._device import arithmetic
from convmat.cupy._engines.dual import dual_axes, has_dual
from convmat.cupy._kernels import definitions, function, launch_planes
from convmat.cupy._records import PRODUCT, PRODUCT_AXIS, plan_of, records
from convmat.engines import Cost, Machine
from convmat.geometry import Axis, ConvolutionGeometry, IntArray, dual_kernel, merge_axes

_TILES = (8, 4, 2)  # results that a thread does at a time, below one another
_ROWS = 4  # results that it does where they are not written out, one after another
_UNROLLED = 512  # multiplications that the compiler writes out for a column of taps, at most,
_UNROLLED_IN_ALL = 1024  # and for all columns
_SQUARE, _LINE = (32, 4), (256, 1)  # threads of a block


class DirectEngine:
    """Products by loops over channels and taps, whose inputs stay in the caches."""

    name = "direct"
    pads = frozenset({"zeros"})
    automatic = True
    local = True
    silent = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse nothing."""
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count one pass over input and output, and arithmetic at what loads from a cache leave of it."""
        flops, moved = float(batch * geometry.flops), float(batch * sum(geometry.shape) * dtype.itemsize)
        strided = transposed and not has_dual(geometry)
        rate = arithmetic(machine, dtype) * (0.04 if strided else 0.2)
        seconds = max(flops / rate, moved / (0.7 * machine.bandwidth)) + machine.call
        return Cost(flops, moved, seconds, 0.0, 0.0)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Return what describes the products to the kernels, by direction and batch as they come."""
        return DirectPlans(geometry)

    def bind(self, plan: Any, kernel: Array) -> DirectProducts:
        """Return the products of one kernel."""
        return DirectProducts(plan, kernel)


class DirectPlans:
    """The kernels and their integers, for either direction."""

    def __init__(self, geometry: ConvolutionGeometry) -> None:
        self.geometry = geometry
        self.dual = has_dual(geometry)  # whether the transpose is done as the convolution that it is
        self._plans: dict[tuple[bool, int], Array] = {}

    def axes(self, transposed: bool) -> list[Axis]:
        """Return the axes of the convolution that is computed, or transposed where it has no dual; two at least."""
        axes = merge_axes(dual_axes(self.geometry) if transposed and self.dual else self.geometry.axes)
        return axes if len(axes) > 1 else [Axis(1, 1, outputs=1), *axes]

    def results(self, transposed: bool) -> tuple[int, int]:
        """Return how many results there are on the last two of these axes."""
        backwards = transposed and not self.dual
        rows, columns = (axis.size if backwards else axis.outputs for axis in self.axes(transposed)[-2:])
        return rows, columns

    def plan(self, transposed: bool, batch: int) -> Array:
        """Return the integers of a product, on the device."""
        key = transposed, batch
        if key not in self._plans:
            self._plans[key] = cupy.asarray(self._lay_out(transposed, batch))
        return self._plans[key]

    def _lay_out(self, transposed: bool, batch: int) -> IntArray:
        geometry = self.geometry
        outer, inner = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
        taps = prod(geometry.spatial_kernel)
        backwards = transposed and not self.dual
        results, data = (inner, outer) if transposed else (outer, inner)
        # The kernel is (groups, results, data, taps), but (groups, data, results, taps) where it is gone through backwards.
        kernel_result, kernel_data = (taps, results * taps) if backwards else (data * taps, taps)
        product = records(
            PRODUCT,
            batch=batch,
            groups=geometry.groups,
            results=results,
            data=data,
            kernel_group=outer * inner * taps,
            kernel_result=kernel_result,
            kernel_data=kernel_data,
        )
        axes = self.axes(transposed)
        inputs, outputs, before = zip(*((axis.size, axis.outputs, axis.before) for axis in axes), strict=True)
        size, count = (outputs, inputs) if backwards else (inputs, outputs)
        return plan_of(product, records(PRODUCT_AXIS, size=size, results=count, before=before))

    def kernel(self, transposed: bool, dtype: np.dtype[Any]) -> tuple[Any, int]:
        """Return the compiled kernel, and how many results a thread of it does."""
        axes = self.axes(transposed)
        most = max(max(axis.size, axis.outputs) * axis.stride + abs(axis.before) + axis.reach for axis in axes)
        index = np.dtype(np.int32 if 2 * most < np.iinfo(np.int32).max else np.int64)
        known: dict[str, object] = {
            "TAPS": tuple(axis.taps for axis in axes),
            "STRIDE": tuple(axis.stride for axis in axes),
            "DILATION": tuple(axis.dilation for axis in axes),
        }
        backwards = transposed and not self.dual
        tile = 0 if backwards else _tile(axes[-2])
        if not tile:
            more = {"TRANSPOSED": None} if backwards else {}
            return function("gather", definitions("PRODUCTS", dtype, index, len(axes), **known, **more)), _ROWS
        columns = axes[-1].taps if axes[-1].taps * axes[-2].taps * tile <= _UNROLLED_IN_ALL else 1
        options = definitions("PRODUCTS", dtype, index, len(axes), **known, TILE=tile, UNROLL=columns)
        return function("correlate", options), tile


class DirectProducts:
    """Products with V and Vᵀ, or with W where it is padded with zeros."""

    def __init__(self, plans: DirectPlans, kernel: Array) -> None:
        self._plans, self._kernel = plans, kernel
        self._back = (
            cupy.ascontiguousarray(dual_kernel(kernel, plans.geometry.groups, len(plans.geometry.axes)))
            if plans.dual
            else kernel
        )

    def forward(self, x: Array, out: Array) -> None:
        """Sum the inputs of each output."""
        self._product(False, self._kernel, x, out)

    def transpose(self, y: Array, out: Array) -> None:
        """Sum, for each input, the outputs that read it."""
        self._product(True, self._back, y, out)

    def _product(self, transposed: bool, kernel: Array, x: Array, out: Array) -> None:
        run, tile = self._plans.kernel(transposed, out.dtype)
        rows, columns = self._plans.results(transposed)
        shape = out.size // (rows * columns), -(-rows // tile), columns
        plan = self._plans.plan(transposed, len(x))
        launch_planes(run, shape, _SQUARE if rows > 1 else _LINE, (x, kernel, out, plan))


def _tile(axis: Axis) -> int:
    """Return how many results below one another a thread does; 0 where their multiplications are too many to write out."""
    for tile in (*_TILES, 1):
        rows = (tile - 1) * axis.stride + axis.reach + 1
        if tile <= max(1, axis.outputs) and tile * rows <= _UNROLLED:
            return tile
    return 0


engine = DirectEngine()
