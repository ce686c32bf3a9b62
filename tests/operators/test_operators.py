"""Operators: what SciPy expects of them, and what they share."""

import copy
import gc
import multiprocessing
import pickle
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from time import sleep

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import linalg

from convmat import (
    Convolution,
    ConvolutionGeometry,
    TransposedConvolution,
    convolution_matrix,
    transposed_convolution_matrix,
)
from convmat._runtime import parallel
from convmat.engines import ENGINES
from convmat.engines._base import PerDirection
from convmat.geometry._dtypes import check_target
from convmat.operators import _host as operators
from tests import reference
from tests.cases import (
    oracle,
    skip_if_absent,
    takes,
    values,
)

LAYERS = [name for name in ENGINES if name != "separable"]  # which takes outer products alone and has tests of its own
GENERAL = [name for name in LAYERS if not name.startswith("winograd")]  # which takes kernels of 3 × 3 alone
FIXED = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "padding_mode": "reflect"}


@pytest.mark.parametrize("engine", ["auto", *GENERAL])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_transposes_and_conjugates_stay_in_the_family(engine, flip, dtype):
    A = make(engine, flip, dtype)
    W = A.toarray()
    relatives = {"T": (A.T, W.T), "H": (A.H, W.conj().T), "conj": (A.conj(), W.conj()), "HT": (A.H.T, W.conj())}
    for operator, matrix in relatives.values():
        assert isinstance(operator, TransposedConvolution if operator.shape != A.shape else Convolution)
        assert operator.geometry == A.geometry
        np.testing.assert_allclose(operator.toarray(), matrix, atol=1e-14)
        np.testing.assert_allclose(operator @ np.eye(operator.shape[1]), matrix, atol=1e-12)
        np.testing.assert_allclose(operator.tocsr().toarray(), matrix, atol=1e-14)
    assert A.T.T is A
    assert A.H.H is A
    assert A.T is A.T
    assert A.conj().conj() is A
    assert A.H.T is A.conj()
    if dtype == "float64":
        assert A.H is A.T


def layer(engine):
    skip_if_absent(engine)
    kernel = values((8, 8, 3, 3), "float64")
    return Convolution(kernel, (8, 40, 40), padding=1, engine=engine, workers=2)


def make(engine="auto", flip=False, dtype="float64"):
    skip_if_absent(engine)
    return Convolution(values((4, 3, 3, 2), dtype), (3, 7, 6), flip=flip, engine=engine, **FIXED)


def test_operators_do_not_keep_each_other_alive_for_ever():
    gc.collect()
    gc.disable()
    try:
        A = make()
        references = [weakref.ref(A), weakref.ref(A.T), weakref.ref(A.T.conj()), weakref.ref(A.T.T)]
        del A
        assert all(reference() is None for reference in references)
    finally:
        gc.enable()


def test_the_transpose_outlives_the_operator():
    A_T = make(dtype="complex128").T
    gc.collect()
    np.testing.assert_allclose(A_T.T.toarray(), A_T.toarray().T)


@pytest.mark.parametrize("engine", ["auto", *GENERAL])
def test_scipy_products(engine):
    A = make(engine)
    W = A.toarray()
    generator = np.random.default_rng(3)
    v, V = generator.standard_normal(A.shape[1]), generator.standard_normal((A.shape[1], 3))
    u, U = generator.standard_normal(A.shape[0]), generator.standard_normal((A.shape[0], 3))
    np.testing.assert_allclose(A @ v, W @ v)
    np.testing.assert_allclose(A @ V, W @ V)
    np.testing.assert_allclose(A @ V[:, :1], W @ V[:, :1])
    np.testing.assert_allclose(A.matvec(v), W @ v)
    np.testing.assert_allclose(A.matmat(V), W @ V)
    np.testing.assert_allclose(A.rmatvec(u), W.T @ u)
    np.testing.assert_allclose(A.rmatmat(U), W.T @ U)
    np.testing.assert_allclose((2 * A.T @ A + linalg.aslinearoperator(np.eye(A.shape[1]))) @ v, 2 * W.T @ (W @ v) + v)
    np.testing.assert_allclose((A.H @ A).H @ v, W.T @ (W @ v))


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_products_take_what_any_scipy_passes(batch):
    """Vectors (..., N) and matrices (..., N, K), as from SciPy 1.18 on, and vectors (N, 1), as before."""
    A = make(dtype="complex128")
    W = oracle(A.kernel, A.geometry).toarray()
    for B, matrix in ((A, W), (A.T, W.T), (A.H, W.conj().T), (A.conj(), W.conj())):
        M, N = matrix.shape
        x, X = values((*batch, N), "complex128"), values((*batch, N, 4), "complex128")
        y, Y = values((*batch, M), "complex128"), values((*batch, M, 4), "complex128")
        np.testing.assert_allclose(B._matvec(x), x @ matrix.T)
        np.testing.assert_allclose(B._rmatvec(y), y @ matrix.conj())
        np.testing.assert_allclose(B._matmat(X), matrix @ X)
        np.testing.assert_allclose(B._rmatmat(Y), matrix.conj().T @ Y)
        np.testing.assert_allclose(B._matvec(X[(0,) * len(batch)][:, :1]), matrix @ X[(0,) * len(batch)][:, 0])


