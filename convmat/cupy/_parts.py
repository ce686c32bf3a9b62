"""What the rows of an axis are made of: parts in which columns and taps move by a constant, a few for each row.

`Axis.strands` has a progression for each image of the input that a padding mode shows. Here they are merged by ascending
column, in closed form: between two ends of progressions it is always the same ones that take turns, or have the same
columns, where their taps are summed. So no row is listed nonzero by nonzero, and its parts are as few as its images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from convmat.geometry import Axis, IntArray, Strands

_FAR = 1 << 62  # behind all columns
_CHUNK = 1 << 14  # rows that are merged at once: a few tens of MB


class Parts(NamedTuple):
    """The parts of some rows, one row after the other and by ascending column.

    Attributes
    ----------
    counts : int64 array (rows,)
        The number of nonzeros of each row.
    rows : int64 array (parts,)
        Whose they are.
    table : int64 array (parts, 6)
        Nonzeros of the row before the part, and how many parts take turns from there on, which follow one another; the
        first column and what is added for the next; the first slot, which is a tap or a sum of some, and what is added.
    merged, starts : int64 array
        The sums of taps, as in `Table`: slots behind the taps.
    """

    counts: IntArray
    rows: IntArray
    table: IntArray
    merged: IntArray
    starts: IntArray


def parts_of(axis: Axis, transposed: bool, rows: IntArray, sums: int) -> Parts:
    """Return the parts of the given rows of an axis, which ascend, where so many sums of taps are known already."""
    chunks: list[Parts] = []
    for first in range(0, max(1, len(rows)), _CHUNK):
        known = axis.taps + sums + sum(len(parts.starts) for parts in chunks)
        parts = _merge(axis.strands(transposed, rows[first : first + _CHUNK]), known)
        taken = sum(len(parts.merged) for parts in chunks)
        chunks.append(parts._replace(rows=parts.rows + first, starts=parts.starts + taken))
    parts = chunks[0] if len(chunks) == 1 else Parts(*map(np.concatenate, zip(*chunks, strict=True)))
    return _with_clamped(axis, transposed, rows, sums, parts) if axis.mode == "replicate" else parts


def _merge(strands: Strands, known: int) -> Parts:
    """Merge progressions; sums of taps are numbered from `known` on."""
    nothing: IntArray = np.zeros(0, np.int64)
    if len(strands.counts) == 1:
        described = (0, 1, strands.columns[0], strands.step, strands.taps[0], strands.tap_steps[0])
        table = np.stack(np.broadcast_arrays(*described), axis=1)
        there = np.flatnonzero(strands.counts[0])
        return Parts(strands.counts[0], there, table[there], nothing, nothing)
    step, most = strands.step, len(strands.counts)
    begins = np.where(strands.counts > 0, strands.columns, _FAR)
    ends = begins + strands.counts * step
    cuts = np.sort(np.concatenate([begins, ends]), axis=0)
    low, high = cuts[:-1, None], cuts[1:, None]  # (sections, 1, rows)
    # Of every progression what it has from a cut to the next, by the first column.
    skipped = np.maximum(0, -((begins - low) // step))
    columns = begins + skipped * step
    columns = np.where((begins <= low) & (high <= ends) & (columns < high), columns, _FAR)
    order = columns.argsort(axis=1, kind="stable")
    columns = np.take_along_axis(columns, order, 1)
    taps = np.take_along_axis(strands.taps + skipped * strands.tap_steps, order, 1)
    tap_steps = strands.tap_steps[:, 0][order]
    leads = columns < _FAR
    leads[:, 1:] &= columns[:, 1:] != columns[:, :-1]
    lengths = np.where(leads, -((columns - high) // step), 0)
    sizes = lengths.sum(axis=1)
    row, section, place = leads.transpose(2, 0, 1).nonzero()
    column, every = columns[section, place, row], leads.sum(axis=1)[section, row]
    before = (np.cumsum(sizes, axis=0) - sizes)[section, row]
    slot, slot_step = taps[section, place, row], tap_steps[section, place, row]
    table = np.stack([before, every, column, np.full_like(column, step), slot, slot_step], axis=1)
    # Progressions with the same columns: one sum for each of them.
    places = place + np.arange(most)[:, None]
    where = section, np.minimum(places, most - 1), row
    same = (columns[where] == column) & (places < most)
    summed = np.flatnonzero(same.sum(axis=0) > 1)
    if not summed.size:
        return Parts(sizes.sum(axis=0), row, table, nothing, nothing)
    number, same = lengths[section, place, row][summed], same[:, summed]
    begin = np.cumsum(number) - number
    table[summed, 4], table[summed, 5] = known + begin, 1
    within = np.arange(number.sum()) - np.repeat(begin, number)
    addends = np.repeat(same.sum(axis=0), number)
    starts = np.cumsum(addends) - addends
    merged = np.zeros(addends.sum(), np.int64)
    for nth, (tap, tap_step) in enumerate(zip(taps[where][:, summed], tap_steps[where][:, summed], strict=True)):
        there = np.repeat(same[nth], number)
        merged[starts[there] + nth] = (np.repeat(tap, number) + within * np.repeat(tap_step, number))[there]
    return Parts(sizes.sum(axis=0), row, table, merged, starts)


def _with_clamped(axis: Axis, transposed: bool, rows: IntArray, sums: int, parts: Parts) -> Parts:
    """Add what is read through sums of taps at the ends of an axis whose first and last source are replicated."""
    counts, row, table, *_ = parts
    counts = counts.copy()
    for edge in np.flatnonzero((rows == 0) | (rows == axis.size - 1)) if transposed else ():
        outputs, slots = axis.clamped(int(rows[edge]))
        first = np.flatnonzero(np.diff(slots, prepend=-1))  # outputs follow one another, often with the same sum
        own = np.stack(np.broadcast_arrays(first, 1, outputs[first], 1, slots[first], 0), axis=1)
        at = np.searchsorted(row, edge)
        row, table = np.insert(row, at, np.full(len(own), edge)), np.insert(table, at, own, axis=0)
        counts[edge] = len(outputs)
    merged, starts = axis.clamped_sums()
    table[:, 4] += np.where(table[:, 4] < axis.taps, 0, sums)
    return Parts(counts, row, table, merged, starts)
