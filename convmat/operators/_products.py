"""Products with V or W for one kernel and geometry: they choose an engine, prepare it, and pad around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from time import perf_counter
from types import ModuleType
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

import numpy as np

from convmat._messages import NO_MEANINGS, choose
from convmat._runtime import new_lock, quietly
from convmat.engines import (
    MEASURING,
    NO_LOADING,
    Bound,
    Code,
    CompilerUnavailable,
    Engine,
    Estimate,
    Loading,
    Machine,
    Observations,
    SelectiveEngine,
    find_refusal,
    fold,
    is_selective,
    next_trial,
    own_geometry,
    pad,
    plan,
)
from convmat.geometry import ConvolutionGeometry, check_bool, flip_spatial
from convmat.operators._choices import Choice, Kind, Ledger, smooth

Array = Any  # of NumPy or CuPy

_WORTH_MEASURING = 10 * MEASURING  # seconds of products that the machine's figures are worth
_ROUNDS, _TRIAL = 5, 5e-3  # rounds and seconds, after which no further round of a trial begins,
_CLEAR = 2.0  # nor if one engine is faster by this factor
_TICK = 1e-9  # seconds that a call takes at least, where a clock is coarse


class _Refused(ValueError):
    """An engine's refusal at a product: of its dtype, or because compiled code can no longer be loaded."""


class Plans:
    """What the engines prepare from a geometry, made once and shared by the products of all kernels.

    Attributes
    ----------
    measured : mapping of Kind to dict of str to float
        Seconds of products of a kind, by the engines that have computed one.
    """

    def __init__(self) -> None:
        self.measured: defaultdict[Kind, dict[str, float]] = defaultdict(dict)
        self._plans: dict[tuple[str, np.dtype[Any]], Any] = {}
        self._lock = new_lock()

    def get(self, name: str, dtype: np.dtype[Any], prepare: Callable[[], Any]) -> Any:
        """Return an engine's plan for a dtype; the first call makes it by `prepare`."""
        with self._lock:
            if (name, dtype) not in self._plans:
                self._plans[name, dtype] = prepare()
            return self._plans[name, dtype]


