"""Caches of compiled code that four processes fill at once: python -m tests.caches --count 200.

The processes start together on an empty cache, and compute products of several shapes of tiles and dtypes, each in an order
of its own. A fifth one computes all of them from what they left. A cache is wrong if a process fails, if a product differs
from that of the matrix, or if the fifth one had to write anything.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = [(3, 3), (7,), (2, 1, 3, 3), (3, 2, 1, 1), (5, 4, 3), (9, 8, 3, 3)]
DTYPES = ["float32", "float64"]
PROCESSES = 4


def check_products(seed):
    """Compare products of small integers, which are exact, with those of the matrix."""
    import numpy as np

    from convmat import Convolution

    cases = [(kernel, dtype) for kernel in KERNELS for dtype in DTYPES]
    random.Random(seed).shuffle(cases)
    generator = np.random.default_rng(seed)
    for shape, dtype in cases:
        kernel = generator.integers(-4, 5, shape).astype(dtype)
        axes = len(shape) if len(shape) < 3 else len(shape) - 2
        size = (*shape[1 : len(shape) - axes], *(37, 21)[:axes])
        for engine in ("taps", "winograd") if shape == (9, 8, 3, 3) and dtype == "float32" else ("taps",):
            A = Convolution(kernel, size, padding=1, engine=engine, workers=1)
            W = A.tocsr()
            for operator, matrix in ((A, W), (A.T, W.T)):
                x = generator.integers(-4, 5, operator.input_shape).astype(dtype)
                np.testing.assert_array_equal(
                    operator.apply(x).ravel(), matrix @ x.ravel(), f"{shape} {dtype} {engine}"
                )


def start(folder, seed):
    """Start a process that waits to be let go."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, str(Path(__file__).absolute()), "--work", str(seed)]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(processes):
    """Let processes go all at once, and return what those that fail have to say."""
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in processes]
    return [
        f"{text[-2000:]}status {process.returncode}"
        for text, process in zip(said, processes, strict=True)
        if process.returncode
    ]


def fill_and_check(folder, number=0):
    """Let processes fill a cache at once and another one use it; return what is wrong with it."""
    first = number * (PROCESSES + 1)
    wrong = finish([start(folder, first + process) for process in range(PROCESSES)])
    before = {(file.name, file.stat().st_ino) for file in Path(folder).rglob("*")}
    wrong += finish([start(folder, first + PROCESSES)])
    after = {(file.name, file.stat().st_ino) for file in Path(folder).rglob("*")}
    if before != after or len(before) < len(KERNELS):
        wrong.append(f"the fifth process wrote {sorted(after - before)} to {sorted(before)}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="how many caches are filled (200)")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        import convmat  # noqa: F401 - before all begin together

        print("ready", flush=True)
        sys.stdin.readline()
        check_products(arguments.work)
        return 0
    bad = 0
    for number in range(arguments.count):
        with tempfile.TemporaryDirectory() as folder:
            wrong = fill_and_check(folder, number)
        bad += bool(wrong)
        print(*wrong, f"{number + 1} caches filled by {PROCESSES} processes at once, {bad} wrong", sep="\n", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
