"""The engine for kernels that are an outer product of one vector for each axis: one axis after the other.

A kernel of k × k taps then costs 2·k products for each output instead of k². Whether one is such a product depends on its
values, so that this engine, unlike the others, also has to see them. Each axis is a convolution of the engine `taps`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convmat.engines._base import Cost, Scratch
from convmat.engines._compiled.loader import Code
from convmat.engines._machine import Machine
from convmat.engines._taps import taps
from convmat.geometry import Array, ConvolutionGeometry

_RESIDUAL = 4  # times the dtype's rounding, of the sum of the kernel's absolute values
_BETWEEN = 1 << 19  # elements of an array between two axes from which those of a batch go one by one
_ARRAYS = 2  # between axes: one is read while the other is written

Multiply = Callable[[Array, Array], None]


class SeparableEngine:
    """Products with kernels of rank one, axis by axis."""

    name = "separable"
    pads = taps.engine.pads
    automatic = True
    local = True
    silent = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse channels that are mixed, kernels over a single axis, and what the engine `taps` refuses."""
        if not geometry.groups == geometry.in_channels == geometry.out_channels:
            return (
                "it is for one channel in and out of each group, "
                f"got {geometry.in_channels} to {geometry.out_channels} in {geometry.groups}"
            )
        if sum(length > 1 for length in geometry.spatial_kernel) < 2:
            return f"it is for kernels over several axes, got {' × '.join(map(str, geometry.spatial_kernel))}"
        return taps.engine.refuses(geometry, dtype)

    def refuses_values(self, kernel: Array) -> str | None:
        """Refuse kernels that are no outer product up to rounding."""
        residual = _residual(kernel)  # not finite after an overflow
        limit = _RESIDUAL * float(np.finfo(kernel.dtype).eps)
        if residual <= limit:
            return None
        if not np.isfinite(residual):
            return "the kernel is no outer product of vectors: it has values that are not finite, or too large for that"
        return f"the kernel is no outer product of vectors: {residual:.2g} of it is left, more than {limit:.2g}"

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Add up what the engine `taps` estimates for each axis, and count the arrays between them as kept."""
        steps = _steps(geometry)
        costs = [taps.engine.estimate(step.geometry, dtype, batch, transposed, machine) for step in steps]
        return Cost(
            sum(cost.flops for cost in costs),
            sum(cost.bytes for cost in costs),
            sum(cost.seconds for cost in costs),
            max(cost.setup for cost in costs),
            sum(cost.state for cost in costs)
            + float(_ARRAYS) * dtype.itemsize * _at_once(steps, batch) * _between(steps),
            costs[0].code,
        )

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Return the geometry of each axis, and what the engine `taps` prepares from it."""
        steps = _steps(geometry)
        return steps, [taps.engine.prepare(step.geometry, dtype, workers) for step in steps]

    def load(self, plan: Any) -> None:
        """Load or compile what the axes need."""
        for axis_plan in plan[1]:
            taps.engine.load(axis_plan)

    def all_code(self, number: np.dtype[Any]) -> list[Code]:
        """Return the code of the axes."""
        return taps.engine.all_code(number)

    def bind(self, plan: Any, kernel: Array) -> SeparableProducts:
        """Return the products of one kernel."""
        steps, plans = plan
        peak, vectors = _factors(kernel)
        axes = []
        for number, (step, axis_plan) in enumerate(zip(steps, plans, strict=True)):
            vector = vectors[step.axis] * (peak if number == 0 else 1)
            axes.append(taps.engine.bind(axis_plan, vector.reshape(step.geometry.kernel_shape)))
        return SeparableProducts(steps, axes, Scratch(kernel.dtype, _ARRAYS))


class _Step(NamedTuple):
    """The convolution along one axis, as an array of the axes before and after it needs it."""

    axis: int
    geometry: ConvolutionGeometry


