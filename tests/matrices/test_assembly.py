"""W and Wᵀ, against the oracle and against SciPy."""

import subprocess
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from convmat import Convolution, ConvolutionGeometry, convolution_matrix, transposed_convolution_matrix
from convmat.matrices import _pattern as pattern
from convmat.matrices import _writer as writer
from convmat.matrices._assembly import FORMATS, assemble
from tests.cases import DTYPES, cases, values


@pytest.fixture(params=["small", "tiny", "usual"])
def way(request, monkeypatch):
    """Write by blocks so small that every branch is taken, or as usual."""
    if request.param != "usual":
        tiny = request.param == "tiny"
        for name, value in {
            "_BLOCK": 1 if tiny else 40,
            "_LINE": 1 if tiny else 100,
            "_TABLE": 1 if tiny else 200,
        }.items():
            monkeypatch.setattr(pattern, name, value)
        for name, value in {"_CHUNK": 100 if tiny else 1000, "_SERIAL": 5, "_SMALL": 1}.items():
            monkeypatch.setattr(writer, name, value)
    pattern.forget()
    yield
    pattern.forget()


def assert_matrix(W, expected, nnz=None):
    """Compare, and check that the matrix is canonical by looking at it rather than at its flags."""
    assert W.has_canonical_format
    bare = sparse.csr_array((W.data, W.indices, W.indptr), shape=W.shape)
    bare.check_format(full_check=True)
    assert bare.has_canonical_format
    assert W.indices.dtype == W.indptr.dtype
    assert W.dtype == expected.dtype
    assert nnz is None or W.nnz == nnz
    if expected.dtype.kind in "iu":
        np.testing.assert_array_equal(W.toarray(), expected)
    else:
        np.testing.assert_allclose(
            W.toarray(), expected, rtol=1e-12 if expected.dtype.itemsize > 8 else 1e-5, atol=1e-6
        )


@pytest.mark.filterwarnings("ignore:overflow encountered in scalar add")  # the oracle's integers wrap, too
@pytest.mark.usefixtures("way")
@given(case=cases(), dtype=st.sampled_from(DTYPES), workers=st.sampled_from([1, 2, 3]))
def test_both_matrices_equal_the_oracle(case, dtype, workers):
    kernel = values(case.kernel_shape, dtype)
    expected = case.matrix(kernel)
    geometry = ConvolutionGeometry(case.kernel_shape, case.input_shape, **case.options)
    if not np.array_equal(expected, case.matrix(kernel.astype(np.result_type(dtype, np.float32)))):
        with pytest.raises(ValueError, match=r"padding_mode='\w+' merges, got int8 and a sum of .*; cast it to int16"):
            convolution_matrix(kernel, case.input_shape, workers=workers, **case.options)
        return
    W = convolution_matrix(kernel, case.input_shape, workers=workers, **case.options)
    assert_matrix(W, expected, geometry.nnz)
    W_T = transposed_convolution_matrix(
        kernel, case.output_shape, output_shape=case.input_shape, workers=workers, **case.options
    )
    assert_matrix(W_T, expected.T, geometry.nnz)


@pytest.mark.filterwarnings("ignore:overflow encountered in scalar add")  # the oracle's integers wrap, too
@pytest.mark.usefixtures("way")
@given(case=cases(), transposed=st.booleans(), dtypes=st.permutations(DTYPES))
def test_a_kept_pattern_serves_other_kernels_and_is_nobodys_array(case, transposed, dtypes):
    geometry = ConvolutionGeometry(case.kernel_shape, case.input_shape, **case.options)
    for seed, dtype in enumerate(dtypes[:3]):
        kernel = values(case.kernel_shape, dtype, seed)
        expected = case.matrix(kernel)
        W = assemble(geometry, kernel, transposed)
        assert_matrix(W, expected.T if transposed else expected, geometry.nnz)
        W.data[...], W.indices[...], W.indptr[...] = 0, 0, 0


@pytest.mark.usefixtures("way")
@given(case=cases(), transposed=st.booleans(), data=st.data())
def test_rows_are_those_of_the_whole_matrix(case, transposed, data):
    kernel = values(case.kernel_shape, "int64")
    geometry = ConvolutionGeometry(case.kernel_shape, case.input_shape, **case.options)
    expected = case.matrix(kernel)
    expected = expected.T if transposed else expected
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    assert_matrix(assemble(geometry, kernel, transposed, (start, stop), 2), expected[start:stop])


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix with:scipy.sparse.SparseEfficiencyWarning")
@given(cases(), st.sampled_from(FORMATS))
def test_formats(case, format):
    kernel = values(case.kernel_shape, "float64")
    W = convolution_matrix(kernel, case.input_shape, format=format, **case.options)
    assert W.format == format
    assert isinstance(W, sparse.sparray)
    np.testing.assert_allclose(W.toarray(), case.matrix(kernel), rtol=1e-12, atol=1e-12)


