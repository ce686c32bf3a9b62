import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import correlate2d

from convmat import convolution_matrix, textbook, transposed_convolution_matrix
from convmat.textbook import corr2d, kernel2matrix, trans_conv

COUNTING = [[0, 1], [2, 3]]
NINE = np.arange(9).reshape(3, 3)
ONES = np.ones((3, 3), int)

# The numbers that the book's section works out, and those of its earlier edition.
TRANSPOSED = [
    pytest.param(COUNTING, COUNTING, {}, [[0, 0, 1], [0, 4, 6], [4, 12, 9]], id="basic"),
    pytest.param(COUNTING, COUNTING, {"padding": 1}, [[4]], id="padding"),
    pytest.param(
        COUNTING, COUNTING, {"stride": 2}, [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]], id="stride"
    ),
    pytest.param(
        ONES, ONES, {}, [[1, 2, 3, 2, 1], [2, 4, 6, 4, 2], [3, 6, 9, 6, 3], [2, 4, 6, 4, 2], [1, 2, 3, 2, 1]], id="ones"
    ),
    pytest.param(ONES, ONES, {"padding": (2, 1)}, [[6, 9, 6]], id="ones, padding per axis"),
    pytest.param(
        [[27, 37], [57, 67]], [[1, 2], [3, 4]], {}, [[27, 91, 74], [138, 400, 282], [171, 429, 268]], id="matrix"
    ),
]
MATRICES = [
    pytest.param(
        [[1, 2], [3, 4]],
        [[27, 37], [57, 67]],
        [
            [1, 2, 0, 3, 4, 0, 0, 0, 0],
            [0, 1, 2, 0, 3, 4, 0, 0, 0],
            [0, 0, 0, 1, 2, 0, 3, 4, 0],
            [0, 0, 0, 0, 1, 2, 0, 3, 4],
        ],
        id="matrix",
    ),
    pytest.param(
        COUNTING,
        [[19, 25], [37, 43]],
        [
            [0, 1, 0, 2, 3, 0, 0, 0, 0],
            [0, 0, 1, 0, 2, 3, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 2, 3, 0],
            [0, 0, 0, 0, 0, 1, 0, 2, 3],
        ],
        id="earlier edition",
    ),
]
# (spatial shape, kernel, stride, padding)
GEOMETRIES = [
    ((5, 6), (3, 2), 1, 0),
    ((5, 6), (3, 2), 2, 1),
    ((7, 4), (2, 4), (3, 1), (0, 2)),
    ((4, 4), (4, 4), 1, 0),
    ((3, 5), (5, 3), (1, 2), (1, 0)),
    ((6, 5), (1, 1), 2, 0),
]


def draw(shape, dtype, seed=0):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        return random.integers(0, 5, shape).astype(dtype)
    return (
        random.standard_normal(shape) + (1j * random.standard_normal(shape) if np.dtype(dtype).kind == "c" else 0)
    ).astype(dtype)


@pytest.mark.parametrize(("X", "K", "options", "Z"), TRANSPOSED)
def test_transposed_convolution_of_the_book(X, K, options, Z):
    assert_array_equal(trans_conv(X, K, **options), Z)
    W = transposed_convolution_matrix(K, np.shape(X), **options)
    assert_array_equal((W @ np.ravel(X)).reshape(np.shape(Z)), Z)


@pytest.mark.parametrize(("K", "Y", "W"), MATRICES)
def test_matrix_of_the_book(K, Y, W):
    K = np.array(K)
    assert_array_equal(corr2d(NINE, K), Y)
    assert_array_equal(kernel2matrix(K), W)
    assert_array_equal((kernel2matrix(K) @ NINE.reshape(-1)).reshape(2, 2), Y)
    assert_array_equal(convolution_matrix(K, (3, 3)).toarray(), W)
    assert np.linalg.matrix_rank(kernel2matrix(K)) == 4


@pytest.mark.parametrize(("size", "back"), [(16, 16), (15, 13), (17, 16)])
def test_shapes_come_back_where_the_stride_divides(size, back):
    X, K = np.zeros((2, size, size), np.float32), np.zeros((3, 2, 5, 5), np.float32)
    Y = corr2d(X, K, padding=2, stride=3)
    assert trans_conv(Y, K, padding=2, stride=3).shape == (2, back, back)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("channels", [None, (2, 3)], ids=["plain", "channels"])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), GEOMETRIES)
def test_equals_the_matrices(shape, kernel, stride, padding, channels, dtype):
    options = {"stride": stride, "padding": padding}
    c_in, c_out = channels or (1, 1)
    X = draw((c_in, *shape) if channels else shape, dtype)
    K = draw((c_out, c_in, *kernel) if channels else kernel, dtype, 1)
    W = convolution_matrix(K, X.shape, **options)
    M = kernel2matrix(K, X.shape, **options)
    Y = corr2d(X, K, **options)
    assert M.dtype == Y.dtype == np.dtype(dtype)
    assert_array_equal(M, W.toarray())
    tolerance = {"rtol": 1e-5 if np.dtype(dtype).itemsize <= 8 else 1e-12, "atol": 1e-5}
    assert_allclose(Y.ravel(), W @ X.ravel(), **tolerance)

    Z = trans_conv(Y, K, **options)
    assert Z.dtype == np.dtype(dtype)
    T = transposed_convolution_matrix(K, Y.shape, **options)
    assert_allclose(Z.ravel(), T @ Y.ravel(), **tolerance)
    # The smallest of the sizes that this convolution maps to Y's is what the loops give back.
    assert_array_equal(kernel2matrix(K, Z.shape, **options).T, T.toarray())


