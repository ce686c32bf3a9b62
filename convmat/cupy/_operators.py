"""W and Wᵀ as linear operators of cupyx, for arrays of CuPy."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import cupy
from cupyx.scipy.sparse.linalg import LinearOperator

from convmat.cupy._arrays import Array, as_array, as_kernel, check_inexact, check_out
from convmat.cupy._assembly import assemble_as
from convmat.cupy._device import Device, available_memory, describe
from convmat.cupy._engines import ENGINES
from convmat.geometry import ConvolutionGeometry, IntPerAxis, Padding, RowRange, Shape, check_dtype
from convmat.operators import Ledger, OperatorBase, Products

_HOST = "the operator's own host side, .to('numpy')"


class DeviceProducts(Products):
    """Products of arrays of CuPy."""

    arrays = cupy
    engines = ENGINES
    place = " on the device"
    ledger: ClassVar[Ledger] = Ledger()

    def _describe_machine(self) -> Device:
        return describe(self.kernel.device.id)

    def _wait(self) -> None:
        cupy.cuda.get_current_stream().synchronize()

    def available_memory(self) -> int:
        """Return the bytes that arrays may take now."""
        return available_memory(self.kernel.device.id)


class _ConvolutionOperator(OperatorBase, LinearOperator):  # type: ignore[misc]
    """W, Wᵀ or the conjugate of either, for arrays of CuPy."""

    _library, _products_type = "cupy", DeviceProducts
    _check_out = staticmethod(check_out)

    @staticmethod
    def _kind(transposed: bool) -> type[_ConvolutionOperator]:
        return TransposedConvolution if transposed else Convolution

    @staticmethod
    def _of_host(kernel: Any) -> Array:
        check_inexact("kernel", kernel.dtype)  # before it is copied
        return cupy.asarray(kernel)

    def _to_host(self) -> Any:
        return self._products.kernel.get()

    @property
    def kernel(self) -> Array:
        """A copy of the kernel as given; conjugated for a conjugate."""
        return self._products.kernel.conj() if self._conjugated else self._products.kernel.copy()

    def apply(self, x: Any, out: Array | None = None) -> Array:
        """Apply the operator to arrays in their own shape.

        Parameters
        ----------
        x : cupy.ndarray (..., *input_shape)
            One array, or any number of them on leading batch axes.
        out : cupy.ndarray (..., *output_shape), optional
            Where to write the result; of the result's shape and dtype.

        Returns
        -------
        cupy.ndarray (..., *output_shape)
            Of dtype ``result_type(self.dtype, x.dtype)``; `out` if it was given.

        Raises
        ------
        TypeError
            If `x` or `out` is on the host or of a wrong dtype.
        ValueError
            If `x` or `out` is of a wrong shape.

        Examples
        --------
        >>> import cupy
        >>> from convmat.cupy import Convolution
        >>> A = Convolution(cupy.array([[1.0, 2.0], [3.0, 4.0]]), (3, 3))
        >>> A.apply(cupy.arange(9.0).reshape(3, 3))
        array([[27., 37.],
               [57., 67.]])
        """
        array = as_array("x", x, _HOST)
        check_dtype("x", array.dtype)
        return self._apply(array, out)

    def _matvec(self, x: Array) -> Array:
        return self.apply(x.reshape(self._input_shape)).ravel()

    def _matmat(self, X: Array) -> Array:
        return self.apply(X.T.reshape(X.shape[1], *self._input_shape)).reshape(X.shape[1], self.shape[0]).T

    def dot(self, x: Any) -> Any:
        """Multiply by a vector, a matrix of columns, a number or another operator, as cupyx's operators do."""
        if not isinstance(x, LinearOperator) and not cupy.isscalar(x):
            x = as_array("x", x, _HOST)
        try:
            return super().dot(x)
        except ValueError as error:  # CuPy's, of an array's shape
            self._hint(error, x)
            raise

    def with_kernel(self, kernel: Any) -> Self:
        """Return the same operator with another kernel, keeping all that was prepared from the geometry.

        Parameters
        ----------
        kernel : cupy.ndarray
            Of the shape of `kernel`, and any supported dtype.

        Returns
        -------
        Convolution or TransposedConvolution
            As this one.

        Raises
        ------
        TypeError
            If the kernel is on the host or of an unsupported dtype.
        ValueError
            If the kernel has another shape.
        """
        return self._with_kernel(as_kernel(kernel, f"with_kernel of {_HOST}"))

    def tosparse(self, format: str = "csr", rows: RowRange = None) -> Any:
        """Return the matrix, or a range of its rows, in a sparse format, built anew.

        Parameters
        ----------
        format : {"csr", "csc", "coo"}
            The format.
        rows : (int, int) or slice, optional
            Build only rows ``start`` to ``stop − 1``.

        Returns
        -------
        cupyx.scipy.sparse array
            Canonical, as that of `convolution_matrix`.

        Raises
        ------
        MemoryError
            If the matrix does not fit into what is free of the device's memory.
        """
        return assemble_as(self.geometry, self.kernel, self._transposed, self._products.flip, format, rows)


