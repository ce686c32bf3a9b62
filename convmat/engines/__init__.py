"""Ways to compute products with V and Vᵀ: one protocol, padding, and a planner that chooses among them."""

from convmat.engines._base import (
    Bound,
    Cost,
    Engine,
    Machine,
    PerDirection,
    SelectiveEngine,
    find_refusal,
    own_geometry,
)
from convmat.engines._compiled.loader import CompilerUnavailable
from convmat.engines._padding import fold, pad
from convmat.engines._planner import Estimate, Explanation, plan
from convmat.engines._registry import ENGINES, KNOWN_AS

__all__ = [
    "ENGINES",
    "KNOWN_AS",
    "Bound",
    "CompilerUnavailable",
    "Cost",
    "Engine",
    "Estimate",
    "Explanation",
    "Machine",
    "PerDirection",
    "SelectiveEngine",
    "find_refusal",
    "fold",
    "own_geometry",
    "pad",
    "plan",
]
