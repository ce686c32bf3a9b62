"""The engine that multiplies spectra: both ways of multiplying them, and tiles of all kinds, beside the matrix."""

import tracemalloc
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat import Convolution, ConvolutionGeometry, convolution_matrix
from convmat.engines._fft import fft, tiles
from tests import reference
from tests.cases import assert_close, cases, many_channels, values

# name: kernel, input, options. Those with more than about 12 channels in each group multiply matrices.
CASES = {
    "many channels": ((20, 14, 5, 4), (14, 40, 37), {"padding": "same"}),
    "groups of many": ((39, 13, 3, 3), (39, 9, 21), {"groups": 3, "padding": 1}),
    "few to many": ((48, 9, 3), (9, 300), {"padding": 4}),
    "many, stride": ((16, 16, 5, 3), (16, 31, 50), {"stride": (3, 2), "padding": 2}),
    "many, dilation": ((13, 17, 2, 3, 2), (17, 9, 7, 12), {"dilation": (3, 1, 2)}),
    "many, one output": ((16, 16, 6, 5), (16, 6, 5), {}),
    "few channels": ((3, 2, 6, 5), (2, 130, 90), {"padding": "full"}),
    "depthwise": ((30, 1, 3, 3), (30, 12, 11), {"groups": 30, "padding": 1}),
    "two for each of many": ((40, 1, 7), (20, 90), {"groups": 20, "stride": 2}),
    "signal": ((9,), (30_000,), {"padding": 4}),
    "volume": ((4, 3, 2), (19, 40, 23), {"stride": 2}),
    "one output": ((7,), (7,), {}),
    "longer stride than tile": ((3,), (2000,), {"stride": 700}),
}
MANY = [name for name in CASES if "many" in name and "each" not in name]


def check(name, dtype, batch=2, workers=2):
    shape, size, options = CASES[name]
    kernel = values(shape, dtype)
    A = Convolution(kernel, size, engine="fft", workers=workers, **options)
    wide = "complex128" if np.dtype(dtype).kind == "c" else "float64"
    W = convolution_matrix(kernel.astype(wide), size, **options)
    for B, matrix in ((A, W), (A.T, W.T)):
        x = values((batch, *B.input_shape), dtype, 1)
        expected = (matrix @ x.reshape(batch, -1).T.astype(wide)).T.reshape(batch, *B.output_shape)
        scale = abs(matrix).sum(axis=1).max() * np.abs(x).max()
        assert_close(B.apply(x), expected.astype(dtype), scale)


def plan_of(name, workers=2):
    kernel, size, options = CASES[name]
    return fft.engine.prepare(ConvolutionGeometry(kernel, size, **options).padded, np.dtype("float64"), workers)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("name", CASES)
def test_products_are_those_of_the_matrix(name, dtype):
    check(name, dtype)


def test_channels_decide_how_spectra_are_multiplied():
    assert [name for name in CASES if plan_of(name).matrices] == MANY


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_products_in_small_parts(name, dtype, monkeypatch):
    shape, size, options = CASES[name]
    geometry = ConvolutionGeometry(shape, size, **options).padded
    least = [min(tiles._tile_lengths(axis)) for axis in geometry.axes]
    monkeypatch.setattr(tiles, "_best_tiles", lambda *_: tuple(zip(*least, strict=True)))
    monkeypatch.setattr(tiles, "_count_together", lambda *_: 3)
    monkeypatch.setattr(tiles, "_SERIAL", 0)  # threads for all that they may share
    monkeypatch.setattr(tiles, "_CACHED", 1 << 11)
    check(name, dtype, batch=3)


def test_threads_that_cannot_be_had_are_done_without(monkeypatch):
    import scipy.fft

    def transform(x, lengths, axes, workers):
        if workers > 1:
            raise RuntimeError("Resource temporarily unavailable")
        return usual(x, lengths, axes)

    usual = scipy.fft.rfftn
    monkeypatch.setattr(scipy.fft, "rfftn", transform)
    fft._transform_of_scipy.cache_clear()
    monkeypatch.setattr(tiles, "_SERIAL", 0)
    check("many channels", "float64")
    fft._transform_of_scipy.cache_clear()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("workers", [1, 5])
def test_tiles_have_all_outputs(name, workers):
    plan = plan_of(name, workers)
    for length, count, step, axis in zip(plan.lengths, plan.tiles, plan.steps, plan.geometry.axes, strict=True):
        span = (axis.outputs - 1) * axis.stride + 1
        assert step == length - axis.reach > 0
        assert (count - 1) * step < span <= count * step


