"""Workers, the threads that share blocks, and what an interrupt leaves behind."""

import dis
import gc
import itertools
import multiprocessing
import os
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat._runtime import parallel
from convmat._runtime.parallel import InOrder, call_single_threaded, count_blocks, count_workers, run_blocks
from tests.processes import python


@pytest.mark.parametrize(("workers", "threads"), [(None, 4), (-1, 4), (-2, 3), (-4, 1), (1, 1), (7, 7)])
def test_workers_count_as_in_scipy_fft(workers, threads, monkeypatch):
    monkeypatch.setattr(parallel, "available_cpus", lambda: 4)
    assert count_workers(workers) == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs an affinity")
def test_available_cpus_follow_the_affinity():
    narrowed = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])"
    assert python(f"{narrowed}\nfrom convmat._runtime import available_cpus\nprint(available_cpus())") == ["1"]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("blocks", [0, 1, 2, 20])
def test_every_block_is_run_once(workers, blocks):
    done, lock = [], threading.Lock()

    def work(block):
        with lock:
            done.append(block)

    run_blocks(work, [(block,) for block in range(blocks)], workers)
    assert sorted(done) == list(range(blocks))


def test_blocks_share_threads():
    barrier = threading.Barrier(3, timeout=30)
    run_blocks(barrier.wait, [()] * 3, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_errors_come_back(workers):
    def fail(block):
        raise RuntimeError(f"block {block}")

    with pytest.raises(RuntimeError, match="block"):
        run_blocks(fail, [(1,), (2,), (3,)], workers)


def test_threads_are_as_many_as_one_call_asked_for():
    used = set()
    for workers in range(1, 41):
        barrier = threading.Barrier(workers, timeout=30)
        run_blocks(lambda: used.add(threading.get_ident()) or barrier.wait(), [()] * workers, workers)  # noqa: B023
    assert len(used) <= max(40, before_this_test() + 1)


def before_this_test():
    return parallel._helpers()._threads


@pytest.mark.parametrize("workers", [2, 3])
def test_no_call_has_more_threads_than_its_own(workers):
    barrier = threading.Barrier(10, timeout=30)
    run_blocks(barrier.wait, [()] * 10, 10)
    used = set()
    run_blocks(lambda block: used.add(threading.get_ident()) or sleep(0.001), [(i,) for i in range(50)], workers)
    assert len(used) <= workers


def test_eight_threads_share_the_helpers():
    def call(seed):
        done = []
        for workers in (seed + 1, 8 - seed, 3):
            run_blocks(done.append, [(block,) for block in range(20)], workers)
        return sorted(done)

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, seed % 8) for seed in range(64)]
        assert all(one.result(60) == sorted([*range(20)] * 3) for one in calls)


def all_blocks():
    done = []
    run_blocks(done.append, [(block,) for block in range(20)], 3)
    assert sorted(done) == list(range(20))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own():
    all_blocks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
        child = multiprocessing.get_context("fork").Process(target=all_blocks)
        child.start()
    child.join(30)
    assert child.exitcode == 0


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_in_order_calls_by_number(workers):
    ordered, called = InOrder(), []
    barrier = threading.Barrier(workers, timeout=30)

    def work(number):
        barrier.wait()  # all threads come at once, with the last numbers first
        ordered.call(number, lambda: called.append(number))

    run_blocks(work, [(number,) for number in range(40)][::-1], workers)
    assert called == list(range(40))


@given(tasks=st.integers(1, 10**6), workers=st.integers(1, 64), seconds=st.floats(0, 1e4))
def test_blocks_are_several_for_each_thread_and_soon_over(tasks, workers, seconds):
    blocks = count_blocks(tasks, workers, seconds)
    assert min(tasks, workers) <= blocks <= tasks  # nobody is idle, and no block is empty
    assert blocks == tasks or seconds / blocks <= 0.1 + 1e-9
    if workers > 1:  # not too short to be worth the taking: a millisecond, or one for each
        assert blocks <= workers or seconds / blocks >= 0.7e-3
    else:  # a thread alone has no others to wait for
        assert blocks == 1 or seconds > 0.1


