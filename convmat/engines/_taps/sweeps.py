"""Builds the sweeps of a product of the engine `taps`. `phases` has the axes, `tables` the idea and the words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from convmat.engines._taps.phases import Phases, banded, result_phases
from convmat.engines._taps.tables import CLASS, SEGMENT, SIZES, TILE, Fit, Records, Sweep, Tables, records
from convmat.engines._taps.tiling import Tiling, longest, most_bands, outer_sum, outer_table, steps
from convmat.geometry import Axis, IntArray

PACKED = 1 << 19  # bytes of a strip's packed copy, for about half of a second-level cache
_TASKS = 4  # tasks for each worker, so that they end at about the same time
_NONE = -(1 << 56)  # in sums of offsets: outside; in sums of taps: none; as a distance, with the other sign: beyond all


def sweeps(
    axes: Sequence[Axis], transposed: bool, groups: int, sources: int, results: int, fit: Fit
) -> tuple[list[Sweep], bool]:
    """Return the sweeps of a product, and whether there are results that none of them computes, which are 0.

    Parameters
    ----------
    axes : sequence of Axis
        The axes, whose padding is zeros.
    transposed : bool
        The direction.
    groups, sources, results : int
        Number of groups, and of channels of a group that are read and computed.
    fit : Fit
        What the tables have to fit.
    """
    found, missing = [], False
    shape = [axis.size if transposed else axis.outputs for axis in axes]
    kernel = [axis.taps for axis in axes]
    for combination in product(*(result_phases(axis, transposed) for axis in axes)):
        if all(axis.reads for axis in combination):
            found.append(_Builder(list(combination), shape, kernel, groups, sources, results, fit).sweep())
        else:
            missing = True
    return found, missing


class _Factors(NamedTuple):
    """The factors k of a sweep, and how many there are for each range of rows that take part."""

    channels: IntArray
    components: IntArray
    reads: IntArray
    counts: IntArray


class _Builder:
    """Computes the tables of one sweep.

    A *read* of the sweep is one of each axis: `phase` has its number among the phases used, `offset` its distance in a
    plane, and `taps` the tap that each class reads it through.
    """

    def __init__(
        self,
        axes: list[Phases],
        shape: list[int],
        kernel: list[int],
        groups: int,
        sources: int,
        results: int,
        fit: Fit,
    ) -> None:
        self.groups, self.sources, self.results, self.fit, self.shape = groups, sources, results, fit, shape
        self.banded = False
        if results * fit.components * prod(len(axis.classes) for axis in axes) == 1 and len(axes) > 1:
            axes[-2] = banded(axes[-2], most_bands(fit.registers))
            self.banded = len(axes[-2].classes) > 1
        self.axes, self.tiling = axes, Tiling(axes, self.banded)
        self.grid = self.tiling.grid
        self.source_size = prod(axis.size for axis in axes) * fit.components  # elements of a channel
        self.phase = outer_sum(
            np.searchsorted(axis.used, [phase for phase, _ in axis.reads]) * step
            for axis, step in zip(axes, steps([len(axis.used) for axis in axes]), strict=True)
        )
        self.offset = outer_sum(
            [(delta + axis.low - axis.start) * step for _, delta in axis.reads]
            for axis, step in zip(axes, steps(self.grid), strict=True)
        )
        taps = outer_table(
            [[tap * step if tap >= 0 else _NONE for tap in results.taps] for results in axis.classes]
            for axis, step in zip(axes, steps(kernel), strict=True)
        )
        self.taps = np.repeat(taps, fit.components, axis=0)
        # Reads by phase and offset, and how far each is from the one before it: where the phase changes, beyond all.
        self.order = np.lexsort((self.offset, self.phase))
        self.gaps = np.diff(self.offset[self.order])
        self.gaps[np.diff(self.phase[self.order]) != 0] = -_NONE
        self.target_lines = self._target_lines()
        self.classes = self._classes()

    def sweep(self) -> Sweep:
        """Return the sweep."""
        fit, factors = self.fit, self._factors()
        group_rows = self.results * len(self.classes)
        rows, vectors = self.tiling.best_tile(group_rows, fit)
        width, blocks = vectors * fit.lanes, -(-group_rows // rows)
        positions = self.tiling.tile_positions(width)
        direct = self._is_direct(width, blocks)
        weights = blocks * rows * len(factors.reads) * fit.itemsize
        ranges, tiles_per_strip = self._division(positions, width, blocks, weights, direct)
        if direct:
            source_lines, segments, packed = np.zeros((1, 1), np.int64), np.zeros(0, SEGMENT), 0
            offsets = factors.channels * prod(self.grid) + self.offset[factors.reads]
        else:
            source_lines = self._source_lines()
            segments, packed_at, packed = self._segments(longest(positions, tiles_per_strip) + width)
            offsets = packed_at[factors.channels, factors.components, factors.reads]
        strips = -(-len(positions) // tiles_per_strip)
        target = prod(self.shape) * fit.components
        row_distance = self.axes[-2].classes[0].step * self.shape[-1] if self.banded else target
        last = self.axes[-1]
        sizes = {
            "strips": strips, "tiles_per_strip": tiles_per_strip, "ranges": ranges,
            "groups": self.groups, "blocks": blocks, "tile_major": weights <= PACKED,
            "source_batch": self.groups * self.sources * self.source_size,
            "source_group": self.sources * self.source_size,
            "target_batch": self.groups * self.results * target, "target_group": self.results * target,
            "target_channel": target, "line_length": self.grid[-1], "plane_size": prod(self.grid),
            "source_step": last.stride * fit.components, "target_step": last.classes[0].step * fit.components,
            "row_distance": row_distance, "group_rows": group_rows, "tile_rows": rows, "tile_vectors": vectors,
        }  # fmt: skip
        tables = Tables(
            records(SIZES, *(sizes[name] for name in SIZES.names or ())), offsets * fit.itemsize, factors.counts,
            segments, source_lines, self._tiles(positions, width, row_distance), self.target_lines, self.classes,
        )  # fmt: skip
        # A tile for results that are not stored in place, the packed copy, and a vector that zeros are written beyond it.
        scratch = rows * width + packed + fit.lanes
        return Sweep(
            (rows, vectors, int(self.banded)), tables, strips * ranges * self.groups, scratch, blocks,
            factors.channels, factors.components, factors.reads, self.taps,
        )  # fmt: skip

    def _factors(self) -> _Factors:
        """Return the factors, sorted by the range of rows that take part: of a band, as `simd.row_spans` lists the ranges.

        With 3 rows the ranges are row 0, rows 0 and 1, all, rows 1 and 2, row 2: by the last row where the first is row 0,
        else by the first.
        """
        active, rows = self.taps >= 0, len(self.taps)
        span, spans = np.zeros(len(self.offset), np.int64), 1
        if self.banded:
            first, last = active.argmax(axis=0), rows - 1 - active[::-1].argmax(axis=0)
            span, spans = np.where(first == 0, last, rows - 1 + first), 2 * rows - 1
        order = np.indices((self.sources, self.fit.components, len(self.offset))).reshape(3, -1)
        order = order[:, np.argsort(span[order[2]], kind="stable")]
        counts = np.bincount(span[order[2]], minlength=spans)
        return _Factors(order[0], order[1], order[2], counts.astype(np.int64))

    def _target_lines(self) -> IntArray:
        """Return where each line of positions is stored, for all combinations of classes but those of the last axis."""
        tables = []
        for number, (axis, step) in enumerate(zip(self.axes[:-1], steps(self.shape), strict=False)):
            q, table = np.arange(axis.low, axis.low + axis.extent), []
            for row, results in enumerate(axis.classes):
                stored = (q >= results.low) & (q < results.high)
                if self.banded and number == len(self.axes) - 2:
                    stored &= self.tiling.is_stored(q - axis.low, row)
                table.append(np.where(stored, (q * results.step + results.first) * step * self.fit.components, _NONE))
            tables.append(table)
        return _marked(outer_table(tables))

    def _classes(self) -> Records:
        """Return the classes: of all axes but the last, times those of the last, times the components of a number."""
        components, last = self.fit.components, self.axes[-1]
        classes = [
            (
                lines,
                results.low - last.low,
                results.high - last.low,
                (last.low * results.step + results.first) * components + component,
            )
            for lines in range(len(self.target_lines))
            for results in last.classes
            for component in range(components)
        ]
        return np.array(classes, CLASS)

    def _tiles(self, positions: IntArray, width: int, row_distance: int) -> Records:
        """Return the tiles; one that is nothing but results in one line for each row has a target.

        The rows of a band have lines of their own, which have to be `row_distance` apart.
        """
        line, column = np.divmod(positions, self.grid[-1])
        lines, _, high, base = self.classes[0]  # where there are no others on the last axis, it begins at column 0
        target = self.target_lines[lines, line]
        whole = (target >= 0) & (column + width <= high)
        whole &= self.axes[-1].classes[0].step * self.fit.components == 1
        if self.banded:
            for row, lines in enumerate(self.classes["lines"]):
                whole &= self.target_lines[lines, line] == target + row * row_distance
        else:  # rows of several classes are no channels
            whole &= len(self.classes) == 1
        return records(TILE, positions, np.where(whole, target + base + column, -1))

    def _is_direct(self, width: int, blocks: int) -> bool:
        """Whether the source is read in place: planes are the source itself, no tile ends after the last, and it is near.

        A plane begins `before` coordinates ahead of the source. It is the source itself where the coordinates that are
        read begin where this padding ends, and are as many as the source has.
        """
        as_it_is = self.fit.components == 1 and all(
            axis.stride == 1 and axis.start == axis.before and axis.extent == axis.size for axis in self.axes
        )
        near = self.sources * prod(self.grid) * self.fit.itemsize <= PACKED or blocks == 1
        return as_it_is and near and self.tiling.run_length(self.tiling.runs(width).first) >= width

    def _division(self, positions: IntArray, width: int, blocks: int, weights: int, direct: bool) -> tuple[int, int]:
        """Return into how many ranges the blocks of rows are divided, and how many tiles make a strip.

        Each worker gets some tasks of about equal length. Weights beyond the cache are read once for each strip, so that
        then rows are divided rather than positions. Strips become shorter until their copy stays in the cache.
        """
        workers = self.fit.workers
        wanted = -(-_TASKS * workers // self.groups) if workers > 1 else 1
        ranges = min(wanted, blocks) if weights > PACKED and blocks >= 2 * workers else 1
        per_strip = max(1, len(positions) * ranges // max(wanted, ranges))
        copies = self.sources * self.fit.components * self.fit.itemsize
        while per_strip > 1 and not direct:
            length = longest(positions, per_strip) + width
            if (
                length + np.minimum(self.gaps, length).sum()
            ) * copies <= PACKED:  # the segments of `_cut`, all together
                break
            per_strip = per_strip * 3 // 4
        return ranges, per_strip

    def _source_lines(self) -> IntArray:
        """Return where the lines of a plane begin in a channel, or −1, for each phase used of all axes but the last."""
        tables = []
        for axis, step in zip(self.axes[:-1], steps([axis.size for axis in self.axes]), strict=False):
            coordinates = np.arange(axis.start, axis.start + axis.extent)
            sources = [coordinates * axis.stride + phase - axis.before for phase in axis.used]
            there = [(source >= 0) & (source < axis.size) for source in sources]
            starts = np.where(there, np.multiply(sources, step * self.fit.components), _NONE)
            tables.append(list(starts))
        return _marked(outer_table(tables))

    def _cut(self, length: int) -> tuple[IntArray, IntArray, IntArray]:
        """Cut what a strip of `length` positions reads of one channel into segments: none is copied twice.

        Reads of one phase no more than `length` apart overlap or touch, and have a segment in common: with length 10,
        offsets 0, 1, 9 and 40 take the segments 0 to 19 and 40 to 50.

        Returns
        -------
        start, extra : int64 array
            The least offset of each segment, and how far the greatest is beyond it.
        segment : int64 array
            The segment of each read.
        """
        new = np.append(True, self.gaps > length)
        segment = np.empty_like(self.order)
        segment[self.order] = np.cumsum(new) - 1
        offset = self.offset[self.order]
        start, end = offset[new], offset[np.append(new[1:], True)]
        return start, end - start, segment

    def _segments(self, length: int) -> tuple[Records, IntArray, int]:
        """Return the segments, where each (channel, component, read) lies in the packed copy, and the elements of that."""
        components, last = self.fit.components, self.axes[-1]
        start, extra, segment = self._cut(length)
        # An odd number of cache lines: powers of two would compete for the same sets of a cache.
        ends = np.cumsum(((length + extra + 15) // 16 | 1) * 16)
        begins = np.append(0, ends[:-1])
        packed_at = begins[segment] + self.offset - start[segment]
        phase = np.empty_like(start)
        phase[segment] = self.phase
        others, along = np.divmod(phase, len(last.used))  # the phases of all axes but the last, and that of the last
        source = (last.start * last.stride + np.array(last.used)[along] - last.before) * components
        low, high = np.array([last.inside(number) for number in last.used])[along].T
        # The same again for each channel and component of the source, one after the other.
        copy, one = np.divmod(np.arange(self.sources * components * len(start)), len(start))
        moved = copy // components * self.source_size + copy % components
        segments = records(
            SEGMENT, source[one] + moved, others[one], low[one], high[one], start[one], extra[one],
            begins[one] + copy * ends[-1],
        )  # fmt: skip
        copies = np.arange(self.sources * components)[:, None] * ends[-1]
        packed = self.sources * components * int(ends[-1])
        return segments, (copies + packed_at).reshape(self.sources, components, -1), packed


def _marked(sums: IntArray) -> IntArray:
    """Return sums of which a term was `_NONE` as −1."""
    return np.where(sums < 0, -1, sums)
