"""Processes and threads that begin or end at odd times: `python -m tests.situations fork late-thread`, or all of them.

Each situation runs in a process of its own, with a limit; one that does not end is a failure, with the stacks of threads.
Expected values come from loops over the taps.
"""

import _thread
import argparse
import atexit
import faulthandler
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import warnings

import numpy as np

import convmat

LIMIT = 120  # seconds that a situation may take
CHILDREN = 6
CASES = {  # kernel's shape and input's, enough for several threads
    "taps": ((24, 24, 3, 3), (24, 40, 41)),
    "winograd": ((24, 24, 3, 3), (24, 40, 41)),
    "winograd4": ((24, 24, 3, 3), (24, 40, 41)),
    "separable": ((7, 7), (300, 310)),
    "gemm": ((24, 24, 3, 3), (24, 40, 41)),
    "fft": ((3, 3, 21, 21), (3, 120, 130)),
    "csr": ((8, 8, 3, 3), (8, 60, 61)),
    "auto": ((24, 24, 3, 3), (24, 40, 41)),
}


class SituationError(Exception):
    """What a check has found."""


def definition(kernel, x):
    """Return the valid convolution by a loop over taps."""
    if kernel.ndim == 2:
        return definition(kernel[None, None], x[None])[0]
    rows, columns = (size - k + 1 for size, k in zip(x.shape[1:], kernel.shape[2:], strict=True))
    y = np.zeros((len(kernel), rows, columns))
    for i in range(kernel.shape[2]):
        for j in range(kernel.shape[3]):
            y += np.einsum("oc,cpq->opq", kernel[:, :, i, j], x[:, i : i + rows, j : j + columns])
    return y


class Work:
    """Operators of all engines that there are, and what their products are."""

    def __init__(self):
        rng, self.rows = np.random.default_rng(0), []
        for engine, (shape, size) in CASES.items():
            kernel, x = rng.standard_normal(shape), rng.standard_normal(size)
            if engine == "separable":
                kernel = np.outer(kernel[0], kernel[1])
            try:
                A = convmat.Convolution(kernel, size, engine=engine, workers=2)
            except ValueError as refusal:
                print(refusal)
                continue
            self.rows.append((engine, A, x, definition(kernel, x)))

    def compute(self, fresh=False):
        """Compute all products, with new operators if they are to be fresh, and build W."""
        self.multiply(fresh)
        _, A, x, expected = self.rows[-1]
        y = convmat.convolution_matrix(A.kernel, A.input_shape, workers=2) @ x.ravel()
        if np.abs(y - expected.ravel()).max() > 1e-9 * np.abs(expected).max():
            raise SituationError("W is wrong")

    def multiply(self, fresh=False):
        """Compute all products."""
        for engine, A, x, expected in self.rows:
            B = convmat.Convolution(A.kernel, A.input_shape, engine=engine, workers=2) if fresh else A
            error = np.abs(B.apply(x) - expected).max()
            if error > 1e-9 * np.abs(expected).max():
                raise SituationError(f"{engine} is wrong by {error} in {threading.current_thread().name}")


def child(work=None):
    """Compute in a child, whose hang is to be seen."""
    faulthandler.dump_traceback_later(LIMIT / 2, exit=True)
    work = work or Work()
    work.compute()
    work.compute(fresh=True)


