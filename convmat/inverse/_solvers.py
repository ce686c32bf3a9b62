"""Ways to solve (AᴴA + λΣLᵢᴴLᵢ)·x = Aᴴ·y for one λ after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from convmat._runtime import track
from convmat.geometry import Array
from convmat.inverse._decompositions import Decomposition
from convmat.inverse._preconditioner import Preconditioner
from convmat.inverse._strips import Strip, StripSolver
from convmat.inverse._system import System

Callback = Callable[[int, float], object]


class Found(NamedTuple):
    """A solution.

    Attributes
    ----------
    x : array
        Flat.
    iterations : int
        How many there were; 0 where there are none.
    converged : bool
        Whether the tolerance was reached.
    """

    x: Array
    iterations: int = 0
    converged: bool = True


class Watch:
    """Counts iterations, and tells how far they are to whom it concerns.

    Parameters
    ----------
    callback : callable, optional
        Called with the number of iterations and the relative residual.
    progress : bool
        Whether to show a bar.
    """

    def __init__(self, callback: Callback | None = None, progress: bool = False) -> None:
        self.count = 0
        self._callback = callback
        self._bar: Any = track(itertools.count(), "iterations", True) if progress else None
        self._steps = None if self._bar is None else iter(self._bar)

    def note(self, residual: Callable[[], float]) -> None:
        """Count an iteration; its relative residual is asked for only if anybody wants it."""
        self.count += 1
        if self._callback is None and self._steps is None:
            return
        value = residual()
        if self._callback is not None:
            self._callback(self.count, value)
        if self._steps is not None:
            next(self._steps)
            self._bar.set_postfix_str(f"residual {value:.2g}")

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


class Solver(Protocol):
    """A way to solve a system."""

    system: System

    def solve(self, right: Array, weight: float, start: Array | None, rtol: float, watch: Watch) -> Found:
        """Return the solution for a flat right-hand side Aᴴy and a λ."""
        ...


class Exact:
    """By a change of variables that makes the problem diagonal."""

    def __init__(self, system: System, decomposition: Decomposition) -> None:
        self.system, self.decomposition = system, decomposition

    def of_data(self, y: Array, weight: float) -> Found:
        """Return the solution for data (C, *sizes) and a λ."""
        found = self.decomposition
        x = found.synthesise(found.filtered(weight, found.analyse(y)))
        return Found(np.ascontiguousarray(x).ravel())


class Direct:
    """By a banded Cholesky factorisation of the whole matrix."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._solver = StripSolver(Strip.whole(system))
        self._weight = -1.0

    def solve(self, right: Array, weight: float, start: Array | None, rtol: float, watch: Watch) -> Found:
        """Return the solution for a flat right-hand side Aᴴy and a λ."""
        self.prepare(weight)
        return Found(self._solver.solve(right))

    def prepare(self, weight: float) -> None:
        """Factor the matrix for a λ; raises ValueError if it is not positive definite."""
        if weight != self._weight:
            self._solver.factor(weight)
            self._weight = weight


class Iterative:
    """By conjugate gradients (Hestenes & Stiefel 1952), preconditioned or not.

    Parameters
    ----------
    system : System
        What is solved.
    inverse : Preconditioner, LinearOperator or None
        The preconditioner, if there is one.
    maxiter : int
        The most iterations.
    is_required : bool
        Whether a λ for which there is no preconditioner is an error, and not solved without it.
    """

    def __init__(
        self, system: System, inverse: Preconditioner | LinearOperator | None, maxiter: int, is_required: bool = True
    ) -> None:
        self.system, self._inverse, self._maxiter, self._is_required = system, inverse, maxiter, is_required
        self._weight = -1.0

    def solve(self, right: Array, weight: float, start: Array | None, rtol: float, watch: Watch) -> Found:
        """Return the solution for a flat right-hand side Aᴴy and a λ."""
        matrix, operator = self.system.normal(weight), self._inverse
        if isinstance(operator, Preconditioner) and not self._is_prepared(operator, weight):
            operator = None
        elif isinstance(operator, Preconditioner):
            base = np.zeros_like(right) if start is None else start
            start = base + operator.start(right - (matrix.matvec(base) if start is not None else 0.0))
            operator = operator.operator()
        norm, before = float(np.linalg.norm(right)), watch.count

        def note(x: Array) -> None:
            watch.note(lambda: float(np.linalg.norm(right - matrix.matvec(x))) / norm)

        x, status = cg(matrix, right, start, rtol=rtol, maxiter=self._maxiter, M=operator, callback=note)
        return Found(x, watch.count - before, status == 0)

    def _is_prepared(self, inverse: Preconditioner, weight: float) -> bool:
        if weight != self._weight:
            try:
                inverse.prepare(weight)
            except ValueError:
                if self._is_required:
                    raise
                return False
            self._weight = weight
        return True


class Curve(Protocol):
    """What λ does to the solution for some data."""

    def residual_norm(self, weight: float) -> float:
        """Return ‖A·x − y‖."""
        ...

    def freedom(self, weight: float) -> tuple[float, float]:
        """Return the traces of H = A·(AᴴA + λLᴴL)⁻¹·Aᴴ and of H²."""
        ...


class ExactCurve:
    """What λ does where the problem is diagonal."""

    def __init__(self, solver: Exact, y: Array) -> None:
        self._found = solver.decomposition
        self._data = self._found.analyse(y)
        self._outside = max(0.0, float(np.linalg.norm(y)) ** 2 - self._found.norm(self._data))

    def residual_norm(self, weight: float) -> float:
        """Return ‖A·x − y‖."""
        return float(np.sqrt(self._found.left(weight, self._data) + self._outside))

    def freedom(self, weight: float) -> tuple[float, float]:
        """Return the traces of H = A·(AᴴA + λLᴴL)⁻¹·Aᴴ and of H²."""
        return self._found.freedom(weight)


class SolvedCurve:
    """What λ does where each is solved for anew, and traces are estimated from one random vector (Hutchinson 1990)."""

    def __init__(self, solver: Solver, y: Array, rtol: float) -> None:
        self._solver, self._y, self._rtol = solver, y.ravel(), rtol
        self._x: Array | None = None
        self._z: Array | None = None

    @cached_property
    def _right(self) -> Array:
        right: Array = self._solver.system.A.H @ self._y
        return right

    @cached_property
    def _probe(self) -> Array:
        return np.random.default_rng(0).choice([-1.0, 1.0], self._y.size)

    def residual_norm(self, weight: float) -> float:
        """Return ‖A·x − y‖."""
        self._x = self._solver.solve(self._right, weight, self._x, self._rtol, Watch()).x
        return self._solver.system.residual_norm(self._x, self._y)

    def freedom(self, weight: float) -> tuple[float, float]:
        """Return estimates of the traces of H = A·(AᴴA + λLᴴL)⁻¹·Aᴴ and of H²."""
        A = self._solver.system.A
        right = (A.H @ self._probe).astype(self._right.dtype)
        self._z = self._solver.solve(right, weight, self._z, self._rtol, Watch()).x
        return float(np.vdot(right, self._z).real), float(np.linalg.norm(A @ self._z) ** 2)
