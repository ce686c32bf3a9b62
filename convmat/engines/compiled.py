"""Whether compiled code can be called, and how long that takes to begin with."""

from __future__ import annotations

import os
import sys
from functools import cache
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path

# Seconds until compiled loops can be called: to import numba, to load them from the disk's cache, and at the very first.
IMPORTING, LOADING, COMPILING = 0.2, 0.25, 3.0


def has_numba() -> bool:
    """Tell whether numba is installed."""
    return find_spec("numba") is not None


def seconds_to_load(module: str, function: str) -> float:
    """Return the seconds until a compiled function of a module of this package can be called."""
    loaded = sys.modules.get(f"convmat.engines.{module}")
    if loaded is not None and getattr(loaded, function).signatures:
        return 0.0
    importing = 0.0 if "numba" in sys.modules else IMPORTING
    return importing + (LOADING if _is_cached(f"{module}.{function}") else COMPILING)


@cache
def _is_cached(name: str) -> bool:
    """Tell whether a function has been compiled before: numba leaves an index in its cache.

    That is ``NUMBA_CACHE_DIR`` if it is set, else beside the module, or the user's where this cannot be written.
    """
    here = Path(__file__).absolute().parent
    hashed = f"{here.name}_{sha1(str(here).encode(), usedforsecurity=False).hexdigest()}"
    if directory := os.environ.get("NUMBA_CACHE_DIR"):
        places = [Path(directory) / hashed]
    else:
        places = [here / "__pycache__", _user_cache() / hashed]
    return any(any(place.glob(f"{name}*.nbi")) for place in places)


def _user_cache() -> Path:
    """Return the user's cache of numba, which takes long to import."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", ""), "numba", "Cache")
    if sys.platform == "darwin":
        return Path("~/Library/Caches/numba").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "numba").expanduser()
