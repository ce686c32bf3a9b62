"""The segments of an axis' rows: arithmetic progressions of columns and weights, a few for each row.

`Axis.strands` has a progression for each image of the input that a padding mode shows. Here they are merged by ascending
column, in closed form: between two ends of progressions it is always the same ones that take turns, or have the same
columns, where their taps are summed. So no row is listed nonzero by nonzero, and its segments are as few as its images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convmat.cupy._records import PROGRESSION, SEGMENT, Records, records
from convmat.geometry import Axis, Border, IntArray, Strands

_FAR = 1 << 62  # behind all columns
_CHUNK = 1 << 14  # rows that are merged at once: a few tens of MB
_NOTHING: IntArray = np.zeros(0, np.int64)


class Segments(NamedTuple):
    """The segments of some rows, one row after the other and by ascending column.

    Attributes
    ----------
    counts : int64 array (rows,)
        The number of nonzeros of each row.
    rows : int64 array (segments,)
        Whose they are.
    table : array of `SEGMENT` (segments,)
        What they are.
    merged, starts : int64 array
        The taps of all sums, one sum after the other, and where each begins: the weights behind the taps.
    """

    counts: IntArray
    rows: IntArray
    table: Records
    merged: IntArray = _NOTHING
    starts: IntArray = _NOTHING


def row_logical(axis: Axis, transposed: bool, row: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return the columns of one row and the taps that each sums: the definition of what `segments_of` describes."""
    taps: dict[int, tuple[int, ...]] = {}
    for output, sources in enumerate(axis.sources(np.arange(axis.outputs))):
        for tap, source in enumerate(sources.tolist()):
            own, column = (source, output) if transposed else (output, source)
            if own == row and source >= 0:
                taps[column] = (*taps.get(column, ()), tap)
    return sorted(taps.items())


def segments_of(axis: Axis, transposed: bool, rows: IntArray, sums: int) -> Segments:
    """Return the segments of the given rows of an axis, which ascend, where so many sums of taps are known already.

    Examples
    --------
    Five positions are padded by two that mirror them, so that the first output reads 2, 1, 0, 1, 2 through taps 0 to 4.
    Column 0 is read through tap 2; columns 1 and 2 through sums of taps, which are weights 5 and 6: taps 3 and 1, 4 and 0.

    >>> from convmat.geometry import Axis
    >>> axis = Axis(size=5, taps=5, before=2, after=2, outputs=5, mode="reflect")
    >>> segments = segments_of(axis, False, np.array([0]), 0)
    >>> segments.table["progression"][["column", "column_step", "weight", "weight_step"]].tolist()
    [(0, 1, 2, 1), (1, 1, 5, 1)]
    >>> segments.merged.tolist(), segments.starts.tolist()
    ([3, 1, 4, 0], [0, 2])
    """
    chunks: list[Segments] = []
    for first in range(0, max(1, len(rows)), _CHUNK):
        known = axis.taps + sums + sum(len(chunk.starts) for chunk in chunks)
        chunk = _merge(axis.strands(transposed, rows[first : first + _CHUNK]), known)
        taken = sum(len(chunk.merged) for chunk in chunks)
        chunks.append(chunk._replace(rows=chunk.rows + first, starts=chunk.starts + taken))
    segments = chunks[0] if len(chunks) == 1 else Segments(*map(np.concatenate, zip(*chunks, strict=True)))
    return _with_clamped(axis, transposed, rows, segments) if axis.border is Border.EDGE else segments


class _Sections(NamedTuple):
    """What progressions have in each section of a row, which goes from one of their ends to the next.

    The arrays are (sections, progressions, rows), the progressions of a section by ascending first column.

    Attributes
    ----------
    columns, taps, tap_steps : int64 array
        The first column in the section, `_FAR` for none; its tap, and what is added for the next.
    lengths : int64 array
        How many columns it has there.
    """

    columns: IntArray
    taps: IntArray
    tap_steps: IntArray
    lengths: IntArray


