"""Convolutions as maps of a network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat.geometry import Array, Axis, ConvolutionGeometry, IntArray
from convmat.networks._maps import LinearMap, Shape, csr
from convmat.networks._patterns import AxisPattern, Full, Pattern
from convmat.operators import Convolution, TransposedConvolution

Operator = Convolution | TransposedConvolution
_GAP = 64  # rows that lie so far apart are written each for itself


class ConvolutionMap(LinearMap):
    """A convolution, or its transpose, of arrays (*outer, channels, *spatial), one of `outer` after the other.

    Parameters
    ----------
    operator : Convolution or TransposedConvolution
        With channels.
    outer : tuple of int
        Sizes of the axes in front of the channels.
    options : dict
        The options that the operator was made with.
    """

    def __init__(self, operator: Operator, outer: Shape, options: Mapping[str, Any]) -> None:
        self.operator, self.outer, self.options = operator, outer, options
        self._set(operator.dtype, (*outer, *operator.input_shape), (*outer, *operator.output_shape))

    def _forward(self, x: Array) -> Array:
        result: Array = self.operator.apply(x)
        return result

    def _backward(self, y: Array) -> Array:
        result: Array = self.operator.T.apply(y)  # type: ignore[attr-defined]
        return result

    def take(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the matrix."""
        height, width = self.operator.shape
        starts = np.flatnonzero(np.diff(rows, prepend=-(2**62)) > _GAP)
        stops = [*starts[1:], len(rows)][: len(starts)]
        pieces = []
        for start, stop in zip(starts, stops, strict=True):
            part = rows[start:stop]
            for item in range(int(part[0]) // height, int(part[-1]) // height + 1):
                own = part[(part >= item * height) & (part < (item + 1) * height)] - item * height
                if own.size:
                    pieces.append((item, self._range(own)))
        if len(pieces) == 1 and self.shape[1] == width:
            return pieces[0][1]
        counts = [np.diff(piece.indptr) for _, piece in pieces]
        columns = [piece.indices.astype(np.int64) + item * width for item, piece in pieces]
        values = [piece.data for _, piece in pieces]
        empty: list[Any] = [np.zeros(0, np.int64)]
        return csr(
            np.concatenate(counts or empty),
            np.concatenate(columns or empty),
            np.concatenate(values or [np.zeros(0, self.dtype)]),
            self.shape[1],
        )

    def _range(self, rows: IntArray) -> sparse.csr_array:
        """Return rows of the operator's matrix that lie close to one another."""
        first = int(rows[0])
        matrix: sparse.csr_array = self.operator.tocsr((first, int(rows[-1]) + 1))
        return matrix if matrix.shape[0] == len(rows) else matrix[rows - first]

    def absolute(self) -> ConvolutionMap:
        """Return the map with the magnitudes of the kernel, which are no less where a border adds taps."""
        return self._with(abs(np.asarray(self.operator.kernel)))

    @property
    def terms(self) -> int:
        """The most products that are summed: more than nonzeros where a border reads a number through several taps."""
        return int(self.structure().apply(np.ones(self.input_shape)).max(initial=0.0))

    def structure(self) -> ConvolutionMap:
        """Return a map with the same nonzeros, all of them positive; nothing leaks into others."""
        return self._with(np.ones_like(self.operator.kernel)).plain()

    def plain(self) -> ConvolutionMap:
        """Return the map by an engine that sums products and nothing else, so that its rounding is bounded."""
        operator = type(self.operator)(self.operator.kernel, self.operator.input_shape, **self.options, engine="gemm")
        return ConvolutionMap(operator, self.outer, self.options)

    def astype(self, dtype: npt.DTypeLike) -> ConvolutionMap:
        """Return the map in another dtype."""
        return self._with(self.operator.kernel.astype(dtype))

    def _with(self, kernel: Array) -> ConvolutionMap:
        return ConvolutionMap(self.operator.with_kernel(kernel), self.outer, self.options)

    @cached_property
    def pattern(self) -> Pattern:
        """Which nonzeros the matrix has."""
        geometry, transposed = self.operator.geometry, isinstance(self.operator, TransposedConvolution)
        axes: list[AxisPattern] = [_channels(geometry, transposed)]
        axes += [axis_table_pattern(axis, transposed) for axis in geometry.axes]
        return Pattern(self.input_shape, self.output_shape, (*(None for _ in self.outer), *axes))


def _channels(geometry: ConvolutionGeometry, transposed: bool) -> AxisPattern:
    groups = geometry.groups
    sizes = geometry.out_channels // groups, geometry.in_channels // groups
    rows, columns = sizes[::-1] if transposed else sizes
    if groups == 1:
        return Full((rows, columns))
    blocks = np.ones((rows, columns), np.int8)
    return sparse.csr_array(sparse.kron(sparse.eye_array(groups, dtype=np.int8), blocks))


def axis_table_pattern(axis: Axis, transposed: bool) -> sparse.csr_array:
    """Return which nonzeros an axis of W or Wᵀ has."""
    table = axis.table(transposed, np.arange(axis.rows(transposed)))
    inside = table.inside.T
    columns = np.broadcast_to(table.columns.T, inside.shape)[inside]
    return csr(inside.sum(axis=1), columns, np.ones(len(columns), np.int8), axis.rows(not transposed))
