"""W and Wᵀ as linear operators of cupyx: dtypes, batches and conjugation on one side, engines of the device on the other."""

from __future__ import annotations

from math import prod
from typing import Any, Self

import cupy
import numpy as np
import numpy.typing as npt
from cupyx.scipy.sparse.linalg import LinearOperator

import convmat.operators as host
from convmat.cupy.arrays import Array, as_array, as_kernel, check_out
from convmat.cupy.assembly import assemble_as
from convmat.cupy.engines import ENGINES
from convmat.cupy.products import Products, check_options
from convmat.dtypes import check_dtype
from convmat.engines import ENGINES as HOST_ENGINES
from convmat.geometry import ConvolutionGeometry, IntPerAxis, Padding, Shape
from convmat.planner import Explanation


class _ConvolutionOperator(LinearOperator):  # type: ignore[misc]
    """W, Wᵀ or the conjugate of either."""

    _transposed = False

    def _set(self, products: Products, conjugated: bool) -> None:
        self._products, self._conjugated = products, conjugated
        self._relatives: list[_ConvolutionOperator] = []
        geometry = products.geometry
        shape = geometry.shape[::-1] if self._transposed else geometry.shape
        super().__init__(products.kernel.dtype, shape)
        self._channels = () if geometry.has_channels else (1,)  # the axis that engines want and these arrays lack
        shapes = (geometry.input_shape, geometry.output_shape)
        self._input_shape, self._output_shape = shapes[::-1] if self._transposed else shapes
        products.family[self._transposed, conjugated] = self

    def _relative(self, transposed: bool, conjugated: bool) -> Any:
        """Return the transpose and/or conjugate, which whoever asks first keeps: no cycle holds memory of the device."""
        conjugated = conjugated and self.dtype.kind == "c"
        relative = self._products.family.get((transposed, conjugated))
        if relative is None:
            relative = object.__new__(TransposedConvolution if transposed else Convolution)
            relative._set(self._products, conjugated)
            self._relatives.append(relative)
        return relative

    @property
    def geometry(self) -> ConvolutionGeometry:
        """The geometry of the convolution, also for its transpose."""
        return self._products.geometry

    @property
    def kernel(self) -> Array:
        """A copy of the kernel as given; conjugated for a conjugate."""
        return self._products.kernel.conj() if self._conjugated else self._products.kernel.copy()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what goes in."""
        return self._input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what comes out."""
        return self._output_shape

    @property
    def engine(self) -> str:
        """The engine asked for."""
        return self._products.engine

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
        array = as_array("x", x, "the operator's own host side, .to('numpy')")
        check_dtype("x", array.dtype)
        outer = array.ndim - len(self._input_shape)
        if outer < 0 or array.shape[outer:] != self._input_shape:
            raise ValueError(f"x must have shape (..., {', '.join(map(str, self._input_shape))}), got {array.shape}")
        shape = (*array.shape[:outer], *self._output_shape)
        dtype = np.result_type(self.dtype, array.dtype)
        if out is None:
            out = cupy.empty(shape, dtype)
        else:
            check_out(out, shape, dtype)
        if dtype.kind == "c" and self.dtype.kind != "c":  # a real operator on the parts of a complex array
            real = dtype.type(0).real.dtype
            parts = self._multiply(cupy.stack([array.real, array.imag]), real)
            out.real, out.imag = parts[0], parts[1]
        elif self._conjugated:
            cupy.conj(self._multiply(array.conj(), dtype), out=out)
        elif out.flags.c_contiguous and not cupy.may_share_memory(out, array):
            self._multiply(array, dtype, out)
        else:
            out[...] = self._multiply(array, dtype)
        return out

    def _multiply(self, x: Array, dtype: np.dtype[Any], out: Array | None = None) -> Array:
        """Return the product of arrays (..., *input_shape) in a dtype that the kernel can be cast to."""
        batch = x.shape[: x.ndim - len(self._input_shape)]
        if out is None:
            out = cupy.empty((*batch, *self._output_shape), dtype)
        x = cupy.ascontiguousarray(x, dtype)
        count = prod(batch)
        self._products.multiply(
            self._transposed,
            x.reshape(count, *self._channels, *self._input_shape),
            out.reshape(count, *self._channels, *self._output_shape),
        )
        return out

    def _matvec(self, x: Array) -> Array:
        return self.apply(x.reshape(self._input_shape)).ravel()

    def _matmat(self, X: Array) -> Array:
        return self.apply(X.T.reshape(X.shape[1], *self._input_shape)).reshape(X.shape[1], self.shape[0]).T

    def _rmatvec(self, x: Array) -> Array:
        return self._adjoint()._matvec(x)

    def _rmatmat(self, X: Array) -> Array:
        return self._adjoint()._matmat(X)

    def dot(self, x: Any) -> Any:
        """Multiply by a vector, a matrix of columns, a number or another operator, as cupyx's operators do."""
        if not isinstance(x, LinearOperator) and not cupy.isscalar(x):
            x = as_array("x", x, "the operator's own host side, .to('numpy')")
        return super().dot(x)

    def _transpose(self) -> Any:
        return self._relative(not self._transposed, self._conjugated)

    def _adjoint(self) -> Any:
        return self._relative(not self._transposed, not self._conjugated)

    def conj(self) -> Any:
        """Return the operator with the complex conjugate of the matrix."""
        return self._relative(self._transposed, not self._conjugated)

    conjugate = conj

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
        array = as_kernel(kernel, "with_kernel of the operator's own host side, .to('numpy')")
        old = self._products
        if array.shape != old.kernel.shape:
            raise ValueError(f"kernel must have shape {old.kernel.shape}, got {array.shape}")
        operator = object.__new__(type(self))
        operator._set(Products(old.geometry, array, old.flip, old.engine, old.plans), False)
        return operator

    def to(self, library: str) -> Any:
        """Return the same operator for the arrays of another library.

        Parameters
        ----------
        library : {"cupy", "numpy"}
            "numpy" copies the kernel to the host and returns an operator of `convmat`; "cupy" returns this one.

        Returns
        -------
        operator
            With the same engine, if there is one of that name, else with ``engine="auto"``.
        """
        if not isinstance(library, str):
            raise TypeError(f"library must be a str, got {library!r}")
        if library == "cupy":
            return self
        if library != "numpy":
            raise ValueError(f"library must be 'cupy' or 'numpy', got {library!r}")
        products = self._products
        engine = self.engine if self.engine in HOST_ENGINES else "auto"
        back = rebuild(host.TransposedConvolution, self.geometry, products.kernel.get(), products.flip, engine)
        return _variant(back, self._transposed, self._conjugated)

    def tosparse(self, format: str = "csr") -> Any:
        """Return the matrix in a sparse format, built anew.

        Parameters
        ----------
        format : {"csr", "csc", "coo"}
            The format.

        Returns
        -------
        cupyx.scipy.sparse array
            Canonical, as that of `convolution_matrix`.

        Raises
        ------
        MemoryError
            If the matrix does not fit into the device's memory.
        """
        return assemble_as(self.geometry, self.kernel, self._transposed, self._products.flip, format)

    def tocsr(self) -> Any:
        """Return the matrix as a CSR array, built anew."""
        return self.tosparse("csr")

    def toarray(self) -> Array:
        """Return the matrix as a dense array."""
        return self.tocsr().toarray()

    def explain(self, batch: int = 1, dtype: npt.DTypeLike | None = None) -> Explanation:
        """Return what every engine is estimated to cost, and which one is chosen, for both directions.

        Parameters
        ----------
        batch : int
            Number of arrays in a product.
        dtype : dtype, optional
            Of the product; the operator's by default.

        Returns
        -------
        Explanation
            Prints as a table; its `estimates` hold the numbers.
        """
        wanted = np.result_type(self.dtype, self.dtype if dtype is None else dtype)
        directions = (self._transposed, not self._transposed)
        return Explanation(tuple(e for way in directions for e in self._products.estimates(way, wanted, batch)))

    def __repr__(self) -> str:
        conjugate = ", conjugated" if self._conjugated else ""
        return (
            f"<{self.shape[0]}x{self.shape[1]} {type(self).__name__} of dtype {self.dtype} on the device{conjugate}, "
            f"{self.input_shape} to {self.output_shape}, engine {self.engine!r}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        products = self._products
        return _restore, (
            type(self),
            (products.geometry, products.kernel, products.flip, products.engine),
            self._conjugated,
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # nothing of an operator can be changed


class Convolution(_ConvolutionOperator):
    """A convolution as a linear operator on the device: W, stored or not.

    What `convmat.Convolution` is for SciPy: a ``cupyx.scipy.sparse.linalg.LinearOperator`` that takes arrays of CuPy.

    Parameters
    ----------
    kernel : cupy.ndarray
        ``(*k,)`` for one channel in and out, or ``(C_out, C_in // groups, *k)``, for any number of axes; of dtype float32,
        float64, complex64 or complex128.
    input_shape : int or sequence of int
        ``(*spatial,)`` or ``(C_in, *spatial)``; which of the two follows from the kernel's number of dimensions.
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
        check_options(flip, engine, geometry, array.dtype)
        self._set(Products(geometry, array, bool(flip), engine), False)


class TransposedConvolution(_ConvolutionOperator):
    """A transposed convolution as a linear operator on the device: Wᵀ, stored or not.

    What `convmat.TransposedConvolution` is for SciPy.

    Parameters
    ----------
    kernel : cupy.ndarray
        ``(*k,)``, or ``(C_in, C_out // groups, *k)`` as in PyTorch's ``ConvTranspose``.
    input_shape : int or sequence of int
        What goes in: ``(*spatial,)`` or ``(C_in, *spatial)``.
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
        check_options(flip, engine, geometry, array.dtype)
        self._set(Products(geometry, array, bool(flip), engine), False)


def from_host(operator: Any) -> Any:
    """Return an operator of `convmat` as one of the device, its kernel copied there."""
    products = operator._products
    engine = operator.engine if operator.engine in ENGINES else "auto"
    kernel = as_kernel(cupy.asarray(products.kernel), "")
    there = rebuild(TransposedConvolution, operator.geometry, kernel, products.flip, engine)
    return _variant(there, operator._transposed, operator._conjugated)


def rebuild(kind: Any, geometry: ConvolutionGeometry, kernel: Any, flip: bool, engine: str) -> Any:
    """Return the transpose of a geometry's convolution, of either kind: it names both shapes, so nothing is left open."""
    return kind(
        kernel,
        geometry.output_shape,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        padding_mode=geometry.padding_mode,
        output_shape=geometry.input_shape,
        flip=flip,
        engine=engine,
    )


def _variant(transpose: Any, transposed: bool, conjugated: bool) -> Any:
    operator = transpose if transposed else transpose.T
    return operator.conj() if conjugated else operator


def _restore(kind: type[_ConvolutionOperator], options: tuple[Any, ...], conjugated: bool) -> _ConvolutionOperator:
    operator = object.__new__(kind)
    operator._set(Products(*options), conjugated)
    return operator
