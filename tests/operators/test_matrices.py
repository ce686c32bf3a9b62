"""Operators as matrices: how many nonzeros, some of their rows, and all rows in blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat import Convolution, TransposedConvolution
from tests.cases import cases

RNG = np.random.default_rng(0)


def equal(one, other):
    return one.shape == other.shape and one.dtype == other.dtype and (one != other).nnz == 0


@given(cases(), st.booleans(), st.integers(1, 3000))
def test_blocks_are_the_matrix(case, transposed, max_bytes):
    A = case.operator(RNG.standard_normal(case.kernel_shape), transposed)
    matrix, end = A.tocsr(), 0
    assert A.nnz == matrix.nnz
    for rows, block in A.blocks(max_bytes):
        assert rows.start == end < rows.stop
        end = rows.stop
        assert equal(block, matrix[rows])
        assert block.has_canonical_format
        size = block.data.nbytes + block.indices.nbytes + block.indptr.nbytes
        assert size <= max_bytes or rows.stop - rows.start == 1
    assert end == matrix.shape[0]


@pytest.mark.parametrize("kind", [Convolution, TransposedConvolution])
@pytest.mark.parametrize("rows", [(2, 5), slice(2, 5), slice(-3, None), slice(4), slice(5, 2), slice(0, 1000), None])
def test_some_rows(kind, rows):
    A = kind(RNG.standard_normal((3, 2)), (8, 9), stride=2)
    for format in ("csr", "csc", "coo"):
        some = A.tosparse(format, rows=rows)
        assert some.format == format
        assert equal(some.tocsr(), A.tocsr()[slice(*rows) if isinstance(rows, tuple) else rows or slice(None)])
    assert equal(A.tocsr(rows=rows), A.tosparse("csr", rows))


def test_large_matrices_are_never_built_whole():
    A = Convolution(np.ones((3, 3)), (1 << 20, 1 << 20), padding=1)
    rows, block = next(A.blocks(max_bytes=10_000))
    assert rows == slice(0, block.shape[0])
    assert block.shape[0] > 50
    assert A.tocsr(rows=slice(-5, None)).shape == (5, 1 << 40)


def test_operators_are_called_on_arrays():
    A = Convolution(RNG.standard_normal((2, 3, 3, 3)), (3, 6, 7), padding=1)
    x = RNG.standard_normal((2, 3, 6, 7))
    np.testing.assert_array_equal(A(x), A.apply(x))
    np.testing.assert_array_equal(A.T(A(x)), A.T.apply(A.apply(x)))


def test_errors():
    A = Convolution([1, 2], 4)
    with pytest.raises(ValueError, match=r"rows must be a slice with the step 1, got slice\(0, 3, 2\)"):
        A.tocsr(rows=slice(0, 3, 2))
    with pytest.raises(TypeError, match=r"rows must be a pair \(start, stop\) of ints, a slice or None, got 3"):
        A.tocsr(rows=3)
    with pytest.raises(ValueError, match=r"rows must satisfy 0 <= start <= stop <= 3, got \(1, 4\)"):
        A.tosparse(rows=(1, 4))
    with pytest.raises(ValueError, match="max_bytes must be at least 1, got 0"):
        A.blocks(0)
    with pytest.raises(TypeError, match=r"max_bytes must be an int, got 1000000000\.0"):
        A.blocks(1e9)
    with pytest.raises(ValueError, match="x must have shape"):
        A([1, 2])
