"""How well ``engine="auto"`` chooses, and how far its estimates are from the clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.contest import Contest, Pace, foresee, geometric_mean, run_alone
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere
from benchmarks.workloads import Product
from convmat.engines import ENGINES
from convmat.engines._planner import Estimate

LIMITS = {"90th percentile": 1.25, "worst": 1.5}
_LONG = 2.0  # seconds of a product after which it is not repeated


def estimates(product: Product) -> dict[str, Estimate]:
    """Return what the planner knows of each engine for a product."""
    explanation = product.workload.operator(product.dtype).explain(product.batch)
    return {e.engine: e for e in explanation.estimates if e.transposed == product.transposed}


def chosen(product: Product) -> str:
    """Return the engine that ``engine="auto"`` takes."""
    return next(name for name, estimate in estimates(product).items() if estimate.chosen)


def compare_engines(report: Report, products: Iterable[Product], pace: Pace) -> None:
    """Time each engine that ``"auto"`` may take, and print what its choice costs beside the best one."""
    products = list(products)
    engines = [name for name, engine in ENGINES.items() if engine.automatic]
    headings = ("product", "chosen", "best", "regret", *engines)
    title = (
        "Time of the engine that auto chooses / that of the best engine; and each engine's time in ms, with the planner's\n"
        "estimate in brackets. * ran once, ~ estimated from a batch of 1, – refuses or keeps too much"
    )
    report.table("regret", title, headings, [str(product) for product in products])
    regrets: dict[str, float] = {}
    errors: defaultdict[str, list[float]] = defaultdict(list)
    field, elsewhere = _Field(pace), Elsewhere()
    for product in products:
        known = estimates(product)
        choice = chosen(product)
        contest = field.contest(product, known, choice)
        best = min((choice, contest.fastest()), key=contest.ratio)
        regrets[str(product)] = 1 / contest.ratio(best)
        cells, rows = [], {}
        for name in engines:
            if name not in contest.singles:
                cells.append("–")
                continue
            cost = known[name].cost
            assert cost is not None  # it did not refuse
            seconds = contest.seconds(name)
            if contest.singles[name].mark != "~":
                errors[name].append(cost.seconds / seconds)
            cells.append(f"{seconds * 1e3:.3g}{contest.singles[name].mark} ({cost.seconds * 1e3:.3g})")
            rows[name] = {
                "predicted": cost.seconds,
                "measured": seconds,
                "setup_predicted": cost.setup,
                "first_call": field.first.get(name),
                "flops": cost.flops,
                "bytes": cost.bytes,
                "state": cost.state,
            }
        names: dict[str, Any] = {"case": product.workload.name, "direction": product.direction, "dtype": product.dtype}
        cells = [str(product), choice, best, f"{regrets[str(product)]:.2f}", *cells]
        report.row(cells, **names, batch=product.batch, engines=rows, **contest.details())
    report.close(elsewhere.cores())
    _summarize(report, regrets, errors)


class _Field:
    """The engines of an operator, kept from product to product while the operator is the same."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.first: dict[str, float] = {}  # seconds of an engine's first call, with all that it prepares
        self._operators: dict[str, Any] = {}
        self._key: tuple[str, str] | None = None
        self._alone: dict[str, float] = {}  # seconds of a batch of 1

    def contest(self, product: Product, known: dict[str, Estimate], choice: str) -> Contest:
        """Return the finished contest of the engines that do the product."""
        if self._key != (product.workload.name, product.dtype):
            self._key = product.workload.name, product.dtype
            self._operators.clear()
        if product.batch == 1:
            self.first.clear()
            self._alone.clear()
        contest = Contest(choice)
        out = np.empty(product.output_shape, product.dtype)
        patience = min(self.pace.patience, _LONG)
        for name, estimate in known.items():
            if estimate.cost is None or not ENGINES[name].automatic:
                continue
            if estimate.cost.state > self.pace.room and name != choice:
                continue
            if name not in self._operators:
                self._operators[name] = product.workload.operator(product.dtype, name)
            operator = self._operators[name]
            call = partial((operator.T if product.adjoint else operator).apply, product.x, out=out)
            single = None if name == choice else foresee(self._alone, name, product.batch, patience)
            if single is None:
                if product.batch == 1:
                    self.first[name] = run_alone(call, 0.0)[1].seconds
                single = run_alone(call, patience)[1]
            contest.add(name, call, single)
            if product.batch == 1:
                self._alone[name] = single.seconds
        contest.run(self.pace)
        return contest


def _summarize(report: Report, regrets: dict[str, float], errors: dict[str, list[float]]) -> None:
    print("\nEstimate / measured time: geometric mean, and from the 10th to the 90th percentile")
    for name, values in errors.items():
        low, high = np.percentile(values, (10, 90))
        print(f"  {name:8} {geometric_mean(values):5.2f}   {low:.2f} to {high:.2f}   ({len(values)} products)")
    figures = {"90th percentile": float(np.percentile(list(regrets.values()), 90)), "worst": max(regrets.values())}
    for name, value in figures.items():
        report.checks.append(Check("regret", name, value, LIMITS[name]))
    worst = sorted(regrets, key=regrets.__getitem__, reverse=True)[:5]
    print(f"\nauto / best engine over {len(regrets)} products: " + ", ".join(map(str, report.checks[-2:])))
    print("Largest: " + ", ".join(f"{name} {regrets[name]:.2f}" for name in worst))
