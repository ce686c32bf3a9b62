"""Which engine computes a product: a pure function of geometry, dtype, batch, direction, machine and observations.

Nobody knows how many products will follow. The best engine for one product prepares nothing, and the best one for a
million may be worth seconds of compiling. This is the ski-rental problem: rent, until what has been spent on rent is what
skis cost, then buy. So the time that each other engine would have saved is added up, product by product, and an engine is
prepared once it would have saved as much as that costs. Where the estimates are right, all products together take at most
twice as long as with the engine that is best in hindsight, however many they are (Karlin, Manasse, Rudolph & Sleator 1988,
Competitive snoopy caching, Algorithmica 3). That code lies compiled on the disk is a prediction that it pays: it is loaded
after a fraction of that time already (Purohit, Svitkina & Kumar 2018, Improving online algorithms via ML predictions).

An engine takes over only after a trial, in which its product was faster. Trials also tell of engines that the estimates
may be wrong about; they take a small share of the time of all products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from convmat.engines._base import Cost, Engine, SelectiveEngine, ValuesRefusal, find_refusal, own_geometry
from convmat.engines._compiled.loader import NO_LOADING, Code, Loading
from convmat.engines._explanation import MARGIN, Estimate
from convmat.engines._machine import Machine
from convmat.engines._registry import ENGINES
from convmat.geometry import ConvolutionGeometry

_AT_ONCE = 5e-4  # seconds of products that every operator is expected to compute after its first one
_DOUBT = 3.0  # an estimate may be too high by this factor
_TRIALS = 1 / 16  # of the time of all products, for trials
_AGAIN = 8  # a trial is repeated when so many times the time has been spent that had been before it …
_NEAR = 1.5  # … if the engine took at most so many times what the one in use takes


def _unseen(engine: SelectiveEngine) -> str:
    return "it depends on the kernel's values, which are not given"


def _loaded(code: Iterable[Code]) -> Loading:
    return NO_LOADING


@dataclass(frozen=True, slots=True)
class Observations:
    """What has been seen of products so far. Before the first one, that is nothing.

    Attributes
    ----------
    current : str or None
        The engine in use.
    spent, tried : float
        Seconds that products like this one have taken, and trials.
    measured : mapping of str to float
        Seconds of this product, by the engines that have computed it.
    rival : str or None
        The engine that has just been tried beside the one in use. Other times may be of a time when the machine was faster.
    trials : mapping of str to float
        What had been spent when an engine was tried for these products, or left, for the last time.
    factors : mapping of str to float
        How many times its estimate an engine has taken for other products.
    prepared : set of str
        The engines whose setup has been paid.
    saved : mapping of str to float
        Seconds that each engine would have saved in these products.
    saved_by_code : mapping of Code to float
        Seconds that compiled code would have saved in all products of this process, beyond the setup of its engines.
    loading : callable
        Returns what it takes until code can be called. By default all code can be.
    """

    current: str | None = None
    spent: float = 0.0
    tried: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)
    rival: str | None = None
    trials: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    prepared: frozenset[str] = frozenset()
    saved: Mapping[str, float] = field(default_factory=dict)
    saved_by_code: Mapping[Code, float] = field(default_factory=dict)
    loading: Callable[[Iterable[Code]], Loading] = _loaded


def plan(
    geometry: ConvolutionGeometry,
    dtype: np.dtype[Any],
    batch: int,
    transposed: bool,
    machine: Machine,
    engines: Mapping[str, Engine] = ENGINES,
    refuses_values: ValuesRefusal = _unseen,
    local: bool = False,
    seen: Observations = Observations(),
) -> tuple[Estimate, ...]:
    """Estimate every engine, and choose one.

    The first choice is the engine that takes least for the first products, with all that it has to prepare. Later on the
    one in use stays, unless a trial has just shown that another one is faster by `MARGIN`.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution, with its padding.
    dtype : dtype
        Of the product.
    batch : int
        Number of arrays in a product.
    transposed : bool
        Whether the product is with Wᵀ.
    machine : Machine
        What to count with.
    engines : mapping of str to Engine
        What there is to choose from.
    refuses_values : callable
        For an engine that depends on the kernel's values, returns why it cannot use them, or None.
    local : bool
        Whether to leave out engines in which an input reaches outputs that do not read it.
    seen : Observations
        What has been seen of products so far.

    Returns
    -------
    tuple of Estimate
        One for each engine, exactly one of them chosen.

    Examples
    --------
    A kernel as large as this is cheaper through its spectrum:

    >>> import numpy as np
    >>> from convmat import ConvolutionGeometry
    >>> from convmat.engines import ENGINES, Machine
    >>> geometry = ConvolutionGeometry((63, 63), (512, 512), padding="same")
    >>> estimates = plan(geometry, np.dtype("float64"), 1, False, Machine(workers=2))
    >>> [estimate.engine for estimate in estimates if estimate.chosen]
    ['fft']
    """
    estimates: list[Estimate] = []
    for name, engine in engines.items():
        refusal = find_refusal(engine, geometry, dtype, local, refuses_values)
        cost = None
        if refusal is None:
            cost = engine.estimate(own_geometry(engine, geometry), dtype, batch, transposed, machine)
            if not engine.automatic:
                refusal = "by name only"
            elif cost.state > machine.memory / 4:  # both directions may be kept, and arrays need room too
                refusal = "would keep more than a quarter of the memory"
        estimates.append(_estimate(name, transposed, cost, refusal or "", seen))
    best = _best([estimate for estimate in estimates if not estimate.reason], seen)
    return tuple(estimate.beside(best) for estimate in estimates)


def next_trial(estimates: Iterable[Estimate], seen: Observations) -> str | None:
    """Return the engine that is worth a trial now, or None.

    That is one that seems faster and has paid for itself, or one whose trial takes a small part of what has been spent, and
    which might be faster as far as that is known.
    """
    estimates = [estimate for estimate in estimates if estimate.is_candidate]
    (current,) = (estimate for estimate in estimates if estimate.chosen)
    left = _TRIALS * seen.spent - seen.tried
    worth = {}
    for other in estimates:
        pays = other.is_paid and other.seconds * MARGIN < current.seconds
        is_cheap = other.setup + other.loading.seconds + 2 * other.seconds <= left
        if other.engine in seen.trials:
            was_near = other.seconds < _NEAR * current.seconds
            wanted = is_cheap and was_near and seen.spent >= _AGAIN * seen.trials[other.engine]
        else:
            wanted = pays or (is_cheap and other.seconds < _DOUBT * current.seconds)
        if wanted and other is not current:
            worth[other.engine] = other.seconds
    return min(worth, key=worth.__getitem__, default=None)


def _estimate(name: str, transposed: bool, cost: Cost | None, refusal: str, seen: Observations) -> Estimate:
    """Return what is known of an engine, not chosen yet; its reason is empty if it may be."""
    if cost is None:
        return Estimate(name, transposed, None, inf, reason=refusal)
    loading = seen.loading(cost.code)
    saved_by_code = min((seen.saved_by_code.get(code, 0.0) for code in cost.code), default=0.0)
    return Estimate(
        name,
        transposed,
        cost,
        seen.measured.get(name, cost.seconds * seen.factors.get(name, 1.0)),
        measured=name in seen.measured,
        setup=0.0 if name in seen.prepared else cost.setup,
        saved=seen.saved.get(name, 0.0),
        loading=loading,
        saved_by_code=saved_by_code,
        reason=refusal,
    )


def _best(estimates: list[Estimate], seen: Observations) -> Estimate:
    """Return the estimate of the engine to use."""
    current = next((estimate for estimate in estimates if estimate.engine == seen.current), None)
    if current is None:
        for_one = min(estimates, key=lambda estimate: _first_cost(estimate, 1))
        products = 1 + _AT_ONCE / for_one.seconds
        return min(estimates, key=lambda estimate: _first_cost(estimate, products))
    rival = next((estimate for estimate in estimates if estimate.engine == seen.rival), current)
    return rival if rival.seconds * MARGIN < current.seconds else current


def _first_cost(estimate: Estimate, products: float) -> float:
    """Return the seconds of the first products; what other operators would have saved pays for code."""
    code = 0.0 if estimate.saved_by_code >= estimate.loading.threshold else estimate.loading.seconds
    return code + estimate.setup + products * estimate.seconds
