"""An approximate inverse of AᴴA + λΣLᵢᴴLᵢ: transforms inside, a factorisation along the borders.

Inside, the matrix is a convolution; on a larger circle, Fourier transforms invert that convolution (T). Near the borders the
matrix differs, in a strip a few positions wide, whose part of the matrix is factored and inverted (S). Together they are one
step of the symmetric multiplicative Schwarz method: strip, circle, strip (Smith, Bjørstad & Gropp 1996, "Domain
Decomposition", Cambridge University Press, §1.2). With M for the matrix that is::

    P = S + (1 − S·M)·T·(1 − M·S)

S and T are symmetric, T is positive definite and S·M·S = S, so that P is symmetric positive definite.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from scipy import fft
from scipy.sparse.linalg import LinearOperator

from convmat._runtime import check_memory
from convmat.geometry import MODES, Array, Axis, Border
from convmat.inverse._arguments import non_negative
from convmat.inverse._decompositions import is_fourier
from convmat.inverse._frequencies import Circulant, CosineGrid, Grid, multiply
from convmat.inverse._penalties import WORDS
from convmat.inverse._strips import Strip, StripSolver
from convmat.inverse._system import Operator, System
from convmat.spectra import Torus, in_pieces

_SINGULAR = 1e-13  # of the largest eigenvalue, below which a circulant has no inverse


def circles_of(system: System) -> list[Torus]:
    """Return circles on which x has room, a kernel's reach apart from itself, of sizes that Fourier transforms like."""
    if is_fourier(system):
        return [Torus.of(axis, axis.size) for axis in system.part.axes]
    return [_circle(axis, system.adjoint) for axis in system.part.axes]


def _circle(axis: Axis, adjoint: bool) -> Torus:
    apart = min(axis.reach, axis.size)  # positions that are further apart than x is long do not meet
    needed = axis.outputs + apart // axis.stride + 1 if adjoint else -(-(axis.size + apart) // axis.stride)
    return Torus.of(axis, fft.next_fast_len(needed, real=True) * axis.stride)


class TransformInverse:
    """The inverse of what AᴴA + λΣLᵢᴴLᵢ is inside: a small matrix for each frequency.

    Fourier transforms on larger circles, or cosine transforms.

    Parameters
    ----------
    system : System
        What is solved.
    mirrored : bool
        Whether cosine transforms are used, for a system that `is_mirrored`.
    """

    def __init__(self, system: System, mirrored: bool = False) -> None:
        assert system.word is not None
        self._system = system
        circles = [Torus.of(axis, 2 * axis.size) for axis in system.part.axes] if mirrored else circles_of(system)
        groups, outer, inner = system.part.kernel.shape[:3]
        frequencies = groups * prod(circle.outputs for circle in circles)
        check_memory(
            lambda: "the inverse for each frequency takes",
            16 * frequencies * system.columns * (3 * system.columns + (inner if system.adjoint else outer)),
            'solve without it: deconvolve(..., preconditioner="none")',
        )
        circulant = Circulant.of(system.part, circles, system.adjoint)
        self._grid: Grid | CosineGrid = circulant.source
        self._gram = circulant.gram
        if mirrored:
            self._grid = CosineGrid(groups, inner, system.shape[1:])
            self._gram = _mirrored(self._gram, system.shape[1:])
        self._symbol = self._grid.symbol(system.word)
        self._inverse: Array = np.zeros(0)

    def invert(self, weight: float) -> None:
        """Make the inverse for a λ.

        Raises
        ------
        ValueError
            If it has none.
        """
        total = self._gram + (weight * self._symbol)[..., None] * np.eye(self._system.columns)
        flat = total.reshape(-1, *total.shape[-2:])
        values = flat.real if flat.shape[-1] == 1 else in_pieces(flat, np.linalg.eigvalsh)
        if not values.min(initial=np.inf) > _SINGULAR * values.max(initial=0.0):
            raise ValueError(self._system.no_inverse(weight))
        self._inverse = 1.0 / total if flat.shape[-1] == 1 else in_pieces(flat, np.linalg.inv).reshape(total.shape)

    def apply(self, x: Array) -> Array:
        """Return the product for a flat x."""
        coefficients = self._grid.to(x.reshape(self._system.shape))
        solved = multiply(self._inverse, coefficients[..., None])[..., 0]
        return self._grid.back(solved, self._system.shape[1:]).reshape(-1)


def is_mirrored(system: System) -> bool:
    """Tell whether cosine transforms come near AᴴA: without stride, all axes are mirrored with the edge at both ends."""
    return (
        all(
            axis.border is Border.MIRRORED and MODES[axis.mode].edge == 1 and min(axis.before, axis.overrun) > 0
            and axis.stride == 1
            for axis in system.part.axes
        )
        and not system.adjoint
        and system.dtype.kind != "c"
    )  # fmt: skip


def _mirrored(gram: Array, sizes: Sequence[int]) -> Array:
    """Return the Gram matrices for frequencies of the DCT-II, from those on circles that are twice as long.

    Mirrored, x is even on these circles. There a frequency and its negative on any axis belong together; the mean of their
    Gram matrices is what AᴴA has on the diagonal, up to the borders.
    """
    mean = gram.real
    for axis in range(len(sizes) - 1):  # of a frequency and its negative on all axes, the mean is the real part
        mean = (mean + np.roll(np.flip(mean, axis), 1, axis)) / 2
    return mean[tuple(slice(size) for size in sizes)]


