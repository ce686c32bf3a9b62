"""Peak memory of a build, each in a process of its own."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.cases import Case
from convmat import convolution_matrix

_STATUS = Path("/proc/self/status")


def build_peak(case: Case, transposed: bool = False) -> tuple[int, int | None]:
    """Return the bytes by which building W or Wᵀ raised what Python allocates, and what the process keeps resident.

    NumPy reports its arrays to tracemalloc. The resident set holds everything else too, and is None where the system
    does not show it.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measure, case, transposed).result()


def _measure(case: Case, transposed: bool) -> tuple[int, int | None]:
    build = case.builder(transposed)
    convolution_matrix([1.0, 2.0], 9, workers=1)  # loads what a first call loads
    resident = _status("VmRSS")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    matrix = build()
    traced = tracemalloc.get_traced_memory()[1] - before
    peak = _status("VmHWM")
    del matrix
    return traced, None if resident is None or peak is None else peak - resident


def _status(name: str) -> int | None:
    """Return a size from the process' status in bytes. Unlike getrusage's, its peak does not include the parent's."""
    if not _STATUS.is_file():
        return None
    values = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(values[0]) * 1024 if values else None