@given(cases())
def test_flip_reverses_the_spatial_axes_only(case):
    kernel = values(case.kernel_shape, "int64")
    flipped = np.flip(kernel, tuple(range(-len(case.stride), 0)))
    W = convolution_matrix(kernel, case.input_shape, flip=True, **case.options)
    np.testing.assert_array_equal(W.toarray(), case.matrix(flipped))
    W_T = transposed_convolution_matrix(
        kernel, case.output_shape, output_shape=case.input_shape, flip=True, **case.options
    )
    np.testing.assert_array_equal(W_T.toarray(), case.matrix(flipped).T)


@pytest.mark.parametrize("mode", ["full", "valid"])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 5), (3, 5), (4, 4), (5, 9), (30, 100)])
def test_equals_scipy_convolution_matrix(mode, k, n):
    a = values((k,), "int64")
    W = convolution_matrix(a, n, padding=mode, flip=True)
    np.testing.assert_array_equal(W.toarray(), scipy.linalg.convolution_matrix(a, n, mode))


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_same_pads_the_odd_position_after(k):
    W = convolution_matrix(np.arange(1, k + 1), 9, padding="same")
    assert W.shape == (9, 9)
    before = (k - 1) // 2
    np.testing.assert_array_equal(W.toarray()[before, :k], np.arange(1, k + 1))


def test_zeros_in_the_kernel_are_stored():
    W = convolution_matrix([0, 1, 0], 5, padding=1)
    assert W.nnz == 13


def test_dtype_is_cast():
    W = convolution_matrix([1, 2, 3], 5, dtype="float32")
    assert W.dtype == np.float32
    assert convolution_matrix([1.0, 2.0], 5, dtype=">c16").dtype == np.complex128


def test_kernels_in_any_layout_and_order():
    kernel = values((3, 4), "float64")
    expected = convolution_matrix(kernel, (8, 9)).toarray()
    frozen = kernel.copy()
    frozen.flags.writeable = False
    strided = np.zeros((6, 8))
    strided[::2, ::2] = kernel
    for other in (frozen, strided[::2, ::2], np.asfortranarray(kernel), kernel.astype(">f8"), kernel[::-1][::-1]):
        before = np.array(other)
        np.testing.assert_array_equal(convolution_matrix(other, (8, 9)).toarray(), expected)
        np.testing.assert_array_equal(before, other)


def test_integers_of_a_product_wrap_as_numpys_do():
    kernel = np.array([100, 100], np.int8)
    geometry = ConvolutionGeometry(2, 3, padding=((1, 0),), padding_mode="replicate")
    W = assemble(geometry, kernel)
    assert W.dtype == np.int8
    assert W.toarray()[0, 0] == np.int8(-56)
    A = Convolution(kernel, 3, padding=((1, 0),), padding_mode="replicate", engine="csr")
    np.testing.assert_array_equal(A.apply(np.ones(3, np.int8)), np.full(3, -56, np.int8))


