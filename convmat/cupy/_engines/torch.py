"""The engine that hands the work to PyTorch, whose convolutions are cuDNN's; by name only."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import cupy
import numpy as np

from convmat.cupy._arrays import Array
from convmat.cupy._device import arithmetic
from convmat.engines import Cost, Machine
from convmat.geometry import ConvolutionGeometry


class TorchEngine:
    """Products by ``torch.nn.functional`` on the same memory, with TensorFloat-32 switched off."""

    name = "torch"
    pads: frozenset[str] = frozenset()
    automatic = False
    local = False
    silent = True

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Refuse more than three axes, and a PyTorch that is missing or cannot use the device."""
        if len(geometry.axes) > 3:
            return f"PyTorch convolves over 1 to 3 axes, got {len(geometry.axes)}"
        if find_spec("torch") is None:
            return "PyTorch is not installed; pip install torch"
        import torch

        if not torch.cuda.is_available():
            return f"PyTorch {torch.__version__} finds no CUDA device; install a build with CUDA"
        return None

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Count the arithmetic at the rate of matrix products; which of its methods cuDNN picks is not known."""
        flops = float(batch * geometry.flops)
        moved = float(batch * sum(geometry.shape) * dtype.itemsize)
        seconds = max(flops / (0.7 * arithmetic(machine, dtype)), 3 * moved / machine.bandwidth) + 6 * machine.call
        return Cost(flops, moved, seconds, 0.0, 0.0)

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Keep the geometry."""
        return geometry

    def bind(self, plan: Any, kernel: Array) -> TorchProducts:
        """Return the products of one kernel."""
        return TorchProducts(plan, kernel)


@dataclass(frozen=True, slots=True)
class TorchProducts:
    """Products with V and Vᵀ."""

    geometry: ConvolutionGeometry
    kernel: Array

    def forward(self, x: Array, out: Array) -> None:
        """Convolve."""
        result = self._call("conv", x)
        # A geometry may keep fewer outputs than fit.
        kept: tuple[Any, ...] = (..., *(slice(0, axis.outputs) for axis in self.geometry.axes))
        out[...] = result[kept]

    def transpose(self, y: Array, out: Array) -> None:
        """Convolve transposed; inputs behind the last that is read get 0."""
        result = self._call("conv_transpose", y)
        if result.shape != out.shape:
            out[...] = 0
        reached: tuple[Any, ...] = (..., *map(slice, result.shape[2:]))
        out[reached] = result

    def _call(self, name: str, x: Array) -> Array:
        import torch
        import torch.utils.dlpack

        geometry = self.geometry
        function = getattr(torch.nn.functional, f"{name}{len(geometry.axes)}d")
        # DLPack makes either library wait for what the other one's stream still has to do.
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            result = function(
                torch.utils.dlpack.from_dlpack(x),
                torch.utils.dlpack.from_dlpack(self.kernel),
                stride=geometry.stride,
                dilation=geometry.dilation,
                groups=geometry.groups,
            )
        return cupy.from_dlpack(result)


engine = TorchEngine()
