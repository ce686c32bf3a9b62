"""What the tests of spectra compare with: the dense W in double precision, whatever the kernel's dtype."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from convmat import Convolution
from convmat.geometry import MODES, PADDING_MODES
from tests.cases import cases

DTYPES = ("float32", "float64", "complex64", "complex128", "int64")


def dense(A):
    """Return W as a dense array in double precision, taps that read the same input summed in it."""
    wide = np.result_type(A.dtype, np.float64)
    return A.with_kernel(A.kernel.astype(wide)).toarray()


def scale(A):
    """Return an upper bound of the norm of |W|, by which errors are measured: merged taps may cancel."""
    magnitudes = A.with_kernel(abs(A.kernel).astype(np.float64)).toarray()
    return np.sqrt(np.linalg.norm(magnitudes, 1) * np.linalg.norm(magnitudes, np.inf)) if magnitudes.size else 0.0


@st.composite
def operators(draw, largest=200):
    """Draw an operator whose matrix LAPACK decomposes at once."""
    case, dtype, seed = draw(cases()), draw(st.sampled_from(DTYPES)), draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal(case.kernel_shape) * 3
    if dtype.startswith("complex"):
        kernel = kernel + 1j * rng.standard_normal(case.kernel_shape)
    if draw(st.booleans()) and draw(st.booleans()):  # even in each axis
        for axis in range(len(case.kernel_shape) - len(case.stride), len(case.kernel_shape)):
            kernel = kernel + np.flip(kernel, axis)
    A = case.operator(kernel.astype(dtype), draw(st.booleans()), flip=draw(st.booleans()))
    if max(A.shape) > largest:
        assume(False)
    return A.conj() if draw(st.booleans()) else A


@st.composite
def wide_operators(draw):
    """Draw an operator on one axis, whose dilation and padding may reach beyond the input."""
    size, taps = draw(st.integers(1, 250)), draw(st.integers(1, 4))
    mode, stride = draw(st.sampled_from(PADDING_MODES)), draw(st.integers(1, 4))
    dilation = draw(st.one_of(st.integers(1, 6), st.integers(1, 600)))
    limit = MODES[mode].limit(size)
    padding = tuple(draw(st.integers(0, 700 if limit is None else limit)) for _ in range(2))
    kernel = np.random.default_rng(draw(st.integers(0, 1000))).standard_normal(taps)
    try:
        A = Convolution(kernel, size, stride=stride, dilation=dilation, padding=(padding,), padding_mode=mode)
    except ValueError:  # the kernel reaches beyond the padded input
        assume(False)
    return A.T if draw(st.booleans()) else A
