"""W and its transpose as sparse matrices: geometry and kernel in, canonical CSR out, in either direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat._messages import choose
from convmat._runtime import check_memory, count_workers, quietly
from convmat.geometry import (
    Array,
    ConvolutionGeometry,
    IntPerAxis,
    Padding,
    Shape,
    as_kernel,
    cast_kernel,
    check_bool,
    check_dtype,
    flip_spatial,
    index_dtype,
    integer,
    is_sequence,
)
from convmat.matrices._formats import FORMATS, KNOWN_AS, conversion_nbytes
from convmat.matrices._pattern import Span
from convmat.matrices._writer import MatrixRows


def convolution_matrix(
    kernel: npt.ArrayLike,
    input_shape: Shape,
    *,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    flip: bool = False,
    format: str = "csr",
    dtype: npt.DTypeLike | None = None,
    rows: Span | None = None,
    workers: int | None = None,
) -> Any:
    """Return the sparse matrix W of a convolution, so that ``(W @ x.ravel()).reshape(output_shape)`` is the convolution.

    As in deep learning, convolution means cross-correlation: ``y[c, o] = Σ K[c, i, t] · x[i, source(o, t)]`` with
    ``source(o, t) = o·stride − before + t·dilation`` on each axis, and the kernel is not flipped unless `flip` says so.

    Parameters
    ----------
    kernel : array_like
        ``(*k,)`` for one channel in and out, or ``(C_out, C_in // groups, *k)``, for any number of axes.
    input_shape : int or sequence of int
        ``(*spatial,)``, as many numbers as the kernel has dimensions, which then has no channels; or one less:
        ``(C_in, *spatial)``. Batch axes are no part of it: they belong to `Convolution.apply`.
    stride, dilation : int or sequence of int
        For all axes, or one per axis.
    padding : int, str or sequence
        An int for all axes, one int per axis, one ``(before, after)`` pair per axis, ``"valid"``, ``"same"`` or ``"full"``.
    groups : int
        Number of groups of channels that do not see each other.
    padding_mode : {"zeros", "circular", "reflect", "symmetric", "replicate"}
        What a position outside the input reads. Padding is limited to the input's size n for circular and symmetric, and
        to n − 1 for reflect. See `ConvolutionGeometry` for the names elsewhere.
    flip : bool
        Reverse the kernel's spatial axes first: convolution as in signal processing.
    format : {"csr", "csc", "coo", "bsr", "dia", "dok", "lil"}
        Sparse format of the result.
    dtype : dtype, optional
        Dtype of the result, a "same_kind" cast of the kernel's; that of the kernel by default.
    rows : (int, int), optional
        Build only rows ``start`` to ``stop`` of the matrix.
    workers : int, optional
        Number of threads; None means the CPUs available to the process, negative numbers count back from all of them.

    Returns
    -------
    sparse array
        Of shape (size of the output, size of the input), or as many rows as asked for. CSR has sorted indices without
        duplicates, int32 while the number of nonzeros and both dimensions fit, else int64. Zeros in the kernel are stored,
        so the pattern depends on the geometry alone.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel of an unsupported dtype.
    ValueError
        If an argument has a wrong value, or the padding mode merges taps whose sum does not fit the dtype, of integers.
    MemoryError
        If the matrix, or its conversion to `format`, does not fit into the memory that is available.

    See Also
    --------
    Convolution : the same map without storing the matrix.
    transposed_convolution_matrix : the transpose, written directly.
    scipy.linalg.convolution_matrix : dense, one axis; ``flip=True`` with "full" or "valid" padding gives the same.

    References
    ----------
    .. [1] A. Zhang, Z. C. Lipton, M. Li, A. J. Smola, "Dive into Deep Learning", section "Transposed Convolution".

    Examples
    --------
    >>> from convmat import convolution_matrix
    >>> convolution_matrix([[1, 2], [3, 4]], (3, 3)).toarray()
    array([[1, 2, 0, 3, 4, 0, 0, 0, 0],
           [0, 1, 2, 0, 3, 4, 0, 0, 0],
           [0, 0, 0, 1, 2, 0, 3, 4, 0],
           [0, 0, 0, 0, 1, 2, 0, 3, 4]])
    """
    kernel = cast_kernel(as_kernel(kernel), dtype, check_dtype)
    geometry = ConvolutionGeometry(
        kernel.shape,
        input_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
    )
    return assemble_as(geometry, kernel, False, flip, format, rows, workers)


def transposed_convolution_matrix(
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
    format: str = "csr",
    dtype: npt.DTypeLike | None = None,
    rows: Span | None = None,
    workers: int | None = None,
) -> Any:
    """Return the sparse matrix Wᵀ of a transposed convolution, written directly in its own form.

    A transposed convolution is described by the convolution that it transposes: the same kernel array and the same
    options. Only sizes are seen from the other side.

    Parameters
    ----------
    kernel : array_like
        ``(*k,)``, or ``(C_in, C_out // groups, *k)`` as in PyTorch's ``ConvTranspose``.
    input_shape : int or sequence of int
        What goes in: ``(*spatial,)``, as many numbers as the kernel has dimensions, which then has no channels; or one
        less: ``(C_in, *spatial)``. Batch axes are no part of it: they belong to `TransposedConvolution.apply`.
    stride, padding, dilation, groups, padding_mode, flip
        The options of the convolution, as in `convolution_matrix`. What the padding mode reads from a border, the
        transpose adds back to it.
    output_padding : int or sequence of int
        Added to the smallest of the output sizes that the strided convolution maps to `input_shape`; below
        ``max(stride, dilation)``. It chooses a size and pads nothing; from `stride` on, the convolution of that size has
        more outputs than `input_shape`, and the matrix is that of the first ones.
    output_shape : int or sequence of int, optional
        The same choice by name, channels included if there are any. Not together with `output_padding`.
    format, dtype, rows, workers
        As in `convolution_matrix`.

    Returns
    -------
    sparse array
        Of shape (size of the output, size of the input), or as many rows as asked for, canonical as that of
        `convolution_matrix`.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel of an unsupported dtype.
    ValueError
        If an argument has a wrong value, or the padding mode merges taps whose sum does not fit the dtype, of integers.
    MemoryError
        If the matrix, or its conversion to `format`, does not fit into the memory that is available.

    See Also
    --------
    TransposedConvolution : the same map without storing the matrix.

    Examples
    --------
    >>> from convmat import transposed_convolution_matrix
    >>> W_T = transposed_convolution_matrix([[0, 1], [2, 3]], (2, 2), stride=2)
    >>> (W_T @ [0, 1, 2, 3]).reshape(4, 4)
    array([[0, 0, 0, 1],
           [0, 0, 2, 3],
           [0, 2, 0, 3],
           [4, 6, 6, 9]])
    """
    kernel = cast_kernel(as_kernel(kernel), dtype, check_dtype)
    geometry = ConvolutionGeometry.of_transposed(
        kernel.shape,
        input_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        output_padding=output_padding,
        output_shape=output_shape,
    )
    return assemble_as(geometry, kernel, True, flip, format, rows, workers)


def assemble_as(
    geometry: ConvolutionGeometry,
    kernel: Array,
    transposed: bool,
    flip: bool,
    format: str = "csr",
    rows: Span | None = None,
    workers: int | None = None,
) -> Any:
    """Return `assemble`'s matrix in any format, after checking the options that all callers take from their users."""
    check_format(format, FORMATS)
    check_bool("flip", flip)
    count = count_workers(workers)
    rows = check_rows(rows, geometry.shape[int(transposed)])
    if flip:
        kernel = flip_spatial(kernel, len(geometry.axes))
    if format == "csc" and rows is None:  # the other direction's CSR, read by columns
        other = quietly(assemble, geometry, kernel, not transposed, None, count, exact=True)
        result = sparse.csc_array((other.data, other.indices, other.indptr), shape=other.shape[::-1])
        result.has_canonical_format = True
        return result
    matrix = quietly(assemble, geometry, kernel, transposed, rows, count, format, exact=True)
    return matrix.asformat(format)  # type: ignore[call-overload]


def check_format(format: object, formats: Sequence[str], place: str = "") -> None:
    """Raise unless `format` is one of the formats that there are; `place` says where, for messages."""
    choose("format", format, formats, KNOWN_AS, place=place)


def check_rows(rows: object, size: int) -> Span | None:
    """Return a checked range of rows, or None."""
    if rows is None:
        return None
    if not is_sequence(rows) or len(rows) != 2:
        raise TypeError(f"rows must be a pair (start, stop) of ints or None, got {rows!r}")
    start, stop = (integer("each of rows", row) for row in rows)
    if not start <= stop <= size:
        raise ValueError(f"rows must satisfy 0 <= start <= stop <= {size}, got {rows!r}")
    return start, stop


def assemble(
    geometry: ConvolutionGeometry,
    kernel: Array,
    transposed: bool = False,
    rows: Span | None = None,
    workers: int = 1,
    format: str = "csr",
    exact: bool = False,
) -> sparse.csr_array[Any, tuple[int, int]]:
    """Return rows of W or Wᵀ as a canonical CSR array.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution.
    kernel : array
        Its values, of ``geometry.kernel_shape``.
    transposed : bool
        Whether the matrix is Wᵀ.
    rows : (int, int), optional
        Range of rows of the matrix; all by default.
    workers : int
        Number of threads.
    format : str
        What the matrix is to be converted to, which has to fit into memory, too.
    exact : bool
        Whether to raise where taps of integers are merged whose sum does not fit their dtype, and would wrap.

    Returns
    -------
    csr_array
        With as many rows as asked for, and the dtype of the kernel.

    Raises
    ------
    MemoryError
        If the matrix does not fit into the memory that is available.
    ValueError
        If its columns are too many for int64, or a sum does not fit.
    """
    matrix = MatrixRows(geometry, kernel, transposed)
    first, last = rows or (0, matrix.shape[0])
    shape = (last - first, matrix.shape[1])
    nnz = matrix.count(first, last)
    index = index_dtype(nnz, *shape)
    nbytes = nnz * (kernel.itemsize + index.itemsize) + (shape[0] + 1) * index.itemsize
    nbytes += conversion_nbytes(
        format, shape, nnz, kernel.itemsize, index.itemsize, lambda: matrix.count_diagonals(first, last)
    )
    _check_size(shape, nnz, nbytes, "" if format == "csr" else f" as {format}")
    if exact:
        matrix.check_sums(first, last)
    data, indices, indptr = np.empty(nnz, kernel.dtype), np.empty(nnz, index), np.empty(shape[0] + 1, index)
    indptr[0] = 0
    matrix.write(first, last, data, indices, indptr[1:], workers)
    result = sparse.csr_array((data, indices, indptr), shape=shape)
    result.has_canonical_format = True
    return result


def _check_size(shape: tuple[int, int], nnz: int, nbytes: int, place: str) -> None:
    """Raise for a matrix that does not fit into memory, or that SciPy cannot index."""
    check_memory(
        lambda: f"the {shape[0]} × {shape[1]} matrix has {nnz} nonzeros and needs{place}",
        nbytes,
        "apply it without storing it (convmat.Convolution, convmat.TransposedConvolution), or build a range of its rows "
        "with rows=",
    )
    if shape[1] >= 2**63:
        raise ValueError(f"the matrix must have fewer than 2**63 columns, as its indices are int64, got {shape[1]}")
