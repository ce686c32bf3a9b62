"""Some rows of AᴴA, for what is made of a few of them: many rows at once, as all rows of a kind hold the same values.

An entry is a sum over pairs of taps, axis by axis (see `_gram`). Which pairs a row and a column meet through is a sparse
matrix for each axis, of a few kinds of rows. Its product with the products of taps gives the values of all kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from scipy import sparse

from convmat.geometry import Array, Axis, Border, ConvolutionGeometry, IntArray
from convmat.matrices._gram import pair_products
from convmat.matrices._gram_axis import GramAxis

_BLOCK = 1 << 17  # values that are given at a time


@dataclass(frozen=True)
class _Kinds:
    """The kinds of rows of an axis.

    Attributes
    ----------
    of_row : int64 array (rows,)
        The kind of each row.
    offsets : int64 array (O,)
        The columns of all kinds less their rows, ascending; on a circle, the shorter way around.
    meetings : csr_array (kinds · O, taps²)
        How often a row of a kind meets a column through a pair of taps.
    around : bool
        Whether the axis is a circle.
    """

    of_row: IntArray
    offsets: IntArray
    meetings: sparse.csr_array
    around: bool

    @classmethod
    def of(cls, axis: Axis, transposed: bool) -> _Kinds:
        gram, around = GramAxis.of(axis, transposed), axis.border is Border.SHIFTED
        half = gram.rows // 2

        def near(offsets: IntArray) -> IntArray:
            return (offsets + half) % gram.rows - half if around else offsets

        offsets = np.unique(np.concatenate([np.zeros(1, np.int64), *(near(kind.columns) for kind in gram.classes)]))
        of_row = np.zeros(gram.rows, np.int64)
        found, pairs, taps = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], np.arange(axis.taps)
        for number, kind in enumerate(gram.classes):
            for run in kind.runs:
                of_row[run.start : run.stop : run.step] = number
            places = number * len(offsets) + np.searchsorted(offsets, near(kind.columns))
            for meeting in kind.meetings():
                found.append(places[meeting.columns])
                pairs.append(meeting.tap * axis.taps + taps[meeting.taps])
        rows, columns = np.concatenate(found), np.concatenate(pairs)
        shape = len(gram.classes) * len(offsets), axis.taps**2
        return cls(of_row, offsets, sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape), around)

    @property
    def count(self) -> int:
        """The number of kinds."""
        return self.meetings.shape[0] // len(self.offsets)


class GramRows:
    """Rows of AᴴA, where A is W or Wᵀ.

    Parameters
    ----------
    geometry : ConvolutionGeometry
        The convolution.
    kernel : array
        Its kernel, of shape ``geometry.kernel_shape``.
    transposed : bool
        Whether A is Wᵀ.

    Attributes
    ----------
    offsets : int64 array (columns, N)
        Where columns are, less the position of their row, on each axis; sorted. Not all rows have all of them: beyond an end
        there is none, and values may be zero.
    around : tuple of bool
        Which axes are circles, on which an offset leads around.
    """

    def __init__(self, geometry: ConvolutionGeometry, kernel: Array, transposed: bool) -> None:
        self._axes = [_Kinds.of(axis, transposed) for axis in geometry.axes]
        pairs = pair_products(geometry, kernel, transposed)
        self._channels = pairs.shape[2 * len(self._axes) :]
        self._pairs = pairs.reshape(*(axis.meetings.shape[1] for axis in self._axes), prod(self._channels))
        grid = np.meshgrid(*(axis.offsets for axis in self._axes), indexing="ij")
        self.offsets = np.stack([each.ravel() for each in grid], axis=1)
        self.around = tuple(axis.around for axis in self._axes)

    def of(self, places: IntArray, chosen: IntArray) -> Iterator[tuple[IntArray, Array]]:
        """Yield the values of rows, some rows at a time.

        Parameters
        ----------
        places : int64 array (rows, N)
            The positions of the rows.
        chosen : int64 array
            Which of the `offsets` are wanted.

        Yields
        ------
        numbers : int64 array (n,)
            Which of the rows follow.
        values : array (n, len(chosen), G, C, C)
            Their values, for each group and each pair of its channels, those of the row first.
        """
        kinds = np.stack([axis.of_row[place] for axis, place in zip(self._axes, places.T, strict=True)], axis=1)
        if len(places):
            yield from self._of_kinds(self._pairs, kinds, np.arange(len(places)), chosen, 0)

    def _of_kinds(
        self, pairs: Array, kinds: IntArray, numbers: IntArray, chosen: IntArray, depth: int
    ) -> Iterator[tuple[IntArray, Array]]:
        """Yield the values of rows that are of one kind on the first axes; `pairs` is what remains to be summed."""
        axis, rest = self._axes[depth], pairs.shape[1:]
        order = numbers[np.argsort(kinds[numbers, depth], kind="stable")]
        if depth < len(self._axes) - 1:
            found, starts = np.unique(kinds[order, depth], return_index=True)
            for kind, some in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
                meetings = axis.meetings[kind * len(axis.offsets) : (kind + 1) * len(axis.offsets)]
                summed = (meetings @ pairs.reshape(len(pairs), -1)).reshape(-1, *rest)
                # The columns come behind the pairs of the other axes, and in front of the channels.
                yield from self._of_kinds(np.moveaxis(summed, 0, -2), kinds, some, chosen, depth + 1)
            return
        summed = (axis.meetings @ pairs.reshape(len(pairs), -1)).reshape(axis.count, -1, *rest)
        table = np.moveaxis(summed, 1, -2).reshape(axis.count, -1, rest[-1])[:, chosen]
        size = max(1, _BLOCK // max(1, table[0].size))
        for first in range(0, len(order), size):
            some = order[first : first + size]
            yield some, table[kinds[some, depth]].reshape(len(some), len(chosen), *self._channels)
