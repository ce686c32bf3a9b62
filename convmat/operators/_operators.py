"""W and Wᵀ as SciPy linear operators, for NumPy arrays."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

from convmat.geometry import (
    Array,
    ConvolutionGeometry,
    IntPerAxis,
    Padding,
    Shape,
    as_array,
    as_kernel,
    check_host,
    check_target,
)
from convmat.operators._host import HostProducts, check_workers
from convmat.operators._host_matrices import HostMatrices
from convmat.operators._kernel_operator import KernelOperator


class _ConvolutionOperator(HostMatrices, LinearOperator):
    """W, Wᵀ or the conjugate of either, for NumPy arrays."""

    _library, _products_type = "numpy", HostProducts

    @staticmethod
    def _kind(transposed: bool) -> type[_ConvolutionOperator]:
        return TransposedConvolution if transposed else Convolution

    @staticmethod
    def _check_out(out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray | np.matrix):
            check_host("out", out)
            raise TypeError(f"out must be a plain array or None, got {type(out).__name__}")
        if not out.flags.writeable:
            raise ValueError("out must be writeable, got a read-only array")
        check_target(out, shape, dtype)

    @staticmethod
    def _of_host(kernel: Array) -> Array:
        return kernel

    def _to_host(self) -> Array:
        kernel: Array = self._products.kernel
        return kernel

    def apply(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """Apply the operator to arrays in their own shape.

        Parameters
        ----------
        x : array_like (..., *input_shape)
            One array, or several on leading batch axes.
        out : array (..., *output_shape), optional
            Where to write the result. It must have the result's shape and dtype.

        Returns
        -------
        array (..., *output_shape)
            Of dtype ``np.result_type(self.dtype, x.dtype)``; `out` if it was given.

        Raises
        ------
        TypeError
            If `x` or `out` has a wrong dtype or is a masked array.
        ValueError
            If `x` or `out` has a wrong shape, elements of `out` share memory, or the engine cannot compute the product.

        Examples
        --------
        >>> import numpy as np
        >>> from convmat import Convolution
        >>> A = Convolution([[1, 2], [3, 4]], (3, 3))
        >>> A.apply(np.arange(9).reshape(3, 3))
        array([[27, 37],
               [57, 67]])
        """
        return self._apply(as_array("x", x), out)  # type: ignore[no-any-return]

    def _matvec(self, x: Array) -> Array:
        # (N,) or (N, 1) before SciPy 1.18, (..., N) from then on.
        x = as_array("x", x)
        batch = x.shape[:-1] if x.shape[-1] == self.shape[1] else ()
        return self._apply(x.reshape(*batch, *self._input_shape)).reshape(*batch, self.shape[0])  # type: ignore[no-any-return]

    def _matmat(self, X: Array) -> Array:
        columns = as_array("x", X).swapaxes(-1, -2)
        result = self._apply(columns.reshape(*columns.shape[:-1], *self._input_shape))
        return result.reshape(*columns.shape[:-1], self.shape[0]).swapaxes(-1, -2)  # type: ignore[no-any-return]

    # SciPy's public methods check shapes before they call the methods above. These three add a hint to its errors.

    def dot(self, x: Any) -> Any:
        """Multiply by a vector, a matrix of columns, a number or another operator, as SciPy's operators do."""
        if type(x) is np.ndarray and x.ndim == 1:  # the usual case: SciPy's `dot` ends in `matvec` too, more slowly
            return self.matvec(x)
        try:
            return super().dot(x)
        except ValueError as error:
            self._hint(error, x)
            raise

    def matvec(self, x: Any) -> Any:
        """Multiply by a vector, as SciPy's operators do."""
        try:
            return super().matvec(x)
        except ValueError as error:
            self._hint(error, x)
            raise

    def matmat(self, X: Any) -> Any:
        """Multiply by a matrix of columns, as SciPy's operators do."""
        try:
            return super().matmat(X)
        except ValueError as error:
            self._hint(error, X)
            raise

    def with_kernel(self, kernel: npt.ArrayLike) -> Self:
        """Return the same operator with another kernel; it shares what was prepared from the geometry.

        Parameters
        ----------
        kernel : array_like
            The new kernel, of the old one's shape and any supported dtype.

        Returns
        -------
        Convolution or TransposedConvolution
            The same class as this operator.

        Raises
        ------
        TypeError
            If the kernel has an unsupported dtype.
        ValueError
            If the kernel has another shape.
        """
        return self._with_kernel(as_array("kernel", kernel))

    def kernel_operator(self, x: npt.ArrayLike) -> KernelOperator:
        """Return the product with x as a function of the kernel, which is linear too.

        Parameters
        ----------
        x : array_like (..., *input_shape)
            One array, or several on leading batch axes.

        Returns
        -------
        KernelOperator
            A linear operator of shape (size of all products, size of the kernel). It maps a flat kernel to the flat product
            that the operator with this kernel has with x. Its adjoint ``op.H`` is the gradient for the kernel.

        Raises
        ------
        TypeError
            If `x` has an unsupported dtype.
        ValueError
            If `x` has another shape.

        Examples
        --------
        The matrix of a convolution of 4 values with 2 taps, as a function of the taps, and the gradient of a sum:

        >>> import numpy as np
        >>> from convmat import Convolution
        >>> op = Convolution([1.0, 1.0], 4).kernel_operator([1.0, 2.0, 3.0, 4.0])
        >>> op.tocsr().toarray()
        array([[1., 2.],
               [2., 3.],
               [3., 4.]])
        >>> op.H.apply([1.0, 1.0, 1.0])
        array([6., 9.])
        """
        x = as_array("x", x)
        outer = x.ndim - len(self.input_shape)
        if outer < 0 or x.shape[outer:] != self.input_shape:
            raise ValueError(f"x must have shape (..., {', '.join(map(str, self.input_shape))}), got {x.shape}")
        return KernelOperator(self, x.copy())