@pytest.mark.parametrize(
    ("kernel", "sums", "wide"),
    [
        (np.array([100] * 3, np.int8), "int8 and a sum of [23]00", "int16"),
        (np.array([-100] * 3, np.int8), "int8 and a sum of -[23]00", "int16"),
        (np.array([200] * 3, np.uint8), "uint8 and a sum of [46]00", "uint16"),
        (np.array([2**30, 2**30, -5], np.int32), f"int32 and a sum of {2**31}", "int64"),
        (np.array([2**62] * 2, np.int64), f"int64 and a sum of {2**63}", "float64"),
        (np.array([-(2**62)] * 3, np.int64), f"int64 and a sum of -{3 * 2**62}", "float64"),
        (np.array([2**63] * 2, np.uint64), f"uint64 and a sum of {2**64}", "float64"),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_sums_of_taps_that_do_not_fit_are_refused_by_what_returns_a_matrix(kernel, sums, wide, flip, monkeypatch):
    options = {"padding": len(kernel) - 1, "padding_mode": "replicate", "flip": flip}
    A = Convolution(kernel, 4, **options)
    W = convolution_matrix(kernel, 4, dtype=wide, **options)
    ones = np.ones(4, wide)
    np.testing.assert_array_equal(W @ ones, A.apply(ones))
    monkeypatch.setattr("convmat.matrices._assembly.MatrixRows.write", None)  # it would fail
    calls = [A.tocsr, A.toarray, A.T.tocsr, *(partial(A.tosparse, format) for format in FORMATS)]
    calls += [partial(convolution_matrix, kernel, 4, **options)]
    calls += [partial(transposed_convolution_matrix, kernel, A.output_shape, output_shape=4, **options)]
    for call in calls:
        with pytest.raises(ValueError, match=f"padding_mode='replicate' merges, got {sums}; cast it to {wide}$"):
            call()


def test_only_sums_that_are_in_the_matrix_are_refused():
    kernel, options = np.array([100] * 3, np.int8), {"padding": 1, "padding_mode": "replicate"}
    inner = convolution_matrix(kernel, 40, rows=(1, 39), **options)
    np.testing.assert_array_equal(inner.toarray(), convolution_matrix(kernel, 40, padding=1).toarray()[1:39])
    for rows in ((0, 1), (39, 40)):
        with pytest.raises(ValueError, match="a sum of 200"):
            convolution_matrix(kernel, 40, rows=rows, **options)
    # The sums of either axis alone would not fit, and are in no entry.
    kernel = np.array([[100, -100], [100, -100]], np.int8)
    W = convolution_matrix(kernel, (1, 1), padding=((1, 0), (1, 0)), padding_mode="replicate")
    assert W.toarray() == 0


def test_a_band_of_an_immense_matrix():
    # 50 000 × 50 000 pixels: more than 2³¹ columns, 22.5 · 10⁹ nonzeros.
    n = 50_000
    kernel = np.arange(1.0, 10.0).reshape(3, 3)
    geometry = ConvolutionGeometry((3, 3), (n, n), padding=1)
    assert geometry.shape == (n * n, n * n)
    assert geometry.nnz == (3 * n - 2) ** 2
    assert geometry.matrix_nbytes("float64") == geometry.nnz * 16 + (n * n + 1) * 8
    start = n * n - 3
    for build in (convolution_matrix, transposed_convolution_matrix):
        W = build(kernel, (n, n), padding=1, rows=(start, n * n))
        assert W.shape == (3, n * n)
        assert W.indices.dtype == W.indptr.dtype == np.int64
        last = n * n - 1
        np.testing.assert_array_equal(W.indices[-4:], [last - n - 1, last - n, last - 1, last])
        corner = kernel[:2, :2] if build is convolution_matrix else kernel[1:, 1:][::-1, ::-1]
        np.testing.assert_array_equal(W.data[-4:], corner.ravel())


@pytest.mark.parametrize("tap", [0, 1, 2])
def test_a_row_far_along_an_axis_of_long_strides(tap):
    n, stride, dilation = 2**45, 2**24 - 1, 2
    output = n // stride - 5
    row = output * stride + tap * dilation
    W_T = transposed_convolution_matrix(
        np.arange(1.0, 4.0),
        (n - 5) // stride + 1,
        stride=stride,
        dilation=dilation,
        output_shape=n,
        rows=(row, row + 1),
    )
    assert W_T.indices.tolist() == [output]
    assert W_T.data.tolist() == [tap + 1.0]


def test_a_matrix_beyond_memory_is_refused_before_it_is_allocated():
    kernel = np.ones((3, 3))
    tracemalloc.start()
    needed = ConvolutionGeometry((3, 3), (50_000, 50_000), padding=1).matrix_nbytes("float64")
    with pytest.raises(MemoryError, match=rf"22499400004 nonzeros.*\({needed} bytes\).*convmat\.Convolution.*rows="):
        convolution_matrix(kernel, (50_000, 50_000), padding=1)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_dense_matrix_beyond_memory_is_refused_before_anything_is_built(monkeypatch):
    A = Convolution(np.ones((3, 3)), (10_000, 10_000))
    monkeypatch.setattr("convmat.matrices._assembly.MatrixRows.write", None)  # it would fail
    for operator in (A, A.T):
        rows, columns = operator.shape
        with pytest.raises(
            MemoryError, match=rf"dense {rows} × {columns} matrix.* takes .*B \(\d+ bytes\), more than.*tocsr"
        ):
            operator.toarray()


def test_rows_may_be_any_pair_of_integers():
    expected = convolution_matrix(np.ones((3, 3)), (5, 5)).toarray()[2:7]
    for rows in ((2, 7), [2, 7], np.array([2, 7]), (np.int8(2), np.array(7))):
        np.testing.assert_array_equal(convolution_matrix(np.ones((3, 3)), (5, 5), rows=rows).toarray(), expected)


def test_matrices_with_more_than_64_bits_of_rows():
    n = 2**40
    with pytest.raises(MemoryError, match=f"the {(n - 2) ** 2} × {n * n} matrix has {9 * (n - 2) ** 2} nonzeros"):
        convolution_matrix(np.ones((3, 3)), (n, n))
    W = transposed_convolution_matrix([[1, 2], [3, 4]], (2, 2), stride=n - 2, rows=(n * n - 2, n * n))
    np.testing.assert_array_equal(W.toarray(), [[0, 0, 0, 3], [0, 0, 0, 4]])


@pytest.mark.parametrize("transposed", [False, True])
def test_a_build_takes_little_more_memory_than_the_matrix(transposed):
    kernel = np.ones((3, 3))
    build = transposed_convolution_matrix if transposed else convolution_matrix
    tracemalloc.start()
    W = build(kernel, (700, 700), padding=1, workers=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.1 * (W.data.nbytes + W.indices.nbytes + W.indptr.nbytes)


def test_numpy_settings_of_the_caller_stay():
    before = np.getbufsize()
    convolution_matrix(np.ones((3, 3)), (200, 200), workers=2)
    assert np.getbufsize() == before


def test_import_needs_no_optional_package():
    code = (
        "import sys, convmat\n"
        "unwanted = {'numba', 'llvmlite', 'cupy', 'torch', 'matplotlib', 'tqdm', 'dask', 'threadpoolctl'}\n"
        "assert not unwanted & set(sys.modules), unwanted & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
