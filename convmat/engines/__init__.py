"""Ways to compute products with V and Vᵀ: one file each, one protocol, in the order in which ties are decided."""

from convmat.engines import csr, fft, gemm, taps, torch, winograd
from convmat.engines.base import Bound, Cost, Engine, Machine

ENGINES: dict[str, Engine] = {module.engine.name: module.engine for module in (taps, winograd, gemm, fft, csr, torch)}

__all__ = ["ENGINES", "Bound", "Cost", "Engine", "Machine"]
