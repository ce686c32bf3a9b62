"""Products beside those of other packages: PyTorch on the CPU, SciPy, PyLops and SigPy.

Run ``python -m benchmarks.peers``; ``--quick`` takes most cases with single arrays for a few rounds, ``--cases`` some of
them. ``--regret`` compares the engines with each other instead, ``--memory`` measures what a product allocates.
"""

from __future__ import annotations

import argparse
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.contest import QUICK, Contest, Pace, foresee, geometric_mean, run_alone
from benchmarks.figure import draw
from benchmarks.libraries import LIBRARIES
from benchmarks.regret import chosen, compare_engines, estimates
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere
from benchmarks.workloads import (
    DTYPES,
    OUTER_PRODUCTS,
    WARM_UP,
    WORKERS,
    WORKLOADS,
    Array,
    Product,
    Workload,
    products,
)
from convmat.engines import ENGINES

OURS = "convmat"
TOLERANCES = {"float64": 1e-10, "float32": 1e-4}  # of the largest value
SLOWEST = {"float64": 1.0, "float32": 0.9}  # what the ratio of every row must reach,
MEAN = {"float64": 3.5, "float32": 1.7}  # and the geometric mean of all
AHEAD = {"float32": 24 / 30}  # share of the rows with a batch of 1 that must be ahead
ROOM = 64 * 2**20  # bytes that a product may allocate besides twice its input and output


def compare_peers(
    report: Report, workloads: Sequence[Workload], batches: Sequence[int], pace: Pace, engine: str
) -> None:
    """Time every product with convmat and its peers, in one table for each dtype."""
    libraries = [library for library in LIBRARIES if library.installed]
    ratios: dict[Product, float] = {}
    for dtype in DTYPES:
        elsewhere = Elsewhere()
        headings = ("product", "ms", "engine", "ratio", "best peer", *(library.name for library in libraries), "met")
        title = (
            f"{dtype}: time of the best peer / time of convmat, and the same for each peer; {WORKERS} threads.\n"
            "* ran once, ~ estimated from a batch of 1, – cannot do it"
        )
        report.table(dtype, title, headings, [f"{workload.name} forward ×8" for workload in workloads])
        alone: dict[str, float] = {}  # seconds that each peer took for a batch of 1
        for product in products(workloads, (dtype,), batches):
            known = estimates(product)
            name = chosen(product) if engine == "auto" else engine
            label = f"{product.workload.name} {product.direction} ×{product.batch}"
            if known[name].cost is None:
                report.row([label, "–", f"{name}: {known[name].reason}"])
                continue
            contest = _contest(product, engine, alone, pace)
            best = contest.fastest()
            ratio = ratios[product] = contest.ratio(best)
            cells = [label, contest.seconds(OURS) * 1e3, name, ratio, best]
            for library in libraries:
                single = contest.singles.get(library.name)
                cells.append("–" if single is None else f"{_short(contest.ratio(library.name))}{single.mark}")
            names = {"case": product.workload.name, "direction": product.direction, "dtype": dtype}
            check = Check(dtype, label, ratio, SLOWEST[dtype], at_least=True)
            report.row(cells, [check], **names, batch=product.batch, **contest.details())
        report.close(elsewhere.cores())
    for dtype in DTYPES:
        _summarize(report, {product: ratio for product, ratio in ratios.items() if product.dtype == dtype})


def _contest(product: Product, engine: str, alone: dict[str, float], pace: Pace) -> Contest:
    """Return the finished contest of convmat and all peers that can do the product, after checking what they return."""
    out = np.empty(product.output_shape, product.dtype)
    ours = partial(_apply(product, engine), product.x, out=out)
    ours()  # compiles and prepares
    contest = Contest(OURS)
    contest.add(OURS, ours, run_alone(ours, pace.patience)[1])
    if product.batch == 1:
        alone.clear()
    for library in LIBRARIES:
        call = library.prepare(product) if library.installed else None
        if call is None:
            continue
        single = foresee(alone, library.name, product.batch, pace.patience)
        if single is None:
            result, single = run_alone(call, contest.patience(pace))
            check_agreement(product, library.name, result, out)
        contest.add(library.name, call, single)
        if product.batch == 1:
            alone[library.name] = single.seconds
    contest.run(pace)
    return contest


def _apply(product: Product, engine: str) -> Callable[..., Array]:
    """Return what computes the product, of an operator of its own."""
    operator: Any = product.workload.operator(product.dtype, engine)
    return (operator.T if product.adjoint else operator).apply  # type: ignore[no-any-return]


def check_agreement(product: Product, name: str, theirs: Array, ours: Array) -> None:
    """Raise if a peer's result is not ours."""
    if theirs.dtype != ours.dtype or theirs.size != ours.size:
        raise RuntimeError(
            f"{product}: {name} returns {theirs.shape} {theirs.dtype}, convmat {ours.shape} {ours.dtype}"
        )
    difference = abs(theirs.reshape(ours.shape) - ours).max() / abs(ours).max()
    if not difference <= TOLERANCES[product.dtype]:
        raise RuntimeError(f"{product}: {name} and convmat differ by {difference:.2g} of the largest value")


