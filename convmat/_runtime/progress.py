"""A bar that shows how far something is, and how long it will take."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TypeVar

T = TypeVar("T")


def track(steps: Iterable[T], name: str, progress: bool) -> Iterable[T]:
    """Return the steps; if that is wanted, a bar on standard error shows how many have been taken, of all if that is known.

    Raises
    ------
    ModuleNotFoundError
        If a bar is wanted and tqdm is not installed.
    """
    if not progress:
        return steps
    if find_spec("tqdm") is None:
        raise ModuleNotFoundError('progress=True needs tqdm, which pip install "convmat[demo]" installs', name="tqdm")
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(steps, name, leave=False)
    return bar
