"""Which method is the fastest for which kernel size and number of channels, for the map in the exercise's answer.

Run ``python -m benchmarks.winners``; it takes about two minutes and writes ``benchmarks/winners.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import machine
from benchmarks.workloads import WORKERS
from convmat.commands.exercise.cases import Case, square
from convmat.commands.exercise.measure import blas_threads, measure
from convmat.commands.exercise.ways import WAYS

FILE = Path(__file__).with_suffix(".json")
SIZE = 64
KERNELS = (1, 3, 5, 7, 11, 15, 23, 31)
CHANNELS = (1, 4, 16, 64)
METHODS = ("compiled", "csr", "im2col", "fft")  # one method each
COMPARED = (*METHODS, "auto")
_LOOPS = 4e9  # operations that the compiled loops are waited for: they win nowhere near that many


def winners(cases: Sequence[Case], seconds: float) -> list[dict[str, Any]]:
    """Return the seconds of a product of each way in each case, and what it counts."""
    rows = []
    with blas_threads(WORKERS):
        for case in cases:
            ways = [WAYS[name] for name in COMPARED if WAYS[name].refuses(case) is None]
            ways = [way for way in ways if way.name != "compiled" or way.work(case).flops < _LOOPS]
            timings = measure(case, ways, WORKERS, seconds / len(cases))
            taken = {timing.way: timing.product for timing in timings}
            rows.append({"kernel": case.kernel_shape[2], "channels": case.kernel_shape[1], "seconds": taken})
            print(f"{case}: {min(taken.keys() & METHODS, key=taken.__getitem__)}", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all cases and write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.winners", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE", help="where to write (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="NUMBER", help="how long to measure, about")
    options = parser.parse_args(arguments)
    cases = [square(f"{k}-{c}", SIZE, k, c) for c in CHANNELS for k in KERNELS]
    winners([square("warm-up", 16, 3, 16)], 0.0)  # imports, compiles
    rows = winners(cases, options.seconds)
    content = {"machine": machine(), "workers": WORKERS, "dtype": cases[0].dtype, "size": SIZE, "rows": rows}
    options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
