"""The dtypes that kernels and inputs may have; and kernels cast and flipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BOOLS = (bool, np.bool_)
_SUPPORTED = frozenset("bBhHiIlLqQfdFD")  # dtype characters: every integer, float32/64, complex64/128


def as_array(name: str, value: object) -> Array:
    """Return an array of a supported dtype in native byte order, without a copy where none is needed.

    Raises
    ------
    TypeError
        If `value` is no array of integers, float32, float64, complex64 or complex128.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array without a mask, got a masked array; fill it first")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        check_host(name, value)
        raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__} ({error})") from None
    check_dtype(name, array.dtype)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def check_host(name: str, value: object) -> None:
    """Raise TypeError for an array of CuPy, which NumPy does not copy to the host unasked."""
    if type(value).__module__.partition(".")[0] == "cupy":
        raise TypeError(
            f"{name} must be a numpy.ndarray, got a cupy.{type(value).__name__}, which is on the device; copy it to the "
            "host with .get(), or stay there: convmat.cupy.Convolution and the rest of convmat.cupy take it"
        )


def check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    """Raise TypeError unless the dtype is supported."""
    if dtype.char not in _SUPPORTED:
        cast = {"?": "int8", "e": "float32", "g": "float64", "G": "complex128"}.get(dtype.char, "float64")
        raise TypeError(
            f"{name} must be of an integer dtype, float32, float64, complex64 or complex128, got {dtype}; cast it, "
            f"for example to {cast}"
        )


def cast_kernel(kernel: Array, dtype: npt.DTypeLike | None, check: Callable[[str, np.dtype[Any]], None]) -> Array:
    """Return the kernel in the dtype asked for, which `check` raises for if it is not supported.

    Raises
    ------
    TypeError
        If `dtype` is no dtype, is not supported, or is no "same_kind" cast of the kernel's.
    """
    if dtype is None:
        return kernel
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a NumPy dtype, got {dtype!r}") from None
    check("dtype", wanted)
    if not np.can_cast(kernel.dtype, wanted, "same_kind"):
        raise TypeError(f"dtype must be a same_kind cast of the kernel's, {kernel.dtype}, got {wanted}")
    return kernel.astype(wanted.newbyteorder("="), copy=False)


def check_flip(flip: object) -> None:
    """Raise TypeError unless `flip` is a bool."""
    if not isinstance(flip, _BOOLS):
        raise TypeError(f"flip must be a bool, got {flip!r}")


def flip_spatial(kernel: Array, axes: int) -> Array:
    """Return a view of the kernel with its last `axes` axes reversed."""
    backwards: tuple[Any, ...] = (..., *(slice(None, None, -1),) * axes)
    flipped: Array = kernel[backwards]
    return flipped
