"""Ways to compute products with V and Vᵀ: one file each, one protocol, in the order in which ties are decided."""

from convmat.engines import csr, fft, gemm, taps, torch
from convmat.engines.base import Bound, Cost, Engine, Machine

ENGINES: dict[str, Engine] = {module.engine.name: module.engine for module in (taps, gemm, fft, csr, torch)}

__all__ = ["ENGINES", "Bound", "Cost", "Engine", "Machine"]