@pytest.mark.parametrize("engine", ["auto", *GENERAL])
def test_scipy_solvers(engine):
    A = make(engine)
    W = A.toarray()
    b = values((A.shape[0],), "float64", 5)
    expected = np.linalg.lstsq(W, b)[0]
    np.testing.assert_allclose(linalg.lsqr(A, b, atol=1e-12, btol=1e-12)[0], expected, atol=1e-6)
    np.testing.assert_allclose(
        linalg.lsmr(A, b, atol=1e-14, btol=1e-14, conlim=0, maxiter=5000)[0], expected, atol=1e-6
    )
    singular = np.linalg.svd(W, compute_uv=False)
    np.testing.assert_allclose(np.sort(linalg.svds(A, 3)[1])[::-1], singular[:3])
    np.testing.assert_allclose(linalg.eigsh(A.H @ A, 2, return_eigenvectors=False)[::-1], singular[:2] ** 2)
    shifted = A.H @ A + linalg.aslinearoperator(np.eye(A.shape[1]))
    x, info = linalg.cg(shifted, A.H @ b, rtol=1e-10)
    assert info == 0
    np.testing.assert_allclose(x, np.linalg.solve(W.T @ W + np.eye(len(W.T)), W.T @ b), atol=1e-7)


def test_pylops_dottest():
    pylops = pytest.importorskip("pylops")
    for dtype in ("float64", "complex128"):
        A = pylops.aslinearoperator(make(dtype=dtype))
        assert pylops.utils.dottest(A, *A.shape, complexflag=3 if dtype == "complex128" else 0)


@pytest.mark.parametrize("engine", ["auto", *GENERAL])
@pytest.mark.parametrize("kind", ["T", "conj", "plain"])
def test_pickle_and_copy(engine, kind):
    A = make(engine, flip=True, dtype="complex128")
    A = {"T": A.T, "conj": A.conj(), "plain": A}[kind]
    v = values((A.shape[1],), "complex128")
    before = A @ v  # prepared state must not travel
    for other in (pickle.loads(pickle.dumps(A)), copy.copy(A), copy.deepcopy(A)):
        assert type(other) is type(A)
        assert (other.engine, other.geometry) == (A.engine, A.geometry)
        np.testing.assert_array_equal(other.kernel, A.kernel)
        np.testing.assert_allclose(other @ v, before)
    assert len(pickle.dumps(A)) < 5000


def test_operators_pickled_together_stay_in_the_family():
    A = make(dtype="complex128")
    B, transpose, conjugate = pickle.loads(pickle.dumps((A, A.T, A.conj())))
    assert B.T is transpose
    assert B.conj() is conjugate
    np.testing.assert_array_equal(conjugate.T.toarray(), A.H.toarray())


@pytest.mark.parametrize("engine", ["auto", *GENERAL])
def test_with_kernel(engine):
    A = make(engine)
    kernel = values(A.kernel.shape, "float64", 9)
    for operator in (A, A.T):
        other = operator.with_kernel(kernel)
        assert type(other) is type(operator)
        expected = Convolution(kernel, A.input_shape, **FIXED).toarray()
        expected = expected.T if operator is A.T else expected
        v = values((operator.shape[1],), "float64", 4)
        np.testing.assert_allclose(other @ v, expected @ v)
        np.testing.assert_array_equal(other.kernel, kernel)
    conjugate = make(engine, flip=True, dtype="complex128").conj()
    kernel = values(A.kernel.shape, "complex128", 9)
    np.testing.assert_array_equal(conjugate.with_kernel(kernel).kernel, kernel)


