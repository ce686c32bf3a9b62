"""Interrupts by the hundred: `python -m tests.interrupts --count 1000`.

Products of every engine, and builds of W, are interrupted at drawn times: by SIGINT, one, two or many at a time, by the
handler of a timer that raises, and by an exception that another thread sends. After each of them nothing may go on: arrays
that are allocated then keep their values, no thread computes, the next product is right and BLAS has its threads back.
A round that does not end is a failure, with the stacks of all threads.
"""

import argparse
import contextlib
import ctypes
import faulthandler
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

import convmat

PACKAGE = Path(convmat.__file__).parent
LIMIT = 60  # seconds that a round may take
BURSTS = (1, 1, 2, 8)

# Kernel's shape, input's shape, padding, batch: some blocks for each thread, and tens of milliseconds.
CASES = {
    "taps": ((48, 48, 3, 3), (48, 96, 96), 1, 4),
    "winograd": ((48, 48, 3, 3), (48, 96, 96), 1, 4),
    "winograd4": ((48, 48, 3, 3), (48, 96, 96), 1, 4),
    "separable": ((15, 15), (500, 500), 7, 8),
    "gemm": ((32, 32, 3, 3), (32, 96, 96), 1, 4),
    "fft": ((4, 4, 25, 25), (4, 200, 200), 12, 4),
    "csr": ((8, 8, 3, 3), (8, 96, 96), 1, 16),
    "W": ((8, 8, 3, 3), (8, 128, 128), 1, 1),
}


class InterruptError(Exception):
    """What was found after an interrupt."""


class StopComputing(BaseException):
    """Raised in the computing thread, from another one or by the handler of a timer."""


def check(condition, message):
    """Raise, unless a condition holds."""
    if not condition:
        raise InterruptError(message)


def operation(name):
    """Return a function that computes an array, into the one that it is given if it is a product."""
    shape, size, padding, batch = CASES[name]
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal(shape)
    if name == "W":

        def build(out=None):
            return convmat.convolution_matrix(kernel, size, padding=padding, workers=2).data

        return build
    if name == "separable":
        kernel = np.outer(kernel[0], kernel[1])
    A = convmat.Convolution(kernel, size, padding=padding, engine=name, workers=2)
    x = rng.standard_normal((batch, *size))

    def multiply(out=None):
        return A.apply(x, out=out)

    return multiply


def is_inside(frame, code):
    """Tell whether a frame is one of a function's, or is called by one."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def computing_threads():
    """Return the stacks of other threads that are in code of this package which computes."""
    own, found = threading.get_ident(), []
    for thread, frame in sys._current_frames().items():
        names = []
        while frame is not None:
            names.append(Path(frame.f_code.co_filename))
            frame = frame.f_back
        if thread != own and any(PACKAGE in name.parents and name.stem != "parallel" for name in names):
            found.append([str(name.relative_to(PACKAGE)) for name in names if PACKAGE in name.parents])
    return found


def blas_threads():
    """Return the number of threads of every BLAS that is loaded."""
    return [library.num_threads for library in ThreadpoolController().select(user_api="blas").lib_controllers]


class Interrupts:
    """Ways to raise in the main thread, but only while it computes: elsewhere the driver itself would be interrupted."""

    def __init__(self, code):
        self.code, self.raised = code, 0

    def handle(self, number, frame):
        """Raise as Python's own handler does."""
        if is_inside(frame, self.code):
            self.raised += 1
            raise KeyboardInterrupt if number == signal.SIGINT else StopComputing

    def sigint(self, compute, delays):
        """Interrupt by signals of another thread."""

        def send():
            for delay in delays:
                time.sleep(delay)
                os.kill(os.getpid(), signal.SIGINT)

        sender = threading.Thread(target=send)
        sender.start()
        with contextlib.suppress(KeyboardInterrupt):
            while sender.is_alive():
                compute()
        return sender.join

    def alarm(self, compute, delays):
        """Interrupt by a timer, again and again until the delays are over."""
        signal.setitimer(signal.ITIMER_REAL, delays[0], sum(delays[1:]) / max(1, len(delays) - 1))
        before = self.raised
        with contextlib.suppress(StopComputing):
            while self.raised == before:
                compute()
        return lambda: signal.setitimer(signal.ITIMER_REAL, 0)

    def asynchronous(self, compute, delays):
        """Interrupt another thread, which computes, by exceptions."""

        def repeat():
            with contextlib.suppress(StopComputing):
                while True:
                    compute()

        thread = threading.Thread(target=repeat)
        thread.start()
        for delay in delays:
            time.sleep(delay)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(StopComputing))
        thread.join()
        self.raised += 1
        return lambda: None

    def generator(self, compute, delays):
        """Close a generator between two of its products, while another thread computes as well."""

        def results():
            while True:
                yield compute()

        running = results()
        beside = threading.Thread(target=compute)
        beside.start()
        for _ in delays:
            next(running)
        running.close()
        beside.join()
        self.raised += 1
        return lambda: None


def run_round(draw, interrupts, way, compute, expected):
    """Interrupt once, or several times shortly one after the other, and check what there is afterwards."""
    given = np.empty_like(expected) if draw.random() < 0.5 else None

    def attempt():
        compute(given)

    interrupts.code = attempt.__code__
    delays = [draw.uniform(0, 0.06), *(draw.uniform(0, 0.003) for _ in range(draw.choice(BURSTS) - 1))]
    finish = way(attempt, delays)
    canaries = [np.full_like(expected, number) for number in range(4)]
    left = None if given is None else given.copy()
    check(not computing_threads(), f"threads go on to compute: {computing_threads()}")
    time.sleep(draw.uniform(0, 0.04))
    for number, canary in enumerate(canaries):
        check((canary == number).all(), "an array that was allocated after the interrupt was overwritten")
    check(left is None or np.array_equal(left, given, equal_nan=True), "out was written to after the interrupt")
    finish()
    error = np.abs(compute() - expected).max()
    check(error <= 1e-9 * np.abs(expected).max(), f"the next product is wrong by {error}")


def run(name, way, count, seed):
    """Interrupt an operation at least `count` times."""
    compute = operation(name)
    expected = compute().copy()
    threads = blas_threads()
    interrupts, draw, rounds = Interrupts(None), random.Random(seed), 0
    signal.signal(signal.SIGINT, interrupts.handle)
    signal.signal(signal.SIGALRM, interrupts.handle)
    while interrupts.raised < count:
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        run_round(draw, interrupts, getattr(interrupts, way), compute, expected)
        rounds += 1
        check(rounds < 20 * count + 20, f"only {interrupts.raised} interrupts came in time in {rounds} rounds")
    faulthandler.cancel_dump_traceback_later()
    check(blas_threads() == threads, f"BLAS has {blas_threads()} threads, {threads} before")
    print(f"{name}, {way}: {interrupts.raised} interrupts in {rounds} rounds", flush=True)


def main():
    """Interrupt everything."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.interrupts", description="Interrupt products of every engine, and builds of W."
    )
    ways = ("sigint", "alarm", "asynchronous", "generator")
    parser.add_argument("--count", type=int, default=1000, help="interrupts for each engine and way")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="what is interrupted")
    parser.add_argument("--ways", nargs="+", choices=ways, default=["sigint"], help="how")
    parser.add_argument("--seed", type=int, default=0, help="of the times that are drawn")
    options = parser.parse_args()
    for name in options.only:
        for way in options.ways:
            run(name, way, options.count, options.seed)


if __name__ == "__main__":
    faulthandler.enable()
    main()
