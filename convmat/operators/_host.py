"""Products of NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from convmat._runtime import available_cpus, available_memory, count_workers, memory_limit
from convmat.engines import ENGINES, KNOWN_AS, Code, Loading, Machine, estimate_loading, measure_machine, this_machine
from convmat.geometry import Array
from convmat.operators._choices import Ledger
from convmat.operators._products import Products


class HostProducts(Products):
    """Products of NumPy arrays."""

    arrays = np
    engines = ENGINES
    known_as = KNOWN_AS
    ledger: ClassVar[Ledger] = Ledger()

    def _describe_machine(self) -> Machine:
        return this_machine(_count_here(self.workers), memory_limit())

    def _measure_machine(self) -> Machine:
        measure_machine()
        return self._describe_machine()

    def _wait(self) -> None:
        """Do nothing: a product has ended when it returns."""

    def _loading(self, code: Iterable[Code]) -> Loading:
        return estimate_loading(code)

    def available_memory(self) -> int:
        """Return the bytes that this process may allocate now."""
        return available_memory()

    @staticmethod
    def _private(kernel: Array) -> Array:
        kernel = kernel.copy()
        kernel.flags.writeable = False
        return kernel


def check_workers(workers: int | None) -> None:
    """Raise if a user's number of workers is wrong. Unpickled operators are not checked: there may be fewer CPUs here."""
    if workers is not None:
        count_workers(workers)


def _count_here(workers: int | None) -> int:
    """Return the number of threads; a negative number that was right on a machine with more CPUs means one thread here."""
    return count_workers(workers if workers is None or workers > 0 else max(workers, -available_cpus()))
