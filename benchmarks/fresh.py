"""The first products of a fresh process, timed with all that is imported, compiled and prepared for them.

``python -m benchmarks.fresh CASE DTYPE ENGINE`` prints as JSON when each product ended, and which engine was in use when.
The clock starts once convmat is imported, before the operator is made. So what an engine imports when it is first used,
numba above all, counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.workloads import DTYPES, OUTER_PRODUCTS, WORKLOADS, Product
from convmat.engines import ENGINES

_ROOT = Path(__file__).parents[1]
_TIMEOUT = 300.0  # seconds after which a process is not waited for
_STEADY = 1.0  # seconds of products, in which nothing is compiled, that tell how long further ones take
_LONGEST = 3.0  # times the seconds asked for, after which it ends, compiling or not
_PAUSE, _SLOWER = 0.2, 4.0  # seconds of a product in which something was compiled, and times that of the one before


@dataclass(frozen=True)
class Total:
    """Seconds of the first products together."""

    seconds: float
    mark: str = ""  # "~" the process ended before, and the rest is extrapolated


@dataclass(frozen=True)
class Run:
    """What a process has told.

    Attributes
    ----------
    ends : tuple of float
        Seconds from the start to the end of each product.
    engines : dict
        Number of products → the engine in use after so many; also after the last one.
    """

    ends: tuple[float, ...]
    engines: dict[int, str]

    @classmethod
    def parse(cls, text: str) -> Run:
        """Return what a process has printed."""
        told = json.loads(text)
        return cls(tuple(map(float, told["ends"])), {int(n): str(name) for n, name in told["engines"].items()})

    def total(self, products: int) -> Total:
        """Return the seconds of so many products."""
        if products <= len(self.ends):
            return Total(self.ends[products - 1])
        return Total(self.ends[-1] + (products - len(self.ends)) * steady_rate(self.ends), "~")

    def engine(self, products: int) -> str:
        """Return the engine in use after so many products, or after the last one."""
        return self.engines[min(products, len(self.ends))]


def steady_rate(ends: Sequence[float]) -> float:
    """Return the seconds that a product took in the end: the median of the last ones."""
    if len(ends) == 1:
        return ends[0]
    seconds = np.diff(ends)
    recent = seconds[np.array(ends[:-1]) >= ends[-1] - _STEADY]
    return float(median(recent if len(recent) else seconds[-1:]))


def is_pause(before: float, seconds: float) -> bool:
    """Tell whether something must have been compiled or loaded in a product, from its time and that of the one before."""
    return seconds > max(_PAUSE, _SLOWER * before)


def run_fresh(
    product: Product,
    engine: str,
    cache: Path,
    seconds: float,
    marks: Sequence[int],
    copies: Path | None = None,
) -> Run:
    """Compute products in a fresh process.

    Parameters
    ----------
    product : Product
        What to compute.
    engine : str
        By which engine.
    cache : Path
        Folder of compiled code and of the machine's figures. In an empty one there are none.
    seconds : float
        How long, from the end of the first product.
    marks : sequence of int
        Numbers of products; the last is that of all, where they do not take too long.
    copies : Path, optional
        Where to copy the folder after each of these numbers of products, in a folder named by the number. So later
        processes find what one has left that ended then. The clock stands meanwhile.

    Raises
    ------
    RuntimeError
        If the process fails; the message ends with what it has said.
    """
    words = [product.workload.name, product.dtype, engine, "--seconds", str(seconds), "--marks", *map(str, marks)]
    words += ["--adjoint"] * product.adjoint + (["--copies", str(copies)] if copies else [])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        timeout=_TIMEOUT,
    )
    if done.returncode:
        raise RuntimeError(f"{product} by {engine} in a fresh process: exit status {done.returncode}\n{done.stderr}")
    return Run.parse(done.stdout)


def compute(product: Product, engine: str, seconds: float, marks: Sequence[int], copies: Path | None) -> dict[str, Any]:
    """Compute products as `run_fresh` has it, and return what to print."""
    kernel, x, out = product.workload.kernel(product.dtype), product.x, np.empty(product.output_shape, product.dtype)
    out.fill(0)  # the system maps the memory now, not in the first product
    ends: list[float] = []
    engines: dict[int, str] = {}
    previous = last = resumed = 0.0
    start = perf_counter()
    operator: Any = product.workload.operator(product.dtype, engine, kernel)
    apply = (operator.T if product.adjoint else operator).apply
    while len(ends) < marks[-1]:
        apply(x, out=out)
        now = perf_counter()
        ends.append(now - start)
        took = ends[-1] - previous
        if len(ends) == 1 or is_pause(last, took):
            resumed = ends[-1]
        previous, last = ends[-1], took
        spent = ends[-1] - ends[0]
        done = (spent > seconds and ends[-1] - resumed > _STEADY) or spent > _LONGEST * seconds
        if done or len(ends) in marks:
            engines[len(ends)] = _engine_in_use(operator, product)
            if copies:
                copytree(os.environ["NUMBA_CACHE_DIR"], copies / str(len(ends)), dirs_exist_ok=True)
            start += perf_counter() - now
        if done:
            break
    return {"ends": ends, "engines": engines}


def _engine_in_use(operator: Any, product: Product) -> str:
    """Return the name of the engine; asking `explain` might measure the machine, and the clock stands."""
    if operator.engine != "auto":
        return str(operator.engine)
    kind = product.transposed, np.dtype(product.dtype), product.batch
    return str(operator._products._choices[kind].name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the products and print when each one ended."""
    named = {workload.name: workload for workload in (*WORKLOADS, *OUTER_PRODUCTS)}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fresh", description=__doc__.partition("\n")[0])
    parser.add_argument("case", choices=named, metavar="CASE")
    parser.add_argument("dtype", choices=DTYPES)
    parser.add_argument("engine", choices=["auto", *ENGINES])
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="how long, after the first product")
    parser.add_argument("--marks", type=int, nargs="+", default=[100], metavar="N", help="the last: how many products")
    parser.add_argument("--copies", type=Path, metavar="FOLDER", help="copy NUMBA_CACHE_DIR there after each of these")
    parser.add_argument("--adjoint", action="store_true", help="products with the adjoint")
    options = parser.parse_args(arguments)
    product = Product(named[options.case], options.dtype, options.adjoint, 1)
    print(json.dumps(compute(product, options.engine, options.seconds, sorted(options.marks), options.copies)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
