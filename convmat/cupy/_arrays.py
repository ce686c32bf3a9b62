"""Which arrays CuPy's side takes: those on the device, of the dtypes that cupyx's sparse matrices hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from convmat.geometry import check_kernel_shape, check_scalar, check_target

try:
    import cupy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"convmat.cupy needs CuPy, which is not installed ({error}); pip install 'convmat[cupy]' takes it for CUDA 13"
    ) from None

Array = Any  # a cupy.ndarray: CuPy has no types to check against


def as_array(name: str, value: object, host: str) -> Array:
    """Return an array on the device, without a copy where none is needed.

    Parameters
    ----------
    name : str
        What the array is, for messages.
    value : array_like
        An array on the device, or numbers in lists; nothing that NumPy holds is copied to the device unasked.
    host : str
        What takes NumPy's arrays instead, for messages.

    Raises
    ------
    TypeError
        If `value` is an array on the host, or no array of numbers.
    """
    if isinstance(value, cupy.ndarray):
        return value
    if not hasattr(value, "__cuda_array_interface__"):
        if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
            raise TypeError(
                f"{name} must be a cupy.ndarray, got {type(value).__module__}.{type(value).__name__}, which is not on the "
                f"device; copy it there with cupy.asarray, or use {host}"
            )
        try:
            array = np.asarray(value)  # names what is wrong with ragged lists and the like
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__} ({error})") from None
        check_scalar(name, value, array.dtype)
    try:
        return cupy.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__} ({error})") from None


def as_kernel(value: object, host: str) -> Array:
    """Return a kernel on the device, of a dtype that cupyx's sparse matrices hold."""
    array = as_array("kernel", value, host)
    check_inexact("kernel", array.dtype)
    check_kernel_shape(array.shape)
    return array


def check_inexact(name: str, dtype: np.dtype[Any]) -> None:
    """Raise TypeError unless the dtype is one that cupyx's sparse matrices hold."""
    if dtype.char not in "fdFD":
        cast = {"e": "float32", "g": "float64", "G": "complex128"}.get(dtype.char, "float64")
        raise TypeError(
            f"{name} must be of dtype float32, float64, complex64 or complex128 on the device, where sparse matrices hold "
            f"no integers, got {dtype}; cast it, for example to {cast}"
        )


def check_out(out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless a result can be written to an array."""
    if not isinstance(out, cupy.ndarray):
        raise TypeError(f"out must be a cupy.ndarray or None, got {type(out).__module__}.{type(out).__name__}")
    check_target(out, shape, dtype)
