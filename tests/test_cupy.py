"""convmat.cupy, on a device where there is one, else on a stand-in for CuPy that compiles the kernels for the host."""

import copy
import doctest
import gc
import importlib
import json
import pickle
import subprocess
import sys
import weakref
from contextlib import nullcontext

import cupy_stand_in
import numpy as np
import pytest
from cases import DTYPES, INEXACT, assert_close, cases, values
from hypothesis import given
from hypothesis import strategies as st

import convmat
from benchmarks import gpu
from benchmarks.workloads import Workload
from convmat.relation import PADDING_MODES


def find_device():
    """Return CuPy, what makes it importable, and whether there is a device."""
    try:
        import cupy
    except ImportError:
        pass
    else:
        if cupy.is_available():
            return cupy, nullcontext, True
    if cupy_stand_in.COMPILER is None:
        pytest.skip(
            "there is neither a CUDA device nor g++ to compile the kernels for the host", allow_module_level=True
        )
    for name in [name for name in sys.modules if name.partition(".")[2].partition(".")[0] == "cupy"]:
        del sys.modules[name]  # imported with a CuPy that has no device
    return cupy_stand_in.MODULES["cupy"], cupy_stand_in.installed, False


cupy, importable, DEVICE = find_device()
with importable():
    import convmat.cupy as device
    from convmat.cupy import assembly, kernels, parts
    from convmat.cupy.device import Device
    from convmat.cupy.engines import ENGINES
    from convmat.cupy.operators import Convolution, TransposedConvolution
    from convmat.planner import plan

ALWAYS = [name for name in ENGINES if name != "torch"]
FIXED = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "padding_mode": "reflect"}
needs_device = pytest.mark.skipif(not DEVICE, reason="there is no CUDA device, or no CuPy")


def matrix_of(case, kernel, transposed, **options):
    kernel = cupy.asarray(kernel)
    if transposed:
        return device.transposed_convolution_matrix(
            kernel, case.output_shape, output_shape=case.input_shape, **case.options, **options
        )
    return device.convolution_matrix(kernel, case.input_shape, **case.options, **options)


def operator_of(case, kernel, engine="auto", transposed=False, **options):
    kernel, options = cupy.asarray(kernel), {**case.options, **options, "engine": engine}
    if transposed:
        return TransposedConvolution(kernel, case.output_shape, output_shape=case.input_shape, **options)
    return Convolution(kernel, case.input_shape, **options)


def make(engine="auto", flip=False, dtype="float64"):
    return Convolution(cupy.asarray(values((4, 3, 3, 2), dtype)), (3, 7, 6), flip=flip, engine=engine, **FIXED)


def assert_same_matrix(actual, expected):
    """Compare with a dense matrix, and check that what is stored is canonical."""
    actual = actual.get()
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    ascending = np.diff(actual.indices) > 0
    ends = actual.indptr[1:-1]
    ascending[ends[(ends > 0) & (ends < actual.nnz)] - 1] = True  # from one row to the next
    assert ascending.all()
    assert_close(actual.toarray(), expected, np.abs(expected).max(initial=0))


@given(case=cases(), data=st.data(), transposed=st.booleans(), flip=st.booleans())
def test_matrices_equal_the_oracle(case, data, transposed, flip):
    kernel = values(case.kernel_shape, data.draw(st.sampled_from(INEXACT)))
    W = case.matrix(np.flip(kernel, tuple(range(-len(case.stride), 0))) if flip else kernel)
    W = W.T if transposed else W
    A = matrix_of(case, kernel, transposed, flip=flip)
    assert_same_matrix(A, W)
    assert A.has_canonical_format
    assert A.nnz == convmat.ConvolutionGeometry(kernel.shape, case.input_shape, **case.options).nnz
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(W))] * 2)))
    assert_same_matrix(matrix_of(case, kernel, transposed, flip=flip, rows=(start, stop)), W[start:stop])
    csc = matrix_of(case, kernel, transposed, flip=flip, format="csc")
    assert csc.format == "csc"
    assert_close(csc.get().toarray(), W, np.abs(W).max())


