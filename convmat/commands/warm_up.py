"""Compiles what products call, before anyone waits for it."""

from __future__ import annotations

import sys
from time import perf_counter

from convmat import warm_up
from convmat._messages import scaled
from convmat.commands._console import CommandError, unusable


def run(dtype: str | None) -> None:
    """Compile all code for a dtype, or for both; a bar shows how far that is if tqdm is there and someone can see it.

    Raises
    ------
    CommandError
        If nothing can be compiled, or nothing keeps it.
    """
    start = perf_counter()
    try:
        kept = warm_up(dtype=dtype, progress=unusable("tqdm") is None and sys.stderr.isatty())
    except RuntimeError as error:
        raise CommandError(str(error), 1) from None
    if not kept:
        raise CommandError("the code has been compiled, but no folder for it can be written to; set NUMBA_CACHE_DIR", 1)
    print(f"All code is compiled and kept, after {scaled(perf_counter() - start, 's')}.")
