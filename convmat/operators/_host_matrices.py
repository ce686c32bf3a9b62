"""What operators for NumPy arrays are as matrices of SciPy: A itself, and AᴴA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from convmat.geometry import Array, ConvolutionGeometry, RowRange, flip_spatial
from convmat.matrices import assemble_as, assemble_gram_as, gram_convolution, matrix_blocks
from convmat.operators._base import OperatorBase


class HostMatrices(OperatorBase):
    """The matrices of an operator, each written directly and anew in every call."""

    @property
    def kernel(self) -> Array:
        """The kernel as given, or its conjugate if this is a conjugate. Read-only."""
        kernel: Array = self._products.kernel
        return kernel.conj() if self._conjugated else kernel

    def tosparse(self, format: str = "csr", rows: RowRange = None) -> Any:
        """Return the matrix, or a range of its rows, as a new sparse array.

        Parameters
        ----------
        format : {"csr", "csc", "coo", "bsr", "dia", "dok", "lil"}
            The format.
        rows : (int, int) or slice, optional
            Build only rows ``start`` to ``stop − 1``.

        Returns
        -------
        sparse array
            The matrix; as CSR it has sorted indices without duplicates.

        Raises
        ------
        MemoryError
            If the matrix, or its conversion to `format`, does not fit into the available memory.
        TypeError
            If `rows` is no range.
        ValueError
            If there are no such rows, or a sum of merged taps does not fit the integer dtype.

        Examples
        --------
        >>> from convmat import Convolution
        >>> Convolution([1, 2], 4).tosparse(rows=slice(1, 3)).toarray()
        array([[0, 1, 2, 0],
               [0, 0, 1, 2]])
        """
        products = self._products
        workers = products.machine.workers
        return assemble_as(self.geometry, self.kernel, self._transposed, products.flip, format, rows, workers)

    def blocks(self, max_bytes: int = 1 << 28) -> Iterator[tuple[slice, Any]]:
        """Return an iterator over the matrix in blocks of rows, each built when it is asked for.

        Parameters
        ----------
        max_bytes : int
            The most bytes of a block; a single row may be larger.

        Returns
        -------
        iterator of (slice, csr_array)
            The rows, and their part of the matrix.

        Raises
        ------
        TypeError
            If `max_bytes` is no int.
        ValueError
            If `max_bytes` is less than 1.

        Examples
        --------
        >>> import numpy as np
        >>> from convmat import Convolution
        >>> A, x = Convolution([1, 2], 6), np.arange(6)
        >>> y = np.empty(5, int)
        >>> for rows, block in A.blocks(max_bytes=60):
        ...     y[rows] = block @ x
        >>> bool((y == A @ x).all())
        True
        """
        workers = self._products.machine.workers
        return matrix_blocks(self.geometry, correlation_kernel(self), self._transposed, max_bytes, workers)

    def gram(self, format: str = "csr") -> Any:
        """Return the Gram matrix AᴴA as a new sparse array, written directly without A.

        Parameters
        ----------
        format : {"csr", "csc", "coo", "bsr", "dia", "dok", "lil"}
            The format.

        Returns
        -------
        sparse array
            Of shape (size of the input, size of the input) and of the operator's dtype. As CSR it has sorted indices without
            duplicates. Its pattern depends on the geometry alone: an entry is stored where an output reads both inputs, or
            an input goes into both outputs of a transposed convolution.

        Raises
        ------
        MemoryError
            If the matrix, or its conversion to `format`, does not fit into the available memory.

        See Also
        --------
        gram_convolution : The convolution that AᴴA is, in some cases.

        Notes
        -----
        Entries are sums over pairs of taps, in the operator's dtype. Integers wrap where they do not fit, as NumPy's do.

        Examples
        --------
        >>> from convmat import Convolution
        >>> Convolution([1, 2], 4).gram().toarray()
        array([[1, 2, 0, 0],
               [2, 5, 2, 0],
               [0, 2, 5, 2],
               [0, 0, 2, 4]])
        """
        products = self._products
        return assemble_gram_as(
            self.geometry, correlation_kernel(self), self._transposed, format, products.machine.workers
        )

    def gram_convolution(self) -> Any:
        """Return AᴴA as a convolution, where it is one; else None.

        Where all outputs that read an input are there, AᴴA is the convolution with the kernel's autocorrelation: with
        stride 1 and "full" zeros padding, or with stride 1 around a circle. Then nothing depends on where an input is. The
        same holds for a transposed convolution without padding, whose AᴴA is for outputs what that is for inputs. In all
        other cases rows of AᴴA near the borders, or of different phases of the stride, differ.

        Returns
        -------
        Convolution or None
            With ``gram_convolution().tocsr()`` equal to ``gram()``, but for the order in which taps are summed.

        Examples
        --------
        >>> from convmat import Convolution
        >>> Convolution([1, 2], 4, padding="full").gram_convolution().kernel
        array([2, 5, 2])
        >>> Convolution([1, 2], 4).gram_convolution() is None
        True
        """
        found = gram_convolution(self.geometry, correlation_kernel(self), self._transposed)
        if found is None:
            return None
        kernel, padding, dilation, mode = found
        own = self._products
        geometry = ConvolutionGeometry(
            kernel.shape,
            self.input_shape,
            padding=padding,
            dilation=dilation,
            groups=self.geometry.groups,
            padding_mode=mode,
        )
        products = self._products_type(geometry, kernel, False, "auto", own.workers, None, own.local)
        return self._kind(False)._of(products)


def correlation_kernel(operator: HostMatrices) -> Array:
    """Return the kernel of the cross-correlation that W is: flipped if the operator flips it, and conjugated likewise."""
    flip = operator._products.flip
    return flip_spatial(operator.kernel, len(operator.geometry.axes)) if flip else operator.kernel