class Convolution(_ConvolutionOperator):
    """A convolution as a linear operator: W, stored or not.

    As in deep learning, convolution means cross-correlation: ``y[c, o] = Σ K[c, i, t] · x[i, source(o, t)]`` with
    ``source(o, t) = o·stride − before + t·dilation`` on each axis.

    Parameters
    ----------
    kernel : array_like
        ``(*k,)`` for one channel in and out, or ``(C_out, C_in // groups, *k)``, for any number of axes.
    input_shape : int or sequence of int
        The shape of one input, without batch axes: ``(*spatial,)`` if the kernel has no channels, or ``(C_in, *spatial)``.
    stride, dilation, groups, flip
        Step between outputs and distance between taps (an int, or one per axis), number of groups of channels, and whether
        to reverse the kernel's spatial axes first.
    padding, padding_mode
        An int, one int or ``(before, after)`` pair per axis, ``"valid"``, ``"same"`` or ``"full"``; and what it reads:
        ``"zeros"``, ``"circular"``, ``"reflect"``, ``"symmetric"`` or ``"replicate"``. See `convolution_matrix`.
    engine : str
        How products are computed. ``"auto"`` begins with what is cheapest for one product of a direction, dtype and batch,
        and goes on with a faster engine once that would have saved what preparing it takes. ``"csr"`` stores the matrix,
        ``"taps"``, ``"winograd"`` and ``"winograd4"`` are compiled loops (extra ``fast``), ``"separable"`` goes axis by axis
        if the kernel is an outer product, ``"gemm"`` multiplies gathered inputs by the kernel with NumPy alone, ``"fft"``
        multiplies spectra, ``"torch"`` calls PyTorch.
    workers : int, optional
        Number of threads; None means the CPUs available to the process, negative numbers count back from all of them.
        The engine ``"torch"`` uses PyTorch's own number, which ``torch.set_num_threads`` sets for the process.
    local : bool
        Keep ``engine="auto"`` from engines that let an input reach outputs which do not read it, as a Fourier transform
        does. There a NaN, or the rounding errors of one huge input, would spoil far outputs.

    Attributes
    ----------
    shape : tuple of int
        Size of the output by size of the input.
    dtype : dtype
        The kernel's dtype; a product has ``np.result_type(self.dtype, x.dtype)``.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or the kernel an unsupported dtype.
    ValueError
        If an argument has a wrong value, or the engine cannot compute this convolution.

    See Also
    --------
    TransposedConvolution, convolution_matrix, scipy.sparse.linalg.LinearOperator

    Notes
    -----
    ``A @ v`` takes flat vectors and matrices of columns, as every SciPy operator; `apply` takes arrays in their own shape.
    ``A.T`` is the transposed convolution, ``A.H`` its conjugate; both share with A what has been prepared.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat import Convolution
    >>> A = Convolution(np.ones((3, 3)), (4, 4), padding="same")
    >>> A.apply(np.ones((4, 4)))
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]])
    >>> A.T
    <16x16 TransposedConvolution of dtype float64, (4, 4) to (4, 4), engine 'auto'>
    """

    def __init__(
        self,
        kernel: npt.ArrayLike,
        input_shape: Shape,
        *,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        dilation: IntPerAxis = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        flip: bool = False,
        engine: str = "auto",
        workers: int | None = None,
        local: bool = False,
    ) -> None:
        array = as_kernel(kernel)
        check_workers(workers)
        geometry = ConvolutionGeometry(
            array.shape,
            input_shape,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=padding_mode,
        )
        self._set(HostProducts(geometry, array, flip, engine, workers, None, local))


