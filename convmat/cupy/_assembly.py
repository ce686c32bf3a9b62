"""W and its transpose, built on the device: geometry and kernel in, canonical CSR out, in either direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt
from cupyx.scipy import sparse

from convmat._runtime import check_memory
from convmat.cupy._arrays import Array, as_kernel, check_inexact
from convmat.cupy._device import available_memory
from convmat.cupy._kernels import definitions, function, launch_jobs
from convmat.cupy._tables import MatrixTables, Span
from convmat.geometry import (
    ConvolutionGeometry,
    IntPerAxis,
    Padding,
    RowRange,
    Shape,
    cast_kernel,
    check_bool,
    flip_spatial,
    index_dtype,
)
from convmat.matrices import check_format, check_rows

FORMATS = ("coo", "csc", "csr")

_THREADS, _FEW_THREADS = 128, 32  # of a block, which does one job
_SMALL = 256  # nonzeros of a job that so few threads do
_LARGE = hasattr(sparse, "csr_array")  # CuPy learnt sparse arrays and 64-bit indices at the same time


def convolution_matrix(
    kernel: Any,
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
) -> Any:
    """Return the sparse matrix W of a convolution, built on the device.

    What `convmat.convolution_matrix` is for SciPy: the same matrix, as one of ``cupyx.scipy.sparse``.

    Parameters
    ----------
    kernel : cupy.ndarray
        ``(*k,)`` for one channel in and out, or ``(C_out, C_in // groups, *k)``, for any number of axes; of dtype float32,
        float64, complex64 or complex128.
    input_shape : int or sequence of int
        ``(*spatial,)``, as many numbers as the kernel has dimensions, which then has no channels; or one less:
        ``(C_in, *spatial)``. Batch axes are no part of it: they belong to `Convolution.apply`.
    stride, padding, dilation, groups, padding_mode, flip
        As in `convmat.convolution_matrix`.
    format : {"csr", "csc", "coo"}
        Sparse format of the result.
    dtype : dtype, optional
        Dtype of the result, a "same_kind" cast of the kernel's; that of the kernel by default.
    rows : (int, int) or slice, optional
        Build only rows ``start`` to ``stop`` of the matrix.

    Returns
    -------
    cupyx.scipy.sparse array
        Of shape (size of the output, size of the input), or as many rows as asked for; a ``csr_matrix`` and the like where
        CuPy has no sparse arrays. CSR has sorted indices without duplicates, and says so to CuPy, which would sort it
        otherwise; int32 while the number of nonzeros and both dimensions fit, else int64.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel is on the host or of an integer dtype.
    ValueError
        If an argument has a wrong value, or the matrix needs int64 indices and CuPy has none.
    MemoryError
        If the matrix does not fit into what is free of the device's memory.

    See Also
    --------
    Convolution : the same map without storing the matrix.
    convmat.convolution_matrix : on the host.

    Examples
    --------
    >>> import cupy
    >>> from convmat.cupy import convolution_matrix
    >>> convolution_matrix(cupy.array([[1.0, 2.0], [3.0, 4.0]]), (3, 3)).toarray()
    array([[1., 2., 0., 3., 4., 0., 0., 0., 0.],
           [0., 1., 2., 0., 3., 4., 0., 0., 0.],
           [0., 0., 0., 1., 2., 0., 3., 4., 0.],
           [0., 0., 0., 0., 1., 2., 0., 3., 4.]])
    """
    kernel = cast_kernel(as_kernel(kernel, "convmat.convolution_matrix"), dtype, check_inexact)
    geometry = ConvolutionGeometry(
        kernel.shape,
        input_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
    )
    return assemble_as(geometry, kernel, False, flip, format, rows)


def transposed_convolution_matrix(
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
    format: str = "csr",
    dtype: npt.DTypeLike | None = None,
    rows: RowRange = None,
) -> Any:
    """Return the sparse matrix Wᵀ of a transposed convolution, written on the device in its own form.

    What `convmat.transposed_convolution_matrix` is for SciPy.

    Parameters
    ----------
    kernel : cupy.ndarray
        ``(*k,)``, or ``(C_in, C_out // groups, *k)`` as in PyTorch's ``ConvTranspose``.
    input_shape : int or sequence of int
        What goes in: ``(*spatial,)``, as many numbers as the kernel has dimensions, which then has no channels; or one
        less: ``(C_in, *spatial)``. Batch axes are no part of it: they belong to `TransposedConvolution.apply`.
    stride, padding, dilation, groups, padding_mode, flip, output_padding, output_shape
        As in `convmat.transposed_convolution_matrix`.
    format, dtype, rows
        As in `convolution_matrix`.

    Returns
    -------
    cupyx.scipy.sparse array
        Of shape (size of the output, size of the input), or as many rows as asked for.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or the kernel is on the host or of an integer dtype.
    ValueError
        If an argument has a wrong value, or the matrix needs int64 indices and CuPy has none.
    MemoryError
        If the matrix does not fit into what is free of the device's memory.

    See Also
    --------
    TransposedConvolution : the same map without storing the matrix.

    Examples
    --------
    >>> import cupy
    >>> from convmat.cupy import transposed_convolution_matrix
    >>> W_T = transposed_convolution_matrix(cupy.array([[0.0, 1.0], [2.0, 3.0]]), (2, 2), stride=2)
    >>> (W_T @ cupy.arange(4.0)).reshape(4, 4)
    array([[0., 0., 0., 1.],
           [0., 0., 2., 3.],
           [0., 2., 0., 3.],
           [4., 6., 6., 9.]])
    """
    kernel = cast_kernel(as_kernel(kernel, "convmat.transposed_convolution_matrix"), dtype, check_inexact)
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
    return assemble_as(geometry, kernel, True, flip, format, rows)


def assemble_as(
    geometry: ConvolutionGeometry,
    kernel: Array,
    transposed: bool,
    flip: bool,
    format: str = "csr",
    rows: RowRange = None,
) -> Any:
    """Return `assemble`'s matrix in any format, after checking the options that all callers take from their users."""
    check_format(format, FORMATS, " on the device")
    check_bool("flip", flip)
    span = check_rows(rows, geometry.shape[int(transposed)])
    if flip:
        kernel = flip_spatial(kernel, len(geometry.axes))
    if format == "csc" and span is None:  # the other direction's CSR, read by columns
        other = assemble(geometry, kernel, not transposed)
        return _compressed("csc", (other.data, other.indices, other.indptr), other.shape[::-1])
    return assemble(geometry, kernel, transposed, span).asformat(format)


def assemble(geometry: ConvolutionGeometry, kernel: Array, transposed: bool = False, rows: Span | None = None) -> Any:
    """Return rows of W or Wᵀ as a canonical CSR matrix on the device.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution.
    kernel : cupy.ndarray
        Its values, of ``geometry.kernel_shape``.
    transposed : bool
        Whether the matrix is Wᵀ.
    rows : (int, int), optional
        Range of rows of the matrix; all by default.

    Returns
    -------
    csr_array
        With as many rows as asked for, and the dtype of the kernel.

    Raises
    ------
    ValueError
        If it needs int64 indices and CuPy has none, or the whole matrix is too large for int64.
    MemoryError
        If it does not fit into what is free of the device's memory.
    """
    arrays, shape, write = prepare(geometry, kernel, transposed, rows)
    write()
    return _compressed("csr", arrays, shape)


def prepare(
    geometry: ConvolutionGeometry, kernel: Array, transposed: bool, rows: Span | None
) -> tuple[tuple[Array, Array, Array], tuple[int, int], Callable[[], None]]:
    """Return arrays for the matrix of `assemble`, its shape, and what writes them."""
    if max(geometry.nnz, *geometry.shape) >= 2**63:
        raise ValueError(
            "rows, columns and nonzeros of the whole matrix must be fewer than 2**63 each, as the device counts them by "
            f"int64, got shape {geometry.shape[:: -1 if transposed else 1]} and {geometry.nnz} nonzeros"
        )
    tables = MatrixTables(geometry, transposed, *(rows or ()))
    index = index_dtype(tables.nnz, *tables.shape)
    _check_size(tables, index, kernel)
    data, indices = cupy.empty(tables.nnz, kernel.dtype), cupy.empty(tables.nnz, index)
    indptr = cupy.zeros(tables.shape[0] + 1, index)
    values = _values(geometry, kernel, transposed, tables)
    run = function("write_rows", definitions("WRITE_ROWS", kernel.dtype, index, len(tables.axes)))
    launches = [(launch.jobs, cupy.asarray(launch.plan)) for launch in tables.launches]

    def write() -> None:
        for jobs, plan in launches:
            threads = _THREADS if tables.nnz > _SMALL * jobs else _FEW_THREADS
            launch_jobs(run, jobs, threads, (values, plan, data, indices, indptr[1:]))

    return (data, indices, indptr), tables.shape, write


def _values(geometry: ConvolutionGeometry, kernel: Array, transposed: bool, tables: MatrixTables) -> Array:
    """Return the kernel as (row channels, column channels of a group, *weights): taps, then sums of some."""
    kernel = kernel.reshape(
        geometry.groups,
        geometry.out_channels // geometry.groups,
        geometry.in_channels // geometry.groups,
        *(axis.taps for axis in tables.axes),
    )
    if transposed:
        kernel = kernel.swapaxes(1, 2)
    for axis, (taps, starts) in enumerate(tables.sums, 3):
        if len(starts):
            lengths = np.diff(starts, append=len(taps))
            listed = np.full((len(starts), lengths.max()), -1)  # the last, which is nothing
            listed[np.arange(lengths.max()) < lengths[:, None]] = taps
            nothing = cupy.zeros((*kernel.shape[:axis], 1, *kernel.shape[axis + 1 :]), kernel.dtype)
            summed = cupy.concatenate([kernel, nothing], axis).take(cupy.asarray(listed), axis).sum(axis + 1)
            kernel = cupy.concatenate([kernel, summed], axis)
    return cupy.ascontiguousarray(kernel)


def _compressed(format: str, arrays: tuple[Array, Array, Array], shape: tuple[int, int]) -> Any:
    """Return a matrix of canonical arrays, and say that they are: CuPy sorts at the first product otherwise."""
    result = getattr(sparse, f"{format}_array" if _LARGE else f"{format}_matrix")(arrays, shape=shape)
    result.has_canonical_format = True
    return result


def _check_size(tables: MatrixTables, index: np.dtype[Any], kernel: Array) -> None:
    """Raise for a matrix that CuPy or the device cannot hold."""
    instead = (
        "apply it without storing it (convmat.cupy.Convolution, convmat.cupy.TransposedConvolution), or build a range of "
        "its rows with rows="
    )
    rows, columns = tables.shape
    if index.itemsize > 4 and not _LARGE:
        raise ValueError(
            f"the {rows} × {columns} matrix with {tables.nnz} nonzeros needs int64 indices, which sparse matrices of CuPy "
            f"{cupy.__version__} do not have; {instead}, or upgrade CuPy"
        )
    check_memory(
        lambda: f"the {rows} × {columns} matrix has {tables.nnz} nonzeros and takes",
        tables.nnz * (kernel.itemsize + index.itemsize) + (rows + 1) * index.itemsize,
        instead,
        lambda: available_memory(kernel.device.id),
        " on the device",
    )
