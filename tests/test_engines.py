"""What every engine owes besides the right numbers: which outputs a NaN or Inf reaches, and how much memory it takes."""

import tracemalloc

import numpy as np
import pytest
from cases import convolution_or_skip, values

from convmat import convolution_matrix
from convmat.engines import ENGINES

CASES = {
    "image": ((3, 3), (20, 33), {"padding": 1}),
    "layer": ((16, 16, 3, 3), (16, 12, 17), {"padding": 1}),
    "strided": ((4, 3, 5, 4), (3, 21, 18), {"stride": (2, 3), "padding": 2}),
    "depthwise": ((6, 1, 3, 3), (6, 9, 11), {"groups": 6, "padding": "same", "dilation": 2}),
    "signal": ((7,), (400,), {"padding": ((2, 5),)}),
    "volume": ((2, 2, 3, 2, 3), (2, 6, 7, 8), {"padding": 1}),
    "circular": ((3, 3), (9, 10), {"padding": 1, "padding_mode": "circular"}),
}
GENERAL = [name for name in ENGINES if name != "separable"]  # which takes outer products alone and has tests of its own
LOCAL = ("csr", "gemm", "taps")  # those in which an input reaches nothing but the outputs that read it


def operator(name, engine, **options):
    kernel, size, geometry = CASES[name]
    return convolution_or_skip(values(kernel, "float64"), size, engine=engine, **geometry, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("engine", LOCAL)
@pytest.mark.parametrize("name", CASES)
def test_what_is_not_finite_reaches_its_readers_only(name, engine, bad):
    A = operator(name, engine)
    W = convolution_matrix(A.kernel, A.input_shape, **CASES[name][2])
    for B, matrix in ((A, W), (A.T, W.T.tocsr())):
        for place in (0, B.shape[1] // 2, B.shape[1] - 1):
            x = values((B.shape[1],), "float64", 3)
            x[place] = bad
            reached = ~np.isfinite(B @ x)
            expected = np.zeros(B.shape[0], bool)
            expected[matrix[:, [place]].nonzero()[0]] = True
            np.testing.assert_array_equal(reached, expected)


@pytest.mark.parametrize("engine", [name for name in GENERAL if name != "torch"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_takes_little_memory(engine, transposed):
    kernel = values((16, 8, 3, 3), "float64")
    A = convolution_or_skip(kernel, (8, 300, 300), padding=1, engine=engine, workers=2)
    B = A.T if transposed else A
    x = values((2, *B.input_shape), "float64")
    out = B.apply(x)
    tracemalloc.start()
    B.apply(x, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= (64 << 20) + 2 * (x.nbytes + out.nbytes)


@pytest.mark.parametrize("engine", GENERAL)
def test_no_arrays_give_no_arrays(engine):
    A = operator("layer", engine)
    for B in (A, A.T):
        assert B.apply(np.empty((0, *B.input_shape))).shape == (0, *B.output_shape)
        assert B.apply(np.empty((3, 0, *B.input_shape))).shape == (3, 0, *B.output_shape)
