"""Which method solves a system, and what each would cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import log, log2, sqrt
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from convmat._messages import scaled
from convmat.geometry import Border
from convmat.inverse._arguments import non_negative
from convmat.inverse._decompositions import (
    Decomposition,
    cosine,
    factors_flops,
    factors_of,
    fourier,
    frequencies_flops,
    is_cosine,
    is_fourier,
    separable,
)
from convmat.inverse._preconditioner import Preconditioner, is_mirrored, mirrored_spread
from convmat.inverse._solvers import Direct, Exact, Iterative, Solver
from convmat.inverse._strips import Strip, whole_band
from convmat.inverse._system import Operator, System
from convmat.spectra import Part

METHODS = ("auto", "fourier", "cosine", "separable", "direct", "cg")
PRECONDITIONERS = ("auto", "none", "transform", "schwarz")
_NO_CIRCLES = "not all axes are circles that the stride divides, with a penalty on the same circles"
_NOT_EVEN = 'kernels are not even, or padding is not "symmetric" and of the same size'
_NOT_SEPARABLE = "the kernel is no outer product, the penalty no identity, or an axis is long"
_OWN_PENALTY = "the penalty is an operator of its own"
_SEPARABLE = 3e10  # flops of LAPACK that take about a second
_RATE = 5e9  # flops a second of transforms, bytes of copying; a round number, as are those below
_CIRCLE = 12.0  # flops for each point of a circle and power of two in its size: two transforms, and what is between
_SCHWARZ = 12.0  # times fewer iterations, measured with smooth and with sharp blurs (`python -m benchmarks.inverse`)
_TRIED = 10  # values of λ that are tried where it is chosen
_PRODUCTS = {"none": 1, "transform": 1, "schwarz": 2}  # with the matrix, in an iteration
# λ, relative to the largest eigenvalue of AᴴA, where it is not known yet: some that are tried are small.
_TYPICAL = 5e-5


@dataclass(frozen=True)
class Plan:
    """What a method would do.

    Attributes
    ----------
    method : str
        One of `METHODS`.
    preconditioner : str
        One of `PRECONDITIONERS`; "none" but for "cg".
    why_not : str
        Why it cannot be used; empty if it can.
    seconds : float
        What one solution takes, about, with all preparation.
    """

    method: str
    preconditioner: str
    why_not: str
    seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class Plans:
    """All methods, the chosen one first; prints as a table.

    Attributes
    ----------
    plans : tuple of Plan
        The methods.
    """

    plans: tuple[Plan, ...]

    def __str__(self) -> str:
        lines = [("method", "preconditioner", "about", "")]
        for number, plan in enumerate(self.plans):
            note = plan.why_not or ("chosen" if number == 0 else "")
            time = "" if plan.why_not else scaled(plan.seconds, "s")
            lines.append((plan.method, plan.preconditioner, time, note))
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    __repr__ = __str__


class Planner:
    """What there is to choose from for a system and a λ, which may not be known yet.

    Parameters
    ----------
    system : System
        What is solved.
    weight : float or None
        λ, if it is known.
    rtol : float
        Where iterations end.
    """

    def __init__(self, system: System, weight: float | None, rtol: float = 1e-6) -> None:
        self.system, self._weight, self._rtol = system, weight, rtol

    @cached_property
    def strip(self) -> Strip | None:
        """The strip near the borders, where there is one."""
        return None if self.system.word is None or is_fourier(self.system) else Strip.of(self.system)

    @cached_property
    def factors(self) -> list[Part] | None:
        """The factors of a separable problem."""
        return factors_of(self.system)

    @cached_property
    def plans(self) -> Plans:
        """All methods, by cost."""
        exact = [
            self._plan("fourier", is_fourier(self.system), _NO_CIRCLES, lambda: frequencies_flops(self.system)),
            self._plan("cosine", is_cosine(self.system), _NOT_EVEN, lambda: frequencies_flops(self.system)),
            self._plan("separable", *self._separable()),
        ]
        iterative = [self._iterative(name) for name in PRECONDITIONERS[1:]]
        return Plans(tuple(sorted([*exact, self._direct(), *iterative], key=lambda p: (bool(p.why_not), p.seconds))))

    def _plan(self, name: str, applies: bool, why_not: str, flops: Callable[[], float]) -> Plan:
        return Plan(name, "none", "", flops() / _RATE) if applies else Plan(name, "none", why_not, np.inf)

    def _separable(self) -> tuple[bool, str, Callable[[], float]]:
        factors = self.factors
        flops = np.inf if factors is None else factors_flops(self.system, factors)
        return flops <= _SEPARABLE, _NOT_SEPARABLE, lambda: flops

    def _direct(self) -> Plan:
        band = whole_band(self.system)
        why_not = ""
        if self.system.word is None:
            why_not = _OWN_PENALTY
        elif self._weight == 0:
            why_not = "without regularization, AᴴA may have no inverse"
        elif not band.is_affordable():
            why_not = f"a factorisation takes {band}"
        return Plan("direct", "none", why_not, np.inf if why_not else band.seconds)

    def _iterative(self, name: str) -> Plan:
        why_not = ""
        if name != "none" and self.system.word is None:
            why_not = _OWN_PENALTY
        elif name != "none" and self._weight == 0:
            why_not = "without regularization it may have no inverse"
        elif name == "schwarz" and (self.strip is None or not len(self.strip.indices)):
            why_not = "there are no borders"
        elif name == "schwarz" and self.strip is not None and not self.strip.band.is_affordable():
            why_not = f"the borders take {self.strip.band}"
        return Plan("cg", name, why_not, np.inf if why_not else self._iterative_seconds(name))

    @cached_property
    def _product(self) -> float:
        """Seconds of a product with the matrix, and of the vectors' sums in an iteration."""
        estimates = self.system.A.explain().estimates
        return sum(each.seconds for each in estimates if each.chosen) + 8 * 12.0 * self.system.size / _RATE

    def _iterative_seconds(self, name: str) -> float:
        system, weight = self.system, self._weight
        relative = _TYPICAL if weight is None else max(weight / max(system.largest, 1e-300), 1e-12)
        plain = min(self._iterations(1 + 1 / relative), float(system.size))
        left = (
            plain if name == "none" else plain / _SCHWARZ if name == "schwarz" else self._transformed(plain, relative)
        )
        each, before = _PRODUCTS[name] * self._product, 0.0
        if name != "none":
            each += system.size * (_CIRCLE * log2(max(2, system.size)) + 8 * (system.columns - 1)) / _RATE
            before += system.size * (60 + 10 * system.columns * (system.columns - 1)) / _RATE
        if name == "schwarz" and self.strip is not None:
            each += 2 * self.strip.band.nbytes / _RATE
            before += self.strip.band.seconds
        return before + (1 + left) * each * (_TRIED if weight is None else 1)

    def _iterations(self, condition: float) -> float:
        """Return how many iterations a condition number means: two thirds of the bound, which is what blurs take."""
        return 0.5 * sqrt(condition) * log(2 / self._rtol) / 1.5

    def _transformed(self, plain: float, relative: float) -> float:
        """Return how many iterations a transform leaves, of so many without it."""
        system = self.system
        left = plain / _transform_gain(system)
        is_plain = not system.adjoint and all(axis.stride == 1 for axis in system.part.axes)
        if is_plain and any(axis.border is Border.MIRRORED for axis in system.part.axes):
            spread = mirrored_spread(system, relative * max(system.largest, 1e-300))
            left = max(left, min(self._iterations(spread), plain))
        return left

    def solver(self, method: str, wanted: str, maxiter: int) -> tuple[Exact | Solver, str]:
        """Return the solver for a method and a preconditioner, either by cost if it is "auto", and its name."""
        plans = [
            plan
            for plan in self.plans.plans
            if method in ("auto", plan.method)
            and (wanted == "auto" or (wanted, "cg") == (plan.preconditioner, plan.method))
        ]
        if not plans:
            raise ValueError(f'preconditioner={wanted!r} is for method="cg", got method={method!r}')
        plan = plans[0]
        if plan.why_not:
            name = f"method={plan.method!r}" if wanted == "auto" else f"preconditioner={wanted!r}"
            raise ValueError(f"{name} cannot be used here: {plan.why_not}")
        if plan.method == "direct":
            direct = Direct(self.system)
            try:
                direct.prepare(1.0 if self._weight is None else self._weight)  # with an inverse for one λ > 0, for all
            except ValueError:
                if method == "direct":
                    raise
                return self.solver("cg", wanted, maxiter)
            return direct, "direct"
        if plan.method == "cg":
            return self._conjugate_gradients(plan.preconditioner, maxiter, wanted != "auto")
        return Exact(self.system, self._decomposition(plan.method)), plan.method

    def _decomposition(self, method: str) -> Decomposition:
        if method == "separable" and self.factors is not None:
            return separable(self.system, self.factors)
        return {"fourier": fourier, "cosine": cosine}[method](self.system)

    def _conjugate_gradients(self, name: str, maxiter: int, is_required: bool) -> tuple[Solver, str]:
        if name == "none":
            return Iterative(self.system, None, maxiter), "cg"
        inverse = Preconditioner(self.system, self.strip if name == "schwarz" else None)
        return Iterative(self.system, inverse, maxiter, is_required), f"cg, {name}"


