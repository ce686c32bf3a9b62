"""How λ is chosen: by the size of the noise, or by cross-validation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from convmat.inverse._solvers import Curve

WORDS = ("discrepancy", "gcv")
_EACH = 2  # values of λ that are tried for each power of ten, before the best one is improved
_RISING, _FLAT = 3, 0.1  # how many of them have to be worse than the best, and by how much the last one, as a logarithm
_CLOSE = 1e-2  # how exactly log10(λ) is found for the discrepancy principle,
_ROUGH = 0.1  # and where the curve is flat
_ROBUST = 0.3  # γ of robust cross-validation; 1 would be the plain function


class Choice(NamedTuple):
    """A value of λ, and what there is to say about it.

    Attributes
    ----------
    weight : float
        λ.
    remark : str
        Why it is not what was asked for, if it is not.
    """

    weight: float
    remark: str = ""


def by_discrepancy(curve: Curve, noise_norm: float, norm: float, lowest: float, highest: float) -> Choice:
    """Return the λ for which ‖A·x − y‖ is `noise_norm` (Morozov 1966); `norm` is that of y."""
    if noise_norm >= norm:
        return Choice(
            np.inf, f"noise_norm is {noise_norm / norm:.3g} times the norm of y, and not less: all of y may be noise"
        )

    def excess(exponent: float) -> float:
        return curve.residual_norm(10.0**exponent) - noise_norm

    # From above: where the noise is, the problem is well conditioned, and below it may be slow to solve.
    high, least = np.log10(highest), np.log10(lowest)
    left = excess(high)
    if left <= 0:
        return Choice(highest, "the residual is at most noise_norm for any λ")
    while left > 0:
        if high <= least:
            return Choice(
                lowest,
                f"noise_norm is {noise_norm / (left + noise_norm):.3g} times the residual for the least λ that was tried",
            )
        low = max(high - 1.0, least)
        left = excess(low)
        high, before = low, high
    return Choice(10.0 ** brentq(excess, low, before, xtol=_CLOSE, rtol=_CLOSE))


def by_cross_validation(curve: Curve, count: int, lowest: float, highest: float) -> Choice:
    """Return the λ with the least robust generalised cross-validation function, for so many data.

    That of Golub, Heath & Wahba (1979), times γ + (1 − γ)·tr(H²)/n (Robinson & Moyeed 1989, Lukas 2006). The plain one takes
    errors that are alike at neighbouring positions for data: those of the borders make its λ too small.
    """

    def score(exponent: float) -> float:
        weight = 10.0**exponent
        trace, of_square = curve.freedom(weight)
        left = max(count - trace, 1e-9 * count)
        factor = _ROBUST + (1 - _ROBUST) * of_square / count
        return float(np.log(max(curve.residual_norm(weight), 1e-300) / left) + np.log(factor) / 2)

    count_steps = max(2, round(_EACH * np.log10(highest / lowest)) + 1)
    steps, scores = np.linspace(np.log10(highest), np.log10(lowest), count_steps), list[float]()
    for step in steps:  # from above, until it has risen for a while: below, the problem may be slow to solve
        scores.append(score(step))
        if len(scores) - 1 - int(np.argmin(scores)) >= _RISING and scores[-1] - min(scores) > _FLAT:
            break
    best = int(np.argmin(scores))
    ends = steps[min(best + 1, len(steps) - 1)], steps[max(best - 1, 0)]
    found = minimize_scalar(score, bounds=ends, method="bounded", options={"xatol": _ROUGH})
    exponent = float(found.x) if found.fun < scores[best] else float(steps[best])
    remark = "" if 0 < best < len(steps) - 1 else "the cross-validation function has its least value at an end"
    return Choice(10.0**exponent, remark)
