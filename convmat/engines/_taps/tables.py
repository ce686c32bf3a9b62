"""What a product of the engine `taps` does, as tables of integers that follow from the geometry alone.

A product with V or Vᵀ is a few *sweeps*, one for each combination of the axes' `Phases`. A sweep is a matrix product,

    result[row, p] = Σ_k weight[row, k] · plane[k][p + offset[k]].

- A *row* is a channel of the results and one *class* of them: those of V have one class, those of Vᵀ one for each phase of
  inputs that has the same reads. Where there would be one row only, up to four neighbouring lines of results are classes,
  a *band*, so that what is loaded is used by all of them.
- A *plane* is one channel of the source, in one phase, padded with zeros and flattened; a *line* of it runs along the last
  axis. Factor k is a source channel and a read: a view of a plane, shifted by offset[k]. So nothing is gathered, im2col's
  matrix is never built, and the product knows no stride: the phases have done with it.
- A *position* p is an element of a plane. A few positions, between the end of a line and the beginning of the next, belong
  to no result; what is computed there is not stored.

The matrix product is blocked for registers and caches (Goto and van de Geijn, Anatomy of high-performance matrix
multiplication, ACM Transactions on Mathematical Software 34, 2008). A *tile*, of a block of rows × a few vectors of
positions, is summed up in registers. A *strip* is a sequence of tiles. What they read, *segments* of planes, is packed into
one buffer that stays in the second-level cache. Where planes need no padding and are near, they are read in place instead.
A *task* is a strip and a range of the blocks of rows.

The example of `phases`, 3 taps over 7 inputs at stride 2 with padding 1, on vectors of 4 elements, has for V::

    packed copy  0 x1 x3 x5 0 …, and from element 16 on x0 x2 x4 x6
    offsets      0 16 1, of the taps 0, 1 and 2 (here in elements)
    segments     source  phase  low high  start extra  packed
                     −1      0    1    4      0     1       0    x1 x3 x5 are there; one element more, for offset 1
                      0      0    0    4      0     0      16    x0 x2 x4 x6 are there
    tiles        position 0, target −1: it is wider than the 4 results
    classes       lines  low high  target
                      0    0    4       0                        y0 to y3, from target 0 on

and for Vᵀ two sweeps of one class each: phase 0 has offsets 0 and 1 (K2 and K0), and 3 results, stored at 1, 3 and 5;
phase 1 has offset 0 (K1), and 4 results, stored at 0, 2, 4 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convmat.geometry import IntArray

Records = npt.NDArray[np.void]


def _record(names: str) -> np.dtype[np.void]:
    """Return the dtype of records of int64."""
    return np.dtype([(name, np.int64) for name in names.split()])


# The records that cross into compiled code. All distances are in elements, of float32 or float64.

SIZES = _record(
    "strips"  # of a group
    " tiles_per_strip"  # but for the last strip
    " ranges"  # of blocks of rows: each is a task of its own
    " groups"
    " blocks"  # of rows of a group
    " tile_major"  # 1 to do all blocks of a tile before the next tile, 0 for all tiles of a block first
    " source_batch source_group"  # distance of arrays of a batch and of groups, in the source
    " target_batch target_group target_channel"  # and in the target
    " line_length plane_size"  # positions of a line, and of a plane
    " source_step target_step"  # distance of neighbouring positions of a line, in the source and in the target
    " row_distance"  # in the target, of the rows of a tile that is stored in place
    " group_rows"  # rows of a group: channels × classes
    " tile_rows tile_vectors"  # shape of a tile
)
SEGMENT = _record(
    "source"  # element of the group's source at coordinate 0 of a line, but for what `source_lines` adds
    " phase"  # row of `source_lines`
    " low high"  # coordinates of a line that the source has; the others are padding
    " start"  # first position to copy, relative to the first of the strip
    " extra"  # positions to copy beyond the length of the strip
    " packed"  # where to, in the packed copy
)
TILE = _record(
    "position"  # the first
    " target"  # where row 0 is stored in place, relative to its channel; −1 where some positions are no results
)
CLASS = _record(
    "lines"  # row of `target_lines`
    " low high"  # coordinates of a line that are results
    " target"  # element of the channel at coordinate 0 of a line, but for what `target_lines` adds
)


class Fit(NamedTuple):
    """What the tables have to fit."""

    lanes: int  # elements of a vector
    registers: int  # for vectors
    itemsize: int  # bytes of an element
    components: int  # 2 where numbers are complex: real and imaginary elements, mixed as if they were channels
    workers: int  # threads


class Tables(NamedTuple):
    """What the compiled loop takes, in this order."""

    sizes: Records  # one of SIZES
    offsets: IntArray  # of each factor k, in bytes, from position 0 of a strip's copy or of the source
    counts: IntArray  # factors of each range of a tile's rows that take part, as `simd.row_spans` lists the ranges
    segments: Records  # of SEGMENT; none where planes are read in place
    source_lines: IntArray  # (phases, lines): where a plane's lines begin in a channel, or −1 for one of padding
    tiles: Records  # of TILE
    target_lines: IntArray  # (classes, lines): where a plane's lines are stored in a channel, or −1 for nowhere
    classes: Records  # of CLASS, one for each row of a channel


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep of a product.

    Attributes
    ----------
    tile : tuple of int
        Rows, vectors, and whether the rows are a band: the compiled variant.
    tables : Tables
        What the compiled loop takes.
    tasks : int
        Number of tasks for each array of a batch.
    scratch : int
        Elements of scratch memory for a task.
    blocks : int
        Number of blocks of rows.
    channels, components, reads : int64 array
        For each factor k, the source channel in the group, the component of its numbers, and the column in `taps`.
    taps : int64 array
        The tap in the raveled kernel for each class and read; negative where the class does not use the read.
    """

    tile: tuple[int, int, int]
    tables: Tables
    tasks: int
    scratch: int
    blocks: int
    channels: IntArray
    components: IntArray
    reads: IntArray
    taps: IntArray


def records(dtype: np.dtype[np.void], *columns: IntArray | int) -> Records:
    """Return an array of records from the columns of its fields, in their order."""
    table = np.stack(np.broadcast_arrays(*map(np.atleast_1d, columns)), axis=1)
    return np.ascontiguousarray(table, np.int64).view(dtype).ravel()
