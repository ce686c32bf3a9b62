"""Who is fastest: everyone runs alone first, and those near the front then run in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, inf, log
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.timing import Times, interleave, ratio

_NEAR = 1.6  # times the fastest, up to which a single measurement does not decide
_HOPELESS = 20.0  # times the fastest, from which a call is not repeated
_FAR = 5.0  # times the fastest, from which a larger batch is not waited for


@dataclass(frozen=True)
class Pace:
    """How much a contest may take."""

    budget: float = 0.7  # seconds for the rounds of a contest
    rounds: tuple[int, int] = (5, 25)
    patience: float = 5.0  # seconds of a call after which it is not repeated
    room: float = 1e9  # bytes that something may keep to take part
    settling: float = 1.0  # seconds of products before auto's choice counts


QUICK = Pace(0.15, (3, 7), 0.3, 2e8, 0.4)


@dataclass(frozen=True)
class Single:
    """Seconds of a call on its own."""

    seconds: float
    mark: str = ""  # "*" it ran once, "~" it did not run and this is estimated from a smaller one


def run_alone(call: Callable[[], Any], patience: float) -> tuple[Any, Single]:
    """Return the result, and the fastest of some calls after the first; of a slow one, the first itself."""
    result, first = _timed(call)
    if first > patience:
        return result, Single(first, "*")
    seconds, spent = inf, 0.0
    while spent < min(0.1, patience / 10):
        again = _timed(call)[1]
        seconds, spent = min(seconds, again), spent + max(again, 0.01)
    return result, Single(seconds)


def foresee(alone: Mapping[str, float], name: str, batch: int, patience: float) -> Single | None:
    """Return an estimate, where a call need not be timed: it would take too long, or is far from the front.

    Parameters
    ----------
    alone : mapping of str to float
        What the calls took for a batch of 1.
    name : str
        One of them.
    batch : int
        Size of the batch.
    patience : float
        Seconds.

    Returns
    -------
    Single or None
        None if the call has to be timed.
    """
    if batch == 1 or name not in alone:
        return None
    guess = batch * alone[name]
    far = alone[name] > _FAR * min(alone.values())
    return Single(guess, "~") if guess > (patience / 20 if far else patience) else None


@dataclass
class Contest:
    """Calls that do the same, the ones to compare with `reference` among them."""

    reference: str
    calls: dict[str, Callable[[], object]] = field(default_factory=dict)
    singles: dict[str, Single] = field(default_factory=dict)
    times: Times = field(default_factory=dict)

    def add(self, name: str, call: Callable[[], object], single: Single) -> None:
        """Add a call that has run alone, or been estimated."""
        self.calls[name], self.singles[name] = call, single

    def patience(self, pace: Pace) -> float:
        """Return the seconds after which a call is not repeated: less where others are much faster."""
        fastest = min((single.seconds for single in self.singles.values()), default=inf)
        return min(pace.patience, max(0.3, _HOPELESS * fastest))

    def run(self, pace: Pace) -> None:
        """Let the reference and the fastest of the others run in turn, unless these take too long."""
        others = {name: single.seconds for name, single in self.singles.items() if name != self.reference}
        fastest = sorted(others, key=others.__getitem__)[:3]
        near = [name for name in fastest if others[name] <= _NEAR * others[fastest[0]]]
        names = [name for name in (self.reference, *near) if not self.singles[name].mark]
        if self.reference in names and len(names) > 1:
            self.times = interleave({name: self.calls[name] for name in names}, budget=pace.budget, rounds=pace.rounds)

    def seconds(self, name: str) -> float:
        """Return the median of the rounds, or what a call took alone."""
        return median(self.times[name]) if name in self.times else self.singles[name].seconds

    def ratio(self, name: str) -> float:
        """Return how much longer than the reference a call takes."""
        if name in self.times:
            return ratio(self.times, name, self.reference)
        return self.seconds(name) / self.seconds(self.reference)

    def fastest(self) -> str:
        """Return the fastest of those that ran in turn, or of all, besides the reference; it, where it is alone."""
        others = [name for name in self.times or self.singles if name != self.reference]
        return min(others, key=self.ratio, default=self.reference)

    def details(self) -> dict[str, Any]:
        """Return all seconds, as JSON takes them."""
        alone = {name: {"seconds": single.seconds, "mark": single.mark} for name, single in self.singles.items()}
        return {"seconds": self.times, "alone": alone}


def geometric_mean(values: Iterable[float]) -> float:
    """Return exp(mean(log)).

    Examples
    --------
    >>> geometric_mean([0.5, 8.0])
    2.0
    """
    logarithms = [log(value) for value in values]
    return exp(sum(logarithms) / len(logarithms))


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = perf_counter()
    result = call()
    return result, perf_counter() - start
