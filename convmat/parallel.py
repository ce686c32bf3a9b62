"""The number of workers, and the threads that all products share."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property
from importlib.util import find_spec
from threading import Lock
from typing import Any


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_workers(workers: int | None) -> int:
    """Return the number of threads that `workers` means.

    Parameters
    ----------
    workers : int or None
        None means the CPUs available to the process. A negative number counts back from them, as in `scipy.fft`: −1 is
        all, −2 all but one.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    TypeError
        If `workers` is neither an int nor None.
    ValueError
        If `workers` is 0, or counts back beyond the CPUs that there are.
    """
    cpus = available_cpus()
    if workers is None:
        return cpus
    try:
        number = operator.index(workers)
    except TypeError:
        number = None
    if number is None or isinstance(workers, bool):
        raise TypeError(f"workers must be an int or None, got {workers!r}")
    if number == 0 or number < -cpus:
        raise ValueError(
            f"workers must be positive, or negative down to -{cpus} to count back from all, got {workers!r}"
        )
    return number if number > 0 else number + 1 + cpus


def run_blocks(function: Callable[..., object], blocks: Sequence[tuple[object, ...]], workers: int) -> None:
    """Call `function` on each tuple of arguments, the calling thread and up to `workers` − 1 others sharing them.

    The function has to release the GIL for most of its time, and must not call this one.
    """
    if len(blocks) == 1 or workers == 1:
        for block in blocks:
            function(*block)
        return
    queue = iter(blocks)  # next() on an iterator of a list is atomic

    def work() -> None:
        for block in queue:
            function(*block)

    helpers = _helpers().start(work, min(workers, len(blocks)) - 1, workers - 1)
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():  # one that has not begun has nothing left to do
                helper.result()


class InOrder:
    """Calls functions one at a time, in the order of their numbers from 0, whatever thread comes with which one when.

    None waits: a thread that comes too early, or while another one is calling, leaves its function to a later one.
    """

    def __init__(self) -> None:
        self._lock, self._next, self._busy = Lock(), 0, False
        self._waiting: dict[int, Callable[[], object]] = {}

    def call(self, number: int, function: Callable[[], object]) -> None:
        """Call a function and those that wait for it, unless its own turn comes later."""
        with self._lock:
            self._waiting[number] = function
        while True:
            with self._lock:
                if self._busy or self._next not in self._waiting:
                    return
                function, self._busy = self._waiting.pop(self._next), True
            function()
            with self._lock:
                self._next, self._busy = self._next + 1, False


class BLASThreads:
    """Holds BLAS at one thread while any thread is inside; with threadpoolctl, else it does nothing.

    The limit is the process', so that the first one in sets it and the last one out takes it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._limit: Any = None

    @cached_property
    def available(self) -> bool:
        """Whether BLAS can be held."""
        return find_spec("threadpoolctl") is not None

    @cached_property
    def _controller(self) -> Any:
        from threadpoolctl import ThreadpoolController

        return ThreadpoolController()

    def __enter__(self) -> None:
        if self.available:
            with self._lock:
                if not self._inside:
                    self._limit = self._controller.limit(limits=1, user_api="blas")
                self._inside += 1

    def __exit__(self, *error: object) -> None:
        if self.available:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._limit.restore_original_limits()


single_threaded_blas = BLASThreads()


class _Helpers:
    """Threads for all calls, as many as the call that asked for most: a call that gets none does its work alone."""

    def __init__(self) -> None:
        self._lock, self._threads = Lock(), 0
        self._executor: ThreadPoolExecutor | None = None

    def start(self, function: Callable[[], None], count: int, threads: int) -> list[Future[None]]:
        """Let so many threads call a function, out of `threads` at least that there are then."""
        with self._lock:
            executor = self._executor
            if executor is None or threads > self._threads:
                if executor is not None:
                    executor.shutdown(wait=False)  # its threads end when they have done what was asked of them
                executor = self._executor = ThreadPoolExecutor(threads, thread_name_prefix="convmat")
                self._threads = threads
            return [executor.submit(function) for _ in range(count)]


@cache
def _helpers() -> _Helpers:
    return _Helpers()


if hasattr(os, "register_at_fork"):  # a forked child has the executor but none of its threads
    os.register_at_fork(after_in_child=_helpers.cache_clear)
