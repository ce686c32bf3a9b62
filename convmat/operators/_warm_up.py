"""Compiles before the first product what products call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convmat._runtime import count_workers, memory_limit, track
from convmat.engines import (
    ENGINES,
    Code,
    CompiledEngine,
    CompilerUnavailable,
    is_compiled,
    is_kept,
    load_code,
    own_geometry,
    refusal,
    this_machine,
)
from convmat.geometry import ConvolutionGeometry, as_dtype, check_bool
from convmat.operators._base import OperatorBase

_NUMBERS = np.dtype(np.float32), np.dtype(np.float64)  # what compiled code computes with, also for complex dtypes


def warm_up(
    *what: ConvolutionGeometry | OperatorBase, dtype: npt.DTypeLike | None = None, progress: bool = False
) -> bool:
    """Compile all code that products call, so that it lies on the disk for this process and all later ones.

    Without that, ``engine="auto"`` compiles code after it would have saved as much time as compiling takes. Call this
    where images and containers are built, with the processor that will run them.

    Parameters
    ----------
    *what : ConvolutionGeometry or operator of `convmat`
        The convolutions whose code to compile, for their products in both directions. By default all code there is, which
        takes about half a minute.
    dtype : dtype, optional
        That of the products; an operator's own by default, float64 for a geometry. Without convolutions, the code for
        float32 and float64 by default, which that for complex dtypes is, too.
    progress : bool
        Whether to show a bar with the time left, for which tqdm has to be installed.

    Returns
    -------
    bool
        Whether the disk keeps what has been compiled. If it does not, it is there for this process alone.

    Raises
    ------
    RuntimeError
        If nothing can be compiled: numba is not installed, is disabled or fails.
    TypeError
        If an argument is of a wrong type.

    See Also
    --------
    Convolution.explain : what is compiled so far, and when the rest would be.

    Examples
    --------
    >>> import convmat
    >>> geometry = convmat.ConvolutionGeometry((3, 3), (100, 100))
    >>> kept = convmat.warm_up(geometry, dtype="float32")  # doctest: +SKIP
    """
    check_bool("progress", progress)
    wanted = None if dtype is None else as_dtype(dtype)
    for each in what:
        if not isinstance(each, ConvolutionGeometry | OperatorBase):
            raise TypeError(f"what to warm up must be a ConvolutionGeometry or an operator, got {type(each).__name__}")
    if (reason := refusal()) is not None:
        raise RuntimeError(f"no code can be compiled: {reason}")
    steps = [step for each in what for step in _steps_of(each, wanted)] if what else _all_steps(wanted)
    for step in track(steps, "compiling", progress):
        try:
            step.load()
        except CompilerUnavailable as error:
            raise RuntimeError(f"no code can be compiled: {error}") from error
    return all(is_kept(code) for step in steps for code in step.code)


class _Step(NamedTuple):
    """What loads or compiles some code."""

    load: Callable[[], object]
    code: Iterable[Code]


def _all_steps(dtype: np.dtype[Any] | None) -> list[_Step]:
    """Return a step for each piece of code."""
    numbers = _NUMBERS if dtype is None else [np.empty(0, dtype).real.dtype]
    codes = dict.fromkeys(code for engine in _compiled_engines() for each in numbers for code in engine.all_code(each))
    return [_Step(partial(load_code, code), [code]) for code in codes]


def _steps_of(what: ConvolutionGeometry | OperatorBase, dtype: np.dtype[Any] | None) -> Iterator[_Step]:
    """Yield a step for each engine that can compute a convolution."""
    geometry, own = (what, np.dtype(float)) if isinstance(what, ConvolutionGeometry) else (what.geometry, what.dtype)
    dtype = own if dtype is None else np.result_type(own, dtype) if isinstance(what, OperatorBase) else dtype
    machine = this_machine(count_workers(None), memory_limit())
    for engine in _compiled_engines():
        geometry_of_engine = own_geometry(engine, geometry)
        if engine.refuses(geometry_of_engine, dtype) is None:
            cost = engine.estimate(geometry_of_engine, dtype, 1, False, machine)
            plan = engine.prepare(geometry_of_engine, dtype, machine.workers)
            yield _Step(partial(engine.load, plan), cost.code)


def _compiled_engines() -> list[CompiledEngine]:
    return [engine for engine in ENGINES.values() if is_compiled(engine)]
