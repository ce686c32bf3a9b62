"""The protocol of a way to compute a product, and what the ways share: counts, threads, and padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Protocol

import numpy as np

from convmat._runtime import memory_limit
from convmat.commands._console import unusable
from convmat.commands.exercise.cases import Case
from convmat.geometry import Array

_SERIAL = 1 << 16  # multiplications that do not pay for another thread


@dataclass(frozen=True)
class Work:
    """The counted cost of a product.

    Attributes
    ----------
    flops : float
        Multiplications and additions.
    bytes : float
        Bytes read and written, if each pass over an array goes through memory once.
    memory : float
        Bytes besides the kernel, the input and the output, kept between products or allocated in each.
    """

    flops: float
    bytes: float
    memory: float

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: operations for each byte."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Ready:
    """A way after its preparation, which does not depend on the input."""

    product: Callable[[Array], Array]  # (C_in, H, W) → (C_out, H_out, W_out)
    transposed: Callable[[Array], Array]  # (C_out, H_out, W_out) → (C_in, H, W)


class Way(Protocol):
    """One way to compute products; stateless."""

    name: str
    title: str

    def refuses(self, case: Case) -> str | None:
        """Return why the way is left out of a case, as a sentence, or None."""

    def work(self, case: Case) -> Work:
        """Count one product."""

    def build(self, case: Case, workers: int) -> Ready:
        """Prepare."""


def memory_allowed() -> int:
    """Return the bytes that a way may need, so that several ways fit into this machine together."""
    return min(2 * 10**9, memory_limit() // 6)


def vector_bytes(case: Case) -> float:
    """Return the bytes of the input, the output and the kernel."""
    return (sum(case.geometry.shape) + prod(case.kernel_shape)) * case.itemsize


def padded_bytes(case: Case) -> float:
    """Return the bytes of the padded input, or 0 without padding."""
    return prod(case.geometry.padded.input_shape) * case.itemsize if any(map(any, case.geometry.padding)) else 0


def too_large(work: Work) -> str | None:
    """Return a sentence if a way needs more memory than allowed, else None."""
    allowed = memory_allowed()
    if work.memory <= allowed:
        return None
    return f"it would take {work.memory / 1e9:,.1f} GB; a way may take {allowed / 1e9:.3g} GB here"


def missing(package: str) -> str | None:
    """Return a sentence if a package is not installed or cannot be imported, else None."""
    why = unusable(package)
    return None if why is None else f"{package} {why}"


def cut(count: int, multiplications: int, workers: int) -> list[tuple[int, int]]:
    """Cut a range into one block for each thread, or into fewer if a block would be too little work."""
    pieces = max(1, min(workers, count, multiplications // _SERIAL))
    return list(pairwise(count * piece // pieces for piece in range(pieces + 1)))


def pad(case: Case, x: Array) -> Array:
    """Return the input padded with zeros."""
    return np.pad(x, [(0, 0), *case.geometry.padding]) if any(map(any, case.geometry.padding)) else x


def crop(case: Case, z: Array) -> Array:
    """Return the input inside a padded input."""
    return z[:, *(slice(axis.before, axis.before + axis.size) for axis in case.geometry.axes)]
