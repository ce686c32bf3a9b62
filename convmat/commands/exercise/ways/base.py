"""What a way to compute a product is, and what all of them share: their counts, their threads, and padding."""

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

_SERIAL = 1 << 16  # multiplications below which another thread does not pay


@dataclass(frozen=True)
class Work:
    """What a product costs by counting.

    Attributes
    ----------
    flops : float
        Multiplications and additions.
    bytes : float
        Bytes read and written, if every array goes from and to memory once for each pass over it.
    memory : float
        Bytes that the way needs beside the kernel, the input and the output: kept between products, or made anew in each.
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
    """A way with everything prepared that does not depend on the input."""

    product: Callable[[Array], Array]  # (C_in, H, W) → (C_out, H_out, W_out)
    transposed: Callable[[Array], Array]  # (C_out, H_out, W_out) → (C_in, H, W)


class Way(Protocol):
    """One way to compute products; stateless."""

    name: str
    title: str

    def refuses(self, case: Case) -> str | None:
        """Return why it is left out, as a sentence, or None."""

    def work(self, case: Case) -> Work:
        """Count one product."""

    def build(self, case: Case, workers: int) -> Ready:
        """Prepare."""


def memory_allowed() -> int:
    """Return the bytes that a way may need: so that several fit into this machine beside each other."""
    return min(2 * 10**9, memory_limit() // 6)


def vector_bytes(case: Case) -> float:
    """Return the bytes of the input, the output and the kernel."""
    return (sum(case.geometry.shape) + prod(case.kernel_shape)) * case.itemsize


def padded_bytes(case: Case) -> float:
    """Return the bytes of the padded input, where there is padding."""
    return prod(case.geometry.padded.input_shape) * case.itemsize if any(map(any, case.geometry.padding)) else 0


def too_large(work: Work) -> str | None:
    """Return that a way needs more memory than it may, as a sentence, or None."""
    allowed = memory_allowed()
    if work.memory <= allowed:
        return None
    return f"it would take {work.memory / 1e9:,.1f} GB; a way may take {allowed / 1e9:.3g} GB here"


def missing(package: str) -> str | None:
    """Return that a package is not installed or cannot be imported, as a sentence, or None."""
    why = unusable(package)
    return None if why is None else f"{package} {why}"


def cut(count: int, multiplications: int, workers: int) -> list[tuple[int, int]]:
    """Cut a range into one share for each thread, fewer where a share would be too little work."""
    pieces = max(1, min(workers, count, multiplications // _SERIAL))
    return list(pairwise(count * piece // pieces for piece in range(pieces + 1)))


def pad(case: Case, x: Array) -> Array:
    """Return the input with zeros around it, where there is padding."""
    return np.pad(x, [(0, 0), *case.geometry.padding]) if any(map(any, case.geometry.padding)) else x


def crop(case: Case, z: Array) -> Array:
    """Return what of a padded input is the input."""
    return z[:, *(slice(axis.before, axis.before + axis.size) for axis in case.geometry.axes)]