def _summarize(report: Report, ratios: dict[Product, float]) -> None:
    """Print what the rows of a dtype say together."""
    if not ratios:
        return
    worst = min(ratios, key=ratios.__getitem__)
    dtype, mean = worst.dtype, geometric_mean(ratios.values())
    ahead = sum(ratio > 1 for ratio in ratios.values())
    singles = [ratio > 1 for product, ratio in ratios.items() if product.batch == 1]
    print(
        f"\n{dtype}: {ahead} of {len(ratios)} rows ahead, {sum(singles)} of {len(singles)} at batch 1; geometric mean "
        f"{mean:.2f} (limit ≥ {MEAN[dtype]}); worst {ratios[worst]:.2f}, {worst} (limit ≥ {SLOWEST[dtype]})"
    )
    if not {workload for workload in WORKLOADS if workload.quick} <= {product.workload for product in ratios}:
        return  # the other limits are for all cases together
    report.checks.append(Check(dtype, "geometric mean", mean, MEAN[dtype], at_least=True))
    if dtype in AHEAD:
        least = ceil(AHEAD[dtype] * len(singles))
        report.checks.append(Check(dtype, "rows ahead at batch 1", sum(singles), least, at_least=True))


def compare_memory(report: Report, chosen_products: Iterable[Product], engine: str) -> None:
    """Measure the peak of what one product allocates, and what an operator keeps after it.

    Seen are the arrays that NumPy allocates, which it reports to tracemalloc, and not those that compiled code does.
    """
    chosen_products = list(chosen_products)
    headings = ("product", "engine", "peak MB", "limit MB", "peak/limit", "keeps MB", "estimate", "met")
    title = f"Peak of a product beyond its input and output; limit {ROOM >> 20} MiB + 2 × (input + output)"
    report.table("memory", title, headings, [str(product) for product in chosen_products])
    for product in chosen_products:
        known = estimates(product)
        name = chosen(product) if engine == "auto" else engine
        cost = known[name].cost
        if cost is None:
            report.row([str(product), f"{name}: {known[name].reason}"])
            continue
        x, out = product.x, np.empty(product.output_shape, product.dtype)
        limit = ROOM + 2 * (x.nbytes + out.nbytes)
        _apply(product, engine)(x, out=out)  # imports and compiles, which is not what an operator keeps
        apply = _apply(product, engine)
        tracemalloc.start()
        apply(x, out=out)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        apply(x, out=out)
        peak = tracemalloc.get_traced_memory()[1] - kept
        tracemalloc.stop()
        figures = peak / 1e6, limit / 1e6, peak / limit, kept / 1e6, cost.state / 1e6
        report.row([str(product), name, *figures], [Check("memory", str(product), peak / limit, 1.0)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison asked for and print the summary."""
    named = {workload.name: workload for workload in (*WORKLOADS, *OUTER_PRODUCTS)}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="most cases, single arrays, few rounds")
    parser.add_argument("--cases", nargs="+", choices=named, metavar="NAME", help=f"of {', '.join(named)}")
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto", help="what convmat uses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the ratios there")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--regret", action="store_true", help="compare the engines instead")
    instead.add_argument("--memory", action="store_true", help="measure what a product allocates instead")
    options = parser.parse_args(arguments)
    if options.figure and (options.regret or options.memory):
        parser.error("--figure draws the comparison with peers; leave out --regret and --memory")
    start = perf_counter()
    _set_torch_threads()
    workloads = [workload for workload in WORKLOADS if workload.quick or not options.quick]
    if options.cases:
        workloads = [workload for name, workload in named.items() if name in options.cases]
    batches, pace = ((1,), QUICK) if options.quick else ((1, 8), Pace())
    report = Report()
    report.machine |= _versions()
    print(", ".join(f"{key} {value}" for key, value in report.machine.items()))
    compile_engines()
    if options.regret:
        compare_engines(report, products(workloads, batches=batches), pace)
    elif options.memory:
        compare_memory(report, products(workloads, batches=batches), options.engine)
    else:
        compare_peers(report, workloads, batches, pace, options.engine)
    if options.json:
        report.save(options.json)
    drawn = [row for dtype in DTYPES for row in report.rows.get(dtype, ()) if "ratio" in row]
    if options.figure and drawn:
        draw(drawn, options.figure)
    print(f"\n{perf_counter() - start:.0f} s. {report.summary()}")
    return 0


def compile_engines() -> None:
    """Use every engine once: ``"auto"`` counts the time to compile one that no product has used."""
    for product in products((WARM_UP,), batches=(1,)):
        for name, estimate in estimates(product).items():
            if estimate.cost is not None and ENGINES[name].automatic:
                _apply(product, name)(product.x)


def _set_torch_threads() -> None:
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(WORKERS)


def _versions() -> dict[str, Any]:
    packages = [name for name in ("torch", "sigpy", "numba") if find_spec(name) is not None]
    return {name: version(name) for name in packages}


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


if __name__ == "__main__":
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":  # has to be set before OpenMP is loaded
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, sys.orig_argv)
    sys.exit(main())
