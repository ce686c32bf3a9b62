"""What products take while another process keeps a core busy, beside what they take otherwise: ``--busy``."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from statistics import median
from time import perf_counter
from types import TracebackType
from typing import Self

import numpy as np

from benchmarks.contest import Pace, run_alone
from benchmarks.regret import Settled, applied
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere
from benchmarks.workloads import Product
from convmat.engines import ENGINES

LIMIT = 2.5  # of the busy time / the quiet time
AUTO = "auto"
_TURN = 0.05  # seconds of products at least: the system has to share the cores several times
_LONG = 1.0  # seconds of a product after which an engine takes no part


class Spinner:
    """Another process that keeps a core busy, from `resume` to `pause`; it ends with the block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"])
        self.pause()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Leave the core to others."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Spin."""
        self._process.send_signal(signal.SIGCONT)


def compare_busy(report: Report, products: Iterable[Product], pace: Pace) -> None:
    """Time ``"auto"`` and each engine that it may take, with a core busy and without, in turn."""
    products = list(products)
    engines = [name for name, engine in ENGINES.items() if engine.automatic]
    headings = ("product", "engine", "quiet ms", "busy ms", "ratio", *engines, "met")
    title = (
        "Time while another process keeps a core busy / time without it: of auto, with its engine, and of each engine.\n"
        "– refuses, keeps too much or takes too long"
    )
    report.table("busy", title, headings, [str(product) for product in products])
    elsewhere = Elsewhere()
    with Spinner() as spinner:
        for product in products:
            settled = Settled(product, pace.settling)
            calls = {AUTO: settled.call}
            for name, estimate in settled.known().items():
                if estimate.cost is None or not ENGINES[name].automatic or estimate.cost.state > pace.room:
                    continue
                out = np.empty(product.output_shape, product.dtype)
                call = partial(applied(product, name), product.x, out=out)
                if run_alone(call, 0.0)[1].seconds < _LONG:
                    calls[name] = call
            quiet, busy = in_turn(calls, spinner, 2 * pace.rounds[0])
            ratios = {name: busy[name] / quiet[name] for name in calls}
            cells = [str(product), settled.engine, quiet[AUTO] * 1e3, busy[AUTO] * 1e3, ratios[AUTO]]
            cells += [ratios.get(name, "–") for name in engines]
            checks = [Check("busy", f"{product} by {name}", value, LIMIT) for name, value in ratios.items()]
            report.row(cells, checks, quiet=quiet, busy=busy)
    report.close(elsewhere.cores())


def in_turn(
    calls: Mapping[str, Callable[[], object]], spinner: Spinner, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the medians of the quiet and of the busy rounds, which alternate."""
    times: list[dict[str, list[float]]] = [{name: [] for name in calls} for _ in range(2)]
    names = list(calls)
    for turn in range(rounds):
        first = turn % len(names)
        for is_busy in (False, True) if turn % 2 else (True, False):
            (spinner.resume if is_busy else spinner.pause)()
            for name in names[first:] + names[:first]:
                times[is_busy][name].append(_seconds(calls[name]))
    spinner.pause()
    quiet, busy = ({name: median(seconds) for name, seconds in each.items()} for each in times)
    return quiet, busy


def _seconds(call: Callable[[], object]) -> float:
    """Return the time of a call, the average of so many as fill a turn."""
    start, calls = perf_counter(), 0
    while True:
        call()
        calls += 1
        passed = perf_counter() - start
        if passed > _TURN:
            return passed / calls
