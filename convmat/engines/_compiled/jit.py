"""Compiles one variant of a function at a time, or loads it from the disk. Imports numba; import it late.

The module `loader` guards what is here. numba's own cache is not used: its files are told apart by their places in an
index, which processes that compile at the same time give away twice. What is used of numba beyond its documented names is
what its cache uses; where a numba has changed that, functions are compiled anew in each process.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from operator import attrgetter
from secrets import token_hex
from typing import Any, cast

import numba
import numpy as np
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from convmat.engines._compiled import codecache

# Whoever holds it compiles. What numba has inside is C's own, so that no interrupt comes between its being acquired and
# the block that it guards.
lock: Any = getattr(global_compiler_lock, "_lock", global_compiler_lock)
# Settings that change what is compiled.
_OPTIONS = "OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE"


def compile_loop(dispatcher: Any, signature: str, name: str, variant: str) -> Callable[..., None]:
    """Return a function for one signature; calling it compiles nothing, whatever it is given.

    Parameters
    ----------
    dispatcher : numba dispatcher
        The function.
    signature : str
        As numba writes it.
    name, variant : str
        Those of the function and of the signature, on the disk.
    """
    own = dispatcher._cache
    dispatcher._cache = _Disk(name, variant)
    try:
        entry: Callable[..., None] = dispatcher.compile(signature)
        return entry
    finally:
        dispatcher._cache = own  # for other signatures, which have files of their own


def compile_tile(itemsize: int, rows: int, vectors: int, banded: int) -> Any:
    """Return `simd.tile_product` of one shape as a C function, after it has multiplied a known pattern.

    Raises
    ------
    ArithmeticError
        If the product is wrong.
    """
    from convmat.engines._compiled import simd

    shape = itemsize, rows, vectors, banded
    tile = simd.define_tile(*shape)
    # Symbols of one process are told apart by their names, also those that other processes have compiled.
    tile.__qualname__ = f"tile_{'_'.join(map(str, shape))}_{token_hex(8)}"
    signature = numba.void(*(numba.intp,) * 6)

    def accepts(result: Any) -> bool:
        code, description = attrgetter("library", "fndesc")(result)
        return multiplies_right(code.get_pointer_to_function(description.llvm_cfunc_wrapper_name), *shape)

    disk = _Disk("simd.tile_product", "x".join(map(str, shape)), accepts)
    compiled = _compile_callback(tile, signature, disk)
    if not multiplies_right(compiled.address, *shape):
        raise ArithmeticError(f"a compiled product of shape {shape} is wrong")
    return compiled


def _compile_callback(function: Callable[..., None], signature: Any, disk: _Disk) -> Any:
    """Return a C function of numba, from the disk if it is there."""
    try:
        from numba.core.ccallback import CFunc

        callback = cast(Any, CFunc)(function, (signature.args, signature.return_type), {}, {"nopython": True})
        callback._cache = disk
    except (ImportError, AttributeError, TypeError):
        return cast(Any, numba).cfunc(signature, nopython=True)(function)
    callback.compile()
    return callback


def multiplies_right(address: int, itemsize: int, rows: int, vectors: int, banded: int) -> bool:
    """Tell whether a compiled tile multiplies a pattern of small integers as it should, and writes nothing beside it."""
    import ctypes

    from convmat.engines._compiled.simd import VECTOR_BYTES, row_spans

    dtype, width = np.dtype(f"f{itemsize}"), VECTOR_BYTES // itemsize * vectors
    spans = row_spans(rows, banded)
    counts = np.arange(len(spans)) % 2 + 1
    k = int(counts.sum())
    takes_part = np.repeat([[first <= row < last for row in range(rows)] for first, last in spans], counts, axis=0)
    a = (np.arange(k * rows).reshape(k, rows) % 7 - 2).astype(dtype)
    starts = np.arange(k)[::-1] * 3
    b = (np.arange(width + 3 * k) % 11 - 4).astype(dtype)
    c = np.full((rows, width + 1), 99, dtype)
    expected = c.copy()
    expected[:, :-1] = np.where(takes_part, a, 0).T @ np.stack([b[start : start + width] for start in starts])
    offsets = starts * itemsize
    tile = ctypes.CFUNCTYPE(None, *(ctypes.c_ssize_t,) * 6)(address)
    tile(*(array.ctypes.data for array in (a, b, offsets, counts, c)), c.strides[0])
    return np.array_equal(c, expected)


class _Disk:
    """What numba asks for compiled code, and hands it to; an error here never reaches numba."""

    cache_path = None

    def __init__(self, function: str, variant: str, accepts: Callable[[Any], bool] = lambda result: True) -> None:
        self._name, self._accepts = (function, variant), accepts
        self._sources: str | None = None
        with suppress(OSError):
            self._sources = codecache.digest_sources()

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the code if it is on the disk, else None."""
        with suppress(Exception):
            if self._sources is None:
                return None
            from numba.core.compiler import CompileResult

            target_context.refresh()
            for code in codecache.read(*self._name, self._sources, _target()):
                with suppress(Exception):
                    result = cast(Any, CompileResult)._rebuild(target_context, *pickle.loads(code))
                    if self._accepts(result):
                        return result
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep code on the disk, unless its sources have changed meanwhile or it holds addresses of this process."""
        with suppress(Exception):
            if attrgetter("library.has_dynamic_globals")(result) or codecache.digest_sources() != self._sources:
                return
            from numba.core.serialize import dumps

            code = cast(Any, dumps)(result._reduce())
            codecache.write(*self._name, self._sources, _target(), code)


@cache
def _target() -> str:
    """Return what code depends on besides its sources: versions, processor, and options of numba."""
    import llvmlite

    versions = numba.__version__, llvmlite.__version__, sys.implementation.cache_tag
    options = [f"{name}={getattr(numba.config, name, None)}" for name in _OPTIONS]
    return "\n".join(map(str, (*versions, *cpu_target.target_context.codegen().magic_tuple(), *options)))
