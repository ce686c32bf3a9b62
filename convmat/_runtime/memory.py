"""The memory that this process may still allocate, and the error for a result that needs more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import monotonic

from convmat._messages import scaled
from convmat._runtime.groups import own_groups

_MACHINE, _STATUS = Path("/proc/meminfo"), Path("/proc/self/statm")
_UNCHECKED = 1 << 24  # bytes that are not checked: reading the limits costs more than writing such an array
_PARTS, _MOMENT = 32, 0.5  # less than 1/32 of the memory available in the last 0.5 s passes without another reading
_last = [(0.0, 0)]  # the time of the last reading, and the bytes that were available
_VERSION_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
_VERSION_2 = "memory.max", "memory.current", "inactive_file"


def check_memory(
    what: Callable[[], str], nbytes: int, instead: str, available: Callable[[], int] | None = None, place: str = ""
) -> None:
    """Raise if a result needs more memory than is available. Under overcommit, allocating it would succeed.

    Parameters
    ----------
    what : callable
        Returns the beginning of the message: the result and a verb, as in "the matrix needs".
    nbytes : int
        The bytes that it needs.
    instead : str
        The end of the message: what the user can do instead.
    available : callable, optional
        Returns the available bytes; those of the host by default.
    place : str
        Where the memory is, for the message.

    Raises
    ------
    MemoryError
        If fewer bytes are available.
    """
    if nbytes <= _UNCHECKED or (not available and _is_little(nbytes)):
        return
    limit = (available or available_memory)()
    if not available:
        _last[0] = monotonic(), limit
    if nbytes > limit:
        raise MemoryError(
            f"{what()} {scaled(nbytes, 'B')} ({nbytes} bytes), more than the available {scaled(limit, 'B')} of memory"
            f"{place}; {instead}"
        )


def _is_little(nbytes: int) -> bool:
    """Tell whether the bytes are few compared with a recent reading. A new reading takes as long as writing some MB."""
    when, limit = _last[0]
    return nbytes * _PARTS < limit and monotonic() - when < _MOMENT


def available_memory() -> int:
    """Return the bytes that this process may allocate now without swapping: the least that any limit leaves."""
    limits = [*_machine(), *_control_groups(), *_address_space()]
    return max(0, min(limits, default=2**63 - 1))


@cache
def memory_limit() -> int:
    """Return the bytes that were available at the first call, so that all plans of a process use one number."""
    return available_memory()


def _machine() -> Iterator[int]:
    """Yield the machine's available memory, or all its memory if the system does not tell."""
    figures = _figures(_MACHINE)
    if "MemAvailable" in figures:
        yield figures["MemAvailable"] << 10
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_groups() -> Iterator[int]:
    """Yield what each control group of the process leaves, from its own up to the root; cached files count as free."""
    for folder, version in own_groups("memory"):
        limit, usage, cached = _VERSION_1 if version == 1 else _VERSION_2
        most = _number(folder / limit)
        if most is not None:
            used = (_number(folder / usage) or 0) - _figures(folder / "memory.stat").get(cached, 0)
            yield most - max(0, used)


def _address_space() -> Iterator[int]:
    """Yield what a limit of the process' address space leaves; mapped memory counts, used or not."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            yield limit - int(_STATUS.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _number(file: Path) -> int | None:
    """Return the number in a file, or None if there is no such file, or it says "max"."""
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _figures(file: Path) -> dict[str, int]:
    """Return the numbers in a file by name. Each line has a name, perhaps a colon, and a number."""
    figures: dict[str, int] = {}
    with suppress(OSError):
        for line in file.read_text().splitlines():
            name, number, *_ = [*line.split(), "", ""]
            if number.isdecimal():
                figures[name.rstrip(":")] = int(number)
    return figures
