"""What every engine owes besides the right numbers: which outputs a NaN or Inf reaches, and how much memory it takes."""

import tracemalloc

import numpy as np
import pytest

from convmat import Convolution, ConvolutionGeometry, convolution_matrix
from convmat.engines import ENGINES
from convmat.engines._csr import csr
from tests.cases import oracle, skip_if_absent, takes, values

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


def geometry_of(name):
    kernel, size, options = CASES[name]
    return ConvolutionGeometry(kernel, size, **options)


TAKEN = [(name, engine) for name in CASES for engine in ENGINES if takes(engine, geometry_of(name), "float64")]


def operator(name, engine, **options):
    """Return an operator and, from the oracle, its matrix."""
    skip_if_absent(engine)
    shape, size, own = CASES[name]
    kernel = np.ones(shape) if engine == "separable" else values(shape, "float64")
    return Convolution(kernel, size, engine=engine, **own, **options), oracle(kernel, geometry_of(name))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("name", "engine"), TAKEN)
def test_what_is_not_finite_reaches_its_readers_and_no_others_where_an_engine_is_local(name, engine, bad):
    A, W = operator(name, engine)
    for B, matrix in ((A, W), (A.T, W.T.tocsr())):
        for place in (0, B.shape[1] // 2, B.shape[1] - 1):
            x = values((B.shape[1],), "float64", 3)
            x[place] = bad
            reached = ~np.isfinite(B @ x)
            readers = np.zeros(B.shape[0], bool)
            readers[matrix[:, [place]].nonzero()[0]] = True
            assert reached[readers].all()
            if ENGINES[engine].local:
                assert not reached[~readers].any()


@pytest.mark.parametrize(("name", "engine"), [("image", "fft"), ("layer", "winograd4")])
def test_spectra_and_large_tiles_are_not_local(name, engine):
    """What is declared of the engines `fft` and `winograd4` is so; of `torch` nothing is promised."""
    A, W = operator(name, engine)
    for B, matrix in ((A, W), (A.T, W.T.tocsr())):
        x = np.zeros(B.shape[1])
        x[0] = np.nan
        assert np.isnan(B @ x).sum() > matrix[:, [0]].nnz
    assert [name for name, engine in ENGINES.items() if not engine.local] == ["winograd4", "fft", "torch"]


@pytest.mark.parametrize("engine", [name for name in GENERAL if name != "torch"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_takes_little_memory(engine, transposed):
    skip_if_absent(engine)
    kernel = values((16, 8, 3, 3), "float64")
    A = Convolution(kernel, (8, 300, 300), padding=1, engine=engine, workers=2)
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
    A, _ = operator("layer", engine)
    for B in (A, A.T):
        assert B.apply(np.empty((0, *B.input_shape))).shape == (0, *B.output_shape)
        assert B.apply(np.empty((3, 0, *B.input_shape))).shape == (3, 0, *B.output_shape)


ALIKE = {  # kernel, input, options; whose sums have many terms, all alike, so that rounding errors add up
    "channels": ((8, 256, 3, 3), (256, 5, 7), {}),
    "more channels": ((8, 4096, 3, 3), (4096, 3, 4), {}),
    "large kernel": ((60, 90), (62, 93), {}),
    "large kernel, stride": ((60, 90), (64, 99), {"stride": (2, 1)}),
    "signal": ((5000,), (5030,), {}),
    "depthwise": ((2, 1, 5, 1000), (2, 5, 1008), {"groups": 2}),
}


ALIKE_TAKEN = [
    (name, engine)
    for name, (shape, size, options) in ALIKE.items()
    for engine in ENGINES
    if engine != "torch" and takes(engine, ConvolutionGeometry(shape, size, **options), "float32")
]


@pytest.mark.parametrize(("name", "engine"), ALIKE_TAKEN)
@pytest.mark.parametrize("transposed", [False, True])
def test_sums_of_many_terms_stay_accurate(name, engine, transposed, monkeypatch):
    monkeypatch.setattr(csr, "_COMPILED", 1 << 18)
    skip_if_absent(engine)
    shape, size, options = ALIKE[name]
    geometry = ConvolutionGeometry(shape, size, **options)
    A = Convolution(np.full(shape, 0.1, np.float32), size, engine=engine, **options)
    B = A.T if transposed else A
    x = np.full((5, *B.input_shape), 0.1, np.float32)
    # What each result reads: products of what it reads on each axis, in one channel of each that it reads.
    counts = np.array((shape[0] // geometry.groups if transposed else shape[1]) if geometry.has_channels else 1)
    for axis in geometry.axes:
        of_axis = convolution_matrix(np.ones(axis.taps), axis.size, stride=axis.stride)
        counts = np.multiply.outer(counts, of_axis.sum(axis=0 if transposed else 1))
    if not transposed and geometry.has_channels:
        assert counts.flat[0] == np.prod(shape[1:])
    exact = counts * float(np.float32(0.1)) ** 2
    assert np.abs(B.apply(x) - exact).max() <= 1e-5 * exact.max()
