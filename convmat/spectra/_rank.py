"""What rests on small singular values: condition number, rank, null space, and the gap that they depend on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg

from convmat._runtime import call_single_threaded, check_memory
from convmat.geometry import Array
from convmat.operators import TransposedConvolution
from convmat.spectra._blocks import Torus, frequency_of, periodic_blocks, waves_of
from convmat.spectra._parts import Operator, Part, compute, part_of
from convmat.spectra._values import all_values, check_rtol, singular_values

_CLEAR = 10.0  # how many times as large as what is dropped the least value that is kept should be


class Gap(NamedTuple):
    """What a decision about the rank rests on.

    Attributes
    ----------
    threshold : float
        Singular values up to here count as 0.
    kept, dropped : float
        The smallest value above the threshold, and the largest one up to it; 0 where there is none.
    """

    threshold: float
    kept: float
    dropped: float

    @property
    def is_clear(self) -> bool:
        """Whether what is kept and what is dropped differ by more than a factor of 10."""
        return not self.dropped or not self.kept or self.kept > _CLEAR * self.dropped


class Rank(NamedTuple):
    """A rank.

    Attributes
    ----------
    rank : int
        The number of singular values above the threshold.
    gap : Gap
        What that rests on.
    """

    rank: int
    gap: Gap


class NullSpace(NamedTuple):
    """A null space.

    Attributes
    ----------
    basis : array ``(dimension, *input_shape)``
        Orthonormal arrays that the operator maps to almost 0.
    gap : Gap
        What their number rests on.
    """

    basis: Array
    gap: Gap


def condition_number(A: Operator) -> float:
    """Return the ratio of the largest to the smallest singular value of W, as `numpy.linalg.cond` defines it.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator.

    Returns
    -------
    float
        Infinite if the smallest value is 0. A ratio of 10¹⁵ or more says that W is singular as far as double precision
        tells, and 10⁷ where the smallest value comes from an iteration: see `singular_values`.

    Raises
    ------
    RuntimeError
        If an iteration does not converge.
    TypeError
        If `A` is no operator of this package for NumPy arrays.
    ValueError
        If the kernel has values that are not finite.

    Examples
    --------
    >>> from convmat import Convolution, spectra
    >>> round(spectra.condition_number(Convolution([1.0, 3.0], 8, padding=((0, 1),), padding_mode="circular")), 6)
    2.0
    """
    largest, smallest = singular_values(A, 1)[0], singular_values(A, 1, which="smallest")[0]
    return float(largest / smallest) if smallest else float("inf")


def rank(A: Operator, *, rtol: float | None = None) -> Rank:
    """Return the number of singular values of W that are not 0, as far as a threshold tells.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator.
    rtol : float, optional
        Threshold, as a part of the norm; max(A.shape) times the rounding of the kernel's dtype by default, as in
        `numpy.linalg.matrix_rank`.

    Returns
    -------
    Rank
        The rank, and the gap between the values that are counted and those that are not. The rank of a blur is a matter
        of the threshold: its values fall without a gap.

    Warns
    -----
    RuntimeWarning
        If the values on both sides of the threshold differ by less than a factor of 10.

    Raises
    ------
    MemoryError
        If W has no structure that gives all its singular values, and the dense W does not fit into memory.
    TypeError, ValueError
        If an argument has a wrong type or value, or the kernel has values that are not finite.

    Examples
    --------
    A difference does not see what is constant:

    >>> from convmat import Convolution, spectra
    >>> A = Convolution([1.0, -1.0], 8, padding=((0, 1),), padding_mode="circular")
    >>> spectra.rank(A).rank
    7
    """
    threshold = None if rtol is None else check_rtol(rtol)
    part = part_of(A)
    values = np.sort(compute(part, lambda: all_values(part)))[::-1]
    return Rank(*_decide(values, _threshold(A, values, threshold)))


def null_space(A: Operator, *, rtol: float | None = None) -> NullSpace:
    """Return an orthonormal basis of the inputs that an operator maps to 0, as far as a threshold tells.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator.
    rtol : float, optional
        Threshold for singular values, as a part of the norm; see `rank`.

    Returns
    -------
    NullSpace
        With arrays of the operator's `input_shape`. They are real for a real kernel.

    Warns
    -----
    RuntimeWarning
        If the singular values on both sides of the threshold differ by less than a factor of 10.

    Raises
    ------
    MemoryError
        If the dense W, or the basis, does not fit into memory.
    TypeError, ValueError
        If an argument has a wrong type or value, or the kernel has values that are not finite.

    Notes
    -----
    Under circular padding that keeps the size, each frequency has a small null space of its own. Otherwise the basis
    comes from the dense W, group by group.

    Examples
    --------
    >>> from convmat import Convolution, spectra
    >>> A = Convolution([1.0, 1.0], 4, padding=((0, 1),), padding_mode="circular")
    >>> abs(spectra.null_space(A).basis.round(6))
    array([[0.5, 0.5, 0.5, 0.5]])
    """
    rtol = None if rtol is None else check_rtol(rtol)
    part, transposed = part_of(A), isinstance(A, TransposedConvolution)
    values = np.sort(compute(part, lambda: all_values(part)))[::-1]
    threshold = _threshold(A, values, rtol)
    found, gap = _decide(values, threshold)
    dimension = A.shape[1] - found
    check_memory(
        lambda: f"the basis of {dimension} arrays takes",
        3 * dimension * A.shape[1] * part.kernel.itemsize,
        "give a smaller rtol, or find some vectors with scipy.sparse.linalg",
    )
    bound = threshold / part.scale
    if part.is_periodic and not transposed:
        vectors = call_single_threaded(lambda: list(_periodic_vectors(part, bound)))
    else:
        vectors = compute(part, lambda: list(_dense_vectors(part, bound, transposed)))
    basis = np.concatenate(vectors) if vectors else np.zeros((0, A.shape[1]))
    if len(basis) != dimension:  # a value so close to the threshold that two ways of computing it differ
        warnings.warn(
            f"the threshold {threshold:.3g} is at a singular value; give another rtol", RuntimeWarning, stacklevel=2
        )
    return NullSpace(basis.reshape(-1, *A.input_shape), gap)


def _threshold(A: Operator, values: Array, rtol: float | None) -> float:
    """Return what counts as 0."""
    real = np.finfo(A.dtype).eps if A.dtype.kind in "fc" else np.finfo(np.float64).eps
    return float(values.max(initial=0.0)) * (max(A.shape) * float(real) if rtol is None else rtol)


def _decide(values: Array, threshold: float) -> tuple[int, Gap]:
    """Return how many of some descending values are above a threshold, and warn where there is no gap."""
    count = int(np.count_nonzero(values > threshold))
    kept = float(values[count - 1]) if count else 0.0
    dropped = float(values[count]) if count < len(values) else 0.0
    gap = Gap(threshold, kept, dropped)
    if not gap.is_clear:
        warnings.warn(
            f"there is no gap at the threshold {threshold:.3g}: "
            f"the singular values beside it are {kept:.3g} and {dropped:.3g}",
            RuntimeWarning,
            stacklevel=3,
        )
    return count, gap


def _null_rows(matrix: Array, threshold: float) -> Array:
    """Return orthonormal rows r with matrix · rᴴ = 0."""
    _, values, rows = linalg.svd(matrix, full_matrices=True, check_finite=False)
    null: Array = rows[np.count_nonzero(values > threshold) :]
    return null


def _dense_vectors(part: Part, threshold: float, transposed: bool) -> Iterator[Array]:
    """Yield the vectors of each group, (dimension, inputs of all groups)."""
    groups = part.groups()
    for number, group in enumerate(groups):
        rows, columns = group.shape
        check_memory(
            lambda: "the dense matrix of a group and its singular vectors take",
            (2 * rows * columns + rows**2 + columns**2) * group.kernel.itemsize,
            "find some vectors with scipy.sparse.linalg",
        )
        matrix = group.operator().toarray()
        own = _null_rows(matrix.T if transposed else matrix, threshold).conj()
        vectors = np.zeros((len(own), len(groups), own.shape[1]), own.dtype)
        vectors[:, number] = own
        yield vectors.reshape(len(own), len(groups) * own.shape[1])


def _periodic_vectors(part: Part, threshold: float) -> Iterator[Array]:
    """Yield the vectors of each frequency, and of its negative if the kernel is real, (dimension, inputs)."""
    circles, number, is_real = [Torus.of(axis, axis.size) for axis in part.axes], -1, part.kernel.dtype.kind != "c"
    for blocks in periodic_blocks(part.kernel.astype(np.complex128), circles):  # complex: that is all frequencies
        for matrix in blocks.matrices:
            number += 1
            index, group = divmod(number, len(part.kernel))
            frequency = frequency_of(index, circles, is_real=False)
            negative = tuple(-each % circle.outputs for each, circle in zip(frequency, circles, strict=True))
            if is_real and negative < frequency:
                continue  # its conjugates come with the negative frequency
            null = _null_rows(matrix, threshold).conj()
            if not len(null):
                continue
            waves = waves_of(null, frequency, circles, part.axes)
            vectors = np.zeros((len(null), len(part.kernel), waves[0].size), np.complex128)
            vectors[:, group] = waves.reshape(len(null), -1)
            vectors = vectors.reshape(len(null), -1)
            if is_real:
                # The span of the vectors and their conjugates is that of their real and imaginary parts.
                parts = np.concatenate([vectors.real, vectors.imag])
                rows = linalg.svd(parts, full_matrices=False)[2]
                vectors = rows[: len(null) * (1 if negative == frequency else 2)]
            yield vectors
