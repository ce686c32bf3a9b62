"""Which engine computes a product: a pure function of geometry, dtype, batch, direction and machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convmat._messages import scaled
from convmat.engines._base import Cost, Engine, Machine, SelectiveEngine, ValuesRefusal, find_refusal, own_geometry
from convmat.engines._registry import ENGINES
from convmat.geometry import ConvolutionGeometry

_PRODUCTS = 1000  # setup is shared by this many: an operator that is worth preparing is applied many times


def _unseen(engine: SelectiveEngine) -> str:
    return "it depends on the kernel's values, which are not given"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One engine's estimate for one direction.

    Attributes
    ----------
    engine : str
        Name of the engine.
    transposed : bool
        Direction: False for W, True for Wᵀ.
    cost : Cost or None
        What a product costs; None if the engine refuses.
    chosen : bool
        Whether ``engine="auto"`` takes it.
    reason : str
        Why it is chosen or not.
    """

    engine: str
    transposed: bool
    cost: Cost | None
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """The estimates for every engine, printed as a table."""

    estimates: tuple[Estimate, ...]

    def __str__(self) -> str:
        header = ("product", "engine", "flops", "bytes", "time", "setup", "kept", "")
        lines = [header, *map(_cells, self.estimates)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
        return "\n".join(
            "  ".join(
                [
                    *(cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)),
                    *(cell.rjust(width) for cell, width in zip(line[2:-1], widths[2:], strict=True)),
                    line[-1],
                ]
            ).rstrip()
            for line in lines
        )

    __repr__ = __str__


def plan(
    geometry: ConvolutionGeometry,
    dtype: np.dtype[Any],
    batch: int,
    transposed: bool,
    machine: Machine,
    engines: Mapping[str, Engine] = ENGINES,
    refuses_values: ValuesRefusal = _unseen,
    local: bool = False,
) -> tuple[Estimate, ...]:
    """Estimate every engine, and choose the one whose product takes least, with a thousandth of its setup.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution, with its padding.
    dtype : dtype
        Of the product.
    batch : int
        Number of arrays in a product.
    transposed : bool
        Whether the product is with Wᵀ.
    machine : Machine
        What to count with.
    engines : mapping of str to Engine
        What there is to choose from.
    refuses_values : callable
        For an engine that depends on the kernel's values, returns why it cannot use them, or None.
    local : bool
        Whether to leave out engines in which an input reaches outputs that do not read it.

    Returns
    -------
    tuple of Estimate
        One for each engine, exactly one of them chosen.

    Examples
    --------
    A kernel as large as this is cheaper through its spectrum:

    >>> import numpy as np
    >>> from convmat import ConvolutionGeometry
    >>> from convmat.engines import ENGINES, Machine
    >>> geometry = ConvolutionGeometry((63, 63), (512, 512), padding="same")
    >>> estimates = plan(geometry, np.dtype("float64"), 1, False, Machine(workers=2, loading=0))
    >>> [estimate.engine for estimate in estimates if estimate.chosen]
    ['fft']
    """
    costs: dict[str, Cost] = {}
    refusals: dict[str, str] = {}
    for name, engine in engines.items():
        refusal = find_refusal(engine, geometry, dtype, local, refuses_values)
        if refusal is None:
            costs[name] = engine.estimate(own_geometry(engine, geometry), dtype, batch, transposed, machine)
        else:
            refusals[name] = refusal
    totals = {name: cost.seconds + cost.setup / _PRODUCTS for name, cost in costs.items()}
    # Both directions may be kept, and arrays need room too.
    crowded = {name for name, cost in costs.items() if cost.state > machine.memory / 4}
    best = min((name for name in totals if engines[name].automatic and name not in crowded), key=totals.__getitem__)
    estimates = []
    for name in engines:
        if name in refusals:
            reason = refusals[name]
        elif name == best:
            reason = "chosen"
        elif not engines[name].automatic:
            reason = "by name only"
        elif name in crowded:
            reason = "would keep more than a quarter of the memory"
        else:
            reason = f"{totals[name] / totals[best]:.1f} × the time of {best}, setup shared by {_PRODUCTS} products"
        estimates.append(Estimate(name, transposed, costs.get(name), name == best, reason))
    return tuple(estimates)


def _cells(estimate: Estimate) -> tuple[str, ...]:
    product = "Wᵀ y" if estimate.transposed else "W x"
    cost = estimate.cost
    if cost is None:
        return (product, estimate.engine, "", "", "", "", "", estimate.reason)
    return (
        product,
        estimate.engine,
        scaled(cost.flops),
        scaled(cost.bytes, "B"),
        scaled(cost.seconds, "s"),
        scaled(cost.setup, "s"),
        scaled(cost.state, "B"),
        estimate.reason,
    )
