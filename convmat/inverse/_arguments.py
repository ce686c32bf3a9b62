"""Checks of what users give."""

from __future__ import annotations

from typing import Any

import numpy as np

from convmat.geometry import Array, as_array


def non_negative(name: str, value: object) -> float:
    """Return a finite number that is at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")
    return float(value)


def finite_array(name: str, value: Any, shape: tuple[int, ...], has_batch: bool = True) -> Array:
    """Return an array (..., *shape) of finite values, in double precision."""
    array = as_array(name, value)
    outer = array.ndim - len(shape)
    if outer < 0 or (outer and not has_batch) or array.shape[outer:] != shape:
        dots = "..., " if has_batch else ""
        raise ValueError(f"{name} must have shape ({dots}{', '.join(map(str, shape))}), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must have finite values, got NaN or infinite ones")
    return array.astype(np.result_type(array.dtype, np.float64))
