"""The engine `csr`: SciPy's product and the compiled one, against a matrix made by other means."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from convmat import Convolution
from convmat.engines._csr import csr
from tests import reference
from tests.cases import DTYPES, assert_close, values
from tests.engines.compiled import guarded
from tests.processes import python

GEOMETRIES = {
    "image": ((3, 4), (11, 9), {"padding": 1}),
    "layer": ((5, 3, 3, 3), (3, 8, 9), {"padding": ((2, 1), (0, 1)), "stride": (2, 1)}),
    "empty rows": ((2, 1), (13, 12), {"stride": (5, 3), "padding": 2}),
    "signal": ((9,), (200,), {"padding": 4, "padding_mode": "circular"}),
    "point": ((6, 6, 1, 1), (6, 7, 5), {}),
}


@pytest.fixture(params=["scipy", "compiled"])
def path(request, monkeypatch):
    """Take one way for matrices of any size, in many blocks of rows."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    monkeypatch.setattr(csr, "_COMPILED", 0 if request.param == "compiled" else sys.maxsize)
    monkeypatch.setattr(csr, "_SERIAL", 50)


def large(shape, dtype, seed=0):
    """Random values whose products overflow small integers."""
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)
    return values(shape, dtype, seed)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("dtype", [*DTYPES, "uint64"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_products_equal_the_oracle(path, name, dtype, workers):
    shape, size, options = GEOMETRIES[name]
    kernel = large(shape, dtype)
    A = Convolution(kernel, size, **options, engine="csr", workers=workers)
    n = len(size) - (len(shape) == len(size) + 1)
    full = {
        "stride": (1,) * n, "padding": ((0, 0),) * n, "dilation": (1,) * n, "groups": 1, "padding_mode": "zeros",
    }  # fmt: skip
    W = reference.matrix(kernel, size, **(full | {key: _per_axis(value, n, key) for key, value in options.items()}))
    for B, matrix in ((A, W), (A.T, W.T)):
        scale = np.abs(matrix.astype(np.complex128)).sum(axis=1).max()
        for batch in (1, 2, 4, 7, 9):
            x = large((batch, B.shape[1]), dtype, batch)
            expected = x @ matrix.T
            actual = B.apply(x.reshape(batch, *B.input_shape)).reshape(batch, -1)
            assert_close(actual, expected, scale * np.abs(x.astype(np.complex128)).max())


def _per_axis(value, n, key):
    if key == "padding":
        value = value if isinstance(value, tuple) else ((value, value),) * n
    return value if isinstance(value, (tuple, str)) else (value,) * n


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    index=st.sampled_from(["int32", "int64"]), batch=st.integers(1, 9), blocks=st.integers(1, 4),
    dtype=st.sampled_from(["float64", "complex64", "int16"]),
)  # fmt: skip
def test_compiled_product_of_any_matrix(rows, columns, density, index, batch, blocks, dtype):
    pytest.importorskip("numba")
    generator = np.random.default_rng([rows, columns, batch])
    dense = np.where(generator.random((rows, columns)) < density, large((rows, columns), dtype), 0).astype(dtype)
    matrix = sparse.csr_array(dense)
    matrix.indices, matrix.indptr = matrix.indices.astype(index), matrix.indptr.astype(index)
    cuts = [(rows * i // blocks, rows * (i + 1) // blocks) for i in range(blocks)]
    x, out = large((batch, columns), dtype, 1), large((batch, rows), dtype, 2)
    x.flags.writeable = False
    csr._compiled_product(matrix, cuts, 2)(x, out)
    assert_close(out, x @ dense.T, np.abs(dense.astype("D")).sum(axis=1).max() * np.abs(x.astype("D")).max())


def test_a_large_matrix_takes_the_compiled_product():
    pytest.importorskip("numba")
    A = Convolution(values((3, 3), "float64"), (700, 700), padding=1, engine="csr")
    x = values((5, 700, 700), "float64", 1)
    y = A.apply(x)
    assert "convmat.engines._csr.loops" in sys.modules
    W = A.tocsr()
    assert W.nnz >= csr._COMPILED
    np.testing.assert_allclose(y.reshape(5, -1), (W @ x.reshape(5, -1).T).T, atol=1e-12)


def test_small_matrices_do_without_numba():
    code = """
        import sys, numpy, convmat
        A = convmat.Convolution(numpy.ones((5, 5)), (200, 200), engine="csr")
        A.T.apply(A.apply(numpy.ones((5, 200, 200))))
        print("numba" in sys.modules)
    """
    assert python(code) == ["False"]


class GuardedScratch:
    """Scratch memory of the size that is asked for, which ends at a page that must not be touched, or begins after one."""

    at_end = True

    def __init__(self, dtype, pieces):
        self.dtype = dtype

    def take(self, size):
        return guarded(np.full(size or 1, 77, self.dtype), self.at_end)

    def give_back(self, array):
        pass


def check_guarded():
    csr.Scratch = GuardedScratch
    for dtype, index in (("float32", "int32"), ("complex128", "int64"), ("int8", "int32"), ("int8", "int64")):
        for batch, at_end in itertools.product((1, 4, 6, 8, 9), (False, True)):
            GuardedScratch.at_end = at_end
            rows, columns = 37 + batch, 29
            dense = np.random.default_rng(batch).integers(0, 3, (rows, columns)).astype(dtype)
            matrix = sparse.csr_array(dense)
            matrix.indices, matrix.indptr = matrix.indices.astype(index), matrix.indptr.astype(index)
            for name in ("data", "indices", "indptr"):
                setattr(matrix, name, guarded(getattr(matrix, name), at_end))
            x = guarded(np.arange(batch * columns).reshape(batch, columns).astype(dtype), at_end)
            out = guarded(np.zeros((batch, rows), dtype), at_end)
            csr._compiled_product(matrix, [(0, 20), (20, rows)], 1)(x, out)
            np.testing.assert_array_equal(out, x @ dense.T)
    print("done")


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8), most=st.integers(1, 4))
def test_long_rows_are_split_into_segments(lengths, most):
    indptr = np.cumsum([0, *lengths])
    columns = np.concatenate([np.arange(length) for length in lengths])
    matrix = sparse.csr_array((np.arange(indptr[-1]) + 1.0, columns, indptr), shape=(len(lengths), 9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csr, "most_terms", lambda dtype: most)
        split, starts = csr._split_rows(matrix)
    assert np.diff(split.indptr).max() <= most
    dense = split.toarray()
    assert len(starts) == len(lengths)
    for row, first, last in zip(matrix.toarray(), starts, [*starts[1:], len(dense)], strict=True):
        assert last - first == max(1, -(-np.count_nonzero(row) // most))
        np.testing.assert_array_equal(dense[first:last].sum(axis=0), row)


def test_the_loop_and_its_estimate_group_as_many_columns():
    pytest.importorskip("numba")
    from convmat.engines._csr import loops

    assert csr._GROUP == loops.GROUP


@pytest.mark.skipif(sys.platform == "win32", reason="needs mmap with protection")
def test_compiled_loops_stay_within_their_arrays():
    """Every buffer begins or ends at a page that must not be touched; a violation kills the process."""
    pytest.importorskip("numba")
    assert python("from tests.engines import test_csr as t; t.check_guarded()") == ["done"]
