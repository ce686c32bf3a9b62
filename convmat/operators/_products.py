"""Products with V or W for one kernel and geometry: they choose an engine, prepare it, and pad around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

import numpy as np

from convmat._messages import NO_MEANINGS, choose
from convmat._runtime import new_lock, quietly
from convmat.engines import (
    Bound,
    CompilerUnavailable,
    Engine,
    Estimate,
    Machine,
    SelectiveEngine,
    find_refusal,
    fold,
    own_geometry,
    pad,
    plan,
)
from convmat.geometry import ConvolutionGeometry, check_bool, flip_spatial

Array = Any  # of NumPy or CuPy

_NONE = -1, ""  # no engine is chosen yet


class _Refused(ValueError):
    """An engine's refusal at a product: of its dtype, or because compiled code can no longer be loaded."""


class Plans:
    """What the engines prepare from a geometry, made once and shared by the products of all kernels."""

    def __init__(self) -> None:
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
    used: ClassVar[set[str]]  # engines used in this process: their compiled code is loaded

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
        self._chosen: dict[tuple[bool, np.dtype[Any], int], tuple[int, str]] = {}
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

    @staticmethod
    def _private(kernel: Array) -> Array:
        """Return a copy of the kernel, which the caller cannot change."""
        return kernel.copy()

    def _check(self, name: str) -> None:
        """Raise if the engine can compute no product. An integer kernel is tried as float64: it may multiply floats."""
        dtype = np.dtype(np.float64) if self.kernel.dtype.kind in "iu" else self.kernel.dtype
        refusal = self._refusal(name, dtype)
        if refusal is not None:
            raise ValueError(f"engine={name!r} cannot do this convolution: {refusal}")

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
        """Return the estimated cost of every engine, and remember the chosen one."""
        used = len(self.used)
        values = partial(self._refuses_values, dtype)
        estimates = plan(self.geometry, dtype, batch, transposed, self.machine, self.engines, values, self.local)
        chosen = next(estimate.engine for estimate in estimates if estimate.chosen)
        self._chosen[transposed, dtype, batch] = used, chosen
        return estimates

    def choose(self, transposed: bool, dtype: np.dtype[Any], batch: int) -> str:
        """Return the name of the engine for a product, remembered by direction, dtype and batch.

        The choice is made again after another engine has been used: loaded compiled code costs nothing any more.
        """
        if self.engine != "auto":
            return self.engine
        key = transposed, dtype, batch
        used, name = self._chosen.get(key, _NONE)
        if used != len(self.used):
            self.estimates(transposed, dtype, batch)
            _, name = self._chosen[key]
        return name

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
        name = self.choose(transposed, x.dtype, len(x))
        try:
            bound = self.bound(name, x.dtype)
            if self._plain[name]:
                (bound.transpose if transposed else bound.forward)(x, out)
            else:
                quietly(self._multiply_by, name, bound, transposed, x, out)
        except (CompilerUnavailable, _Refused) as error:  # nothing has been written
            if self.engine != "auto":
                kind = ValueError if isinstance(error, _Refused) else CompilerUnavailable
                raise kind(f"engine={name!r} cannot do this product: {error}") from error
            self._chosen.clear()  # the next choice leaves out the engine that refuses now
            self.multiply(transposed, x, out)
        else:
            self.used.add(name)

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