class TransposedConvolution(_ConvolutionOperator):
    """A transposed convolution as a linear operator: Wᵀ, stored or not.

    The kernel and the options are those of the convolution that it transposes; only the shapes change sides.

    Parameters
    ----------
    kernel : array_like
        ``(*k,)``, or ``(C_in, C_out // groups, *k)`` as in PyTorch's ``ConvTranspose``.
    input_shape : int or sequence of int
        The shape of one input, without batch axes: ``(*spatial,)`` if the kernel has no channels, or ``(C_in, *spatial)``.
    stride, padding, dilation, groups, padding_mode, flip
        The options of the convolution, with the values that `Convolution` takes.
    output_padding, output_shape
        The choice among the sizes that a strided convolution maps to `input_shape`: what to add to the smallest size on
        each axis, or the output's shape itself, with its channels. Only one of the two.
    engine, workers, local
        How products are computed, the number of threads, and whether a NaN must stay local; see `Convolution`.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or the kernel an unsupported dtype.
    ValueError
        If an argument has a wrong value, or the engine cannot compute this convolution.

    See Also
    --------
    Convolution, transposed_convolution_matrix

    Examples
    --------
    >>> from convmat import TransposedConvolution
    >>> TransposedConvolution([[0, 1], [2, 3]], (2, 2)).apply([[0, 1], [2, 3]])
    array([[ 0,  0,  1],
           [ 0,  4,  6],
           [ 4, 12,  9]])
    """

    _transposed = True

    def __init__(
        self,
        kernel: npt.ArrayLike,
        input_shape: Shape,
        *,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        dilation: IntPerAxis = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        flip: bool = False,
        output_padding: IntPerAxis = 0,
        output_shape: Shape | None = None,
        engine: str = "auto",
        workers: int | None = None,
        local: bool = False,
    ) -> None:
        array = as_kernel(kernel)
        check_workers(workers)
        geometry = ConvolutionGeometry.of_transposed(
            array.shape,
            input_shape,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=padding_mode,
            output_padding=output_padding,
            output_shape=output_shape,
        )
        self._set(HostProducts(geometry, array, flip, engine, workers, None, local))
