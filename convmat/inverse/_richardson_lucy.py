"""Deconvolution of counts: the iteration of Richardson and Lucy, with the right normalisation at borders."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from convmat._runtime import track
from convmat.geometry import Array, binary_scale, integer
from convmat.inverse._arguments import finite_array, non_negative
from convmat.inverse._deconvolve import Deconvolution
from convmat.inverse._solvers import Callback
from convmat.inverse._system import Operator
from convmat.spectra import part_of


def richardson_lucy(
    A: Operator,
    y: Any,
    *,
    iterations: int,
    background: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Deconvolution:
    """Return an x ≥ 0 for counts y with expectation A·x + background, by so many iterations of Richardson and Lucy.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator, with any padding mode, stride and channels. Its kernel must be real and negative nowhere.
    y : array_like (..., *output_shape)
        The counts, real and negative nowhere. Batch axes in front are solved each for itself.
    iterations : int
        How many iterations are made. Few of them leave noise out: there is no other regularisation.
    background : float
        What is counted where x is zero.
    x0 : array_like, optional
        Where the iteration begins, of the shape of x, positive where x may be; by default the constant for which A·x has
        the sum of y.
    callback : callable, optional
        Called with the number of iterations so far, and ‖A·x + background − y‖ of the iterate before, relative to ‖y‖.
    progress : bool
        Whether to show a bar on standard error. Needs tqdm.

    Returns
    -------
    Deconvolution
        The iterate `x`, and how far A·x + background is from y. Where nothing of an input reaches y, x stays as it begins.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value or shape.

    See Also
    --------
    deconvolve : For noise of the same size everywhere.

    Notes
    -----
    Each iteration multiplies x by Aᵀ(y / (A·x + b)) / Aᵀ1 [1]_ [2]_. It never lowers the likelihood of Poisson counts. Aᵀ1
    is what of an input reaches y at all: with zeros or without padding it is less at borders than inside. With 1 in its
    place borders grow dark or bright from iteration to iteration. With a stride this is super-resolution.

    References
    ----------
    .. [1] W. H. Richardson, "Bayesian-based iterative method of image restoration", J. Opt. Soc. Am. 62, 1972.
    .. [2] L. B. Lucy, "An iterative technique for the rectification of observed distributions", Astron. J. 79, 1974.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat import Convolution, inverse
    >>> A = Convolution([0.25, 0.5, 0.25], 5, padding=1)
    >>> x = inverse.richardson_lucy(A, A @ np.array([0.0, 8, 0, 0, 0]), iterations=500).x
    >>> x.round(1) + 0.0
    array([0., 8., 0., 0., 0.])
    """
    start = perf_counter()
    count, level = integer("iterations", iterations, 1), non_negative("background", background)
    scale = part_of(A).scale
    data = finite_array("y", y, A.output_shape)
    _check_counts(A.kernel, data)
    unit = binary_scale(data)
    data, level = data / unit, level / unit
    own = A.with_kernel(np.asarray(A.kernel, np.float64) / scale)
    adjoint: Operator = own.T  # type: ignore[assignment]
    reached = adjoint.apply(np.ones(A.output_shape))
    x = _begin(A, data, x0, scale / unit, float(reached.sum()))
    norm = float(np.linalg.norm(data))
    for number in track(range(1, count + 1), "Richardson–Lucy", progress):
        expected = own.apply(x) + level
        x *= _quotient(adjoint.apply(_quotient(data, expected, 0.0)), reached, 1.0)
        if callback is not None:
            callback(number, float(np.linalg.norm(expected - data)) / norm if norm else 0.0)
    axes = tuple(range(-len(A.output_shape), 0))
    return Deconvolution(
        (x / scale * unit).astype(np.result_type(A.dtype, np.asarray(y).dtype, np.float32)),
        0.0,
        np.sqrt(((own.apply(x) + level - data) ** 2).sum(axis=axes)) * unit,
        np.sqrt((x**2).sum(axis=tuple(range(-len(A.input_shape), 0)))) / scale * unit,
        count,
        True,
        f"{count} iterations were made, as asked for",
        "Richardson–Lucy",
        perf_counter() - start,
    )


def _check_counts(kernel: Array, data: Array) -> None:
    if kernel.dtype.kind == "c" or data.dtype.kind == "c":
        raise ValueError("the kernel and y must be real, as counts are, got complex ones")
    for name, values in (("the kernel", kernel), ("y", data)):
        if (least := values.min(initial=0)) < 0:
            raise ValueError(f"{name} must be negative nowhere, got {least:.3g}")


def _begin(A: Operator, data: Array, x0: Any, factor: float, reached: float) -> Array:
    """Return where the iteration begins, for each batch item; `factor` is what x0 is multiplied by."""
    batch = data.shape[: data.ndim - len(A.output_shape)]
    if x0 is None:
        first = data.sum(axis=tuple(range(-len(A.output_shape), 0))) / (reached or 1.0)
        first = first.reshape(*batch, *(1 for _ in A.input_shape))
    else:
        first = finite_array("x0", x0, A.input_shape, has_batch=False)
        if np.iscomplexobj(first) or first.min(initial=0) < 0:
            raise ValueError(f"x0 must be real and negative nowhere, got {first.min():.3g}")
        first = first * factor
    return np.broadcast_to(first, (*batch, *A.input_shape)).copy()


def _quotient(upper: Array, lower: Array, instead: float) -> Array:
    """Return a quotient, and something else where the divisor is zero."""
    result: Array = np.divide(upper, lower, out=np.full(np.broadcast(upper, lower).shape, instead), where=lower > 0)
    return result
