"""Products beside those of other packages: PyTorch on the CPU, SciPy, PyLops and SigPy.

Run ``python -m benchmarks.peers``; ``--quick`` takes most cases with single arrays for a few rounds, ``--cases`` some of
them. ``--plain`` computes as if numba were absent. Instead of other packages, ``--regret`` compares the engines with each
other, ``--cold`` the first products of fresh processes, ``--busy`` products while another process keeps a core busy, and
``--memory`` measures what a product allocates.
"""

from __future__ import annotations

import argparse
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.busy import compare_busy
from benchmarks.cold import PRODUCTS, QUICK_CASES, compare_cold
from benchmarks.contest import QUICK, Contest, Pace, foresee, geometric_mean, run_alone
from benchmarks.figure import draw
from benchmarks.libraries import LIBRARIES
from benchmarks.regret import Settled, applied, compare_engines, estimates
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere
from benchmarks.workloads import (
    DTYPES,
    OUTER_PRODUCTS,
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
ROOM = 64 * 2**20  # bytes that a product may allocate besides twice its input and output


@dataclass(frozen=True)
class Bars:
    """What ratios to the best peer must reach, by dtype.

    Attributes
    ----------
    slowest : dict
        That of every row.
    mean : dict
        The geometric mean of all.
    dense : dict
        The geometric mean of the rows of `DENSE`.
    """

    slowest: dict[str, float] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    dense: dict[str, float] = field(default_factory=dict)


DENSE = frozenset(("mid", "deep", "stem", "up"))
FAST = Bars({"float64": 1.0, "float32": 1.0}, {"float64": 3.5, "float32": 1.7}, {"float64": 2.5, "float32": 1.3})
PLAIN = Bars(mean={"float64": 1.5, "float32": 0.8})


def compare_peers(
    report: Report, workloads: Sequence[Workload], batches: Sequence[int], pace: Pace, engine: str, bars: Bars
) -> None:
    """Time every product with convmat and its peers, in one table for each dtype."""
    libraries = [library for library in LIBRARIES if library.installed]
    ratios: dict[Product, float] = {}
    for dtype in DTYPES:
        elsewhere = Elsewhere()
        headings = ["product", "ms", "engine", "ratio", "best peer", *(library.name for library in libraries)]
        headings += ["met"] if dtype in bars.slowest else []
        title = (
            f"{dtype}: time of the best peer / time of convmat, and the same for each peer; {WORKERS} threads.\n"
            "* ran once, ~ estimated from a batch of 1, – cannot do it"
        )
        report.table(dtype, title, headings, [f"{workload.name} forward ×8" for workload in workloads])
        alone: dict[str, float] = {}  # seconds that each peer took for a batch of 1
        for product in products(workloads, (dtype,), batches):
            label = f"{product.workload.name} {product.direction} ×{product.batch}"
            settled = Settled(product, pace.settling) if engine == "auto" else None
            if settled is None and (refused := _refusal(product, engine)):
                report.row([label, "–", f"{engine}: {refused}"])
                continue
            out = np.empty(product.output_shape, product.dtype)
            ours = settled.call if settled else partial(applied(product, engine), product.x, out=out)
            contest = _contest(product, ours, alone, pace)
            name = settled.engine if settled else engine
            best = contest.fastest()
            ratio = ratios[product] = contest.ratio(best)
            cells = [label, contest.seconds(OURS) * 1e3, name, ratio, best]
            for library in libraries:
                single = contest.singles.get(library.name)
                cells.append("–" if single is None else f"{_short(contest.ratio(library.name))}{single.mark}")
            names = {"case": product.workload.name, "direction": product.direction, "dtype": dtype}
            limits = [bars.slowest[dtype]] if dtype in bars.slowest else []
            checks = [Check(dtype, label, ratio, limit, at_least=True) for limit in limits]
            report.row(cells, checks, **names, batch=product.batch, **contest.details())
        report.close(elsewhere.cores())
    for dtype in DTYPES:
        _summarize(report, {product: ratio for product, ratio in ratios.items() if product.dtype == dtype}, bars)


def _refusal(product: Product, engine: str) -> str:
    """Return why an engine cannot compute a product, or nothing."""
    estimate = estimates(product)[engine]
    return estimate.reason if estimate.cost is None else ""


def _contest(product: Product, ours: Callable[[], Array], alone: dict[str, float], pace: Pace) -> Contest:
    """Return the finished contest of convmat and all peers that can do the product, after checking what they return."""
    out = ours()  # compiles and prepares, if that has not been done
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


def check_agreement(product: Product, name: str, theirs: Array, ours: Array) -> None:
    """Raise if a peer's result is not ours."""
    if theirs.dtype != ours.dtype or theirs.size != ours.size:
        raise RuntimeError(
            f"{product}: {name} returns {theirs.shape} {theirs.dtype}, convmat {ours.shape} {ours.dtype}"
        )
    difference = abs(theirs.reshape(ours.shape) - ours).max() / abs(ours).max()
    if not difference <= TOLERANCES[product.dtype]:
        raise RuntimeError(f"{product}: {name} and convmat differ by {difference:.2g} of the largest value")


def _summarize(report: Report, ratios: dict[Product, float], bars: Bars) -> None:
    """Print what the rows of a dtype say together; limits are for all cases of a group."""
    if not ratios:
        return
    worst = min(ratios, key=ratios.__getitem__)
    dtype, present = worst.dtype, {product.workload for product in ratios}
    singles = [ratio > 1 for product, ratio in ratios.items() if product.batch == 1]
    ahead, mean = sum(ratio > 1 for ratio in ratios.values()), geometric_mean(ratios.values())
    print(
        f"\n{dtype}: {ahead} of {len(ratios)} rows ahead, {sum(singles)} of {len(singles)} at batch 1; geometric mean "
        f"{mean:.2f}; worst {ratios[worst]:.2f}, {worst}"
    )
    usual = {workload for workload in WORKLOADS if workload.quick}
    dense = {workload for workload in WORKLOADS if workload.name in DENSE}
    for name, limits, wanted, counted in (
        ("geometric mean", bars.mean, usual, present),
        ("geometric mean of dense rows", bars.dense, dense, dense),
    ):
        values = [ratio for product, ratio in ratios.items() if product.workload in counted]
        if values and wanted <= present and dtype in limits:
            check = Check(dtype, name, geometric_mean(values), limits[dtype], at_least=True)
            print(check)
            report.checks.append(check)


def compare_memory(report: Report, wanted: Iterable[Product], engine: str, settling: float) -> None:
    """Measure the peak of what one product allocates, and what an operator keeps after it.

    Seen are the arrays that NumPy allocates, which it reports to tracemalloc, and not those that compiled code does.
    """
    wanted = list(wanted)
    headings = ("product", "engine", "peak MB", "limit MB", "peak/limit", "keeps MB", "estimate", "met")
    title = f"Peak of a product beyond its input and output; limit {ROOM >> 20} MiB + 2 × (input + output)"
    report.table("memory", title, headings, [str(product) for product in wanted])
    for product in wanted:
        settled = Settled(product, settling) if engine == "auto" else None
        name = settled.engine if settled else engine
        known = settled.known() if settled else estimates(product)
        cost = known[name].cost
        if cost is None:
            report.row([str(product), f"{name}: {known[name].reason}"])
            continue
        del settled
        x, out = product.x, np.empty(product.output_shape, product.dtype)
        limit = ROOM + 2 * (x.nbytes + out.nbytes)
        applied(product, name)(x, out=out)  # imports and compiles, which is not what an operator keeps
        apply = applied(product, name)
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
    options = _parse(arguments)
    start = perf_counter()
    named = {workload.name: workload for workload in (*WORKLOADS, *OUTER_PRODUCTS)}
    workloads = [workload for workload in WORKLOADS if workload.quick or not options.quick]
    if options.cold and options.quick:
        workloads = [workload for workload in WORKLOADS if workload.name in QUICK_CASES]
    if options.cases:
        workloads = [workload for name, workload in named.items() if name in options.cases]
    batches, pace = ((1,), QUICK) if options.quick else ((1, 8), Pace())
    report = Report()
    with _absent("numba") if options.plain else nullcontext():
        report.machine |= _versions()
        print(", ".join(f"{key} {value}" for key, value in report.machine.items()))
        if options.cold:
            minutes = options.minutes or (4.5 if options.quick else 38.0)
            compare_cold(report, workloads, options.products, minutes, options.adjoint)
        elif options.busy:
            compare_busy(report, products(workloads, batches=(1,)), pace)
        elif options.regret:
            compare_engines(report, products(workloads, batches=batches), pace)
        elif options.memory:
            compare_memory(report, products(workloads, batches=batches), options.engine, pace.settling)
        else:
            _set_torch_threads()
            compare_peers(report, workloads, batches, pace, options.engine, PLAIN if options.plain else FAST)
    if options.json:
        report.save(options.json)
    drawn = [row for dtype in DTYPES for row in report.rows.get(dtype, ()) if "ratio" in row]
    if options.figure and drawn:
        draw(drawn, options.figure)
    print(f"\n{perf_counter() - start:.0f} s. {report.summary()}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, after checking which go together."""
    names = [workload.name for workload in (*WORKLOADS, *OUTER_PRODUCTS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="most cases, single arrays, few rounds")
    parser.add_argument("--cases", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto", help="what convmat uses")
    parser.add_argument("--plain", action="store_true", help="without numba, as it is without the extra fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the ratios there")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--regret", action="store_true", help="compare the engines instead")
    instead.add_argument("--memory", action="store_true", help="measure what a product allocates instead")
    instead.add_argument(
        "--busy",
        action="store_true",
        help=f"compare with a busy core instead; where there are more than {WORKERS}, run it on so many (taskset -c 0,1)",
    )
    instead.add_argument(
        "--cold",
        action="store_true",
        help="measure the first products of fresh processes instead, forward; about 40 minutes, or 5 of three cases "
        "with --quick",
    )
    cold = parser.add_argument_group("with --cold")
    cold.add_argument(
        "--products", nargs="+", type=_positive, default=PRODUCTS, metavar="N", help="how many (default: 1 to 10⁴)"
    )
    cold.add_argument(
        "--minutes", type=float, metavar="NUMBER", help="measure again until then; everything is measured once"
    )
    cold.add_argument("--adjoint", action="store_true", help="products with the adjoint instead of forward ones")
    options = parser.parse_args(arguments)
    if options.figure and (options.regret or options.memory or options.busy or options.cold):
        parser.error("--figure draws the comparison with peers; leave out --regret, --memory, --busy and --cold")
    if options.cold and options.plain:
        parser.error("--plain compiles nothing, which --cold is for; leave out one of them")
    return options


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


@contextmanager
def _absent(package: str) -> Iterator[None]:
    """Make imports of a package fail, as if it were not installed."""
    missing = object()
    before: Any = sys.modules.get(package, missing)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is missing:
            del sys.modules[package]
        else:
            sys.modules[package] = before


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
