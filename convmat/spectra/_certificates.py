"""Upper bounds of the norm of W that hold in floating point.

A certificate that ‖W‖ ≤ μ is a Cholesky factorisation of (μ² − c)·1 − WᴴW that succeeds. The factor belongs to a matrix
that differs from that by rounding errors alone. They are less than c, so that μ²·1 − WᴴW is positive semidefinite (Rump
2006, "Verification of positive definiteness", BIT Numerical Mathematics 46). Here c bounds the error of the Gram matrix
as it is computed, that of the difference, and that of the factorisation.

`torus_bound` certifies the blocks of a convolution on circles of which W is a part.
"""

from __future__ import annotations

from math import ceil, inf, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from convmat._runtime import available_memory, check_memory
from convmat.geometry import Array, Axis, Border
from convmat.matrices import gram_size
from convmat.spectra._blocks import Torus, in_pieces, periodic_blocks
from convmat.spectra._parts import Part
from convmat.spectra._rounding import TINY, UNIT, gamma, product_norm_up, up

_WAVE = 64 * UNIT  # what NumPy's exp(2πi·t/n) may be wrong by: 19 u from the angle, and some units in the last place
_WORK = 1e12  # flops that a factorisation may take
_ABOVE = 1e-9  # by which a bound is set above a norm that has been computed


class Sums(NamedTuple):
    """Bounds of |W|, the matrix of absolute values.

    Attributes
    ----------
    rows, columns : float
        The largest sum of a row, and of a column.
    terms : int
        How many products are summed in an entry of WᴴW or of WWᴴ at most.
    """

    rows: float
    columns: float
    terms: int

    @property
    def norm(self) -> float:
        """An upper bound of the norm of |W|, and so of W (Schur's test)."""
        return product_norm_up(self.rows, self.columns)


def copies(axis: Axis) -> int:
    """Return how often the padded axis shows a source at most: the square of the norm of padding."""
    shown = axis.source_at(np.arange(-axis.before, axis.size + axis.overrun, dtype=np.int64))
    return int(np.bincount(shown[shown >= 0], minlength=1).max())


def sums_of(group: Part) -> Sums:
    """Return the bounds of |W| for a single group, from its products with ones."""
    A = group.operator(engine="gemm")
    magnitudes, ones = A.with_kernel(abs(A.kernel)), A.with_kernel(np.ones(A.kernel.shape))
    inner, taps = A.kernel.shape[1], prod(A.kernel.shape[2:])
    error = 1 + 2 * gamma(group.kernel.size * prod(map(copies, group.axes)), group.kernel.dtype)
    rows = float((magnitudes @ np.ones(A.shape[1])).max(initial=0.0))
    columns = float((magnitudes.T @ np.ones(A.shape[0])).max(initial=0.0))
    readings = float((ones.T @ np.ones(A.shape[0])).max(initial=0.0))
    # An entry pairs each reading of a row or column with the taps through which another one reads the same.
    terms = max(ceil(readings * 1.001), inner * taps) * taps
    return Sums(up(rows * error) + TINY, up(columns * error) + TINY, terms)


# ---- the part of a convolution on circles ----------------------------------------------------------------------------


