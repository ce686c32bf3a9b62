"""The tables of the engine `taps`: what a product reads and writes, as integers that follow from the geometry alone.

A product with V or Vᵀ is a few *sweeps* over *positions*. In a sweep every result is

    result[row, p] = Σ_k weights[k, row] · plane[k][p + offset[k]],

with the same reads k for all rows. A *plane* is one channel of the source, padded with zeros, flattened, and, where V has a
stride s, only each s-th element of it, beginning with one of s *phases*. So each factor of the implicit matrix product is
a shifted view of a plane, and nothing is gathered. A *kind* of row is where its results belong and which taps they are
read through: V has one kind; Vᵀ has one for each phase of the target, and the phases that read alike share a sweep. Rows are
all channels × kinds. Where there is one row only, neighbouring output rows become kinds, to share what they read.

Positions of all axes are flattened together with the planes, and a few of them, between the end of one line and the
beginning of the next, belong to no result. A *tile* is a range of positions computed at once, a *strip* a range of
tiles that one task computes from one packed copy of what they read. A *piece* is a part of a plane that a strip needs.
Where planes need no padding, they are read in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convmat.engines._taps.patterns import Line, Pattern, banded, patterns
from convmat.geometry import IntArray

PACKED = 1 << 19  # bytes of a strip's packed copy, for about half of a second-level cache
_SHARES = 4  # tasks for each worker, so that they end at about the same time
_NONE = -(1 << 56)  # in sums of offsets: outside; in sums of taps: none


class Fit(NamedTuple):
    """What the tables have to fit: elements of a vector, registers, bytes of an element, numbers in it, threads."""

    lanes: int
    registers: int
    itemsize: int
    parts: int  # 2 where elements are complex: pairs of numbers, mixed as if they were channels
    workers: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep of a product.

    Attributes
    ----------
    tile : tuple of int
        Rows, vectors, and whether the rows are neighbouring results: the compiled variant.
    tables : tuple of int64 array
        What the compiled loop takes: sizes, offsets, counts, pieces, source_rows, tiles, targets, kinds.
    tasks : int
        Number of tasks for each array of a batch.
    scratch : int
        Elements of scratch memory for a task.
    blocks : int
        Number of blocks of rows.
    channels, parts, reads : int64 array
        For each k, the source channel in the group, the part of its element, and the column in `taps`.
    taps : int64 array
        The tap in the raveled kernel for each kind and read; negative where the kind does not take part.
    """

    tile: tuple[int, int, int]
    tables: tuple[IntArray, ...]
    tasks: int
    scratch: int
    blocks: int
    channels: IntArray
    parts: IntArray
    reads: IntArray
    taps: IntArray


def sweeps(
    lines: Sequence[Line], transposed: bool, groups: int, sources: int, results: int, fit: Fit
) -> tuple[list[Sweep], bool]:
    """Return the sweeps of a product, and whether there are results that none of them computes, which are 0.

    Parameters
    ----------
    lines : sequence of Line
        The axes.
    transposed : bool
        The direction.
    groups, sources, results : int
        Number of groups, and of channels of a group that are read and computed.
    fit : Fit
        What the tables have to fit.
    """
    found, missing = [], False
    shape = [line.size if transposed else line.outputs for line in lines]
    kernel = [line.taps for line in lines]
    for combination in product(*(patterns(line, transposed) for line in lines)):
        if all(pattern.reads for pattern in combination):
            found.append(_Builder(list(combination), shape, kernel, groups, sources, results, fit).sweep())
        else:
            missing = True
    return found, missing


