"""What the tests of convmat.cupy share: a device or a stand-in for CuPy on which the kernels run, and constructions."""

import sys
from contextlib import nullcontext

import numpy as np
import pytest

from tests.cases import assert_close, values
from tests.cupy import stand_in


def find_device():
    """Return CuPy, what makes it importable, and whether there is a device."""
    try:
        import cupy
    except ImportError:
        pass
    else:
        if cupy.is_available():
            return cupy, nullcontext, True
    if stand_in.COMPILER is None:
        pytest.skip(
            "there is neither a CUDA device nor g++ to compile the kernels for the host", allow_module_level=True
        )
    for name in [name for name in sys.modules if name.startswith("convmat.cupy")]:
        del sys.modules[name]  # imported with a CuPy that has no device
    return stand_in.MODULES["cupy"], stand_in.installed, False


cupy, importable, DEVICE = find_device()
with importable():
    import convmat.cupy as device
    from convmat.cupy._engines import ENGINES
    from convmat.cupy._operators import Convolution, TransposedConvolution

ALWAYS = [name for name in ENGINES if name != "torch"]
FIXED = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "padding_mode": "reflect"}
needs_device = pytest.mark.skipif(not DEVICE, reason="there is no CUDA device, or no CuPy")


def matrix_of(case, kernel, transposed, **options):
    kernel = cupy.asarray(kernel)
    if transposed:
        return device.transposed_convolution_matrix(
            kernel, case.output_shape, output_shape=case.input_shape, **case.options, **options
        )
    return device.convolution_matrix(kernel, case.input_shape, **case.options, **options)


def operator_of(case, kernel, engine="auto", transposed=False, **options):
    kernel, options = cupy.asarray(kernel), {**case.options, **options, "engine": engine}
    if transposed:
        return TransposedConvolution(kernel, case.output_shape, output_shape=case.input_shape, **options)
    return Convolution(kernel, case.input_shape, **options)


def make(engine="auto", flip=False, dtype="float64"):
    return Convolution(cupy.asarray(values((4, 3, 3, 2), dtype)), (3, 7, 6), flip=flip, engine=engine, **FIXED)


def assert_same_matrix(actual, expected):
    """Compare with a dense matrix, and check that what is stored is canonical."""
    actual = actual.get()
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    ascending = np.diff(actual.indices) > 0
    ends = actual.indptr[1:-1]
    ascending[ends[(ends > 0) & (ends < actual.nnz)] - 1] = True  # from one row to the next
    assert ascending.all()
    assert_close(actual.toarray(), expected, np.abs(expected).max(initial=0))
