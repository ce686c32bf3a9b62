"""Singular values by structure and by iteration, against LAPACK on the dense W."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat import Convolution, TransposedConvolution, spectra
from convmat.geometry import PADDING_MODES
from convmat.spectra import _blocks, _bounds, _lanczos, _ways
from convmat.spectra._parts import part_of
from tests.spectra.matrices import dense, operators, scale, wide_operators

RNG = np.random.default_rng(11)


def normal(shape, dtype="float64"):
    values = RNG.standard_normal(shape)
    return (values + 1j * RNG.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def even(shape, axes):
    kernel = normal(shape)
    for axis in axes:
        kernel = kernel + np.flip(kernel, axis)
    return kernel


@given(st.one_of(operators(), wide_operators()), st.sampled_from([1, _blocks._BYTES]))
def test_all_values_are_those_of_lapack(A, at_once):
    expected = np.linalg.svd(dense(A), compute_uv=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_blocks, "_BYTES", at_once)
        values = spectra.singular_values(A)
        largest = spectra.norm(A)
    assert values.shape == (min(A.shape),)
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12 * scale(A))
    assert largest == pytest.approx(expected[0], rel=1e-12, abs=1e-12 * scale(A))


# Each structure: what finds its values, how many factors it has, and an operator.
STRUCTURES = [
    ("FOURIER", 1, lambda: Convolution(normal((3, 2, 3, 2)), (2, 6, 8), padding=((1, 1), (0, 1)), padding_mode="circular")),
    ("FOURIER", 1, lambda: Convolution(normal((3, 2, 3, 3), "D"), (2, 6, 8), stride=(2, 4), padding=((1, 0), (2, 0)),
                                       dilation=(1, 2), padding_mode="circular")),
    ("FOURIER", 1, lambda: TransposedConvolution(normal((4, 3, 5)), (4, 4), stride=3, groups=2, padding=1,
                                                 padding_mode="circular")),
    ("FOURIER", 1, lambda: Convolution(normal((5, 7)), (3, 4), padding=((2, 2), (3, 3)), padding_mode="circular")),
    ("FOURIER", 3, lambda: Convolution(normal((8, 4, 1, 1)), (8, 3, 5), groups=2)),  # both axes, and the channels
    ("COSINE", 1, lambda: Convolution(even((3, 2, 3, 4), (2, 3)), (2, 5, 6), padding=((2, 2), (3, 3)), dilation=2,
                                      padding_mode="symmetric")),
    ("DENSE", 2, lambda: Convolution(np.multiply.outer(normal(3), normal(4)), (7, 9), stride=(1, 2), padding=2,
                                     padding_mode="reflect")),
    ("DENSE", 3, lambda: Convolution(np.multiply.outer(normal((2, 3)), np.multiply.outer(normal(3), normal(2))), (3, 5, 6),
                                     padding=1, padding_mode="replicate")),
    ("DENSE", 2, lambda: Convolution(normal((2, 3, 1, 4)), (3, 5, 7), stride=(2, 1), padding=((2, 1), (0, 2)))),
    ("DENSE", 1, lambda: Convolution(normal((3, 3)), (6, 6), padding=1)),
]  # fmt: skip


@pytest.mark.parametrize(("way", "factors", "make"), STRUCTURES)
def test_each_structure_is_found(way, factors, make):
    A = make()
    part = part_of(A)
    found = part.pieces()[0]
    assert len(found) == factors
    assert _ways.way_of(found[0]).name == way
    np.testing.assert_allclose(
        spectra.singular_values(A), np.linalg.svd(dense(A), compute_uv=False), rtol=0, atol=1e-12 * scale(A)
    )


LARGE = [
    lambda: Convolution(normal((4, 3, 3, 3)), (3, 10, 11), padding=1, padding_mode="reflect"),
    lambda: Convolution(normal((3, 4, 3, 3), "complex64"), (4, 10, 9), stride=2),
    lambda: TransposedConvolution(normal((4, 4, 3, 3)), (4, 6, 7), stride=2, groups=2),
    lambda: Convolution(normal((2, 40), "float32"), (9, 60), padding=((1, 1), (20, 20))),
]


@pytest.mark.parametrize("make", LARGE)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_a_few_values_of_a_large_matrix(make, k, monkeypatch):
    monkeypatch.setattr(_ways, "DENSE", 5)  # so that these matrices are large
    A = make()
    expected = np.linalg.svd(dense(A), compute_uv=False)
    np.testing.assert_allclose(spectra.singular_values(A, k), expected[:k], rtol=1e-9)
    smallest = spectra.singular_values(A, k, which="smallest")
    np.testing.assert_allclose(smallest, expected[len(expected) - k :], rtol=0, atol=1e-9 * expected[0])
    assert spectra.norm(A, rtol=1e-4) == pytest.approx(expected[0], rel=1e-4)


def test_groups_may_have_fewer_values_than_are_asked_for(monkeypatch):
    monkeypatch.setattr(_ways, "DENSE", 0)
    A = Convolution(normal((6, 2, 3)), (6, 5), groups=3)
    expected = np.linalg.svd(dense(A), compute_uv=False)
    np.testing.assert_allclose(spectra.singular_values(A, 15), expected[:15], rtol=1e-9)


@pytest.mark.parametrize("threshold", [5, 1500])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_many_groups_and_channels_alone(padding_mode, threshold, monkeypatch):
    monkeypatch.setattr(_ways, "DENSE", threshold)
    monkeypatch.setattr(_bounds, "DENSE", threshold)
    kernel = normal((9, 1, 3, 3)) * np.geomspace(1, 3, 9)[RNG.permutation(9)].reshape(9, 1, 1, 1)
    for A in (
        Convolution(kernel, (9, 8, 8), padding=1, groups=9, padding_mode=padding_mode),
        Convolution(np.concatenate([kernel[:3], 0 * kernel[:1], kernel[:2]]), (6, 9, 9), padding=1, groups=6),
        Convolution(normal((20, 24, 1, 1)), (24, 3, 4), padding=0, padding_mode=padding_mode),
        Convolution(normal((10, 12, 1, 1)), (24, 5, 5), stride=2, padding=1, groups=2, padding_mode=padding_mode),
    ):
        expected = np.linalg.norm(A.toarray(), 2)
        assert spectra.norm(A) == pytest.approx(expected)
        lower, upper, _ = spectra.norm_bounds(A, rtol=1e-4)
        assert lower <= expected * (1 + 1e-14)
        assert expected <= upper * (1 + 1e-14)
        assert upper <= lower * (1 + 1e-4)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("padding", [(1, 0), (0, 1), (2, 0)])
def test_a_single_tap_that_is_moved(mode, padding):
    """As many outputs as inputs, of which the transpose keeps the first; where nothing is shown again, one input is lost."""
    A = TransposedConvolution([2.0], 5, padding=(padding,), dilation=4, output_shape=(5,), padding_mode=mode)
    np.testing.assert_allclose(spectra.singular_values(A), np.linalg.svd(A.toarray())[1], atol=1e-12)


def test_small_and_huge_kernels():
    kernel = normal((3, 3))
    ordinary = spectra.norm(Convolution(kernel, (8, 8), padding=1))
    for value in (1e-300, 1e-200, 1e200, 1e300):
        A = Convolution(kernel * value, (8, 8), padding=1)
        assert spectra.norm(A) / value == pytest.approx(ordinary, rel=1e-12)
        lower, upper, _ = spectra.norm_bounds(A, rtol=1e-9)
        assert lower / value <= ordinary * (1 + 1e-14) <= upper / value * (1 + 1e-13)
    assert spectra.norm(Convolution(np.full((3, 3), 5e-324), (8, 8), padding=1)) == pytest.approx(
        9 * 5e-324, abs=2e-323
    )


def test_a_matrix_of_zeros_that_is_large(monkeypatch):
    monkeypatch.setattr(_ways, "DENSE", 5)
    A = Convolution(np.zeros((2, 2, 3, 3)), (2, 8, 8), padding=1)
    assert spectra.norm(A) == 0
    np.testing.assert_array_equal(spectra.singular_values(A, 3), 0)
    only_padding = Convolution([1.0, 0.0, 0.0], 1, padding=((2, 0),))
    assert spectra.norm(only_padding) == 0


def test_a_single_row():
    A = Convolution(normal((5, 4)), (5, 4))
    assert spectra.norm(A) == pytest.approx(np.linalg.norm(A.kernel))


def test_products_are_told(monkeypatch):
    monkeypatch.setattr(_ways, "DENSE", 5)
    products = []
    spectra.norm(Convolution(normal((3, 3)), (9, 9)), callback=products.append)
    assert products == list(range(1, len(products) + 1))
    assert len(products) > 5


def test_a_bar_of_products(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(_ways, "DENSE", 5)
    spectra.norm(Convolution(normal((3, 3)), (9, 9)), progress=True)
    assert "products" in capsys.readouterr().err


def test_what_does_not_converge_says_so():
    A = Convolution(normal((3, 3)), (30, 30), padding=1)
    with pytest.raises(
        RuntimeError, match=r"the 3 largest singular values did not converge to rtol=1e-10: .* larger rtol"
    ):
        _lanczos.largest(A, 3, 1e-10, maxiter=1)


def test_a_residual_that_is_too_large_is_no_result():
    A = Convolution(normal((3, 3)), (9, 9), padding=1)
    with pytest.raises(RuntimeError, match="the residual is"):
        _lanczos._checked(A, np.array([1.0]), np.eye(81, 1), "largest", 1e-10)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A: spectra.singular_values(A, 0), ValueError, r"k must be between 1 and min\(A.shape\) = 36, got 0"),
        (lambda A: spectra.singular_values(A, 37), ValueError, "got 37"),
        (lambda A: spectra.singular_values(A, 1.5), TypeError, "k must be an int"),
        (lambda A: spectra.singular_values(A, which="biggest"), ValueError, "which must be one of largest, smallest"),
        (lambda A: spectra.norm(A, rtol=0), ValueError, "rtol must be between 0 and 1, got 0"),
        (lambda A: spectra.norm(A, rtol="tight"), TypeError, "rtol must be a number, got 'tight'"),
        (
            lambda A: spectra.norm(A.tocsr()),
            TypeError,
            "A must be a Convolution or a TransposedConvolution, got csr_array",
        ),
        (lambda A: spectra.norm(A.with_kernel(A.kernel * np.nan)), ValueError, "A must have a kernel of finite values"),
        (lambda A: spectra.norm_bounds(A, method="guess"), ValueError, "method must be one of auto, torus"),
        (lambda A: spectra.rank(A, rtol=2), ValueError, "rtol must be between 0 and 1, got 2"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(Convolution(np.ones((3, 3)), (6, 6), padding=1))


def test_all_values_of_a_matrix_that_is_too_large():
    A = Convolution(normal((64, 64, 3, 3)), (64, 256, 256), padding=1)
    with pytest.raises(MemoryError, match=r"the dense 4194304 × 4194304 matrix takes .* singular_values\(A, k\)"):
        spectra.singular_values(A)


def test_explain_tells_what_is_used():
    text = str(spectra.explain(Convolution(np.ones((3, 3)), (40, 40), padding=1)))
    assert text.count("LAPACK") == 4  # two factors, each all values and a few
    text = str(spectra.explain(Convolution(normal((64, 64, 3, 3)), (64, 100, 100), padding=1)))
    assert "ARPACK" in text
    assert "Cholesky takes too much" in text
