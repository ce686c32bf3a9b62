"""The loops of the textbook: convolution, transposed convolution, and the matrix of both, to be read beside it.

The section is "Transposed Convolution" of *Dive into Deep Learning*; its calls run as they stand there. The functions
need NumPy alone and share no code with the rest of the package, so that the rest can be checked against them. They are
as slow as they look: for reading, and for images of a few thousand pixels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
IntPair = int | Sequence[int]


def corr2d(X: npt.ArrayLike, K: npt.ArrayLike, *, stride: IntPair = 1, padding: IntPair = 0) -> Array:
    """Return the convolution of an image: one weighted sum of pixels for each output.

    As in the book, and in all of deep learning, convolution means cross-correlation: the kernel is not flipped.

    Parameters
    ----------
    X : array_like
        ``(H, W)``, or ``(C_in, H, W)`` with channels.
    K : array_like
        ``(h, w)``, or ``(C_out, C_in, h, w)`` with channels.
    stride : int or pair of int
        Step between outputs, for both axes or one per axis.
    padding : int or pair of int
        Zeros added on both sides, for both axes or one per axis.

    Returns
    -------
    ndarray
        ``(H_out, W_out)`` or ``(C_out, H_out, W_out)``, with ``H_out = (H + 2·padding − h) // stride + 1``.

    Raises
    ------
    TypeError
        If `X` or `K` is no array of numbers, or `stride` or `padding` no int or pair of int.
    ValueError
        If the shapes do not fit, or `stride` or `padding` has a wrong value.

    Notes
    -----
    ``Y[i, j] = Σ_a Σ_b X[i·stride + a − padding, j·stride + b − padding] · K[a, b]``, where X is zero outside.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat.textbook import corr2d
    >>> corr2d(np.arange(9).reshape(3, 3), [[1, 2], [3, 4]])
    array([[27, 37],
           [57, 67]])
    """
    X, K = _image("X", X), _kernel(K)
    _check_channels(X.shape, K.shape, 1)
    (s_h, s_w), (p_h, p_w) = _pair("stride", stride, 1), _pair("padding", padding, 0)
    if K.ndim == 4:
        return np.stack([_sum(corr2d, X, kernels, stride, padding) for kernels in K])
    h, w = K.shape
    n_h, n_w = _output_shape(X.shape, (h, w), (s_h, s_w), (p_h, p_w))
    X = np.pad(X, ((p_h, p_h), (p_w, p_w)))
    Y = np.zeros((n_h, n_w), np.result_type(X, K))
    for i in range(n_h):
        for j in range(n_w):
            window = X[i * s_h : i * s_h + h, j * s_w : j * s_w + w]
            Y[i, j] = (window * K).sum(dtype=Y.dtype)
    return Y


def trans_conv(X: npt.ArrayLike, K: npt.ArrayLike, *, stride: IntPair = 1, padding: IntPair = 0) -> Array:
    """Return the transposed convolution of an image: each pixel lays down a copy of the kernel, weighted by its value.

    It is described by the convolution that it transposes: `K`, `stride` and `padding` are that convolution's.

    Parameters
    ----------
    X : array_like
        ``(H, W)``, or ``(C_in, H, W)`` with channels.
    K : array_like
        ``(h, w)``, or ``(C_in, C_out, h, w)`` with channels: the very array that the convolution from C_out to C_in
        channels has, as in PyTorch's ``ConvTranspose2d``.
    stride : int or pair of int
        Distance between the copies that neighbouring pixels lay down, for both axes or one per axis.
    padding : int or pair of int
        Rows and columns cut off on both sides of the result, for both axes or one per axis.

    Returns
    -------
    ndarray
        ``(H_out, W_out)`` or ``(C_out, H_out, W_out)``, with ``H_out = stride·(H − 1) + h − 2·padding``.

    Raises
    ------
    TypeError
        If `X` or `K` is no array of numbers, or `stride` or `padding` no int or pair of int.
    ValueError
        If the shapes do not fit, or `stride` or `padding` has a wrong value.

    Examples
    --------
    >>> from convmat.textbook import trans_conv
    >>> X = K = [[0, 1], [2, 3]]
    >>> trans_conv(X, K)
    array([[ 0,  0,  1],
           [ 0,  4,  6],
           [ 4, 12,  9]])
    >>> trans_conv(X, K, stride=2)
    array([[0, 0, 0, 1],
           [0, 0, 2, 3],
           [0, 2, 0, 3],
           [4, 6, 6, 9]])
    >>> trans_conv(X, K, padding=1)
    array([[4]])
    """
    X, K = _image("X", X), _kernel(K)
    _check_channels(X.shape, K.shape, 0)
    (s_h, s_w), (p_h, p_w) = _pair("stride", stride, 1), _pair("padding", padding, 0)
    if K.ndim == 4:
        return np.stack([_sum(trans_conv, X, kernels, stride, padding) for kernels in K.swapaxes(0, 1)])
    n_h, n_w = X.shape
    h, w = K.shape
    H, W = s_h * (n_h - 1) + h, s_w * (n_w - 1) + w
    if min(H - 2 * p_h, W - 2 * p_w) < 1:
        raise ValueError(f"padding must leave something of the {H} × {W} result, got {padding!r}")
    Z = np.zeros((H, W), np.result_type(X, K))
    for i in range(n_h):
        for j in range(n_w):
            Z[i * s_h : i * s_h + h, j * s_w : j * s_w + w] += X[i, j] * K
    return Z[p_h : H - p_h, p_w : W - p_w]


def kernel2matrix(
    K: npt.ArrayLike, input_shape: Sequence[int] = (3, 3), *, stride: IntPair = 1, padding: IntPair = 0
) -> Array:
    """Return the matrix W of a convolution, so that ``W @ X.reshape(-1)`` is ``corr2d(X, K)`` as a vector.

    ``W.T @ Y.reshape(-1)`` is then the transposed convolution of Y with the same kernel, as a vector.

    Parameters
    ----------
    K : array_like
        ``(h, w)``, or ``(C_out, C_in, h, w)`` with channels.
    input_shape : sequence of int
        Shape of X: ``(H, W)``, or ``(C_in, H, W)`` with channels. The book's is (3, 3).
    stride : int or pair of int
        Step between outputs, for both axes or one per axis.
    padding : int or pair of int
        Zeros added on both sides of X, for both axes or one per axis.

    Returns
    -------
    ndarray
        Dense, one row for each output and one column for each pixel of X.

    Raises
    ------
    TypeError
        If `K` is no array of numbers, or `input_shape`, `stride` or `padding` not made of int.
    ValueError
        If the shapes do not fit, or `stride` or `padding` has a wrong value.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat.textbook import corr2d, kernel2matrix, trans_conv
    >>> X, K = np.arange(9).reshape(3, 3), np.array([[1, 2], [3, 4]])
    >>> W = kernel2matrix(K)
    >>> W
    array([[1, 2, 0, 3, 4, 0, 0, 0, 0],
           [0, 1, 2, 0, 3, 4, 0, 0, 0],
           [0, 0, 0, 1, 2, 0, 3, 4, 0],
           [0, 0, 0, 0, 1, 2, 0, 3, 4]])
    >>> Y = corr2d(X, K)
    >>> Y == (W @ X.reshape(-1)).reshape(2, 2)
    array([[ True,  True],
           [ True,  True]])
    >>> Z = trans_conv(Y, K)
    >>> Z
    array([[ 27,  91,  74],
           [138, 400, 282],
           [171, 429, 268]])
    >>> bool((Z == (W.T @ Y.reshape(-1)).reshape(3, 3)).all())
    True
    """
    K, shape = _kernel(K), _shape(input_shape)
    _check_channels(shape, K.shape, 1)
    (s_h, s_w), (p_h, p_w) = _pair("stride", stride, 1), _pair("padding", padding, 0)
    (H, W), (h, w) = shape[-2:], K.shape[-2:]
    n_h, n_w = _output_shape((H, W), (h, w), (s_h, s_w), (p_h, p_w))
    rows = []
    for k in K if K.ndim == 4 else (K,):
        for i in range(n_h):
            for j in range(n_w):
                # A row is a picture of the size of X: the kernel where this output looks, zeros elsewhere.
                picture = np.zeros((*shape[:-2], H + 2 * p_h, W + 2 * p_w), K.dtype)
                picture[..., i * s_h : i * s_h + h, j * s_w : j * s_w + w] = k
                rows.append(picture[..., p_h : p_h + H, p_w : p_w + W].reshape(-1))
    return np.stack(rows)


def _sum(
    function: Callable[..., Array], images: Iterable[Array], kernels: Iterable[Array], stride: IntPair, padding: IntPair
) -> Array:
    """Return the sum of what each channel that goes in contributes to one that comes out."""
    parts = [function(x, k, stride=stride, padding=padding) for x, k in zip(images, kernels, strict=True)]
    total = parts[0]
    for part in parts[1:]:  # numpy.sum would widen small integers
        total = total + part
    return total


def _output_shape(
    image: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, int]:
    """Return the number of outputs on each axis."""
    (h, w), (s_h, s_w) = kernel, stride
    H, W = image[0] + 2 * padding[0], image[1] + 2 * padding[1]
    if h > H or w > W:
        raise ValueError(f"K must not be larger than the padded image, got {h} × {w} for {H} × {W}")
    return (H - h) // s_h + 1, (W - w) // s_w + 1


def _numbers(name: str, value: npt.ArrayLike) -> Array:
    """Return an array of integers, real or complex numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "iufc":
        raise TypeError(f"{name} must be an array of numbers, got one of dtype {array.dtype}")
    if 0 in array.shape:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return array


