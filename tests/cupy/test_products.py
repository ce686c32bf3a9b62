"""Products of convmat.cupy equal the oracle and those of the host, with every engine, and plans choose among these."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convmat
from convmat.cupy import Convolution, TransposedConvolution
from convmat.cupy._device import Device
from convmat.cupy._engines import ENGINES
from convmat.engines._planner import plan
from convmat.geometry import PADDING_MODES
from tests.cases import DTYPES, INEXACT, assert_close, cases, values
from tests.cupy.device import ALWAYS, FIXED, cupy, make, needs_device, operator_of


@given(case=cases(), data=st.data(), transposed=st.booleans(), flip=st.booleans())
def test_products_equal_the_oracle(case, data, transposed, flip):
    dtype, x_dtype = data.draw(st.sampled_from(INEXACT)), data.draw(st.sampled_from(DTYPES))
    result = np.result_type(np.dtype(dtype), np.dtype(x_dtype))
    kernel = values(case.kernel_shape, dtype)
    oracle = kernel.astype(result)
    W = case.matrix(np.flip(oracle, tuple(range(-len(case.stride), 0))) if flip else oracle)
    W = W.T if transposed else W
    batch = data.draw(st.sampled_from([(), (1,), (3,), (2, 2), (0,)]))
    for engine in [*ALWAYS, "auto"]:
        A = operator_of(case, kernel, engine, transposed, flip=flip)
        assert A.shape == W.shape
        assert A.dtype == kernel.dtype
        x = values((*batch, *A.input_shape), x_dtype, 1)
        expected = (x.reshape(*batch, W.shape[1]).astype(result) @ W.T).reshape(*batch, *A.output_shape)
        scale = np.abs(W).sum(axis=1).max() * np.abs(x).max(initial=0)
        assert_close(A.apply(cupy.asarray(x)).get(), expected, scale)
        out = cupy.asarray(np.full((*batch, *A.output_shape), 77, result))
        assert A.apply(cupy.asarray(x), out=out) is out
        assert_close(out.get(), expected, scale)


@given(case=cases(), dtype=st.sampled_from(INEXACT), transposed=st.booleans())
def test_adjoint(case, dtype, transposed):
    kernel = values(case.kernel_shape, dtype)
    for engine in ALWAYS:
        A = operator_of(case, kernel, engine, transposed)
        x, y = values((A.shape[1],), dtype, 1), values((A.shape[0],), dtype, 2)
        Ax, Ahy = (A @ cupy.asarray(x)).get(), (A.H @ cupy.asarray(y)).get()
        scale = np.linalg.norm(Ax) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(Ahy)
        assert abs(np.vdot(y, Ax) - np.vdot(Ahy, x)) <= 100 * np.finfo(dtype).eps * scale


# Kernels so long, or so far apart, that the tiled loops are not written out.
@pytest.mark.parametrize("engine", ALWAYS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("kernel_shape", "input_shape", "options"),
    [
        ((31, 5), (40, 33), {"padding": "same"}),
        ((3, 3), (300, 7), {"dilation": (140, 2), "padding": 3}),
        ((2, 3, 40), (3, 500), {"stride": 7, "padding": 9}),
        ((3, 2, 5, 3, 2), (2, 9, 20, 37), {"stride": (2, 1, 3), "padding": (0, 7, 1), "dilation": (1, 2, 1)}),
        ((2, 2, 2, 2), (5, 4, 3, 6), {"padding": 1}),
        ((3, 4, 1), (30, 20, 3), {"padding": (1, 2, 0), "dilation": (1, 2, 1), "stride": (2, 1, 1)}),
        ((2, 1, 3, 1, 1), (2, 30, 2, 3), {"padding": (1, 0, 0), "groups": 2}),
    ],
)
def test_long_kernels_and_four_axes(engine, kernel_shape, input_shape, options, transposed):
    kernel = values(kernel_shape, "float64")
    A = Convolution(cupy.asarray(kernel), input_shape, engine=engine, **options)
    host = convmat.Convolution(kernel, input_shape, engine="csr", **options)
    A, host = (A.T, host.T) if transposed else (A, host)
    x = values((2, *A.input_shape), "float64")
    np.testing.assert_allclose(A.apply(cupy.asarray(x)).get(), host.apply(x), atol=1e-11)


@pytest.mark.parametrize("engine", ALWAYS)
@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_output_padding_that_reaches_the_stride(engine, kept):
    kernel = values((3, 2, 3), "float64")
    options = {"stride": 2, "dilation": 4, "output_padding": kept}
    A = TransposedConvolution(cupy.asarray(kernel), (3, 5), engine=engine, **options)
    host = convmat.TransposedConvolution(kernel, (3, 5), **options)
    for transposed in (False, True):
        ours, theirs = (A.T, host.T) if transposed else (A, host)
        x = values(ours.input_shape, "float64")
        np.testing.assert_allclose(ours.apply(cupy.asarray(x)).get(), theirs.apply(x), atol=1e-12)


def test_with_kernel_keeps_what_was_prepared():
    for engine in ALWAYS:
        A = make(engine)
        x = cupy.asarray(values((2, *A.input_shape), "float64"))
        A.apply(x)
        other = values(A.kernel.shape, "float64", 5)
        B = A.with_kernel(cupy.asarray(other))
        assert B._products.plans is A._products.plans
        np.testing.assert_allclose(B.apply(x).get(), convmat.Convolution(other, (3, 7, 6), **FIXED).apply(x.get()))


def test_out_may_be_strided_or_the_input_itself():
    A = Convolution(cupy.asarray(values((3, 3), "float64")), (8, 8), padding=1)
    x = cupy.asarray(values((8, 8), "float64"))
    expected = A.apply(x).get()
    np.testing.assert_array_equal(A.apply(x, out=cupy.zeros((16, 16))[::2, ::2]).get(), expected)
    np.testing.assert_array_equal(A.apply(x, out=x).get(), expected)


# geometry, dtype, batch, transposed, engine
PLANS = [
    (((3, 3), (4096, 4096)), "float32", 1, False, "direct"),
    (((3, 3), (4096, 4096)), "float64", 1, True, "direct"),
    (((3, 3, 5, 5), (3, 2048, 2048)), "float32", 1, False, "direct"),
    (((256, 256, 3, 3), (256, 14, 14)), "float32", 64, False, "gemm"),
    (((256, 256, 3, 3), (256, 14, 14)), "float32", 64, True, "gemm"),
    (((512, 512, 1, 1), (512, 56, 56)), "float64", 8, False, "gemm"),
]


@pytest.mark.parametrize(("shapes", "dtype", "batch", "transposed", "engine"), PLANS)
def test_plans_for_a_device(shapes, dtype, batch, transposed, engine):
    geometry = convmat.ConvolutionGeometry(*shapes)
    estimates = plan(geometry, np.dtype(dtype), batch, transposed, Device(memory=1e11), ENGINES)
    assert [estimate.engine for estimate in estimates if estimate.chosen] == [engine]


def test_explain_covers_every_engine_in_both_directions():
    explanation = make().explain(batch=4, dtype="float32")
    assert [(e.engine, e.transposed) for e in explanation.estimates] == [(n, t) for t in (False, True) for n in ENGINES]
    assert str(explanation).count("chosen") == 2


@needs_device
@given(case=cases(torch_only=True), dtype=st.sampled_from(INEXACT), transposed=st.booleans())
def test_products_of_torch_equal_the_oracle(case, dtype, transposed):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    kernel = values(case.kernel_shape, dtype)
    A = operator_of(case, kernel, "torch", transposed)
    W = case.matrix(kernel).T if transposed else case.matrix(kernel)
    x = values((2, *A.input_shape), dtype, 1)
    expected = (x.reshape(2, -1) @ W.T).reshape(2, *A.output_shape)
    assert_close(A.apply(cupy.asarray(x)).get(), expected, np.abs(W).sum(axis=1).max() * np.abs(x).max())


@needs_device
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_large_images_on_the_device(mode):
    kernel, x = values((7, 7), "float32"), values((1024, 1024), "float32")
    host = convmat.Convolution(kernel, x.shape, padding=3, padding_mode=mode)
    for engine in ALWAYS:
        A = Convolution(cupy.asarray(kernel), x.shape, padding=3, padding_mode=mode, engine=engine)
        for ours, theirs in ((A, host), (A.T, host.T)):
            scale = np.abs(kernel).sum() * np.abs(x).max() * (4 if mode != "zeros" else 1)
            assert_close(ours.apply(cupy.asarray(x)).get(), theirs.apply(x), scale)
