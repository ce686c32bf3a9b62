"""The Gram matrix AᴴA: its entries, its pattern, and where it is a convolution."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convmat import Convolution, TransposedConvolution
from convmat.geometry import MODES, PADDING_MODES
from convmat.matrices import _gram, gram_size
from tests.cases import cases

RNG = np.random.default_rng(5)


def numbers(shape, dtype):
    """Return small integers in a dtype, whose products and sums are exact."""
    values = RNG.integers(-4, 5, shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * RNG.integers(-4, 5, shape)
    return values.astype(dtype)


def pattern_of(A):
    """Return the Gram matrix of ones: where it is not 0, rows meet columns."""
    ones = A.with_kernel(np.ones(A.kernel.shape)).tocsr()
    product = ones.T @ ones
    product.sort_indices()
    return product


def check(A):
    W, G, pattern = A.tocsr(), A.gram(), pattern_of(A)
    assert G.dtype == A.dtype
    assert abs(G - W.conj().T @ W).max() == 0
    np.testing.assert_array_equal(G.indptr, pattern.indptr)
    np.testing.assert_array_equal(G.indices, pattern.indices)
    assert G.nnz == gram_size(A.geometry, isinstance(A, TransposedConvolution)).nnz


@given(
    case=cases(),
    dtype=st.sampled_from(["d", "D", "F", "int64"]),
    transposed=st.booleans(),
    flip=st.booleans(),
    conjugated=st.booleans(),
    workers=st.sampled_from([1, 2]),
    block=st.sampled_from([1, 50, _gram._BLOCK]),
)
def test_it_is_the_product_of_the_adjoint_and_the_matrix(case, dtype, transposed, flip, conjugated, workers, block):
    A = case.operator(numbers(case.kernel_shape, dtype), transposed, flip=flip, workers=workers)
    assume(max(A.shape) < 2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gram, "_BLOCK", block)
        check(A.conj() if conjugated else A)


@given(
    taps=st.integers(1, 5),
    size=st.one_of(st.integers(1, 300), st.integers(1, 3000)),
    stride=st.integers(1, 5),
    dilation=st.one_of(st.integers(1, 6), st.integers(1, 5000)),
    padding=st.tuples(*(st.one_of(st.integers(0, 12), st.integers(0, 150), st.integers(0, 1500)),) * 2),
    mode=st.sampled_from(PADDING_MODES),
    extra=st.integers(0, 5),
    transposed=st.booleans(),
)
def test_long_axes(taps, size, stride, dilation, padding, mode, extra, transposed):
    """The middle of a long axis is not listed, but repeated; dilations and padding may reach beyond the input."""
    kernel, limit = numbers(taps, "d"), MODES[mode].limit(size)
    padding = tuple(padding if limit is None else (min(each, limit) for each in padding))
    options = {"stride": stride, "dilation": dilation, "padding": (padding,), "padding_mode": mode}
    try:
        if transposed:
            A = TransposedConvolution(kernel, size, output_padding=min(extra, max(stride, dilation) - 1), **options)
        else:
            A = Convolution(kernel, size, **options)
    except ValueError:
        assume(False)
    check(A)
    check(A.T)


@given(case=cases(), transposed=st.booleans(), dtype=st.sampled_from(["d", "D"]))
def test_the_convolution_that_it_is(case, transposed, dtype):
    A = case.operator(numbers(case.kernel_shape, dtype), transposed)
    assume(max(A.shape) < 2000)
    found = A.gram_convolution()
    if found is not None:
        np.testing.assert_array_equal(found.toarray(), A.gram().toarray())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Convolution, {"padding": "full"}),
        (Convolution, {"padding": "full", "dilation": (2, 1)}),
        (Convolution, {"padding": "same", "padding_mode": "circular"}),
        (Convolution, {"padding": ((2, 0), (0, 2)), "padding_mode": "circular"}),
        (TransposedConvolution, {}),
        (TransposedConvolution, {"stride": 2}),
        (TransposedConvolution, {"stride": (3, 2), "dilation": (1, 3)}),
        (TransposedConvolution, {"padding": 1, "padding_mode": "circular"}),
    ],
)
def test_where_it_is_a_convolution(kind, options):
    A = kind(numbers((4, 2, 3, 3), "D"), (4, 7, 8), groups=2, **options)
    found = A.gram_convolution()
    np.testing.assert_array_equal(found.toarray(), A.gram().toarray())
    assert found.geometry.groups == 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same"},
        {"padding": "full", "stride": 2},
        {"padding": (2, 0)},
        {"padding": ((2, 1), (2, 2))},
        {"padding": "full", "padding_mode": "reflect"},
    ],
)
def test_where_it_is_none(options):
    assert Convolution(np.ones((3, 3)), (8, 8), **options).gram_convolution() is None


def test_a_circle_that_the_kernel_covers_twice():
    assert Convolution(np.ones(6), 3, padding=((3, 2),), padding_mode="circular").gram_convolution() is None


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
def test_formats(format):
    A = Convolution(numbers((3, 2), "D"), (5, 6), padding=1)
    G = A.gram(format)
    assert G.format == format
    np.testing.assert_array_equal(G.toarray(), A.gram().toarray())


def test_a_format_that_there_is_not():
    with pytest.raises(ValueError, match=r"format must be one of .*, got 'ell'"):
        Convolution([1.0], 3).gram("ell")


def test_its_size_is_counted_before_it_is_made():
    A = Convolution(np.ones((64, 64, 3, 3)), (64, 2000, 2000), padding=1)
    size = gram_size(A.geometry, False)
    assert size.nnz == 64 * 64 * (5 * 2000 - 6) ** 2
    with pytest.raises(MemoryError, match=rf"has {size.nnz} nonzeros and needs .*A\.H @"):
        A.gram()


def test_integers_wrap():
    A = Convolution(np.array([100, 100], "int8"), 3)
    assert A.gram().toarray()[1, 1] == np.int64(20000).astype("int8")


def test_an_edge_that_many_outputs_read_through_many_taps():
    A = Convolution(numbers(101, "d"), 130, padding=60, padding_mode="replicate")
    check(A)
    check(A.T)


def test_lists_that_do_not_fit_into_memory_are_refused():
    A = Convolution(np.ones(200_000), 10**6, padding="same")
    with pytest.raises(MemoryError, match=r"listing how rows of the Gram matrix meet takes .*A\.H @"):
        A.gram()
