"""Workers and the executor."""

import os
import threading

import pytest

from convmat.parallel import available_cpus, count_workers, run_blocks


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
