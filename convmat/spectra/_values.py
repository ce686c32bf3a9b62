"""Singular values of W: all of them where its structure or its size allows, or a few."""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np
from scipy import linalg

from convmat._messages import choose
from convmat._runtime import check_memory
from convmat.geometry import Array, integer
from convmat.spectra import _lanczos
from convmat.spectra._blocks import in_pieces, part_blocks
from convmat.spectra._certificates import is_below
from convmat.spectra._lanczos import Callback
from convmat.spectra._packets import largest_group, wave_packet
from convmat.spectra._parts import Operator, Part, compute, part_of
from convmat.spectra._ways import Way, way_of

_TIGHT = 1e-10  # the tolerance of values that are asked for by their number


def singular_values(
    A: Operator,
    k: int | None = None,
    *,
    which: str = "largest",
    callback: Callback | None = None,
    progress: bool = False,
) -> Array:
    """Return singular values of W.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator. Its values are computed in double precision, whatever the kernel's dtype.
    k : int, optional
        How many; all min(A.shape) by default.
    which : {"largest", "smallest"}
        Which of them, if not all.
    callback : callable, optional
        Called with the number of products so far, where the method is iterative.
    progress : bool
        Whether to show a bar with the products so far on standard error, where the method is iterative. Needs tqdm.

    Returns
    -------
    float64 array
        The values, descending.

    Raises
    ------
    MemoryError
        If all values are asked for, W has no structure that gives them, and the dense W does not fit into memory.
    RuntimeError
        If an iteration does not converge.
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value, or the kernel has values that are not finite.

    See Also
    --------
    norm, norm_bounds, explain

    Notes
    -----
    W is taken apart first. Groups of channels are independent. An axis along which the kernel is an outer product is a
    factor of a Kronecker product, under any padding mode, stride and size. What then remains has exact values where a
    transform makes it block diagonal: that of Fourier under circular padding that keeps the size, with a stride that
    divides it [1]_ [2]_, and the DCT-II under "symmetric" padding that keeps the size, for kernels that are even in each
    axis. Anything else is a dense matrix for LAPACK, or, if `k` are asked for and the matrix is large, an operator for
    ARPACK.

    References
    ----------
    .. [1] H. Sedghi, V. Gupta, P. M. Long, "The singular values of convolutional layers", ICLR 2019.
    .. [2] A. Senderovich, E. Bulatova, A. Obukhov, M. Rakhuba, "Towards practical control of singular values of
       convolutional layers", NeurIPS 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat import Convolution, spectra
    >>> A = Convolution([1.0, 1.0], 4, padding=((0, 1),), padding_mode="circular")
    >>> spectra.singular_values(A).round(6)
    array([2.      , 1.414214, 1.414214, 0.      ])
    >>> spectra.singular_values(A, 1)
    array([2.])
    """
    part, which = part_of(A), choose("which", which, ("largest", "smallest"))
    count = min(A.shape)
    wanted = count if k is None else integer("k", k)
    if not 1 <= wanted <= count:
        raise ValueError(f"k must be between 1 and min(A.shape) = {count}, got {wanted}")
    return compute(part, lambda: _some_values(part, wanted, which, k is None or is_exact(part), callback, progress))


def _some_values(part: Part, wanted: int, which: str, exact: bool, callback: Callback | None, progress: bool) -> Array:
    """Return so many of the largest or smallest values, descending: of all that are computed, or of those of each group."""
    if exact:
        count = part.count * len(part.kernel)
        values = np.sort(all_values(part))[::-1]
        return values[:wanted] if which == "largest" else values[count - wanted :]
    few = [_few_of_group(group, wanted, which, callback, progress) for group in part.groups()]
    values = np.sort(np.concatenate(few))[::-1] * part.scale
    return values[:wanted] if which == "largest" else values[len(values) - wanted :]


def is_exact(part: Part) -> bool:
    """Tell whether all values of a part are computed where a few are asked for."""
    return all(way_of(factor) is not Way.LANCZOS for factors in part.pieces() for factor in factors)


def all_values(part: Part) -> Array:
    """Return all singular values, in any order."""
    values = np.concatenate([_values_of_product(factors) for factors in part.pieces()])
    # Factors that are wide and others that are tall have fewer values together: the rest are zeros.
    return np.concatenate([values, np.zeros(part.count * len(part.kernel) - values.size)]) * part.scale