class Convolution(_ConvolutionOperator):
    """A convolution as a linear operator on the device: W, stored or not.

    What `convmat.Convolution` is for SciPy: a ``cupyx.scipy.sparse.linalg.LinearOperator`` that takes arrays of CuPy.

    Parameters
    ----------
    kernel : cupy.ndarray
        ``(*k,)`` for one channel in and out, or ``(C_out, C_in // groups, *k)``, for any number of axes; of dtype float32,
        float64, complex64 or complex128.
    input_shape : int or sequence of int
        ``(*spatial,)``, as many numbers as the kernel has dimensions, which then has no channels; or one less:
        ``(C_in, *spatial)``. Batch axes are no part of it: they belong to `apply`.
    stride, padding, dilation, groups, padding_mode, flip
        As in `convmat.Convolution`.
    engine : str
        How products are computed: ``"auto"`` picks by estimated cost for each direction, dtype and batch, ``"csr"`` stores
        the matrix of each direction and multiplies by cuSPARSE, ``"direct"`` sums what each result reads, for few channels,
        ``"gemm"`` multiplies gathered inputs by the kernel with cuBLAS, ``"torch"`` hands the work to PyTorch and cuDNN.

    Attributes
    ----------
    shape : tuple of int
        Size of the output by size of the input.
    dtype : dtype
        That of the kernel; a product has ``result_type(self.dtype, x.dtype)``.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel is on the host or of an integer dtype.
    ValueError
        If an argument has a wrong value, or the engine cannot do it.

    See Also
    --------
    TransposedConvolution, convolution_matrix, convmat.Convolution

    Notes
    -----
    ``lsmr``, ``cg``, ``svds`` and ``eigsh`` of ``cupyx.scipy.sparse.linalg`` take it as it is. Its ``lsqr`` does not: it
    solves square systems directly, with a stored matrix; least squares are for ``lsmr`` here.

    Examples
    --------
    >>> import cupy
    >>> from convmat.cupy import Convolution
    >>> A = Convolution(cupy.ones((3, 3)), (4, 4), padding="same")
    >>> A.apply(cupy.ones((4, 4)))
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]])
    >>> A.to("numpy")
    <16x16 Convolution of dtype float64, (4, 4) to (4, 4), engine 'auto'>
    """

    def __init__(
        self,
        kernel: Any,
        input_shape: Shape,
        *,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        dilation: IntPerAxis = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        flip: bool = False,
        engine: str = "auto",
    ) -> None:
        array = as_kernel(kernel, "convmat.Convolution")
        geometry = ConvolutionGeometry(
            array.shape,
            input_shape,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=padding_mode,
        )
        self._set(DeviceProducts(geometry, array, flip, engine))


class TransposedConvolution(_ConvolutionOperator):
    """A transposed convolution as a linear operator on the device: Wᵀ, stored or not.

    What `convmat.TransposedConvolution` is for SciPy.

    Parameters
    ----------
    kernel : cupy.ndarray
        ``(*k,)``, or ``(C_in, C_out // groups, *k)`` as in PyTorch's ``ConvTranspose``.
    input_shape : int or sequence of int
        What goes in: ``(*spatial,)``, as many numbers as the kernel has dimensions, which then has no channels; or one
        less: ``(C_in, *spatial)``. Batch axes are no part of it: they belong to `apply`.
    stride, padding, dilation, groups, padding_mode, flip, output_padding, output_shape
        As in `convmat.TransposedConvolution`.
    engine : str
        As in `Convolution`.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel is on the host or of an integer dtype.
    ValueError
        If an argument has a wrong value, or the engine cannot do it.

    See Also
    --------
    Convolution, transposed_convolution_matrix, convmat.TransposedConvolution

    Examples
    --------
    >>> import cupy
    >>> from convmat.cupy import TransposedConvolution
    >>> kernel, x = cupy.array([[0.0, 1.0], [2.0, 3.0]]), cupy.arange(4.0).reshape(2, 2)
    >>> TransposedConvolution(kernel, (2, 2)).apply(x)
    array([[ 0.,  0.,  1.],
           [ 0.,  4.,  6.],
           [ 4., 12.,  9.]])
    """

    _transposed = True

    def __init__(
        self,
        kernel: Any,
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
    ) -> None:
        array = as_kernel(kernel, "convmat.TransposedConvolution")
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
        self._set(DeviceProducts(geometry, array, flip, engine))