def run_children(method, beside):
    """Compute in children, while other threads compute or compute for the first time."""
    # A forked child would wait for the watchdog of its parent, which it has not; each child has its own.
    faulthandler.cancel_dump_traceback_later()
    context = multiprocessing.get_context(method)
    work, stop = Work(), threading.Event()

    def busy():
        while not stop.is_set():
            work.compute(fresh=True)

    threads = [threading.Thread(target=busy) for _ in range(beside)]
    for thread in threads:
        thread.start()
    codes = []
    try:
        for _ in range(CHILDREN if method == "fork" else 2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
                process = context.Process(target=child, args=(work,) if method == "fork" else ())
                process.start()
            process.join(LIMIT)
            process.kill()
            process.join()
            codes.append(process.exitcode)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if any(codes):
        raise SituationError(f"children of {method} ended with {codes}")


def report(compute):
    """Compute, and end the process at once with 1 where that fails: an error in a thread or at the end is only printed."""
    try:
        compute()
    except BaseException:  # noqa: BLE001 - whatever it is, it is a failure
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
    print("computed", flush=True)


class Finalizer:
    """Computes when it is deleted."""

    def __init__(self, compute):
        self.compute = compute

    def __del__(self):
        report(self.compute)


def fork():
    """Children of fork, while other threads compute with new operators."""
    run_children("fork", 2)


def spawn():
    """Children of spawn."""
    run_children("spawn", 1)


def forkserver():
    """Children of a fork server."""
    run_children("forkserver", 1)


def late_thread():
    """Products in a thread that outlives the main one."""
    work = Work()
    main = threading.main_thread()

    def later():
        main.join()
        report(lambda: (work.compute(), work.compute(fresh=True)))

    threading.Thread(target=later).start()


def late_first():
    """First products in a thread that outlives the main one."""
    main = threading.main_thread()

    def later():
        main.join()
        report(lambda: Work().compute())

    threading.Thread(target=later).start()


def at_exit():
    """Products in a handler of atexit, the first ones too."""
    work = Work()
    atexit.register(report, lambda: work.compute(fresh=True))


def finalizer():
    """Products in __del__ while the interpreter ends."""
    work = Work()
    work.compute()
    globals()["kept"] = Finalizer(work.multiply)  # deleted when this module is; SciPy's matrices then import in vain


def daemon():
    """A daemon thread that computes while the interpreter ends."""
    work = Work()
    work.compute()

    def forever():
        while True:
            work.compute()

    threading.Thread(target=forever, daemon=True).start()
    print("computed", flush=True)


def no_threads():
    """No thread can be started: neither by threading nor by _thread, from the first product on."""

    def refuse(*arguments, **options):
        raise RuntimeError("can't start new thread")

    threading.Thread.start = _thread.start_new_thread = threading._start_new_thread = refuse
    report(lambda: child(Work()))


def few_threads():
    """One thread can be started, and no more."""
    started, start, start_new = [], threading.Thread.start, _thread.start_new_thread

    def bounded(function):
        def call(*arguments, **options):
            if started:
                raise RuntimeError("can't start new thread")
            started.append(1)
            return function(*arguments, **options)

        return call

    threading.Thread.start, _thread.start_new_thread = bounded(start), bounded(start_new)
    report(lambda: child(Work()))


def exits_beside():
    """sys.exit in another thread while products run, and errors in blocks of other products."""
    work = Work()
    threads = [threading.Thread(target=sys.exit) for _ in range(8)]
    for thread in threads:
        thread.start()
        work.compute()
        thread.join()


BASELINE = """
import numpy, scipy.fft, scipy.sparse.linalg
numpy.ones((400, 400)) @ numpy.ones((400, 400))
scipy.fft.rfftn(numpy.ones((400, 400)))
print("done")
"""


# PyTorch has limits of its own.
SMOKE = """
import runpy, sys
sys.modules["torch"] = None
sys.argv[1:] = ["--small"]
runpy.run_module("tests.smoke", run_name="__main__")
"""


def run_limited(megabytes, *arguments):
    """Run Python where it has so much address space."""
    limit = megabytes << 20

    def bound():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT, preexec_fn=bound)


def little_memory():
    """Less and less address space, down to where NumPy and SciPy do not work themselves."""
    for megabytes in (4000, 2000, 1400, 1000, 800, 700, 600, 500, 400, 350, 300):
        base = run_limited(megabytes, "-c", BASELINE)
        if base.returncode or "done" not in base.stdout:
            print(f"{megabytes} MB: NumPy and SciPy do not work: {(base.stderr.splitlines() or [''])[-1]}", flush=True)
            return
        done = run_limited(megabytes, "-c", SMOKE)
        last = (done.stderr.splitlines() or [""])[-1]
        print(f"{megabytes} MB: {last if done.returncode else done.stdout.splitlines()[-1]}", flush=True)
        is_sentence = " cannot do this " in last or last.startswith(
            ("MemoryError", "numpy._core._exceptions._ArrayMemory")
        )
        if done.returncode not in (0, 1) or (done.returncode and not is_sentence):
            raise SituationError(f"{megabytes} MB: exit status {done.returncode}: {done.stderr}")


SITUATIONS = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(fork, spawn, forkserver, late_thread, late_first, at_exit, finalizer, daemon),
        *(no_threads, few_threads, exits_beside, little_memory),
    )
}
PRINTS = {"late-thread", "late-first", "at-exit", "finalizer", "daemon", "no-threads", "few-threads"}


def run(name):
    """Run a situation in a process of its own; return why it failed, or None."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.situations", "--here", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * LIMIT)
    except subprocess.TimeoutExpired as error:
        return f"it did not end in {2 * LIMIT} s: {error.stderr}"
    if done.returncode:
        return f"exit status {done.returncode}\n{done.stderr}"
    if name in PRINTS and "computed" not in done.stdout:
        return f"it computed nothing\n{done.stderr}"
    return None


def main():
    """Run situations."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.situations",
        description="Compute in processes and threads that begin or end at odd times.",
    )
    parser.add_argument("names", nargs="*", choices=[*SITUATIONS, []], default=[], help="all by default")
    parser.add_argument("--here", choices=SITUATIONS, help="run one in this very process")
    options = parser.parse_args()
    if options.here:
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        SITUATIONS[options.here]()
        return 0
    failed = 0
    for name in options.names or SITUATIONS:
        reason = run(name)
        print(f"{name}: {'right' if reason is None else reason}", flush=True)
        failed += reason is not None
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
