"""W and Wᵀ as canonical CSR matrices, from a geometry and a kernel."""

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
    RowRange,
    Shape,
    as_kernel,
    cast_kernel,
    check_bool,
    check_dtype,
    csr_nbytes,
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
    rows: RowRange = None,
    workers: int | None = None,
) -> Any:
    """Return the sparse matrix W of a convolution, so that ``(W @ x.ravel()).reshape(output_shape)`` is the convolution.

    As in deep learning, convolution means cross-correlation: the kernel is not flipped unless `flip` is True.

    Parameters
    ----------
    kernel : array_like
        ``(*k,)`` for one channel in and out, or ``(C_out, C_in // groups, *k)``, for any number of axes.
    input_shape : int or sequence of int
        The shape of one input, without batch axes: ``(*spatial,)`` if the kernel has no channels, or ``(C_in, *spatial)``.
    stride, dilation : int or sequence of int
        Step between outputs, and distance between taps: an int for all axes, or one per axis.
    padding : int, str or sequence
        An int for all axes, one int per axis, one ``(before, after)`` pair per axis, ``"valid"``, ``"same"`` or ``"full"``.
        The table in the Notes has the sizes.
    groups : int
        Number of groups of channels. An output reads the input channels of its own group only.
    padding_mode : {"zeros", "circular", "reflect", "symmetric", "replicate"}
        What a position outside the input reads, by PyTorch's names. `numpy.pad` calls them "constant", "wrap",
        "reflect", "symmetric" and "edge"; `scipy.ndimage` "constant", "grid-wrap", "mirror", "reflect" and "nearest".
        Padding is limited to the input's size n for circular and symmetric, and to n − 1 for reflect.
    flip : bool
        Reverse the kernel's spatial axes first: convolution as in signal processing.
    format : {"csr", "csc", "coo", "bsr", "dia", "dok", "lil"}
        Sparse format of the result.
    dtype : dtype, optional
        Dtype of the result, a "same_kind" cast of the kernel's dtype, which is the default.
    rows : (int, int) or slice, optional
        Build only rows ``start`` to ``stop − 1`` of the matrix.
    workers : int, optional
        Number of threads; None means the CPUs available to the process, negative numbers count back from all of them.

    Returns
    -------
    sparse array
        Of shape (size of the output, size of the input), or as many rows as asked for. CSR has sorted indices without
        duplicates. They are int32 if the number of nonzeros and both dimensions fit, else int64. Zeros in the kernel are
        stored, so the pattern depends on the geometry alone.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel of an unsupported dtype.
    ValueError
        If an argument has a wrong value, or a sum of merged taps does not fit the integer dtype.
    MemoryError
        If the matrix, or its conversion to `format`, does not fit into the available memory.

    See Also
    --------
    Convolution : the same map without storing the matrix.
    transposed_convolution_matrix : the transpose, written directly.
    scipy.linalg.convolution_matrix : dense, one axis; ``flip=True`` with "full" or "valid" padding gives the same.

    Notes
    -----
    The output o of an axis reads, through the tap t of its k taps, the position::

        source(o, t) = o·stride − before + t·dilation,    0 ≤ t < k

    The padding mode maps a position outside the input to one inside, or, for zeros, to none.

    A row of W is an output (c, o) and a column is an input (i, r), both in C order. The entry is the sum of the taps through
    which o reads r (o, t and r have one number for each axis)::

        W[(c, o), (i, r)] = Σ K[c, i, t] over all t with source(o, t) = r

    Here i counts within the group of c, and W is 0 between groups. With zeros padding the sum has one term or none.
    Under the other modes an output may read one input through several taps; these are merged into one entry.

    An axis of n inputs has these outputs, with reach = dilation·(k − 1), the distance from the first tap to the last:

    ===================  ==============================================
    padding              outputs of an axis
    ===================  ==============================================
    0 or "valid"         ⌊(n − reach − 1) / stride⌋ + 1
    "same", stride 1     n
    "full"               ⌊(n + reach − 1) / stride⌋ + 1
    p                    ⌊(n + 2·p − reach − 1) / stride⌋ + 1
    (before, after)      ⌊(n + before + after − reach − 1) / stride⌋ + 1
    ===================  ==============================================

    The kernel (a, b, c) on 5 inputs, with padding 1::

            ┌               ┐
            │ b  c          │
            │ a  b  c       │
        W = │    a  b  c    │
            │       a  b  c │
            │          a  b │
            └               ┘

    Two axes make a matrix of such blocks, as in the first example: K[0] on the diagonal of blocks, K[1] beside it.

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

    The same as SciPy's matrix, on one axis:

    >>> from scipy import linalg
    >>> W = convolution_matrix([1, 2, 3], 6, padding="full", flip=True)
    >>> bool((W.toarray() == linalg.convolution_matrix([1, 2, 3], 6)).all())
    True
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
    rows: RowRange = None,
    workers: int | None = None,
) -> Any:
    """Return the sparse matrix Wᵀ of a transposed convolution, written without building W first.

    The kernel and the options are those of the convolution that it transposes. Only the shapes change sides: `input_shape`
    is an output of that convolution, and the result an input of it.

    Parameters
    ----------
    kernel : array_like
        ``(*k,)``, or ``(C_in, C_out // groups, *k)`` as in PyTorch's ``ConvTranspose``.
    input_shape : int or sequence of int
        The shape of one input, without batch axes: ``(*spatial,)`` if the kernel has no channels, or ``(C_in, *spatial)``.
    stride, padding, dilation, groups, padding_mode, flip
        The options of the convolution, with the values that `convolution_matrix` takes. What a padding mode reads
        from an input, the transpose adds back to it.
    output_padding : int or sequence of int
        Added to the smallest size that the convolution maps to `input_shape`; less than ``max(stride, dilation)``. It
        chooses a size and pads nothing. If it is `stride` or more, a convolution of that size would have more outputs than
        `input_shape`, and only the first ones count.
    output_shape : int or sequence of int, optional
        The output's shape itself, with its channels if there are any. Not together with `output_padding`.
    format, dtype, rows
        Sparse format, dtype (a "same_kind" cast of the kernel's) and range of rows of the result, which is Wᵀ.
    workers : int, optional
        Number of threads; None means the CPUs available to the process, negative numbers count back from all of them.

    Returns
    -------
    sparse array
        Of shape (size of the output, size of the input), or as many rows as asked for. CSR has sorted indices without
        duplicates, and stores the kernel's zeros.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel of an unsupported dtype.
    ValueError
        If an argument has a wrong value, or a sum of merged taps does not fit the integer dtype.
    MemoryError
        If the matrix, or its conversion to `format`, does not fit into the available memory.

    See Also
    --------
    TransposedConvolution : the same map without storing the matrix.
    convolution_matrix : W itself, with the formula of an entry.

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
    rows: RowRange = None,
    workers: int | None = None,
) -> Any:
    """Check the options that users give, and return the matrix in any format."""
    check_format(format, FORMATS)
    check_bool("flip", flip)
    count = count_workers(workers)
    span = check_rows(rows, geometry.shape[int(transposed)])
    if flip:
        kernel = flip_spatial(kernel, len(geometry.axes))
    if format == "csc" and span is None:  # the other direction's CSR, read by columns
        other = quietly(assemble, geometry, kernel, not transposed, None, count, exact=True)
        result = sparse.csc_array((other.data, other.indices, other.indptr), shape=other.shape[::-1])
        result.has_canonical_format = True
        return result
    matrix = quietly(assemble, geometry, kernel, transposed, span, count, format, exact=True)
    return matrix.asformat(format)  # type: ignore[call-overload]


def check_format(format: object, formats: Sequence[str], place: str = "") -> None:
    """Raise unless `format` is one of `formats`; `place` says in a message where they are supported."""
    choose("format", format, formats, KNOWN_AS, place=place)


def check_rows(rows: object, size: int) -> Span | None:
    """Return a checked range of rows, or None."""
    if rows is None:
        return None
    if isinstance(rows, slice):
        start, stop, step = rows.indices(size)
        if step != 1:
            raise ValueError(f"rows must be a slice with the step 1, got {rows!r}")
        return start, max(start, stop)
    if not is_sequence(rows) or len(rows) != 2:
        raise TypeError(f"rows must be a pair (start, stop) of ints, a slice or None, got {rows!r}")
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
        Its kernel, of shape ``geometry.kernel_shape``.
    transposed : bool
        Whether the matrix is Wᵀ.
    rows : (int, int), optional
        Range of rows of the matrix; all by default.
    workers : int
        Number of threads.
    format : str
        The format that the caller converts the matrix to; the check of memory counts it too.
    exact : bool
        Whether to raise if a sum of merged taps does not fit the integer dtype. Otherwise it wraps.

    Returns
    -------
    csr_array
        The rows, in the dtype of the kernel.

    Raises
    ------
    MemoryError
        If the matrix does not fit into the available memory.
    ValueError
        If it has too many columns for int64, or a sum does not fit.
    """
    matrix = MatrixRows(geometry, kernel, transposed)
    first, last = rows or (0, matrix.shape[0])
    shape = (last - first, matrix.shape[1])
    nnz = matrix.count(first, last)
    index = index_dtype(nnz, *shape)
    nbytes = csr_nbytes(*shape, nnz, kernel.itemsize)
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
    """Raise if a matrix does not fit into memory, or has more columns than int64 can index."""
    check_memory(
        lambda: f"the {shape[0]} × {shape[1]} matrix has {nnz} nonzeros and needs{place}",
        nbytes,
        "apply it without storing it (convmat.Convolution, convmat.TransposedConvolution), or build a range of its rows "
        "with rows=",
    )
    if shape[1] >= 2**63:
        raise ValueError(f"the matrix must have fewer than 2**63 columns, as its indices are int64, got {shape[1]}")