def circles_of(part: Part) -> tuple[list[Torus], float]:
    """Return circles of which W is a part, and what the norm of the convolution on them is to be multiplied by.

    Where borders are empty, the circle has as many positions more as are read on one side of the input: there it is
    empty, too. Rows of W are then rows of the circulant, and columns likewise. Where borders show the input again, W =
    V·P. V is a part of the circulant of the padded input, and ‖P‖² is the number of copies of an input. A circle of the
    input itself needs no P.
    """
    circles, factor = [], 1.0
    for axis in part.axes:
        stride, needed = axis.stride, axis.outputs * axis.stride
        if axis.border is Border.SHIFTED and needed <= axis.size and axis.size % stride == 0:
            size = axis.size
        elif axis.border is Border.NOTHING or not (axis.before or axis.overrun):
            size = max(axis.size + max(axis.before, axis.overrun), needed)
        else:
            size = max(axis.before + axis.size + axis.overrun, needed)
            factor *= copies(axis)
        circles.append(Torus.of(axis, -(-size // stride) * stride))
    return circles, sqrt(factor) * (1 + 2 * UNIT)


def torus_bound(part: Part, target: float) -> float:
    """Return an upper bound of the norms of all groups: `target` if it is one, or else little more than that on the torus.

    Parameters
    ----------
    part : Part
        The groups.
    target : float
        What a bound may be.
    """
    circles, factor = circles_of(part)
    dtype = np.dtype(np.complex128)
    taps = abs(part.kernel).reshape(*part.kernel.shape[:3], -1).sum(axis=3)
    error = 1 + gamma(part.kernel.size, dtype)
    mass = product_norm_up(float(taps.sum(axis=1).max()) * error, float(taps.sum(axis=2).max()) * error)
    wrong = 1.1 * sum(gamma(circle.taps, dtype) + _WAVE for circle in circles) * mass + TINY
    bound = max(target / factor - wrong, TINY)
    for blocks in periodic_blocks(part.kernel, circles):
        bound = _raised(blocks.matrices, bound)
    return up(up(bound + wrong) * factor)


def is_below(part: Part, norm: float) -> bool:
    """Tell whether the norms of all groups are proven to be at most `norm`, or larger by rounding alone."""
    return torus_bound(part, norm) <= norm * (1 + 16 * UNIT)


def _raised(matrices: Array, bound: float) -> float:
    """Return a bound of the norms of matrices: the given one if it is one, or else little more than the least."""
    if 1 in matrices.shape[1:]:
        largest = float(np.sqrt((abs(matrices) ** 2).sum(axis=(1, 2)).max()))
        return max(bound, largest * (1 + 2 * gamma(max(matrices.shape[1:]), matrices.dtype)))
    if _prove(matrices, bound):
        return bound
    largest = float(_norms(matrices).max())
    # The first will do, unless a norm is quite wrong.
    above = (largest * (1 + more) for more in (_ABOVE, 1e-6, 1e-3, 1.0))
    return next((bound for bound in above if _prove(matrices, bound)), inf)


def _prove(matrices: Array, bound: float) -> bool:
    """Tell whether it is proven that no matrix has a larger norm than `bound`."""
    return bool(in_pieces(matrices, lambda some: np.array([_proves(some, bound)] * len(some))).all())


def _norms(matrices: Array) -> Array:
    norms: Array = in_pieces(matrices, lambda some: np.linalg.norm(some, 2, axis=(1, 2)))
    return norms


def _proves(matrices: Array, bound: float) -> bool:
    """Tell whether it is proven that no matrix has a larger norm than `bound`."""
    rows, columns = matrices.shape[1:]
    if rows > columns:
        return _proves(matrices.conj().swapaxes(1, 2), bound)
    squares = float((abs(matrices) ** 2).sum(axis=(1, 2)).max())
    error = 2 * gamma(columns, matrices.dtype) * squares + _cholesky_error(rows, rows, matrices.dtype) * bound**2
    shifted = -(matrices @ matrices.conj().swapaxes(1, 2))
    diagonal = np.arange(rows)
    shifted[:, diagonal, diagonal] += bound**2 - error
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    return True


def _cholesky_error(size: int, width: int, dtype: np.dtype[Any]) -> float:
    """Return what a factorisation proves less than that it succeeds, relative to the largest element of the diagonal.

    The factor RᴴR is within γ(w + 1)·|Rᴴ|·|R| of the matrix, and no element of |Rᴴ|·|R| exceeds the largest on its
    diagonal by more than that factor. In a row there are at most 2·w + 1 of them. The rest is for forming μ² and its
    difference to the matrix.
    """
    return 2 * gamma(width + 1, dtype) * min(size, 2 * width + 1) + 16 * UNIT


# ---- the Gram matrix -------------------------------------------------------------------------------------------------


class Band(NamedTuple):
    """How the Gram matrix of a group is factored.

    Attributes
    ----------
    adjoint : bool
        Whether it is that of Wᴴ, which has the same norm.
    order : tuple of int
        The axes by length, the longest first; channels come last. Neighbours on the first axis are far apart.
    size, width : int
        Number of rows, and of diagonals beside the main one.
    """

    adjoint: bool
    order: tuple[int, ...]
    size: int
    width: int

    def flops(self, dtype: np.dtype[Any]) -> float:
        """Return the operations of the factorisation."""
        return float(self.size) * (self.width + 1) ** 2 * (4 if dtype.kind == "c" else 1)

    def nbytes(self, dtype: np.dtype[Any]) -> int:
        """Return the bytes of the band."""
        return self.size * (self.width + 1) * dtype.itemsize


def band_of(group: Part) -> Band:
    """Return the cheaper of the bands of WᴴW and WWᴴ."""
    return min((_band(group, adjoint) for adjoint in (False, True)), key=lambda band: band.flops(group.kernel.dtype))


def _band(group: Part, adjoint: bool) -> Band:
    channels = group.kernel.shape[1 if adjoint else 2]
    lengths = [axis.outputs if adjoint else axis.size for axis in group.axes]
    order = tuple(sorted(range(len(lengths)), key=lambda axis: -lengths[axis]))
    size = width = channels
    for axis in reversed(order):
        one = group.axes[axis]
        if one.border is Border.SHIFTED and (one.before or one.overrun):
            far = lengths[axis] - 1
        elif adjoint:
            far = one.reach // one.stride + max(one.before, one.overrun) * (one.border is not Border.NOTHING)
        else:
            far = max(one.reach, 2 * max(one.before, one.overrun) * (one.border is not Border.NOTHING))
        width += min(far, lengths[axis] - 1) * size
        size *= lengths[axis]
    return Band(adjoint, order, size, min(width - 1, size - 1))


def certificate_nbytes(group: Part, band: Band) -> int:
    """Return the bytes that a certificate from the Gram matrix takes."""
    itemsize = group.kernel.itemsize
    nnz = gram_size(group.operator().geometry, band.adjoint).nnz
    return 2 * band.nbytes(group.kernel.dtype) + 4 * nnz * (itemsize + 8)


def is_affordable(group: Part) -> bool:
    """Tell whether memory and time allow a certificate from the Gram matrix."""
    band = band_of(group)
    return band.flops(group.kernel.dtype) <= _WORK and certificate_nbytes(group, band) <= available_memory()


def gram_proves(group: Part, bound: float) -> bool:
    """Tell whether the Gram matrix of a single group proves that the norm is not larger than `bound`."""
    band, sums, dtype = band_of(group), sums_of(group), group.kernel.dtype
    check_memory(
        lambda: f"a factorisation of {band.size} rows and {band.width} diagonals takes",
        certificate_nbytes(group, band),
        "take another method",
    )
    A = group.operator()
    gram = (A.H if band.adjoint else A).gram("coo")
    channels = group.kernel.shape[1 if band.adjoint else 2]
    lengths = [axis.outputs if band.adjoint else axis.size for axis in group.axes]
    place = np.empty(band.size, np.int64)
    natural = np.arange(band.size).reshape(channels, *lengths)
    place[natural.transpose(*(axis + 1 for axis in band.order), 0).ravel()] = np.arange(band.size)
    rows, columns = place[gram.row], place[gram.col]
    lower = rows >= columns
    rows, columns, values = rows[lower], columns[lower], gram.data[lower]
    width = int((rows - columns).max(initial=0))
    error = gamma(sums.terms, dtype) * sums.norm**2 * (1 + 4 * UNIT)
    error += _cholesky_error(band.size, width, dtype) * bound**2
    stored = np.zeros((width + 1, band.size), dtype, order="F")
    stored[rows - columns, columns] = -values
    stored[0] = bound**2 - error + stored[0].real
    try:
        linalg.cholesky_banded(stored, overwrite_ab=True, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return False
    return True
