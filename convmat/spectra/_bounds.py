"""Bounds of the norm of W that are proven, rounding included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from math import inf, prod
from typing import NamedTuple

import numpy as np

from convmat._messages import choose
from convmat.geometry import Array
from convmat.spectra import _lanczos
from convmat.spectra._certificates import copies, gram_proves, is_affordable, is_below, sums_of, torus_bound
from convmat.spectra._lanczos import Callback
from convmat.spectra._packets import largest_group, wave_packet
from convmat.spectra._parts import Operator, Part, compute, part_of
from convmat.spectra._rounding import TINY, UNIT, down, gamma, norm_between, product_norm_up, up
from convmat.spectra._values import check_rtol
from convmat.spectra._ways import DENSE

METHODS = ("auto", "torus", "schur", "cholesky")
_GOAL = 0.9  # of the tolerance, that a bound aims at
_STEP = 30  # by which the distance to the lower bound grows where a factorisation fails
_LEFT = 64 * UNIT  # of a kernel's largest value: what an outer product leaves of it at most, for each axis


class NormBounds(NamedTuple):
    """Bounds of the norm of W.

    Attributes
    ----------
    lower, upper : float
        ``lower ≤ ‖W‖₂ ≤ upper``.
    method : str
        What gave the upper bound; several methods, where it is a product of bounds.
    """

    lower: float
    upper: float
    method: str


def norm_bounds(
    A: Operator,
    *,
    rtol: float = 1e-2,
    method: str = "auto",
    callback: Callback | None = None,
    progress: bool = False,
) -> NormBounds:
    """Return bounds between which the norm of W lies, for certain.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator. Its kernel's values are taken as they are, float32 as well.
    rtol : float
        The width (upper − lower) / lower that is aimed at. The result is wider where no method reaches it within the
        memory and about a minute of work.
    method : {"auto", "torus", "schur", "cholesky"}
        How to find the upper bound; see the Notes. "auto" takes the cheapest that reaches `rtol`, or else the least bound.
    callback, progress
        Of the iteration for the lower bound; see `singular_values`.

    Returns
    -------
    NormBounds
        With the fields `lower`, `upper` and `method`.

    Raises
    ------
    MemoryError
        If the method is "cholesky", and the factor does not fit into memory. No other limit holds it back.
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value, or the kernel has values that are not finite.

    See Also
    --------
    norm : a number close to the norm, without proof.

    Notes
    -----
    Both ends are rounded outwards, with bounds of all rounding errors on the way [1]_. NumPy's products and sums are
    taken to be IEEE ones in any order, and its complex exponential to be within 40 units in the last place.

    *Lower.* ‖W·v‖ / ‖v‖ for one vector v: a wave of the frequency where the kernel's transform is largest, faded at the
    borders, or, where that is not near enough, what LAPACK or a Lanczos iteration finds.

    *Torus.* W with zeros padding is a part of the circulant matrix on a torus that is larger by the padding, with a
    stride that of the strided circulant: its norm is no less. It is the largest norm of small matrices, one for each
    frequency [2]_. At the image's own size this does not hold. Modes that copy inputs are W = V·P, with ‖P‖² the number
    of copies: that factor makes them wide.

    *Schur.* ‖W‖² ≤ ‖W‖₁·‖W‖∞ [1]_.

    *Cholesky.* ‖W‖ ≤ μ where μ²·1 − WᴴW is positive definite. A Cholesky factorisation that succeeds proves it, up to a
    bound of its rounding errors [3]_. It takes the Gram matrix in banded form: N·w² flops for N rows and w diagonals.

    Groups are bounded each for itself, and the largest bound counts. Where a kernel is an outer product, the factors'
    bounds are multiplied, and what the product leaves of the kernel is added.

    References
    ----------
    .. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", SIAM 2002, chapters 3 and 6.
    .. [2] H. Sedghi, V. Gupta, P. M. Long, "The singular values of convolutional layers", ICLR 2019.
    .. [3] S. M. Rump, "Verification of positive definiteness", BIT Numerical Mathematics 46 (2006).

    Examples
    --------
    >>> from convmat import Convolution, spectra
    >>> lower, upper, method = spectra.norm_bounds(Convolution([1.0, -1.0], 3), rtol=1e-9)
    >>> lower < 3**0.5 < upper < lower * (1 + 1e-9)
    True
    """
    part, rtol = part_of(A), check_rtol(rtol)
    method = choose("method", method, METHODS)
    if not part.kernel.any() or not prod(part.shape):
        return NormBounds(0.0, 0.0, "zero")
    bounds = _part_bounds(part, rtol, method, callback, progress)
    left = _conversion(A) and _conversion(A) * max(sums_of(group).norm for group in part.groups())
    lower, upper = max(0.0, down(bounds.lower - left) * part.scale), up(bounds.upper + left) * part.scale
    return NormBounds(max(0.0, down(lower)), up(upper), bounds.method)


def _part_bounds(part: Part, rtol: float, method: str, callback: Callback | None, progress: bool) -> NormBounds:
    """Return bounds of the largest norm of all groups: those of the likely one, widened by what is not proven to be less."""
    likely = largest_group(part)
    bounds = _group_bounds(part.groups()[likely], rtol, method, callback, progress)
    rest = part.without(likely)
    if not rest.kernel.any() or is_below(rest, bounds.upper):
        return bounds._replace(upper=bounds.upper * (1 + 32 * UNIT))
    for group in rest.groups():
        if group.kernel.any() and not is_below(group, bounds.upper):
            own = _group_bounds(group, rtol, method, callback, progress)
            if own.upper > bounds.upper:
                bounds = bounds._replace(upper=own.upper, method=own.method)
            bounds = bounds._replace(lower=max(bounds.lower, own.lower))
    return bounds._replace(upper=bounds.upper * (1 + 32 * UNIT))


def _conversion(A: Operator) -> float:
    """Return the relative error of the kernel in double precision."""
    return 2 * UNIT if A.dtype.kind in "iu" and A.dtype.itemsize == 8 else 0.0


def _group_bounds(group: Part, rtol: float, method: str, callback: Callback | None, progress: bool) -> NormBounds:
    """Return bounds of the norm of a single group."""
    factors = group.factors()
    if len(factors) == 1 or method != "auto":
        return compute(group, lambda: _bounds(group, rtol, method, callback, progress))
    each_rtol = rtol / len(factors) / 2
    bounds = [compute(each, partial(_bounds, each, each_rtol, method, callback, progress)) for each in factors]
    # What the outer product leaves of the kernel, as the norm of a convolution with it.
    outer, inner = group.kernel.shape[1:3]
    taps, shown = prod(axis.taps for axis in group.axes), prod(map(copies, group.axes))
    left = _LEFT * len(factors) * 2.0 * product_norm_up(float(inner * taps), float(outer * taps * shown))
    rounded = 1 + 4 * len(factors) * UNIT
    lower = prod(each.lower for each in bounds) / rounded - left
    upper = prod(each.upper for each in bounds) * rounded + left
    return NormBounds(max(0.0, lower), upper, " and ".join(dict.fromkeys(each.method for each in bounds)))


def _bounds(part: Part, rtol: float, method: str, callback: Callback | None, progress: bool) -> NormBounds:
    """Return bounds of the norm of a single group or factor."""
    if not part.kernel.any():
        return NormBounds(0.0, TINY, "zero")
    lower, uppers = 0.0, {"schur": sums_of(part).norm}
    for vector in _vectors(part, rtol, callback, progress):
        lower = max(lower, rayleigh(part, vector))
        goal = max(lower * (1 + _GOAL * rtol), TINY)
        is_wanted = method == "torus" or (method == "auto" and min(uppers.values()) > goal)
        if is_wanted and "torus" not in uppers:
            uppers["torus"] = torus_bound(part, goal)
        if method == "auto" and min(uppers.values()) <= lower * (1 + rtol):
            break
    if method == "cholesky" or (method == "auto" and min(uppers.values()) > lower * (1 + rtol) and is_affordable(part)):
        uppers["cholesky"] = _by_cholesky(part, max(lower, TINY), goal, min(uppers.values()))
    if method != "auto":
        return NormBounds(lower, uppers.get(method, uppers["schur"]), method)
    best = min(uppers, key=uppers.__getitem__)
    return NormBounds(lower, uppers[best], best)


def _by_cholesky(part: Part, lower: float, goal: float, proven: float) -> float:
    """Return a bound that a few factorisations prove: the goal, or less and less of it; `proven` is a bound already."""
    excess = goal / lower - 1
    if lower <= UNIT * proven:  # W may be zero: what is so much smaller than its taps cannot be proven
        lower, excess = UNIT * proven, 1.0
    while lower * (1 + excess) < proven:
        if gram_proves(part, lower * (1 + excess)):
            return up(lower * (1 + excess))
        excess *= _STEP
    return proven


def _vectors(part: Part, rtol: float, callback: Callback | None, progress: bool) -> Iterator[Array]:
    """Yield inputs that W makes longer by nearly its norm: one that is found fast, then a better one."""
    A, packet = part.operator(), wave_packet(part)
    yield packet
    if part.count <= DENSE or not part.axes:
        rows: Array = np.linalg.svd(A.toarray(), full_matrices=False)[2]
        yield rows[0].conj()
        return
    tolerance = max(min(rtol / 8, 1e-3), 1e-13)
    with suppress(RuntimeError):  # any vector gives a bound
        yield _lanczos.largest(A, 1, tolerance, None, callback, progress, packet).vectors[:, 0]


def rayleigh(part: Part, vector: Array) -> float:
    """Return a lower bound of the norm of a single group: ‖W·v‖ / ‖v‖ less what rounding may have added.

    Each element of the computed W·v is within γ·(|W|·|v|) of the exact one, however it is summed; the engine is one that
    sums products of the kernel and the input, as a Fourier transform does not.
    """
    A = part.operator(engine="gemm")
    x = np.ascontiguousarray(vector, part.kernel.dtype) / np.linalg.norm(vector)
    terms = part.kernel[0, 0].size
    error = gamma(terms, part.kernel.dtype)
    magnitudes = A.with_kernel(abs(A.kernel)) @ abs(x)
    wrong = norm_between(magnitudes)[1] * error * (1 + 8 * error) + TINY
    value = (norm_between(A @ x)[0] - wrong) / norm_between(x)[1]
    return max(0.0, down(value)) if value < inf else 0.0
