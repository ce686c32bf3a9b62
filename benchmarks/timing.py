"""Interleaved timing: what is compared runs in turn, so that whatever else the machine does hits all of it alike."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter

Times = dict[str, list[float]]

_TURN = 2e-3  # seconds of a turn at least, far above what the clock and one interruption cost


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    *,
    budget: float = 2.0,
    rounds: tuple[int, int] = (5, 25),
    warm_up: bool = True,
    settle: bool = False,
) -> Times:
    """Return the seconds of a call of each candidate, one number for each round.

    Parameters
    ----------
    candidates : mapping of str to callable
        Each runs once in every round, or as often as it takes the fastest to fill a turn; all equally often, because the
        first call of a turn gets memory that is fresh and the others may not. The order rotates from round to round, and
        turns back after each cycle: what runs after a candidate that frees much memory is not always the same.
    budget : float
        Seconds after which no further round is begun.
    rounds : (int, int)
        At least and at most as many, the budget notwithstanding.
    warm_up : bool
        Whether each candidate runs before the first round, which also tells how many calls fill a turn. Without, one
        call is a turn: for what takes seconds and has been called before.
    settle : bool
        Whether a turn begins with a call that is not timed, so that a candidate finds the memory that it has left itself:
        one that takes much more memory than another leaves the other none, and its pages' faults would count there.
    """
    names = list(candidates)
    calls = _calls(candidates.values()) if warm_up else 1
    times: Times = {name: [] for name in names}
    collects = gc.isenabled()
    gc.disable()
    try:
        start = perf_counter()
        for turn in range(rounds[1]):
            if turn >= rounds[0] and perf_counter() - start > budget:
                break
            first = turn % len(names)
            order = names[first:] + names[:first]
            for name in reversed(order) if turn // len(names) % 2 else order:
                if settle:
                    candidates[name]()
                times[name].append(_seconds(candidates[name], calls))
            gc.collect()
    finally:
        if collects:
            gc.enable()
    return times


def ratio(times: Times, name: str, reference: str) -> float:
    """Return how much longer a candidate takes than another one: the median of the rounds' own ratios.

    Both numbers of a round were taken within moments, so a machine that is slow for some rounds changes neither.
    """
    return median(a / b for a, b in zip(times[name], times[reference], strict=True))


class Elsewhere:
    """How many cores other processes kept busy since it was made: with none left, a second thread gains nothing."""

    def __init__(self) -> None:
        self._start = perf_counter(), self._seconds()

    def cores(self) -> float | None:
        """Return the average, or None where the system does not tell."""
        start, before = self._start
        after = self._seconds()
        return None if before is None or after is None else max(0.0, (after - before) / (perf_counter() - start))

    @staticmethod
    def _seconds() -> float | None:
        """Return the processor time of everything but this process and its children."""
        path = Path("/proc/stat")
        if not path.is_file():
            return None
        user, nice, system, _, _, *interrupts = map(int, path.read_text().splitlines()[0].split()[1:9])
        return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def _calls(candidates: Iterable[Callable[[], object]]) -> int:
    """Return how many calls make a turn, after first calls that warm up."""
    seconds = []
    for run in candidates:
        once = _seconds(run, 1)
        seconds.append(once if once > 10 * _TURN else max(_seconds(run, 3), 1e-7))
    return max(1, min(ceil(_TURN / min(seconds)), int(10 * _TURN / max(seconds))))


def _seconds(run: Callable[[], object], calls: int) -> float:
    """Return the seconds of one call. The last result is given back to the system after the clock has stopped."""
    start = perf_counter()
    for _ in range(calls):
        result = run()
    seconds = (perf_counter() - start) / calls
    del result
    return seconds
