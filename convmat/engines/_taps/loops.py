"""The compiled loops of the engine `taps`. Imports numba; import it late.

Everything is `nogil` and runs in the thread that calls it. The loops trust the tables of `convmat.engines._taps.sweeps` and
check nothing; see there for what the tables mean. A `like` is an array that stands for its dtype.
"""

from __future__ import annotations

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

SIGNATURES = {  # of what is called from Python, for a dtype
    "run_tasks": "void("
    + "intp, " * 7  # start to vectors
    + "{0}[::1], {0}[::1], "  # weights, scratch
    + "int64[::1], " * 3  # sizes, offsets, counts
    + "int64[:, ::1], " * 5  # pieces to kinds
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
def pack(x, scratch, pieces, source_rows, row_length, plane_size, step, first, length):  # type: ignore[no-untyped-def]
    """Copy the positions that a strip reads into scratch memory, with zeros where they are padding.

    Parameters
    ----------
    x : int
        Address of the group's first channel.
    scratch : array
        Where to; `pieces` say at which indices.
    pieces, source_rows : int64 array
        Tables of the sweep.
    row_length, plane_size, step : int
        Positions of a row and of a plane; distance of neighbouring positions in the source, in elements.
    first, length : int
        The strip's first position, and the number of positions from there to its end.
    """
    size = itemsize(scratch)
    for piece in range(pieces.shape[0]):
        base, table, low, high, start, extra, place = pieces[piece]
        p = first + start
        end = min(p + length + extra, plane_size)
        to = scratch.ctypes.data + (place - p) * size
        row, written = p // row_length, p
        while p < end:
            origin = row * row_length
            stop = min(end, origin + row_length)
            source = source_rows[table, row]
            a = max(p, origin + low)
            n = min(stop, origin + high) - a
            if source >= 0 and n > 0:
                zero(scratch, to + written * size, a - written)
                take(scratch, to + a * size, x + (base + source + (a - origin) * step) * size, n, step)
                written = a + n
            p = stop
            row += 1
        zero(scratch, to + written * size, end - written)


@compiled
def store(out, tile, width, p, first, count, kinds, targets, row_length, channel_size, step):  # type: ignore[no-untyped-def]
    """Copy the results in a tile to where they belong, and leave out what is no result.

    Parameters
    ----------
    out : int
        Address of the group's first channel.
    tile : array
        `count` rows of `width` elements, the first for position `p`.
    first : int
        Number of the tile's first row among the rows of the group.
    kinds, targets : int64 array
        Tables of the sweep.
    row_length, channel_size, step : int
        Positions of a row; elements of a channel; distance of neighbouring positions in the target, in elements.
    """
    size = itemsize(tile)
    for i in range(count):
        channel, kind = divmod(first + i, kinds.shape[0])
        table, low, high, base = kinds[kind]
        base += channel * channel_size
        for row in range(p // row_length, min((p + width - 1) // row_length + 1, targets.shape[1])):
            target = targets[table, row]
            origin = row * row_length
            a = max(p, origin + low)
            n = min(p + width, origin + high) - a
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
    start, stop, x, out, tile, rows, vectors,
    weights, scratch, sizes, offsets, counts, pieces, source_rows, tiles, targets, kinds,
):  # fmt: skip
    """Compute the tasks `start` to `stop` of a sweep.

    Parameters
    ----------
    x, out : int
        Addresses of the source and of the target.
    tile, rows, vectors : int
        Address of the compiled tile, and its shape.
    weights, scratch : array
        The packed kernel; memory for one thread.
    sizes, ..., kinds : int64 array
        Tables of the sweep.
    """
    size = itemsize(weights)
    width = VECTOR_BYTES // size * vectors
    strips, strip_tiles, shares, groups, blocks, tile_major = sizes[:6]
    x_batch, x_group, out_batch, out_group, channel_size = sizes[6:11]
    row_length, plane_size, source_step, target_step, row_distance, group_rows = sizes[11:17]
    spare, packed = scratch[: rows * width], scratch[rows * width :]
    many = counts.sum() > (SINGLE if size == 4 else DOUBLE)  # terms, so that the tile adds to what it has written
    before = -1
    for task in range(start, stop):
        strip, share = divmod(task, shares)
        batch, group = divmod(strip // strips, groups)
        x_at = x + (batch * x_batch + group * x_group) * size
        out_at = out + (batch * out_batch + group * out_group) * size
        first_tile = strip % strips * strip_tiles
        n = min(strip_tiles, tiles.shape[0] - first_tile)
        base = x_at
        if pieces.shape[0] > 0:
            first = tiles[first_tile, 0]
            if strip != before:
                length = tiles[first_tile + n - 1, 0] - first + width
                pack(x_at, packed, pieces, source_rows, row_length, plane_size, source_step, first, length)
                before = strip
            base = packed.ctypes.data - first * size
        first_block = blocks * share // shares
        m = blocks * (share + 1) // shares - first_block
        for i in range(m * n):
            t, block = divmod(i, m) if tile_major else (i % n, i // n)
            block += first_block
            p, target = tiles[first_tile + t]
            # Tiles may overlap, also those of other threads: sums of sums are added up where no other thread writes.
            in_place = target >= 0 and (block + 1) * rows <= group_rows and not many
            c, distance = spare.ctypes.data, width
            if in_place:
                c, distance = out_at + (target + block * rows * channel_size) * size, row_distance
            a = weights.ctypes.data + (group * blocks + block) * offsets.shape[0] * rows * size
            call_tile(tile, a, base + p * size, offsets.ctypes.data, counts.ctypes.data, c, distance * size)
            if not in_place:
                count = min(rows, group_rows - block * rows)
                store(
                    out_at, spare, width, p, block * rows, count, kinds, targets, row_length, channel_size, target_step
                )
