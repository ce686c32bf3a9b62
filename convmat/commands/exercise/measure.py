"""Measures all ways in the same manner. Ways take turns, and the machine's ceilings are measured in the same run."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil
from statistics import median
from time import perf_counter

import numpy as np

from convmat._runtime import run_blocks
from convmat.commands.exercise.cases import Case, square
from convmat.commands.exercise.ways import WAYS, Ready, Way, Work
from convmat.geometry import Array

_TURN = 2e-3  # least seconds of a turn, far more than the clock and one interruption take
_ROUNDS = 3, 15  # least number if time permits, and most
_TOLERANCE = {"float64": 1e-10, "float32": 1e-3}  # of the largest number in the result


@dataclass(frozen=True)
class Ceilings:
    """The best rates of the machine, with as many threads as the ways have.

    Attributes
    ----------
    copy : float
        Bytes per second, read and written, of copying arrays far larger than any cache.
    cached : float
        The same of arrays that stay in a cache.
    gemm : float
        Operations per second of BLAS in the product of two large square matrices.
    """

    copy: float
    cached: float
    gemm: float

    def best(self, other: Ceilings) -> Ceilings:
        """Return the higher of each rate, because other work of the machine lowers rates."""
        return Ceilings(max(self.copy, other.copy), max(self.cached, other.cached), max(self.gemm, other.gemm))

    def bound(self, work: Work) -> float:
        """Return the least seconds of a product with arrays in memory: the roofline of copying and BLAS."""
        return max(work.bytes / self.copy, work.flops / self.gemm)


@dataclass(frozen=True)
class Timing:
    """Seconds of one way in one case, or None if not measured, and its counts."""

    case: Case
    way: str
    work: Work
    build: float | None
    product: float
    transposed: float | None

    @property
    def bandwidth(self) -> float:
        """Counted bytes per second of the product."""
        return self.work.bytes / self.product

    @property
    def rate(self) -> float:
        """Counted operations per second of the product."""
        return self.work.flops / self.product


@dataclass(frozen=True)
class Comparison:
    """All measurements, and what was left out: (case, way) → why."""

    timings: tuple[Timing, ...]
    refusals: Mapping[tuple[str, str], str]
    ceilings: Ceilings
    workers: int

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases with a timing, in order."""
        return tuple({timing.case.name: timing.case for timing in self.timings}.values())

    def of(self, case: Case) -> dict[str, Timing]:
        """Return the timings in a case, by way."""
        return {timing.way: timing for timing in self.timings if timing.case.name == case.name}

    def find(self, case: str, way: str) -> Timing | None:
        """Return one timing, or None."""
        return next((timing for timing in self.timings if (timing.case.name, timing.way) == (case, way)), None)


def blas_threads(workers: int) -> AbstractContextManager[object]:
    """Bound the threads of BLAS."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(workers, user_api="blas")
    return limits


def compare(
    cases: Sequence[Case],
    seconds: float,
    workers: int,
    step: Callable[[str], None],
    ways: Iterable[Way] = tuple(WAYS.values()),
) -> Comparison:
    """Measure the ways that can do each case, in about so many seconds.

    Parameters
    ----------
    cases : sequence of Case
        What to compute.
    seconds : float
        How long to measure, about; slow ways take longer.
    workers : int
        Threads of every way.
    step : callable
        Called with a name before each case, and before the ceilings.
    ways : iterable of Way
        What to compare.

    Returns
    -------
    Comparison
        The medians.

    Raises
    ------
    RuntimeError
        If two ways do not agree.
    """
    end = perf_counter() + seconds
    timings: list[Timing] = []
    refusals: dict[tuple[str, str], str] = {}
    with blas_threads(workers):
        step("ceilings")
        top = ceilings(workers, seconds / 40)
        for done, case in enumerate((square("warm-up", 16, 3, 16), *cases)):  # imports and compiles
            if done:
                step(case.name)
            able: list[Way] = []
            for way in ways:
                refusal = way.refuses(case)
                if refusal is None:
                    able.append(way)
                else:
                    refusals[case.name, way.name] = refusal
            now = perf_counter()
            share = (end - now) / (len(cases) + 1 - done)
            if done:
                timings += measure(case, able, workers, share)
            else:
                for way in able:
                    _run(way.build(case, workers), case)
        top = top.best(ceilings(workers, seconds / 40))
    chosen = {case.name for case in cases}
    return Comparison(tuple(timings), {pair: why for pair, why in refusals.items() if pair[0] in chosen}, top, workers)


def ceilings(workers: int, seconds: float = 2.0) -> Ceilings:
    """Measure the best rates of the machine."""
    return Ceilings(
        copy_rate(workers, 64_000_000, seconds / 3),
        copy_rate(workers, 128_000, seconds / 3),
        gemm_rate(seconds / 3),
    )


def copy_rate(workers: int, nbytes: int, seconds: float) -> float:
    """Return the bytes per second at which threads copy. Each copies one array of `nbytes` bytes to another."""
    source, target = np.ones((workers, nbytes // 8)), np.zeros((workers, nbytes // 8))
    repeat = max(1, 10_000_000 // nbytes)  # handing a call to a thread takes as long as copying a small array

    def copy(i: int) -> None:
        for _ in range(repeat):
            np.copyto(target[i], source[i])

    blocks = [(i,) for i in range(workers)]
    fastest = _fastest(lambda: run_blocks(copy, blocks, workers), seconds)
    return 2 * source.nbytes * repeat / fastest


def gemm_rate(seconds: float, n: int = 1024) -> float:
    """Return the operations per second of a product of square matrices, with BLAS's present number of threads."""
    a, b = np.random.default_rng(1).standard_normal((2, n, n))
    out = np.empty((n, n))
    return 2 * n**3 / _fastest(lambda: np.matmul(a, b, out=out), seconds)


