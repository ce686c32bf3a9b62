"""The engine that hands the work to PyTorch, by name only."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from convmat.engines._base import Cost
from convmat.engines._machine import Machine
from convmat.geometry import Array, ConvolutionGeometry


class _Estimate:
    """Constants of 2026-11; `python -m benchmarks.peers --regret` prints estimate / measured time."""

    CALLS = 20  # NumPy calls that take as long as one of PyTorch's


class TorchEngine:
    """Products by ``torch.nn.functional``, with PyTorch's own threads."""

    name = "torch"
    pads: frozenset[str] = frozenset()
    automatic = False
    local = False
    silent = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse more than three axes, integers, and a missing PyTorch."""
        if len(geometry.axes) > 3:
            return f"PyTorch convolves over 1 to 3 axes, got {len(geometry.axes)}"
        if dtype.kind in "iu":
            return f"PyTorch's convolutions need a float or complex dtype, got {dtype}"
        if not _is_installed():
            return "PyTorch is not installed; pip install torch"
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count the arithmetic at the rate of matrix products; which of its methods PyTorch picks is not known."""
        flops = float(batch * geometry.flops)
        moved = float(batch * sum(geometry.shape) * dtype.itemsize)
        rate = machine.gemm * machine.workers * 8 / dtype.itemsize
        seconds = max(flops / rate, moved / machine.bandwidth) + _Estimate.CALLS * machine.call
        return Cost(flops, moved, seconds, 0.0, 0.0)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Keep the geometry."""
        return geometry

    def bind(self, plan: Any, kernel: Array) -> TorchProducts:
        """Return the products of one kernel."""
        return TorchProducts(plan, _tensor(kernel))


@dataclass(frozen=True, slots=True)
class TorchProducts:
    """Products with V and Vᵀ."""

    geometry: ConvolutionGeometry
    kernel: Any

    def forward(self, x: Array, out: Array) -> None:
        """Convolve."""
        result = self._call("conv", x)
        # A geometry may keep fewer outputs than fit.
        kept: tuple[Any, ...] = (..., *(slice(0, axis.outputs) for axis in self.geometry.axes))
        out[...] = result.numpy()[kept]

    def transpose(self, y: Array, out: Array) -> None:
        """Convolve transposed; inputs behind the last that is read get 0."""
        result = self._call("conv_transpose", y).numpy()
        out[...] = 0
        reached: tuple[Any, ...] = (..., *map(slice, result.shape[2:]))
        out[reached] = result

    def _call(self, name: str, x: Array) -> Any:
        import torch

        if _lost_threads:
            torch.set_num_threads(1)
        geometry = self.geometry
        function = getattr(torch.nn.functional, f"{name}{len(geometry.axes)}d")
        with torch.no_grad():
            return function(
                _tensor(x),
                self.kernel,
                stride=geometry.stride,
                dilation=geometry.dilation,
                groups=geometry.groups,
            )


def _tensor(array: Array) -> Any:
    """Return an array as a tensor, which shares its memory where PyTorch has such tensors."""
    import torch

    plain = array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative
    if not plain:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    # An axis of one may have any stride, for which PyTorch has no tensor: a new array has the usual ones.
    return torch.from_numpy(np.ndarray(array.shape, array.dtype, array))


_lost_threads: list[bool] = []  # not empty where this process was forked from one that had loaded PyTorch


def _start_child() -> None:
    # The threads of OpenMP stay in the parent, and a child that shares work with them waits for ever.
    if "torch" in sys.modules:
        _lost_threads.append(True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_child)


@cache
def _is_installed() -> bool:
    """Tell whether there is something to import."""
    return find_spec("torch") is not None


engine = TorchEngine()
