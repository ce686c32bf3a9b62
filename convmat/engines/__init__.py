"""Ways to compute products with V and Vᵀ: one protocol, in the order in which ties are decided."""

from convmat.engines import csr, fft, gemm, separable, taps, torch, winograd
from convmat.engines.base import Bound, Cost, Engine, Machine, SelectiveEngine

ENGINES: dict[str, Engine] = {
    module.engine.name: module.engine for module in (taps, winograd, separable, gemm, fft, csr, torch)
}

__all__ = ["ENGINES", "Bound", "Cost", "Engine", "Machine", "SelectiveEngine"]
