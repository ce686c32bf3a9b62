"""Every wrong argument gets one sentence with the value received and what would be right, before any work."""

import numpy as np
import pytest

from convmat import Convolution, ConvolutionGeometry, TransposedConvolution, convolution_matrix
from convmat import transposed_convolution_matrix as transposed_matrix

K, K3 = np.ones((3, 3)), np.ones(3)
L = np.ones((4, 3, 3, 3))  # a layer of 3 to 4 channels
LT = (4, 5, 5)  # what goes into its transpose

# call, arguments, options, exception, what the sentence must hold
WRONG = [
    # shapes
    (convolution_matrix, (K, (5,)), {}, ValueError, "N and N dimensions, or N + 2 and N + 1.*(3, 3).*(5,)"),
    (convolution_matrix, (K, (5, 5, 5, 5)), {}, ValueError, "dimensions.*(5, 5, 5, 5)"),
    (convolution_matrix, (np.ones((3, 3)), 5), {}, ValueError, "dimensions.*(3, 3).*(5,)"),
    (convolution_matrix, (np.float64(3), 5), {}, ValueError, "kernel.*at least 1.*()"),
    (convolution_matrix, (K, (5, 0)), {}, ValueError, "input_shape must be at least 1, got 0"),
    (convolution_matrix, (K, (5, -2)), {}, ValueError, "input_shape must be at least 1, got -2"),
    (convolution_matrix, (K, (5, 5.0)), {}, TypeError, "input_shape must be an int, got 5.0"),
    (convolution_matrix, (K3, "5"), {}, TypeError, "input_shape must be.*'5'"),
    (convolution_matrix, (K3, None), {}, TypeError, "input_shape must be.*None"),
    (convolution_matrix, (K3, True), {}, TypeError, "input_shape must be.*True"),
    (convolution_matrix, (K3, ()), {}, ValueError, "input_shape must have at least 1.*()"),
    (convolution_matrix, (np.ones((0, 3)), (5, 5)), {}, ValueError, "kernel_shape must be at least 1, got 0"),
    (convolution_matrix, (K, (2, 5)), {}, ValueError, "kernel must fit.*axis 0.*3 positions.*got 2"),
    (convolution_matrix, (K, (5, 5)), {"dilation": 3}, ValueError, "kernel must fit.*7 positions.*dilation 3.*got 5"),
    # kernels
    (convolution_matrix, (K > 0, (5, 5)), {}, TypeError, "kernel must be of an integer.*got bool; cast.*int8"),
    (convolution_matrix, (K.astype("e"), (5, 5)), {}, TypeError, "got float16; cast.*float32"),
    (convolution_matrix, (K.astype("g"), (5, 5)), {}, TypeError, "got longdouble|got float128"),
    (convolution_matrix, (K.astype("O"), (5, 5)), {}, TypeError, "got object; cast"),
    (convolution_matrix, ([[1, 2], [3]], (5, 5)), {}, TypeError, "kernel must be an array of numbers, got list"),
    (convolution_matrix, ("abc", (5, 5)), {}, TypeError, "kernel must be of an integer.*<U3"),
    (convolution_matrix, (None, (5, 5)), {}, TypeError, "kernel.*got object"),
    (convolution_matrix, (np.ma.ones(3), 5), {}, TypeError, "kernel.*without a mask"),
    (convolution_matrix, (np.array(["2020"], "M8[D]"), 5), {}, TypeError, "kernel.*datetime64"),
    # stride and dilation
    (convolution_matrix, (K, (5, 5)), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    (convolution_matrix, (K, (5, 5)), {"stride": -1}, ValueError, "stride must be at least 1, got -1"),
    (convolution_matrix, (K, (5, 5)), {"stride": 1.5}, TypeError, "stride must be an int or a sequence of 2 ints, got 1.5"),
    (convolution_matrix, (K, (5, 5)), {"stride": (1, 2, 3)}, ValueError, "stride.*one per axis (2), got (1, 2, 3)"),
    (convolution_matrix, (K, (5, 5)), {"stride": (1, 0)}, ValueError, "stride must be at least 1, got 0"),
    (convolution_matrix, (K, (5, 5)), {"stride": "2"}, TypeError, "stride.*'2'"),
    (convolution_matrix, (K, (5, 5)), {"stride": None}, TypeError, "stride.*None"),
    (convolution_matrix, (K, (5, 5)), {"dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
    (convolution_matrix, (K, (5, 5)), {"dilation": (2,)}, ValueError, "dilation.*one per axis (2), got (2,)"),
    (convolution_matrix, (K, (5, 5)), {"dilation": True}, TypeError, "dilation.*True"),
    # padding
    (convolution_matrix, (K, (5, 5)), {"padding": -1}, ValueError, "padding must be at least 0, got -1"),
    (convolution_matrix, (K, (5, 5)), {"padding": "most"}, ValueError, "'valid', 'same', 'full' or numbers, got 'most'"),
    (convolution_matrix, (K, (5, 5)), {"padding": 0.5}, TypeError, "padding must be an int.*0.5"),
    (convolution_matrix, (K, (5, 5)), {"padding": (1, 2, 3)}, ValueError, "padding.*per axis (2).*(1, 2, 3)"),
    (convolution_matrix, (K, (5, 5)), {"padding": ((1, 2, 3), 1)}, ValueError, "padding.*((1, 2, 3), 1)"),
    (convolution_matrix, (K, (5, 5)), {"padding": ((1, -2), 1)}, ValueError, "padding must be at least 0, got -2"),
    (convolution_matrix, (K3, 5), {"padding": (1, 2)}, ValueError, "per axis (1).*(1, 2)"),
    (convolution_matrix, (K, (5, 5)), {"padding": "same", "stride": 2}, ValueError, "padding='same' needs stride 1.*(2, 2).*n/stride"),
    (convolution_matrix, (K, (5, 5)), {"padding_mode": "wrap"}, ValueError, "one of zeros, circular.*got 'wrap'"),
    (convolution_matrix, (K, (5, 5)), {"padding_mode": 0}, TypeError, "padding_mode must be a str, got 0"),
    (convolution_matrix, (K3, 5), {"padding": 5, "padding_mode": "reflect"}, ValueError, "at most 4.*size 5.*(5, 5)"),
    (convolution_matrix, (K3, 5), {"padding": 6, "padding_mode": "circular"}, ValueError, "at most 5.*(6, 6)"),
    (convolution_matrix, (K3, 5), {"padding": 6, "padding_mode": "symmetric"}, ValueError, "at most 5.*(6, 6)"),
    # channels
    (convolution_matrix, (L, (4, 5, 5)), {}, ValueError, "groups = 3 channels, got (4, 5, 5)"),
    (convolution_matrix, (L, (6, 5, 5)), {"groups": 3}, ValueError, "groups must divide.*4, got 3"),
    (convolution_matrix, (L, (3, 5, 5)), {"groups": 2}, ValueError, "groups = 6 channels"),
    (convolution_matrix, (L, (3, 5, 5)), {"groups": 0}, ValueError, "groups must be at least 1, got 0"),
    (convolution_matrix, (L, (3, 5, 5)), {"groups": 1.0}, TypeError, "groups must be an int, got 1.0"),
    (convolution_matrix, (K, (5, 5)), {"groups": 2}, ValueError, "groups must be 1 for a kernel without channels, got 2"),
    # what the matrix is built as
    (convolution_matrix, (K, (5, 5)), {"format": "dense"}, ValueError, "format must be one of.*csr.*got 'dense'"),
    (convolution_matrix, (K, (5, 5)), {"format": None}, TypeError, "format must be a str, got None"),
    (convolution_matrix, (K, (5, 5)), {"dtype": int}, TypeError, "same_kind cast of the kernel's, float64, got int64"),
    (convolution_matrix, (K, (5, 5)), {"dtype": "float16"}, TypeError, "dtype must be.*got float16"),
    (convolution_matrix, (K, (5, 5)), {"dtype": "nonsense"}, TypeError, "dtype must be a NumPy dtype, got 'nonsense'"),
    (convolution_matrix, (K, (5, 5)), {"rows": (0, 10)}, ValueError, "0 <= start <= stop <= 9, got (0, 10)"),
    (convolution_matrix, (K, (5, 5)), {"rows": (3, 2)}, ValueError, "start <= stop.*(3, 2)"),
    (convolution_matrix, (K, (5, 5)), {"rows": (-1, 2)}, ValueError, "0 <= start.*(-1, 2)"),
    (convolution_matrix, (K, (5, 5)), {"rows": 3}, TypeError, "rows must be a pair.*got 3"),
    (convolution_matrix, (K, (5, 5)), {"rows": (0, 1.5)}, TypeError, "rows must be a pair.*(0, 1.5)"),
    (convolution_matrix, (K, (5, 5)), {"workers": 0}, ValueError, "workers must be positive.*got 0"),
    (convolution_matrix, (K, (5, 5)), {"workers": -1000}, ValueError, "workers.*got -1000"),
    (convolution_matrix, (K, (5, 5)), {"workers": 1.5}, TypeError, "workers must be an int or None, got 1.5"),
    (convolution_matrix, (K, (5, 5)), {"flip": "yes"}, TypeError, "flip must be a bool, got 'yes'"),
    # transposed
    (transposed_matrix, (L, (3, 5, 5)), {}, ValueError, "kernel_shape[0] = 4 channels, got (3, 5, 5)"),
    (transposed_matrix, (L, LT), {"output_padding": 1}, ValueError, "below max(stride, dilation) = 1, got 1"),
    (transposed_matrix, (L, LT), {"output_padding": -1}, ValueError, "output_padding must be at least 0, got -1"),
    (transposed_matrix, (L, LT), {"output_padding": 0.5}, TypeError, "output_padding.*0.5"),
    (transposed_matrix, (L, LT), {"stride": 2, "output_shape": (3, 13, 12)}, ValueError, "between (3, 11, 11) and (3, 12, 12), got (3, 13, 12)"),
    (transposed_matrix, (L, LT), {"output_shape": (4, 7, 7)}, ValueError, "between (3, 7, 7) and (3, 7, 7), got (4, 7, 7)"),
    (transposed_matrix, (L, LT), {"output_shape": (7, 7)}, ValueError, "output_shape must have 3 dimensions, got (7, 7)"),
    (transposed_matrix, (L, LT), {"stride": 2, "output_padding": 1, "output_shape": (3, 12, 12)}, ValueError, "give one of them"),
    (transposed_matrix, (K, (1, 1)), {"padding": 2}, ValueError, "padding must leave an output.*(-1, -1)"),
    (transposed_matrix, (L, LT), {"groups": 3}, ValueError, "groups must divide.*4, got 3"),
    # operators and geometry
    (Convolution, (K, (5, 5)), {"engine": "fast"}, ValueError, "engine must be one of auto, .*csr.*got 'fast'"),
    (Convolution, (K, (5, 5)), {"engine": 1}, TypeError, "engine must be a str, got 1"),
    (Convolution, (K, (5, 5)), {"flip": 1}, TypeError, "flip must be a bool, got 1"),
    (Convolution, (K, (5, 5)), {"workers": 0}, ValueError, "workers must be positive.*got 0"),
    (TransposedConvolution, (K, (5, 5)), {"engine": "fast"}, ValueError, "engine must be one of"),
    (ConvolutionGeometry, ("33", (5, 5)), {}, TypeError, "kernel_shape must be.*'33'"),
    (Convolution(K, (5, 5)).apply, (np.ones((4, 5)),), {}, ValueError, "x must have shape (..., 5, 5), got (4, 5)"),
    (Convolution(K, (5, 5)).apply, (np.ones(25),), {}, ValueError, "x must have shape (..., 5, 5), got (25,)"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5), bool),), {}, TypeError, "x must be of an integer.*bool"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.ones((5, 5))), {}, ValueError, "out must have shape (3, 3), got (5, 5)"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.ones((3, 3), "f")), {}, TypeError, "out must have dtype float64, got float32"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), [0] * 9), {}, TypeError, "out must be an array or None, got list"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.broadcast_to(0.0, (3, 3))), {}, ValueError, "out must be writeable"),
    (Convolution(K, (5, 5)).with_kernel, (np.ones((3, 4)),), {}, ValueError, "kernel must have shape (3, 3), got (3, 4)"),
    (Convolution(K, (5, 5)).with_kernel, (K > 0,), {}, TypeError, "kernel must be of an integer"),
    (Convolution(K, (5, 5)).tosparse, ("dense",), {}, ValueError, "format must be one of"),
]  # fmt: skip


def sentence(parts):
    """Turn a pattern whose only special parts are .* and | into a regular expression."""
    import re

    return "|".join(".*".join(map(re.escape, option.split(".*"))) for option in parts.split("|"))


@pytest.mark.parametrize(("call", "arguments", "options", "error", "parts"), WRONG)
def test_wrong_arguments(call, arguments, options, error, parts):
    with pytest.raises(error, match=sentence(parts)) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")


def test_operands_of_wrong_sizes_are_scipys_errors():
    with pytest.raises(ValueError, match=r"(?i)dimension mismatch"):
        Convolution(K, (5, 5)) @ np.ones(24)
