"""Engines whose products take what a virtual clock says, so that what `auto` chooses depends on no machine."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convmat import Convolution
from convmat.engines import NO_LOADING, Cost, Loading, Machine
from convmat.geometry import PADDING_MODES
from convmat.operators import Ledger
from convmat.operators._host import HostProducts

INPUT = 4


class Clock:
    """Seconds since it was made."""

    now = 0.0


@dataclass
class SlowEngine:
    """An engine that takes so many seconds for a product, and for what comes before the first one."""

    name: str
    seconds: float
    setup: float = 0.0
    loading: float = 0.0
    compiles: bool = True
    wrong: float = 1.0  # its estimate, of what a product takes
    mark: float = 0.0  # what its products are
    clock: Clock = field(default_factory=Clock)
    pads = frozenset(PADDING_MODES)
    automatic = local = silent = True

    def refuses(self, geometry: Any, dtype: Any) -> None:
        """Refuse nothing."""

    def estimate(self, geometry: Any, dtype: Any, batch: int, transposed: bool, machine: Machine) -> Cost:
        """Return what it says."""
        code = ((f"{self.name}.loop", ""),) if self.loading else ()
        return Cost(1.0, 1.0, self.seconds * self.wrong, self.setup, 0.0, code)

    def prepare(self, geometry: Any, dtype: Any, workers: int) -> None:
        """Prepare nothing."""

    def bind(self, plan: Any, kernel: Any) -> "SlowProducts":
        """Load what is not loaded yet."""
        self.clock.now += self.setup + self.loading
        self.loading = 0.0
        return SlowProducts(self)


@dataclass
class SlowProducts:
    """Products that take time, and are the mark of their engine."""

    engine: SlowEngine

    def forward(self, x: Any, out: Any) -> None:
        """Let time go by."""
        self.engine.clock.now += self.engine.seconds
        out[...] = self.engine.mark

    def transpose(self, x: Any, out: Any) -> None:
        """Do the same."""
        self.forward(x, out)


def products_of(*engines: SlowEngine) -> type[HostProducts]:
    """Return the products of a process that has these engines alone, and a clock."""
    clock = Clock()
    for engine in engines:
        engine.clock = clock
    by_code = {f"{engine.name}.loop": engine for engine in engines}

    class SlowOperators(HostProducts):
        ledger = Ledger()

        def _describe_machine(self) -> Machine:
            return Machine(measured=True)

        def _loading(self, code: Any) -> Loading:
            (missing,) = [by_code[name] for name, _ in code] or [None]
            if missing is None or not missing.loading:
                return NO_LOADING
            return Loading(missing.loading, missing.loading / (1 if missing.compiles else 8), missing.compiles)

        def _seconds(self, run: Any) -> float:
            start = clock.now
            run()
            return clock.now - start

    SlowOperators.engines = {engine.name: engine for engine in engines}
    SlowOperators.clock = clock
    return SlowOperators


def operator_of(kind: type[HostProducts]) -> Convolution:
    """Return an operator of those products."""
    geometry = Convolution(np.ones(1), INPUT).geometry
    return Convolution._of(kind(geometry, np.ones(1), False, "auto"))


def apply(operator: Convolution, products: int) -> float:
    """Return the seconds that so many products take."""
    clock, x = operator._products.clock, np.ones(INPUT)
    start = clock.now
    for _ in range(products):
        operator.apply(x)
    return clock.now - start
