"""What ``engine="auto"`` has seen and chosen: for the products of one kind, and for all products of the process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, log
from typing import Any, NamedTuple

import numpy as np

from convmat._runtime import new_lock
from convmat.engines import Code, Estimate, Loading, Observations

_QUIET = 2e-3  # seconds of products between two reviews, at least: a review takes about a tenth of that
_GROWTH = 2  # a review comes when the number of products has grown by one part in so many
_SPIKE = 1.5  # factor by which a measured time may grow from one review to the next


class Kind(NamedTuple):
    """Products that one engine is chosen for: a direction, a dtype, how many arrays, and what the kernel's values allow."""

    transposed: bool
    dtype: np.dtype[Any]
    batch: int
    selective: frozenset[str]  # engines that depend on the kernel's values, and can use them


class Ledger:
    """What the products of all operators of a process have told.

    Attributes
    ----------
    spent : float
        Seconds of products.
    saved : mapping of Code to float
        Seconds that compiled code would have saved, beyond the setup of its engines.
    """

    def __init__(self) -> None:
        self.spent = 0.0
        self.saved: defaultdict[Code, float] = defaultdict(float)
        self._errors: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 1.0])
        self._lock = new_lock()

    def compare(self, estimate: Estimate, dtype: np.dtype[Any], seconds: float) -> None:
        """Note how long a product took that had only been estimated."""
        if estimate.cost:
            with self._lock:
                error = self._errors[estimate.engine, dtype.char]
                error[0] += log(seconds / estimate.cost.seconds)
                error[1] += 1

    def factors(self, dtype: np.dtype[Any]) -> dict[str, float]:
        """Return what to multiply the estimates of engines by: the geometric mean of what was measured, and of a 1."""
        return {name: exp(total / count) for (name, char), (total, count) in self._errors.items() if char == dtype.char}

    def add(self, saved_by_code: Mapping[Code, float]) -> None:
        """Add what code would have saved."""
        with self._lock:
            for code, saved in saved_by_code.items():
                self.saved[code] += saved


@dataclass(slots=True)
class Choice:
    """The engine of one operator for products of one kind, and what it rests on.

    Attributes
    ----------
    kind : Kind
        The products.
    prepared : set of str
        The engines that have been prepared for the kernel, shared by its choices for the same direction and dtype.
    name : str
        The engine.
    left : int
        Products until the next review.
    """

    kind: Kind
    prepared: set[str]
    name: str = ""
    left: int = 0
    lock: Any = field(default_factory=new_lock)  # of whoever reviews it
    _estimates: tuple[Estimate, ...] = ()  # those that are neither refused nor left out, as of the last review
    _products: int = 0  # counted until then
    _planned: int = 0  # from there to the next review
    _spent: float = 0.0
    _tried: float = 0.0
    _saved: dict[str, float] = field(default_factory=dict)
    # What the ledger has from this choice.
    _saved_by_code: defaultdict[Code, float] = field(default_factory=lambda: defaultdict(float))
    _trials: dict[str, float] = field(default_factory=dict)

    def begin(self, estimates: Iterable[Estimate], ledger: Ledger) -> None:
        """Choose before the first product, which is counted as it is estimated."""
        self.schedule(estimates, ledger)
        self.left += 1  # the first product prepares: its time says little
        best = self.estimate()
        self._products, self._spent = 1, best.seconds
        self._save(1, best.seconds + best.setup, ledger)
        ledger.spent += best.seconds

    def estimate(self) -> Estimate:
        """Return what was known of the engine at the last review."""
        return next(estimate for estimate in self._estimates if estimate.engine == self.name)

    def observations(
        self,
        measured: Mapping[str, float],
        ledger: Ledger,
        loading: Callable[[Iterable[Code]], Loading],
        rival: str | None = None,
    ) -> Observations:
        """Return all that has been seen, as the planner takes it."""
        return Observations(
            current=self.name or None,
            spent=self._spent,
            tried=self._tried,
            measured=measured,
            rival=rival,
            trials=self._trials,
            factors=ledger.factors(self.kind.dtype),
            prepared=frozenset(self.prepared),
            saved=self._saved,
            saved_by_code=ledger.saved,
            loading=loading,
        )

    def count(self, seconds: float, ledger: Ledger) -> None:
        """Count the products since the last review, each of which took about so many seconds."""
        self._products += self._planned
        self._spent += self._planned * seconds
        ledger.spent += self._planned * seconds
        self._save(self._planned, seconds, ledger)

    def _save(self, products: int, seconds: float, ledger: Ledger) -> None:
        """Add what other engines would have saved of products that took so many seconds, first for their own setup."""
        by_code: defaultdict[Code, float] = defaultdict(float)
        for other in self._estimates:
            before = self._saved.get(other.engine, 0.0)
            self._saved[other.engine] = after = before + products * max(0.0, seconds - other.seconds)
            beyond = max(0.0, after - other.setup) - max(0.0, before - other.setup)
            for code in other.cost.code if other.cost else ():
                by_code[code] = max(by_code[code], beyond)  # engines with the same code would not have saved both
        for code, saved in by_code.items():
            self._saved_by_code[code] += saved
        ledger.add(by_code)

    def _withdraw(self, ledger: Ledger) -> None:
        """Forget what would have been saved."""
        ledger.add({code: -saved for code, saved in self._saved_by_code.items()})
        self._saved_by_code.clear()
        self._saved.clear()

    def note_trial(self, name: str, seconds: float) -> None:
        """Note that an engine has been tried, which took so many seconds."""
        self._tried += seconds
        self._trials[name] = self._spent
        self.prepared.add(name)

    def schedule(self, estimates: Iterable[Estimate], ledger: Ledger) -> None:
        """Take the engine that is chosen, until the next review: sooner, where another one would have paid for itself."""
        self._estimates = tuple(estimate for estimate in estimates if estimate.is_candidate)
        (best,) = (estimate for estimate in self._estimates if estimate.chosen)
        if best.engine != self.name:  # what would have been saved, if this engine had computed all products
            self._withdraw(ledger)
            self._save(self._products, best.seconds, ledger)
            self._trials[self.name] = self._spent
        self.name = best.engine
        self.prepared.add(best.engine)
        wait = self._products / _GROWTH
        for other in self._estimates:
            gain = best.seconds - other.seconds
            if gain > 0 and not other.is_paid and other.engine not in self._trials:
                missing = max(other.setup - other.saved, other.loading.threshold - other.saved_by_code)
                wait = min(wait, missing / gain)
        self._planned = max(1, int(wait), int(_QUIET / best.seconds))
        self.left = self._planned


def smooth(before: float | None, seconds: float) -> float:
    """Return the time of a product after it has been measured again: an interruption counts for little, and not for long."""
    return seconds if before is None else min(seconds, _SPIKE * before)
