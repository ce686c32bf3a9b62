"""Control groups of Linux: what the system lets this process have of memory and processor time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from math import ceil
from pathlib import Path, PurePosixPath

_OWN, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def own_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folders of the control groups of this process, from its own up to the root, and their version, 1 or 2.

    Parameters
    ----------
    controller : str
        What is controlled, as "cpu" and "memory".
    """
    with suppress(OSError):
        for line in _OWN.read_text(encoding="utf-8").splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = _ROOT / controller if controllers else _ROOT
            for group in (PurePosixPath(own), *PurePosixPath(own).parents):
                yield root.joinpath(*group.parts[1:]), 1 if controllers else 2


@cache
def cpu_quota() -> int | None:
    """Return the number of CPUs whose time this process may use, rounded up; None if that is not limited.

    It is read once: threads that are there already would not go when a quota shrinks.
    """
    quotas = [quota for folder, version in own_groups("cpu") for quota in _read_quota(folder, version)]
    return max(1, ceil(min(quotas))) if quotas else None


def _read_quota(folder: Path, version: int) -> Iterator[float]:
    """Yield the time of a period that a group may use, in periods, unless it has no limit or no such files."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if version == 2:
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
            quota, period = ((folder / name).read_text(encoding="utf-8") for name in names)
        if float(quota) > 0:  # −1 in version 1; "max" in version 2 is no number
            yield int(quota) / int(period)
