"""How fast W is built and applied, each figure a ratio to something that ran in turn with it, and what it must reach.

Run ``python -m benchmarks.build``; ``--quick`` takes a few cases for a few rounds, ``--only`` some of the tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import matmul
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks import cases
from benchmarks.builders import PEERS, afresh, filler
from benchmarks.cases import Case
from benchmarks.memory import build_peak
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere, Times, interleave, ratio

_DIRECTIONS = ("W", "Wᵀ")
_FIRST = "first: the pattern listed, too; the others have it from a build before, whatever its kernel"


@dataclass(frozen=True)
class Run:
    """What a run keeps, and how long it takes."""

    report: Report
    quick: bool

    def pick(self, all_cases: Sequence[Case]) -> list[Case]:
        """Return the cases that this run takes."""
        return [case for case in all_cases if case.quick or not self.quick]

    def interleave(self, candidates: dict[str, Callable[[], object]], budget: float, *, settle: bool = False) -> Times:
        """Time the candidates, for less long in a quick run."""
        if self.quick:
            return interleave(candidates, budget=budget / 4, rounds=(3, 9), settle=settle)
        return interleave(candidates, budget=budget, rounds=(5, 25), settle=settle)


def filling(run: Run) -> None:
    """Compare building with filling freshly allocated arrays, in either direction."""
    headings = ("case", "nnz/10⁶", "MB", "fill ms", "first W", "first Wᵀ", "W/fill", "Wᵀ/fill", "limit", "met")
    tables = (
        ("at least 64 MB, up to 5 taps an axis", cases.LARGE, 1.25),
        ("at least 64 MB, up to 15 taps an axis", cases.LARGE_LONG, 1.5),
        ("from 10⁶ nonzeros to 64 MB", cases.MEDIUM, 2.0),
        ("other padding modes", cases.MODES, 2.0),
    )
    for title, group, limit in tables:
        chosen = run.pick(group)
        title = (
            f"Build / filling freshly allocated data, indices and indptr with a constant, one worker: {title}\n"
            f"({_FIRST})"
        )
        run.report.table("filling", title, headings, [case.name for case in chosen])
        for case in chosen:
            candidates: dict[str, Callable[[], object]] = {}
            for transposed, name in enumerate(_DIRECTIONS):
                build = candidates[name] = case.builder(bool(transposed))
                candidates[f"first {name}"] = afresh(build)
                candidates[f"{name} fill"] = filler(build())
            times = run.interleave(candidates, 2.4)
            ratios = [ratio(times, name, f"{name} fill") for name in _DIRECTIONS]
            first = [ratio(times, f"first {name}", f"{name} fill") for name in _DIRECTIONS]
            checks = [
                Check("filling", f"{case.name} {name}", r, limit) for name, r in zip(_DIRECTIONS, ratios, strict=True)
            ]
            fill = median(times["W fill"]) * 1e3
            cells = (case.name, case.geometry.nnz / 1e6, case.nbytes / 1e6, fill, *first, *ratios, limit)
            run.report.row(cells, checks, seconds=times)


def threads(run: Run) -> None:
    """Compare two workers with one."""
    chosen = run.pick(cases.THREADED)
    headings = ("case", "MB", "one ms", "W 2/1", "Wᵀ 2/1", "limit", "met")
    title = "Two workers / one worker"
    run.report.table("threads", title, headings, [case.name for case in chosen])
    for case in chosen:
        times = run.interleave(
            {
                f"{name} {workers}": case.builder(bool(transposed), workers)
                for transposed, name in enumerate(_DIRECTIONS)
                for workers in (1, 2)
            },
            2.0,
        )
        ratios = [ratio(times, f"{name} 2", f"{name} 1") for name in _DIRECTIONS]
        checks = [Check("threads", f"{case.name} {name}", r, 1.0) for name, r in zip(_DIRECTIONS, ratios, strict=True)]
        cells = (case.name, case.nbytes / 1e6, median(times["W 1"]) * 1e3, *ratios, 1.0)
        run.report.row(cells, checks, seconds=times)


def small(run: Run) -> None:
    """Compare small builds, where calls count and not bytes, with SciPy's constructor on arrays that are there."""
    chosen = run.pick(cases.SMALL)
    headings = ("case", "nnz", "csr µs", "first W", "first Wᵀ", "W/csr", "Wᵀ/csr", "limit", "met")
    title = (
        "Build of a small W, workers left to it / csr_array((data, indices, indptr), shape=shape) of the ready arrays\n"
        f"({_FIRST})"
    )
    run.report.table("small", title, headings, [case.name for case in chosen])
    for case in chosen:
        candidates: dict[str, Callable[[], object]] = {}
        for transposed, name in enumerate(_DIRECTIONS):
            build = candidates[name] = case.builder(bool(transposed), None)
            candidates[f"first {name}"] = afresh(build)
            candidates[f"{name} csr"] = _constructor(build())
        times = run.interleave(candidates, 0.8)
        ratios = [ratio(times, name, f"{name} csr") for name in _DIRECTIONS]
        first = [ratio(times, f"first {name}", f"{name} csr") for name in _DIRECTIONS]
        checks = [Check("small", f"{case.name} {name}", r, 15.0) for name, r in zip(_DIRECTIONS, ratios, strict=True)]
        limit: str | float = 15.0
        if case.geometry.padding_mode != "zeros":
            checks, limit = [], "–"
        cells = (case.name, f"{case.geometry.nnz}", median(times["W csr"]) * 1e6, *first, *ratios, limit)
        run.report.row(cells, checks, seconds=times)


