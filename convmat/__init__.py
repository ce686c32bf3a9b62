"""Convolution as a sparse matrix."""

from convmat import textbook
from convmat.geometry import ConvolutionGeometry
from convmat.matrices import convolution_matrix, transposed_convolution_matrix
from convmat.operators import Convolution, TransposedConvolution, warm_up

__all__ = [
    "Convolution",
    "ConvolutionGeometry",
    "TransposedConvolution",
    "convolution_matrix",
    "textbook",
    "transposed_convolution_matrix",
    "warm_up",
]
__version__ = "0.1.0"
