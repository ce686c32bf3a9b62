"""Deconvolution: what went into a convolution, from what came out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator

from convmat._messages import choose
from convmat.geometry import Array, binary_scale, check_bool, integer
from convmat.inverse._arguments import finite_array, non_negative
from convmat.inverse._choice import WORDS, Choice, by_cross_validation, by_discrepancy
from convmat.inverse._methods import METHODS, PRECONDITIONERS, Planner, given_solver
from convmat.inverse._solvers import Callback, Curve, Exact, ExactCurve, Found, SolvedCurve, Solver, Watch
from convmat.inverse._system import Operator, System

_CURVE_RTOL = 1e-4  # of solutions from which λ is chosen
_ABOVE = 100.0  # the largest λ that is tried, relative to one that leaves little of x
_EXACT = 1e-12  # the least one, relative to the largest, where all are exact,
_SOLVED = 1e-7  # or else relative to the one at which A and the penalty are of about the same norm
_POWER_STEPS = 8  # of the power method for ‖L‖²
_SPREAD = 1e4  # how much more than its norm a penalty may leave of some x
_MAXITER = 10_000


@dataclass(frozen=True)
class Deconvolution:
    """A solution, and how good it is.

    Attributes
    ----------
    x : array (..., *input_shape)
        The solution.
    regularization : float or array
        The weight λ that was used, of each batch item.
    residual_norm, penalty_norm : float or array
        ‖A·x − y‖ and ‖L·x‖ of each batch item.
    iterations : int or array
        How many there were; 0 where the method has none.
    converged : bool
        Whether the tolerance was reached, for all batch items.
    reason : str
        Why it stopped, and what is to be said about λ.
    method : str
        How it was solved.
    seconds : float
        How long it took.
    """

    x: Array
    regularization: Any
    residual_norm: Any
    penalty_norm: Any
    iterations: Any
    converged: bool
    reason: str
    method: str
    seconds: float

    def __repr__(self) -> str:
        def short(value: Any) -> str:
            low, high = f"{np.min(value):.3g}", f"{np.max(value):.3g}"
            return low if low == high else f"{low} to {high}"

        steps = f", {short(self.iterations)} iterations" if np.any(self.iterations) else ""
        return (
            f"<Deconvolution of shape {self.x.shape} by {self.method}: λ {short(self.regularization)}, "
            f"residual {short(self.residual_norm)}, penalty {short(self.penalty_norm)}{steps}; {self.reason}>"
        )


def deconvolve(
    A: Operator,
    y: Any,
    *,
    regularization: float | str = 0.0,
    penalty: Any = "identity",
    noise_norm: float | None = None,
    nonnegative: bool = False,
    method: str = "auto",
    preconditioner: Any = "auto",
    x0: Any = None,
    rtol: float = 1e-6,
    maxiter: int | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Deconvolution:
    """Return the x that minimises ‖A·x − y‖² + λ·‖L·x‖², Tikhonov's regularisation.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator.
    y : array_like (..., *output_shape)
        What came out, real or complex. Batch axes in front are solved each for itself.
    regularization : float or {"discrepancy", "gcv"}
        The weight λ ≥ 0. Or how it is chosen: "discrepancy" takes the λ for which ‖A·x − y‖ is `noise_norm`; "gcv" takes
        the one with the least robust generalised cross-validation function, which needs no `noise_norm`.
    penalty : {"identity", "gradient", "laplacian"} or LinearOperator
        What L is: x itself, its differences along each axis, their sum of second differences, or any operator for a flat
        x. Differences across the ends are taken as A pads them; where A pads nothing, there are none.
    noise_norm : float, optional
        The norm of the noise in y, for "discrepancy": about σ·√(size of y).
    nonnegative : bool
        Whether x must not be negative anywhere. Then it is found by L-BFGS-B, from the solution without that condition; a
        λ that is chosen is chosen without it, too.
    method : {"auto", "fourier", "cosine", "separable", "direct", "cg"}
        How it is solved; see Notes.
    preconditioner : {"auto", "none", "transform", "schwarz"} or LinearOperator
        What conjugate gradients are given as an approximate inverse of AᴴA + λLᴴL. "transform" inverts what this is
        inside, "schwarz" the strip near the borders as well; see `preconditioner`. "auto" takes what is estimated to take
        the least time.
    x0 : array_like, optional
        Where the iteration begins, of the shape of x; zero by default.
    rtol : float
        An iteration ends when the residual of the normal equations is less than this times ‖Aᴴy‖.
    maxiter : int, optional
        The most iterations; 10000 by default.
    callback : callable, optional
        Called with the number of iterations so far, of all batch items, and the relative residual: ‖AᴴA·x + λLᴴL·x − Aᴴy‖,
        or with `nonnegative` the norm of the projected gradient, over ‖Aᴴy‖. Each call costs a product. Solutions from which
        λ is chosen are not told.
    progress : bool
        Whether to show a bar with iterations and residual on standard error, where the method iterates. Needs tqdm.

    Returns
    -------
    Deconvolution
        The solution `x`, λ, norms, iterations, and why it stopped.

    Raises
    ------
    MemoryError
        If the method that is asked for does not fit into the available memory.
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value or shape, or the method that is asked for cannot be used.

    See Also
    --------
    explain : What the methods cost.
    richardson_lucy : For counts of light.

    Notes
    -----
    Exact methods need no iteration. "fourier" is for circular padding that keeps the size, with strides and channels by a
    small matrix for each coarse frequency. "cosine" is for kernels that are even in each axis under "symmetric" padding.
    "separable" is for outer products under any padding mode, with the identity. They all are generalised singular value
    decompositions [1]_, so that λ is chosen without solving again. "direct" is a banded Cholesky factorisation, for small
    or one-dimensional problems. "cg" solves the normal equations by conjugate gradients, for all others. Without λ they
    give the solution of least norm, up to `rtol`; "cg" with few iterations is then itself a regularisation.

    Cross-validation [2]_ needs the trace of H = A(AᴴA + λLᴴL)⁻¹Aᴴ. It is exact for exact methods, and otherwise estimated
    from one random vector. Its robust form [3]_ multiplies the function by 0.3 + 0.7·tr(H²)/n, for n data: the plain one
    takes errors that are alike at neighbours, as those of a border, for data, and its λ is too small.

    References
    ----------
    .. [1] P. C. Hansen, "Rank-deficient and discrete ill-posed problems", SIAM, 1998.
    .. [2] G. H. Golub, M. Heath, G. Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter",
       Technometrics 21, 1979.
    .. [3] M. A. Lukas, "Robust generalized cross-validation for choosing the regularization parameter", Inverse Problems 22,
       2006.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat import Convolution, inverse
    >>> A = Convolution([1.0, 2.0, 1.0], 6, padding="same", padding_mode="replicate")
    >>> y = A @ np.array([0.0, 0, 1, 1, 0, 0])
    >>> found = inverse.deconvolve(A, y, regularization=1e-8)
    >>> found.x.round(3) + 0.0
    array([0., 0., 1., 1., 0., 0.])
    >>> found.converged
    True
    """
    start = perf_counter()
    method = choose("method", method, METHODS)
    check_bool("nonnegative", nonnegative)
    limit = _MAXITER if maxiter is None else integer("maxiter", maxiter, 1)
    tolerance = non_negative("rtol", rtol)
    weight, level = _check_regularization(regularization, noise_norm)
    system = System.of(A, penalty)
    data = finite_array("y", y, A.output_shape)
    if data.dtype.kind == "c" and system.dtype.kind != "c":
        system = System.of(A, penalty, data.dtype)
    if nonnegative and system.dtype.kind == "c":
        raise ValueError("nonnegative=True needs a real kernel and real y, got complex ones")
    scale = system.scale
    first = None if x0 is None else finite_array("x0", x0, A.input_shape, has_batch=False).ravel() * scale
    if first is not None and first.dtype.kind == "c" and system.dtype.kind != "c":
        raise ValueError("x0 must be real, as the kernel and y are, got complex values")
    scaled_weight = None if weight is None else weight / scale / scale
    solver: Exact | Solver
    if isinstance(preconditioner, LinearOperator):
        solver, name = given_solver(system, method, preconditioner, limit)
    else:
        wanted = choose("preconditioner", preconditioner, PRECONDITIONERS)
        solver, name = Planner(system, scaled_weight, tolerance).solver(method, wanted, limit)
    watch = Watch(callback, progress)
    job = _Job(system, solver, scaled_weight, str(regularization), level, tolerance, first, nonnegative, limit, watch)
    batch = data.shape[: data.ndim - len(A.output_shape)]
    try:
        results = [job.solve(item) for item in data.reshape(-1, *system.data_shape)]
    finally:
        watch.close()
    solutions = np.array([each.x for each in results], system.dtype)
    dtype = np.result_type(A.dtype, np.asarray(y).dtype, np.float32)

    def gathered(values: list[Any]) -> Any:
        return values[0] if not batch else np.array(values).reshape(batch)

    return Deconvolution(
        (solutions / scale).astype(dtype).reshape(*batch, *A.input_shape),
        gathered([each.weight * scale * scale for each in results]),
        gathered([each.residual_norm for each in results]),
        gathered([each.penalty_norm / scale for each in results]),
        gathered([each.iterations for each in results]),
        all(each.converged for each in results),
        "; ".join(dict.fromkeys(each.reason for each in results)),
        name + (", then L-BFGS-B" if nonnegative else ""),
        perf_counter() - start,
    )


def _check_regularization(regularization: float | str, noise_norm: float | None) -> tuple[float | None, float]:
    """Return λ if it is given, and the norm of the noise if λ is chosen by that."""
    if not isinstance(regularization, str):
        if noise_norm is not None:
            raise ValueError(f'noise_norm is for regularization="discrepancy", got regularization={regularization!r}')
        return non_negative("regularization", regularization), 0.0
    if choose("regularization", regularization, WORDS) == "gcv":
        if noise_norm is not None:
            raise ValueError('noise_norm is for regularization="discrepancy", got regularization="gcv"')
        return None, 0.0
    if noise_norm is None:
        raise ValueError('regularization="discrepancy" needs noise_norm, the norm of the noise in y, got None')
    return None, non_negative("noise_norm", noise_norm)


@dataclass(frozen=True)
class _Result:
    """A solution of one item; attributes as those of `Deconvolution`."""

    x: Array
    weight: float
    residual_norm: float
    penalty_norm: float
    iterations: int
    converged: bool
    reason: str

    def times(self, unit: float) -> _Result:
        """Return the solution for data that are so many times larger."""
        norms = self.residual_norm * unit, self.penalty_norm * unit
        return replace(self, x=self.x * unit, residual_norm=norms[0], penalty_norm=norms[1])


@dataclass(frozen=True)
class _Job:
    """How each item of a batch is solved."""

    system: System
    solver: Exact | Solver
    weight: float | None
    word: str
    noise_norm: float
    rtol: float
    start: Array | None
    nonnegative: bool
    maxiter: int
    watch: Watch

    def solve(self, y: Array) -> _Result:
        """Return the solution for data (C, *sizes), which are solved for as if they were about 1."""
        unit = binary_scale(y)
        if self.start is not None:
            unit = max(unit, binary_scale(self.start))
        start = None if self.start is None else self.start / unit
        return replace(self, noise_norm=self.noise_norm / unit, start=start)._solve(y / unit).times(unit)

    def _solve(self, y: Array) -> _Result:
        flat = y.ravel().astype(self.system.dtype)
        choice = Choice(self.weight) if self.weight is not None else self._choose(y)
        right = self.system.A.H @ flat
        if choice.weight == np.inf or not right.any():
            remark = choice.remark or "Aᴴy is zero: y tells nothing of x"
            return self._result(Found(np.zeros(self.system.size, self.system.dtype)), choice.weight, flat, remark)
        if isinstance(self.solver, Exact):
            found = self.solver.of_data(y.astype(self.system.dtype), choice.weight)
        else:
            found = self.solver.solve(right, choice.weight, self.start, self.rtol, self.watch)
        reason = _reason(found, self.rtol)
        if self.nonnegative:
            found, reason = self._constrained(found, right, choice.weight)
        return self._result(found, choice.weight, flat, "; ".join(filter(None, [reason, choice.remark])))

    def _result(self, found: Found, weight: float, y: Array, reason: str) -> _Result:
        system = self.system
        norms = system.residual_norm(found.x, y), system.penalty_norm(found.x)
        return _Result(found.x, weight, *norms, found.iterations, found.converged, reason)

    def _choose(self, y: Array) -> Choice:
        solver, norm = self.solver, float(np.linalg.norm(y))
        if isinstance(solver, Exact):
            curve: Curve = ExactCurve(solver, y.astype(self.system.dtype))
            highest = _ABOVE * solver.decomposition.steepness
            lowest = _EXACT * highest
        else:
            curve = SolvedCurve(solver, y.astype(self.system.dtype), min(self.rtol, _CURVE_RTOL))
            highest, lowest = _range(self.system)
        if not highest > 0 or not norm:
            return Choice(np.inf, "A or y is zero: y tells nothing of x")
        if self.word == "gcv":
            return by_cross_validation(curve, y.size, lowest, highest)
        return by_discrepancy(curve, self.noise_norm, norm, lowest, highest)

    def _constrained(self, found: Found, right: Array, weight: float) -> tuple[Found, str]:
        """Return the solution that is negative nowhere, from one that may be."""
        matrix = self.system.normal(weight)

        def value(x: Array) -> tuple[float, Array]:
            product = matrix.matvec(x)
            return float(0.5 * (x @ product) - x @ right), product - right

        def projected(x: Array) -> Array:
            gradient = matrix.matvec(x) - right
            return np.where(x > 0, gradient, np.minimum(gradient, 0.0))

        # L-BFGS-B ends when the projected gradient is small in its largest entry.
        limit = self.rtol * float(abs(right).max())
        options = {"maxiter": self.maxiter, "maxfun": 10**7, "ftol": 0.0, "gtol": limit}
        norm = float(np.linalg.norm(right))
        result: Any = minimize(  # type: ignore[call-overload]
            value,
            np.maximum(found.x, 0.0),
            method="L-BFGS-B",
            jac=True,
            bounds=[(0.0, None)] * right.size,
            options=options,
            callback=lambda x: self.watch.note(lambda: float(np.linalg.norm(projected(x))) / norm),
        )
        converged = bool(abs(projected(result.x)).max(initial=0.0) <= 10 * limit)
        word = "reached" if converged else "missed"
        reason = f"L-BFGS-B {word} rtol={self.rtol:.3g}"
        return Found(result.x, found.iterations + int(result.nit), converged), reason


def _reason(found: Found, rtol: float) -> str:
    if not found.converged:
        return f"{found.iterations} iterations were made, as many as maxiter allows, and rtol={rtol:.3g} is not reached"
    if found.iterations:
        return f"rtol={rtol:.3g} was reached"
    return "solved without iterations"


def _range(system: System) -> tuple[float, float]:
    """Return the largest and the least λ that are tried where each is solved for anew."""
    if system.word is not None:
        power = {"identity": 0, "gradient": 1, "laplacian": 2}[system.word]
        norm = (4.0 * (len(system.shape) - 1)) ** power  # about the largest ‖L·x‖²/‖x‖², and the spread of the others
        spread = (max(system.shape[1:]) / np.pi) ** (2 * power) * norm
    else:
        x, norm, spread = np.random.default_rng(0).standard_normal(system.size).astype(system.dtype), 1.0, _SPREAD
        for _ in range(_POWER_STEPS):
            x = system.penalise(x / norm)
            norm = float(np.linalg.norm(x)) or 1.0
    return _ABOVE * spread * system.largest / norm, _SOLVED * system.largest / norm
