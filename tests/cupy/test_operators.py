"""Operators of convmat.cupy: their relatives, algebra, copies, conversions, and solvers that take them."""

import copy
import gc
import importlib
import pickle
import weakref

import numpy as np
import pytest

import convmat
from convmat.cupy import Convolution, TransposedConvolution
from tests.cases import values
from tests.cupy.device import ALWAYS, FIXED, cupy, make, needs_device


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
    assert type(host).__module__ == "convmat.operators._operators"
    assert type(host).__name__ == type(A).__name__
    assert (host.engine, host.geometry) == ("gemm", A.geometry)
    np.testing.assert_allclose(host.toarray(), A.toarray().get(), atol=1e-14)
    assert A.to("cupy") is A
    assert make("direct").to("numpy").engine == "auto"
    there = host.to("cupy")
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
    with pytest.raises(ValueError, match="library must be one of numpy, cupy, got 'jax'"):
        host.to("jax")
    with pytest.raises(TypeError, match="library must be a str, got 1"):
        host.to(1)


def test_the_kernel_is_a_private_copy():
    kernel = cupy.ones((3, 3))
    A = Convolution(kernel, (5, 5))
    kernel[...] = 0
    A.kernel[...] = 0
    np.testing.assert_array_equal((A @ cupy.ones(25)).get(), np.full(9, 9.0))


def test_representation():
    A = Convolution(cupy.ones((3, 3)), (5, 5), engine="csr")
    assert repr(A) == "<9x25 Convolution of dtype float64 on the device, (5, 5) to (3, 3), engine 'csr'>"


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
