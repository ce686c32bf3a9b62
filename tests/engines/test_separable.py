"""The engine `separable`: kernels that are outer products, and only those, against the oracle."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convmat import Convolution, TransposedConvolution
from tests import reference
from tests.cases import assert_close, cases, values

pytest.importorskip("numba")

DTYPES = ["float32", "float64", "complex64", "complex128"]


def outer(lengths, dtype, channels=None, seed=0):
    """Return an outer product of random vectors; with channels, one for each."""
    kernels = []
    for channel in range(channels or 1):
        kernel = np.ones((), dtype)
        for axis, length in enumerate(lengths):
            kernel = np.multiply.outer(kernel, values((length,), dtype, seed + 100 * channel + axis))
        kernels.append(kernel)
    return np.stack(kernels)[:, None] if channels else kernels[0]


@given(
    case=cases(), channels=st.sampled_from([None, 1, 3]), dtype=st.sampled_from(DTYPES), batch=st.integers(0, 3),
    flip=st.booleans(),
)  # fmt: skip
def test_products_equal_the_oracle(case, channels, dtype, batch, flip):
    n = len(case.stride)
    lengths, size = case.kernel_shape[-n:], case.input_shape[-n:]
    assume(sum(length > 1 for length in lengths) > 1)
    size = (channels, *size) if channels else size
    kernel = outer(lengths, dtype, channels)
    options = {**case.options, "groups": channels or 1, "flip": flip}
    A = Convolution(kernel, size, engine="separable", **options)
    plain = {name: value for name, value in options.items() if name != "flip"}
    flipped = np.flip(kernel, tuple(range(-n, 0))) if flip else kernel
    W = reference.matrix(flipped, size, **plain)
    for B, matrix in ((A, W), (A.T, W.T)):
        x = values((batch, B.shape[1]), dtype, 1)
        scale = np.abs(matrix).sum(axis=1).max() * np.abs(x).max(initial=0)
        scale = max(scale, np.abs(kernel).sum() * np.abs(x).max(initial=0))
        out = np.full((batch, *B.output_shape), 77, dtype)
        B.apply(x.reshape(batch, *B.input_shape), out=out)
        assert_close(out.reshape(batch, B.shape[0]), x @ matrix.T, scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_kernels_that_are_not_finite_are_refused_without_a_warning(value, dtype):
    kernel = outer((3, 4), dtype, channels=2)
    kernel[1, 0, 2, 1] = value
    options = {"groups": 2, "padding": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="no outer product of vectors: it has values that are not finite"):
            Convolution(kernel, (2, 9, 9), engine="separable", **options)
        A = Convolution(kernel, (2, 9, 9), **options)
        assert not any(e.chosen for e in A.explain().estimates if e.engine == "separable")
        result = Convolution(kernel, (2, 9, 9), engine="taps", **options).apply(np.ones((2, 9, 9), dtype))
    assert np.isfinite(result[0]).all()
    assert not np.isfinite(result[1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_largest_and_smallest_values(dtype):
    info = np.finfo(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (info.max, info.smallest_subnormal):
            A = Convolution(np.full((3, 3), value, dtype), (9, 9), engine="separable")
            x = np.zeros((9, 9), dtype)
            x[4, 4] = 0.5 if value == info.max else 1
            np.testing.assert_array_equal(A.apply(x)[2:5, 2:5], x[4, 4] * value)
            other = np.full((3, 3), value, dtype)
            other[1, 1] = 0  # what is left of it is less than the largest number, and their sum is more
            with pytest.raises(ValueError, match="no outer product"):
                Convolution(other, (9, 9), engine="separable")


def test_other_kernels_are_refused():
    kernel = outer((5, 5), "float64")
    kernel[2, 3] += 1e-9
    with pytest.raises(ValueError, match=r"engine='separable'.*no outer product of vectors: \d.*e-\d+ of it is left"):
        Convolution(kernel, (20, 20), engine="separable")
    A = Convolution(outer((5, 5), "float64"), (20, 20), engine="separable")
    with pytest.raises(ValueError, match="no outer product"):
        A.with_kernel(kernel)
    with pytest.raises(ValueError, match=r"kernels over several axes, got 5 × 1"):
        Convolution(np.ones((5, 1)), (20, 20), engine="separable")
    with pytest.raises(ValueError, match="one channel in and out of each group, got 2 to 4 in 1"):
        Convolution(np.ones((4, 2, 3, 3)), (2, 20, 20), engine="separable")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_left_may_be_rounding_and_no_more(dtype):
    eps = np.finfo(dtype).eps
    for share, refused in ((0.0, False), (2.0, False), (12.0, True), (40.0, True)):
        kernel = np.ones((3, 3), dtype)
        kernel[0, 0] -= kernel.dtype.type(share * 4.5 * eps)  # two of the nine products differ by as much
        if refused:
            with pytest.raises(ValueError, match="no outer product of vectors"):
                Convolution(kernel, (9, 9), engine="separable")
        else:
            Convolution(kernel, (9, 9), engine="separable")


def test_rank_counts_in_the_dtype_of_the_product():
    # Rounded to single precision it is an outer product; to double it is not.
    kernel = np.multiply.outer(values((9,), "float32"), values((9,), "float32", 1))
    A = Convolution(kernel, (30, 30), engine="separable")
    assert A.apply(np.ones((30, 30), "float32")).dtype == np.float32
    with pytest.raises(ValueError, match="no outer product"):
        A.apply(np.ones((30, 30)))
    B = Convolution(kernel, (30, 30))
    reasons = {e.engine: e.reason for e in B.explain(dtype="float64").estimates}
    assert "no outer product" in reasons["separable"]


@pytest.mark.parametrize("sigma", [0.5, 2.0, 7.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gaussians_in_one_formula_are_recognised(sigma, dtype):
    i, j = np.indices((31, 31)) - 15
    kernel = np.exp(-(i**2 + j**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).astype(dtype)
    A = Convolution(kernel, (64, 64), padding="same", engine="separable")
    x = values((64, 64), dtype)
    scale = np.abs(kernel).sum() * np.abs(x).max()
    assert_close(A.apply(x), Convolution(kernel, (64, 64), padding="same", engine="gemm").apply(x), scale)


@pytest.mark.choice
def test_auto_takes_it_for_large_outer_products_only():
    def chosen(kernel):
        return [e.engine for e in Convolution(kernel, (1024, 1024), padding="same").explain().estimates if e.chosen]

    assert chosen(outer((31, 31), "float64")) == ["separable"] * 2
    assert chosen(outer((3, 3), "float64")) == ["taps"] * 2
    assert "separable" not in chosen(values((31, 31), "float64"))


def test_a_channel_of_zeros_and_one_without():
    kernel = outer((3, 5), "float64", 2)
    kernel[0] = 0
    B = TransposedConvolution(kernel, (2, 6, 7), groups=2, engine="separable")
    x = values((2, 6, 7), "float64", 3)
    np.testing.assert_allclose(B.apply(x).ravel(), B.tocsr() @ x.ravel(), atol=1e-13)


def test_batches_beyond_what_goes_at_once(monkeypatch):
    monkeypatch.setattr(sys.modules["convmat.engines._separable"], "_BETWEEN", 700)
    A = Convolution(outer((3, 2, 4), "float64"), (7, 6, 8), padding=1, engine="separable")
    x = values((5, 7, 6, 8), "float64")
    np.testing.assert_allclose(A.apply(x).reshape(5, -1).T, A.tocsr() @ x.reshape(5, -1).T, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_reaches_its_readers_only(bad):
    A = Convolution(outer((3, 4), "float64"), (20, 17), padding=1, stride=(2, 1), dilation=2, engine="separable")
    W = A.tocsr()
    for B, matrix in ((A, W), (A.T, W.T.tocsr())):
        for place in (0, B.shape[1] // 2, B.shape[1] - 1):
            x = values((B.shape[1],), "float64", 3)
            x[place] = bad
            expected = np.zeros(B.shape[0], bool)
            expected[matrix[:, [place]].nonzero()[0]] = True
            np.testing.assert_array_equal(~np.isfinite(B @ x), expected)


def test_eight_threads_on_one_operator():
    A = Convolution(outer((9, 9), "float64"), (90, 80), padding="same", engine="separable")
    x, W = values((16, 90, 80), "float64"), A.tocsr()
    with ThreadPoolExecutor(8) as pool:
        forward = list(pool.map(A.apply, x))
        backward = list(pool.map(A.T.apply, forward))
    for i in range(len(x)):
        np.testing.assert_allclose(forward[i].ravel(), W @ x[i].ravel(), atol=1e-11)
        np.testing.assert_allclose(backward[i].ravel(), W.T @ (W @ x[i].ravel()), atol=1e-9)
