"""Deconvolution that works at borders, with strides and channels, and says how good it is."""

from convmat.inverse._deconvolve import Deconvolution, deconvolve
from convmat.inverse._kernel import KernelEstimate, estimate_kernel
from convmat.inverse._methods import Plan, Plans, explain
from convmat.inverse._preconditioner import preconditioner
from convmat.inverse._richardson_lucy import richardson_lucy

__all__ = [
    "Deconvolution",
    "KernelEstimate",
    "Plan",
    "Plans",
    "deconvolve",
    "estimate_kernel",
    "explain",
    "preconditioner",
    "richardson_lucy",
]