def build_seconds(way: Way, case: Case, workers: int, budget: float = 0.0) -> tuple[Ready, float]:
    """Prepare a way up to three times, while the budget lasts; return the last result and the median seconds."""
    times = []
    start = perf_counter()
    while True:
        begin = perf_counter()
        ready = way.build(case, workers)
        times.append(perf_counter() - begin)
        if len(times) == 3 or perf_counter() - start + max(times) > budget:
            return ready, median(times)


def measure(case: Case, ways: Sequence[Way], workers: int, seconds: float) -> list[Timing]:
    """Measure one case: builds one after the other, then products in turn.

    Parameters
    ----------
    case : Case
        What to compute.
    ways : sequence of Way
        Ways that do not refuse it.
    workers : int
        Threads of every way.
    seconds : float
        How long to measure, about.

    Returns
    -------
    list of Timing
        One for each way.

    Raises
    ------
    RuntimeError
        If two ways do not agree.
    """
    end = perf_counter() + max(0.0, seconds)
    builds: dict[str, float] = {}
    calls: list[tuple[str, int, Callable[[], Array], int]] = []  # way, direction, call, calls that make a turn
    agreed: list[Array] = []
    for way in ways:
        ready, builds[way.name] = build_seconds(way, case, workers, seconds / 20 / len(ways))
        results = _run(ready, case)
        agreed = agreed or results
        _check(case, ways[0].name, way.name, agreed, results)
        for direction, (function, array) in enumerate(((ready.product, case.x), (ready.transposed, case.y))):
            call = _bind(function, array)
            calls.append((way.name, direction, call, _turn(call)))
    times: dict[tuple[str, int], list[float]] = {(way, direction): [] for way, direction, _, _ in calls}
    collects = gc.isenabled()
    gc.disable()
    try:
        for turn in range(_ROUNDS[1]):
            if turn >= (_ROUNDS[0] if perf_counter() < end + seconds else 1) and perf_counter() > end:
                break
            first = turn % len(calls)
            for way_name, direction, call, count in calls[first:] + calls[:first]:
                times[way_name, direction].append(_seconds(call, count))
            gc.collect()
    finally:
        if collects:
            gc.enable()
    return [
        Timing(case, way.name, way.work(case), builds[way.name], *(median(times[way.name, d]) for d in (0, 1)))
        for way in ways
    ]


def _run(ready: Ready, case: Case) -> list[Array]:
    """Return a product and a transposed product. The first call also does the way's late imports."""
    return [ready.product(case.x), ready.transposed(case.y)]


def _bind(function: Callable[[Array], Array], array: Array) -> Callable[[], Array]:
    return lambda: function(array)


def _check(case: Case, first: str, second: str, expected: Sequence[Array], results: Sequence[Array]) -> None:
    for a, b in zip(expected, results, strict=True):
        difference = np.abs(a - b).max() / max(np.abs(a).max(), 1e-300)
        if not difference <= _TOLERANCE[case.dtype]:  # so that a NaN is a difference
            raise RuntimeError(f"{case.name}: {first} and {second} differ by {difference:.1g} of the largest number")


def _turn(call: Callable[[], object]) -> int:
    seconds = _seconds(call, 1)
    return 1 if seconds > _TURN else min(1000, ceil(_TURN / max(seconds, 1e-7)))


def _seconds(call: Callable[[], object], count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        result = call()
    seconds = (perf_counter() - start) / count
    del result  # freed after the clock has stopped
    return seconds


def _fastest(call: Callable[[], object], seconds: float) -> float:
    """Return the least time of some calls, because a ceiling is the best rate."""
    call()
    end = perf_counter() + seconds
    least = _seconds(call, 1)
    while perf_counter() < end:
        least = min(least, _seconds(call, 1))
    return least
