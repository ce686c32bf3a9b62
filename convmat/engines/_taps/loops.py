"""The compiled loops of the engine `taps`. Imports numba; import it late.

Everything is `nogil` and runs in the thread that calls it. The loops trust the tables and check nothing; the module `tables`
says what they mean. The names of its fields and of its records' fields are the names here. A `like` is an array that stands
for its dtype.
"""

from __future__ import annotations

import numpy as np
from numba.np.numpy_support import carray

from convmat.engines._compiled.simd import (
    VECTOR_BYTES,
    call_tile,
    clear,
    compiled,
    copy,
    itemsize,
    move,
    move_alternate,
    pointer,
)
from convmat.engines._sums import DOUBLE, SINGLE
from convmat.engines._taps.tables import CLASS, SEGMENT, SIZES, TILE


def _records(dtype: np.dtype[np.void]) -> str:
    """Return the type of an array of records of int64, as numba writes it."""
    fields = ", ".join(f"('{name}', int64)" for name in dtype.names or ())
    return f"Record.make_c_struct([{fields}])[::1], "


SIGNATURES = {  # of what is called from Python, for a dtype; after the scratch memory, the fields of `tables.Tables`
    "run_tasks": "void("
    + "intp, " * 5  # start to tile
    + "{0}[::1], {0}[::1], "  # weights, scratch
    + _records(SIZES)
    + "int64[::1], int64[::1], "  # offsets, counts
    + _records(SEGMENT)
    + "int64[:, ::1], "  # source_lines
    + _records(TILE)
    + "int64[:, ::1], "  # target_lines
    + _records(CLASS)
    + ")"
}


