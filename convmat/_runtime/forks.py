"""Locks that a forked child can go on with.

A forked child has one thread, the one that forked. What another thread of its parent held stays held in the child, and
nobody is there to give it back. There are two answers to that:

- `new_lock` is for a lock that guards data of this package. Such data are whole between any two of Python's steps, so that
  the child only needs the lock free: what the other thread was making, the child makes anew.
- `undisturbed` is for calls into libraries that have locks of their own (BLAS, Fourier transforms, compilers, imports).
  Nobody else can free those in the child. So a fork waits until no other thread is inside such a call.
"""

from __future__ import annotations

import logging  # noqa: F401 - before a fork hooks run backwards: what we wait for may log, and logging locks itself
import os
import threading
from functools import cached_property
from threading import Lock, RLock
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_locks: WeakSet[Any] = WeakSet()
_gates: WeakSet[Any] = WeakSet()  # one for each thread that has ever been inside
_closed: list[Any] = []  # the gates that the thread which forks holds meanwhile
_PATIENCE = 60  # seconds that a fork waits at most: another library may hold what we wait for while it forks
_forking = Lock()  # held from the first gate that is closed to the last one that is opened
_thread = threading.local()


def new_lock() -> Any:
    """Return a lock that is free in a forked child, whichever thread of the parent held it."""
    lock = Lock()
    _locks.add(lock)
    return lock


def undisturbed() -> Any:
    """Return a context in which no other thread forks this process: a fork waits until it is left.

    It must be left soon, and nothing may be waited for inside that another thread of this package has to do. It is a lock
    implemented in C, so that an interrupt cannot come between its being acquired and the block that it guards.
    """
    try:
        return _thread.gate
    except AttributeError:
        gate = RLock()
        with _forking:
            _gates.add(gate)
        _thread.gate = gate
        return gate


class lazy(cached_property[T]):
    """A property that is computed when it is first used; two threads may compute it twice.

    Until Python 3.11, `functools.cached_property` holds a lock meanwhile, one for all instances, which a forked child could
    not free.
    """

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> T:  # type: ignore[override]
        """Return the value, and keep it where the next look finds it first."""
        if instance is None:
            return self  # type: ignore[return-value]
        value: T = self.func(instance)
        instance.__dict__[self.attrname or ""] = value
        return value


def _close_gates() -> None:
    _forking.acquire()
    _closed[:] = _gates
    end = monotonic() + _PATIENCE
    for gate in _closed:
        gate.acquire(timeout=max(0.0, end - monotonic()))


def _open_gates() -> None:
    # An interrupt in between is reported by Python and goes no further: then some of this is not held.
    for gate in _closed:
        try:
            gate.release()
        except RuntimeError:
            continue
    _closed.clear()
    if _forking.locked():
        _forking.release()


def _start_child() -> None:
    _open_gates()
    for lock in _locks:
        # Anew, whether it says that it is locked or not: between a thread's having it and its saying so, others may fork.
        lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_gates, after_in_parent=_open_gates, after_in_child=_start_child)