def _image(name: str, value: npt.ArrayLike) -> Array:
    array = _numbers(name, value)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name} must have the shape (H, W) or (C, H, W), got {array.shape}")
    return array


def _kernel(value: npt.ArrayLike) -> Array:
    array = _numbers("K", value)
    if array.ndim not in (2, 4):
        raise ValueError(f"K must have two dimensions, or four with channels, got the shape {array.shape}")
    return array


def _check_channels(image: tuple[int, ...], kernel: tuple[int, ...], axis: int) -> None:
    """Raise ValueError unless an image and a kernel agree on having channels, and on how many go in."""
    if len(kernel) == 2 and len(image) == 2:
        return
    if len(kernel) != 4 or len(image) != 3:
        raise ValueError(
            "a kernel (h, w) goes with an image (H, W), one with two axes of channels with an image (C, H, W), "
            f"got a kernel of shape {kernel} and an image of shape {image}"
        )
    if kernel[axis] != image[0]:
        raise ValueError(f"K.shape[{axis}] must be the image's {image[0]} channels, got a kernel of shape {kernel}")


def _shape(value: Sequence[int]) -> tuple[int, ...]:
    """Return `input_shape` as a tuple of positive integers."""
    shape = _integers("input_shape", value, 1)
    if len(shape) not in (2, 3):
        raise ValueError(f"input_shape must be (H, W) or (C, H, W), got {value!r}")
    return shape


def _pair(name: str, value: IntPair, least: int) -> tuple[int, int]:
    """Return an int for each of the two axes."""
    both = _integers(name, value, least)
    if not isinstance(value, Sequence | np.ndarray):
        return both[0], both[0]
    if len(both) != 2:
        raise ValueError(f"{name} must be an int or a pair of int, got {value!r}")
    return both[0], both[1]


def _integers(name: str, value: object, least: int) -> tuple[int, ...]:
    """Return an int, or a sequence of them, as a tuple of integers that are not below `least`."""
    values = value if isinstance(value, Sequence | np.ndarray) else (value,)
    try:
        integers = tuple(operator.index(cast(Any, each)) for each in values)
    except TypeError:
        raise TypeError(f"{name} must be made of int, got {value!r}") from None
    if any(integer < least for integer in integers):
        raise ValueError(f"{name} must not be below {least}, got {value!r}")
    return integers