def _constructor(matrix: Any) -> Callable[[], Any]:
    arrays, shape = (matrix.data, matrix.indices, matrix.indptr), matrix.shape
    return lambda: sparse.csr_array(arrays, shape=shape)


def peers(run: Run) -> None:
    """Compare with other ways to build the same matrix, after checking that it is the same."""
    chosen = run.pick(cases.SHARED)
    headings = ("case", "nnz/10⁶", "W ms", *(peer.name for peer in PEERS), "fastest", "limit", "met")
    title = (
        "Other ways / first build of W, one worker, for equal matrices; – where the other way has no such case.\n"
        "(each right after a call of its own that is not timed; COO by axes takes its rows and columns from convmat's\n"
        "geometry, in order: it is not counted as another way)"
    )
    run.report.table("peers", title, headings, [case.name for case in chosen])
    for case in chosen:
        build = afresh(case.builder())
        matrix = build()
        cells: list[str] = []
        details: dict[str, Times] = {}
        for peer in PEERS:
            if not peer.covers(case) or not peer.installed:
                cells.append("not installed" if peer.covers(case) else "–")
                continue
            build_other = partial(peer.build, case)
            other, seconds = _timed(build_other)
            difference = abs(matrix - other).max()
            if matrix.shape != other.shape or difference > 1e-12:
                raise RuntimeError(f"{peer.name} builds another matrix for {case.name}: they differ by {difference}")
            del other
            candidates: dict[str, Callable[[], object]] = {"W": build, peer.name: build_other}
            if seconds > 1.0:
                times = interleave(candidates, rounds=(1, 1), warm_up=False)
            else:
                times = run.interleave(candidates, 1.5, settle=True)
            details[peer.name] = times
            cells.append(f"{ratio(times, peer.name, 'W'):.1f}")
        counted = {peer.name for peer in PEERS if peer.counts} & details.keys()
        fastest = min(ratio(details[name], name, "W") for name in counted)
        seconds = median(second for times in details.values() for second in times["W"])
        large = case.geometry.nnz >= 10**6  # a small W takes as long as the calls that build it
        checks = [Check("peers", case.name, fastest, 10.0, at_least=True)] if large else []
        limit = "≥ 10" if large else "–"
        cells = [case.name, f"{case.geometry.nnz / 1e6:.2f}", f"{seconds * 1e3:.2f}", *cells]
        run.report.row([*cells, f"{fastest:.1f}", limit], checks, seconds=details)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = perf_counter()
    result = call()
    return result, perf_counter() - start


