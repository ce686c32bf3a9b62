"""Matrices of convmat.cupy equal the oracle and those of the host, and its kernels compile for a device."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convmat
import convmat.cupy as device
from convmat.cupy import _assembly as assembly
from convmat.cupy import _kernels as kernels
from convmat.cupy import _segments as segments
from convmat.geometry import PADDING_MODES
from tests.cases import INEXACT, assert_close, cases, values
from tests.cupy.device import DEVICE, FIXED, assert_same_matrix, cupy, matrix_of


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


# Long lines are cut into several jobs, and many channels give a row more nonzeros than a block has threads.
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
@pytest.mark.parametrize(("format", "rows"), [("coo", None), ("coo", (5, 40)), ("csc", (5, 40)), ("csc", (7, 7))])
def test_formats_and_their_rows_are_those_of_the_host(format, rows, transposed):
    kernel = values((4, 3, 3, 2), "float64")
    host = convmat.convolution_matrix(kernel, (3, 7, 6), **FIXED)
    if transposed:
        shape = convmat.ConvolutionGeometry(kernel.shape, (3, 7, 6), **FIXED).output_shape
        build, host = device.transposed_convolution_matrix, host.T.tocsr()
        options = {"output_shape": (3, 7, 6), **FIXED}
    else:
        build, shape, options = device.convolution_matrix, (3, 7, 6), FIXED
    A = build(cupy.asarray(kernel), shape, format=format, rows=rows, **options)
    host = host if rows is None else host[slice(*rows)]
    assert (A.format, A.shape, A.dtype, A.nnz) == (format, host.shape, host.dtype, host.nnz)
    np.testing.assert_allclose(cupy.asarray(A.toarray()).get(), host.toarray(), rtol=1e-13, atol=1e-14)


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
    monkeypatch.setattr(segments, "_CHUNK", 7)
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


@pytest.mark.skipif(DEVICE, reason="the memory of a device is as it is")
def test_what_is_free_and_what_the_pool_holds_is_taken(monkeypatch):
    def refused(free, reserve, build):
        monkeypatch.setattr(cupy.cuda.Device, "mem_info", (free, 10**9))
        monkeypatch.setattr(type(cupy.get_default_memory_pool()), "reserve", reserve)
        try:
            build()
        except MemoryError as error:
            return "more than the available" in str(error)
        return False

    kernel = cupy.ones((2, 2))
    nbytes = 4 * 999**2 * 12 + (999**2 + 1) * 4
    dense = 40**2 * 41**2 * 8 + 4 * 40**2 * 12 + (40**2 + 1) * 4
    for size, build in (
        (nbytes, lambda: device.convolution_matrix(kernel, (1000, 1000))),
        (dense, lambda: device.Convolution(kernel, (41, 41)).toarray()),
    ):
        assert not refused(size, 0, build)
        assert refused(size - 1, 0, build)
        assert not refused(size - 1000, 1000, build)
        assert refused(size - 1000, 999, build)
    monkeypatch.setattr(cupy.cuda, "get_allocator", lambda: print)  # of which nothing is known
    assert not refused(0, 0, build)


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
