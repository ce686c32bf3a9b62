"""Products as a function of the kernel: the matrix, its adjoint, and the weight gradients of PyTorch."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convmat import Convolution, TransposedConvolution
from convmat.engines import _correlation
from convmat.operators import _kernel_matrix
from tests.cases import cases

RNG = np.random.default_rng(3)


def numbers(shape, dtype):
    dtype = np.dtype(dtype)
    values = RNG.integers(-4, 5, shape)
    if dtype.kind == "c":
        values = values + 1j * RNG.integers(-4, 5, shape)
    return values.astype(dtype)


def column_by_column(operator, x):
    """Return X by its definition: the product with each kernel that is 1 in one place."""
    size = operator.kernel.size
    unit = np.eye(size, dtype=operator.dtype).reshape(size, *operator.kernel.shape)
    return np.stack([operator.with_kernel(kernel).apply(x).ravel() for kernel in unit], axis=1)


def check(operator, x):
    X = column_by_column(operator, x)
    op = operator.kernel_operator(x)
    matrix = op.tocsr()
    assert op.shape == X.shape
    assert matrix.dtype == x.dtype
    np.testing.assert_array_equal(matrix.toarray(), X)
    assert matrix.has_canonical_format
    copy = matrix.copy()
    copy.has_canonical_format = False
    copy.sum_duplicates()
    assert copy.nnz == matrix.nnz
    np.testing.assert_array_equal(copy.indices, matrix.indices)
    kernel = numbers(operator.kernel.shape, operator.dtype)
    np.testing.assert_allclose(op @ kernel.ravel(), X @ kernel.ravel(), rtol=1e-12, atol=1e-9)
    y = numbers(op.shape[0], X.dtype)
    exact = x.dtype.kind in "iu"
    np.testing.assert_allclose(op.H @ y, X.conj().T @ y, rtol=0 if exact else 1e-12, atol=0 if exact else 1e-9)
    np.testing.assert_allclose(op.T @ y, X.T @ y, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(op.gram(), X.conj().T @ X, rtol=1e-12, atol=1e-9)
    start, stop = sorted(RNG.integers(0, len(X) + 1, 2).tolist())
    np.testing.assert_array_equal(op.tocsr(rows=(start, stop)).toarray(), X[start:stop])
    idle = np.zeros(operator.geometry.spatial_kernel, bool)
    idle[tuple(op.idle_taps.T)] = True
    stored = np.zeros(operator.kernel.size, bool)
    stored[matrix.indices] = True
    by_tap = stored.reshape(-1, idle.size).any(axis=0) if len(X) else np.zeros(idle.size, bool)
    if matrix.shape[0]:
        np.testing.assert_array_equal(idle.ravel(), ~by_tap)


@given(
    case=cases(),
    batch=st.sampled_from([(), (1,), (3,), (2, 2)]),
    dtype=st.sampled_from(["d", "D", "int64"]),
    transposed=st.booleans(),
    flip=st.booleans(),
    sizes=st.sampled_from([{}, {"BLOCK": 1, "SERIAL": 0, "_CHUNK": 1}, {"BLOCK": 100, "_SUMS": 2, "_CHUNK": 50}]),
)
def test_the_matrix_its_adjoint_and_its_gram_matrix(case, batch, dtype, transposed, flip, sizes):
    operator = case.operator(numbers(case.kernel_shape, dtype), transposed, flip=flip, engine="gemm")  # which is exact
    assume(operator.kernel.size <= 300)
    assume(np.prod(operator.output_shape) <= 3000)
    with pytest.MonkeyPatch.context() as patch:  # blocks of some bytes, where arrays are as small as drawn ones
        for name, size in sizes.items():
            patch.setattr(_kernel_matrix if name == "_CHUNK" else _correlation, name, size)
        check(operator, numbers((*batch, *operator.input_shape), dtype))


TORCH = [
    (channels, height, width, k, stride, padding, dilation, groups)
    for channels, (height, width), k, stride, padding, dilation, groups in itertools.product(
        (1, 3, 32), ((11, 17), (14, 12)), (2, 3, 4), (1, 2), (0, 2, "same", "valid"), (1, 3), (1, 16)
    )
    if channels % groups == 0 and not (padding == "same" and stride > 1)
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_those_of_pytorch(transposed):
    torch = pytest.importorskip("torch")
    rows = [*TORCH[:: 3 if transposed else 1], (1, 8, 1, (3, 1), 1, 0, (3, 1), 1)]
    for channels, height, width, k, stride, padding, dilation, groups in rows:
        if transposed and isinstance(padding, str):
            continue
        spatial = k if isinstance(k, tuple) else (k, k)
        shape = (
            (channels, 2 * channels // groups, *spatial) if transposed else (2 * channels, channels // groups, *spatial)
        )
        kernel, x = RNG.standard_normal(shape), RNG.standard_normal((2, channels, height, width))
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        try:
            A = (TransposedConvolution if transposed else Convolution)(kernel, x.shape[1:], **options)
        except ValueError:  # the kernel does not fit
            continue
        weight = torch.from_numpy(kernel).requires_grad_()
        function = torch.nn.functional.conv_transpose2d if transposed else torch.nn.functional.conv2d
        y = function(torch.from_numpy(x), weight, **options)
        given_ = RNG.standard_normal(tuple(y.shape))
        y.backward(torch.from_numpy(given_))
        ours, theirs = A.kernel_operator(x).H.apply(given_), weight.grad.numpy()
        scale = abs(x).max() * abs(given_).max() * np.sqrt(given_.size)
        assert abs(ours - theirs).max() <= 1e-11 * scale, (channels, height, width, options)


def test_single_precision_stays_accurate_for_many_outputs():
    x = np.abs(RNG.standard_normal((1, 700, 700))).astype("f")
    y = np.abs(RNG.standard_normal((1, 700, 700))).astype("f")
    A = Convolution(np.ones((1, 1, 3, 3), "f"), x.shape, padding=1)
    single = A.kernel_operator(x).H.apply(y)
    double = A.kernel_operator(x.astype("d")).H.apply(y.astype("d"))
    assert single.dtype == np.float32
    assert abs(single / double - 1).max() < 1e-5


def test_single_precision_stays_accurate_in_gram_matrices():
    x = np.abs(RNG.standard_normal((1, 500, 500))).astype("f")
    for kind in (Convolution, TransposedConvolution):
        A = kind(np.ones((1, 1, 3, 3), "f"), x.shape)
        single, double = (A.kernel_operator(x.astype(dtype)).gram() for dtype in "fd")
        assert abs(single / double - 1).max() < 1e-5


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3)])
def test_vectors_may_have_batch_axes_as_scipy_has_them(shape):
    """What SciPy's public methods hand on differs by version: vectors (N, 1), or (..., N), and matrices (..., N, K)."""
    op = Convolution(np.ones((2, 3, 3)), (3, 9)).kernel_operator(RNG.standard_normal((2, 3, 9)))
    X = op.tocsr().toarray()
    for linear, matrix in ((op, X), (op.H, X.T)):
        size = matrix.shape[1]
        v, V = RNG.standard_normal((*shape, size)), RNG.standard_normal((*shape, size, 4))
        np.testing.assert_allclose(linear._matvec(v), v @ matrix.T, atol=1e-12)
        one = v.reshape(-1, size)[0]
        np.testing.assert_allclose(linear._matvec(one[:, None]).ravel(), one @ matrix.T, atol=1e-12)
        np.testing.assert_allclose(linear._matmat(V), matrix @ V, atol=1e-12)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_no_bit(workers):
    x, y = RNG.standard_normal((3, 16, 40, 40)), RNG.standard_normal((3, 8, 40, 40))
    one, several = (
        Convolution(np.ones((8, 16, 3, 3)), x.shape[1:], padding=1, workers=n).kernel_operator(x) for n in (1, workers)
    )
    np.testing.assert_array_equal(one.H.apply(y), several.H.apply(y))
    np.testing.assert_array_equal(one.gram(), several.gram())


