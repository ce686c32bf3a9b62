"""Other ways to W: filling its arrays, SciPy's own constructions, and other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from benchmarks.cases import Case
from convmat import ConvolutionGeometry
from convmat.matrices._pattern import forget

Array = npt.NDArray[Any]


def filler(matrix: Any) -> Callable[[], tuple[Array, ...]]:
    """Return a call that allocates arrays like those of a CSR matrix and fills them with a constant."""
    likes = [(array.size, array.dtype) for array in (matrix.data, matrix.indices, matrix.indptr)]

    def fill() -> tuple[Array, ...]:
        arrays = tuple(np.empty(size, dtype) for size, dtype in likes)
        for array in arrays:
            array.fill(1)
        return arrays

    return fill


def afresh(build: Callable[[], Any]) -> Callable[[], Any]:
    """Return a call that builds as the first of its geometry: without a pattern kept from another build."""

    def call() -> Any:
        forget()
        return build()

    return call


@dataclass(frozen=True)
class Peer:
    """Another way to build W."""

    name: str
    covers: Callable[[Case], bool]
    build: Callable[[Case], Any]
    package: str = "scipy"
    counts: bool = True

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return find_spec(self.package) is not None


def coo_masked(case: Case) -> Any:
    """Write row, column and value of every tap of every output by broadcasting, keep those inside, and convert."""
    geometry, kernel = case.geometry, oriented(case)
    outer, inner, n = geometry.out_channels, geometry.in_channels, len(geometry.axes)
    shape = (outer, *geometry.spatial_output, inner, *geometry.spatial_kernel)
    grid = np.ogrid[tuple(map(slice, shape))]
    outputs, taps = grid[1 : n + 1], grid[n + 2 :]
    row, column, inside = grid[0], grid[n + 1], np.bool_(True)
    for axis, output, tap in zip(geometry.axes, outputs, taps, strict=True):
        source = output * axis.stride - axis.before + tap * axis.dilation
        inside = inside & (source >= 0) & (source < axis.size)
        row = row * axis.outputs + output
        column = column * axis.size + source
    inside = np.broadcast_to(inside, shape)
    values = kernel.reshape(outer, *(1,) * n, inner, *geometry.spatial_kernel)
    parts = [np.broadcast_to(part, shape)[inside] for part in (values, row, column)]
    return sparse.coo_array((parts[0], (parts[1], parts[2])), shape=geometry.shape).tocsr()


def coo_by_axes(case: Case) -> Any:
    """Write rows, columns and values of all nonzeros as outer sums over channels and axes, and convert.

    Entries come row by row, columns ascending within a row, so that the conversion finds nothing to sort.
    """
    geometry, kernel = case.geometry, oriented(case)
    value = np.arange(geometry.out_channels * geometry.in_channels, dtype=geometry.index_dtype)
    row, column = np.divmod(value, geometry.in_channels)
    for axis, (output, source, tap) in zip(geometry.axes, _pairs(geometry), strict=True):
        row = np.add.outer(row * axis.outputs, output).ravel()
        column = np.add.outer(column * axis.size, source).ravel()
        value = np.add.outer(value * axis.taps, tap).ravel()
    return sparse.coo_array((kernel.ravel()[value], (row, column)), shape=geometry.shape).tocsr()


def kron_sum(case: Case) -> Any:
    """Add up Kronecker products of each axis' selection matrices, from the last axis to the first, for each channel."""
    geometry, kernel = case.geometry, oriented(case)
    selections = [
        [
            sparse.csr_array((np.ones(hit.sum(), kernel.dtype), (output[hit], source[hit])), shape=(n, m))
            for hit in (tap == t for t in range(k))
        ]
        for n, m, k, (output, source, tap) in zip(
            geometry.spatial_output, geometry.spatial_input, geometry.spatial_kernel, _pairs(geometry), strict=True
        )
    ]
    kernel = kernel.reshape(geometry.out_channels, geometry.in_channels, *geometry.spatial_kernel)
    if kernel.shape[:2] == (1, 1):
        return _kron_axes(kernel[0, 0], selections)
    return sparse.block_array([[_kron_axes(part, selections) for part in parts] for parts in kernel], format="csr")


def _kron_axes(kernel: Array, selections: Sequence[Sequence[Any]]) -> Any:
    """Return Σ_t P[t] ⊗ (the same for K[t] and the other axes)."""
    first, *rest = selections
    if not rest:
        return reduce(lambda a, b: a + b, (value * matrix for value, matrix in zip(kernel, first, strict=True)))
    parts = zip(kernel, first, strict=True)
    return reduce(lambda a, b: a + b, (sparse.kron(m, _kron_axes(part, rest), format="csr") for part, m in parts))


def sparse_convolution_toeplitz(case: Case) -> Any:
    """Return the matrix that ``sparse_convolution`` precomputes; it always is that of the full convolution."""
    from sparse_convolution import Toeplitz_convolution2d

    return Toeplitz_convolution2d(case.input_shape, case.kernel, mode="full", method="precomputed", backend="numpy")._dt


def pylops_tosparse(case: Case) -> Any:
    """Return PyLops' operator as a matrix; it applies the operator to each unit vector."""
    from pylops.signalprocessing import Convolve2D

    offset = tuple(taps // 2 for taps in case.kernel_shape)
    return Convolve2D(case.input_shape, case.kernel, offset=offset, method="direct").tosparse()


def oriented(case: Case) -> Array:
    """Return the kernel as a correlation takes it."""
    spatial = tuple(range(-len(case.geometry.axes), 0))
    return np.flip(case.kernel, spatial) if case.flip else case.kernel


def _pairs(geometry: ConvolutionGeometry) -> Iterator[tuple[Array, Array, Array]]:
    """Yield, for each axis, output, source and tap of every pair that reads inside the input, outputs ascending."""
    for axis in geometry.axes:
        output, tap = np.divmod(np.arange(axis.outputs * axis.taps), axis.taps)
        source = output * axis.stride - axis.before + tap * axis.dilation
        inside = (source >= 0) & (source < axis.size)
        integer = geometry.index_dtype
        yield output[inside].astype(integer), source[inside].astype(integer), tap[inside].astype(integer)


def _is_plain(case: Case) -> bool:
    return case.geometry.groups == 1 and case.geometry.padding_mode == "zeros"


def _is_image(case: Case, padding: str) -> bool:
    return len(case.kernel_shape) == 2 and case.flip and case.options == {"padding": padding}


PEERS = (
    Peer("COO, masked", _is_plain, coo_masked),
    Peer("COO by axes", _is_plain, coo_by_axes, counts=False),
    Peer("sum of kron", _is_plain, kron_sum),
    Peer("sparse_convolution", lambda case: _is_image(case, "full"), sparse_convolution_toeplitz, "sparse_convolution"),
    Peer(
        "PyLops tosparse",
        lambda case: _is_image(case, "same") and case.geometry.shape[1] <= 64 * 64,
        pylops_tosparse,
        "pylops",
    ),
)