def _transform_gain(system: System) -> float:
    """Return how many times fewer iterations a transform leaves at most; measured with blurs."""
    if is_mirrored(system):
        return 5.0
    return min(
        0.8 if axis.border is Border.EDGE
        else 2.0 if axis.border is not Border.NOTHING or not (axis.before and axis.overrun)
        else 3.5
        for axis in system.part.axes
    )  # fmt: skip


def given_solver(system: System, method: str, inverse: LinearOperator, maxiter: int) -> tuple[Solver, str]:
    """Return the solver with a preconditioner of the user's, and its name."""
    if method not in ("auto", "cg"):
        raise ValueError(f'a preconditioner is for method="cg", got method={method!r}')
    if inverse.shape != (system.size, system.size):
        raise ValueError(f"preconditioner must have shape {(system.size, system.size)}, got {inverse.shape}")
    return Iterative(system, inverse, maxiter), "cg with the preconditioner given"


def explain(A: Operator, *, regularization: float | None = None, penalty: Any = "identity") -> Plans:
    """Return which methods `deconvolve` has for an operator, what each costs, and which it would take.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator.
    regularization : float, optional
        The weight λ; by default it is chosen from the data, for which some values are tried.
    penalty : str or LinearOperator
        What L is; see `deconvolve`.

    Returns
    -------
    Plans
        A table when printed, the chosen method first. Seconds are estimates, of one solution with all that it needs.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat import Convolution, inverse
    >>> A = Convolution(np.ones((3, 3)), (64, 64), padding=1, padding_mode="circular")
    >>> plans = inverse.explain(A).plans
    >>> plans[0].method
    'fourier'
    """
    system = System.of(A, penalty)
    weight = None if regularization is None else non_negative("regularization", regularization)
    if weight is not None:
        weight = weight / system.scale / system.scale
    return Planner(system, weight).plans
