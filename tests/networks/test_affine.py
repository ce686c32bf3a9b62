"""Affine maps of networks equal what the stages do, and derivatives equal differences."""

import numpy as np
import pytest
from scipy import sparse

from convmat.geometry import Axis
from convmat.networks import Network
from convmat.networks import _elementary as elementary
from convmat.networks._builder import Builder
from tests.networks.graphs import GRAPHS, built


def jacobian(net, x, step=1e-6):
    """Central differences."""
    size = x.size
    points = x.ravel() + step * np.concatenate([np.eye(size), -np.eye(size)])
    values = net(points.reshape(-1, *x.shape)).reshape(2 * size, -1)
    return ((values[:size] - values[size:]) / (2 * step)).T


@pytest.mark.parametrize("name", GRAPHS)
def test_the_map_at_a_point(name):
    net = built(name)
    rng = np.random.default_rng(1)
    x = rng.standard_normal(net.input_shape)
    found = net.at(x)
    np.testing.assert_allclose(found.apply(x), net(x), rtol=1e-9, atol=1e-10)
    matrix = found.matrix.tocsr()
    assert matrix.has_canonical_format
    sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape).check_format(full_check=True)
    assert (np.diff(matrix.indptr) <= found.matrix.pattern.row_counts).all()
    np.testing.assert_allclose(matrix.toarray(), jacobian(net, x), atol=1e-6)
    v, w = rng.standard_normal((2, found.matrix.shape[1])), rng.standard_normal((2, found.matrix.shape[0]))
    np.testing.assert_allclose(found.matrix @ v.T, matrix @ v.T, atol=1e-10)
    np.testing.assert_allclose(found.matrix.T @ w.T, matrix.T @ w.T, atol=1e-10)
    for start, stop in ((0, 1), (2, 5), (1, 1), (3, matrix.shape[0])):
        if stop <= matrix.shape[0]:
            np.testing.assert_allclose(found.matrix.tocsr((start, stop)).toarray(), matrix[start:stop].toarray())


@pytest.mark.parametrize("name", GRAPHS)
def test_each_stage_is_its_matrix(name):
    net = built(name)
    x = np.random.default_rng(2).standard_normal(net.input_shape)
    for stage in (stage for _, stage in net.at(x).matrix._stages):
        for each in stage.maps:
            matrix = each.tocsr()
            rows = np.flatnonzero(np.random.default_rng(3).random(matrix.shape[0]) < 0.3)
            np.testing.assert_array_equal(each.take(rows).toarray(), matrix.toarray()[rows])
            np.testing.assert_array_equal(np.diff(matrix.indptr), each.pattern.row_counts)
            assert each.nnz == matrix.nnz
            ones = each.structure().tocsr()
            np.testing.assert_array_equal(ones.indices, matrix.indices)
            assert (ones.data > 0).all()
            v = np.random.default_rng(4).standard_normal((3, matrix.shape[1]))
            np.testing.assert_allclose(
                each.apply(v.reshape(3, *each.input_shape)).reshape(3, -1), v @ matrix.T, atol=1e-12
            )
            w = np.random.default_rng(4).standard_normal((3, matrix.shape[0]))
            back = each.apply_adjoint(w.reshape(3, *each.output_shape)).reshape(3, -1)
            np.testing.assert_allclose(back, w @ matrix, atol=1e-12)
            np.testing.assert_allclose(each.T @ w[0], w[0] @ matrix, atol=1e-12)


def test_stages_of_several_inputs_have_one_matrix():
    builder = Builder((1, 4), np.float64)
    double = builder.scale("double", builder.input, np.array(2.0))
    both = builder.add("both", builder.input, double)
    net = Network(builder.stages, builder.input, both, np.float64, ((4,), (4,)))
    matrix = net.stages[-1].matrix
    np.testing.assert_array_equal(matrix.tocsr().toarray(), np.hstack([np.eye(4), np.eye(4)]))
    np.testing.assert_array_equal(matrix @ np.arange(8.0), np.arange(4.0) + np.arange(4.0, 8.0))
    np.testing.assert_array_equal(net(np.ones(4)), np.full(4, 3.0))
    assert net.is_affine
    np.testing.assert_array_equal(net.affine().matrix.tocsr().toarray(), 3 * np.eye(4))


