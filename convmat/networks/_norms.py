"""Bounds of the norms of a network's matrices, and of how much the network may amplify a change."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, prod, sqrt
from typing import Any, NamedTuple

import numpy as np

from convmat.networks._convolution_map import ConvolutionMap
from convmat.networks._functions import Elementwise, Extremum
from convmat.networks._groups import MaxPool, Softmax
from convmat.networks._maps import AxisProducts, Diagonal, Gather, LinearMap
from convmat.networks._stages import Stage
from convmat.spectra import norm_bounds

_SMALL = 1 << 22  # numbers of a dense matrix whose singular values are computed
_MARGIN = 1e-9  # relative, many times what LAPACK and the sums here are off


def map_norm_bound(each: LinearMap) -> float:
    """Return an upper bound of a map's spectral norm."""
    if isinstance(each, Diagonal):
        return float(abs(each.factors).max(initial=0.0))
    if isinstance(each, Gather):
        taken = each.sources[each.sources >= 0]
        return sqrt(np.bincount(taken, minlength=1).max()) * (1 + _MARGIN)
    if isinstance(each, AxisProducts):
        return prod(_matrix_norm_bound(factor) for factor in each.factors.values())
    if isinstance(each, ConvolutionMap):
        return float(norm_bounds(each.operator).upper)
    return _schur(each.tocsr())


def stage_norm_bound(stage: Stage) -> float:
    """Return an upper bound of the norm of an affine stage's matrix, or of a function's derivative anywhere.

    Of several inputs it is the root of the sum of squares, but where none shares an output with another, as when they are
    joined: then it is the largest.
    """
    if stage.function is None:
        bounds = [map_norm_bound(each) for each in stage.maps]
        if _is_joined(stage):
            return max(bounds)
        return sqrt(sum(bound**2 for bound in bounds)) * (1 + _MARGIN)
    function = stage.function
    if isinstance(function, Elementwise):
        return function.steepness()
    if isinstance(function, MaxPool):
        overlaps = [-(-((axis.taps - 1) * axis.dilation + 1) // axis.stride) for axis in function.axes]
        return sqrt(prod(min(axis.taps, overlap) for axis, overlap in zip(function.axes, overlaps, strict=True)))
    if isinstance(function, Extremum):
        return 1.0
    return 0.5 * (1 + _MARGIN) if type(function) is Softmax else inf


def lipschitz_bound(stages: Sequence[Stage], target: int, pairs: bool) -> float:
    """Return a bound of ‖f(x) − f(z)‖/‖x − z‖: norms of stages multiplied, those of branches added as they meet.

    With `pairs`, two matrices with a function of each number between them are bounded together as well, where that is less.
    """
    bounds = {0: 1.0}
    for number, stage in enumerate(stages, 1):
        incoming = [bounds[value.number] for value in stage.inputs]
        if stage.function is None and len(stage.maps) > 1 and not _is_joined(stage):
            parts = [map_norm_bound(each) * bound for each, bound in zip(stage.maps, incoming, strict=True)]
            bounds[number] = sum(parts) * (1 + _MARGIN)
        else:
            bounds[number] = stage_norm_bound(stage) * sqrt(sum(bound**2 for bound in incoming)) * (1 + _MARGIN)
        before = _pair(stages, stage) if pairs else None
        if before is not None:
            together = _pair_bound(before, stage) * bounds[before.first.inputs[0].number]
            bounds[number] = min(bounds[number], together * (1 + _MARGIN))
    return float(bounds[target])


class _Pair(NamedTuple):
    """What comes before a stage: a matrix, and perhaps a function whose slopes lie between two numbers."""

    first: Stage
    slopes: tuple[float, float] | None


def _pair(stages: Sequence[Stage], stage: Stage) -> _Pair | None:
    if not _is_matrix(stage) or not (number := stage.inputs[0].number):
        return None
    before, slopes = stages[number - 1], None
    if isinstance(before.function, Elementwise) and before.inputs[0].number:
        slopes, before = before.function.slope_range, stages[before.inputs[0].number - 1]
    return _Pair(before, slopes) if _is_matrix(before) else None


def _is_matrix(stage: Stage) -> bool:
    return stage.function is None and len(stage.maps) == 1 and not isinstance(stage.maps[0], Gather | Diagonal)


def _pair_bound(before: _Pair, stage: Stage) -> float:
    """Return a bound of ‖W₂·D·W₁‖ for any diagonal D with entries between a and b.

    D is (a + b)/2·I + (b − a)/2·S with ‖S‖ ≤ 1, so that it is at most |a + b|/2·‖W₂W₁‖ + (b − a)/2·‖W₂‖·‖W₁‖ (after
    Combettes & Pesquet, "Lipschitz certificates for layered network structures driven by averaged activation operators",
    SIAM J. Math. Data Sci. 2, 2020).
    """
    second, first = stage.maps[0], before.first.maps[0]
    low, high = before.slopes or (1.0, 1.0)
    if not (isfinite(low) and isfinite(high)) or second.shape[0] * first.shape[1] > _SMALL:
        return inf
    product = _norm_of(second.tocsr() @ first.tocsr())
    return abs(low + high) / 2 * product + (high - low) / 2 * map_norm_bound(second) * map_norm_bound(first)


def _norm_of(matrix: Any) -> float:
    return float(np.linalg.norm(matrix.toarray().astype(np.float64), 2)) * (1 + _MARGIN)


def _is_joined(stage: Stage) -> bool:
    taken: list[Any] = [each.sources >= 0 for each in stage.maps if isinstance(each, Gather)]
    return len(taken) == len(stage.maps) and bool(np.sum(taken, axis=0).max(initial=0) <= 1)


def _matrix_norm_bound(matrix: Any) -> float:
    if isinstance(matrix, np.ndarray) and matrix.size <= _SMALL:
        return float(np.linalg.norm(matrix.astype(np.float64), 2)) * (1 + _MARGIN)
    return _schur(matrix)


def _schur(matrix: Any) -> float:
    """Return √(‖M‖₁·‖M‖∞) (Schur's test), or the root of the sum of squares, if that is less."""
    magnitudes = abs(matrix.astype(np.float64))
    rows, columns = np.asarray(magnitudes.sum(axis=1)), np.asarray(magnitudes.sum(axis=0))
    frobenius = np.linalg.norm(matrix if isinstance(matrix, np.ndarray) else matrix.data)
    return min(sqrt(rows.max(initial=0.0) * columns.max(initial=0.0)), float(frobenius)) * (1 + _MARGIN)
