"""Reads the committed results of the exercise's suite back into what ``python -m convmat exercise`` works with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any

from benchmarks.workloads import WORKERS
from convmat.commands.exercise.cases import CASES
from convmat.commands.exercise.measure import Ceilings, Comparison, Timing
from convmat.commands.exercise.ways import WAYS, Work

RESULTS = Path(__file__).parent / "results"
_NEEDED = (
    *(f"exercise.{name}" for name in ("Build.time_build", "Product.time_product", "Transposed.time_transposed")),
    *(f"exercise.Counts.track_{name}" for name in ("flops", "bytes", "memory")),
    *(f"exercise.Ceilings.track_{name}" for name in ("copy", "copy_in_cache", "blas")),
    *("exercise.Matrix.track_nnz", "exercise.Memory.peakmem_product"),
)


@dataclass(frozen=True)
class Recorded:
    """A run of the suite.

    Attributes
    ----------
    comparison : Comparison
        Times, counts and ceilings.
    peaks : dict
        (case, way) → bytes by which the process' peak is above that of one that does nothing.
    nnz : dict
        Case → nonzeros of W.
    machine : dict
        What asv wrote about the machine.
    date : date
        Of the commit that was measured.
    """

    comparison: Comparison
    peaks: dict[tuple[str, str], float]
    nnz: dict[str, int]
    machine: dict[str, str]
    date: date


def load(folder: Path = RESULTS) -> Recorded:
    """Return the newest run of the whole suite in a folder of asv's results.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    from asv.results import iter_results

    runs = [run for run in iter_results(str(folder)) if set(_NEEDED) <= set(run.get_all_result_keys())]
    if not runs:
        raise FileNotFoundError(f"there is no run of the whole suite in {folder}; run asv, as the README has it")
    run = max(runs, key=lambda run: run.date)
    values = [dict(_values(run, name)) for name in _NEEDED]
    build, products, transposed, flops, moved, memory, *tops, nnz, peaks = values
    timings, refusals = [], {}
    for case, way in product(CASES, WAYS):
        pair = case.name, way
        if pair in products:
            work = Work(flops[pair], moved[pair], memory[pair])
            timings.append(Timing(case, way, work, build.get(pair), products[pair], transposed.get(pair)))
        else:
            refusals[pair] = "not measured"
    return Recorded(
        Comparison(tuple(timings), refusals, Ceilings(*(top[()] * 1e9 for top in tops)), WORKERS),
        {(case, way): peak - peaks[case, "nothing"] for (case, way), peak in peaks.items() if way != "nothing"},
        {case: int(count) for (case,), count in nnz.items()},
        dict(run.params),
        datetime.fromtimestamp(run.date / 1000, UTC).date(),
    )


def _values(run: Any, name: str) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Yield parameters and value of one benchmark, where there is one."""
    params = run.get_result_params(name)
    names = product(*([ast.literal_eval(value) for value in values] for values in params))
    for pair, value in zip(names, run.get_result_value(name, params), strict=True):
        if value is not None and not isnan(value):
            yield pair, value