def test_what_is_counted_is_refused_before_it_is_made():
    builder = Builder((1, 1 << 18), np.float64)
    x = builder.along("in", "Gemm", builder.input, {1: np.ones((2, 1 << 18))})
    x = builder.along("out", "Gemm", x, {1: np.ones((1 << 18, 2))})
    matrix = Network(builder.stages, builder.input, x, np.float64, ((1 << 18,), (1 << 18,))).affine().matrix
    with pytest.raises(MemoryError, match=r"nonzeros and needs .* or build a range of its rows"):
        matrix.tocsr()
    assert matrix.tocsr((5, 6)).nnz == 1 << 18


def test_entries_that_cancel_stay():
    builder = Builder((1, 1, 6), np.float64)
    x = builder.convolve("first", builder.input, np.array([[[1.0, 1.0]]]), padding=0)
    x = builder.convolve("second", x, np.array([[[1.0, -1.0]]]), padding=0)
    other = builder.scale("minus", x, np.array(-1.0))
    net = Network(builder.stages, builder.input, builder.add("sum", x, other), np.float64, ((1, 6), (1, 4)))
    found = net.affine()
    assert found.explain().nonzeros == 12
    assert found.matrix.tocsr().nnz == 12
    assert not found.matrix.tocsr().toarray().any()


def test_pooling_takes_the_first_of_equals_and_relu_is_flat_at_zero():
    builder = Builder((1, 1, 4), np.float64)
    pooled = builder.max_pool("pool", builder.input, [Axis(4, 2, 2, 0, 0, 1, 2)])
    out = builder.elementwise("relu", pooled, elementary.relu)
    net = Network(builder.stages, builder.input, out, np.float64, ((1, 4), (1, 2)))
    np.testing.assert_array_equal(net.at(np.zeros((1, 4))).matrix.tocsr().toarray(), np.zeros((2, 4)))
    np.testing.assert_array_equal(net.at(np.ones((1, 4))).matrix.tocsr().toarray(), [[1, 0, 0, 0], [0, 0, 1, 0]])


def test_errors():
    net = built("layers")
    with pytest.raises(ValueError, match=r"the network must be affine, but stage 'relu' is Relu; use at\(x\)"):
        net.affine()
    with pytest.raises(ValueError, match=r"x must have shape \(..., 2, 6, 5\), got \(3,\)"):
        net(np.ones(3))
    with pytest.raises(TypeError, match="x must be an array of real numbers, got dtype complex128"):
        net(np.ones(net.input_shape, complex))
    with pytest.raises(ValueError, match="x must be one point"):
        net.at(np.ones((2, *net.input_shape)))
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got 'int8'"):
        net.astype("int8")
    with pytest.raises(ValueError, match="a stage must be affine to have a matrix"):
        _ = net.stages[1].matrix


@pytest.mark.parametrize("name", GRAPHS)
def test_matrices_come_from_products_too(name):
    """Both ways lead to the same matrix, whole or in part, and to the same nonzeros."""
    net = built(name)
    matrix = net.at(np.random.default_rng(5).standard_normal(net.input_shape)).matrix
    for start, stop in ((0, matrix.shape[0]), (1, 3)):
        whole, made = matrix.take(np.arange(start, stop)), matrix._by_products(start, stop)
        np.testing.assert_allclose(made.toarray(), whole.toarray(), atol=1e-12)
        if not matrix.pattern.is_exact or matrix.pattern.nnz == made.size:
            np.testing.assert_array_equal(made.indices, whole.indices)
            np.testing.assert_array_equal(made.indptr, whole.indptr)


def test_which_way_is_taken():
    assert built("narrow").at(np.ones((2, 6, 5))).explain().method == "products"
    assert built("deep").at(np.ones((2, 6, 5))).explain().method == "rows"
    assert "by rows" in str(built("deep").at(np.ones((2, 6, 5))).explain())
