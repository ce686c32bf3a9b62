"""What the tests of inverse problems draw, and the dense algebra that they compare with."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from convmat.inverse._penalties import WORDS, Borders
from tests.spectra.matrices import operators

CONDITION = 1e8  # of the normal equations: beyond it dense algebra is no reference


def differences(shape, word, borders):
    """Return the matrices of a penalty for arrays (C, *sizes), from the definition: NumPy pads and subtracts."""
    size = int(np.prod(shape))
    images = np.eye(size).reshape(size, *shape)
    axes = [axis for axis in range(2, len(shape) + 1) if shape[axis - 1] > 1]
    names = {"zeros": "constant", "circular": "wrap", "replicate": "edge"}
    mode = names.get(borders.mode, borders.mode)

    def padded(before, after, axis):
        widths = [(0, 0)] * images.ndim
        widths[axis] = before, after
        return np.pad(images, widths, mode=mode)

    if word == "identity":
        return [np.eye(size)]
    if word == "gradient":
        before = int(borders.is_empty)
        return [np.diff(padded(before, 1, axis), axis=axis).reshape(size, -1).T for axis in axes]
    total = sum((np.diff(padded(1, 1, axis), 2, axis=axis) for axis in axes), np.zeros_like(images))
    return [total.reshape(size, -1).T] if axes else []


def by_dense_algebra(A, y, weight, word):
    """Return the solution, and the condition number of the normal equations."""
    wide = A.with_kernel(A.kernel.astype(np.result_type(A.dtype, np.float64)))
    W = wide.toarray()
    shape = A.input_shape if A.geometry.has_channels else (1, *A.input_shape)
    matrix = W.conj().T @ W
    for L in differences(shape, word, Borders.of(A.geometry.axes)):
        matrix = matrix + weight * L.T @ L
    condition = np.linalg.cond(matrix)
    return np.linalg.lstsq(matrix, W.conj().T @ y.ravel(), rcond=None)[0].reshape(A.input_shape), condition


@st.composite
def problems(draw):
    """Draw an operator, data, a λ of about its size and a penalty."""
    A = draw(operators(120))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    y = rng.standard_normal(A.output_shape)
    if draw(st.booleans()) and draw(st.booleans()):
        y = y + 1j * rng.standard_normal(A.output_shape)
    largest = abs(A.kernel).max(initial=0)
    assume(largest > 0)
    return A, y, float(10.0 ** draw(st.integers(-3, 1)) * largest**2), draw(st.sampled_from(WORDS))