def _cut(strands: Strands) -> _Sections:
    """Cut all progressions of a row where one begins or ends: within a section they go on side by side.

    Columns 0 2 4 6 and 3 5 (the step is 2) begin and end at 0, 3, 7 and 8. From 0 to 3 there are 0 2; from 3 to 7 there are
    4 6 and 3 5, which are sorted by their first columns: 3 5 and 4 6; from 7 to 8 there is nothing.
    """
    step = strands.step
    begins = np.where(strands.counts > 0, strands.columns, _FAR)
    ends = begins + strands.counts * step
    cuts = np.sort(np.concatenate([begins, ends]), axis=0)
    low, high = cuts[:-1, None], cuts[1:, None]
    skipped = np.maximum(0, -((begins - low) // step))
    columns = begins + skipped * step
    columns = np.where((high <= ends) & (columns < high), columns, _FAR)  # none where it begins later
    order = columns.argsort(axis=1, kind="stable")
    columns = np.take_along_axis(columns, order, 1)
    taps = np.take_along_axis(strands.taps + skipped * strands.tap_steps, order, 1)
    lengths = np.where(columns < _FAR, -((columns - high) // step), 0)
    return _Sections(columns, taps, strands.tap_steps[:, 0][order], lengths)


def _merge(strands: Strands, known: int) -> Segments:
    """Merge progressions; sums of taps are weights from `known` on."""
    if len(strands.counts) == 1:
        counts, column, weight = strands.counts[0], strands.columns[0], strands.taps[0]
        steps = {"column_step": strands.step, "weight_step": strands.tap_steps[0]}
        table = records(
            SEGMENT, before=0, interleaved=1, progression=records(PROGRESSION, column=column, weight=weight, **steps)
        )
        there = np.flatnonzero(counts)
        return Segments(counts, there, table[there])
    sections = _cut(strands)
    distinct = sections.lengths > 0  # of progressions with the same columns the first
    distinct[:, 1:] &= sections.columns[:, 1:] != sections.columns[:, :-1]
    sizes = np.where(distinct, sections.lengths, 0).sum(axis=1)
    row, section, rank = distinct.transpose(2, 0, 1).nonzero()
    at = section, rank, row
    progression = records(
        PROGRESSION,
        column=sections.columns[at],
        column_step=strands.step,
        weight=sections.taps[at],
        weight_step=sections.tap_steps[at],
    )
    merged, starts = _sum_taps(sections, at, progression, known)
    table = records(
        SEGMENT,
        before=(np.cumsum(sizes, axis=0) - sizes)[section, row],
        interleaved=distinct.sum(axis=1)[section, row],
        progression=progression,
    )
    return Segments(sizes.sum(axis=0), row, table, merged, starts)


def _sum_taps(
    sections: _Sections, at: tuple[npt.NDArray[np.intp], ...], progression: Records, known: int
) -> tuple[IntArray, IntArray]:
    """Give the progressions that others share their columns with a weight for each sum; return the sums."""
    section, rank, row = at
    most = sections.columns.shape[1]
    ranks = rank + np.arange(most)[:, None]  # those with the same columns follow one another
    others = section, np.minimum(ranks, most - 1), row
    equal = (sections.columns[others] == sections.columns[at]) & (ranks < most)
    summed = np.flatnonzero(equal.sum(axis=0) > 1)
    if not summed.size:
        return _NOTHING, _NOTHING
    lengths, equal = sections.lengths[at][summed], equal[:, summed]
    first = np.cumsum(lengths) - lengths
    progression["weight"][summed], progression["weight_step"][summed] = known + first, 1
    within = np.arange(lengths.sum()) - np.repeat(first, lengths)  # of each sum: its number in its segment
    addends = np.repeat(equal.sum(axis=0), lengths)
    starts = np.cumsum(addends) - addends
    merged = np.zeros(addends.sum(), np.int64)
    taps, tap_steps = sections.taps[others][:, summed], sections.tap_steps[others][:, summed]
    for nth in range(most):
        there = np.repeat(equal[nth], lengths)
        own = np.repeat(taps[nth], lengths) + within * np.repeat(tap_steps[nth], lengths)
        merged[starts[there] + nth] = own[there]
    return merged, starts


def _with_clamped(axis: Axis, transposed: bool, rows: IntArray, segments: Segments) -> Segments:
    """Add what is read through sums of taps at the ends of an axis whose first and last source are replicated."""
    counts, row, table, *_ = segments
    counts = counts.copy()
    for edge in np.flatnonzero((rows == 0) | (rows == axis.size - 1)) if transposed else ():
        outputs, weights = axis.clamped(int(rows[edge]))
        first = np.flatnonzero(np.diff(weights, prepend=-1))  # outputs follow one another, often with the same sum
        progression = records(PROGRESSION, column=outputs[first], column_step=1, weight=weights[first], weight_step=0)
        own = records(SEGMENT, before=first, interleaved=1, progression=progression)
        at = np.searchsorted(row, edge)
        row, table = np.insert(row, at, np.full(len(own), edge)), np.insert(table, at, own)
        counts[edge] = len(outputs)
    # All ranges of rows have the same sums, so that those of the first serve the others too.
    return Segments(counts, row, table, *axis.clamped_sums())
