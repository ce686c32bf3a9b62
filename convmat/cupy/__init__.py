"""Convolution as a sparse matrix, on the device: what `convmat` has for NumPy and SciPy, for CuPy."""

from convmat.cupy import _arrays as _arrays  # says what to install where CuPy is missing
from convmat.cupy._assembly import convolution_matrix, transposed_convolution_matrix
from convmat.cupy._operators import Convolution, TransposedConvolution

__all__ = ["Convolution", "TransposedConvolution", "convolution_matrix", "transposed_convolution_matrix"]
