"""Matrix multiplication: with W, dense and sparse, and with the flattened kernel (im2col)."""

from __future__ import annotations

from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np

from convmat._runtime import run_blocks
from convmat.commands.exercise.cases import Case
from convmat.commands.exercise.ways.base import Ready, Work, crop, cut, pad, too_large, vector_bytes
from convmat.geometry import Array
from convmat.matrices import convolution_matrix, transposed_convolution_matrix


class DenseMatrix:
    """W as a dense matrix, nearly all zeros."""

    name = "dense"
    title = "dense W"

    def refuses(self, case: Case) -> str | None:
        """Refuse cases that do not fit into memory."""
        return too_large(self.work(case))

    def work(self, case: Case) -> Work:
        """Count every entry of W, zero or not: its bytes once, and 2 operations."""
        entries = prod(case.geometry.shape)
        matrix = entries * case.itemsize
        return Work(2 * entries, matrix + vector_bytes(case), matrix)

    def build(self, case: Case, workers: int) -> Ready:
        """Write W."""
        W = convolution_matrix(case.kernel, case.input_shape, **case.options, workers=workers).toarray()
        shapes = case.geometry.output_shape, case.geometry.input_shape
        return Ready(lambda x: (W @ x.ravel()).reshape(shapes[0]), lambda y: (W.T @ y.ravel()).reshape(shapes[1]))


class StoredMatrix:
    """W as a sparse matrix, built once, with a block of rows for each thread; also Wᵀ, when it is first used."""

    name = "csr"
    title = "CSR W, built once"

    def refuses(self, case: Case) -> str | None:
        """Refuse cases that do not fit into memory."""
        return too_large(self.work(case))

    def work(self, case: Case) -> Work:
        """Count a value, its column and 2 operations for every nonzero: 12 bytes in float64 with int32 indices."""
        matrix = case.geometry.matrix_nbytes(case.dtype)
        return Work(2 * case.geometry.nnz, matrix + vector_bytes(case), matrix)

    def build(self, case: Case, workers: int) -> Ready:
        """Write W, block by block."""
        geometry = case.geometry
        built: dict[bool, list[tuple[int, int, Any]]] = {}

        def matrix(transposed: bool) -> list[tuple[int, int, Any]]:
            if transposed not in built:
                write: Any = convolution_matrix
                shape: tuple[int, ...] = case.input_shape
                options = dict(case.options)
                if transposed:
                    write, shape = transposed_convolution_matrix, geometry.output_shape
                    options["output_shape"] = geometry.input_shape
                shares = cut(geometry.shape[transposed], geometry.nnz, workers)
                built[transposed] = [
                    (*rows, write(case.kernel, shape, **options, rows=rows, workers=workers)) for rows in shares
                ]
            return built[transposed]

        def multiply(transposed: bool, vector: Array) -> Array:
            result = np.empty(geometry.shape[transposed], case.dtype)

            def rows(first: int, last: int, block: Any) -> None:
                result[first:last] = block @ vector.ravel()

            run_blocks(rows, matrix(transposed), workers)
            return result.reshape(geometry.input_shape if transposed else geometry.output_shape)

        matrix(False)
        return Ready(partial(multiply, False), partial(multiply, True))


STORED = StoredMatrix()


class RebuiltMatrix:
    """W as a sparse matrix, built for one product and then discarded."""

    name = "csr anew"
    title = "CSR W, built every time"

    def refuses(self, case: Case) -> str | None:
        """Refuse cases that do not fit into memory."""
        return STORED.refuses(case)

    def work(self, case: Case) -> Work:
        """Count W twice, because it is written and read."""
        work = STORED.work(case)
        return Work(work.flops, work.bytes + work.memory, work.memory)

    def build(self, case: Case, workers: int) -> Ready:
        """Prepare nothing."""

        def transposed(y: Array) -> Array:
            Wt = transposed_convolution_matrix(
                case.kernel, y.shape, **case.options, output_shape=case.input_shape, workers=workers
            )
            z: Array = Wt @ y.ravel()
            return z.reshape(case.input_shape)

        return Ready(lambda x: STORED.build(case, workers).product(x), transposed)


class Im2col:
    """The other matrix multiplication: the flattened kernel times a matrix whose columns are the windows."""

    name = "im2col"
    title = "im2col + BLAS"

    def refuses(self, case: Case) -> str | None:
        """Refuse cases that do not fit into memory."""
        return too_large(self.work(case))

    def work(self, case: Case) -> Work:
        """Count a copy of every pixel for every tap, written and read, and the arithmetic, with the border's zeros."""
        geometry = case.geometry
        columns = geometry.in_channels * prod(geometry.spatial_kernel) * prod(geometry.spatial_output)
        copy = columns * case.itemsize
        return Work(2 * columns * geometry.out_channels // geometry.groups, 2 * copy + vector_bytes(case), copy)

    def build(self, case: Case, workers: int) -> Ready:
        """Flatten the kernel, and find the pixels of each tap."""
        geometry = case.geometry
        groups, (h, w), (n_h, n_w) = geometry.groups, geometry.spatial_kernel, geometry.spatial_output
        kernel = case.kernel.reshape(groups, geometry.out_channels // groups, -1)
        spans = [
            [slice(tap * d, tap * d + s * (n - 1) + 1, s) for tap in range(taps)]
            for taps, d, s, n in zip(
                geometry.spatial_kernel, geometry.dilation, geometry.stride, geometry.spatial_output, strict=True
            )
        ]
        shares = cut(geometry.in_channels, geometry.in_channels * h * w * n_h * n_w, workers)

        def product_(x: Array) -> Array:
            padded, columns = pad(case, x), np.empty((geometry.in_channels, h, w, n_h, n_w), case.dtype)

            def gather(first: int, last: int) -> None:
                for a, b in product(range(h), range(w)):
                    columns[first:last, a, b] = padded[first:last, spans[0][a], spans[1][b]]

            run_blocks(gather, shares, workers)
            y: Array = kernel @ columns.reshape(groups, -1, n_h * n_w)
            return y.reshape(geometry.output_shape)

        def transposed(y: Array) -> Array:
            columns = kernel.transpose(0, 2, 1) @ y.reshape(groups, -1, n_h * n_w)
            columns = columns.reshape(geometry.in_channels, h, w, n_h, n_w)
            z = np.zeros(geometry.padded.input_shape, case.dtype)

            def scatter(first: int, last: int) -> None:
                for a, b in product(range(h), range(w)):
                    z[first:last, spans[0][a], spans[1][b]] += columns[first:last, a, b]

            run_blocks(scatter, shares, workers)
            return crop(case, z)

        return Ready(product_, transposed)
