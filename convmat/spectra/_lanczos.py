"""A few singular values of a large W, by ARPACK, with their residuals checked."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, splu, svds

from convmat._runtime import track
from convmat.geometry import Array
from convmat.operators import Convolution

Callback = Callable[[int], object]
_MIXED = 0.01  # of a start that is near the wanted vectors, what is random
_SLACK = 10.0  # times the tolerance, that a residual may have
_SHIFT = 1e-15  # of the norm's square: the Gram matrix is inverted at minus this, where it may be singular


class Pairs(NamedTuple):
    """Singular values, descending, and vectors.

    Attributes
    ----------
    values : float64 array (k,)
        The values.
    vectors : array (columns, k)
        The right singular vectors.
    residual : float
        The largest ‖AᴴA·v − σ²·v‖ / ‖A‖².
    """

    values: Array
    vectors: Array
    residual: float


class Watched(LinearOperator):
    """An operator that tells how many products with it or its adjoint have been made."""

    def __init__(self, A: Convolution, callback: Callback | None, progress: bool) -> None:
        super().__init__(A.dtype, A.shape)  # type: ignore[call-arg]
        self._operator, self._callback, self._products = A, callback, 0
        self._bar = iter(track(itertools.count(), "products", True)) if progress else None

    def _note(self) -> None:
        self._products += 1
        if self._callback is not None:
            self._callback(self._products)
        if self._bar is not None:
            next(self._bar)

    def _matvec(self, x: Array) -> Array:
        self._note()
        return self._operator.matvec(x)  # type: ignore[no-any-return]

    def _rmatvec(self, x: Array) -> Array:
        self._note()
        return self._operator.H.matvec(x)  # type: ignore[no-any-return]


def largest(
    A: Convolution,
    k: int,
    rtol: float,
    maxiter: int | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    near: Array | None = None,
) -> Pairs:
    """Return the k largest singular values and their right vectors, k < min(A.shape).

    Lanczos' method for AᴴA or AAᴴ (implicitly restarted: Lehoucq, Sorensen & Yang 1998, ARPACK Users' Guide). It begins
    with a random vector, the same in each call, and mostly with `near`, if that is given. Each value is within the residual
    of a singular value of A; that none above them was missed is not proven.

    Raises
    ------
    RuntimeError
        If the residual is not below the tolerance after all iterations.
    """
    start = np.random.default_rng(0).standard_normal(min(A.shape)).astype(A.dtype)
    if near is not None:
        image = near if len(start) == A.shape[1] else A @ near
        start = start * (_MIXED * np.linalg.norm(image) / np.linalg.norm(start)) + image
    watched = Watched(A, callback, progress)
    if not np.any(A @ (start if len(start) == A.shape[1] else A.H @ start)):
        return Pairs(np.zeros(k), np.eye(A.shape[1], k, dtype=A.dtype), 0.0)
    try:
        _, values, rows = svds(watched, k, tol=rtol, v0=start, maxiter=maxiter, return_singular_vectors="vh")  # type: ignore[arg-type]
    except ArpackNoConvergence as error:
        raise RuntimeError(_message("largest", k, rtol, f"{len(error.eigenvalues)} of them have converged")) from error
    order = np.argsort(values)[::-1]
    return _checked(A, values[order], rows[order].conj().T, "largest", rtol)


def smallest(A: Convolution, k: int, rtol: float, norm: float) -> Pairs:
    """Return the k smallest singular values, descending, and their right vectors, k < min(A.shape).

    The Gram matrix is factored and inverted at 0 (shift–invert; the same reference), which keeps about half of the
    digits: values below √eps·‖A‖ are not told from 0. `norm` is about that of A.
    """
    tall = A.shape[0] >= A.shape[1]
    gram = (A if tall else A.H).gram("csc")
    shift = -_SHIFT * norm**2
    shifted = gram.copy()
    shifted.setdiag(gram.diagonal() - shift)
    solve = splu(shifted, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve
    inverse = LinearOperator(gram.shape, matvec=solve, dtype=gram.dtype)
    start = np.random.default_rng(0).standard_normal(gram.shape[0]).astype(gram.dtype)
    try:
        _, vectors = eigsh(gram, k, sigma=shift, OPinv=inverse, v0=start, tol=rtol**2)
    except ArpackNoConvergence as error:
        raise RuntimeError(_message("smallest", k, rtol, f"{len(error.eigenvalues)} of them have converged")) from error
    operator = A if tall else A.H
    # Of all vectors in their span: more exact than the square roots of eigenvalues.
    _, values, mixed = np.linalg.svd(np.stack([operator @ vector for vector in vectors.T], axis=1), full_matrices=False)
    return _checked(operator, values, vectors @ mixed.conj().T, "smallest", rtol, norm)


def _checked(A: Any, values: Array, vectors: Array, which: str, rtol: float, norm: float | None = None) -> Pairs:
    """Return values and vectors, or raise if their residual is too large."""
    scale = max(float(values[0]) if norm is None else norm, np.finfo(np.float64).tiny) ** 2
    residuals = [
        np.linalg.norm(A.H @ (A @ vector) - value**2 * vector) for value, vector in zip(values, vectors.T, strict=True)
    ]
    residual = float(max(residuals)) / scale
    limit = _SLACK * max(rtol, sqrt(np.finfo(np.float64).eps) if which == "smallest" else 1e-14)
    if not residual <= limit:
        raise RuntimeError(_message(which, len(values), rtol, f"the residual is {residual:.2g}, more than {limit:.2g}"))
    return Pairs(values, vectors, residual)


def _message(which: str, k: int, rtol: float, what: str) -> str:
    return f"the {k} {which} singular values did not converge to rtol={rtol:.2g}: {what}; give a larger rtol, or a larger k"
