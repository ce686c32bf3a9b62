"""Bounds of the norms of a network's matrices, and of how much the network may amplify a change."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod, sqrt
from typing import Any

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
        taken = [each.sources >= 0 for each in stage.maps if isinstance(each, Gather)]
        if len(taken) == len(bounds) and np.sum(taken, axis=0).max(initial=0) <= 1:
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
    return 0.5 * (1 + _MARGIN) if isinstance(function, Softmax) else inf


def lipschitz_bound(stages: Sequence[Stage], target: int) -> float:
    """Return a bound of ‖f(x) − f(z)‖/‖x − z‖: norms of stages multiplied, those of branches added as they meet."""
    bounds = {0: 1.0}
    for number, stage in enumerate(stages, 1):
        incoming = [bounds[value.number] for value in stage.inputs]
        if stage.function is None and len(stage.maps) > 1 and not _is_joined(stage):
            parts = [map_norm_bound(each) * bound for each, bound in zip(stage.maps, incoming, strict=True)]
            bounds[number] = sum(parts) * (1 + _MARGIN)
        else:
            bounds[number] = stage_norm_bound(stage) * sqrt(sum(bound**2 for bound in incoming)) * (1 + _MARGIN)
    return float(bounds[target])


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