def test_relatives_prepare_once_also_at_the_same_time(monkeypatch):
    calls, engine = [], ENGINES["gemm"]
    prepare, others = type(engine).prepare, Barrier(2)

    def slowly(*arguments):
        calls.append(0)
        with suppress(BrokenBarrierError):
            others.wait(0.5)  # gives another thread the time to come here, too
        return prepare(*arguments)

    monkeypatch.setattr(type(engine), "prepare", slowly)
    A = make("gemm")
    relatives = A, A.with_kernel(A.kernel)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda operator: operator.apply(np.ones(A.input_shape)), relatives)
    np.testing.assert_array_equal(first, second)
    assert len(calls) == 1


def test_with_kernel_prepares_once(monkeypatch):
    calls = []
    engine = ENGINES["gemm"]
    prepare = type(engine).prepare
    monkeypatch.setattr(type(engine), "prepare", lambda *arguments: calls.append(0) or prepare(*arguments))
    A = make("gemm")
    for seed in range(3):
        A.with_kernel(values(A.kernel.shape, "float64", seed)).apply(np.ones(A.input_shape))
    A.apply(np.ones(A.input_shape))
    assert len(calls) == 1


@pytest.mark.parametrize("engine", ["auto", *LAYERS])
def test_eight_threads_on_one_operator(engine):
    A = layer(engine)
    x = values((16, *A.input_shape), "float64")
    W = A.tocsr()
    with ThreadPoolExecutor(8) as pool:
        forward = list(pool.map(A.apply, x))
        backward = list(pool.map(A.T.apply, forward))
    for i in range(len(x)):
        np.testing.assert_allclose(forward[i].ravel(), W @ x[i].ravel(), atol=1e-10)
        np.testing.assert_allclose(backward[i].ravel(), W.T @ (W @ x[i].ravel()), atol=1e-9)


def _product_in_child(A, x, queue):
    queue.put(A.apply(x))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("engine", ["auto", *LAYERS])
