"""Products of one kernel with one geometry on the device: which engine, prepared how, and padding around it."""

from __future__ import annotations

from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import cupy
import numpy as np

from convmat.cupy.arrays import Array
from convmat.cupy.device import Device, describe
from convmat.cupy.engines import ENGINES
from convmat.dtypes import flip_spatial
from convmat.engines.base import Bound
from convmat.geometry import ConvolutionGeometry
from convmat.padding import fold, pad
from convmat.planner import Estimate, plan


class Products:
    """A kernel, its geometry and its engines: what an operator shares with its transpose and its conjugate."""

    def __init__(
        self,
        geometry: ConvolutionGeometry,
        kernel: Array,
        flip: bool,
        engine: str,
        plans: dict[tuple[str, np.dtype[Any]], Any] | None = None,
    ) -> None:
        self.geometry, self.flip, self.engine = geometry, flip, engine
        self.kernel = kernel.copy()
        self.plans = {} if plans is None else plans
        self._bound: dict[tuple[str, np.dtype[Any]], Bound] = {}
        self._chosen: dict[tuple[bool, np.dtype[Any], int], str] = {}
        self.family: WeakValueDictionary[tuple[bool, bool], Any] = WeakValueDictionary()
        self._lock = Lock()

    @property
    def machine(self) -> Device:
        """The figures of the device that holds the kernel."""
        return describe(self.kernel.device.id)

    def estimates(self, transposed: bool, dtype: np.dtype[Any], batch: int) -> tuple[Estimate, ...]:
        """Return what every engine is estimated to cost."""
        return plan(self.geometry, dtype, batch, transposed, self.machine, ENGINES)

    def choose(self, transposed: bool, dtype: np.dtype[Any], batch: int) -> str:
        """Return the name of the engine for a product, remembered by direction, dtype and batch."""
        if self.engine != "auto":
            return self.engine
        key = transposed, dtype, batch
        if key not in self._chosen:
            estimates = self.estimates(*key)
            self._chosen[key] = next(estimate.engine for estimate in estimates if estimate.chosen)
        return self._chosen[key]

    def bound(self, name: str, dtype: np.dtype[Any]) -> Bound:
        """Return an engine with the kernel in a dtype."""
        key = name, dtype
        with self._lock:
            if key not in self._bound:
                self._bound[key] = self._bind(name, dtype)
            return self._bound[key]

    def _bind(self, name: str, dtype: np.dtype[Any]) -> Bound:
        engine, geometry = ENGINES[name], self.engine_geometry(name)
        if (name, dtype) not in self.plans:
            self.plans[name, dtype] = engine.prepare(geometry, dtype, 1)
        kernel = flip_spatial(self.kernel, len(geometry.axes)) if self.flip else self.kernel
        shape = (geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.spatial_kernel)
        return engine.bind(self.plans[name, dtype], cupy.ascontiguousarray(kernel, dtype).reshape(shape))

    def engine_geometry(self, name: str) -> ConvolutionGeometry:
        """Return the geometry that an engine computes: W's, or that of V if it does not pad itself."""
        return self.geometry if self.geometry.padding_mode in ENGINES[name].pads else self.geometry.padded

    def multiply(self, transposed: bool, x: Array, out: Array) -> None:
        """Write the product of arrays (B, C, *spatial), all C-contiguous and of one dtype."""
        if not len(x):
            return
        name = self.choose(transposed, x.dtype, len(x))
        bound = self.bound(name, x.dtype)
        outer, inner = self.geometry, self.engine_geometry(name)
        if inner is outer or not any(map(any, outer.padding)):
            (bound.transpose if transposed else bound.forward)(x, out)
            return
        between = cupy.empty((len(x), outer.in_channels, *inner.spatial_input), x.dtype)
        if transposed:
            bound.transpose(x, between)
            fold(between, outer, out)
        else:
            pad(x, outer, between)
            bound.forward(between, out)


def check_options(flip: object, engine: object, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> None:
    """Raise unless the engine exists and does the convolution."""
    if not isinstance(flip, bool | np.bool_):
        raise TypeError(f"flip must be a bool, got {flip!r}")
    if not isinstance(engine, str):
        raise TypeError(f"engine must be a str, got {engine!r}")
    if engine == "auto":
        return
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of auto, {', '.join(ENGINES)} on the device, got {engine!r}")
    own = geometry if geometry.padding_mode in ENGINES[engine].pads else geometry.padded
    refusal = ENGINES[engine].refuses(own, dtype)
    if refusal is not None:
        raise ValueError(f"engine={engine!r} cannot do this convolution: {refusal}")