@given(case=cases(most_axes=2), transposed=st.booleans())
def test_matrices_are_those_of_the_host(case, transposed):
    kernel = values(case.kernel_shape, "float64")
    A = matrix_of(case, kernel, transposed).get()
    host = convmat.convolution_matrix(kernel, case.input_shape, **case.options, format="csc" if transposed else "csr")
    np.testing.assert_array_equal(A.indptr, host.indptr)
    np.testing.assert_array_equal(A.indices, host.indices)
    assert A.indices.dtype == host.indices.dtype
    np.testing.assert_allclose(A.data, host.data, rtol=1e-13, atol=1e-14)


# Long lines are cut into pieces, and many channels give a row more nonzeros than a block has threads.
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("kernel_shape", "input_shape", "options"),
    [
        ((3,), (30_001,), {"padding": 1}),
        ((5,), (20_000,), {"stride": 3, "dilation": 2, "padding": 4, "padding_mode": "circular"}),
        ((40, 24, 3, 3), (24, 7, 5), {"padding": 1}),
        ((2, 1, 300), (2, 3_000), {"stride": 130, "groups": 2}),
        ((1, 1, 2, 1, 3), (1, 4, 5, 6), {"padding": 1, "padding_mode": "replicate"}),
        ((3, 4, 1), (30, 20, 3), {"padding": (1, 2, 0), "dilation": (1, 2, 1), "stride": (2, 1, 1)}),
        *(((151,), (300,), {"padding": ((140, 60),), "padding_mode": mode}) for mode in PADDING_MODES),
        *(
            ((80,), (300,), {"padding": 150, "dilation": 3, "stride": 2, "padding_mode": mode})
            for mode in PADDING_MODES
        ),
        *(((2, 2, 5, 90), (2, 6, 70), {"padding": (5, 60), "padding_mode": mode}) for mode in PADDING_MODES),
    ],
)
def test_large_matrices_are_those_of_the_host(kernel_shape, input_shape, options, transposed):
    kernel = values(kernel_shape, "float64")
    host = convmat.convolution_matrix(kernel, input_shape, **options)
    if transposed:
        host = host.T.tocsr()
        host.sort_indices()
        shape = convmat.ConvolutionGeometry(kernel_shape, input_shape, **options).output_shape
        A = device.transposed_convolution_matrix(cupy.asarray(kernel), shape, output_shape=input_shape, **options)
    else:
        A = device.convolution_matrix(cupy.asarray(kernel), input_shape, **options)
    A = A.get()
    np.testing.assert_array_equal(A.indptr, host.indptr)
    np.testing.assert_array_equal(A.indices, host.indices)
    np.testing.assert_allclose(A.data, host.data, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_tables_are_small_beside_the_matrix(mode, transposed):
    geometry = convmat.ConvolutionGeometry((301,), (1_000,), padding=500, padding_mode=mode)
    tables = assembly.MatrixTables(geometry, transposed)
    assert tables.nnz == geometry.nnz
    assert sum(launch.plan.nbytes for launch in tables.launches) < 0.15 * 12 * tables.nnz
    assert sum(launch.jobs for launch in tables.launches) > tables.nnz / 10_000  # else few blocks do all


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_rows_that_are_merged_in_several_steps(mode, monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", 7)
    kernel, options = values((20,), "float64"), {"padding": 15, "dilation": 2, "padding_mode": mode}
    host = convmat.convolution_matrix(kernel, 40, **options).toarray()
    np.testing.assert_allclose(device.convolution_matrix(cupy.asarray(kernel), 40, **options).get().toarray(), host)
    np.testing.assert_allclose(
        device.convolution_matrix(cupy.asarray(kernel), 40, **options, format="csc").get().toarray(), host
    )


def test_64_bit_indices(monkeypatch):
    monkeypatch.setattr(assembly, "index_dtype", lambda *_: np.dtype(np.int64))
    kernel = values((4, 3, 3, 2), "float32")
    A = device.convolution_matrix(cupy.asarray(kernel), (3, 7, 6), **FIXED)
    if assembly._LARGE:
        assert A.indices.dtype == A.indptr.dtype == np.int64
        host = convmat.convolution_matrix(kernel, (3, 7, 6), **FIXED)
        np.testing.assert_allclose(A.get().toarray(), host.toarray(), rtol=1e-6)
    monkeypatch.setattr(assembly, "_LARGE", False)
    with pytest.raises(
        ValueError, match=r"needs int64 indices, which sparse matrices of CuPy .* do not have; apply it"
    ):
        device.convolution_matrix(cupy.asarray(kernel), (3, 7, 6), **FIXED)


def test_a_matrix_that_does_not_fit_is_refused():
    kernel = cupy.ones((1000, 1000))
    error = MemoryError if assembly._LARGE else ValueError
    with pytest.raises(error, match=r"nonzeros .*convmat\.cupy\.Convolution.*rows="):
        device.convolution_matrix(kernel, (40_000, 40_000))
    rows = device.convolution_matrix(kernel, (40_000, 40_000), rows=(10**9, 10**9 + 2))
    assert rows.nnz == 2 * 10**6


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
        np.testing.assert_array_equal(A.rmatvec(cupy.asarray(y)).get(), Ahy)


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
    A, host = Convolution(cupy.asarray(kernel), input_shape, engine=engine, **options), None
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


@pytest.mark.parametrize("engine", ["auto", *ALWAYS])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_transposes_and_conjugates_stay_in_the_family(engine, flip, dtype):
    A = make(engine, flip, dtype)
    W = A.toarray().get()
    relatives = {"T": (A.T, W.T), "H": (A.H, W.conj().T), "conj": (A.conj(), W.conj()), "HT": (A.H.T, W.conj())}
    for operator, matrix in relatives.values():
        assert isinstance(operator, TransposedConvolution if operator.shape != A.shape else Convolution)
        np.testing.assert_allclose(operator.toarray().get(), matrix, atol=1e-14)
        np.testing.assert_allclose((operator @ cupy.asarray(np.eye(len(matrix.T)))).get(), matrix, atol=1e-12)
    assert A.T.T is A
    assert A.H.H is A
    assert A.T is A.T
    assert A.H.T is A.conj()
    if dtype == "float64":
        assert A.H is A.T


@pytest.mark.parametrize("engine", ["auto", *ALWAYS])
def test_products_of_cupyx(engine):
    A = make(engine)
    W = A.toarray().get()
    v, u = values((A.shape[1],), "float64", 1), values((A.shape[0],), "float64", 2)
    V, U = np.stack([v, 2 * v, v - 1], axis=1), np.stack([u, u + 1], axis=1)
    products = {"v": (A @ cupy.asarray(v), W @ v), "matvec": (A.matvec(cupy.asarray(v)), W @ v)}
    products["column"] = A.matvec(cupy.asarray(v[:, None])), (W @ v)[:, None]
    products["V"] = A @ cupy.asarray(V), W @ V
    products["matmat"] = A.matmat(cupy.asarray(V)), W @ V
    products["rmatvec"] = A.rmatvec(cupy.asarray(u)), W.T @ u
    products["rmatmat"] = A.rmatmat(cupy.asarray(U)), W.T @ U
    for actual, expected in products.values():
        np.testing.assert_allclose(actual.get(), expected, atol=1e-12)
    with pytest.raises(ValueError, match="dimension mismatch"):
        A @ cupy.ones(A.shape[1] + 1)


def test_sums_and_products_of_operators():
    A = make()
    if not hasattr(A, "__mul__"):
        pytest.skip("CuPy is not installed, whose operators have an algebra")
    W = A.toarray().get()
    v = values((A.shape[1],), "float64", 1)
    combined = 2 * (A.H @ A) + A.T * A - A.H * A
    np.testing.assert_allclose((combined @ cupy.asarray(v)).get(), 2 * W.T @ (W @ v), atol=1e-10)


def test_operators_do_not_keep_each_other_alive_for_ever():
    gc.collect()
    gc.disable()
    try:
        A = make()
        references = [weakref.ref(A), weakref.ref(A.T), weakref.ref(A.T.T)]
        del A
        assert all(reference() is None for reference in references)
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["T", "conj", "plain"])
def test_pickle_and_copy(kind):
    A = make(flip=True, dtype="complex128")
    A = {"T": A.T, "conj": A.conj(), "plain": A}[kind]
    v = cupy.asarray(values((A.shape[1],), "complex128"))
    for other in (pickle.loads(pickle.dumps(A)), copy.copy(A), copy.deepcopy(A)):
        assert type(other) is type(A)
        assert (other.engine, other.geometry) == (A.engine, A.geometry)
        np.testing.assert_array_equal((other @ v).get(), (A @ v).get())


@pytest.mark.parametrize("kind", ["T", "H", "conj", "plain"])
def test_to_numpy(kind):
    A = make("gemm", flip=True, dtype="complex128")
    A = {"T": A.T, "H": A.H, "conj": A.conj(), "plain": A}[kind]
    host = A.to("numpy")
    assert type(host).__module__ == "convmat.operators"
    assert type(host).__name__ == type(A).__name__
    assert (host.engine, host.geometry) == ("gemm", A.geometry)
    np.testing.assert_allclose(host.toarray(), A.toarray().get(), atol=1e-14)
    assert A.to("cupy") is A
    assert make("direct").to("numpy").engine == "auto"
    there = device.operators.from_host(host)
    assert type(there) is type(A)
    np.testing.assert_allclose(there.toarray().get(), A.toarray().get(), atol=1e-14)


@pytest.mark.parametrize("kind", ["T", "H", "conj", "plain"])
def test_to_cupy(kind):
    host = convmat.Convolution(values((4, 3, 3, 2), "complex64"), (3, 7, 6), engine="csr", flip=True, **FIXED)
    host = {"T": host.T, "H": host.H, "conj": host.conj(), "plain": host}[kind]
    A = host.to("cupy")
    assert type(A) is (Convolution if type(host) is convmat.Convolution else TransposedConvolution)
    assert (A.engine, A.geometry) == ("csr", host.geometry)
    np.testing.assert_allclose(A.toarray().get(), host.toarray(), rtol=1e-6)
    assert host.to("numpy") is host
    with pytest.raises(TypeError, match="no integers, got int64"):
        convmat.Convolution([1, 2], 5).to("cupy")
    with pytest.raises(ValueError, match="library must be 'numpy' or 'cupy', got 'jax'"):
        host.to("jax")
    with pytest.raises(TypeError, match="library must be a str, got 1"):
        host.to(1)


@pytest.mark.parametrize("call", [convmat.Convolution, convmat.convolution_matrix, convmat.TransposedConvolution])
def test_the_host_says_who_takes_arrays_of_the_device(call):
    class Array:  # NumPy cannot have it, as it cannot have one of CuPy
        __module__ = "cupy"

        def __array__(self, dtype=None, copy=None):
            raise TypeError("Implicit conversion to a NumPy array is not allowed")

    sentence = r"must be a numpy\.ndarray, got a cupy\..*convmat\.cupy\.Convolution"
    for there in [Array(), *([K] if DEVICE else [])]:
        with pytest.raises(TypeError, match=f"kernel {sentence}"):
            call(there, (5, 5))
        with pytest.raises(TypeError, match=f"x {sentence}"):
            convmat.Convolution(N, (5, 5)).apply(there)
        with pytest.raises(TypeError, match=f"out {sentence}"):
            convmat.Convolution(N, (5, 5)).apply(np.ones((5, 5)), out=there)


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


def test_the_kernel_is_a_private_copy():
    kernel = cupy.ones((3, 3))
    A = Convolution(kernel, (5, 5))
    kernel[...] = 0
    A.kernel[...] = 0
    np.testing.assert_array_equal((A @ cupy.ones(25)).get(), np.full(9, 9.0))


def test_representation():
    A = Convolution(cupy.ones((3, 3)), (5, 5), engine="csr")
    assert repr(A) == "<9x25 Convolution of dtype float64 on the device, (5, 5) to (3, 3), engine 'csr'>"


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


K, N = cupy.ones((3, 3)), np.ones((3, 3))
A33 = Convolution(K, (5, 5))

WRONG = [
    (Convolution, (N, (5, 5)), {}, TypeError, r"kernel must be a cupy\.ndarray, got numpy\.ndarray.*cupy\.asarray.*convmat\.Convolution"),
    (TransposedConvolution, (N, (5, 5)), {}, TypeError, r"got numpy\.ndarray.*convmat\.TransposedConvolution"),
    (device.convolution_matrix, (N, (5, 5)), {}, TypeError, r"got numpy\.ndarray.*convmat\.convolution_matrix"),
    (device.transposed_convolution_matrix, (N, 5), {}, TypeError, r"got numpy\.ndarray.*convmat\.transposed_convolution_matrix"),
    (Convolution, (None, (5, 5)), {}, TypeError, "kernel must be an array of numbers, got None"),
    (Convolution, (device.convolution_matrix(K, (3, 3)), (5, 5)), {}, TypeError, r"kernel must be an array of numbers, got a \w+; use its \.toarray"),
    (Convolution, ([], (5, 5)), {}, ValueError, r"kernel must have at least 1 dimension and 1 element, got shape \(0,\)"),
    (device.convolution_matrix, (3.0, 5), {}, ValueError, r"kernel must have at least 1 dimension and 1 element, got shape \(\)"),
    (Convolution, (cupy.asarray([1, 2]), 5), {}, TypeError, "no integers, got int64; cast it, for example to float64"),
    (Convolution, ([[1.0], [2.0, 3.0]], (5, 5)), {}, TypeError, "kernel must be an array of numbers, got list"),
    (Convolution, (cupy.asarray([True]), 5), {}, TypeError, "got bool"),
    (Convolution, (cupy.ones(3, "e"), 5), {}, TypeError, "got float16; cast it, for example to float32"),
    (Convolution, (K, (5, 5)), {"engine": "fast"}, ValueError, "engine must be one of auto, direct, gemm, csr, torch on the device, got 'fast'"),
    (Convolution, (K, (5, 5)), {"engine": 1}, TypeError, "engine must be a str, got 1"),
    (Convolution, (K, (5, 5)), {"flip": 1}, TypeError, "flip must be a bool, got 1"),
    (Convolution, (K, (5, 5)), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    (Convolution, (cupy.ones((2,) * 6), (2,) * 5), {"engine": "torch"}, ValueError, "PyTorch convolves over 1 to 3 axes, got 4"),
    (device.convolution_matrix, (K, (5, 5)), {"format": "dia"}, ValueError, "format must be one of coo, csc, csr on the device, got 'dia'"),
    (device.convolution_matrix, (K, (5, 5)), {"format": 1}, TypeError, "format must be a str"),
    (device.convolution_matrix, (K, (5, 5)), {"rows": (0, 10)}, ValueError, "0 <= start <= stop <= 9"),
    (device.convolution_matrix, (K, (5, 5)), {"rows": range(2)}, TypeError, r"rows must be a pair .* got range\(0, 2\)"),
    (device.convolution_matrix, (K, (2**40, 2**40)), {}, ValueError, r"fewer than 2\*\*63 each.* got shape .* and \d+ nonzeros"),
    (device.transposed_convolution_matrix, (K, (2**40, 2**40)), {"rows": (2**50, 2**50 + 1)}, ValueError, r"fewer than 2\*\*63 each"),
    (device.convolution_matrix, (K, (5, 5)), {"dtype": "int64"}, TypeError, "no integers, got int64"),
    (device.convolution_matrix, (cupy.ones(3, "F"), 5), {"dtype": "float32"}, TypeError, "same_kind cast of the kernel's, complex64, got float32"),
    (device.convolution_matrix, (K, (5, 5)), {"dtype": "nonsense"}, TypeError, "dtype must be a NumPy dtype"),
    (A33.apply, (np.ones((5, 5)),), {}, TypeError, r"x must be a cupy\.ndarray, got numpy\.ndarray.*\.to\('numpy'\)"),
    (A33.dot, (np.ones(25),), {}, TypeError, r"x must be a cupy\.ndarray, got numpy\.ndarray"),
    (A33.apply, (cupy.ones((4, 5)),), {}, ValueError, r"x must have shape \(\.\.\., 5, 5\), got \(4, 5\)"),
    (A33.apply, (cupy.ones((5, 5), bool),), {}, TypeError, "x must be of an integer.*bool"),
    (A33.apply, (cupy.ones((5, 5)), np.ones((3, 3))), {}, TypeError, r"out must be a cupy\.ndarray or None, got numpy\.ndarray"),
    (A33.apply, (cupy.ones((5, 5)), cupy.ones((3, 3), "f")), {}, TypeError, "out must have dtype float64, got float32"),
    (A33.apply, (cupy.ones((5, 5)), cupy.ones((5, 5))), {}, ValueError, r"out must have shape \(3, 3\), got \(5, 5\)"),
    (A33.apply, (cupy.ones((5, 5)), cupy.lib.stride_tricks.as_strided(cupy.ones(3), (3, 3), (8, 0))), {}, ValueError, r"out must have memory for each of its elements, got strides \(8, 0\)"),
    (A33.explain, (2.5,), {}, TypeError, "batch must be an int, got 2.5"),
    (A33.explain, (1, "float16"), {}, TypeError, "got float16"),
    (Convolution(K, (30_000, 30_000)).toarray, (), {}, MemoryError, "dense 899880004 × 900000000 matrix takes .* bytes of memory on the device; .*tocsr"),
    (A33.with_kernel, (cupy.ones((3, 4)),), {}, ValueError, r"kernel must have shape \(3, 3\), got \(3, 4\)"),
    (A33.with_kernel, (N,), {}, TypeError, r"got numpy\.ndarray"),
    (A33.to, ("jax",), {}, ValueError, "library must be 'cupy' or 'numpy', got 'jax'"),
    (A33.to, (1,), {}, TypeError, "library must be a str, got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "arguments", "options", "error", "sentence"), WRONG)
def test_wrong_arguments(call, arguments, options, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_lists_of_numbers_are_taken():
    np.testing.assert_array_equal(Convolution([[1.0, 2.0]], (1, 3)).apply([[1.0, 1.0, 2.0]]).get(), [[3.0, 5.0]])


@pytest.mark.parametrize("name", ["assembly", "joined", "operators"])
def test_examples(name):
    with importable():
        results = doctest.testmod(importlib.import_module(f"convmat.cupy.{name}"), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 1
    assert results.failed == 0


def test_the_benchmark_says_what_it_needs(capsys):
    sentence = gpu.missing()
    assert sentence is None if DEVICE else "needs" in sentence
    if not DEVICE:
        assert gpu.main([]) == 1
        assert capsys.readouterr().err.strip() == sentence


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_benchmark_runs(monkeypatch, tmp_path, capsys):
    small = (
        Workload("rgb", (3, 3, 3, 3), (3, 6, 5), {"padding": "same"}),
        Workload("up", (2, 3, 4, 4), (2, 3, 4), {"stride": 2, "padding": 1}, transposed=True),
    )
    for name in ("STORED", "SINGLE", "LAYERS"):
        monkeypatch.setattr(gpu, name, small)
    monkeypatch.setattr(gpu, "_BLOCK", 1000)
    monkeypatch.setattr(gpu, "_TURN", 1e-6)
    monkeypatch.setattr(gpu, "missing", lambda: None)
    file = tmp_path / "device.json"
    with importable():
        assert gpu.main(["--quick", "--json", str(file)]) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert {name: len(found) for name, found in rows.items()} == {
        "memory": 2, "build": 8, "stored": 16, "matrix-free": 8, "layers": 16,
    }  # fmt: skip
    assert all(row["seconds"] for found in rows.values() for row in found)
    assert "limits met" in capsys.readouterr().out


def test_convmat_imports_no_cupy():
    code = "import sys, convmat; print([m for m in sys.modules if m.partition('.')[0] in ('cupy', 'cupyx')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_without_cupy_the_import_says_what_to_install():
    code = "import sys; sys.modules['cupy'] = None\nimport convmat.cupy"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "convmat.cupy needs CuPy" in run.stderr
    assert "convmat[cupy]" in run.stderr


def compilations():
    """Yield the options of one compilation of each kernel for every dtype."""
    for dtype in map(np.dtype, INEXACT):
        for axes in (1, 2, 3):
            yield kernels.definitions("WRITE_ROWS", dtype, np.dtype(np.int64 if axes == 1 else np.int32), axes)
        known = {"TAPS": (3, 7), "STRIDE": (2, 1), "DILATION": (1, 2)}
        yield kernels.definitions("PRODUCTS", dtype, np.dtype(np.int32), 2, **known, TILE=8, UNROLL=7)
        yield kernels.definitions("PRODUCTS", dtype, np.dtype(np.int64), 2, **known, TRANSPOSED=None)
        known = {name: (2, *lengths) for name, lengths in known.items()}
        yield kernels.definitions("PRODUCTS", dtype, np.dtype(np.int32), 3, **known)


@pytest.mark.parametrize("options", list(compilations()), ids=" ".join)
def test_kernels_compile_for_a_device(options):
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", exc_type=ImportError)
    try:
        program = nvrtc.createProgram(kernels.source(), "kernels.cu", [], [])
    except RuntimeError as error:  # CuPy without CUDA's compiler
        pytest.skip(str(error))
    nvrtc.compileProgram(program, ["--gpu-architecture=sm_90", "-Werror=all-warnings", *options])
    assert len(nvrtc.getCUBIN(program)) > 1000


@needs_device
@pytest.mark.parametrize("engine", ["auto", *ALWAYS])
def test_solvers_of_cupyx(engine):
    linalg = importlib.import_module("cupyx.scipy.sparse.linalg")
    A = make(engine)
    W = A.toarray().get()
    b = values((A.shape[0],), "float64", 5)
    expected = np.linalg.lstsq(W, b)[0]
    result = linalg.lsmr(A, cupy.asarray(b), atol=1e-14, btol=1e-14, conlim=0, maxiter=5000)[0]
    np.testing.assert_allclose(result.get(), expected, atol=1e-6)
    singular = np.linalg.svd(W, compute_uv=False)
    found = linalg.svds(A, 3, return_singular_vectors=False).get()
    np.testing.assert_allclose(np.sort(found)[::-1], singular[:3])
    found = linalg.eigsh(A.H @ A, 2, return_eigenvectors=False).get()
    np.testing.assert_allclose(np.sort(found)[::-1], singular[:2] ** 2)
    shifted = A.H @ A + linalg.aslinearoperator(cupy.eye(A.shape[1]))
    x, info = linalg.cg(shifted, cupy.asarray(W.T @ b), rtol=1e-10)
    assert info == 0
    np.testing.assert_allclose(x.get(), np.linalg.solve(W.T @ W + np.eye(len(W.T)), W.T @ b), atol=1e-7)


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
