"""W and Wᵀ as linear operators."""

from convmat.operators._base import OperatorBase
from convmat.operators._operators import Convolution, TransposedConvolution
from convmat.operators._products import Products

__all__ = [
    "Convolution",
    "OperatorBase",
    "Products",
    "TransposedConvolution",
]