def mirrored_spread(system: System, weight: float) -> float:
    """Return how unlike AᴴA + λΣLᵢᴴLᵢ is for frequencies that a mirrored border takes for one: 1 if alike.

    That is the largest eigenvalue of one's matrix relative to that of another, about: small circles have fewer frequencies,
    between which the matrices change little, as they are polynomials whose degrees are those of the kernel.
    """
    circles = [Torus.of(axis, 2 * min(axis.size, 8 + 2 * axis.reach)) for axis in system.part.axes]
    circulant = Circulant.of(system.part, circles, system.adjoint)
    identity = (weight * circulant.source.symbol(str(system.word)))[..., None] * np.eye(system.columns)
    own = circulant.gram + identity
    largest = 1.0
    for turned in product((False, True), repeat=len(circles) - 1):  # on the last axis: the conjugates of the others
        other = own
        for axis in np.flatnonzero(turned).tolist():
            other = np.roll(np.flip(other, axis), 1, axis)
        for each in (other, other.conj()):
            if system.columns == 1:
                ratios = own.real / np.maximum(each.real, 1e-300)
            else:
                ratios = abs(np.linalg.eigvals(np.linalg.solve(each, own)))
            largest = max(largest, float(ratios.max(initial=1.0)))
    return largest


class Preconditioner:
    """The approximate inverse, for one λ after the other.

    Parameters
    ----------
    system : System
        What is solved.
    strip : Strip, optional
        The strip near the borders, if it is inverted too.
    """

    def __init__(self, system: System, strip: Strip | None) -> None:
        self._system = system
        # Cosine transforms do better alone, and circles together with the strip.
        self._inside = TransformInverse(system, mirrored=strip is None and is_mirrored(system))
        self._strip = StripSolver(strip) if strip is not None and len(strip.indices) else None
        self._normal: Any = None

    def prepare(self, weight: float) -> None:
        """Make the inverse for a λ."""
        self._inside.invert(weight)
        self._normal = self._system.normal(weight).matvec
        if self._strip is not None:
            self._strip.factor(weight)

    def start(self, right: Array) -> Array:
        """Return where an iteration begins, so that its residuals are zero on the strip."""
        return np.zeros_like(right) if self._strip is None else self._strip.solve(right)

    def apply(self, residual: Array) -> Array:
        """Return the approximate solution for a flat right-hand side."""
        residual = residual.ravel().astype(self._system.dtype, copy=False)
        strip = self._strip
        if strip is None:
            return self._inside.apply(residual)
        first = np.zeros_like(residual)
        # Where the strip has been solved before, nothing of the residual is left on it.
        if strip.is_left(residual):
            first = strip.solve(residual)
            residual = residual - self._normal(first)
        inside = self._inside.apply(residual)
        result: Array = first + inside - strip.solve(self._normal(inside))
        return result

    def operator(self) -> LinearOperator:
        """Return the approximate inverse as an operator."""
        size = self._system.size
        return LinearOperator((size, size), matvec=self.apply, rmatvec=self.apply, dtype=self._system.dtype)


def preconditioner(A: Operator, *, regularization: float = 0.0, penalty: str = "identity") -> LinearOperator:
    """Return an approximate inverse of AᴴA + λLᴴL, symmetric positive definite, for any iterative solver.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator.
    regularization : float
        The weight λ ≥ 0. Without any, AᴴA itself must have an inverse, frequency by frequency.
    penalty : {"identity", "gradient", "laplacian"}
        What L is; see `deconvolve`.

    Returns
    -------
    LinearOperator
        Of shape (size of x, size of x), in double precision.

    Raises
    ------
    MemoryError
        If it does not fit into the available memory.
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value, or λ is too small for an inverse.

    See Also
    --------
    deconvolve : Which uses it where it saves time.

    Notes
    -----
    Inside, AᴴA + λLᴴL is a convolution, which Fourier transforms invert on a larger circle, with a small matrix for each
    coarse frequency where there are channels or strides. Near the borders, rows differ in a strip a few positions wide: its
    part of the matrix is factored once, where that takes about a second at most. Strip, circle and strip again are one step
    of the symmetric multiplicative Schwarz method [1]_. How much that saves is measured, not proven: see
    ``python -m benchmarks.inverse``.

    References
    ----------
    .. [1] B. F. Smith, P. E. Bjørstad, W. D. Gropp, "Domain Decomposition", Cambridge University Press, 1996, §1.2.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse.linalg import LinearOperator, cg
    >>> from convmat import Convolution, inverse
    >>> A = Convolution([1.0, 2.0, 3.0, 2.0], 200, padding="same", padding_mode="reflect")
    >>> M = LinearOperator((200, 200), matvec=lambda x: A.H @ (A @ x) + 0.1 * x, dtype=float)
    >>> P = inverse.preconditioner(A, regularization=0.1)
    >>> steps = []
    >>> x, status = cg(M, np.ones(200), M=P, rtol=1e-8, callback=steps.append)
    >>> status, len(steps) < 20
    (0, True)
    """
    weight = non_negative("regularization", regularization)
    if not isinstance(penalty, str):
        raise TypeError(f"penalty must be one of {', '.join(WORDS)} for a preconditioner, got {type(penalty).__name__}")
    system = System.of(A, penalty)
    strip = None if is_fourier(system) else Strip.of(system)
    found = Preconditioner(system, strip if strip is not None and strip.band.is_affordable() else None)
    found.prepare(weight / system.scale / system.scale)
    scale = system.scale**-2

    def apply(x: Array) -> Array:
        return scale * found.apply(x)

    size = system.size
    return LinearOperator((size, size), matvec=apply, rmatvec=apply, dtype=system.dtype)
