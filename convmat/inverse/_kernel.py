"""The kernel from what went in and what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from convmat._runtime import check_memory
from convmat.geometry import Array, binary_scale
from convmat.inverse._arguments import finite_array, non_negative
from convmat.inverse._system import Operator
from convmat.spectra import part_of

_ZERO = 1e-13  # of the largest eigenvalue, below which one is none: many times the rounding of the Gram matrix
_FREE = 1e-4  # of a tap, that a kernel which changes nothing may have of it by rounding


@dataclass(frozen=True)
class KernelEstimate:
    """A kernel, and how well it is known.

    Attributes
    ----------
    kernel : array
        The kernel, of the shape of ``A.kernel``; what is not determined is left out of it.
    residual_norm : float
        ‖A(k)·x − y‖.
    rank : int
        How many numbers of the kernel the data determine, of ``kernel.size``.
    covariance : array (kernel.size, kernel.size)
        That of the flat kernel, if x is exact and y has noise of the same variance everywhere, taken from the residual;
        where that is zero, or nothing is left to take it from, so is the covariance.
    is_determined : bool array
        Which taps the data determine, of the kernel's shape.
    singular_values : array
        Those of the operator that maps a kernel to what comes out, descending: the decision on the rank rests on them.
    """

    kernel: Array
    residual_norm: float
    rank: int
    covariance: Array
    is_determined: Array
    singular_values: Array

    def __repr__(self) -> str:
        return (
            f"<KernelEstimate of shape {self.kernel.shape}: {self.rank} of {self.kernel.size} numbers are determined, "
            f"residual {self.residual_norm:.3g}>"
        )


def estimate_kernel(A: Operator, x: Any, y: Any, *, regularization: float = 0.0) -> KernelEstimate:
    """Return the kernel k that minimises ‖A(k)·x − y‖² + λ‖k‖², where A(k) is A with the kernel k.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The geometry; the values of its kernel are not used.
    x : array_like (..., *input_shape)
        What went in: one array, or several on leading batch axes.
    y : array_like (..., *output_shape)
        What came out, with the same batch axes.
    regularization : float
        The weight λ ≥ 0.

    Returns
    -------
    KernelEstimate
        The kernel of least norm among those that fit best; its covariance, the rank, and which taps are determined.

    Raises
    ------
    MemoryError
        If matrices of kernel.size × kernel.size numbers do not fit into the available memory.
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value, or shapes do not belong together.

    Notes
    -----
    A(k)·x is linear in k as well: see `Convolution.kernel_operator`. Its Gram matrix comes from correlations, and is
    decomposed. So singular values below about 3e-7 times the largest are not told from zero. With a stride, or with
    padding that only shows zeros, a tap may meet no input; then nothing can be said about it.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat import Convolution, inverse
    >>> x = np.random.default_rng(0).standard_normal(50)
    >>> A = Convolution([1.0, 2.0, 3.0], 50)
    >>> found = inverse.estimate_kernel(A.with_kernel(np.zeros(3)), x, A @ x)
    >>> found.kernel.round(6), found.rank
    (array([1., 2., 3.]), 3)
    """
    weight = non_negative("regularization", regularization)
    part_of(A)
    inputs, outputs = finite_array("x", x, A.input_shape), finite_array("y", y, A.output_shape)
    batch = inputs.shape[: inputs.ndim - len(A.input_shape)]
    if outputs.shape != (*batch, *A.output_shape):
        raise ValueError(f"y must have shape {(*batch, *A.output_shape)}, as x has {inputs.shape}, got {outputs.shape}")
    dtype = np.result_type(A.dtype, inputs, outputs)
    unit, gain = binary_scale(inputs), binary_scale(outputs)
    inputs, outputs, weight = inputs / unit, outputs / gain, weight / unit / unit
    size = A.kernel.size
    check_memory(
        lambda: f"the covariance of {size} numbers of a kernel takes",
        6 * size**2 * dtype.itemsize,
        "estimate a smaller kernel",
    )
    operator = A.with_kernel(np.zeros(A.kernel.shape, dtype)).kernel_operator(inputs.astype(dtype))
    flat = outputs.ravel().astype(dtype)
    values, vectors = linalg.eigh(operator.gram())
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    known = values > _ZERO * values.max(initial=0.0)
    factors = np.divide(1.0, values + weight, out=np.zeros_like(values), where=known)
    flat_kernel = vectors @ (factors * (vectors.conj().T @ (operator.H @ flat)))
    residual = float(np.linalg.norm(operator @ flat_kernel - flat))
    left = flat.size - float((factors * values).sum())
    variance = residual**2 / left if left > 0.5 else 0.0
    spread = vectors * (factors * np.sqrt(values))
    # A tap is determined if no kernel that changes nothing has anything there.
    free = np.linalg.norm(vectors[:, ~known], axis=1) > _FREE
    real = np.result_type(A.dtype, np.asarray(x).dtype, np.asarray(y).dtype, np.float32)
    return KernelEstimate(
        (flat_kernel * (gain / unit)).reshape(A.kernel.shape).astype(real),
        residual * gain,
        int(known.sum()),
        variance * (spread @ spread.conj().T) * (gain / unit) * (gain / unit),
        ~free.reshape(A.kernel.shape),
        np.sqrt(values) * unit,
    )
