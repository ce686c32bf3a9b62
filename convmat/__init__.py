"""Convolution as a sparse matrix."""



from convmat.geometry import ConvolutionGeometry

__all__ = ["ConvolutionGeometry"]

