"""Ways to compute products with V and Vᵀ: one protocol, padding, and a planner that chooses among them."""

from convmat.engines._base import (
    Bound,
    CompiledEngine,
    Cost,
    Engine,
    PerDirection,
    SelectiveEngine,
    find_refusal,
    is_compiled,
    is_selective,
    own_geometry,
)
from convmat.engines._compiled.loader import (
    NO_LOADING,
    Code,
    CompilerUnavailable,
    Loading,
    estimate_loading,
    is_kept,
    load_code,
    refusal,
)
from convmat.engines._correlation import correlate, view_windows
from convmat.engines._explanation import MARGIN, Estimate, Explanation
from convmat.engines._machine import MEASURING, Machine, measure_machine, this_machine
from convmat.engines._padding import fold, pad
from convmat.engines._planner import Observations, next_trial, plan
from convmat.engines._registry import ENGINES, KNOWN_AS
from convmat.engines._sums import matmul

__all__ = [
    "ENGINES",
    "KNOWN_AS",
    "MARGIN",
    "MEASURING",
    "NO_LOADING",
    "Bound",
    "Code",
    "CompiledEngine",
    "CompilerUnavailable",
    "Cost",
    "Engine",
    "Estimate",
    "Explanation",
    "Loading",
    "Machine",
    "Observations",
    "PerDirection",
    "SelectiveEngine",
    "correlate",
    "estimate_loading",
    "find_refusal",
    "fold",
    "is_compiled",
    "is_kept",
    "is_selective",
    "load_code",
    "matmul",
    "measure_machine",
    "next_trial",
    "own_geometry",
    "pad",
    "plan",
    "refusal",
    "this_machine",
    "view_windows",
]
