"""W and Wᵀ as linear operators."""

from convmat.operators._array_operator import ArrayOperator
from convmat.operators._base import OperatorBase
from convmat.operators._choices import Ledger
from convmat.operators._host_matrices import correlation_kernel
from convmat.operators._kernel_operator import KernelGradient, KernelOperator
from convmat.operators._operators import Convolution, TransposedConvolution
from convmat.operators._products import Products
from convmat.operators._warm_up import warm_up

__all__ = [
    "ArrayOperator",
    "Convolution",
    "KernelGradient",
    "KernelOperator",
    "Ledger",
    "OperatorBase",
    "Products",
    "TransposedConvolution",
    "correlation_kernel",
    "warm_up",
]