def test_taps_that_meet_no_input_are_named():
    op = Convolution(np.ones((2, 5)), (1, 4), stride=3, padding=((1, 0), (1, 0))).kernel_operator(np.ones((1, 4)))
    assert op.idle_taps.tolist() == [[0, column] for column in range(5)] + [[1, 0]]
    whole = Convolution(np.ones(3), 8).kernel_operator(np.ones(8))
    assert whole.idle_taps.shape == (0, 1)


def test_matrices_and_solvers_take_it():
    from scipy.sparse.linalg import aslinearoperator, lsqr

    A = Convolution(np.zeros((2, 3, 3, 3)), (3, 12, 12))
    true, x = RNG.standard_normal(A.kernel.shape), RNG.standard_normal((4, 3, 12, 12))
    op = A.kernel_operator(x)
    y = A.with_kernel(true).apply(x)
    found = lsqr(op, y.ravel(), atol=1e-14, btol=1e-14)[0]
    np.testing.assert_allclose(found.reshape(true.shape), true, atol=1e-9)
    some = RNG.standard_normal((op.shape[1], 3))
    np.testing.assert_allclose(op @ some, op.tocsr() @ some)
    np.testing.assert_allclose(op.H @ (op @ some), op.gram() @ some)
    assert (op @ np.zeros((op.shape[1], 0))).shape == (op.shape[0], 0)
    assert aslinearoperator(op) is op
    assert op.H.H is op
    assert op.input_shape == true.shape
    assert op.output_shape == y.shape
    np.testing.assert_array_equal(op.H.apply(y).ravel(), op.rmatvec(y.ravel()))


