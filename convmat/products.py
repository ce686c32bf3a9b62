"""Products of one kernel with one geometry: which engine, prepared how, and padding around it."""

from __future__ import annotations

from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from convmat.assembly import memory_limit
from convmat.dtypes import Array, flip_spatial
from convmat.engines import ENGINES, Bound, Machine, SelectiveEngine
from convmat.geometry import ConvolutionGeometry
from convmat.padding import fold, pad
from convmat.parallel import count_workers
from convmat.planner import Estimate, plan


class Products:
    """A kernel, its geometry and its engines: what an operator shares with its transpose and its conjugate."""

    def __init__(
        self,
        geometry: ConvolutionGeometry,
        kernel: Array,
        flip: bool,
        engine: str,
        workers: int | None,
        plans: dict[tuple[str, np.dtype[Any]], Any] | None = None,
    ) -> None:
        if not isinstance(flip, bool | np.bool_):
            raise TypeError(f"flip must be a bool, got {flip!r}")
        if not isinstance(engine, str):
            raise TypeError(f"engine must be a str, got {engine!r}")
        self.geometry, self.flip, self.engine, self.workers = geometry, bool(flip), engine, workers
        self.kernel = kernel.copy()
        self.kernel.flags.writeable = False
        self.machine = Machine(workers=count_workers(workers), memory=memory_limit())
        self.plans = {} if plans is None else plans
        # Whether padding is done around an engine: it is given V unless it pads itself.
        self.pads = {
            name: self.engine_geometry(name) is not geometry and any(map(any, geometry.padding)) for name in ENGINES
        }
        self._bound: dict[tuple[str, np.dtype[Any]], Bound] = {}
        self._chosen: dict[tuple[bool, np.dtype[Any], int], str] = {}
        self.family: WeakValueDictionary[tuple[bool, bool], Any] = WeakValueDictionary()
        self._lock = Lock()
        if engine != "auto":
            self._check(engine)

    def _check(self, name: str) -> None:
        """Raise unless the engine exists and does some product; of an integer kernel that may be one with floats."""
        if name not in ENGINES:
            raise ValueError(f"engine must be one of auto, {', '.join(ENGINES)}, got {name!r}")
        dtype = np.dtype(np.float64) if self.kernel.dtype.kind in "iu" else self.kernel.dtype
        refusal = self._refusal(name, dtype)
        if refusal is not None:
            raise ValueError(f"engine={name!r} cannot do this convolution: {refusal}")

    def _refusal(self, name: str, dtype: np.dtype[Any]) -> str | None:
        """Return why an engine cannot do products of a dtype, or None."""
        engine = ENGINES[name]
        refusal = engine.refuses(self.engine_geometry(name), dtype)
        if refusal is None and isinstance(engine, SelectiveEngine):
            refusal = engine.refuses_values(self._engine_kernel(dtype))
        return refusal

    def _engine_kernel(self, dtype: np.dtype[Any]) -> Array:
        """Return the kernel as engines take it."""
        geometry = self.geometry
        kernel = flip_spatial(self.kernel, len(geometry.axes)) if self.flip else self.kernel
        shape = (geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.spatial_kernel)
        return np.ascontiguousarray(kernel, dtype).reshape(shape)

    def plan(self, transposed: bool, dtype: np.dtype[Any], batch: int) -> tuple[Estimate, ...]:
        """Return the estimates for every engine."""
        selective = [name for name, engine in ENGINES.items() if isinstance(engine, SelectiveEngine)]
        values = {name: self._refusal(name, dtype) for name in selective}
        return plan(self.geometry, dtype, batch, transposed, self.machine, values=values)

    def choose(self, transposed: bool, dtype: np.dtype[Any], batch: int) -> str:
        """Return the name of the engine for a product, remembered by direction, dtype and batch."""
        if self.engine != "auto":
            return self.engine
        key = transposed, dtype, batch
        if key not in self._chosen:
            estimates = self.plan(transposed, dtype, batch)
            self._chosen[key] = next(estimate.engine for estimate in estimates if estimate.chosen)
        return self._chosen[key]

    def bound(self, name: str, dtype: np.dtype[Any]) -> Bound:
        """Return an engine with the kernel in a dtype."""
        key = name, dtype
        if key not in self._bound:
            with self._lock:
                if key not in self._bound:
                    self._bound[key] = self._bind(name, dtype)
        return self._bound[key]

    def _bind(self, name: str, dtype: np.dtype[Any]) -> Bound:
        refusal = self._refusal(name, dtype)
        if refusal is not None:
            raise ValueError(f"engine={name!r} cannot do this product: {refusal}")
        if (name, dtype) not in self.plans:
            self.plans[name, dtype] = ENGINES[name].prepare(self.engine_geometry(name), dtype, self.machine.workers)
        return ENGINES[name].bind(self.plans[name, dtype], self._engine_kernel(dtype))

    def engine_geometry(self, name: str) -> ConvolutionGeometry:
        """Return the geometry that an engine computes: W's, or that of V if it does not pad itself."""
        return self.geometry if self.geometry.padding_mode in ENGINES[name].pads else self.geometry.padded

    def multiply(self, transposed: bool, x: Array, out: Array) -> None:
        """Write the product of arrays (B, C, *spatial), all C-contiguous and of one dtype."""
        if not len(x):
            return
        name = self.choose(transposed, x.dtype, len(x))
        bound = self.bound(name, x.dtype)
        if not self.pads[name]:
            (bound.transpose if transposed else bound.forward)(x, out)
            return
        outer, inner = self.geometry, self.geometry.padded
        between = np.empty((len(x), outer.in_channels, *inner.spatial_input), x.dtype)
        if transposed:
            bound.transpose(x, between)
            fold(between, outer, out)
        else:
            pad(x, outer, between)
            bound.forward(between, out)
