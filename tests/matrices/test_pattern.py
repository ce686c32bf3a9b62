"""The sparsity pattern where its numbers are large, and the sums of taps that read one source."""

import numpy as np
import pytest

from convmat import ConvolutionGeometry, convolution_matrix
from convmat.matrices import _pattern as pattern
from convmat.matrices._pattern import Box
from convmat.matrices._writer import _with_sums
from tests.reference import sparse_matrix

FAR = {  # columns and taps that are listed as one integer of more than 31 bits, in a few rows
    "tap above column": ((3,), (2**29,), {"stride": (2**27,), "padding": ((0, 0),)}),
    "outside on two axes": ((3, 3), (2**13, 2**13), {"stride": (2**12,) * 2, "padding": ((1, 1),) * 2}),
    "outside on three axes": ((2, 3, 2), (2**8,) * 3, {"stride": (2**7,) * 3, "padding": ((1, 1),) * 3}),
    "channels": ((2, 3, 3), (3, 2**26), {"stride": (2**24,), "padding": ((1, 1),)}),
}


@pytest.mark.parametrize("name", FAR)
def test_listed_rows_of_far_columns(name):
    kernel_shape, input_shape, options = FAR[name]
    kernel = np.arange(1.0, 1 + np.prod(kernel_shape)).reshape(kernel_shape)
    expected = _far_matrix(kernel, input_shape, **options)
    W = convolution_matrix(kernel, input_shape, **options)
    assert W.indices.dtype == np.int32
    assert W.shape == expected.shape
    np.testing.assert_array_equal(W.indptr, expected.indptr)
    np.testing.assert_array_equal(W.indices, expected.indices)
    np.testing.assert_array_equal(W.data, expected.data)


def _far_matrix(kernel, input_shape, stride, padding):
    """Return the oracle's W; by the definition alone on one axis, which numpy.pad would write out."""
    if len(stride) > 1:
        return sparse_matrix(kernel, input_shape, stride=stride, padding=padding, dilation=(1,) * len(stride))
    from scipy import sparse

    (size,), (step,), ((before, after),) = input_shape[-1:], stride, padding
    kernel = kernel.reshape(-1, kernel.shape[-2] if kernel.ndim > 1 else 1, kernel.shape[-1])
    outputs = (size + before + after - kernel.shape[2]) // step + 1
    entries = [
        (value, c * outputs + o, i * size + source)
        for (c, i, t), value in np.ndenumerate(kernel)
        for o in range(outputs)
        if 0 <= (source := o * step - before + t) < size
    ]
    data, rows, columns = zip(*entries, strict=True)
    return sparse.coo_array((data, (rows, columns)), shape=(len(kernel) * outputs, kernel.shape[1] * size)).tocsr()


@pytest.mark.parametrize("mode", ["circular", "reflect", "symmetric", "replicate"])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32", "complex64"])
def test_sums_of_taps_have_the_dtype_of_the_kernel(mode, dtype):
    """Those of integers would be wider by NumPy's rule, and so would be all values that are written."""
    geometry = ConvolutionGeometry((5,), (4,), padding=3, padding_mode=mode)
    kernel = np.arange(1, 6).astype(dtype)
    box = Box(geometry.axes, False, ((0, geometry.spatial_output[0]),), 1, np.dtype(np.int32))
    for listed in pattern.patterns(box):
        assert listed.sums
        values = _with_sums(kernel.reshape(1, 1, 5), listed)
        assert values.dtype == kernel.dtype
        assert values.shape[1] == 5 + len(listed.sums[0][2])