def test_an_empty_batch_is_a_matrix_without_rows():
    A = Convolution(np.ones((2, 1, 3)), (1, 8))
    op = A.kernel_operator(np.ones((0, 1, 8)))
    assert op.tocsr().shape == op.shape == (0, 6)
    np.testing.assert_array_equal(op.H.apply(np.ones((0, 2, 6))), np.zeros(A.kernel.shape))
    np.testing.assert_array_equal(op.gram(), np.zeros((6, 6)))


def test_the_input_is_copied():
    x = np.ones(5)
    op = Convolution([1.0, 2.0], 5).kernel_operator(x)
    x[:] = 7
    np.testing.assert_array_equal(op.apply([1.0, 1.0]), np.full(4, 2.0))


def test_wrong_shapes_and_dtypes_are_a_sentence():
    A = Convolution(np.ones((2, 3, 3)), (3, 9))
    with pytest.raises(ValueError, match=r"^x must have shape \(\.\.\., 3, 9\), got \(9, 3\)$"):
        A.kernel_operator(np.ones((9, 3)))
    with pytest.raises(TypeError, match="x"):
        A.kernel_operator(np.full((3, 9), "a"))
    op = A.kernel_operator(np.ones((5, 3, 9)))
    with pytest.raises(ValueError, match=r"^y must have shape \(5, 2, 7\), got \(2, 7\)$"):
        op.H.apply(np.ones((2, 7)))
    with pytest.raises(ValueError, match=r"^kernel must have shape \(2, 3, 3\), got \(3, 3\)$"):
        op.apply(np.ones((3, 3)))
    with pytest.raises(ValueError, match="rows must satisfy"):
        op.tocsr(rows=(0, 10**6))


def test_what_does_not_fit_is_refused_before_work():
    A = Convolution(np.zeros((512, 512, 3, 3), "f"), (512, 4, 4))
    with pytest.raises(MemoryError, match=r"dense 2359296 × 2359296 matrix XᴴX takes"):
        A.kernel_operator(np.ones((512, 4, 4), "f")).gram()