@pytest.mark.parametrize(("seconds", "blocks"), [(1e-4, 3), (7e-3, 6), (5e-2, 12)])
def test_longer_work_has_more_blocks(seconds, blocks):
    assert count_blocks(1000, 3, seconds) == blocks


class Work:
    """Blocks that tell when they begin and end."""

    def __init__(self, seconds=0.002):
        self.begun, self.ended, self.seconds = [], [], seconds

    def __call__(self, block):
        self.begun.append(block)
        sleep(self.seconds)
        self.ended.append(block)

    def assert_over(self):
        """Check that no thread is inside, and none comes any more."""
        assert sorted(self.begun) == sorted(self.ended)
        begun = len(self.begun)
        sleep(2 * self.seconds)
        assert len(self.begun) == begun


class Library:
    """A BLAS, as threadpoolctl shows it."""

    threads = 8

    def get_num_threads(self):
        return self.threads

    def set_num_threads(self, threads):
        self.threads = threads


def interrupted(call, number):
    """Make a call with an interrupt at the `number`-th place where Python looks for one; tell whether it came so far.

    Python looks when a function begins, after a call, and when a loop goes back. Only code of this package counts.
    """
    left = itertools.count(number, -1)

    def trace(frame, event, argument):
        if (
            not frame.f_code.co_filename.endswith(("parallel.py", "forks.py", "quiet.py"))
            or "tests" in frame.f_code.co_filename
        ):
            return None
        frame.f_trace_opcodes = True
        previous = None

        def inside(frame, event, argument):
            nonlocal previous
            if event == "opcode":
                name = dis.opname[frame.f_code.co_code[previous]] if previous is not None else ""
                previous = frame.f_lasti
                if name.startswith("CALL") or name == "JUMP_BACKWARD":
                    strike()
            return inside

        strike()
        return inside

    def strike():
        if next(left) == 0:
            sys.settrace(None)
            raise KeyboardInterrupt

    usual = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # which Python 3.12 asks for before anything is traced
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(usual)
    return False


@pytest.mark.parametrize("blas", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_after_an_interrupt_anywhere_nothing_is_left(workers, blas, monkeypatch):
    libraries = [Library(), Library()]
    monkeypatch.setattr(parallel.blas_threads, "_libraries", libraries)
    interrupted(lambda: run_blocks(Work(0), [(0,)] * 6, workers, blas), 10**9)  # Python 3.13 traces what it has traced
    for number in itertools.count():
        work = Work()
        came = interrupted(lambda: run_blocks(work, [(block,) for block in range(6)], workers, blas), number)  # noqa: B023
        work.assert_over()
        assert [library.threads for library in libraries] == [8, 8], number
        assert not parallel.blas_threads._lock.locked()
        assert not parallel._helpers()._lock.locked()
        if not came:
            break
        after = Work(0)
        run_blocks(after, [(block,) for block in range(20)], workers, blas)
        assert sorted(after.ended) == list(range(20))
    assert number > (5 if workers > 1 or blas else 0)
    assert sorted(work.ended) == list(range(6))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit, ValueError])
@pytest.mark.parametrize("helper", [False, True])
def test_an_error_anywhere_stops_all_threads_soon(error, helper):
    caller, work = threading.get_ident(), Work()
    together = threading.Barrier(2, timeout=30)

    def fail(block):
        if block < 2:
            together.wait()
        work(block)
        if (threading.get_ident() != caller) == helper:
            raise error

    with pytest.raises(error):
        run_blocks(fail, [(block,) for block in range(1000)], 2)
    work.assert_over()
    assert len(work.begun) < 20


def test_memory_is_held_by_whoever_writes_to_it():
    """Even where a caller has left, as two interrupts in one moment might make it."""
    inside, leave = threading.Event(), threading.Event()

    class Memory:
        pass

    def work(memory):
        inside.set()
        leave.wait(30)

    memory = Memory()
    seen = weakref.ref(memory)
    job = parallel._Job(work, [(memory,)], False)
    parallel._helpers().ask(job, 1)
    assert inside.wait(30)
    del job, memory
    gc.collect()
    assert seen() is not None
    leave.set()
    deadline = monotonic() + 30
    while seen() is not None and monotonic() < deadline:
        sleep(0.01)
    assert seen() is None


