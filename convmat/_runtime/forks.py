"""Locks that do not block a forked child.

A forked child has one thread, the one that forked. A lock that another thread of the parent held stays locked in the child,
where no thread can release it. There are two remedies:

- `new_lock` makes a lock that guards data of this package. These data are consistent between any two of Python's steps, so
  the child may free the lock. What the other thread was making, the child makes again.
- `undisturbed` guards calls into libraries that have locks of their own (BLAS, Fourier transforms, compilers, imports). The
  child could not free those. So a fork waits until no other thread is inside such a call.
"""

from __future__ import annotations

import logging  # noqa: F401 - hooks before a fork run backwards: ours runs before logging's, as what we wait for may log
import os
import threading
from functools import cached_property
from threading import Lock, RLock
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_locks: WeakSet[Any] = WeakSet()
_gates: WeakSet[Any] = WeakSet()  # one lock for each thread that has used `undisturbed`; the thread holds it inside
_closed: list[Any] = []  # the gates that the forking thread holds during the fork
_PATIENCE = 60  # seconds that a fork waits at most: the forking thread may hold a lock that such a call waits for
_forking = Lock()  # held from closing the first gate to opening the last
_thread = threading.local()


def new_lock() -> Any:
    """Return a lock that is free in a forked child, whichever thread of the parent held it."""
    lock = Lock()
    _locks.add(lock)
    return lock


def undisturbed() -> Any:
    """Return a context in which no other thread forks this process: a fork waits for its end.

    The block must be short, and must not wait for another thread of this package. The context is a lock implemented in C, so
    no interrupt can come between its acquisition and the block.
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
    """A property that is computed on first use; two threads may compute it twice.

    Up to Python 3.11, `functools.cached_property` holds one lock for all instances during the computation. A forked child
    could not free it.
    """

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> T:  # type: ignore[override]
        """Return the value, and store it in the instance, where the next access finds it."""
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
    # Python reports an interrupt in a fork hook and ignores it. After one in `_close_gates`, some gates are not held.
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
        # Reset every lock, even one that says it is free: a fork may come after a thread has it and before it says so.
        lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_gates, after_in_parent=_open_gates, after_in_child=_start_child)