class _Builder:
    """Computes the tables of one sweep from its patterns."""

    def __init__(
        self,
        axes: list[Pattern],
        shape: list[int],
        kernel: list[int],
        groups: int,
        sources: int,
        results: int,
        fit: Fit,
    ) -> None:
        self.groups, self.sources, self.results, self.fit, self.shape = groups, sources, results, fit, shape
        self.banded = False
        if results * fit.parts * prod(len(axis.kinds) for axis in axes) == 1 and len(axes) > 1:
            axes[-2] = banded(axes[-2], 4 if fit.registers > 16 else 3)
            self.banded = len(axes[-2].kinds) > 1
        self.axes = axes
        self.grid = [axis.extent for axis in axes]
        self.steps = _steps(self.grid)
        steps = _steps([len(axis.used) for axis in axes])
        self.phase = _outer_sum(
            np.searchsorted(axis.used, [phase for phase, _ in axis.reads]) * step
            for axis, step in zip(axes, steps, strict=True)
        )
        self.offset = _outer_sum(
            [(delta + axis.low - axis.start) * step for _, delta in axis.reads]
            for axis, step in zip(axes, self.steps, strict=True)
        )
        self.taps = np.repeat(
            _outer_table(
                [[tap * step if tap >= 0 else _NONE for tap in kind.taps] for kind in axis.kinds]
                for axis, step in zip(axes, _steps(kernel), strict=True)
            ),
            fit.parts,
            axis=0,
        )
        self.targets, self.kinds = self._targets()

    def sweep(self) -> Sweep:
        """Return the sweep."""
        fit, last = self.fit, self.axes[-1]
        channels, parts, reads, counts = self._order()
        rows, vectors = self._tile_shape()
        width = vectors * fit.lanes
        positions = self._tile_starts(width)
        blocks = -(-self.results * len(self.kinds) // rows)
        direct = self._is_direct(width, blocks)
        weights = blocks * rows * len(reads) * fit.itemsize
        shares, per_strip = self._division(positions, width, blocks, weights, direct)
        strips = -(-len(positions) // per_strip)
        if direct:
            source_rows, pieces, packed = np.zeros((1, 1), np.int64), np.zeros((0, 7), np.int64), 0
            offsets = channels * prod(self.grid) + self.offset[reads]
        else:
            source_rows = self._source_rows()
            pieces, place, packed = self._pieces(_longest(positions, per_strip) + width)
            offsets = place[channels, parts, reads]
        source = prod(axis.size for axis in self.axes) * fit.parts
        target = prod(self.shape) * fit.parts
        row_distance = self.axes[-2].kinds[0].step * self.shape[-1] if self.banded else target
        sizes = [
            strips, per_strip, shares, self.groups, blocks, weights <= PACKED,
            self.groups * self.sources * source, self.sources * source,
            self.groups * self.results * target, self.results * target, target,
            self.grid[-1], prod(self.grid), last.phases * fit.parts, last.kinds[0].step * fit.parts,
            row_distance, self.results * len(self.kinds),
        ]  # fmt: skip
        tables = (
            np.array(sizes, np.int64), offsets * fit.itemsize, counts, pieces, source_rows,
            self._tiles(positions, width, row_distance), self.targets, self.kinds,
        )  # fmt: skip
        # A tile for results that are not stored in place, the packed copy, and a vector that zeros are written beyond it.
        scratch = rows * width + packed + fit.lanes
        tasks = strips * shares * self.groups
        return Sweep(
            (rows, vectors, int(self.banded)), tables, tasks, scratch, blocks, channels, parts, reads, self.taps
        )

    def _order(self) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Return channel, part and read of each k, and how many k there are for each range of rows that take part."""
        active, rows = self.taps >= 0, len(self.taps)
        segment, segments = np.zeros(len(self.offset), np.int64), 1
        if self.banded:
            first, last = active.argmax(axis=0), rows - 1 - active[::-1].argmax(axis=0)
            segment, segments = np.where(first == 0, last, rows - 1 + first), 2 * rows - 1
        order = np.indices((self.sources, self.fit.parts, len(self.offset))).reshape(3, -1)
        order = order[:, np.argsort(segment[order[2]], kind="stable")]
        counts = np.bincount(segment[order[2]], minlength=segments)
        return order[0], order[1], order[2], counts.astype(np.int64)

    def _targets(self) -> tuple[IntArray, IntArray]:
        """Return where each row of positions belongs, for all kinds but those of the last axis; and the table of kinds.

        A kind has its row in the first table, the range of valid positions in a row, and what to add to the target.
        """
        parts, last = self.fit.parts, self.axes[-1]
        targets = _outer_table(map(self._axis_targets, range(len(self.axes) - 1)))
        kinds = [
            (row, kind.low - last.low, kind.high - last.low, (last.low * kind.step + kind.first) * parts + part)
            for row in range(len(targets))
            for kind in last.kinds
            for part in range(parts)
        ]
        return np.where(targets < 0, -1, targets), np.array(kinds, np.int64)

    def _axis_targets(self, number: int) -> list[IntArray]:
        """Return where the positions of an axis belong, for each of its kinds."""
        axis, step = self.axes[number], _steps(self.shape)[number] * self.fit.parts
        q = np.arange(axis.low, axis.low + axis.extent)
        targets = []
        for row, kind in enumerate(axis.kinds):
            stored = (q >= kind.low) & (q < kind.high)
            if self.banded and number == len(self.axes) - 2:
                stored &= self._is_stored(q - axis.low, row)
            targets.append(np.where(stored, (q * kind.step + kind.first) * step, _NONE))
        return targets

    def _tile_shape(self) -> tuple[int, int]:
        """Return the rows and vectors of a tile that take the least time, by a model of the processor's ports."""
        registers, total = self.fit.registers, self.results * len(self.kinds)
        best = (float("inf"), 0, 0)
        for rows in (total,) if self.banded else (8, 6, 4, 3, 2, 1) if registers > 16 else (4, 3, 2, 1):
            most = min(12, (registers - 1) // (rows + 1))
            for vectors in {1, 2, 4} if self.banded else {1, 2, 4, most}:
                if vectors <= most:
                    _, runs, tiles = self._runs(vectors * self.fit.lanes)
                    # In a cycle, two multiplications or two loads, of which most unaligned ones count twice.
                    cycles = max(rows * vectors, rows + 2 * vectors, 8) / 2
                    best = min(best, (-(-total // rows) * runs * tiles * cycles, -rows, -vectors))
        return -best[1], -best[2]

    def _runs(self, width: int) -> tuple[int, int, int]:
        """Return how tiles cover the positions: by runs over the last axes, from which one on; how many, of how many tiles.

        A run goes on over the end of a line where few positions without results lie between this and the next.
        """
        best = (0, 0, 0)
        for first in [len(self.axes) - 1] if self.banded else range(len(self.axes)):
            runs, tiles = prod(map(len, self._run_starts(first))), -(-self._run_length(first) // width)
            if not best[1] or runs * tiles < best[1] * best[2]:
                best = first, runs, tiles
        return best

    def _run_length(self, first: int) -> int:
        """Return the positions of a run over the axes from `first` on."""
        return 1 + sum(
            (axis.positions - 1) * step for axis, step in zip(self.axes[first:], self.steps[first:], strict=True)
        )

    def _run_starts(self, first: int) -> list[IntArray]:
        """Return where runs start, for each axis before `first`."""
        starts = [np.arange(axis.positions) for axis in self.axes[:first]]
        if self.banded:
            starts[-1] = self._bands()[1]
        return [start * step for start, step in zip(starts, self.steps, strict=False)]

    def _bands(self) -> tuple[IntArray, IntArray]:
        """Return the first row that each band adds, and where it starts: the last one overlaps rather than ends late."""
        rows, count = len(self.axes[-2].kinds), self.axes[-2].positions
        first = np.arange(0, count, rows)
        return first, np.minimum(first, count - rows)

    def _is_stored(self, positions: IntArray, row: int) -> npt.NDArray[np.bool_]:
        """Tell at which positions a row of a tile is stored: where bands start, but what another band has, too.

        The order of a row's sum depends on its place in the band. With two bands, the last digits of a result would depend
        on which thread is the last to store it.
        """
        first, starts = self._bands()
        return np.isin(positions, starts[starts + row >= first])

    def _tile_starts(self, width: int) -> IntArray:
        """Return the first positions of the tiles; the last tile of a run overlaps another rather than end after the run."""
        first, _, tiles = self._runs(width)
        run = np.minimum(np.arange(tiles) * width, max(0, self._run_length(first) - width))
        return _outer_sum([*self._run_starts(first), run])

    def _tiles(self, positions: IntArray, width: int, row_distance: int) -> IntArray:
        """Return each tile's first position and, where it is nothing but results in one row each, its target, else −1."""
        row, column = np.divmod(positions, self.grid[-1])
        table, low, high, base = self.kinds[0]
        target = self.targets[table, row]
        whole = (target >= 0) & (column >= low) & (column + width <= high)
        whole &= self.axes[-1].kinds[0].step * self.fit.parts == 1
        for number, kind in enumerate(self.kinds):
            whole &= self.targets[kind[0], row] == target + number * row_distance if self.banded else number == 0
        return np.ascontiguousarray(np.stack([positions, np.where(whole, target + base + column, -1)], axis=1))

    def _is_direct(self, width: int, blocks: int) -> bool:
        """Whether the source is read in place: planes are the source itself, no tile ends after the last, and it is near.

        A plane begins `before` coordinates ahead of the source. It is the source itself where the coordinates that are
        read begin where this padding ends, and are as many as the source has.
        """
        as_it_is = self.fit.parts == 1 and all(
            axis.phases == 1 and axis.start == axis.before and axis.extent == axis.size for axis in self.axes
        )
        near = self.sources * prod(self.grid) * self.fit.itemsize <= PACKED or blocks == 1
        return as_it_is and near and self._run_length(self._runs(width)[0]) >= width

    def _division(self, positions: IntArray, width: int, blocks: int, weights: int, direct: bool) -> tuple[int, int]:
        """Return into how many shares the blocks of rows are divided, and how many tiles make a strip."""
        workers = self.fit.workers
        wanted = -(-_SHARES * workers // self.groups) if workers > 1 else 1
        shares = 1
        if weights > PACKED and blocks >= 2 * workers:  # better than to read all weights again for each strip
            shares = min(wanted, blocks)
        per_strip = max(1, len(positions) * shares // max(wanted, shares))
        bytes_ = self.sources * self.fit.parts * self.fit.itemsize
        order = np.lexsort((self.offset, self.phase))
        changes = np.diff(self.phase[order]) != 0
        gaps = np.diff(self.offset[order])[~changes]
        while per_strip > 1 and not direct:
            length = _longest(positions, per_strip) + width
            if (length * (1 + changes.sum()) + np.minimum(gaps, length).sum()) * bytes_ <= PACKED:
                break
            per_strip = per_strip * 3 // 4
        return shares, per_strip

    def _source_rows(self) -> IntArray:
        """Return where the rows of a plane begin in a channel, or −1, for each phase used of all axes but the last."""
        steps = _steps([axis.size for axis in self.axes])
        table = _outer_table(
            [
                np.where((source >= 0) & (source < axis.size), source * step * self.fit.parts, _NONE)
                for phase in axis.used
                for source in [np.arange(axis.start, axis.start + axis.extent) * axis.phases + phase - axis.before]
            ]
            for axis, step in zip(self.axes[:-1], steps, strict=False)
        )
        return np.where(table < 0, -1, table)

    def _pieces(self, length: int) -> tuple[IntArray, IntArray, int]:
        """Return the pieces of a strip, where each (channel, part, read) lies in the packed copy, and its elements."""
        parts, last = self.fit.parts, self.axes[-1]
        order = np.lexsort((self.offset, self.phase))
        phase, offset = self.phase[order], self.offset[order]
        new = np.concatenate([[True], (np.diff(phase) != 0) | (np.diff(offset) > length)])
        piece, start = np.cumsum(new) - 1, offset[new]
        extra = offset[np.concatenate([np.flatnonzero(new)[1:], [len(new)]]) - 1] - start
        # An odd number of cache lines: with powers of two, pieces would compete for the same places in a cache.
        sizes = ((length + extra + 15) // 16 | 1) * 16
        ends = np.cumsum(sizes)
        place = np.empty_like(self.offset)
        place[order] = (ends - sizes)[piece] + offset - start[piece]
        row, column = np.divmod(phase[new], len(last.used))
        base = (last.start * last.phases + np.array(last.used)[column] - last.before) * parts
        inside = np.array([last.inside(number) for number in last.used])[column]
        one = np.stack([base, row, *inside.T, start, extra, ends - sizes], axis=1)
        copies = np.arange(self.sources * parts)[:, None]  # channels, and parts of their elements
        pieces = np.tile(one, (len(copies), 1)).reshape(len(copies), *one.shape)
        channel = prod(axis.size for axis in self.axes) * parts
        pieces[:, :, 0] += copies // parts * channel + copies % parts
        pieces[:, :, 6] += copies * ends[-1]
        place = (place + copies * ends[-1]).reshape(self.sources, parts, -1)
        return pieces.reshape(-1, 7), place, int(len(copies) * ends[-1])


def _longest(positions: IntArray, count: int) -> int:
    """Return the longest distance from the first to the last of `count` tiles."""
    return int(np.max(positions[count - 1 :] - positions[: len(positions) - count + 1]))


def _steps(shape: Sequence[int]) -> list[int]:
    """Return the distances of neighbours along each axis of a C-ordered array."""
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _outer_sum(terms: Iterable[IntArray | Sequence[int]]) -> IntArray:
    """Return all sums of one term from each, raveled."""
    total = np.zeros(1, np.int64)
    for term in terms:
        total = np.add.outer(total, np.asarray(term, np.int64)).ravel()
    return total


def _outer_table(tables: Iterable[Sequence[IntArray | Sequence[int]]]) -> IntArray:
    """Return the outer sums of tables: rows of all rows, columns of all columns."""
    total = np.zeros((1, 1), np.int64)
    for rows in tables:
        table = np.array(rows, np.int64)
        total = (total[:, None, :, None] + table[None, :, None, :]).reshape(len(total) * len(table), -1)
    return total
