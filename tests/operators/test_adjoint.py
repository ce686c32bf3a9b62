"""Products and adjoints of what engines are made for, and of geometries that reach far beyond their inputs."""

import numpy as np
import pytest

from convmat import TransposedConvolution, convolution_matrix, transposed_convolution_matrix
from convmat.engines import ENGINES
from tests.cases import WIDE, Case, assert_close, outer_product, skip_if_absent, values

SPREADING = ("fft", "auto")  # spectra leave rounding where no tap reads anything


def check(case, kernel, engine, batch=2, workers=2):
    """Compare both directions with the oracle, and with each other."""
    A = case.operator(kernel, engine=engine, workers=workers)
    W, absolute = map(case.sparse_matrix, (kernel, np.abs(kernel)))  # of taps before the padding merges some
    x, y = values((batch, W.shape[1]), kernel.dtype, 1), values((batch, W.shape[0]), kernel.dtype, 2)
    products = []
    for B, matrix, sizes, given_ in ((A, W, absolute, x), (A.T, W.T, absolute.T, y)):
        scale = sizes.sum(axis=1).max() * np.abs(given_).max(initial=0)
        if engine in SPREADING:
            scale = max(scale, np.abs(kernel).sum() * np.abs(given_).max(initial=0))
        out = np.full((batch, *B.output_shape), 77, kernel.dtype)
        B.apply(given_.reshape(batch, *B.input_shape), out=out)
        products.append(out.reshape(batch, B.shape[0]))
        assert_close(products[-1], (matrix @ given_.T).T, scale)
    if kernel.dtype.kind in "fc":
        merges = case.padding_mode != "zeros"  # taps, which may cancel
        left, right = np.sum(products[0] * y), np.sum(x * products[1])
        scale = sum(np.linalg.norm(a) * np.linalg.norm(b) for a, b in zip(products, (y, x), strict=True))
        scale += np.abs(kernel).sum() * np.linalg.norm(x) * np.linalg.norm(y) * (engine in SPREADING or merges)
        assert abs(left - right) <= 100 * np.finfo(kernel.dtype).eps * scale


@pytest.mark.parametrize("engine", ["auto", "taps", "gemm", "fft", "csr", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("name", WIDE)
def test_wide_geometries(name, dtype, engine):
    skip_if_absent(engine)
    check(WIDE[name], values(WIDE[name].kernel_shape, dtype), engine)


@pytest.mark.parametrize("engine", ["auto", "gemm", "csr"])
@pytest.mark.parametrize("name", WIDE)
def test_wide_geometries_of_integers(name, engine):
    check(WIDE[name], values(WIDE[name].kernel_shape, "int64"), engine)


@pytest.mark.parametrize("name", WIDE)
def test_matrices_of_wide_geometries(name):
    case, kernel = WIDE[name], values(WIDE[name].kernel_shape, "float64")
    expected = case.sparse_matrix(kernel)
    matrices = [(case.operator(kernel).tocsr(), expected), (case.operator(kernel, True).tocsr(), expected.T.tocsr())]
    if case.outputs is None:
        matrices.append((convolution_matrix(kernel, case.input_shape, **case.options), expected))
    W_T = transposed_convolution_matrix(kernel, case.output_shape, output_shape=case.input_shape, **case.options)
    for actual, wanted in [*matrices, (W_T, expected.T.tocsr())]:
        assert actual.nnz == case.geometry.nnz
        np.testing.assert_array_equal(actual.indptr, wanted.indptr)
        np.testing.assert_array_equal(actual.indices, wanted.indices)
        np.testing.assert_allclose(actual.data, wanted.data, rtol=1e-12)


SHAPES = {
    "1 x 3 x 3": Case((1, 3, 3), (4, 9, 8), (1, 1, 1), ((0, 0), (1, 1), (1, 0)), (1, 1, 1)),
    "3 x 1 x 3": Case((3, 1, 3), (7, 4, 8), (1, 1, 1), ((1, 1), (0, 0), (2, 0)), (1, 1, 2)),
    "3 x 3 x 1": Case((3, 3, 1), (7, 8, 4), (2, 1, 1), ((0, 1), (2, 0), (0, 0)), (1, 1, 1)),
    "one tap, padded": Case((1, 3, 2), (4, 9, 8), (1, 1, 1), ((2, 1), (1, 1), (1, 0)), (1, 1, 1)),
    "one tap with stride": Case((3, 1, 3), (7, 9, 8), (1, 2, 1), ((1, 1), (0, 0), (1, 0)), (1, 1, 1)),
    "one tap, as many outputs as inputs": Case((3, 1, 3), (7, 3, 8), (1, 2, 1), ((1, 1), (2, 1), (1, 0)), (1, 1, 1)),
    "one tap, mirrored": Case(
        (2, 1, 3), (4, 9, 8), (1, 1, 1), ((2, 1), (1, 1), (1, 0)), (1, 1, 1), padding_mode="reflect"
    ),
    "channels": Case((3, 1, 1, 3, 3), (3, 4, 9, 8), (1, 1, 1), ((0, 0), (1, 1), (1, 0)), (1, 1, 1), 3),
    "first outputs": Case((3, 1, 2), (9, 4, 9), (1, 1, 1), ((0, 1), (0, 0), (0, 0)), (3, 1, 4), outputs=(2, 4, 3)),
}


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("name", SHAPES)
def test_separable_with_axes_of_one_tap(name, dtype):
    skip_if_absent("separable")
    check(SHAPES[name], outer_product(SHAPES[name], dtype), "separable")


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_outputs_left_out(engine):
    """The outputs that would fit, but that a transposed convolution does not have, are in neither direction."""
    skip_if_absent(engine)
    taps = (3, 3) if engine == "separable" else (9, 8, 3, 3)
    if engine in ("winograd", "winograd4"):  # whose dilation is 1, so that outputs are never left out
        with pytest.raises(ValueError, match=r"must be below max\(stride, dilation\) = 1, got 1"):
            TransposedConvolution(np.ones(taps), (9, 5, 6), output_padding=1)
        return
    shape = (16, 17) if engine == "separable" else (8, 16, 17)
    case = Case(taps, shape, (1, 1), ((0, 2), (3, 0)), (4, 5), outputs=(8, 7))
    kernel = outer_product(case, "float64") if engine == "separable" else values(taps, "float64")
    check(case, kernel, engine)
