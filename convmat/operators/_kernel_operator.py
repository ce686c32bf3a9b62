"""The other linear map: a product as a function of the kernel, for a fixed input."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat._runtime import available_memory, check_memory, quietly
from convmat.engines import correlate
from convmat.geometry import Array, as_array, flip_spatial
from convmat.operators._array_operator import ArrayOperator
from convmat.operators._kernel_matrix import KernelMatrix, padded


class KernelOperator(ArrayOperator):
    """The map from a kernel to the product with a fixed input x, which is linear, too: its matrix X holds values of x.

    `Convolution.kernel_operator` makes one. The matrix is never stored, unless `tocsr` is called.

    Attributes
    ----------
    shape : tuple of int
        Size of all products by size of the kernel.
    dtype : dtype
        That of products with kernels of the operator's own dtype.
    H, T : KernelGradient
        The adjoint and the transpose.
    """

    def __init__(self, operator: Any, x: Array) -> None:
        batch = x.shape[: x.ndim - len(operator.input_shape)]
        self._operator, self._x = operator, x
        self._set(np.result_type(operator.dtype, x.dtype), operator.kernel.shape, (*batch, *operator.output_shape))

    def apply(self, kernel: npt.ArrayLike) -> Array:
        """Return the product of x with a kernel.

        Parameters
        ----------
        kernel : array_like
            Of the shape of the operator's kernel.

        Returns
        -------
        array (..., *output_shape)
            The product of x with this kernel.

        Raises
        ------
        TypeError
            If the kernel has an unsupported dtype.
        ValueError
            If it has another shape.
        """
        result: Array = self._operator.with_kernel(kernel).apply(self._x)
        return result

    def _adjoint(self) -> KernelGradient:
        return KernelGradient(self)

    def _transpose(self) -> KernelGradient:
        return KernelGradient(self.conj())

    def _rmatvec(self, v: Array) -> Array:
        return self._adjoint()._matvec(v)

    def _rmatmat(self, V: Array) -> Array:
        return self._adjoint()._matmat(V)

    def conj(self) -> KernelOperator:
        """Return the operator with the complex conjugate of the matrix: that of the conjugate of x."""
        return KernelOperator(self._operator, self._x.conj()) if self._x.dtype.kind == "c" else self

    conjugate = conj

    @cached_property
    def _matrix(self) -> KernelMatrix:
        products = self._operator._products
        return KernelMatrix(products.geometry, self._operator._transposed, products.flip, self._images)

    @property
    def idle_taps(self) -> Array:
        """The positions in the kernel of taps that meet no input, as rows of an array (n, axes); their columns of X are 0.

        So the kernel cannot be found from products where there are any.
        """
        return self._matrix.idle_taps

    def tocsr(self, rows: tuple[int, int] | None = None) -> sparse.csr_array:
        """Return the matrix X, or a range of its rows, as a canonical CSR array, written directly.

        Parameters
        ----------
        rows : (int, int), optional
            The first row, and the one after the last.

        Returns
        -------
        csr_array
            Rows are outputs, those of the first array of a batch first; columns are elements of the kernel.

        Raises
        ------
        MemoryError
            If it does not fit into the available memory.
        ValueError
            If there are no such rows.
        """
        return self._matrix.tocsr(rows)

    def gram(self) -> Array:
        """Return XᴴX as a dense array, from correlations of x with itself; X is not built.

        Returns
        -------
        array (kernel.size, kernel.size)
            It is block diagonal, as kernels' channels share no equation: in the channels out of a convolution.

        Raises
        ------
        MemoryError
            If it does not fit into the available memory.
        """
        size = self.shape[1]
        check_memory(
            lambda: f"the dense {size} × {size} matrix XᴴX takes",
            size**2 * self._x.itemsize,
            "apply X and Xᴴ one after the other instead",
            available_memory,
        )
        return quietly(self._matrix.gram, self._operator._products.machine.workers)

    @property
    def _images(self) -> Array:
        """The inputs x as (B, C, *spatial)."""
        operator = self._operator
        spatial = operator.input_shape[len(operator.input_shape) - len(operator.geometry.axes) :]
        channels = operator.input_shape[0] if operator.geometry.has_channels else 1
        return np.ascontiguousarray(self._x).reshape(-1, channels, *spatial)


class KernelGradient(ArrayOperator):
    """The adjoint of a `KernelOperator`: from values for all outputs to a kernel.

    If the values are the derivatives of a real function of the product, the result is its derivative for the kernel, which
    is what training a network needs.

    Attributes
    ----------
    shape : tuple of int
        Size of the kernel by size of all products.
    H : KernelOperator
        Its adjoint.
    """

    def __init__(self, forward: KernelOperator) -> None:
        self._forward = forward
        self._set(forward.dtype, forward.output_shape, forward.input_shape)

    def apply(self, y: npt.ArrayLike) -> Array:
        """Return Xᴴ y, of the kernel's shape.

        Parameters
        ----------
        y : array_like
            Of the shape of the product: batch axes, and the operator's `output_shape`.

        Returns
        -------
        array
            Of dtype ``np.result_type(x.dtype, y.dtype)``.

        Raises
        ------
        TypeError
            If `y` has an unsupported dtype.
        ValueError
            If `y` has another shape.
        """
        y = as_array("y", y)
        if y.shape != self.input_shape:
            raise ValueError(f"y must have shape {self.input_shape}, got {y.shape}")
        return quietly(self._gradient, y)

    def _gradient(self, y: Array) -> Array:
        operator = self._forward._operator
        products, geometry = operator._products, operator.geometry
        x = self._forward._images
        dtype = np.result_type(x.dtype, y.dtype)
        x, y = x.conj().astype(dtype, copy=False), y.astype(dtype, copy=False)
        # Of a transposed convolution, y has the place of the input, and x that of the output.
        sources, targets = (y, x) if operator._transposed else (x, y)
        sources = padded(sources.reshape(len(x), geometry.in_channels, *geometry.spatial_input), geometry)
        targets = np.ascontiguousarray(targets.reshape(len(x), geometry.out_channels, *geometry.spatial_output))
        kernel = correlate(sources, targets, geometry.padded, products.machine.workers).reshape(self.output_shape)
        return flip_spatial(kernel, len(geometry.axes)) if products.flip else kernel

    def _adjoint(self) -> KernelOperator:
        return self._forward

    def _transpose(self) -> KernelOperator:
        return self._forward.conj()

    def _rmatvec(self, v: Array) -> Array:
        return self._forward._matvec(v)

    def _rmatmat(self, V: Array) -> Array:
        return self._forward._matmat(V)