def test_products_in_a_forked_child(engine):
    context = multiprocessing.get_context("fork")
    A = layer(engine)
    x = values(A.input_shape, "float64")
    expected = A.apply(x)  # the threads exist before the fork
    queue = context.Queue()
    child = context.Process(target=_product_in_child, args=(A, x, queue), daemon=True)
    child.start()
    try:
        np.testing.assert_allclose(queue.get(timeout=60), expected, atol=1e-12)
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("engine", ["auto", *GENERAL])
def test_inputs_of_any_layout(engine):
    A = make(engine)
    x = values((2, *A.input_shape), "float64")
    expected = A.apply(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.zeros((4, *A.input_shape[:-1], 2 * A.input_shape[-1]))
    strided[::2, ..., ::2] = x
    for other in (frozen, strided[::2, ..., ::2], np.asfortranarray(x), x.astype(">f8")):
        before = other.copy()
        np.testing.assert_allclose(A.apply(other), expected, atol=1e-13)
        np.testing.assert_array_equal(before, other)
    np.testing.assert_allclose(A.apply(x.tolist()), expected, atol=1e-13)


def test_out_may_be_strided_or_the_input_itself():
    A = Convolution(values((3, 3), "float64"), (8, 8), padding=1)
    x = values((8, 8), "float64")
    expected = A.apply(x)
    out = np.zeros((16, 16))[::2, ::2]
    np.testing.assert_array_equal(A.apply(x, out=out), expected)
    np.testing.assert_array_equal(A.apply(x, out=x), expected)


@pytest.mark.parametrize("engine", ["auto", *GENERAL])
@pytest.mark.parametrize("shift", [-9, -1, 0, 1, 9])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_out_may_share_memory_with_the_input(engine, shift, mode):
    skip_if_absent(engine)
    A = Convolution(values((3, 3), "float64"), (8, 8), padding=1, padding_mode=mode, engine=engine)
    for B in (A, A.T):
        memory = values((100,), "float64")
        x, out = memory[18:82].reshape(8, 8), memory[18 + shift : 82 + shift].reshape(8, 8)
        expected = B.apply(x.copy())
        assert B.apply(x, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_workers_stay_with_the_family():
    A = Convolution(values((3, 3), "float64"), (9, 9), workers=1)
    for B in (A, A.T, A.with_kernel(A.kernel), pickle.loads(pickle.dumps(A)), pickle.loads(pickle.dumps(A.T))):
        assert B._products.workers == B._products.machine.workers == 1


def at_the_same_time(call, threads=2):
    """Return what threads get that call a function at the same time."""
    together = Barrier(threads, timeout=30)
    with ThreadPoolExecutor(threads) as pool:
        return [*pool.map(lambda _: (together.wait(), call())[1], range(threads))]


def slow(function):
    """Return a function that is slow enough for another thread to come in between, and the number of its calls."""
    calls = []

    def called(*arguments):
        calls.append(arguments)
        sleep(0.05)
        return function(*arguments)

    return called, calls


def test_what_a_direction_needs_is_made_once():
    make, calls = slow(lambda transposed: object())
    made = PerDirection()
    first, second = at_the_same_time(lambda: made.get(True, make))
    assert first is second
    assert len(calls) == 1


def test_an_engine_is_bound_once(monkeypatch):
    bind, calls = slow(type(ENGINES["gemm"]).bind)
    monkeypatch.setattr(type(ENGINES["gemm"]), "bind", bind)
    A = make("gemm")
    at_the_same_time(lambda: A.apply(np.ones(A.input_shape)))
    assert len(calls) == 1


def test_matrices_are_fresh():
    A = make("csr")
    W = A.tocsr()
    W.data[:] = 0
    assert np.abs(A @ np.ones(A.shape[1])).max() > 0
    assert A.tosparse("csc").format == "csc"


@pytest.mark.parametrize("engine", ["auto", *GENERAL])
def test_kernel_is_a_private_copy(engine):
    skip_if_absent(engine)
    kernel = values((3, 3), "float64")
    W = Convolution(kernel, (5, 5)).toarray()
    A, used = (Convolution(kernel, (5, 5), engine=engine) for _ in range(2))
    other = A.with_kernel(kernel)
    used.apply(np.ones((5, 5)))
    kernel[:] = 0  # before the first product, before the first of the transpose, before the first of another kernel
    for operator in (A, used, other):
        np.testing.assert_allclose(operator @ np.ones(25), W @ np.ones(25))
        np.testing.assert_allclose(operator.T @ np.ones(9), W.T @ np.ones(9))
        np.testing.assert_array_equal(operator.toarray(), W)
    with pytest.raises(ValueError, match="read-only"):
        A.kernel[0, 0] = 1


def test_representation():
    A = Convolution(np.ones((3, 3)), (5, 5), engine="csr")
    assert repr(A) == "<9x25 Convolution of dtype float64, (5, 5) to (3, 3), engine 'csr'>"
    assert "TransposedConvolution" in repr(A.T)


def test_explain_covers_every_engine_in_both_directions():
    A = Convolution(np.ones((8, 8, 3, 3)), (8, 32, 32), padding=1)
    explanation = A.explain(batch=4, dtype="float32")
    assert [(e.engine, e.transposed) for e in explanation.estimates] == [(n, t) for t in (False, True) for n in ENGINES]
    for transposed in (False, True):
        assert sum(e.chosen for e in explanation.estimates if e.transposed == transposed) == 1
    lines = str(explanation).splitlines()
    assert len(lines) == 1 + 2 * len(ENGINES)
    assert max(map(len, lines)) < 150


@pytest.mark.parametrize("shape", [(5, 5), (5, 1), (1, 5), (25, 1), (1, 25), (5,)])
def test_what_scipy_multiplies_stays_what_it_is(shape):
    kernel = np.ones((1,) * len(shape))
    A, plain = Convolution(2 * kernel, shape), linalg.aslinearoperator(2 * np.eye(np.prod(shape)))
    size = A.shape[1]
    for operand in ((size,), (size, 1), (size, 3), shape, (3, *shape), (size, size), (2, size), (2, size, 3), ()):
        x = values(operand, "float64")
        for name in ("dot", "matvec", "matmat", "rmatvec", "__matmul__"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # SciPy will take no columns in matvec
                    expected = getattr(plain, name)(x)
            except ValueError:
                with pytest.raises(ValueError, match=r"\w") as caught:
                    getattr(A, name)(x)
                own = len(operand) > 1 and operand[-len(shape) :] == shape and name != "rmatvec"
                assert ("A.apply(x)" in str(caught.value)) == own
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                result = getattr(A, name)(x)
            if isinstance(expected, np.ndarray):
                np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)
            else:
                np.testing.assert_allclose(result @ np.eye(size), expected @ np.eye(size), rtol=0, atol=1e-13)


@given(st.data())
def test_out_is_refused_only_where_elements_share_memory(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    strides = tuple(data.draw(st.lists(st.integers(-12, 12), min_size=len(shape), max_size=len(shape))))
    itemsize = data.draw(st.sampled_from([1, 2, 4]))
    places = [sum(i * s for i, s in zip(index, strides, strict=True)) for index in np.ndindex(shape)]
    used = [place + byte for place in places for byte in range(itemsize)]
    out = np.lib.stride_tricks.as_strided(np.zeros(200, f"i{itemsize}")[90 // itemsize :], shape, strides)
    if len(set(used)) == len(used):
        check_target(out, shape, out.dtype)
    else:
        with pytest.raises(ValueError, match="out must have memory for each of its elements"):
            check_target(out, shape, out.dtype)


@given(st.data())
def test_views_are_no_overlapping_out(data):
    array = np.zeros(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)), "complex64")
    steps = [slice(None, None, data.draw(st.sampled_from([1, 2, 3, -1, -2]))) for _ in array.shape]
    view = array.transpose(data.draw(st.permutations(range(array.ndim))))[tuple(steps)]
    for out in (view, view.real, view.imag, view[..., None], view[None, :0]):
        check_target(out, out.shape, out.dtype)


@pytest.mark.parametrize("kind", [Convolution, TransposedConvolution])
def test_a_number_of_workers_is_kept_and_loaded_where_there_are_fewer_cpus(kind, monkeypatch):
    monkeypatch.setattr(parallel, "available_cpus", lambda: 4)
    monkeypatch.setattr(operators, "available_cpus", lambda: 4)
    A = kind(np.ones((3, 3)), (5, 5), workers=-3)
    pickled, x = pickle.dumps(A), values((5, 5), "float64")
    expected = A.apply(x)
    monkeypatch.setattr(parallel, "available_cpus", lambda: 1)
    monkeypatch.setattr(operators, "available_cpus", lambda: 1)
    with pytest.raises(ValueError, match="down to -1 to count back from all, got -3"):
        kind(np.ones((3, 3)), (5, 5), workers=-3)
    B = pickle.loads(pickled)
    assert pickle.dumps(B) == pickled
    np.testing.assert_allclose(B.apply(x), expected)
    np.testing.assert_allclose(B.with_kernel(np.ones((3, 3))).apply(x), expected)
    np.testing.assert_array_equal(B.T.toarray(), A.T.toarray())
    monkeypatch.setattr(parallel, "available_cpus", lambda: 8)
    monkeypatch.setattr(operators, "available_cpus", lambda: 8)
    assert pickle.loads(pickled)._products.machine.workers == 6


def test_explain_takes_any_batch_that_an_array_could_have():
    A = Convolution(np.ones((3, 3)), (5, 5))
    for batch in (10**18, 2**63 - 1):
        assert sum(estimate.chosen for estimate in A.explain(batch).estimates) == 2


@pytest.mark.parametrize("engine", GENERAL)
def test_an_axis_of_one_may_have_any_stride(engine):
    skip_if_absent(engine)
    A = Convolution(values((3, 2, 1, 3), "float64"), (2, 1, 7), engine=engine)
    x = values((1, *A.input_shape), "float64")
    expected = A.apply(x)
    strange = np.lib.stride_tricks.as_strided(x, x.shape, (-8, *x.strides[1:]))
    for odd in (x[::-1], x[:, :, ::-1], strange, x.astype(">f8")):
        np.testing.assert_array_equal(A.apply(odd), expected)
        np.testing.assert_array_equal(A.with_kernel(A.kernel[:, :, ::-1]).apply(odd), expected)
    assert A.apply(x[:0]).shape == (0, 3, 1, 5)


@pytest.mark.parametrize("n", [20, 30, 31, 32, 45, 61])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_many_axes(n, mode, engine):
    skip_if_absent(engine)
    generator = np.random.default_rng(n)
    sizes, taps = np.ones((2, n), int)
    sizes[generator.choice(n, 5, replace=False)] = 2
    taps[generator.choice(n, 2, replace=False)] = 2
    padding = tuple((int(k - 1), 0) for k in taps)
    kernel = values(tuple(taps), "float64")
    squeezed = sizes > 1
    squeezed |= taps > 1
    oracle = reference.matrix(
        kernel.reshape(taps[squeezed]), tuple(sizes[squeezed].tolist()), stride=(1,) * squeezed.sum(),
        padding=[pair for pair, there in zip(padding, squeezed, strict=True) if there], dilation=(1,) * squeezed.sum(),
        padding_mode=mode,
    )  # fmt: skip
    x = values((len(oracle.T),), "float64", 1)
    options = {"padding": padding, "padding_mode": mode, "engine": engine}
    geometry = ConvolutionGeometry(kernel.shape, tuple(sizes.tolist()), padding=padding, padding_mode=mode)
    if engine == "separable" or not takes(engine, geometry, kernel.dtype):
        with pytest.raises(ValueError, match="cannot do this convolution"):
            Convolution(kernel, tuple(sizes.tolist()), **options)
        return
    A = Convolution(kernel, tuple(sizes.tolist()), **options)
    np.testing.assert_allclose(A @ x, oracle @ x, atol=1e-12)
    np.testing.assert_allclose(A.H @ (A @ x), oracle.T @ (oracle @ x), atol=1e-12)
    np.testing.assert_allclose(A.toarray(), oracle, atol=1e-14)
    np.testing.assert_allclose(A.T.toarray(), oracle.T, atol=1e-14)
    assert ("it is for up to 30 axes" in str(A.explain())) == (n > 30)


LAYER, IMAGES = np.ones((8, 3, 3, 3)), (32, 3, 6, 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Convolution(LAYER, IMAGES),
        lambda: Convolution(LAYER, IMAGES, padding=(0, 0, 1, 1)),
        lambda: Convolution(np.ones((8, 3, 3, 3, 3)), (32, 3, 6, 6, 6)),
        lambda: convolution_matrix(LAYER, IMAGES, rows=(0, 1)),
        lambda: ConvolutionGeometry(LAYER.shape, IMAGES),
        lambda: TransposedConvolution(LAYER.swapaxes(0, 1), IMAGES),
        lambda: transposed_convolution_matrix(LAYER.swapaxes(0, 1), IMAGES, rows=(0, 1)),
    ],
)
def test_shapes_of_a_layer_and_a_batch_are_met_with_a_warning(call):
    with pytest.warns(
        UserWarning, match=r"without channels; for a layer give input_shape=\(3, 6, 6.*\[None, None\]"
    ) as caught:
        call()
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a kernel of shape .* without channels")
        call()


def test_what_the_warning_proposes_is_silent_and_means_what_it_says():
    with pytest.warns(UserWarning, match="over 4 axes"):
        A = Convolution(LAYER, IMAGES)
    B = Convolution(LAYER[None, None], (1, *IMAGES))
    assert (B.shape, B.geometry.nnz) == (A.shape, A.geometry.nnz)
    x = values(IMAGES, "float64")
    np.testing.assert_allclose(B.apply(x[None])[0], A.apply(x))
    assert Convolution(LAYER, IMAGES[1:]).apply(x).shape == (32, 8, 4, 4)


@pytest.mark.parametrize(
    ("kernel", "shape", "options"),
    [
        ((3, 3, 3), (3, 3, 3), {}),
        ((8, 3, 5), (32, 3, 100), {}),
        ((3, 3, 3, 3), (5, 5, 5, 5), {}),
        ((3, 3, 3, 3), (5, 3, 5, 5), {"padding": 1}),
        ((3, 3, 3, 3), (5, 3, 5, 5), {"padding": "same"}),
        ((3, 3, 3, 3), (5, 3, 5, 5), {"stride": 2}),
        ((3,) * 6, (3,) * 6, {}),
        ((8, 3, 3, 3), (3, 6, 6), {}),
    ],
)
def test_other_shapes_are_no_reason_to_warn(kernel, shape, options):
    ConvolutionGeometry(kernel, shape, **options)
