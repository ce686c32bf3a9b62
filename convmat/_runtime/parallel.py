"""The number of workers, and the threads that all products share."""

from __future__ import annotations

import _thread
import operator
import os
from collections.abc import Callable, Sequence
from functools import cache
from math import ceil
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeVar

from convmat._runtime.forks import new_lock, undisturbed
from convmat._runtime.groups import cpu_quota
from convmat._runtime.quiet import quietly

T = TypeVar("T")

_SOON = 0.1  # seconds that an interrupt may wait for the end of a block
_RATE = 1000  # blocks that a thread takes a second, at most: each costs 10 to 50 µs for Python's lock
_EACH = 4  # blocks for each thread: then all end at about the same time, even if one is held up


def available_cpus() -> int:
    """Return the number of CPUs that this process may use: those that it is bound to, or a quota of time if that is less.

    With more threads than the quota has CPUs, all of them would stop together when the quota is used up.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, cpu_quota() or bound)


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


def count_blocks(tasks: int, workers: int, seconds: float) -> int:
    """Return the number of blocks for a number of equal tasks.

    Parameters
    ----------
    tasks, workers : int
        Number of tasks and of threads.
    seconds : float
        About the time that one thread takes for all tasks.

    Returns
    -------
    int
        At most the number of tasks. Each of several threads has at least one block, and up to `_EACH` if they are long. A
        block takes at most `_SOON` seconds, unless a single task takes longer.
    """
    several = workers * min(max(1, round(seconds / workers * _RATE)), _EACH) if workers > 1 else 1
    return min(tasks, max(several, ceil(seconds / _SOON)))


def run_blocks(
    function: Callable[..., object],
    blocks: Sequence[tuple[object, ...]],
    workers: int,
    single_threaded_blas: bool = False,
) -> None:
    """Call `function` on each tuple of arguments, in the calling thread and up to `workers` − 1 others.

    When this call ends, also by an interrupt, no other thread is in `function`. After an error no further block begins. If
    the system gives no threads, the caller does the work alone.

    Parameters
    ----------
    function : callable
        It should release the GIL for most of its time, and must not call `run_blocks`. If it writes to memory by address,
        it must hold a reference to it, such as an array among its arguments.
    blocks : sequence of tuple
        The arguments of each call.
    workers : int
        Number of threads.
    single_threaded_blas : bool
        Whether BLAS has one thread during the call.
    """
    if (len(blocks) == 1 or workers == 1) and not single_threaded_blas:
        for block in blocks:
            function(*block)
        return
    job = _Job(function, blocks, single_threaded_blas)
    try:
        job.start(min(workers, len(blocks)) - 1)
        job.work()
    finally:
        # An interrupt may come at any call, return or backward jump of Python, also here. So call `end` until the job has
        # ended. Only an interrupt between two attempts escapes. Even then the other threads end by themselves, and they hold
        # the memory that they write to.
        interrupt = None
        while not job.ended:
            try:
                job.end()
            except BaseException as error:  # noqa: BLE001
                interrupt = error
        if interrupt is not None:
            raise interrupt
    job.raise_error()


def call_single_threaded(function: Callable[[], T]) -> T:
    """Return what a function returns, and hold BLAS at one thread meanwhile.

    Small calls of BLAS and LAPACK gain nothing from a second thread. Where another process takes its core, each of them
    waits for it. The function runs in the calling thread alone, and may call `run_blocks`.
    """
    results: list[T] = []
    run_blocks(lambda: results.append(function()), [()], 1, single_threaded_blas=True)
    return results[0]


class _Job:
    """Blocks that the calling thread shares with helpers.

    The locks are implemented in C, so no interrupt comes between their acquisition and the block that they guard.
    """

    def __init__(self, function: Callable[..., object], blocks: Sequence[tuple[object, ...]], blas: bool) -> None:
        self._work: tuple[Callable[..., object], Any] | None = function, iter(blocks)  # next() of this is atomic
        self._lock, self._helpers = Lock(), 0
        self._busy = Lock()  # held while a helper works
        self._stopped, self._blas = False, blas
        self._error: BaseException | None = None
        self.ended = False

    def start(self, helpers: int) -> None:
        """Ask for helpers."""
        if self._blas:
            blas_threads.hold(self)
        _helpers().ask(self, helpers)

    def work(self) -> None:
        """Do blocks until there are no more, or the job is stopped."""
        work = self._work
        if work is None:
            return
        function, blocks = work
        for block in blocks:
            if self._stopped:
                return
            function(*block)

    def help(self) -> None:
        """Do blocks in another thread, unless the job was stopped before."""
        with self._lock:
            if self._stopped:
                return
            if not self._helpers:
                self._busy.acquire()  # free here: the caller takes it only after it has stopped the job
            self._helpers += 1
        try:
            quietly(self.work)
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self._error, self._stopped = error, True
        finally:
            with self._lock:
                self._helpers -= 1
                if not self._helpers:
                    self._busy.release()

    def end(self) -> None:
        """Stop the job, and wait for the blocks that helpers have begun. After an interrupt, call it again."""
        with self._lock:
            self._stopped = True
        with self._busy:
            pass
        if self._blas:
            blas_threads.release(self)
        self._work = None  # so that a late helper does not keep arrays in memory
        self.ended = True

    def raise_error(self) -> None:
        """Raise the error of a helper, if there is one."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # it refers to this frame


