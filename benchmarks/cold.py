"""What the first products of a process take, with all that is compiled for them: ``python -m benchmarks.peers --cold``.

Each way runs in fresh processes, ``"auto"`` and every engine by name. The first one finds an empty cache of compiled code.
The second one finds what a first process has left that ended after the same number of products.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shutil import copytree
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.contest import geometric_mean
from benchmarks.fresh import Run, Total, run_fresh
from benchmarks.regret import estimates
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere
from benchmarks.workloads import DIRECTIONS, DTYPES, Product, Workload
from convmat.engines import ENGINES, Cost, Estimate

AUTO = "auto"
PRODUCTS = (1, 10, 100, 1000, 10_000)
QUICK_CASES = ("image-7", "mid", "depthwise")
LIMITS = {"first": 2.2, "second": 1.3}  # of auto's time / that of the engine that is best in hindsight
_ROUNDS = 3  # of all processes, at most
_SHORT = 1.0  # seconds of products that are repeated in any case
_FIRST, _SECOND, _NAMED = 12.0, 4.0, 1.5  # seconds of products of auto in a first and a second process, and of engines
_ROOM = 1e9  # bytes that an engine may keep to take part
_HOPELESS = 8.0  # times another engine's estimates, for one product and for many, from which an engine is left out

Totals = defaultdict[str, defaultdict[int, list[Total]]]  # by way and number of products


def compare_cold(
    report: Report, workloads: Iterable[Workload], marks: Sequence[int], minutes: float, adjoint: bool = False
) -> None:
    """Print for each convolution and number of products what ``"auto"`` takes beside the best engine in hindsight.

    Parameters
    ----------
    report : Report
        Takes a table for each dtype.
    workloads : iterable of Workload
        The convolutions.
    marks : sequence of int
        Numbers of products.
    minutes : float
        How long to repeat what has been measured once.
    adjoint : bool
        Whether the products are those with the adjoint.
    """
    workloads, marks = list(workloads), sorted(marks)
    end, left = perf_counter() + 60 * minutes, len(workloads) * len(DTYPES)
    headings = ("first products", "auto s", "engine", "best", "its s", "ratio", "2nd auto s", "engine", "ratio", "met")
    for dtype in DTYPES:
        section, elsewhere = f"cold {dtype}", Elsewhere()
        title = (
            f"{dtype}, {DIRECTIONS[adjoint]}: seconds of the first products of a fresh process, with all that is compiled,\n"
            "by auto and by the engine that is best in hindsight; then of a second process, which finds the compiled code\n"
            "that auto has left after as many. ~ extrapolated"
        )
        report.table(section, title, headings, [_label(workload, marks[-1]) for workload in workloads])
        ratios: dict[tuple[str, int], list[float]] = defaultdict(list)
        for workload in workloads:
            row = _Row(Product(workload, dtype, adjoint, 1), marks)
            row.measure(perf_counter() + (end - perf_counter()) / left)
            left -= 1
            for products in marks:
                first, second = Verdict.of(row.first, products), Verdict.of(row.with_same_code(products), products)
                label = _label(workload, products)
                checks = []
                for name, verdict in (("first", first), ("second", second)):
                    checks.append(Check(section, f"{label}, {name} process", verdict.ratio, LIMITS[name]))
                    ratios[name, products].append(verdict.ratio)
                cells: list[Any] = [
                    label,
                    _words(first.auto),
                    row.engines["first", products],
                    first.best,
                    _words(first.least),
                ]
                cells += [first.ratio, _words(second.auto), row.engines["second", products], second.ratio]
                seconds = {name: _plain(totals, products) for name, totals in row.totals.items()}
                names = {"case": workload.name, "direction": row.product.direction, "dtype": dtype}
                report.row(cells, checks, **names, products=products, seconds=seconds)
        report.close(elsewhere.cores())
        for name in LIMITS:
            words = [f"{n}: {geometric_mean(ratios[name, n]):.2f}, {max(ratios[name, n]):.2f}" for n in marks]
            print(f"{name} process, number of products: geometric mean and worst of the ratios: {'; '.join(words)}")


@dataclass(frozen=True)
class Verdict:
    """What ``"auto"`` takes beside the best engine."""

    auto: Total
    best: str
    least: Total

    @classmethod
    def of(cls, totals: Totals, products: int) -> Verdict:
        """Return the verdict for a number of products."""
        middles = {way: middle(by_products[products]) for way, by_products in totals.items()}
        auto = middles.pop(AUTO)
        best = min(middles, key=lambda way: middles[way].seconds)
        return cls(auto, best, middles[best])

    @property
    def ratio(self) -> float:
        """Time of auto / that of the best engine."""
        return self.auto.seconds / self.least.seconds


def middle(totals: Sequence[Total]) -> Total:
    """Return the median of those that have been measured, or else of those that have been extrapolated."""
    measured = [total.seconds for total in totals if not total.mark]
    return Total(median(measured)) if measured else Total(median(total.seconds for total in totals), totals[0].mark)


def contenders(known: Iterable[Estimate]) -> list[str]:
    """Return the engines that can be the best: not those that another one beats by far, for one product and for many."""
    automatic = {e.engine: e.cost for e in known if e.cost is not None and ENGINES[e.engine].automatic}
    able = {name: cost for name, cost in automatic.items() if cost.state <= _ROOM}
    rivals = [cost for cost in able.values() if all(name == "import" for name, _ in cost.code)]  # nothing to compile

    def beats(rival: Cost, cost: Cost) -> bool:
        one, other = rival.setup + rival.seconds, cost.setup + cost.seconds
        return _HOPELESS * one < other and _HOPELESS * rival.seconds < cost.seconds

    return [name for name, cost in able.items() if not any(beats(rival, cost) for rival in rivals)]


class _Row:
    """Measures one convolution: all ways in turn, first processes and then second ones."""

    def __init__(self, product: Product, marks: Sequence[int]) -> None:
        self.product, self.marks = product, marks
        self.ways = [AUTO, *contenders(estimates(product).values())]
        self.first: Totals = defaultdict(lambda: defaultdict(list))
        self.second: Totals = defaultdict(lambda: defaultdict(list))
        self.totals = {"first": self.first, "second": self.second}
        self.engines: dict[tuple[str, int], str] = {}  # that auto uses after so many products of a process
        self._code: dict[tuple[str, int], set[str]] = {}  # that a way has left after so many products
        self._numbers = count()

    def with_same_code(self, products: int) -> Totals:
        """Return what second processes take with the compiled code that ``"auto"`` has left after so many products.

        An engine by name compiles at once. Where ``"auto"`` has not compiled its code, it would have to do so again.
        """
        ours = self._code[AUTO, products]
        ready = {way: self._code[way, products] <= ours for way in self.ways}
        return defaultdict(
            lambda: defaultdict(list), {w: (self.second if ready[w] else self.first)[w] for w in self.ways}
        )

    def measure(self, until: float) -> None:
        """Measure everything once, what takes little twice more, and everything again until a moment."""
        with TemporaryDirectory(prefix="convmat-") as name:
            folder, start = Path(name), perf_counter()
            self._round(folder, self.ways, self.marks)
            longest = perf_counter() - start
            if few := [products for products in self.marks if self._is_short(AUTO, products)]:
                short = [way for way in self.ways if self._is_short(way, few[-1])]
                for ways in (short[::-1], short):
                    self._round(folder, ways, few)
            for turn in range(1, _ROUNDS):
                if perf_counter() + longest < until:
                    self._round(folder, self.ways[turn:] + self.ways[:turn], self.marks)

    def _is_short(self, way: str, products: int) -> bool:
        return all(middle(totals[way][products]).seconds < _SHORT for totals in (self.first, self.second))

    def _round(self, folder: Path, ways: Sequence[str], marks: Sequence[int]) -> None:
        """Run a first process of each way, then the second ones."""
        seconds: list[tuple[str, list[int], Path]] = []  # way, numbers of products, what a second process finds
        for way in ways:
            cache, copies = self._folder(folder), self._folder(folder)
            run = run_fresh(self.product, way, cache, _FIRST if way == AUTO else _NAMED, marks, copies)
            self._add("first", way, run, marks)
            groups: dict[tuple[str, ...], tuple[list[int], Path]] = {}  # by what was left after so many products
            for products in marks:
                left = copies / str(min(products, len(run.ends)))
                self._code.setdefault((way, products), {path.name for path in left.rglob("*.code")})
                groups.setdefault(_files(left), ([], left))[0].append(products)
            for files, (numbers, left) in groups.items():
                if files:
                    seconds.append((way, numbers, left))
                else:  # a second process is as the first
                    self._add("second", way, run, numbers)
        for way, numbers, left in seconds:
            cache = self._folder(folder)
            copytree(left, cache, dirs_exist_ok=True)
            run = run_fresh(self.product, way, cache, _SECOND if way == AUTO else _NAMED, numbers)
            self._add("second", way, run, numbers)

    def _add(self, process: str, way: str, run: Run, marks: Iterable[int]) -> None:
        for products in marks:
            self.totals[process][way][products].append(run.total(products))
            if way == AUTO:
                self.engines.setdefault((process, products), run.engine(products))

    def _folder(self, folder: Path) -> Path:
        path = folder / str(next(self._numbers))
        path.mkdir()
        return path


def _files(folder: Path) -> tuple[str, ...]:
    """Return the names of what lies in a folder, by which two of them have the same."""
    return tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))


def _plain(totals: Totals, products: int) -> dict[str, list[tuple[float, str]]]:
    """Return all seconds, as JSON takes them."""
    return {way: [(total.seconds, total.mark) for total in by[products]] for way, by in totals.items()}


def _label(workload: Workload, products: int) -> str:
    return f"{workload.name}, {products}"


def _words(total: Total) -> str:
    return f"{total.seconds:.3g}{total.mark}"
