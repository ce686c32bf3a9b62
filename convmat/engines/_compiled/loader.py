"""Compiled code for the engines: whether it can be had, how long that takes to begin with, and the one way to get it.

Nothing is compiled but what is asked for here, one variant at a time, so that products only call. Where compiled code
cannot be had, `refusal` says why, and goes on to say so after a failure: then products are planned without it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from convmat._messages import scaled
from convmat._runtime import undisturbed
from convmat.engines._compiled import codecache

# A function with the name of its module, and a variant of it, in which * stands for anything; or "import", and a module.
Code = tuple[str, str]

# Seconds, on processors of 2026: to import a module, to import numba, to begin with it, to load a piece from the disk,
_MODULE, _IMPORTING, _BEGINNING, _LOADING = 0.05, 0.25, 0.25, 0.02
# to begin with compiling, and to compile.
_FIRST = 0.8
_COMPILING = {"simd.tile_product": 0.15, "taps.run_tasks": 2.0}
_COMPILING |= {"winograd.run_tasks_of_2": 2.0, "winograd.run_tasks_of_4": 2.5}
_OTHERS = 0.5
# Code that lies on the disk has been worth compiling. So it is loaded after a part of the time that it would have to save.
_PROMISE = 1 / 8
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


class Loading(NamedTuple):
    """What it takes until code can be called.

    Attributes
    ----------
    seconds : float
        About how long that takes.
    threshold : float
        How many seconds the code should have saved before it is loaded.
    compiles : bool
        Whether some of it must be compiled.
    """

    seconds: float
    threshold: float
    compiles: bool


NO_LOADING = Loading(0.0, 0.0, False)


def loop_code(engine: str, function: str, *dtypes: str) -> Code:
    """Return what `load_loop` loads."""
    return f"{engine}.{function}", "-".join(dtypes)


def tile_code(itemsize: int, *shape: int) -> Code:
    """Return what `load_tile` loads; without `shape` (rows, vectors, banded), any of them."""
    return "simd.tile_product", "x".join(map(str, (itemsize, *(shape or "*"))))


def module_code(name: str) -> Code:
    """Return what importing a module loads."""
    return "import", name


def is_loaded(code: Code) -> bool:
    """Tell whether code can be called."""
    if code[0] == "import":
        return code[1] in sys.modules
    return code in _loaded or any(name == code[0] and fnmatchcase(variant, code[1]) for name, variant in list(_loaded))


def estimate_loading(codes: Iterable[Code]) -> Loading:
    """Return what it takes until all of some code can be called; if it is loaded, nothing. Imports nothing."""
    missing = [code for code in codes if not is_loaded(code)]
    modules = _MODULE * sum(name == "import" for name, _ in missing)
    missing = [code for code in missing if code[0] != "import"]
    if not missing:
        return Loading(modules, modules, False)
    compiled = [name for name, variant in missing if not codecache.has_variant(name, variant)]
    seconds = 0.0 if "numba" in sys.modules else _IMPORTING
    seconds += 0.0 if _loaded else _BEGINNING
    seconds += _LOADING * (len(missing) - len(compiled)) + (_FIRST if compiled and not _loaded else 0.0)
    seconds += sum(_COMPILING.get(name, _OTHERS) for name in compiled)
    return Loading(modules + seconds, modules + seconds * (1 if compiled else _PROMISE), bool(compiled))


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
    name, variant = loop_code(engine, function, *dtypes)

    def load(jit: Any) -> Any:
        loops = import_module(f"convmat.engines._{engine}.loops")
        return jit.compile_loop(getattr(loops, function), loops.SIGNATURES[function].format(*dtypes), name, variant)

    loop: Callable[..., None] = _load(name, variant, load)
    return loop


def load_tile(itemsize: int, rows: int, vectors: int, banded: int) -> int:
    """Return the address of the compiled `simd.tile_product` of one shape; it is valid as long as the process lives."""
    shape = itemsize, rows, vectors, banded
    tile = _load(*tile_code(*shape), lambda jit: jit.compile_tile(*shape))
    address: int = tile.address
    return address


def load_code(code: Code) -> None:
    """Load a loop or a tile, or compile it."""
    name, variant = code
    if name == "simd.tile_product":
        load_tile(*map(int, variant.split("x")))
    else:
        load_loop(*name.split("."), *variant.split("-"))


def is_kept(code: Code) -> bool:
    """Tell whether code lies on the disk."""
    return codecache.has_variant(*code, now=True)


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
    """Tell whether there is something to import. Finding it takes longer than many a product, and is done once."""
    return sys.modules["numba"] is not None if "numba" in sys.modules else _can_be_found()


@cache
def _can_be_found() -> bool:
    return find_spec("numba") is not None


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