class _BLASThreads:
    """Holds BLAS at one thread while any job needs that.

    The number belongs to the process. So the first job sets it, and the last one sets it back.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        self._jobs: set[_Job] = set()
        self._libraries: list[Any] | None = None
        self._usual: list[tuple[Any, int]] = []  # libraries and their number of threads before the first job

    def hold(self, job: _Job) -> None:
        """Set BLAS to one thread until the job is released."""
        with self._lock, undisturbed():
            if self._libraries is None:
                self._libraries = _blas_libraries()
            self._jobs.add(job)
            if not self._usual:
                self._usual = [(library, library.get_num_threads()) for library in self._libraries]
            for library, _ in self._usual:
                _set_threads(library, 1)

    def release(self, job: _Job) -> None:
        """Forget a job, and set BLAS back after the last one. After an interrupt, call it again."""
        with self._lock, undisturbed():
            self._jobs.discard(job)
            if not self._jobs:
                for library, threads in self._usual:
                    _set_threads(library, threads)
                self._usual = []

    def start_child(self) -> None:
        """Set BLAS back in a forked child, which has none of the jobs."""
        self._jobs.clear()
        for library, threads in self._usual:
            _set_threads(library, threads)
        self._usual = []


def _blas_libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _set_threads(library: Any, threads: int) -> None:
    """Set the process' number of BLAS threads, from any thread.

    Since version 3.8, threadpoolctl silently does nothing except in the first thread that has set a number.
    """
    let_others = getattr(library, "clear_controlling_thread", None)
    if let_others:
        let_others(force=True)
    library.set_num_threads(threads)
    if let_others:
        let_others(force=True)


blas_threads = _BLASThreads()


class _Helpers:
    """Threads that all jobs share, as many as the largest job asked for. They never end, and do not keep a process alive."""

    def __init__(self) -> None:
        self._lock, self._threads = new_lock(), 0
        self._jobs: SimpleQueue[_Job] = SimpleQueue()

    def ask(self, job: _Job, count: int) -> None:
        """Offer a job to so many threads, or to as many as the system gives."""
        with self._lock:
            while self._threads < count:
                try:
                    # Not threading.Thread: its start waits in Python code, which an interrupt could leave half done.
                    _thread.start_new_thread(_serve, (self._jobs,))
                except (RuntimeError, MemoryError):  # no more threads, or Python is about to end
                    break
                self._threads += 1
            count = min(count, self._threads)
        for _ in range(count):
            self._jobs.put(job)


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while True:
        jobs.get().help()


@cache
def _helpers() -> _Helpers:
    return _Helpers()


def _start_child() -> None:
    _helpers.cache_clear()  # a forked child has none of its threads
    blas_threads.start_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_child)


class InOrder:
    """Calls functions one at a time, in the order of their numbers from 0. Threads may bring them in any order.

    No thread waits for another. A thread that comes too early, or while another thread calls, leaves its function for a
    later one.
    """

    def __init__(self) -> None:
        self._lock, self._next, self._busy = new_lock(), 0, False
        self._waiting: dict[int, Callable[[], object]] = {}

    def call(self, number: int, function: Callable[[], object]) -> None:
        """Call a function and those that wait for it, or keep it until its turn comes."""
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
