"""Which way leads to the singular values of a factor, and what it costs."""

from __future__ import annotations

from enum import Enum
from math import prod
from typing import NamedTuple

from convmat.spectra._parts import Part

DENSE = 1500  # singular values of a matrix that LAPACK finds in about a second
_SVD = 8 / 3  # flops of LAPACK for singular values alone, times m·n·min(m, n)


class Way(Enum):
    """A method."""

    FOURIER = "one small SVD for each frequency"
    COSINE = "one small SVD for each frequency of the DCT-II"
    DENSE = "LAPACK"
    LANCZOS = "ARPACK"


class Cost(NamedTuple):
    """What a way takes.

    Attributes
    ----------
    flops, nbytes : float
        Floating-point operations, and bytes of memory.
    """

    flops: float
    nbytes: float


def way_of(factor: Part) -> Way:
    """Return how a few singular values of a factor are found."""
    if factor.is_periodic:
        return Way.FOURIER
    if factor.is_even:
        return Way.COSINE
    return Way.DENSE if factor.count <= DENSE else Way.LANCZOS


def cost_of(factor: Part, way: Way) -> Cost:
    """Return what all singular values of a factor cost; of an iteration, what one product costs."""
    groups, outer, inner = factor.kernel.shape[:3]
    rows, columns = factor.shape
    itemsize = factor.kernel.itemsize
    if way is Way.LANCZOS:
        geometry = factor.operator().geometry
        return Cost(float(geometry.flops), 20.0 * (rows + columns) * itemsize)
    if way is Way.DENSE:
        return Cost(_SVD * rows * columns * min(rows, columns), 3.0 * rows * columns * itemsize)
    width = inner * prod(axis.stride for axis in factor.axes)
    blocks = groups * prod(axis.outputs for axis in factor.axes)
    is_complex = way is Way.FOURIER
    if is_complex and itemsize == 8:
        blocks = blocks // 2 + 1
    flops = _SVD * outer * width * min(outer, width) * (4 if is_complex else 1)
    return Cost(blocks * flops, float(min(blocks * outer * width * 16, 1 << 25)))
