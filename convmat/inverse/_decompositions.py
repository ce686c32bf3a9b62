"""Operators and penalties that one change of variables makes diagonal.

With A = U·C·X⁻¹ and L = V·S·X⁻¹, where U and V have orthonormal columns and C and S are diagonal, the problem falls apart:
‖A·x − y‖² + λ‖L·x‖² = Σ |cⱼ·zⱼ − bⱼ|² + λ·sⱼ²·|zⱼ|² + ‖y‖² − ‖b‖² for x = X·z and b = Uᴴ·y. That is the generalised singular
value decomposition (Hansen 1998, "Rank-deficient and discrete ill-posed problems", SIAM, §2.1.2). What any λ gives is known
from c, s and b alone.

Here U and X are Fourier or cosine transforms with a small matrix for each frequency, or products of one matrix per axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import log2
from typing import NamedTuple

import numpy as np
from scipy import linalg

from convmat.geometry import Array
from convmat.inverse._frequencies import Circulant, CosineGrid, Grid, multiply
from convmat.inverse._system import System
from convmat.spectra import Part, Torus, cosine_blocks, in_pieces

_SMALL = 1500  # size of a factor that LAPACK decomposes in about a second
_ZERO = 1e-12  # of the largest gain, below which a gain is none
_KNOWN = 1e-14  # of the largest singular value of A and L together, below which neither sees anything


@dataclass(frozen=True)
class Decomposition:
    """A problem whose variables are independent.

    Attributes
    ----------
    gains, penalties : float64 array
        c and s.
    weights : array
        How many variables each stands for, to broadcast: 2 where one stands for its complex conjugate as well.
    analyse : callable
        Returns b for data (C, *sizes).
    synthesise : callable
        Returns x (C, *sizes) for z.
    """

    gains: Array
    penalties: Array
    weights: Array
    analyse: Callable[[Array], Array]
    synthesise: Callable[[Array], Array]

    @property
    def steepness(self) -> float:
        """The largest c²/s²: about the λ that leaves nothing of x."""
        some = self.penalties > 0
        return float((self.gains[some] / self.penalties[some]).max(initial=0.0)) ** 2

    def filtered(self, weight: float, data: Array) -> Array:
        """Return z for a given λ; what the data do not tell is 0."""
        squares = self.gains**2 + weight * self.penalties**2
        known = self.gains > _ZERO * self.gains.max(initial=0.0)
        if weight > 0:
            known = squares > 0
        result: Array = np.divide(self.gains * data, squares, out=np.zeros_like(data), where=known)
        return result

    def left(self, weight: float, data: Array) -> float:
        """Return Σ |c·z − b|² for a given λ."""
        return self._sum(abs(self.gains * self.filtered(weight, data) - data) ** 2)

    def freedom(self, weight: float) -> tuple[float, float]:
        """Return the traces of H = A·(AᴴA + λLᴴL)⁻¹·Aᴴ, how many numbers x takes from the data, and of H²."""
        factors = abs(self.gains * self.filtered(weight, np.ones_like(self.gains)))
        return self._sum(factors), self._sum(factors**2)

    def norm(self, data: Array) -> float:
        """Return ‖b‖²."""
        return self._sum(abs(data) ** 2)

    def _sum(self, values: Array) -> float:
        return float((self.weights * values).sum())


class _Pairs(NamedTuple):
    """The decompositions of pairs of small matrices B and D.

    Attributes
    ----------
    left, right : arrays (…, p, q) and (…, q, q)
        U and X.
    gains, penalties : arrays (…, q)
        c and s.
    """

    left: Array
    right: Array
    gains: Array
    penalties: Array


def _decompose(matrices: Array, squares: Array) -> _Pairs:
    """Decompose matrices (…, p, q) with diagonal penalties, whose squares are (…, q)."""
    rows, columns = matrices.shape[-2:]
    roots = np.broadcast_to(np.sqrt(squares), (*matrices.shape[:-2], columns))
    if rows == columns == 1:
        gains = abs(matrices)
        left = np.divide(matrices, gains, out=np.ones_like(matrices), where=gains > 0)
        return _Pairs(left, np.ones_like(left), gains[..., 0], roots)
    # Both are about as large, so that rounding in one does not drown the other.
    largest = float((abs(matrices) ** 2).sum(axis=(-2, -1)).max(initial=0.0))
    balance = np.sqrt(largest / (float(squares.max(initial=0.0)) or 1.0)) or 1.0
    stacked = np.concatenate([matrices, balance * roots[..., None, :] * np.eye(columns)], axis=-2)
    found = in_pieces(stacked.reshape(-1, rows + columns, columns), lambda some: _decompose_stacked(some, rows))
    left, right, gains, bent = (each.reshape(*matrices.shape[:-2], *each.shape[1:]) for each in found)
    return _Pairs(left, right, gains, bent / balance)


def _decompose_stacked(stacked: Array, rows: int) -> tuple[Array, Array, Array, Array]:
    """Decompose matrices whose first rows are those of B, and whose others those of D."""
    # The columns of `span` are orthonormal, and `back` undoes what made them so.
    span, values, last = np.linalg.svd(stacked, full_matrices=False)
    known = values > _KNOWN * values[:, :1]
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=known)
    back = last.conj().swapaxes(1, 2) * inverse[:, None, :]
    span = span * known[:, None, :]
    left, few, mixed = np.linalg.svd(span[:, :rows], full_matrices=True)
    mixed = mixed.conj().swapaxes(1, 2)
    # A column without a gain meets nothing of the data.
    count, columns = few.shape[1], stacked.shape[2]
    gains, unit = np.zeros((len(stacked), columns)), np.zeros((len(stacked), rows, columns), left.dtype)
    gains[:, :count], unit[:, :, :count] = few, left[:, :, :count]
    return unit, back @ mixed, gains, np.linalg.norm(span[:, rows:] @ mixed, axis=1)


# ---- the ways --------------------------------------------------------------------------------------------------------


def is_fourier(system: System) -> bool:
    """Tell whether Fourier transforms make a problem diagonal: all axes are circles, and a stride divides their size."""
    borders = {axis.mode for axis in system.part.axes if axis.before or axis.overrun}
    return system.part.is_periodic and (system.word == "identity" or (system.word is not None and len(borders) == 1))


def fourier(system: System) -> Decomposition:
    """Decompose a problem on circles."""
    circles = [Torus.of(axis, axis.size) for axis in system.part.axes]
    circulant = Circulant.of(system.part, circles, system.adjoint)
    return _by_frequencies(system, circulant.source, circulant.target, circulant.matrices)


def is_cosine(system: System) -> bool:
    """Tell whether a DCT-II makes a problem diagonal: kernels are even, and borders mirror with the edge.

    Where nothing is padded, kernels have a single tap, and differences have free ends: they are mirrored, too.
    """
    return system.part.is_even and system.word is not None


def cosine(system: System) -> Decomposition:
    """Decompose a problem with even kernels under "symmetric" padding."""
    part = system.part
    groups, outer, inner = part.kernel.shape[:3]
    sizes = tuple(axis.size for axis in part.axes)
    matrices = np.concatenate([some.matrices for some in cosine_blocks(part)]).reshape(*sizes, groups, outer, inner)
    grids = CosineGrid(groups, inner, sizes), CosineGrid(groups, outer, sizes)
    if system.adjoint:
        matrices, grids = matrices.conj().swapaxes(-1, -2), grids[::-1]
    return _by_frequencies(system, *grids, matrices)


def _by_frequencies(
    system: System, source: Grid | CosineGrid, target: Grid | CosineGrid, matrices: Array
) -> Decomposition:
    """Decompose a problem that a transform takes apart into one small matrix for each frequency and group."""
    assert system.word is not None
    pairs = _decompose(matrices, source.symbol(system.word))
    left = pairs.left.conj().swapaxes(-1, -2)
    return Decomposition(
        pairs.gains,
        pairs.penalties,
        source.weights,
        lambda y: multiply(left, target.to(y)[..., None])[..., 0],
        lambda z: source.back(multiply(pairs.right, z[..., None])[..., 0], system.shape[1:]),
    )


def factors_of(system: System) -> list[Part] | None:
    """Return the factors of a separable problem, the one with the channels last, or None if it is none."""
    if system.word != "identity" or len(system.part.kernel) > 1:
        return None
    factors = system.part.factors()
    small = all(len(factor.axes) <= 1 and max(factor.shape) <= _SMALL for factor in factors)
    return factors if small else None


def separable(system: System, factors: list[Part]) -> Decomposition:
    """Decompose a problem whose kernel is an outer product, from its `factors_of`, under any padding mode and stride."""
    bases = [_svd(factor, system.adjoint) for factor in factors]
    gains = reduce(np.multiply.outer, (values for _, values, _ in bases))
    # The last factor has the channels and at most one axis, the others have an axis each.
    places = [1 + number for axis in (axis for factor in factors for axis in factor.axes)
              for number, own in enumerate(system.part.axes) if own is axis]  # fmt: skip
    lead = len(factors) - 1
    order = [*places[:lead], 0, *places[lead:]]

    def analyse(y: Array) -> Array:
        result = y.transpose(order)
        result = result.reshape(*result.shape[:lead], -1)
        for left, _, _ in bases:  # the first axis goes to the end
            result = np.tensordot(result, left.conj(), (0, 0))
        return result

    def synthesise(z: Array) -> Array:
        for _, _, right in bases:
            z = np.tensordot(z, right.conj(), (0, 0))
        return z.reshape([system.shape[place] for place in order]).transpose(np.argsort(order))

    return Decomposition(gains, np.ones_like(gains), np.ones(()), analyse, synthesise)


def _svd(factor: Part, adjoint: bool) -> tuple[Array, Array, Array]:
    """Return U, the singular values and Vᴴ of a factor's matrix, or of its adjoint."""
    dense = factor.operator().toarray()
    left, values, right = linalg.svd(dense.conj().T if adjoint else dense, full_matrices=False, check_finite=False)
    return left, values, right


def frequencies_flops(system: System) -> float:
    """Return the operations of a decomposition by frequencies and one solution, about."""
    small = 100.0 * system.columns**2 if system.columns > 1 else 20.0
    return system.size * (small + 10 * log2(max(2.0, system.size)))


def factors_flops(system: System, factors: list[Part]) -> float:
    """Return the operations of a decomposition by factors and one solution, about."""
    bases = sum(20.0 * max(factor.shape) * min(factor.shape) ** 2 for factor in factors)
    return bases + 8.0 * system.size * sum(max(factor.shape) for factor in factors)
