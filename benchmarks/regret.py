"""How well ``engine="auto"`` chooses, and how far its estimates are from the clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.contest import Contest, Pace, foresee, geometric_mean, run_alone
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere
from benchmarks.workloads import Array, Product
from convmat import warm_up
from convmat.engines import ENGINES, Estimate, refusal

LIMITS = {"90th percentile": 1.15, "worst": 1.4}
_LONG = 2.0  # seconds of a product after which it is not repeated
_PRODUCTS, _LONGEST = (
    8,
    4.0,
)  # products before a choice is asked for, unless they take so many times longer than they should


def estimates(product: Product, operator: Any = None) -> dict[str, Estimate]:
    """Return what the planner knows of each engine for a product, by the operator given or by one that is new."""
    operator = product.workload.operator(product.dtype) if operator is None else operator
    found = operator.explain(product.batch).estimates
    return {e.engine: e for e in found if e.transposed == product.transposed}


def applied(product: Product, engine: str | Any) -> Callable[..., Array]:
    """Return what computes the product, of the operator given or of one that is new, by its engine's name."""
    operator: Any = product.workload.operator(product.dtype, engine) if isinstance(engine, str) else engine
    return (operator.T if product.adjoint else operator).apply  # type: ignore[no-any-return]


class Settled:
    """An operator with ``engine="auto"`` in use: all it may call is compiled, and it has had time to choose.

    Parameters
    ----------
    product : Product
        What it computes.
    seconds : float
        How long, before it is compared with anything.
    """

    def __init__(self, product: Product, seconds: float) -> None:
        self._product = product
        self._operator = product.workload.operator(product.dtype)
        if refusal() is None:
            warm_up(self._operator)
        self.out = np.empty(product.output_shape, product.dtype)
        self.call = partial(applied(product, self._operator), product.x, out=self.out)
        start, count = perf_counter(), 0
        while count == 0 or perf_counter() - start < seconds * (1 if count >= _PRODUCTS else _LONGEST):
            self.call()
            count += 1

    def known(self) -> dict[str, Estimate]:
        """Return what the planner knows now."""
        return estimates(self._product, self._operator)

    @property
    def engine(self) -> str:
        """The engine that is chosen now."""
        return next(name for name, estimate in self.known().items() if estimate.chosen)


def compare_engines(report: Report, products: Iterable[Product], pace: Pace) -> None:
    """Time each engine that ``"auto"`` may take, and print what its choice costs beside the best one."""
    products = list(products)
    engines = [name for name, engine in ENGINES.items() if engine.automatic]
    headings = ("product", "chosen", "best", "regret", *engines)
    title = (
        "Time of the engine that auto uses, once it has had time to choose / that of the best engine; and each engine's\n"
        "time in ms, with the planner's estimate in brackets.\n"
        "* ran once, ~ estimated from a batch of 1, – refuses or keeps too much"
    )
    report.table("regret", title, headings, [str(product) for product in products])
    regrets: dict[str, float] = {}
    errors: defaultdict[str, list[float]] = defaultdict(list)
    field, elsewhere = _Field(pace), Elsewhere()
    for product in products:
        settled = Settled(product, pace.settling)
        known, choice = settled.known(), settled.engine
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
            call = partial(applied(product, self._operators[name]), product.x, out=out)
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
