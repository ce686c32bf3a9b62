"""The same numbers as PyTorch and SciPy where they overlap."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from convmat import Convolution, TransposedConvolution, convolution_matrix, transposed_convolution_matrix
from tests.cases import cases, values

symmetric_padding = cases(modes=("zeros",), torch_only=True)  # channels, and as much padding before as after
numbers = st.sampled_from(["float64", "complex128", "float32"])


def torch_options(case):
    return {
        "stride": case.stride,
        "padding": tuple(before for before, _ in case.padding),
        "dilation": case.dilation,
        "groups": case.groups,
    }


def tolerance(dtype):
    return {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-11}


@given(symmetric_padding, numbers)
def test_torch_convolution_and_its_gradients(case, dtype):
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, f"conv{len(case.stride)}d")
    kernel, x = values(case.kernel_shape, dtype), values((2, *case.input_shape), dtype, 1)
    tensor = torch.from_numpy(x).requires_grad_()
    expected = function(tensor, torch.from_numpy(kernel), **torch_options(case))
    A = Convolution(kernel, case.input_shape, **case.options)
    y = A.apply(x)
    np.testing.assert_allclose(y, expected.detach().numpy(), **tolerance(dtype))
    W = convolution_matrix(kernel, case.input_shape, **case.options)
    np.testing.assert_allclose((W @ x.reshape(2, -1).T).T.reshape(y.shape), y, **tolerance(dtype))
    # Backward is the adjoint: PyTorch conjugates.
    upstream = values(y.shape, dtype, 2)
    (gradient,) = torch.autograd.grad(expected, tensor, torch.from_numpy(upstream))
    np.testing.assert_allclose(A.H.apply(upstream), gradient.numpy(), **tolerance(dtype))


@given(symmetric_padding, numbers, st.data())
def test_torch_transposed_convolution_and_its_gradients(case, dtype, data):
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, f"conv_transpose{len(case.stride)}d")
    extra = [data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(case.stride, case.dilation, strict=True)]
    kernel, y = values(case.kernel_shape, dtype), values((2, *case.output_shape), dtype, 1)
    try:
        B = TransposedConvolution(kernel, case.output_shape, output_padding=extra, **case.options)
    except ValueError as error:
        assert "must leave an output" in str(error)  # noqa: PT017
        return
    tensor = torch.from_numpy(y).requires_grad_()
    expected = function(tensor, torch.from_numpy(kernel), output_padding=tuple(extra), **torch_options(case))
    x = B.apply(y)
    np.testing.assert_allclose(x, expected.detach().numpy(), **tolerance(dtype))
    W_T = transposed_convolution_matrix(kernel, case.output_shape, output_padding=extra, **case.options)
    np.testing.assert_allclose((W_T @ y.reshape(2, -1).T).T.reshape(x.shape), x, **tolerance(dtype))
    upstream = values(x.shape, dtype, 2)
    (gradient,) = torch.autograd.grad(expected, tensor, torch.from_numpy(upstream))
    np.testing.assert_allclose(B.H.apply(upstream), gradient.numpy(), **tolerance(dtype))


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_torch_padding_modes(mode, n):
    torch = pytest.importorskip("torch")
    kernel, x = values((4, 3, *(3,) * n), "float64"), values((1, 3, *(5, 4, 6)[:n]), "float64", 1)
    padded = torch.nn.functional.pad(torch.from_numpy(x), (1, 2) * n, mode=mode)
    expected = getattr(torch.nn.functional, f"conv{n}d")(padded, torch.from_numpy(kernel)).numpy()
    A = Convolution(kernel, x.shape[1:], padding=((1, 2),) * n, padding_mode=mode)
    np.testing.assert_allclose(A.apply(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_torch_same(k, dilation):
    torch = pytest.importorskip("torch")
    kernel, x = values((1, 1, k), "float64"), values((1, 12), "float64", 1)
    expected = torch.nn.functional.conv1d(
        torch.from_numpy(x), torch.from_numpy(kernel), padding="same", dilation=dilation
    )
    A = Convolution(kernel, x.shape, padding="same", dilation=dilation)
    np.testing.assert_allclose(A.apply(x), expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["full", "valid", "same"])
@pytest.mark.parametrize("kernel_shape", [(3,), (3, 5), (3, 1, 3)])
@pytest.mark.parametrize("dtype", ["int64", "float64", "complex128"])
def test_scipy_signal(mode, kernel_shape, dtype):
    # For odd kernels "same" is the same everywhere.
    kernel, x = values(kernel_shape, dtype), values((9, 8, 7)[: len(kernel_shape)], dtype, 1)
    convolve = Convolution(kernel, x.shape, padding=mode, flip=True)
    np.testing.assert_allclose(convolve.apply(x), scipy.signal.convolve(x, kernel, mode, "direct"), rtol=1e-12)
    correlate = Convolution(kernel.conj(), x.shape, padding=mode)
    np.testing.assert_allclose(correlate.apply(x), scipy.signal.correlate(x, kernel, mode, "direct"), rtol=1e-12)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("zeros", "constant"),
        ("circular", "wrap"),
        ("reflect", "mirror"),
        ("symmetric", "reflect"),
        ("replicate", "nearest"),
    ],
)
def test_scipy_ndimage_names(mode, name):
    import scipy.ndimage

    kernel, x = values((3, 5), "float64"), values((8, 9), "float64", 1)
    expected = scipy.ndimage.correlate(x, kernel, mode=name)
    np.testing.assert_allclose(Convolution(kernel, x.shape, padding="same", padding_mode=mode).apply(x), expected)


def test_pylops_takes_arrays():
    pylops = pytest.importorskip("pylops")
    A = Convolution(np.arange(9.0).reshape(3, 3), (6, 7), stride=2)
    wrapped, x = pylops.aslinearoperator(A), np.arange(42.0).reshape(6, 7)
    assert (wrapped.dims, wrapped.dimsd) == (A.input_shape, A.output_shape)
    np.testing.assert_allclose(wrapped @ x, A.apply(x))
    np.testing.assert_allclose(wrapped.H @ A.apply(x), A.H.apply(A.apply(x)))


def test_pylops_convolve2d():
    pylops = pytest.importorskip("pylops")
    kernel = values((3, 5), "float64")
    peer = pylops.signalprocessing.Convolve2D((8, 9), kernel, offset=(1, 2), method="direct")
    W = convolution_matrix(kernel, (8, 9), padding="same", flip=True)
    np.testing.assert_allclose(W.toarray(), peer.todense(), atol=1e-12)