@given(
    case=st.one_of(cases(most=20_000), many_channels()), dtype=st.sampled_from(["float64", "complex64"]), data=st.data()
)
def test_tiles_of_any_length(case, dtype, data):
    geometry = case.geometry.padded
    lengths = tuple(axis.reach + data.draw(st.integers(1, 9)) for axis in geometry.axes)
    spans = [(axis.outputs - 1) * axis.stride + 1 for axis in geometry.axes]
    counts = tuple(
        -(-span // (length - axis.reach)) for span, length, axis in zip(spans, lengths, geometry.axes, strict=True)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_best_tiles", lambda *_: (lengths, counts))
        plan = fft.engine.prepare(geometry, np.dtype(dtype), data.draw(st.integers(1, 3)))
    kernel = values(geometry.kernel_shape, dtype)
    shape = geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.spatial_kernel
    products = fft.engine.bind(plan, kernel.reshape(shape))
    options = {"stride": geometry.stride, "dilation": geometry.dilation, "padding": [(0, 0)] * len(lengths)}
    options |= {"groups": geometry.groups, "outputs": geometry.spatial_output}
    W = reference.matrix(kernel, geometry.input_shape, **options)
    x = values((2, geometry.in_channels, *geometry.spatial_input), dtype, 1)
    y = values((2, geometry.out_channels, *geometry.spatial_output), dtype, 2)
    out, back = np.full_like(y, np.nan), np.full_like(x, np.nan)
    products.forward(x, out)
    products.transpose(y, back)
    for matrix, read, result in ((W, x, out), (W.T, y, back)):
        scale = np.abs(kernel).sum() * np.abs(read).max()
        assert_close(result.reshape(2, -1), read.reshape(2, -1) @ matrix.T, scale)


@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 3), length=st.integers(1, 20), cached=st.integers(1, 3000),
    dtype=st.sampled_from(["complex64", "complex128"]),
)  # fmt: skip
def test_products_of_spectra_are_sums_over_terms(sizes, length, cached, dtype):
    groups, _, terms = sizes
    spectrum, x = values((*sizes, length), dtype), values((groups, terms, length), dtype, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_CACHED", cached)
        patch.setattr("convmat.engines._sums.SINGLE", 2)
        result = fft._multiply(spectrum, x)
    assert_close(result, np.einsum("grtf,gtf->grf", spectrum, x), np.abs(spectrum).sum(2).max() * np.abs(x).max())


def test_outputs_of_a_tile():
    geometry = ConvolutionGeometry((3,), (40,), stride=3)
    plan = replace(tiles.plan_tiles(geometry, np.dtype("float64"), 1), lengths=(10,), tiles=(5,))
    assert plan.inputs([1]) == (..., slice(8, 18))
    assert plan.outputs([1]) == ((..., slice(3, 6)), (..., slice(1, 10, 3)))
    every = [o for tile in range(5) for o in range(100)[plan.outputs([tile])[0][1]]]
    assert every == list(range(geometry.spatial_output[0]))


def test_lengths_have_no_prime_factor_above_5():
    from scipy.fft import next_fast_len

    for least in (*range(1, 600), 4097, 65537, 10**6 + 3):
        assert tiles.fast_length(least) == next_fast_len(least, real=True)


def test_tiles_of_long_signals_are_long():
    (length,), (count,) = tiles._best_tiles(ConvolutionGeometry(9, 1_000_000), 2)
    assert length >= 4096
    assert count > 1


@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_of_many_channels_takes_little_memory(transposed):
    A = Convolution(values((32, 32, 5, 5), "float64"), (32, 160, 160), padding=2, engine="fft", workers=2)
    B = A.T if transposed else A
    x = values((4, *B.input_shape), "float64")
    out = B.apply(x)
    tracemalloc.start()
    B.apply(x, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= (64 << 20) + 2 * (x.nbytes + out.nbytes)


def test_sums_do_not_depend_on_when_threads_come(monkeypatch):
    geometry = ConvolutionGeometry((60, 60), (300, 300)).padded
    lengths = (90, 90)
    monkeypatch.setattr(tiles, "_best_tiles", lambda *_: (lengths, (8, 8)))
    products = fft.engine.bind(fft.engine.prepare(geometry, np.dtype("float64"), 2), values((1, 1, 60, 60), "float64"))
    y = values((1, 1, 241, 241), "float64")
    expected, out = np.empty((1, 1, 300, 300)), np.empty((1, 1, 300, 300))
    monkeypatch.setattr(tiles, "_SERIAL", np.inf)
    products.transpose(y, expected)
    monkeypatch.setattr(tiles, "_SERIAL", 0)
    later, seen, filtered = Event(), [], fft.FFTProducts._filter_blocks

    def hold_the_first(self, overlap, blocks, threads):
        results = filtered(self, overlap, blocks, threads)
        seen.append(blocks)
        if len(seen) > 30:
            later.set()
        if blocks == [(0, 0, 0)]:
            assert later.wait(30)
        return results

    monkeypatch.setattr(fft.FFTProducts, "_filter_blocks", hold_the_first)
    products.transpose(y, out)
    np.testing.assert_array_equal(out, expected)


def test_a_nan_stays_in_its_array():
    for name in ("many channels", "few channels"):
        shape, size, options = CASES[name]
        A = Convolution(values(shape, "float64"), size, engine="fft", **options)
        for B in (A, A.T):
            x = values((3, *B.input_shape), "float64")
            x[1].flat[0] = np.nan
            finite = np.isfinite(B.apply(x)).reshape(3, -1)
            assert finite[[0, 2]].all()
            assert not finite[1].all()