class Products(ABC):
    """A kernel, its geometry and its engines: the state that an operator shares with its transpose and its conjugate.

    Each array library has a subclass, which names the library and its engines, and describes the machine.
    """

    arrays: ModuleType  # NumPy, or a module with the same functions
    engines: Mapping[str, Engine]
    known_as: Mapping[str, str] = NO_MEANINGS  # other names of engines, in lower case
    place: str = ""  # where the arrays are, for error messages
    ledger: ClassVar[Ledger]  # what all products of the library's arrays have told

    def __init__(
        self,
        geometry: ConvolutionGeometry,
        kernel: Array,
        flip: bool,
        engine: str,
        workers: int | None = None,
        plans: Plans | None = None,
        local: bool = False,
    ) -> None:
        check_bool("flip", flip)
        check_bool("local", local)
        engine = choose("engine", engine, ("auto", *self.engines), self.known_as, place=self.place)
        self.geometry, self.flip, self.engine, self.workers = geometry, bool(flip), engine, workers
        self.local = bool(local)
        self.kernel = kernel
        self.machine = self._describe_machine()
        self.plans = Plans() if plans is None else plans
        # Whether to pad before the engine: an engine that does not take the padding mode computes V.
        padded = any(map(any, geometry.padding))
        self.pads = {
            name: padded and own_geometry(each, geometry) is not geometry for name, each in self.engines.items()
        }
        # Whether a product needs nothing before or after the engine.
        self._plain = {
            name: engine.silent and engine.local and not self.pads[name] for name, engine in self.engines.items()
        }
        self._values_refusals: dict[tuple[str, np.dtype[Any]], str | None] = {}
        self._bound: dict[tuple[str, np.dtype[Any]], Bound] = {}
        self._choices: dict[tuple[bool, np.dtype[Any], int], Choice] = {}
        self._prepared: defaultdict[tuple[bool, np.dtype[Any]], set[str]] = defaultdict(set)
        self.family: WeakValueDictionary[tuple[bool, bool], Any] = WeakValueDictionary()
        self._empty: dict[bool, list[Any]] = {}
        self._lock = new_lock()
        if engine != "auto":
            self._check(engine)
        self.kernel = self._private(kernel)  # last, so that errors come before the copy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.geometry, self.kernel, self.flip, self.engine, self.workers, None, self.local)

    def with_kernel(self, kernel: Array) -> Self:
        """Return the products of another kernel; they share what was prepared from the geometry."""
        return type(self)(self.geometry, kernel, self.flip, self.engine, self.workers, self.plans, self.local)

    def available_memory(self) -> int:
        """Return the bytes that arrays may use."""
        return int(self.machine.memory)

    @abstractmethod
    def _describe_machine(self) -> Machine:
        """Return the speeds and the memory of the machine that computes the products."""

    def _measure_machine(self) -> Machine:
        """Return the machine with figures that have been measured."""
        return self.machine

    def _loading(self, code: Iterable[Code]) -> Loading:
        """Return what it takes until code can be called."""
        return NO_LOADING

    @abstractmethod
    def _wait(self) -> None:
        """Return when all products have ended that have begun."""

    @staticmethod
    def _private(kernel: Array) -> Array:
        """Return a copy of the kernel, which the caller cannot change."""
        return kernel.copy()

    def _check(self, name: str) -> None:
        """Raise if the engine can compute no product. The kernel is tried in double precision, too: so it may multiply."""
        own, wide = self.kernel.dtype, np.result_type(self.kernel.dtype, np.float64)
        refusals = [self._refusal(name, dtype) for dtype in dict.fromkeys([wide] if own.kind in "iu" else [own, wide])]
        if None not in refusals:
            raise ValueError(f"engine={name!r} cannot do this convolution: {refusals[0]}")

    def _refusal(self, name: str, dtype: np.dtype[Any]) -> str | None:
        """Return why an engine cannot compute products of a dtype, or None."""
        refuses_values = partial(self._refuses_values, dtype)
        return find_refusal(self.engines[name], self.geometry, dtype, self.local, refuses_values)

    def _refuses_values(self, dtype: np.dtype[Any], engine: SelectiveEngine) -> str | None:
        """Return why an engine cannot use the kernel in a dtype, or None; found once for all products."""
        key = engine.name, dtype
        if key not in self._values_refusals:
            self._values_refusals[key] = quietly(engine.refuses_values, self._engine_kernel(dtype))
        return self._values_refusals[key]

    def _engine_kernel(self, dtype: np.dtype[Any]) -> Array:
        """Return the kernel as engines take it: flipped if asked for, C-contiguous, and with both channel axes."""
        geometry = self.geometry
        kernel = flip_spatial(self.kernel, len(geometry.axes)) if self.flip else self.kernel
        shape = (geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.spatial_kernel)
        return self.arrays.ascontiguousarray(kernel, dtype).reshape(shape)

    def estimates(self, transposed: bool, dtype: np.dtype[Any], batch: int) -> tuple[Estimate, ...]:
        """Return what is known of every engine for a product, and which one ``engine="auto"`` takes."""
        key = transposed, dtype, batch
        return self._plan(self._choices.get(key) or self._new_choice(*key))[1]

    def _new_choice(self, transposed: bool, dtype: np.dtype[Any], batch: int) -> Choice:
        """Return a choice that has not been made yet."""
        selective = (name for name, engine in self.engines.items() if is_selective(engine))
        able = frozenset(name for name in selective if self._refusal(name, dtype) is None)
        return Choice(Kind(transposed, dtype, batch, able), self._prepared[transposed, dtype])

    def _plan(self, choice: Choice, rival: str | None = None) -> tuple[Observations, tuple[Estimate, ...]]:
        """Return what has been seen of products, and what follows from it; `rival` has just been tried."""
        seen = choice.observations(self.plans.measured[choice.kind], self.ledger, self._loading, rival)
        transposed, dtype, batch, _ = choice.kind
        values = partial(self._refuses_values, dtype)
        arguments = self.geometry, dtype, batch, transposed, self.machine, self.engines, values, self.local, seen
        return seen, plan(*arguments)

    def _look_at_machine(self, seconds: float) -> bool:
        """Measure the machine's figures if products that take so many seconds more make that worth it; tell whether."""
        if self.machine.measured or self.ledger.spent + seconds < _WORTH_MEASURING:
            return False
        self.machine = self._measure_machine()
        return True

    def bound(self, name: str, dtype: np.dtype[Any]) -> Bound:
        """Return an engine bound to the kernel in a dtype."""
        key = name, dtype
        if key not in self._bound:
            with self._lock:
                if key not in self._bound:
                    self._bound[key] = quietly(self._bind, name, dtype)
        return self._bound[key]

    def _bind(self, name: str, dtype: np.dtype[Any]) -> Bound:
        refusal = self._refusal(name, dtype)
        if refusal is not None:
            raise _Refused(refusal)
        engine = self.engines[name]
        geometry = own_geometry(engine, self.geometry)
        prepared = self.plans.get(name, dtype, lambda: engine.prepare(geometry, dtype, self.machine.workers))
        return engine.bind(prepared, self._engine_kernel(dtype))

    def multiply(self, transposed: bool, x: Array, out: Array) -> None:
        """Write the product with arrays (B, C, *spatial); `x` and `out` are C-contiguous and have one dtype."""
        if not len(x):
            return
        if self.engine != "auto":
            try:
                self._compute(self.engine, transposed, x, out)
            except (CompilerUnavailable, _Refused) as error:
                kind = ValueError if isinstance(error, _Refused) else CompilerUnavailable
                raise kind(f"engine={self.engine!r} cannot do this product: {error}") from error
            return
        key = transposed, x.dtype, len(x)
        choice = self._choices.get(key)
        if choice is None:
            choice = self._choices[key] = self._first_choice(*key)
        try:
            choice.left -= 1
            if choice.left > 0:
                self._compute(choice.name, transposed, x, out)
            else:
                self._review(choice, x, out)
        except (CompilerUnavailable, _Refused):  # nothing has been written
            self._choices.clear()  # the next choice leaves out the engine that refuses now
            self.multiply(transposed, x, out)

    def _compute(self, name: str, transposed: bool, x: Array, out: Array) -> None:
        """Write a product by one engine."""
        bound = self.bound(name, x.dtype)
        if self._plain[name]:
            (bound.transpose if transposed else bound.forward)(x, out)
        else:
            quietly(self._multiply_by, name, bound, transposed, x, out)

    def _first_choice(self, transposed: bool, dtype: np.dtype[Any], batch: int) -> Choice:
        """Return what to begin with."""
        choice = self._new_choice(transposed, dtype, batch)
        estimates = self._plan(choice)[1]
        if self._look_at_machine(next(estimate.seconds for estimate in estimates if estimate.chosen)):
            estimates = self._plan(choice)[1]
        choice.begin(estimates, self.ledger)
        return choice

    def _review(self, choice: Choice, x: Array, out: Array) -> None:
        """Write a product, time it, and find out whether another engine should compute the next ones."""
        if not choice.lock.acquire(blocking=False):  # another thread is at it
            self._compute(choice.name, choice.kind.transposed, x, out)
            return
        try:
            name, measured = choice.name, self.plans.measured[choice.kind]
            seconds = self._seconds(partial(self._compute, name, choice.kind.transposed, x, out))
            if name not in measured:
                self.ledger.compare(choice.estimate(), choice.kind.dtype, seconds)
            measured[name] = smooth(measured.get(name), seconds)
            choice.count(measured[name], self.ledger)
            self._look_at_machine(0.0)
            seen, estimates = self._plan(choice)
            rival = next_trial(estimates, seen)
            if rival is not None:
                self._try(choice, rival, x, out)
                _, estimates = self._plan(choice, rival)
            choice.schedule(estimates, self.ledger)
        finally:
            choice.lock.release()

    def _try(self, choice: Choice, rival: str, x: Array, out: Array) -> None:
        """Time another engine beside the one in use, which computes last, so that its result is the one that remains."""
        measured = self.plans.measured[choice.kind]
        own, other = (partial(self._compute, name, choice.kind.transposed, x, out) for name in (choice.name, rival))
        spent, own_times, other_times = 0.0, [measured[choice.name]], [inf]
        try:
            spent = self._seconds(other)  # with all that it has to prepare
            other_times.append(spent if _CLEAR * spent < own_times[0] else self._seconds(other))
            while len(own_times) < _ROUNDS and sum(own_times) < _TRIAL:
                if not 1 / _CLEAR < min(other_times) / min(own_times) < _CLEAR:
                    break
                own_times.append(self._seconds(own))
                other_times.append(self._seconds(other))
        except (CompilerUnavailable, _Refused, MemoryError):
            other_times = [inf]
        own_times.append(self._seconds(own))
        measured[choice.name], measured[rival] = min(own_times), min(other_times)
        choice.note_trial(rival, spent + sum(own_times[1:] + other_times[2:]))

    def _seconds(self, run: Callable[[], None]) -> float:
        """Return the time of a call."""
        self._wait()
        start = perf_counter()
        run()
        self._wait()
        return max(perf_counter() - start, _TICK)

    def _multiply_by(self, name: str, bound: Bound, transposed: bool, x: Array, out: Array) -> None:
        """Write a product by one engine: pad if the engine does not, and clear results that read nothing."""
        if self.pads[name]:
            self._pad_and_multiply(bound, transposed, x, out)
        else:
            (bound.transpose if transposed else bound.forward)(x, out)
        if not self.engines[name].local:
            self._clear_empty_rows(transposed, out)

    def _clear_empty_rows(self, transposed: bool, out: Array) -> None:
        """Set results that read nothing to 0: their row has no nonzero on some axis."""
        if transposed not in self._empty:
            self._empty[transposed] = [axis.empty_rows(transposed) for axis in self.geometry.axes]
        for axis, rows in enumerate(self._empty[transposed]):
            if rows.size:
                out[(slice(None),) * (2 + axis) + (rows,)] = 0

    def _pad_and_multiply(self, bound: Bound, transposed: bool, x: Array, out: Array) -> None:
        """Multiply by W = V·P or by Wᵀ = Pᵀ·Vᵀ with an engine that computes V."""
        outer, inner = self.geometry, self.geometry.padded
        between = self.arrays.empty((len(x), outer.in_channels, *inner.spatial_input), x.dtype)
        if transposed:
            bound.transpose(x, between)
            fold(between, outer, out)
        else:
            pad(x, outer, between)
            bound.forward(between, out)
