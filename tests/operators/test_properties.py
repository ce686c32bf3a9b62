"""What holds of every convolution: matrices compose, circular ones commute with shifts, and products repeat bit by bit."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convmat import Convolution
from convmat.engines import ENGINES
from tests.cases import Case, assert_close, engines_for, skip_if_absent, takes, values


@given(data=st.data(), n=st.integers(1, 3), channels=st.tuples(*[st.integers(1, 3)] * 3))
def test_a_product_of_matrices_is_that_of_the_composed_kernel(data, n, channels):
    """W₂W₁ has the kernel Σ K₂[u] K₁[t] at tap t + u: with full padding and stride 1 nothing is lost between them."""
    inner, between, outer = channels
    size, first_taps, second_taps = (tuple(data.draw(st.integers(1, 3)) for _ in range(n)) for _ in range(3))
    options = {"padding": "full", "dilation": data.draw(st.integers(1, 2))}
    first, second = (
        values((between, inner, *first_taps), "int64", 1),
        values((outer, between, *second_taps), "int64", 2),
    )
    both = (t + u - 1 for t, u in zip(first_taps, second_taps, strict=True))
    composed = np.zeros((outer, inner, *both), "int64")
    for t in np.ndindex(first_taps):
        for u in np.ndindex(second_taps):
            composed[(..., *np.add(t, u))] += second[(..., *u)] @ first[(..., *t)]
    A = Convolution(first, (inner, *size), **options)
    B = Convolution(second, A.output_shape, **options)
    C = Convolution(composed, A.input_shape, **options)
    np.testing.assert_array_equal((B.tocsr() @ A.tocsr()).toarray(), C.toarray())
    x = values((2, *A.input_shape), "int64", 3)
    np.testing.assert_array_equal(B.apply(A.apply(x)), C.apply(x))
    y = values((2, *B.output_shape), "int64", 4)
    np.testing.assert_array_equal(A.T.apply(B.T.apply(y)), C.T.apply(y))


@st.composite
def circular_cases(draw):
    """Draw a circular convolution with one output for every `stride` inputs, without channels."""
    axes = []
    for _ in range(draw(st.integers(1, 2))):
        outputs, stride, taps, dilation = (draw(st.integers(1, most)) for most in (5, 3, 4, 2))
        size, reach = outputs * stride, dilation * (taps - 1)
        total = draw(st.integers(max(0, reach + 1 - stride), reach))
        assume(total <= 2 * size)  # padding goes round once at most, on each side
        before = draw(st.integers(max(0, total - size), min(size, total)))
        axes.append((taps, size, stride, (before, total - before), dilation))
    return Case(*zip(*axes, strict=True), padding_mode="circular")


@given(case=circular_cases(), data=st.data())
def test_a_circular_convolution_commutes_with_shifts(case, data):
    """An input shifted by `stride` times as much gives the shifted output."""
    shift = tuple(data.draw(st.integers(1, 4)) for _ in case.stride)
    far, axes = tuple(np.multiply(shift, case.stride)), tuple(range(len(shift)))
    kernel = values(case.kernel_shape, "float64")
    W = case.operator(kernel).toarray().reshape(*case.output_shape, *case.input_shape)
    np.testing.assert_array_equal(np.roll(W, shift + far, range(W.ndim)), W)
    x = values(case.input_shape, "float64", 1)
    scale = np.abs(kernel).sum() * np.abs(x).max()
    for engine in ["auto", *(name for name in engines_for(case, "float64") if name != "separable")]:
        A = case.operator(kernel, engine=engine)
        assert A.output_shape == tuple(np.floor_divide(case.input_shape, case.stride))
        assert_close(A.apply(np.roll(x, far, axes)), np.roll(A.apply(x), shift, axes), scale)


LARGE = {  # enough work for several threads
    "image": Case((9, 9), (200, 301), (1, 1), ((4, 4), (4, 4)), (1, 1)),
    "layer": Case((24, 16, 3, 3), (16, 60, 61), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "strided": Case((24, 16, 3, 3), (16, 90, 91), (2, 1), ((1, 1), (1, 1)), (1, 1)),
}
# How the work is divided depends on the number of threads: the tiles of `fft`, and the channels that `gemm` scatters of one
# array. All others divide it alike, and each sum is taken in one order.
DIVIDED_BY_WORKERS = (("fft", 1), ("fft", 3), ("gemm", 1))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, engine) for name in LARGE for engine in ENGINES if takes(engine, LARGE[name].geometry, "float32")],
)
def test_products_repeat_bit_by_bit_for_any_number_of_workers(name, engine, dtype, batch):
    skip_if_absent(engine)
    case, bits = LARGE[name], {}
    kernel = np.ones(case.kernel_shape, dtype) if engine == "separable" else values(case.kernel_shape, dtype)
    for workers in (1, 2, 3):
        A = case.operator(kernel, engine=engine, workers=workers)
        for transposed, B in enumerate((A, A.T)):
            x = values((batch, *B.input_shape), dtype, 1)
            alike = transposed, workers * ((engine, batch) in DIVIDED_BY_WORKERS)
            for _ in range(2):
                product = B.apply(x).tobytes()
                assert product == bits.setdefault(alike, product)
