"""Workers and the executor."""

import multiprocessing
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import pytest

from convmat.parallel import InOrder, available_cpus, count_workers, run_blocks


def test_workers_count_as_in_scipy_fft():
    cpus = available_cpus()
    assert count_workers(None) == count_workers(-1) == cpus
    assert count_workers(-cpus) == 1
    assert count_workers(7) == 7


def test_available_cpus_follow_the_affinity():
    if hasattr(os, "sched_getaffinity"):
        assert available_cpus() == len(os.sched_getaffinity(0))
    assert available_cpus() >= 1


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


def live():
    return sum(thread.name.startswith("convmat") for thread in threading.enumerate())


def test_threads_are_as_many_as_one_call_asked_for():
    before = live()
    for workers in range(1, 41):
        barrier = threading.Barrier(workers, timeout=30)
        run_blocks(barrier.wait, [()] * workers, workers)
    deadline = monotonic() + 30
    while live() > max(before, 39) and monotonic() < deadline:  # those that are left over end soon
        sleep(0.01)
    assert live() <= max(before, 39)


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
