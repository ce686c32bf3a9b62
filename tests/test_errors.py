"""Every wrong argument gets one sentence with the value received and what would be right, before any work."""

import numpy as np
import pytest
from scipy import sparse

from convmat import Convolution, ConvolutionGeometry, TransposedConvolution, convolution_matrix
from convmat import transposed_convolution_matrix as transposed_matrix
from convmat.operators._host import HostProducts

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
    (convolution_matrix, (np.ones((0, 3)), (5, 5)), {}, ValueError, "kernel must have at least 1 dimension and 1 element, got shape (0, 3)"),
    (TransposedConvolution, ([], 5), {}, ValueError, "kernel must have at least 1 dimension and 1 element, got shape (0,)"),
    (ConvolutionGeometry, ((0, 3), (5, 5)), {}, ValueError, "kernel_shape must be at least 1, got 0"),
    (convolution_matrix, (K3, range(5, 6)), {}, TypeError, "input_shape must be.*range(5, 6)"),
    (convolution_matrix, (K, (5, 10**30)), {}, ValueError, f"less than 2**62 on each axis, got {10**30}, (0, 0), 1 and 1 on axis 1"),
    (Convolution, (K, (2**63, 2**63)), {}, ValueError, f"less than 2**62 on each axis, got {2**63}"),
    (ConvolutionGeometry, ((3, 3), (9, 9)), {"stride": (1, 2**31), "dilation": 2}, ValueError, "stride must be below 2**31 where dilation is not 1, got 2147483648 on axis 1"),
    (Convolution, (L, (2, 3, 5, 5)), {}, ValueError, "axis 0.*over 4 positions.*got 2.*; if input_shape has a batch axis, leave it out"),
    (convolution_matrix, (K, (2, 5)), {}, ValueError, "kernel must fit.*axis 0.*3 positions.*got 2"),
    (convolution_matrix, (K, (5, 5)), {"dilation": 3}, ValueError, "kernel must fit.*7 positions.*dilation 3.*got 5"),
    (Convolution, (np.ones((1,) * 62), (1,) * 62), {}, ValueError, "kernel must have up to 61 spatial axes.*64 dimensions.*got 62"),
    (ConvolutionGeometry, ((1,) * 66, (1,) * 65), {}, ValueError, "kernel must have up to 61 spatial axes.*got 64"),
    (Convolution, (np.ones((1,) * 31), (2,) * 8 + (1,) * 23), {"engine": "gemm"}, ValueError, "engine='gemm' cannot.*up to 30 axes.*64 dimensions, got 31"),
    # kernels
    (convolution_matrix, (K > 0, (5, 5)), {}, TypeError, "kernel must be of an integer.*got bool; cast.*int8"),
    (convolution_matrix, (K.astype("e"), (5, 5)), {}, TypeError, "got float16; cast.*float32"),
    (convolution_matrix, (K.astype("g"), (5, 5)), {}, TypeError, "got longdouble|got float128"),
    (convolution_matrix, (K.astype("O"), (5, 5)), {}, TypeError, "got object; cast"),
    (convolution_matrix, ([[1, 2], [3]], (5, 5)), {}, TypeError, "kernel must be an array of numbers, got list"),
    (convolution_matrix, ("abc", (5, 5)), {}, TypeError, "kernel must be of an integer.*<U3"),
    (convolution_matrix, (None, (5, 5)), {}, TypeError, "kernel must be an array of numbers, got None"),
    (convolution_matrix, (sparse.csr_array(K), (5, 5)), {}, TypeError, "kernel must be an array of numbers, got a csr_array; use its .toarray()"),
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
    (convolution_matrix, (K, (5, 5)), {"stride": bytearray(b"12")}, TypeError, "stride must be.*bytearray"),
    (convolution_matrix, (K, (5, 5)), {"stride": memoryview(b"12")}, TypeError, "stride must be.*memory"),
    (convolution_matrix, (K, (5, 5)), {"stride": 10**30}, ValueError, f"stride and dilation.*less than 2**62 on each axis, got 5, (0, 0), {10**30} and 1"),
    (transposed_matrix, (K, (1, 1)), {"stride": 2**63}, ValueError, f"stride and dilation.*less than 2**62 on each axis, got 3, (0, 0), {2**63} and 1"),
    (convolution_matrix, (K, (5, 5)), {"padding": 2**62}, ValueError, f"less than 2**62 on each axis.*({2**62}, {2**62})"),
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
    # names that are other libraries'
    (convolution_matrix, (K, (5, 5)), {"padding_mode": "mirror"}, ValueError, "got 'mirror'; 'mirror' of scipy.ndimage is 'reflect' here"),
    (Convolution, (K, (5, 5)), {"padding_mode": "edge"}, ValueError, "got 'edge'; 'edge' of numpy.pad is 'replicate' here"),
    (TransposedConvolution, (K, (5, 5)), {"padding_mode": "wrap"}, ValueError, "got 'wrap'; 'wrap' of numpy.pad is 'circular' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "constant"}, ValueError, "'constant' of numpy.pad and scipy.ndimage is 'zeros' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "nearest"}, ValueError, "'nearest' of scipy.ndimage is 'replicate' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "grid-wrap"}, ValueError, "'grid-wrap' of scipy.ndimage is 'circular' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "grid-mirror"}, ValueError, "'grid-mirror' of scipy.ndimage is 'symmetric' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "grid-constant"}, ValueError, "'grid-constant' of scipy.ndimage is 'zeros' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "fill"}, ValueError, "'fill' of scipy.signal is 'zeros' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "symm"}, ValueError, "'symm' of scipy.signal is 'symmetric' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "periodic"}, ValueError, "'periodic' of PyWavelets is 'circular' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "replication"}, ValueError, "'replication' of PyTorch is 'replicate' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "REFLECT_101"}, ValueError, "got 'REFLECT_101'; 'reflect_101' of OpenCV is 'reflect' here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "linear_ramp"}, ValueError, "'linear_ramp' has no counterpart here; pad first"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "antisymmetric"}, ValueError, "'antisymmetric' has no counterpart here"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "Zeros"}, ValueError, "got 'Zeros'; did you mean 'zeros'?"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": "reflct"}, ValueError, "did you mean 'reflect'?"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": ""}, ValueError, "padding_mode must be one of zeros, circular.*got ''"),
    (ConvolutionGeometry, (3, 5), {"padding_mode": b"zeros"}, TypeError, "padding_mode must be a str, got b'zeros'"),
    (convolution_matrix, (K, (5, 5)), {"padding": "SAME"}, ValueError, "got 'SAME'; did you mean 'same'?"),
    (convolution_matrix, (K, (5, 5)), {"padding": "Valid"}, ValueError, "got 'Valid'; did you mean 'valid'?"),
    (convolution_matrix, (K, (5, 5)), {"padding": "half"}, ValueError, "got 'half'; did you mean 'same'?"),
    (convolution_matrix, (K, (5, 5)), {"padding": "reflect"}, ValueError, "'reflect' is a padding_mode"),
    (convolution_matrix, (K, (5, 5)), {"padding": "edge"}, ValueError, "'edge' is a padding_mode"),
    (Convolution, (K, (5, 5)), {"engine": "Taps"}, ValueError, "got 'Taps'; did you mean 'taps'?"),
    (Convolution, (K, (5, 5)), {"engine": "numba"}, ValueError, "got 'numba'; did you mean 'taps'?"),
    (Convolution, (K, (5, 5)), {"engine": "im2col"}, ValueError, "got 'im2col'; did you mean 'gemm'?"),
    (Convolution, (K, (5, 5)), {"engine": "direct"}, ValueError, "got 'direct'; did you mean 'taps'?"),
    (Convolution, (K, (5, 5)), {"engine": "PyTorch"}, ValueError, "got 'PyTorch'; did you mean 'torch'?"),
    (Convolution, (K, (5, 5)), {"engine": "cuda"}, ValueError, "got 'cuda'; for the device"),
    (convolution_matrix, (K, (5, 5)), {"format": "CSR"}, ValueError, "got 'CSR'; did you mean 'csr'?"),
    (convolution_matrix, (K, (5, 5)), {"format": "array"}, ValueError, "got 'array'; for a dense array call .toarray()"),
    (Convolution(K, (5, 5)).tosparse, ("Coo",), {}, ValueError, "got 'Coo'; did you mean 'coo'?"),
    (convolution_matrix, (K, (5, 5)), {"dtype": "float46"}, TypeError, "got 'float46'; did you mean 'float64'?"),
    (convolution_matrix, (K, (5, 5)), {"dtype": "Float32"}, TypeError, "got 'Float32'; did you mean 'float32'?"),
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
    (convolution_matrix, (K, (5, 5)), {"rows": (-1, 2)}, ValueError, "each of rows must be at least 0, got -1"),
    (convolution_matrix, (K, (5, 5)), {"rows": (False, True)}, TypeError, "each of rows must be an int, got False"),
    (convolution_matrix, (K, (5, 5)), {"rows": b"12"}, TypeError, "rows must be a pair.*got b'12'"),
    (convolution_matrix, (K, (5, 5)), {"rows": bytearray(b"12")}, TypeError, "rows must be a pair.*bytearray"),
    (convolution_matrix, (K, (5, 5)), {"rows": range(2, 6, 2)}, TypeError, "rows must be a pair.*range(2, 6, 2)"),
    (convolution_matrix, (K, (2**40, 2**40)), {"rows": (2**61, 2**61 + 2)}, ValueError, f"fewer than 2**63 columns.*got {2**80}"),
    (convolution_matrix, (K3, 2**61), {"rows": (2**60, 2**60 + 2)}, ValueError, "input_shape or kernel must be smaller.*2**62 columns and 3 taps"),
    (convolution_matrix, (K, (5, 5)), {"rows": 3}, TypeError, "rows must be a pair.*got 3"),
    (convolution_matrix, (K, (5, 5)), {"rows": (0, 1.5)}, TypeError, "each of rows must be an int, got 1.5"),
    (convolution_matrix, (K, (5, 5)), {"workers": 0}, ValueError, "workers must be positive.*got 0"),
    (convolution_matrix, (K, (5, 5)), {"workers": -1000}, ValueError, "workers.*got -1000"),
    (convolution_matrix, (K, (5, 5)), {"workers": 1.5}, TypeError, "workers must be an int or None, got 1.5"),
    (convolution_matrix, (K, (5, 5)), {"flip": "yes"}, TypeError, "flip must be a bool, got 'yes'"),
    (convolution_matrix, (np.array([100] * 3, np.int8), 4), {"padding": 1, "padding_mode": "replicate"}, ValueError, "padding_mode='replicate' merges, got int8 and a sum of 200; cast it to int16"),
    (convolution_matrix, (np.array([100] * 3), 4), {"padding": 1, "padding_mode": "replicate", "dtype": "int8"}, ValueError, "got int8 and a sum of 200; cast it to int16"),
    (Convolution(np.array([2**63] * 3, np.uint64), 4, padding=1, padding_mode="symmetric").tocsr, (), {}, ValueError, f"got uint64 and a sum of {2**64}; cast it to float64"),
    (convolution_matrix, (K, (50_000, 50_000)), {}, MemoryError, "22498200036 nonzeros and needs 380 GB (.* bytes), more than the available .*B of memory; apply it.*convmat.Convolution.*rows="),
    (convolution_matrix, (K3, 2**37), {"rows": (0, 2), "format": "csc"}, MemoryError, "6 nonzeros and needs as csc 1.1 TB.*more than the available"),
    (convolution_matrix, (np.ones((1, 2)), (2, 2**20)), {"format": "dia", "stride": (1, 3)}, MemoryError, "needs as dia .* TB.*more than the available"),
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
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), [0] * 9), {}, TypeError, "out must be a plain array or None, got list"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.ma.zeros((3, 3))), {}, TypeError, "out must be a plain array or None, got MaskedArray"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.zeros((3, 3)).view(np.matrix)), {}, TypeError, "out must be a plain array or None, got matrix"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.lib.stride_tricks.as_strided(np.zeros(3), (3, 3), (8, 0))), {}, ValueError, "out must have memory for each of its elements, got shape (3, 3) and strides (8, 0)"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.lib.stride_tricks.as_strided(np.zeros(9), (3, 3), (8, 8))), {}, ValueError, "out must have memory for each of its elements, got shape (3, 3) and strides (8, 8)"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.lib.stride_tricks.as_strided(np.zeros(9), (3, 3), (16, 8))), {}, ValueError, "out must have memory.*got shape (3, 3) and strides (16, 8)"),
    (Convolution(K, (5, 5)).apply, (np.ones((5, 5)), np.lib.stride_tricks.as_strided(np.zeros(9), (3, 3), (24, 4))), {}, ValueError, "out must have memory.*strides (24, 4)"),
    (Convolution(K, (5, 5)).__matmul__, (np.ones((5, 5)),), {}, ValueError, "x must be a vector of 25 numbers.*got an array of shape (5, 5).*use A.apply(x), or A @ x.ravel()"),
    (Convolution(K, (5, 5)), (np.ones(25),), {}, ValueError, "x must have shape (..., 5, 5), got (25,)"),
    (Convolution(K, (5, 5)).dot, (np.ones((7, 5, 5)),), {}, ValueError, "got an array of shape (7, 5, 5); for arrays of shape (..., 5, 5) use A.apply(x)"),
    (Convolution(K, (5, 5)).matvec, (np.ones((5, 5)).tolist(),), {}, ValueError, "got an array of shape (5, 5).*use A.apply(x)"),
    (Convolution(K, (5, 5)).matmat, (np.ones((2, 2, 5, 5)),), {}, ValueError, "got an array of shape (2, 2, 5, 5).*use A.apply(x)"),
    (Convolution(L, (3, 5, 5)).T.matvec, (np.ones((4, 3, 3)),), {}, ValueError, "vector of 36 numbers.*got an array of shape (4, 3, 3).*use A.apply(x)"),
    (Convolution(K3, 5).dot, (np.ones((2, 5)),), {}, ValueError, "vector of 5 numbers.*got an array of shape (2, 5).*use A.apply(x)"),
    (Convolution(K, (5, 5)).explain, (2**63,), {}, ValueError, f"batch must be less than 2**63.*got {2**63}"),
    (Convolution(K, (5, 5)).explain, (10**400,), {}, ValueError, "batch must be less than 2**63.*got about 10**400"),
    (Convolution(K, (5, 5)).explain, (10**9999,), {}, ValueError, "batch must be less than 2**63.*got about 10**9999"),
    (Convolution(K, (5, 5)).apply, (np.ma.ones((5, 5)),), {}, TypeError, "x must be an array without a mask"),
    (Convolution(K, (5, 5)).matvec, (np.ma.ones(25),), {}, TypeError, "x must be an array without a mask"),
    (Convolution(K, (5, 5)).rmatvec, (np.ma.ones(9),), {}, TypeError, "x must be an array without a mask"),
    (Convolution(K, (5, 5)).matmat, (np.ma.ones((25, 2)),), {}, TypeError, "x must be an array without a mask"),
    (Convolution(K, (5, 5)).explain, ("a",), {}, TypeError, "batch must be an int, got 'a'"),
    (Convolution(K, (5, 5)).explain, (2.5,), {}, TypeError, "batch must be an int, got 2.5"),
    (Convolution(K, (5, 5)).explain, (True,), {}, TypeError, "batch must be an int, got True"),
    (Convolution(K, (5, 5)).explain, (0,), {}, ValueError, "batch must be at least 1, got 0"),
    (Convolution(K, (5, 5)).explain, (1, "U3"), {}, TypeError, "dtype must be of an integer.*got <U3"),
    (Convolution(K, (5, 5)).explain, (1, "longdouble"), {}, TypeError, "dtype must be of an integer.*cast it, for example to float64"),
    (Convolution(K, (5, 5)).explain, (1, "float63"), {}, TypeError, "dtype must be a NumPy dtype, got 'float63'"),
    (ConvolutionGeometry(3, 5).matrix_nbytes, ("float63",), {}, TypeError, "dtype must be a NumPy dtype, got 'float63'"),
    (ConvolutionGeometry(3, 5).matrix_nbytes, (None,), {}, TypeError, "dtype must be a NumPy dtype, got None"),
    (Convolution(K, (30_000, 30_000)).toarray, (), {}, MemoryError, f"dense {29_998**2} × {30_000**2} matrix, with the sparse one that fills it, takes .* TB (.* bytes), more than the available .*B of memory; store.*tocsr()"),
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


def test_pytorch_says_how_to_detach():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"kernel must be an array of numbers, got Parameter .*detach\(\)"):
        convolution_matrix(torch.nn.Parameter(torch.ones(3)), 5)


@pytest.mark.parametrize(
    ("options", "error"), [({"workers": 0}, ValueError), ({"engine": "fast"}, ValueError), ({"flip": 1}, TypeError)]
)
def test_errors_come_before_the_kernel_is_copied(options, error, monkeypatch):
    copies = []
    monkeypatch.setattr(HostProducts, "_private", staticmethod(lambda kernel: copies.append(kernel) or kernel.copy()))
    with pytest.raises(error):
        Convolution(K, (5, 5), **options)
    assert not copies
    Convolution(K, (5, 5))
    assert len(copies) == 1
