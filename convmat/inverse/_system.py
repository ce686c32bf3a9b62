"""What is solved: min ‖A·x − y‖² + λ·Σ‖Lᵢ·x‖², in double precision and with a kernel of about 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from convmat._messages import choose
from convmat.geometry import Array
from convmat.inverse._penalties import WORDS, Borders, penalty_terms
from convmat.operators import Convolution, TransposedConvolution
from convmat.spectra import Part, part_of

Operator = Convolution | TransposedConvolution


@dataclass(frozen=True)
class System:
    """An operator and a penalty.

    Attributes
    ----------
    A : Convolution or TransposedConvolution
        The operator, divided by `scale`, in double precision.
    part : Part
        The convolution that A is, or whose adjoint it is.
    adjoint : bool
        Whether A is the adjoint of the part's matrix.
    word : str or None
        The penalty, or None if it is an operator of the user's.
    terms : list of LinearOperator
        The operators Lᵢ; none is the identity.
    scale : float
        The power of two that A has been divided by: what is solved for is x times this.
    """

    A: Operator
    part: Part
    adjoint: bool
    word: str | None
    terms: Sequence[Any]
    scale: float

    @classmethod
    def of(cls, A: Operator, penalty: Any = "identity", dtype: Any = np.float64) -> System:
        """Check an operator and a penalty; `dtype` is that of the data, which x has as well."""
        part = part_of(A)
        wide = np.result_type(A.dtype, dtype, np.float64)
        adjoint = isinstance(A, TransposedConvolution)
        kernel = part.kernel.astype(np.result_type(part.kernel, wide))
        part = Part(kernel.conj() if adjoint else kernel, part.axes, part.scale)
        own = A.with_kernel(np.asarray(A.kernel, np.result_type(A.dtype, np.float64)) / part.scale)
        if isinstance(penalty, str):
            word = choose("penalty", penalty, WORDS)
            system = cls(own, part, adjoint, word, (), part.scale)
            return replace(system, terms=tuple(penalty_terms(word, system.shape, Borders.of(part.axes))))
        return cls(own, part, adjoint, None, (_check_penalty(penalty, A),), part.scale)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of x."""
        return self.part.kernel.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of x, channels first."""
        groups, outer, inner = self.part.kernel.shape[:3]
        return groups * (outer if self.adjoint else inner), *(axis.rows(not self.adjoint) for axis in self.part.axes)

    @property
    def data_shape(self) -> tuple[int, ...]:
        """The shape of y, channels first."""
        groups, outer, inner = self.part.kernel.shape[:3]
        return groups * (inner if self.adjoint else outer), *(axis.rows(self.adjoint) for axis in self.part.axes)

    @property
    def size(self) -> int:
        """The number of unknowns."""
        return prod(self.shape)

    @property
    def columns(self) -> int:
        """How many unknowns belong to a coarse frequency of a group."""
        _, outer, inner = self.part.kernel.shape[:3]
        columns: int = outer if self.adjoint else inner * prod(axis.stride for axis in self.part.axes)
        return columns

    @property
    def largest(self) -> float:
        """About the largest eigenvalue of AᴴA, from the sums of taps (Schur's test, borders left out)."""
        taps = abs(self.part.kernel).reshape(*self.part.kernel.shape[:3], -1).sum(axis=3)
        strides = prod(axis.stride for axis in self.part.axes)
        return float(taps.sum(axis=2).max(initial=0.0) * taps.sum(axis=1).max(initial=0.0)) / strides

    def no_inverse(self, weight: float) -> str:
        """Return the sentence for a λ for which there is no inverse."""
        return (
            "regularization must be larger, or the penalty another one, as AᴴA + λLᴴL has no inverse, "
            f"got {weight * self.scale * self.scale:.3g}"
        )

    def penalise(self, x: Array) -> Array:
        """Return Σ Lᵢᴴ·Lᵢ·x for a flat x."""
        if self.word == "identity":
            return x
        return sum((term.H @ (term @ x) for term in self.terms), np.zeros_like(x))

    def penalty_norm(self, x: Array) -> float:
        """Return √Σ‖Lᵢ·x‖² for a flat x."""
        if self.word == "identity":
            return float(np.linalg.norm(x))
        return float(np.sqrt(sum(np.linalg.norm(term @ x) ** 2 for term in self.terms)))

    def residual_norm(self, x: Array, y: Array) -> float:
        """Return ‖A·x − y‖ for flat vectors."""
        return float(np.linalg.norm(self.A @ x - y))

    def normal(self, weight: float) -> LinearOperator:
        """Return AᴴA + λ·ΣLᵢᴴLᵢ."""

        def multiply(x: Array) -> Array:
            x = x.ravel()
            result: Array = self.A.H @ (self.A @ x)
            return result + weight * self.penalise(x) if weight else result

        size = self.size
        return LinearOperator((size, size), matvec=multiply, rmatvec=multiply, dtype=self.dtype)


def _check_penalty(penalty: Any, A: Operator) -> Any:
    """Return a penalty that is an operator."""
    try:
        operator = aslinearoperator(penalty)
    except TypeError:
        raise TypeError(
            f"penalty must be one of {', '.join(WORDS)}, or a LinearOperator, got {type(penalty).__name__}"
        ) from None
    if operator.shape[1] != A.shape[1]:
        raise ValueError(f"penalty must have {A.shape[1]} columns, as A has, got {operator.shape[1]}")
    return operator
