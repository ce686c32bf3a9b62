"""Kernels from data: least squares, what is determined, covariance."""

import numpy as np
import pytest
from hypothesis import given

from convmat import Convolution, inverse
from tests.spectra.matrices import operators

RNG = np.random.default_rng(0)


@given(operators(120))
def test_kernels_equal_dense_least_squares(A):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, *A.input_shape)), rng.standard_normal((2, *A.output_shape))
    wide = A.with_kernel(A.kernel.astype(np.result_type(A.dtype, np.float64)))
    X = wide.kernel_operator(x).tocsr().toarray()
    found = inverse.estimate_kernel(A, x, y)
    expected, _, rank, values = np.linalg.lstsq(X, y.ravel(), rcond=3.2e-7)
    single = np.result_type(A.dtype, x.dtype) in (np.float32, np.complex64)
    assert found.rank == rank
    np.testing.assert_allclose(found.kernel.ravel(), expected, atol=1e-3 if single else 1e-6)
    few = min(len(values), len(found.singular_values))
    np.testing.assert_allclose(found.singular_values[:few], values[:few], atol=1e-6 * max(1, values[0]))
    met = abs(X).sum(axis=0) > 0
    assert not found.is_determined.ravel()[~met].any()
    weighted = inverse.estimate_kernel(A, x, y, regularization=2.0)
    direct = np.linalg.solve(X.conj().T @ X + 2 * np.eye(X.shape[1]), X.conj().T @ y.ravel())
    np.testing.assert_allclose(weighted.kernel.ravel(), direct, atol=1e-6)


def test_covariance_is_that_of_repeated_experiments():
    A, x = Convolution([[1.0, 2], [3, 4]], (12, 12)), RNG.standard_normal((12, 12))
    kernels, predicted = [], []
    for _ in range(400):
        found = inverse.estimate_kernel(A, x, A.apply(x) + 0.1 * RNG.standard_normal(A.output_shape))
        kernels.append(found.kernel.ravel())
        predicted.append(found.covariance)
    np.testing.assert_allclose(np.cov(np.array(kernels).T), np.mean(predicted, axis=0), atol=3e-5)


def test_taps_that_meet_no_input_are_not_determined():
    A = Convolution([1.0, 2.0, 3.0, 4.0], 3, stride=5, padding=((1, 3),))
    found = inverse.estimate_kernel(A, [1.0, 2.0, 3.0], A @ np.array([1.0, 2.0, 3.0]))
    assert found.rank == 1
    assert not found.is_determined[0]
    assert "1 of 4 numbers are determined" in repr(found)


def test_errors():
    A = Convolution([1.0, 2.0], 5)
    with pytest.raises(ValueError, match=r"y must have shape \(2, 4\), as x has \(2, 5\), got \(4,\)"):
        inverse.estimate_kernel(A, np.ones((2, 5)), np.ones(4))
    with pytest.raises(ValueError, match="x must have finite values"):
        inverse.estimate_kernel(A, np.full(5, np.inf), np.ones(4))
    with pytest.raises(ValueError, match="regularization must be at least 0"):
        inverse.estimate_kernel(A, np.ones(5), np.ones(4), regularization=-1)
