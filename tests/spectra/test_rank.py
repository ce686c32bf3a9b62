"""Condition number, rank and null space against LAPACK, and the gap that they rest on."""

import warnings

import numpy as np
import pytest
from hypothesis import given

from convmat import Convolution, TransposedConvolution, spectra
from convmat.spectra import _ways
from tests.spectra.matrices import dense, operators, scale

RNG = np.random.default_rng(13)
DIFFERENCES = [
    lambda: Convolution([1.0, -1.0], 8, padding=((0, 1),), padding_mode="circular"),
    lambda: Convolution([1.0, 0.0, -1.0], 8, padding=((0, 2),), padding_mode="circular"),
    lambda: Convolution(np.array([1.0, 2.0, 1.0]), (8,), stride=2, padding=((0, 1),), padding_mode="circular"),
    lambda: Convolution(np.array([[1.0, -2.0, 1.0]] * 2)[:, None], (1, 6), padding=1, padding_mode="symmetric"),
    lambda: Convolution(np.array([[1.0, 1.0], [1.0, 1.0]]), (5, 6)),
    lambda: Convolution(
        RNG.standard_normal((2, 3, 3, 3)), (3, 6, 6), stride=2, padding=((0, 1), (1, 0)), padding_mode="circular"
    ),
    lambda: Convolution(
        RNG.standard_normal((4, 2, 2, 2)), (4, 4, 4), groups=2, padding=((0, 1), (0, 1)), padding_mode="circular"
    ),
    lambda: Convolution(np.array([1, 1j, -1, -1j]), 8, padding=((1, 2),), padding_mode="circular"),
    lambda: TransposedConvolution(np.ones((2, 1, 2)), (2, 5), stride=2),
    lambda: TransposedConvolution(np.ones((2, 1, 4)), (2, 4), stride=2, padding=((1, 1),), padding_mode="circular"),
]


@pytest.mark.parametrize("make", DIFFERENCES)
def test_null_spaces(make):
    A = make()
    W = A.toarray()
    space = spectra.null_space(A)
    rank = np.linalg.matrix_rank(W)
    assert spectra.rank(A).rank == rank
    assert space.basis.shape == (W.shape[1] - rank, *A.input_shape)
    assert space.basis.dtype.kind == ("c" if A.dtype.kind == "c" else "f")
    flat = space.basis.reshape(len(space.basis), A.shape[1])
    np.testing.assert_allclose(flat.conj() @ flat.T, np.eye(len(flat)), atol=1e-12)
    np.testing.assert_allclose(W @ flat.T, 0, atol=1e-12)
    assert space.gap.is_clear


@given(operators())
def test_ranks_and_null_spaces_are_those_of_lapack(A):
    W = dense(A)
    values = np.linalg.svd(W, compute_uv=False)
    rtol = 1e-5
    if ((values > 1e-7 * scale(A)) & (values < 1e-3 * scale(A))).any() or values[0] < 1e-3 * scale(A):
        return  # near the threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        space, found = spectra.null_space(A, rtol=rtol), spectra.rank(A, rtol=rtol)
    assert found.rank == np.count_nonzero(values > rtol * values[0])
    assert len(space.basis) == W.shape[1] - found.rank
    flat = space.basis.reshape(len(space.basis), A.shape[1])
    np.testing.assert_allclose(flat.conj() @ flat.T, np.eye(len(flat)), atol=1e-11)
    assert abs(W @ flat.T).max(initial=0) <= 1e-6 * scale(A)


def test_a_blur_has_no_gap_and_is_told_so():
    blur = np.exp(-(np.linspace(-2, 2, 15) ** 2))
    A = Convolution(blur, 200, padding="same", padding_mode="circular")
    with pytest.warns(RuntimeWarning, match=r"there is no gap at the threshold .*: the singular values beside it are"):
        found = spectra.rank(A, rtol=0.05)
    assert not found.gap.is_clear
    assert found.gap.dropped <= found.gap.threshold < found.gap.kept


def test_condition_numbers(monkeypatch):
    A = Convolution(RNG.standard_normal((3, 3)) + np.diag([0, 8, 0]), (12, 12), padding=1)
    expected = np.linalg.cond(A.toarray())
    assert spectra.condition_number(A) == pytest.approx(expected)
    monkeypatch.setattr(_ways, "DENSE", 5)
    assert spectra.condition_number(A) == pytest.approx(expected)
    assert spectra.condition_number(Convolution(np.zeros(3), 8)) == np.inf


def test_a_default_threshold_is_that_of_the_dtype():
    A = Convolution(np.array([1, 1e-9], "float64"), 1, padding=((1, 0),))
    assert spectra.rank(A).rank == 1
    gaps = [spectra.rank(Convolution(np.ones(2, dtype), 4)).gap.threshold for dtype in ("float32", "float64", "int32")]
    assert gaps[0] / gaps[1] == pytest.approx(2.0**29)
    assert gaps[2] == gaps[1]
