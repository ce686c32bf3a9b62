"""What a forked child can go on with, whatever other threads of its parent were doing."""

import multiprocessing
import threading
import warnings

import pytest

import convmat._runtime.forks
from convmat._runtime import parallel
from convmat._runtime.forks import lazy, new_lock, undisturbed
from convmat._runtime.parallel import run_blocks
from tests.processes import python
from tests.runtime.test_parallel import Library, all_blocks

fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")


def forked(function):
    """Return the exit code of a forked child that calls a function, which may take half a minute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
        child = multiprocessing.get_context("fork").Process(target=function)
        child.start()
    child.join(30)
    if child.is_alive():
        child.kill()
    return child.exitcode


def other_thread_in(context):
    """Return an event that ends another thread, which is inside a context."""
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with context() if callable(context) else context:
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(30)
    return leave, thread


@fork
def test_a_forked_child_has_all_locks_free():
    lock = new_lock()
    leave, thread = other_thread_in(lock)

    def use():
        assert lock.acquire(timeout=20)
        with undisturbed():
            all_blocks()

    assert forked(use) == 0
    assert lock.locked()  # here it is still the other thread's
    leave.set()
    thread.join(30)
    assert not lock.locked()


@fork
def test_a_fork_waits_for_calls_that_must_not_be_disturbed():
    leave, thread = other_thread_in(undisturbed)
    threading.Timer(0.3, leave.set).start()

    def check():
        assert leave.is_set()
        with undisturbed():
            all_blocks()

    assert forked(check) == 0
    thread.join(30)
    assert not convmat._runtime.forks._forking.locked()
    with undisturbed(), undisturbed():  # as before
        all_blocks()


@fork
def test_a_forked_child_has_blas_as_it_was(monkeypatch):
    library = Library()
    monkeypatch.setattr(parallel.blas_threads, "_libraries", [library])
    inside, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=run_blocks, args=(lambda: inside.set() or leave.wait(30), [()], 1, True))
    other.start()
    assert inside.wait(30)

    def check():
        assert library.threads == 8
        run_blocks(lambda: None, [()] * 3, 2, True)
        assert library.threads == 8

    assert forked(check) == 0
    leave.set()
    other.join(30)
    assert library.threads == 8


@fork
def test_a_forked_child_computes_what_another_thread_was_computing():
    inside, leave = threading.Event(), threading.Event()

    class Slow:
        @lazy
        def value(self):
            inside.set()
            leave.wait(30)
            return 7

    slow = Slow()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert inside.wait(30)

    def use():
        leave.set()
        assert (slow.value, slow.value) == (7, 7)

    assert forked(use) == 0
    leave.set()
    thread.join(30)
    assert vars(slow) == {"value": 7}


LOGGING = """
import convmat, logging, os, threading
from convmat._runtime.forks import undisturbed
inside = threading.Event()

def compile():  # a compiler may log, and logging has a lock that a fork holds, too
    with undisturbed():
        inside.set()
        threading.Event().wait(0.5)
        logging.getLogger("compiler").isEnabledFor(logging.DEBUG)

thread = threading.Thread(target=compile)
thread.start()
inside.wait()
child = os.fork()
if not child:
    os._exit(7)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@fork
def test_a_fork_holds_nothing_that_it_waits_for():
    assert python(LOGGING, PYTHONWARNINGS="ignore") == ["7"]
