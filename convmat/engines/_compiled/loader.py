"""Compiled code for the engines: whether it can be had, how long that takes to begin with, and the one way to get it.

Nothing is compiled but what is asked for here, one variant at a time, so that products only call. Where compiled code
cannot be had, `refusal` says why, and goes on to say so after a failure: then products are planned without it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convmat._messages import scaled
from convmat._runtime import undisturbed
from convmat.engines._compiled import codecache

# Seconds until compiled loops can be called: to import numba, to load them from the disk's cache, and at the very first.
IMPORTING, LOADING, COMPILING = 0.2, 0.25, 3.0
# Bytes that importing numba and compiling need of a limited address space, twice as much as measured: LLVM aborts the
# process where they are missing.
_TO_IMPORT, _TO_COMPILE = 480 << 20, 200 << 20

_loaded: dict[tuple[str, str], Any] = {}  # by function and variant
_failures: list[str] = []  # why there is no compiled code in this process; the first one counts


class CompilerUnavailable(RuntimeError):
    """Compiled code cannot be had. The message is the reason, to be read after a colon."""


def refusal() -> str | None:
    """Return the sentence why compiled code cannot be had, or None. Imports nothing."""
    if _failures:
        return _failures[0]
    if not _is_installed():
        return 'numba is not installed; pip install "convmat[fast]"'
    if _is_disabled():
        return "NUMBA_DISABLE_JIT is set"
    return _lack_of_memory()


def seconds_to_load(engine: str, function: str, *dtypes: str) -> float:
    """Return about the seconds until `load_loop` returns a function; for one that is loaded, 0."""
    name, variant = f"{engine}.{function}", "-".join(dtypes)
    if (name, variant) in _loaded:
        return 0.0
    importing = 0.0 if "numba" in sys.modules else IMPORTING
    return importing + (LOADING if codecache.has_variant(name, variant) else COMPILING)


def load_loop(engine: str, function: str, *dtypes: str) -> Callable[..., None]:
    """Return a compiled loop of an engine for arrays of given dtypes.

    Parameters
    ----------
    engine, function : str
        Name of the engine, and of the function in its module `loops`.
    dtypes : str
        Those that its signature in the module's `SIGNATURES` has places for.

    Raises
    ------
    CompilerUnavailable
        If it cannot be had.
    """
    name, variant = f"{engine}.{function}", "-".join(dtypes)

    def load(jit: Any) -> Any:
        loops = import_module(f"convmat.engines._{engine}.loops")
        return jit.compile_loop(getattr(loops, function), loops.SIGNATURES[function].format(*dtypes), name, variant)

    loop: Callable[..., None] = _load(name, variant, load)
    return loop


def load_tile(itemsize: int, rows: int, vectors: int, banded: int) -> int:
    """Return the address of the compiled `simd.tile_product` of one shape; it is valid as long as the process lives."""
    shape = itemsize, rows, vectors, banded
    variant = "x".join(map(str, shape))
    tile = _load("simd.tile_product", variant, lambda jit: jit.compile_tile(*shape))
    address: int = tile.address
    return address


def vector_unit() -> tuple[int, int]:
    """Return the bytes of a vector register and the number of them."""

    def load(jit: Any) -> tuple[int, int]:
        from convmat.engines._compiled.simd import REGISTERS, VECTOR_BYTES

        return VECTOR_BYTES, REGISTERS

    found: tuple[int, int] = _load("simd", "registers", load)
    return found


def _load(name: str, variant: str, load: Callable[[Any], Any]) -> Any:
    """Return what is loaded once, by one thread at a time, and remember why it fails, if it does."""
    key = name, variant
    if key in _loaded:
        return _loaded[key]
    _raise_refusal()
    try:
        with undisturbed(), _quiet_numba():  # a forked child could go on neither with an import nor with a compiler
            from convmat.engines._compiled import jit
        _raise_refusal()  # numba's file of settings, which has been read now, may disable it too
        with undisturbed(), jit.lock:
            if key not in _loaded:
                with _quiet_numba():
                    _loaded[key] = load(jit)
    except CompilerUnavailable:
        raise
    except Exception as error:  # whatever it is, there are engines that do without
        lines = str(error).strip().splitlines() or [""]
        reason = f"numba fails: {type(error).__name__}: {lines[0]}".rstrip(" :.")
        _failures.append(reason)
        raise CompilerUnavailable(reason) from error
    return _loaded[key]


def _raise_refusal() -> None:
    reason = refusal()
    if reason is not None:
        raise CompilerUnavailable(reason)


@contextmanager
def _quiet_numba() -> Iterator[None]:
    """Keep warnings of numba from its user, and from being errors: nobody but us can do anything about them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(numba|llvmlite)(\.|$)")
        # Where numba says that code is slow:
        warnings.filterwarnings("ignore", module=r"convmat\.engines\.|.*/convmat/engines/")
        yield


def _is_installed() -> bool:
    """Tell whether there is something to import."""
    try:
        return find_spec("numba") is not None
    except ValueError:  # it is there, but not from a file
        return True


def _is_disabled() -> bool:
    """Tell whether numba compiles nothing: as its settings say, or the environment before they are read."""
    config = getattr(sys.modules.get("numba"), "config", None)
    setting = getattr(config, "DISABLE_JIT", os.environ.get("NUMBA_DISABLE_JIT", "0"))
    try:
        return bool(int(setting))
    except ValueError:
        return False


def _lack_of_memory() -> str | None:
    """Return the sentence that memory is limited too tightly to compile, or None."""
    try:
        import resource
    except ImportError:
        return None
    to_map = _TO_COMPILE if "llvmlite.binding" in sys.modules else _TO_IMPORT
    limits = [
        ("address space", resource.getrlimit(resource.RLIMIT_AS)[0], to_map, 0),
        ("data segment", resource.getrlimit(resource.RLIMIT_DATA)[0], _TO_COMPILE, 5),
    ]
    for name, limit, needed, field in limits:
        if limit == resource.RLIM_INFINITY:
            continue
        room = max(0, limit - _pages_in_use(field) * resource.getpagesize())
        if room < needed:
            return f"the {name} is limited: it has {scaled(room, 'B')} left, and compiling needs {scaled(needed, 'B')}"
    return None


def _pages_in_use(field: int) -> int:
    """Return a number of this process' memory pages, by its place in what the system tells, where it does."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[field])
    return 0
