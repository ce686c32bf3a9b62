"""Ways to compute products with V and Vᵀ on the device, of the same protocol as those of the host."""

from convmat.cupy._engines import csr, direct, gemm, torch
from convmat.engines import Engine

ENGINES: dict[str, Engine] = {module.engine.name: module.engine for module in (direct, gemm, csr, torch)}

__all__ = ["ENGINES"]