@compiled
def zero(like, target, count):  # type: ignore[no-untyped-def]
    """Set `count` elements to zero, and up to a vector more: what lies behind is written later."""
    size = itemsize(like)
    for i in range(0, count, VECTOR_BYTES // size):
        clear(like, target + i * size)


@compiled
def take(like, target, source, count, step):  # type: ignore[no-untyped-def]
    """Copy `count` elements that lie `step` elements apart."""
    size = itemsize(like)
    lanes = VECTOR_BYTES // size
    if step == 1:
        if count < lanes:
            copy(target, source, count * size)
        else:
            for i in range(0, count - lanes, lanes):
                move(like, target + i * size, source + i * size)
            move(like, target + (count - lanes) * size, source + (count - lanes) * size)
    elif step == 2 and count >= lanes:
        for i in range(0, count - lanes, lanes):
            move_alternate(like, target + i * size, source + 2 * i * size)
        move_alternate(like, target + (count - lanes) * size, source + 2 * (count - lanes) * size)
    else:
        values = carray(pointer(source, like), step * (count - 1) + 1)
        into = carray(pointer(target, like), count)
        for i in range(count):
            into[i] = values[step * i]


@compiled
def pack(x, scratch, sizes, segments, source_lines, first, length):  # type: ignore[no-untyped-def]
    """Copy the positions that a strip reads into scratch memory, with zeros where they are padding.

    Parameters
    ----------
    x : int
        Address of the group's first channel.
    scratch : array
        Where to; the segments say at which indices.
    sizes : record
        Of the sweep.
    segments, source_lines : array
        Tables of the sweep.
    first, length : int
        The strip's first position, and the number of positions from there to its end.
    """
    size = itemsize(scratch)
    line_length, step = sizes.line_length, sizes.source_step
    for i in range(segments.shape[0]):
        segment = segments[i]
        p = first + segment.start
        end = min(p + length + segment.extra, sizes.plane_size)
        to = scratch.ctypes.data + (segment.packed - p) * size  # of position 0
        line, written = p // line_length, p
        while p < end:
            origin = line * line_length
            stop = min(end, origin + line_length)
            source = source_lines[segment.phase, line]
            a = max(p, origin + segment.low)
            n = min(stop, origin + segment.high) - a
            if source >= 0 and n > 0:  # positions up to a are padding, of this line and of what is before it
                zero(scratch, to + written * size, a - written)
                take(scratch, to + a * size, x + (segment.source + source + (a - origin) * step) * size, n, step)
                written = a + n
            p = stop
            line += 1
        zero(scratch, to + written * size, end - written)


@compiled
def store(out, tile, width, p, first, count, sizes, classes, target_lines):  # type: ignore[no-untyped-def]
    """Copy the results in a tile to where they belong, and leave out what is no result.

    Parameters
    ----------
    out : int
        Address of the group's first channel.
    tile : array
        `count` rows of `width` elements, the first for position `p`.
    first : int
        Number of the tile's first row among the rows of the group.
    sizes : record
        Of the sweep.
    classes, target_lines : array
        Tables of the sweep.
    """
    size = itemsize(tile)
    line_length, step = sizes.line_length, sizes.target_step
    for i in range(count):
        channel, number = divmod(first + i, classes.shape[0])
        results = classes[number]
        base = results.target + channel * sizes.target_channel
        for line in range(p // line_length, min((p + width - 1) // line_length + 1, target_lines.shape[1])):
            target = target_lines[results.lines, line]
            origin = line * line_length
            a = max(p, origin + results.low)
            n = min(p + width, origin + results.high) - a
            if target < 0 or n <= 0:
                continue
            address = out + (base + target + (a - origin) * step) * size
            start = tile.ctypes.data + (i * width + a - p) * size
            if step == 1:
                take(tile, address, start, n, 1)
            else:
                values = carray(pointer(start, tile), n)
                into = carray(pointer(address, tile), step * (n - 1) + 1)
                for j in range(n):
                    into[step * j] = values[j]


@compiled
def run_tasks(  # type: ignore[no-untyped-def]
    start, stop, x, out, tile, weights, scratch,
    size_records, offsets, counts, segments, source_lines, tiles, target_lines, classes,
):  # fmt: skip
    """Compute the tasks `start` to `stop` of a sweep.

    Parameters
    ----------
    x, out : int
        Addresses of the source and of the target.
    tile : int
        Address of the compiled tile.
    weights, scratch : array
        The packed kernel, (groups, blocks, factors, rows of a block); memory for one thread.
    size_records, ..., classes : array
        `Tables` of the sweep.
    """
    sizes = size_records[0]
    size, rows = itemsize(weights), sizes.tile_rows
    width = VECTOR_BYTES // size * sizes.tile_vectors
    spare, packed = scratch[: rows * width], scratch[rows * width :]
    many = counts.sum() > (SINGLE if size == 4 else DOUBLE)  # terms, so that the tile adds to what it has written
    before = -1
    # A task is (batch, group, strip of the group, range of blocks of rows), the last one fastest, so that a thread packs a
    # strip once.
    for task in range(start, stop):
        strip, number = divmod(task, sizes.ranges)
        batch, group = divmod(strip // sizes.strips, sizes.groups)
        x_at = x + (batch * sizes.source_batch + group * sizes.source_group) * size
        out_at = out + (batch * sizes.target_batch + group * sizes.target_group) * size
        first_tile = strip % sizes.strips * sizes.tiles_per_strip
        n = min(sizes.tiles_per_strip, tiles.shape[0] - first_tile)
        base = x_at  # address of position 0, for the offsets
        if segments.shape[0] > 0:
            first = tiles[first_tile].position
            if strip != before:
                length = tiles[first_tile + n - 1].position - first + width
                pack(x_at, packed, sizes, segments, source_lines, first, length)
                before = strip
            base = packed.ctypes.data - first * size
        first_block = sizes.blocks * number // sizes.ranges
        m = sizes.blocks * (number + 1) // sizes.ranges - first_block
        for i in range(m * n):
            # Weights that stay in the cache are all used for a tile, and then the next; else each block for the whole strip.
            t, block = divmod(i, m) if sizes.tile_major else (i % n, i // n)
            block += first_block
            p, target = tiles[first_tile + t].position, tiles[first_tile + t].target
            # Tiles may overlap, also those of other threads: sums of sums are added up where no other thread writes.
            in_place = target >= 0 and (block + 1) * rows <= sizes.group_rows and not many
            c, distance = spare.ctypes.data, width
            if in_place:
                c, distance = out_at + (target + block * rows * sizes.target_channel) * size, sizes.row_distance
            a = weights.ctypes.data + (group * sizes.blocks + block) * offsets.shape[0] * rows * size
            call_tile(tile, a, base + p * size, offsets.ctypes.data, counts.ctypes.data, c, distance * size)
            if not in_place:
                count = min(rows, sizes.group_rows - block * rows)
                store(out_at, spare, width, p, block * rows, count, sizes, classes, target_lines)