def memory(run: Run) -> None:
    """Compare the peak of a build with the bytes of W."""
    chosen = run.pick(cases.MEMORY)
    headings = ("case", "MB", "W", "Wᵀ", "W rss", "Wᵀ rss", "limit", "met")
    title = (
        "Peak memory of a build / bytes of W, in a fresh process: what tracemalloc saw, and, without a limit,\n"
        "by how much the resident set grew"
    )
    run.report.table("memory", title, headings, [case.name for case in chosen])
    for case in chosen:
        sizes = [_matrix_bytes(case, bool(transposed)) for transposed in range(2)]
        peaks = [build_peak(case, bool(transposed)) for transposed in range(2)]
        traced = [peak[0] / size for peak, size in zip(peaks, sizes, strict=True)]
        resident = ["–" if peak[1] is None else peak[1] / size for peak, size in zip(peaks, sizes, strict=True)]
        checks = [Check("memory", f"{case.name} {name}", r, 1.1) for name, r in zip(_DIRECTIONS, traced, strict=True)]
        run.report.row((case.name, sizes[0] / 1e6, *traced, *resident, 1.1), checks, peaks=peaks)


def _matrix_bytes(case: Case, transposed: bool) -> int:
    """Return the bytes of W or Wᵀ, which differ in the number of rows."""
    geometry = case.geometry
    return case.nbytes + (geometry.shape[int(transposed)] - geometry.shape[0]) * geometry.index_dtype.itemsize


def products(run: Run) -> None:
    """Compare the rate at which products read W with that of copying."""
    from convmat import Convolution

    chosen = run.pick(cases.PRODUCTS)
    headings = ("case", "MB", "copy GB/s", "W·x GB/s", "W·x/copy", "reach", "Wᵀ·y/W·x", "limit", "met")
    title = (
        'Products with engine="csr" and two workers: bytes of W / time, to the rate at which two threads copy arrays\n'
        "(np.copyto, bytes read and written); and the transposed product's time to the forward one's"
    )
    run.report.table("products", title, headings, [case.name for case in chosen])
    source, target = np.ones(32_000_000 // 2), np.zeros(32_000_000 // 2)
    halves = [(half[0], half[1]) for half in zip(np.split(target, 2), np.split(source, 2), strict=True)]
    with ThreadPoolExecutor(2) as pool:

        def copy() -> None:
            list(pool.map(lambda half: np.copyto(*half), halves))

        for case in chosen:
            operator = Convolution(
                case.kernel, case.input_shape, **case.options, flip=case.flip, engine="csr", workers=2
            )
            transpose = operator.T
            x, y = (np.ones(size, case.dtype) for size in reversed(operator.shape))
            times = run.interleave(
                {
                    "copy": copy,
                    "W·x": partial(matmul, operator, x),
                    "Wᵀ·y": partial(matmul, transpose, y),
                },
                1.5,
            )
            moved = 2 * source.nbytes
            rate = ratio(times, "copy", "W·x") * case.nbytes / moved
            limit = 0.8 if case.dtype == "float64" else 0.65
            checks = [
                Check("products", f"{case.name} W·x/copy", rate, limit, at_least=True),
                Check("products", f"{case.name} Wᵀ·y/W·x", ratio(times, "Wᵀ·y", "W·x"), 1.2),
            ]
            speeds = moved / median(times["copy"]) / 1e9, case.nbytes / median(times["W·x"]) / 1e9
            cells = (case.name, case.nbytes / 1e6, *speeds, rate, f"≥ {limit}", checks[1].value, "≤ 1.2")
            run.report.row(cells, checks, seconds=times)


SECTIONS: dict[str, Callable[[Run], None]] = {
    "filling": filling,
    "threads": threads,
    "small": small,
    "peers": peers,
    "memory": memory,
    "products": products,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tables asked for and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few cases, few rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="NAME", help=f"of {', '.join(SECTIONS)}")
    options = parser.parse_args(arguments)
    start = perf_counter()
    run = Run(Report(), options.quick)
    print(", ".join(f"{key} {value}" for key, value in run.report.machine.items()))
    print("Every ratio is the median over rounds in which the two ran in turn.")
    for name in options.only or SECTIONS:
        elsewhere = Elsewhere()
        SECTIONS[name](run)
        run.report.close(elsewhere.cores())
    if options.json:
        run.report.save(options.json)
    print(f"\n{perf_counter() - start:.0f} s. {run.report.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
