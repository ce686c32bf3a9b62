"""Convolution as a sparse matrix."""

from importlib.metadata import version

from convmat.assembly import convolution_matrix, transposed_convolution_matrix
from convmat.geometry import ConvolutionGeometry

__all__ = ["ConvolutionGeometry", "convolution_matrix", "transposed_convolution_matrix"]
__version__ = version("convmat")
