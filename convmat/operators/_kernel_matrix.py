"""The matrix X of products as a function of the kernel, written directly, and XᴴX without it.

All channels of X share one list of pairs: output q meets source p through tap t. A row of a convolution's X belongs to an
output channel o and a position q, and holds x[i, p] in the column of K[o, i, t]. A row of a transposed convolution's X
belongs to a channel i and a position p, and holds x[o, q] in that column. So they differ in which of q and p is the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from convmat._runtime import available_memory, call_single_threaded, check_memory
from convmat.engines import correlate, matmul, pad, view_windows
from convmat.geometry import Array, ConvolutionGeometry, IntArray, index_dtype
from convmat.matrices import check_rows

_CHUNK = 8 << 20  # bytes of dense rows that are multiplied at a time


class Pairs(NamedTuple):
    """What rows meet, in order of row and tap.

    Attributes
    ----------
    rows, taps, sources : array of int
        The position of a row, the tap and the position of what it meets, of each pair.
    firsts : array of int or None
        The first pair of each entry of X, where several pairs have the same row and tap, and are added up.
    """

    rows: IntArray
    taps: IntArray
    sources: IntArray
    firsts: IntArray | None


@dataclass(frozen=True)
class KernelMatrix:
    """X for one input.

    Attributes
    ----------
    geometry : ConvolutionGeometry
        The convolution, or that which a transposed one transposes.
    transposed : bool
        Whether the products are of a transposed convolution.
    flip : bool
        Whether the kernel's spatial axes are reversed before it is used.
    x : array (B, C, *spatial)
        The input.
    """

    geometry: ConvolutionGeometry
    transposed: bool
    flip: bool
    x: Array

    @property
    def idle_taps(self) -> IntArray:
        """The positions of taps that meet nothing, (n, axes)."""
        idle: IntArray = np.argwhere(~self._table.any(axis=0).reshape(self.geometry.spatial_kernel))
        return idle

    @cached_property
    def _table(self) -> IntArray:
        """The position of the input that each output meets through each tap, (outputs, taps), from 1 on; 0 for none."""
        geometry = self.geometry
        size, axes = prod(geometry.spatial_input), len(geometry.axes)
        one = ConvolutionGeometry(  # of a single channel
            geometry.spatial_kernel,
            geometry.spatial_input,
            stride=geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
            padding_mode=geometry.padding_mode,
        )
        numbers = padded(np.arange(1, size + 1).reshape(1, 1, *geometry.spatial_input), one)
        seen = view_windows(numbers, one.padded)[0, 0, 0]  # (*k, *outputs)
        table = seen.transpose(*range(axes, 2 * axes), *range(axes)).reshape(prod(geometry.spatial_output), -1)
        ordered: IntArray = table[:, ::-1] if self.flip else table
        return ordered

    @cached_property
    def _pairs(self) -> Pairs:
        outputs, taps = self._table.nonzero()
        sources = self._table[outputs, taps] - 1
        if not self.transposed:
            return Pairs(outputs, taps, sources, None)
        order = np.lexsort((taps, sources))  # stable: the outputs remain in order
        rows, taps, outputs = sources[order], taps[order], outputs[order]
        new = np.ones(len(rows), bool)
        new[1:] = (np.diff(rows) != 0) | (np.diff(taps) != 0)
        firsts = new.nonzero()[0]
        if len(firsts) == len(rows):
            return Pairs(rows, taps, outputs, None)
        return Pairs(rows[firsts], taps[firsts], outputs, firsts)

    @property
    def _channels(self) -> tuple[int, int]:
        """The channels of a group: of the rows, and of what they meet."""
        geometry = self.geometry
        inner, outer = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
        return (inner, outer) if self.transposed else (outer, inner)

    @property
    def _positions(self) -> int:
        """The positions of a row's channel."""
        return prod(self.geometry.spatial_input if self.transposed else self.geometry.spatial_output)

    def tocsr(self, rows: Any = None) -> sparse.csr_array:
        """Return the matrix, or a range of its rows."""
        geometry, groups = self.geometry, self.geometry.groups
        own, met = self._channels
        positions = self._positions
        height = len(self.x) * groups * own * positions
        start, stop = check_rows(rows, height) or (0, height)
        taps = prod(geometry.spatial_kernel)
        blocks = range(start // positions, -(-stop // positions)) if stop > start else range(0)  # one for each channel
        entries = len(self._pairs.taps) * met
        nnz, width = entries * len(blocks), groups * own * met * taps
        index = index_dtype(nnz, width, height)
        check_memory(
            lambda: f"the matrix X of {nnz} nonzeros takes",
            nnz * (self.x.itemsize + index.itemsize) + entries * (16 + self.x.itemsize),
            "apply it without storing it, or build a range of its rows with rows=",
            available_memory,
        )
        place, columns, counts = self._layout(index)
        data, indices = np.empty(nnz, self.x.dtype), np.empty(nnz, index)
        written = None
        for number, block in enumerate(blocks):
            item, channel = divmod(block, groups * own)
            group, channel = divmod(channel, own)
            some = slice(number * entries, (number + 1) * entries)
            if written == (item, group):  # channels of a group hold the same values
                data[some] = data[(number - 1) * entries : number * entries]
            else:
                data[some][place] = self._values(item, group)
                written = item, group
            # K[o, i, t] is K[row, met, t] of a convolution, and K[met, row, t] of a transposed one.
            first = group * met * own + channel if self.transposed else (group * own + channel) * met
            np.add(columns, first * taps, out=indices[some])
        indptr = np.zeros(len(blocks) * positions + 1, index)
        np.cumsum(np.tile(counts, len(blocks)), out=indptr[1:])
        matrix = sparse.csr_array((data, indices, indptr), shape=(len(blocks) * positions, width))
        matrix.has_canonical_format = True
        if stop - start == matrix.shape[0]:
            return matrix
        offset = start - blocks.start * positions if len(blocks) else 0
        return matrix[offset : offset + stop - start]

    def _layout(self, index: np.dtype[Any]) -> tuple[IntArray, IntArray, IntArray]:
        """Return of a channel's rows where values (channels met, pairs) go, their columns in place, and the rows' counts."""
        rows, taps, _, _ = self._pairs
        own, met = self._channels
        pairs_of = np.bincount(rows, minlength=self._positions)
        before = np.cumsum(pairs_of) - pairs_of  # pairs of the rows before
        number = np.arange(len(rows)) - before[rows]  # of a pair in its row
        place = (before * met)[rows] + number + np.arange(met)[:, None] * pairs_of[rows]
        distance = prod(self.geometry.spatial_kernel) * (
            own if self.transposed else 1
        )  # of channels met, in the kernel
        columns = np.empty(place.size, index)
        columns[place] = taps + np.arange(met)[:, None] * distance
        return place, columns, pairs_of * met

    def _values(self, item: int, group: int) -> Array:
        """Return what the rows of a group hold, (channels met, entries)."""
        met = self._channels[1]
        values = self.x[item, group * met : (group + 1) * met].reshape(met, -1)[:, self._pairs.sources]
        return values if self._pairs.firsts is None else np.add.reduceat(values, self._pairs.firsts, axis=1)

    def gram(self, workers: int) -> Array:
        """Return XᴴX, block by block."""
        groups, taps = self.geometry.groups, prod(self.geometry.spatial_kernel)
        own, met = self._channels
        # K[g, row, met, t] of a convolution, K[g, met, row, t] of a transposed one.
        shape = (groups, met, own, taps) if self.transposed else (groups, own, met, taps)
        result = np.zeros((*shape, *shape), self.x.dtype)
        if self.transposed:
            grams = call_single_threaded(lambda: list(self._scattered_gram()))
        else:
            grams = list(self._gathered_gram(workers))
        for group, block in enumerate(grams):
            block = block.reshape(met, taps, met, taps)
            for channel in range(own):
                result[self._at(group, channel)] = block
        return result.reshape(prod(shape), prod(shape))

    def _at(self, group: int, channel: int) -> tuple[Any, ...]:
        """Return the index of a channel's block in XᴴX (kernel, kernel)."""
        every = slice(None)
        half = (group, every, channel, every) if self.transposed else (group, channel, every, every)
        return half * 2

    def _gathered_gram(self, workers: int) -> Array:
        """Return for each group the sums of products of what two taps meet, (groups, met · taps, met · taps)."""
        grams = correlate(padded(self.x, self.geometry), None, self.geometry.padded, workers)
        if self.flip:
            taps = prod(self.geometry.spatial_kernel)
            blocks = grams.reshape(len(grams), -1, taps, grams.shape[2] // taps, taps)
            grams = blocks[:, :, ::-1, :, ::-1].reshape(grams.shape)
        return grams

    def _scattered_gram(self) -> Array:
        """Return the same of a transposed convolution, from some rows of one channel of each group at a time."""
        taps = prod(self.geometry.spatial_kernel)
        own, met = self._channels
        grams = np.zeros((self.geometry.groups, met * taps, met * taps), self.x.dtype)
        height = max(1, _CHUNK // max(1, met * taps * self.x.itemsize))
        place, columns, counts = self._layout(np.dtype(np.intp))
        columns = columns % taps + columns // (taps * own) * taps  # of one channel of the rows
        ends = np.concatenate([[0], np.cumsum(counts)])
        for item in range(len(self.x)):
            for group in range(len(grams)):
                data = np.empty(place.size, self.x.dtype)
                data[place] = self._values(item, group)
                for first in range(0, self._positions, height):
                    last = min(first + height, self._positions)
                    some = slice(ends[first], ends[last])
                    dense = np.zeros((last - first, met * taps), self.x.dtype)
                    dense[np.repeat(np.arange(last - first), counts[first:last]), columns[some]] = data[some]
                    grams[group] += matmul(dense.conj().T, dense)
        return grams


def padded(x: Array, geometry: ConvolutionGeometry) -> Array:
    """Return the padded inputs (B, C_in, *padded), C-contiguous."""
    if not any(map(any, geometry.padding)):
        return np.ascontiguousarray(x)
    out = np.empty((*x.shape[:2], *geometry.padded.spatial_input), x.dtype)
    pad(x, geometry, out)
    return out
