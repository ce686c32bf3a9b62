"""The dtypes that kernels, inputs and indices have; and kernels cast and flipped."""

from __future__ import annotations

from collections.abc import Callable
from math import frexp, prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import get_index_dtype

from convmat._messages import hint
from convmat._runtime import quietly

Array = npt.NDArray[Any]

_BOOLS = (bool, np.bool_)
_LEAST_EXPONENT = -1022  # of a double whose reciprocal is finite
_MOST = 2**63 - 1  # of int64
_NAMES = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float32", "float64", "complex64", "complex128"),
)
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
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch raises the last one
        check_host(name, value)
        raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__} ({error})") from None
    if not array.ndim:
        check_scalar(name, value, array.dtype)
    check_dtype(name, array.dtype)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_kernel(value: object) -> Array:
    """Return a kernel: `as_array`'s array, of at least one dimension and one element."""
    array = as_array("kernel", value)
    check_kernel_shape(array.shape)
    return array


def check_kernel_shape(shape: tuple[int, ...]) -> None:
    """Raise ValueError for the shape of no kernel."""
    if not shape or 0 in shape:
        raise ValueError(f"kernel must have at least 1 dimension and 1 element, got shape {shape}")


def check_scalar(name: str, value: object, dtype: np.dtype[Any]) -> None:
    """Raise TypeError for what is one object to NumPy and no number."""
    if dtype.char == "O":
        kind = "None" if value is None else f"a {type(value).__name__}"
        hint = "; use its .toarray()" if hasattr(value, "toarray") else ""
        raise TypeError(f"{name} must be an array of numbers, got {kind}{hint}")


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


def as_dtype(dtype: npt.DTypeLike | None, check: Callable[[str, np.dtype[Any]], None] = check_dtype) -> np.dtype[Any]:
    """Return the dtype that a user asks for by name or by type; `check` raises if it is not supported."""
    try:
        wanted = None if dtype is None else np.dtype(dtype)
    except (TypeError, ValueError):
        wanted = None
    if wanted is None:
        raise TypeError(f"dtype must be a NumPy dtype, got {dtype!r}{hint(str(dtype).rpartition('.')[2], _NAMES)}")
    check("dtype", wanted)
    return wanted


def index_dtype(*counts: int) -> np.dtype[Any]:
    """Return the dtype of a sparse matrix' indices: int32 while all counts fit, else int64."""
    return np.dtype(get_index_dtype(maxval=min(max(counts), _MOST)))


def binary_scale(values: Array) -> float:
    """Return the power of two at or below the largest part of finite values, or 1 where all are zero.

    Divided by it they are about 1, without rounding, so that their squares neither overflow nor vanish.
    """
    peak = float(max(abs(values.real).max(initial=0.0), abs(values.imag).max(initial=0.0)))
    return 2.0 ** max(frexp(peak)[1] - 1, _LEAST_EXPONENT) if peak else 1.0


def csr_nbytes(rows: int, columns: int, nnz: int, itemsize: int) -> int:
    """Return the bytes of a matrix in CSR form: nonzeros of so many bytes, indices and row pointers."""
    index = index_dtype(nnz, rows, columns).itemsize
    return nnz * (itemsize + index) + (rows + 1) * index


def cast_kernel(kernel: Array, dtype: npt.DTypeLike | None, check: Callable[[str, np.dtype[Any]], None]) -> Array:
    """Return the kernel in the dtype asked for, which `check` raises for if it is not supported.

    Raises
    ------
    TypeError
        If `dtype` is no dtype, is not supported, or is no "same_kind" cast of the kernel's.
    """
    if dtype is None:
        return kernel
    wanted = as_dtype(dtype, check)
    if not np.can_cast(kernel.dtype, wanted, "same_kind"):
        raise TypeError(f"dtype must be a same_kind cast of the kernel's, {kernel.dtype}, got {wanted}")
    return quietly(kernel.astype, wanted.newbyteorder("="), copy=False)


def check_target(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless an array of any library has a result's dtype and shape, and a place for each of its elements."""
    if out.dtype != dtype:
        raise TypeError(f"out must have dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if not out.flags.c_contiguous and _overlaps(shape, out.strides, out.itemsize):
        raise ValueError(f"out must have memory for each of its elements, got shape {shape} and strides {out.strides}")


def _overlaps(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Tell whether two elements of an array share memory."""
    if 0 in shape:
        return False
    axes = sorted((abs(step), size) for step, size in zip(strides, shape, strict=True) if size > 1)
    extent, nested = itemsize, True
    for step, size in axes:
        nested &= step >= extent  # each axis steps over all that the axes before it reach
        extent += step * (size - 1)
    if nested:
        return False
    if extent < itemsize * prod(shape):  # there is no room
        return True
    # Only what as_strided makes comes here: axes that interleave.
    places = np.zeros(1, np.int64)
    for step, size in axes:
        places = np.add.outer(places, step * np.arange(size)).ravel()
    places.sort()
    return bool((np.diff(places) < itemsize).any())


def check_bool(name: str, value: object) -> None:
    """Raise TypeError unless a value is a bool."""
    if not isinstance(value, _BOOLS):
        raise TypeError(f"{name} must be a bool, got {value!r}")


def flip_spatial(kernel: Array, axes: int) -> Array:
    """Return a view of the kernel with its last `axes` axes reversed."""
    backwards: tuple[Any, ...] = (..., *(slice(None, None, -1),) * axes)
    flipped: Array = kernel[backwards]
    return flipped
