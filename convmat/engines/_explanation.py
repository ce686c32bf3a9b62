"""What is known of each engine for a product, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isinf

from convmat._messages import scaled
from convmat.engines._base import Cost
from convmat.engines._compiled.loader import NO_LOADING, Loading

MARGIN = 1.15  # an engine takes over from another if it is faster by this factor


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of one engine for one direction.

    Attributes
    ----------
    engine : str
        Name of the engine.
    transposed : bool
        Direction: False for W, True for Wᵀ.
    cost : Cost or None
        What a product is estimated to cost; None if the engine refuses.
    seconds : float
        Time of a product: measured, or else what `cost` says, corrected by what was measured of other products.
    measured : bool
        Whether `seconds` has been measured.
    setup : float
        Seconds that remain to prepare the engine for the kernel.
    saved : float
        Seconds that it would have saved in the products of this kernel.
    loading : Loading
        What it takes until its compiled code can be called.
    saved_by_code : float
        Seconds that the code would have saved in all products of this process, beyond setups.
    chosen : bool
        Whether ``engine="auto"`` takes it.
    reason : str
        Why it is chosen or not.
    """

    engine: str
    transposed: bool
    cost: Cost | None
    seconds: float
    measured: bool = False
    setup: float = 0.0
    saved: float = 0.0
    loading: Loading = NO_LOADING
    saved_by_code: float = 0.0
    is_candidate: bool = False
    chosen: bool = False
    reason: str = ""

    @property
    def is_paid(self) -> bool:
        """Whether the engine would have saved already what it takes to begin with it."""
        return self.saved >= self.setup and self.saved_by_code >= self.loading.threshold

    def beside(self, best: Estimate) -> Estimate:
        """Return the estimate with the choice, which is `best`, and the reason for it."""
        if self.reason:
            return self
        chosen = self is best
        reason = "chosen" if chosen else self._compared(best)
        return replace(self, is_candidate=True, chosen=chosen, reason=reason)

    def _compared(self, best: Estimate) -> str:
        """Return how the engine compares, and when it would be tried."""
        if isinf(self.seconds):
            return "its trial failed"
        words = f"{self.seconds / best.seconds:.2g} × the time of {best.engine}"
        if self.measured or self.seconds * MARGIN >= best.seconds:
            return words
        if self.loading.seconds and self.saved_by_code < self.loading.threshold:
            what, needed, saved = (
                "compiled" if self.loading.compiles else "loaded",
                self.loading.threshold,
                self.saved_by_code,
            )
        elif self.saved < self.setup:
            what, needed, saved = "tried", self.setup, self.saved
        else:
            return f"{words}; tried soon"
        return f"{words}; {what} after {scaled(needed, 's')} lost (so far {scaled(saved, 's')})"


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """What is known of every engine, printed as a table; ~ stands before a time that is estimated, not measured."""

    estimates: tuple[Estimate, ...]

    def __str__(self) -> str:
        header = ("product", "engine", "flops", "bytes", "time", "setup", "code", "kept", "")
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


def _cells(estimate: Estimate) -> tuple[str, ...]:
    product = "Wᵀ y" if estimate.transposed else "W x"
    cost = estimate.cost
    if cost is None:
        return (product, estimate.engine, *("",) * 6, estimate.reason)
    return (
        product,
        estimate.engine,
        scaled(cost.flops),
        scaled(cost.bytes, "B"),
        "" if isinf(estimate.seconds) else f"{'' if estimate.measured else '~'}{scaled(estimate.seconds, 's')}",
        scaled(estimate.setup, "s"),
        scaled(estimate.loading.seconds, "s"),
        scaled(cost.state, "B"),
        estimate.reason,
    )