@pytest.mark.parametrize("mode", ["valid", "full"])
@pytest.mark.parametrize("stride", [1, (2, 3)])
def test_equals_scipy(mode, stride):
    X, K = draw((6, 7), np.float64), draw((3, 2), np.float64, 1)
    padding = 0 if mode == "valid" else (2, 1)
    step_h, step_w = (stride, stride) if isinstance(stride, int) else stride
    expected = correlate2d(X, K, mode)[::step_h, ::step_w]
    assert_allclose(corr2d(X, K, stride=stride, padding=padding), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize("channels", [(1, 1), (2, 3)])
def test_equals_pytorch(shape, kernel, stride, padding, channels):
    torch = pytest.importorskip("torch")
    c_in, c_out = channels
    X, K = torch.tensor(draw((c_in, *shape), np.float64)), torch.tensor(draw((c_out, c_in, *kernel), np.float64, 1))
    options = {"stride": stride, "padding": padding}
    Y = torch.nn.functional.conv2d(X, K, **options)
    assert_allclose(corr2d(X, K, **options), Y, rtol=1e-12, atol=1e-12)
    Z = torch.nn.functional.conv_transpose2d(Y, K, **options)
    assert_allclose(trans_conv(Y, K, **options), Z, rtol=1e-12, atol=1e-12)


def test_integers_wrap_as_in_numpy():
    X, K = np.full((1, 2, 2), 100, np.int8), np.full((1, 1, 2, 2), 100, np.int8)
    assert corr2d(X, K).item() == np.array(40000).astype(np.int8)


def test_inputs_are_not_modified():
    X, K = NINE.copy(), np.ones((2, 2), int)
    X.flags.writeable = K.flags.writeable = False
    for Y in (corr2d(X, K), trans_conv(X, K), kernel2matrix(K)):
        Y += 1
    assert_array_equal(X, NINE)


WRONG = [
    (lambda: corr2d([1, 2], [[1]]), ValueError, r"X must have the shape \(H, W\) or \(C, H, W\), got \(2,\)"),
    (lambda: trans_conv(np.ones((1, 1, 2, 2)), [[1]]), ValueError, r"X must have the shape .*, got \(1, 1, 2, 2\)"),
    (lambda: corr2d(NINE, [1]), ValueError, r"K must have two dimensions, or four .*, got the shape \(1,\)"),
    (lambda: corr2d(NINE, np.ones((1, 1, 2, 2))), ValueError, r"got a kernel of shape .* an image of shape \(3, 3\)"),
    (lambda: corr2d(NINE[None], [[1]]), ValueError, r"an image of shape \(1, 3, 3\)"),
    (lambda: corr2d(NINE[None], np.ones((1, 2, 2, 2))), ValueError, r"K.shape\[1\] must be the image's 1 channels"),
    (lambda: trans_conv(NINE[None], np.ones((2, 1, 2, 2))), ValueError, r"K.shape\[0\] must be the image's 1 channels"),
    (lambda: kernel2matrix(np.ones((1, 2, 2, 2)), (1, 3, 3)), ValueError, r"K.shape\[1\] must be the image's 1"),
    (
        lambda: corr2d(NINE, np.ones((4, 1))),
        ValueError,
        "K must not be larger than the padded image, got 4 × 1 for 3 × 3",
    ),
    (lambda: kernel2matrix(np.ones((4, 4))), ValueError, "K must not be larger .* got 4 × 4 for 3 × 3"),
    (lambda: trans_conv(NINE, [[1]], padding=2), ValueError, "padding must leave something of the 3 × 3 result, got 2"),
    (lambda: corr2d(NINE, [[1]], stride=0), ValueError, "stride must not be below 1, got 0"),
    (lambda: corr2d(NINE, [[1]], padding=(0, -1)), ValueError, r"padding must not be below 0, got \(0, -1\)"),
    (
        lambda: corr2d(NINE, [[1]], stride=(1, 1, 1)),
        ValueError,
        r"stride must be an int or a pair of int, got \(1, 1, 1\)",
    ),
    (lambda: corr2d(NINE, [[1]], stride=1.0), TypeError, "stride must be made of int, got 1.0"),
    (lambda: corr2d(NINE, [[1]], padding="same"), TypeError, "padding must be made of int, got 'same'"),
    (lambda: kernel2matrix([[1]], (3,)), ValueError, r"input_shape must be \(H, W\) or \(C, H, W\), got \(3,\)"),
    (lambda: kernel2matrix([[1]], (3, 0)), ValueError, r"input_shape must not be below 1, got \(3, 0\)"),
    (lambda: kernel2matrix([[1]], (3, 1.5)), TypeError, r"input_shape must be made of int, got \(3, 1.5\)"),
    (lambda: corr2d([["a"]], [[1]]), TypeError, "X must be an array of numbers, got one of dtype <U1"),
    (lambda: corr2d(NINE, [[True]]), TypeError, "K must be an array of numbers, got one of dtype bool"),
    (lambda: corr2d(np.ones((0, 3)), [[1]]), ValueError, r"X must not be empty, got shape \(0, 3\)"),
]


@pytest.mark.parametrize(("call", "error", "sentence"), WRONG)
def test_wrong_arguments_get_a_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_needs_nothing_but_numpy():
    # Loaded by its file, for `import convmat` would import the rest.
    code = (
        "import sys, runpy; runpy.run_path(sys.argv[1]); "
        "assert not {'scipy', 'convmat', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, textbook.__file__], check=True)