@dataclass(frozen=True, slots=True)
class SeparableProducts:
    """Products with V and Vᵀ."""

    steps: list[_Step]
    axes: list[taps.TapsProducts]
    scratch: Scratch

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by V, the first axis first."""
        shapes = [step.geometry.spatial_output for step in self.steps]
        self._run(shapes, [axis.forward for axis in self.axes], x, out)

    def transpose(self, y: Array, out: Array) -> None:
        """Multiply by Vᵀ, the last axis first."""
        shapes = [step.geometry.spatial_input for step in self.steps]
        self._run(shapes[::-1], [axis.transpose for axis in self.axes[::-1]], y, out)

    def _run(self, shapes: list[tuple[int, ...]], products: list[Multiply], x: Array, out: Array) -> None:
        """Do all axes of a few arrays before the next ones, so that what is between the axes stays small."""
        items = _at_once(self.steps, len(x))
        between = [self.scratch.take(items * _between(self.steps)) for _ in range(_ARRAYS)]
        for first in range(0, len(x), items):
            source = x[first : first + items]
            for number, (shape, multiply) in enumerate(zip(shapes[:-1], products[:-1], strict=True)):
                whole = (*source.shape[:2], *shape)
                target = between[number % _ARRAYS][: prod(whole)].reshape(whole)
                multiply(source, target)
                source = target
            products[-1](source, out[first : first + items])
        for array in between:
            self.scratch.give_back(array)


def _steps(geometry: ConvolutionGeometry) -> list[_Step]:
    """Return the convolution along each axis on which there is something to do."""
    channels, axes = geometry.in_channels, geometry.axes
    shape, steps = list(geometry.spatial_input), []
    for number, axis in enumerate(axes):
        before = tuple(shape)
        shape[number] = axis.outputs
        if axis.taps == 1 and before == tuple(shape) and geometry.padding[number] == (0, 0):
            continue
        only = [index == number for index in range(len(axes))]
        along = ConvolutionGeometry.of_transposed(
            (channels, 1, *(axis.taps if here else 1 for here in only)),
            (channels, *shape),
            stride=[axis.stride if here else 1 for here in only],
            padding=[geometry.padding[number] if here else (0, 0) for here in only],
            dilation=[axis.dilation if here else 1 for here in only],
            groups=channels,
            output_shape=(channels, *before),
        )
        steps.append(_Step(number, along))
    return steps


def _between(steps: list[_Step]) -> int:
    """Return the elements of the largest array between two axes."""
    return max(step.geometry.out_channels * prod(step.geometry.spatial_output) for step in steps[:-1])


def _at_once(steps: list[_Step], batch: int) -> int:
    """Return how many arrays of a batch go through all axes together."""
    return max(1, min(batch, _BETWEEN // _between(steps)))


def _factors(kernel: Array) -> tuple[Array, list[Array]]:
    """Return the largest element (C, 1) of each channel, and the vectors (C, k) through it divided by it, for each axis."""
    channels, lengths = np.arange(len(kernel)), kernel.shape[2:]
    flat = kernel.reshape(len(kernel), -1)
    largest = np.abs(flat).argmax(axis=1)
    position = np.unravel_index(largest, lengths)
    peak = flat[channels, largest][:, None]
    vectors = []
    for axis in range(len(lengths)):
        lines = np.moveaxis(kernel[:, 0], 1 + axis, -1)
        vectors.append(lines[(channels, *position[:axis], *position[axis + 1 :])] / np.where(peak == 0, 1, peak))
    return peak, vectors


def _residual(kernel: Array) -> float:
    """Return Σ|kernel − product of its factors| / Σ|kernel| of a kernel (C, 1, *k), for the channel where it is most."""
    peak, vectors = _factors(kernel)
    outer = peak
    for vector in vectors:
        outer = outer[..., None] * vector.reshape(len(vector), *(1,) * (outer.ndim - 1), -1)
    whole, scale = kernel.reshape(len(kernel), -1), np.where(peak == 0, 1, np.abs(peak))  # so that no sum overflows
    rest = (np.abs(whole - outer.reshape(whole.shape)) / scale).sum(axis=1)
    total = (np.abs(whole) / scale).sum(axis=1)
    return float(np.max(rest / np.where(total == 0, 1, total)))


engine = SeparableEngine()
