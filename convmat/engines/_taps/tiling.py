"""How tiles cover the positions of a sweep; `tables` has the words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convmat.engines._taps.phases import Phases
from convmat.engines._taps.tables import Fit
from convmat.geometry import IntArray


class Tile(NamedTuple):
    """The shape of a tile: its rows, and its vectors of positions."""

    rows: int
    vectors: int


def most_bands(registers: int) -> int:
    """Return the number of lines that a band has at most."""
    return 4 if registers > 16 else 3


def tile_shapes(registers: int, banded: bool) -> list[Tile]:
    """Return the shapes of tiles: those of a band, or all others."""
    many = registers > 16
    shapes = []
    for rows in range(2, most_bands(registers) + 1) if banded else (8, 6, 4, 3, 2, 1) if many else (4, 3, 2, 1):
        most = min(12, (registers - 1) // (rows + 1))
        shapes += [Tile(rows, vectors) for vectors in ({1, 2, 4} if banded else {1, 2, 4, most}) if vectors <= most]
    return shapes


class Runs(NamedTuple):
    """How runs of tiles cover the positions: each run goes over the axes from `first` on, and has so many `tiles`."""

    first: int
    number: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Tiling:
    """The positions of a sweep, and what tiles may do with them.

    Attributes
    ----------
    axes : list of Phases
        The axes.
    banded : bool
        Whether the classes of the axis before the last are a band.
    """

    axes: list[Phases]
    banded: bool

    @property
    def grid(self) -> list[int]:
        """The shape of a plane."""
        return [axis.extent for axis in self.axes]

    def best_tile(self, total: int, fit: Fit) -> Tile:
        """Return the shape that takes the least time for `total` rows, by a model of the processor's ports.

        A tile of r rows and v vectors takes r·v registers for its sums, v for what it has loaded, and one for a weight.
        For each factor it loads r weights and v vectors, and multiplies r·v times.
        """
        best = (float("inf"), 0, 0)
        for rows, vectors in tile_shapes(fit.registers, self.banded):
            if not self.banded or rows == total:
                runs = self.runs(vectors * fit.lanes)
                # In a cycle, two multiplications or two loads, of which most unaligned ones count twice. A sum waits 4
                # cycles for the one before it, so that fewer than 8 sums take as long as 8.
                cycles = max(rows * vectors, rows + 2 * vectors, 8) / 2
                best = min(best, (-(-total // rows) * runs.number * runs.tiles * cycles, -rows, -vectors))
        return Tile(-best[1], -best[2])

    def runs(self, width: int) -> Runs:
        """Return the runs that need the fewest tiles of `width` positions.

        A run goes on over the end of a line where few positions without results lie between this and the next: with
        tiles of 8, three lines of 12 in a plane of 14 take 3·2 tiles line by line, but ⌈(2·14 + 12)/8⌉ = 5 in one run.
        """
        best = Runs(0, 0, 0)
        for first in [len(self.axes) - 1] if self.banded else range(len(self.axes)):
            count, tiles = prod(map(len, self._run_starts(first))), -(-self.run_length(first) // width)
            if not best.number or count * tiles < best.number * best.tiles:
                best = Runs(first, count, tiles)
        return best

    def run_length(self, first: int) -> int:
        """Return the positions of a run over the axes from `first` on, from its first result to its last."""
        distances = zip(self.axes[first:], steps(self.grid)[first:], strict=True)
        return 1 + sum((axis.positions - 1) * step for axis, step in distances)

    def tile_positions(self, width: int) -> IntArray:
        """Return the first positions of the tiles; the last tile of a run overlaps another rather than end after the run."""
        first, _, tiles = self.runs(width)
        in_run = np.minimum(np.arange(tiles) * width, max(0, self.run_length(first) - width))
        return outer_sum([*self._run_starts(first), in_run])

    def is_stored(self, positions: IntArray, row: int) -> npt.NDArray[np.bool_]:
        """Tell at which positions of the axis before the last a band's row is stored: not where another band has it, too.

        The order of a row's sum depends on the row. With two bands, the last digits of a result would depend on which
        thread is the last to store it.
        """
        first, starts = self._bands()
        return np.isin(positions, starts[starts + row >= first])

    def _run_starts(self, first: int) -> list[IntArray]:
        """Return where runs start, for each axis before `first`."""
        starts = [np.arange(axis.positions) for axis in self.axes[:first]]
        if self.banded:
            starts[-1] = self._bands()[1]
        return [start * step for start, step in zip(starts, steps(self.grid), strict=False)]

    def _bands(self) -> tuple[IntArray, IntArray]:
        """Return the first line that each band adds, and where it starts: the last one overlaps rather than ends late.

        Bands of 3 over 7 lines add lines from 0, 3 and 6 on, and start at 0, 3 and 4.
        """
        rows, count = len(self.axes[-2].classes), self.axes[-2].positions
        first = np.arange(0, count, rows)
        return first, np.minimum(first, count - rows)


def longest(positions: IntArray, count: int) -> int:
    """Return the longest distance from the first to the last of `count` tiles."""
    return int(np.max(positions[count - 1 :] - positions[: len(positions) - count + 1]))


def steps(shape: Sequence[int]) -> list[int]:
    """Return the distances of neighbours along each axis of a C-ordered array."""
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def outer_sum(terms: Iterable[IntArray | Sequence[int]]) -> IntArray:
    """Return all sums of one term from each, raveled: of (0, 10) and (1, 2) they are 1, 2, 11, 12."""
    total = np.zeros(1, np.int64)
    for term in terms:
        total = np.add.outer(total, np.asarray(term, np.int64)).ravel()
    return total


def outer_table(tables: Iterable[Sequence[IntArray | Sequence[int]]]) -> IntArray:
    """Return the outer sums of tables: rows of all rows, columns of all columns."""
    total = np.zeros((1, 1), np.int64)
    for rows in tables:
        table = np.array(rows, np.int64)
        total = (total[:, None, :, None] + table[None, :, None, :]).reshape(len(total) * len(table), -1)
    return total
