"""The exercise for asv: the same product in all ways, in twelve cases, and what the machine does at best.

Is it efficient to use matrix multiplication to implement convolutions? The ways are those of ``python -m convmat exercise``,
which measures them in turn and in less time; asv keeps what it measures, so that it can be compared and drawn later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from benchmarks.workloads import WORKERS
from convmat.commands.exercise.cases import CASES, Case, square
from convmat.commands.exercise.measure import blas_threads, compare, copy_rate, gemm_rate
from convmat.commands.exercise.ways import WAYS, Way

# asv forks every benchmark from a process that has imported this file: what is slow to import is imported once.
for _package in ("numba", "torch"):
    if find_spec(_package) is not None:
        import_module(_package)

_CASES = {case.name: case for case in CASES}
_SECONDS = 40.0  # of measuring all rates


def find(case: str, way: str) -> tuple[Case, Way]:
    """Return a case and a way by name; asv skips what raises NotImplementedError."""
    refusal = WAYS[way].refuses(_CASES[case])
    if refusal is not None:
        raise NotImplementedError(refusal)
    return _CASES[case], WAYS[way]


@cache
def prepare(case: str, way: str, transposed: bool = False) -> Callable[[], object]:
    """Return a product to call, which has run once: asv calls `setup` before every sample, in one process for each pair."""
    found, method = find(case, way)
    prepare.threads = blas_threads(WORKERS)  # type: ignore[attr-defined]
    ready = method.build(found, WORKERS)
    run = (lambda: ready.transposed(found.y)) if transposed else (lambda: ready.product(found.x))
    run()
    return run


class _Pairs:
    """All cases by all ways, each pair in a process of its own, for less than a second."""

    params = [list(_CASES), list(WAYS)]
    param_names = ["case", "way"]
    rounds = 1
    repeat = (2, 400, 0.4)  # samples, each of one call
    warmup_time = 0.6  # the first calls for much memory find none that the system has not to map and to clear
    timeout = 60.0


class Build(_Pairs):
    """Time of preparing what does not depend on the input."""

    def setup(self, case: str, way: str) -> None:
        if way not in ("dense", "csr", "fft", "auto"):
            raise NotImplementedError("nothing to speak of is prepared")
        prepare(case, way)
        self.case, self.way = find(case, way)

    def time_build(self, case: str, way: str) -> None:
        self.way.build(self.case, WORKERS)


class Product(_Pairs):
    """Time of the convolution, W·x."""

    def setup(self, case: str, way: str) -> None:
        self.run = prepare(case, way)

    def time_product(self, case: str, way: str) -> None:
        self.run()


class Transposed(_Pairs):
    """Time of the transposed convolution, Wᵀ·y."""

    def setup(self, case: str, way: str) -> None:
        self.run = prepare(case, way, transposed=True)

    def time_transposed(self, case: str, way: str) -> None:
        self.run()


class Rates(_Pairs):
    """What was counted for the convolution, over the time that it took: all ways in turn, in one process."""

    timeout = 300.0

    def setup_cache(self) -> dict[tuple[str, str], tuple[float, float]]:
        timings = compare(CASES, _SECONDS, WORKERS, lambda name: None).timings
        return {(t.case.name, t.way): (t.bandwidth / 1e9, t.rate / 1e9) for t in timings}

    def setup(self, rates: dict[tuple[str, str], tuple[float, float]], case: str, way: str) -> None:
        find(case, way)

    def track_bandwidth(self, rates: dict[tuple[str, str], tuple[float, float]], case: str, way: str) -> float:
        return rates[case, way][0]

    def track_flops(self, rates: dict[tuple[str, str], tuple[float, float]], case: str, way: str) -> float:
        return rates[case, way][1]

    track_bandwidth.unit = "GB/s"  # type: ignore[attr-defined]
    track_flops.unit = "GFLOP/s"  # type: ignore[attr-defined]


class Counts(_Pairs):
    """What each way counts for a product, before anything runs."""

    def setup(self, case: str, way: str) -> None:
        self.case, self.way = find(case, way)

    def track_bytes(self, case: str, way: str) -> float:
        return self.way.work(self.case).bytes

    def track_flops(self, case: str, way: str) -> float:
        return self.way.work(self.case).flops

    def track_memory(self, case: str, way: str) -> float:
        return self.way.work(self.case).memory

    def track_intensity(self, case: str, way: str) -> float:
        return self.way.work(self.case).intensity

    track_bytes.unit = "B"  # type: ignore[attr-defined]
    track_flops.unit = "FLOP"  # type: ignore[attr-defined]
    track_memory.unit = "B"  # type: ignore[attr-defined]
    track_intensity.unit = "FLOP/B"  # type: ignore[attr-defined]


class Matrix:
    """W, counted from the geometry."""

    params = [list(_CASES)]
    param_names = ["case"]

    def track_nnz(self, case: str) -> int:
        return _CASES[case].geometry.nnz

    track_nnz.unit = "nonzeros"  # type: ignore[attr-defined]


class Memory:
    """Peak memory of a process that builds a way and applies it once.

    "nothing" does neither, and tells what Python, the packages and the arrays take.
    """

    params = [["size-256", "size-1024", "mid"], ["nothing", *WAYS]]
    param_names = ["case", "way"]
    timeout = 60.0

    def setup(self, case: str, way: str) -> None:
        found = _CASES[case]
        arrays = found.kernel, found.x, found.y
        chosen = None if way == "nothing" else find(case, way)[1]
        small = square("small", 16, 3, 16)
        for method in WAYS.values():  # imports what each needs, so that all begin with the same
            if method.refuses(small) is None:
                method.build(small, WORKERS).product(small.x)
        self.run = (lambda: arrays) if chosen is None else (lambda: chosen.build(found, WORKERS).product(found.x))
        with suppress(OSError):  # on Linux, forget the peak of importing, which a fork inherits
            Path("/proc/self/clear_refs").write_text("5")

    def peakmem_product(self, case: str, way: str) -> None:
        self.run()


class Ceilings:
    """What the machine does at best, with as many threads as the ways have."""

    def setup(self) -> None:
        self.threads = blas_threads(WORKERS)

    def track_copy(self) -> float:
        return copy_rate(WORKERS, 64_000_000, 2.0) / 1e9

    def track_copy_in_cache(self) -> float:
        return copy_rate(WORKERS, 128_000, 1.0) / 1e9

    def track_blas(self) -> float:
        return gemm_rate(2.0) / 1e9

    track_copy.unit = track_copy_in_cache.unit = "GB/s"  # type: ignore[attr-defined]
    track_blas.unit = "GFLOP/s"  # type: ignore[attr-defined]
