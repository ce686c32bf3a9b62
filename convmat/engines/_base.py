"""What an engine is: a way to compute V x and Vᵀ y.

An engine knows neither dtypes' rules nor batches' layouts nor conjugation; the operator does that once. It is given a
geometry whose padding it does itself: the operator's own where the padding mode is among `Engine.pads`, else that of the
convolution V of the padded input, without padding.

What an engine's estimate counts with stands in `_Estimate` at the head of its module: each constant with its unit and
meaning. They are of 2026-11, from times of products on one machine, and no script fits them.
`python -m benchmarks.peers --regret` measures how near the estimates are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

import numpy as np

from convmat._runtime import new_lock, quietly
from convmat.engines._compiled.loader import Code
from convmat.engines._machine import Machine
from convmat.geometry import Array, ConvolutionGeometry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a product is estimated to cost.

    Attributes
    ----------
    flops, bytes : float
        Arithmetic and memory traffic of one product.
    seconds : float
        Time of one product.
    setup : float
        Seconds to prepare, once for the kernel, apart from compiled code.
    state : float
        Bytes kept between products.
    code : tuple of Code
        The compiled code that it needs.
    """

    flops: float
    bytes: float
    seconds: float
    setup: float
    state: float
    code: tuple[Code, ...] = ()


class PerDirection(Generic[T]):
    """What a direction needs, made once, when it is first used; safe to share between threads.

    It does not hold what makes it: that would be a cycle, which keeps a large matrix in memory for longer.
    """

    def __init__(self) -> None:
        self._made: dict[bool, T] = {}
        self._lock = new_lock()

    def get(self, transposed: bool, make: Callable[[bool], T]) -> T:
        """Return what a direction needs, from `make` if it is the first time."""
        if transposed not in self._made:
            with self._lock:
                if transposed not in self._made:
                    self._made[transposed] = quietly(make, transposed)
        return self._made[transposed]


def address(array: Array) -> int:
    """Return where an array's first element lies; whoever uses that has to hold the array meanwhile."""
    first: int = array.__array_interface__["data"][0]
    return first


class Scratch:
    """Memory that products use again, so that it need not be asked of the system each time.

    Parameters
    ----------
    dtype : dtype
        Of its elements.
    count : int
        How many arrays are kept, one for each thread of a product; more may be in use at once.
    """

    def __init__(self, dtype: np.dtype[Any], count: int) -> None:
        self._dtype = dtype
        self._free: deque[Array] = deque(maxlen=count)

    def take(self, size: int) -> Array:
        """Return an array of so many elements or more, of any values; nobody else has it until it is given back."""
        try:
            array = self._free.pop()
        except IndexError:
            return np.zeros(size, self._dtype)
        return array if array.size >= size else np.zeros(size, self._dtype)

    def give_back(self, array: Array) -> None:
        """Keep an array for the next product."""
        self._free.append(array)


class Bound(Protocol):
    """An engine with its kernel: computes products of C-contiguous arrays of the kernel's dtype.

    Both methods overwrite all of `out`, which comes uninitialised, and may be called from several threads at once.
    """

    def forward(self, x: Array, out: Array) -> None:
        """Convolve ``x`` (B, C_in, *input) into ``out`` (B, C_out, *output)."""

    def transpose(self, y: Array, out: Array) -> None:
        """Apply the transpose, never conjugated: ``y`` (B, C_out, *output) into ``out`` (B, C_in, *input)."""


class Engine(Protocol):
    """One way to compute products; stateless."""

    name: str
    pads: frozenset[str]  # padding modes that it takes natively
    automatic: bool  # whether ``engine="auto"`` may pick it
    silent: bool  # whether its products compute with nothing that NumPy warns of
    local: bool  # whether an input reaches no output but those that read it, not even by rounding errors

    def refuses(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> str | None:
        """Return the sentence that tells the user why not, or None."""

    def estimate(
        self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], batch: int, transposed: bool, machine: Machine
    ) -> Cost:
        """Return what a product of `batch` arrays costs."""

    def prepare(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], workers: int) -> Any:
        """Return what depends on the geometry alone; kept while kernels change."""

    def bind(self, plan: Any, kernel: Array) -> Bound:
        """Return the engine for one kernel, C-contiguous and of shape (C_out, C_in // groups, *k)."""


class SelectiveEngine(Engine, Protocol):
    """An engine that also depends on the values of the kernel."""

    def refuses_values(self, kernel: Array) -> str | None:
        """Return the sentence that tells the user why not with a kernel as `bind` takes it, or None."""


class CompiledEngine(Engine, Protocol):
    """An engine whose products call compiled code."""

    def load(self, plan: Any) -> None:
        """Load all that products by a plan call, or compile it."""

    def all_code(self, number: np.dtype[Any]) -> list[Code]:
        """Return all code of the engine for float32 or float64."""


# Asking a protocol itself would take longer than many a product.
def is_selective(engine: Engine) -> TypeGuard[SelectiveEngine]:
    """Tell whether an engine depends on the values of the kernel."""
    return hasattr(engine, "refuses_values")


def is_compiled(engine: Engine) -> TypeGuard[CompiledEngine]:
    """Tell whether an engine's products call compiled code."""
    return hasattr(engine, "all_code")


# Why an engine cannot use the values of a kernel, or None.
ValuesRefusal = Callable[[SelectiveEngine], str | None]


def own_geometry(engine: Engine, geometry: ConvolutionGeometry) -> ConvolutionGeometry:
    """Return the geometry that an engine computes: W's, or that of V if it does not do this padding itself."""
    return geometry if geometry.padding_mode in engine.pads else geometry.padded


def find_refusal(
    engine: Engine, geometry: ConvolutionGeometry, dtype: np.dtype[Any], local: bool, refuses_values: ValuesRefusal
) -> str | None:
    """Return why an engine cannot compute products of a dtype with W, or None; the kernel is looked at last."""
    refusal = engine.refuses(own_geometry(engine, geometry), dtype)
    if refusal is None and local and not engine.local:
        refusal = "one input reaches outputs that do not read it, which local=True rules out"
    if refusal is None and is_selective(engine):
        refusal = refuses_values(engine)
    return refusal