def _values_of_product(factors: list[Part]) -> Array:
    """Return the nonzero values of a Kronecker product."""
    return reduce(np.multiply.outer, map(_values_of_factor, factors)).ravel()


def _values_of_factor(factor: Part) -> Array:
    return block_values(factor) if factor.is_diagonal else dense_values(factor)


def dense_values(part: Part) -> Array:
    """Return the singular values of a single group by LAPACK."""
    rows, columns = part.shape
    check_memory(
        lambda: f"the dense {rows} × {columns} matrix takes",
        3 * rows * columns * part.kernel.itemsize,
        "find some of its singular values with singular_values(A, k)",
    )
    values: Array = linalg.svdvals(part.operator().toarray(), overwrite_a=True, check_finite=False)
    return values


def block_values(part: Part) -> Array:
    """Return the singular values of a part that a transform makes block diagonal."""
    results = [np.repeat(in_pieces(matrices, _values), repeats, axis=0) for matrices, repeats in part_blocks(part)]
    return np.concatenate(results).ravel()


def _values(matrices: Array) -> Array:
    if 1 in matrices.shape[1:]:
        norms: Array = np.linalg.norm(matrices, axis=(1, 2))
        return norms[:, None]
    return np.linalg.svd(matrices, compute_uv=False)


def _few_of_group(group: Part, k: int, which: str, callback: Callback | None, progress: bool) -> Array:
    """Return the k largest or smallest values of a group, or all if there are no more."""
    if k >= group.count or group.count <= 2:
        return dense_values(group)
    A = group.operator()
    if which == "largest":
        return _lanczos.largest(A, k, _TIGHT, None, callback, progress).values
    largest = norm_of_group(group, 1e-3)
    return _lanczos.smallest(A, k, _TIGHT, largest).values if largest else np.zeros(k)


def norm(A: Operator, *, rtol: float = 1e-6, callback: Callback | None = None, progress: bool = False) -> float:
    """Return the norm of W, its largest singular value.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator.
    rtol : float
        Relative tolerance, where the method is iterative.
    callback, progress
        See `singular_values`.

    Returns
    -------
    float
        The norm. It is exact up to rounding where `singular_values` has all values, and otherwise the result of ARPACK,
        whose residual is checked. It is no bound: see `norm_bounds`.

    Raises
    ------
    RuntimeError
        If the iteration does not converge.
    TypeError
        If `A` is no operator of this package for NumPy arrays.
    ValueError
        If `rtol` is not between 0 and 1, or the kernel has values that are not finite.

    Examples
    --------
    >>> from convmat import Convolution, spectra
    >>> round(spectra.norm(Convolution([1.0, -1.0], 3)), 6)  # that of the circle is 2
    1.732051
    """
    part, rtol = part_of(A), check_rtol(rtol)
    return compute(part, lambda: _norm_of_part(part, rtol, callback, progress)) * part.scale


def _norm_of_part(part: Part, rtol: float, callback: Callback | None, progress: bool) -> float:
    """Return the largest norm of all pieces: of the group that has it most likely, and of those that are not proven less."""
    if len(part.pieces()) == 1:
        return norm_of_group(part, rtol, callback, progress)
    likely = largest_group(part)
    norm, rest = norm_of_group(part.groups()[likely], rtol, callback, progress), part.without(likely)
    if is_below(rest, norm):
        return norm
    for group in rest.groups():
        if not is_below(group, norm):
            norm = max(norm, norm_of_group(group, rtol, callback, progress))
    return norm


def norm_of_group(group: Part, rtol: float, callback: Callback | None = None, progress: bool = False) -> float:
    """Return the norm of a group, or of a part in one piece: the product of its factors' norms."""
    (factors,) = group.pieces()
    return prod(_norm_of_factor(factor, rtol, callback, progress) for factor in factors)


def _norm_of_factor(factor: Part, rtol: float, callback: Callback | None, progress: bool) -> float:
    if way_of(factor) is not Way.LANCZOS:
        return float(_values_of_factor(factor).max())
    near = wave_packet(factor)
    return float(_lanczos.largest(factor.operator(), 1, rtol, None, callback, progress, near).values[0])


def check_rtol(rtol: object) -> float:
    """Return a tolerance between 0 and 1."""
    if isinstance(rtol, bool) or not isinstance(rtol, int | float | np.floating | np.integer):
        raise TypeError(f"rtol must be a number, got {rtol!r}")
    if not 0 < rtol < 1:
        raise ValueError(f"rtol must be between 0 and 1, got {rtol!r}")
    return float(rtol)