def test_a_helper_that_comes_too_late_holds_nothing():
    work = Work(0)
    job = parallel._Job(work, [(0,)], False)
    job.end()
    job.help()
    job.work()
    assert work.begun == []
    assert job._work is None


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_the_caller_goes_on_with_the_threads_that_there_are(threads, error, monkeypatch):
    starts = itertools.count()

    def start(*arguments):
        if next(starts) >= threads:
            raise error
        return usual(*arguments)

    usual = parallel._thread.start_new_thread
    helpers = parallel._Helpers()
    monkeypatch.setattr(parallel, "_helpers", lambda: helpers)
    monkeypatch.setattr(parallel._thread, "start_new_thread", start)
    for _ in range(3):
        work = Work(0)
        run_blocks(work, [(block,) for block in range(50)], 4)
        assert sorted(work.ended) == list(range(50))
    assert helpers._threads == threads
    assert helpers._jobs.qsize() <= 3 * threads


def test_threads_that_ask_at_the_same_time_start_no_more_than_they_need(monkeypatch):
    starts, usual = [], parallel._thread.start_new_thread

    def start(*arguments):
        starts.append(0)
        sleep(0.02)
        return usual(*arguments)

    monkeypatch.setattr(parallel._thread, "start_new_thread", start)
    helpers = parallel._Helpers()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(helpers.ask, parallel._Job(print, [], False), 3) for _ in range(2)]
    assert all(one.exception() is None for one in asked)
    assert len(starts) == 3


def test_jobs_that_hold_blas_at_the_same_time_leave_it_as_it_was(monkeypatch):
    class Slow(Library):
        def get_num_threads(self):
            sleep(0.02)
            return self.threads

        def set_num_threads(self, threads):
            sleep(0.02)
            self.threads = threads

    library = Slow()
    monkeypatch.setattr(parallel.blas_threads, "_libraries", [library])
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(run_blocks, lambda: library.threads == 1 or 1 / 0, [()], 1, True) for _ in range(6)]
    assert all(job.exception() is None for job in jobs)
    assert library.threads == 8


def test_blas_is_as_it_was_after_products_of_several_threads():
    """With the libraries that there are: the last thread out is not the first one in."""
    libraries = parallel._blas_libraries()
    usual = [library.get_num_threads() for library in libraries]
    inside, leave, left, end = (threading.Event() for _ in range(4))

    def first():
        for library in libraries:
            getattr(library, "clear_controlling_thread", lambda force: None)(force=True)
            library.set_num_threads(3)
        run_blocks(lambda: inside.set() or leave.wait(30), [()], 1, True)
        left.set()
        end.wait(30)  # it lives on

    def second():
        leave.set()
        assert left.wait(30)
        assert {library.get_num_threads() for library in libraries} == {1}

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    run_blocks(second, [()], 1, True)
    assert {library.get_num_threads() for library in libraries} == {3}
    end.set()
    thread.join(30)
    for library, threads in zip(libraries, usual, strict=True):
        parallel._set_threads(library, threads)


def test_blas_has_one_thread_inside_of_jobs_and_its_own_number_after_the_last(monkeypatch):
    library = Library()
    monkeypatch.setattr(parallel.blas_threads, "_libraries", [library])
    seen, inside, leave = [], threading.Event(), threading.Event()
    other = threading.Thread(target=run_blocks, args=(lambda: inside.set() or leave.wait(30), [()], 1, True))
    other.start()
    assert inside.wait(30)
    run_blocks(lambda: seen.append(library.threads), [()] * 3, 2, True)
    assert seen == [1, 1, 1]
    assert library.threads == 1  # for the other
    leave.set()
    other.join(30)
    assert library.threads == 8


def test_what_is_called_with_one_blas_thread_returns_and_raises_as_ever(monkeypatch):
    library = Library()
    monkeypatch.setattr(parallel.blas_threads, "_libraries", [library])
    assert call_single_threaded(lambda: (library.threads, call_single_threaded(lambda: library.threads))) == (1, 1)
    assert library.threads == 8
    with pytest.raises(KeyError):
        call_single_threaded(lambda: {}["absent"])
    assert library.threads == 8
