"""Compiles kernels.cu, for one dtype and one number of axes at a time; CuPy keeps what it has compiled on the disk."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import cupy
import numpy as np

from convmat.cupy._records import declarations

_VALUES = {"f": "float", "d": "double", "F": "Complex<float>", "D": "Complex<double>"}
_MOST_BLOCKS = 1 << 30  # of a grid's first dimension
_MOST_PLANES = 65535  # of its second and third


def source() -> str:
    """Return the text of kernels.cu, behind the structs that it reads."""
    return declarations() + files(__package__).joinpath("kernels.cu").read_text(encoding="utf-8")


def definitions(section: str, dtype: np.dtype[Any], index: np.dtype[Any], axes: int, **more: object) -> tuple[str, ...]:
    """Return the compiler's options for one section of kernels.cu.

    Parameters
    ----------
    section : {"WRITE_ROWS", "PRODUCTS"}
        What to compile.
    dtype, index : dtype
        Of values, and of what counts them.
    axes : int
        Number of spatial axes.
    **more
        Further definitions; None defines a name without a value, tuples become initialisers.
    """
    named = {section: None, "VALUE": _VALUES[dtype.char], "INDEX": "int" if index.itemsize == 4 else "long long"}
    return tuple(_definition(name, value) for name, value in {**named, "AXES": axes, **more}.items())


def _definition(name: str, value: object) -> str:
    if value is None:
        return f"-D{name}"
    return f"-D{name}={{{','.join(map(str, value))}}}" if isinstance(value, tuple) else f"-D{name}={value}"


@cache
def _module(options: tuple[str, ...]) -> Any:
    return cupy.RawModule(code=source(), options=options)


def function(name: str, options: tuple[str, ...]) -> Any:
    """Return a kernel, compiled with options that `definitions` gave."""
    return _module(options).get_function(name)


def launch_jobs(kernel: Any, jobs: int, threads: int, arguments: tuple[Any, ...]) -> None:
    """Run a kernel with one block of threads for each job; blocks go on to further jobs where there are too many."""
    if jobs:
        kernel((min(jobs, _MOST_BLOCKS),), (threads,), arguments)


def launch_planes(
    kernel: Any, shape: tuple[int, int, int], threads: tuple[int, int], arguments: tuple[Any, ...]
) -> None:
    """Run a kernel with one thread for each item of (planes, rows, columns), up to what a grid may have."""
    planes, rows, columns = shape
    if planes and rows and columns:
        across, down = -(-columns // threads[0]), -(-rows // threads[1])
        kernel((across, min(down, _MOST_PLANES), min(planes, _MOST_PLANES)), (*threads, 1), arguments)
