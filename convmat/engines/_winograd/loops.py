"""The compiled loops of the engine `winograd`. Imports numba; import it late.

Everything is `nogil` and runs in the thread that calls it. Addresses are plain integers, in bytes, and the loops check
nothing; `convmat.engines._winograd.winograd` says what their tables mean. A `like` is an array that stands for its dtype.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from convmat.engines._compiled.simd import VECTOR_BYTES, Code, call_tile, compiled, itemsize, literal_intrinsic, types

SIGNATURES = {  # of what is called from Python, for a dtype
    "run_tasks": "void("
    + "intp, " * 7  # start to shares
    + "{0}[::1], {0}[::1], "  # weights, scratch
    + "int64[::1], " * 4  # sizes to counts
    + ")"
}
_I1, _I32 = ir.IntType(1), ir.IntType(32)


@literal_intrinsic
def transform_source(
    typing: Any, like: Any, masked: Any, source: Any, row_bytes: Any, top: Any, bottom: Any, left: Any, right: Any,
    target: Any, distance: Any, ahead: Any,
) -> Any:  # fmt: skip
    """Transform one vector of neighbouring 4 × 4 tiles, each 2 columns after the one before: Bᵀ d B.

    Parameters
    ----------
    like : array
        Of the dtype.
    masked : literal int
        1 where some of what the tiles cover is padding.
    source : int
        Address of the first tile's first element, wherever that is.
    row_bytes : int
        Distance of rows.
    top, bottom, left, right : int
        Which rows and columns, counted from there, are no padding; the rest is not touched. Only if `masked`.
    target, distance : int
        Address of the first of 16 vectors, and the bytes from one to the next.
    ahead : int
        How many bytes later what is needed soon begins.
    """
    is_masked = masked.literal_value == 1

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(builder, like.dtype.bitwidth // 8)
        source, row_bytes, *inside, target, distance, ahead = arguments[2:]
        for i in (1, 2):  # the others are of tiles above and below too
            row = builder.add(ahead, builder.add(source, builder.mul(row_bytes, ir.Constant(row_bytes.type, i))))
            for j in range(2 * VECTOR_BYTES // 64):
                code.prefetch(row, 64 * j)
        top, bottom, left, right = (builder.trunc(n, _I32) for n in inside)
        starts = [0, code.lanes, 2, code.lanes + 2]
        columns = [
            code.mask(*(builder.sub(n, ir.Constant(_I32, start)) for n in (left, right)))
            for start in (starts if is_masked else ())
        ]
        tile = []
        for i in range(4):
            row = builder.add(source, builder.mul(row_bytes, ir.Constant(row_bytes.type, i)))
            if is_masked:
                number = ir.Constant(_I32, i)
                used = builder.and_(builder.icmp_signed("<=", top, number), builder.icmp_signed("<", number, bottom))
                none = ir.Constant(columns[0].type, [0] * code.lanes)
                values = [
                    code.load_masked(builder.select(used, mask, none), row, start * code.itemsize)
                    for mask, start in zip(columns, starts, strict=True)
                ]
            else:
                values = [code.load(row, start * code.itemsize) for start in starts]
            columns_of_tiles = [
                code.shuffle(values[first], values[first + 1], range(odd, 2 * code.lanes, 2))
                for first in (0, 2)
                for odd in (0, 1)
            ]
            tile.append(_source_step(builder, columns_of_tiles))
        for j in range(4):
            for i, value in enumerate(_source_step(builder, [row[j] for row in tile])):
                code.store(value, target, builder.mul(distance, ir.Constant(distance.type, 4 * i + j)))
        return context.get_dummy_value()

    return types.void(like, masked, *(types.intp,) * 9), generate


@literal_intrinsic
def transform_result(
    typing: Any, like: Any, masked: Any, source: Any, distance: Any, target: Any, row_bytes: Any, rows: Any, columns: Any,
    ahead: Any,
) -> Any:  # fmt: skip
    """Transform one vector of tiles back into two rows of neighbouring results: Aᵀ m A.

    Parameters
    ----------
    like : array
        Of the dtype.
    masked : literal int
        1 where some of the results do not exist.
    source, distance : int
        Address of the first of 16 vectors, and the bytes from one to the next.
    target : int
        Address of the first result.
    row_bytes : int
        Distance of rows.
    rows, columns : int
        How many there are; the rest is not touched. Only if `masked`.
    """
    is_masked = masked.literal_value == 1

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(builder, like.dtype.bitwidth // 8)
        source, distance, target, row_bytes, rows, columns, ahead = arguments[2:]
        tile = [
            [code.load(source, builder.mul(distance, ir.Constant(distance.type, 4 * i + j))) for i in range(4)]
            for j in range(4)
        ]
        half = [_result_step(builder, column) for column in tile]
        lanes = [
            lane for pair in zip(range(code.lanes), range(code.lanes, 2 * code.lanes), strict=True) for lane in pair
        ]
        rows, columns = (builder.trunc(n, _I32) for n in (rows, columns))
        for i in range(2):
            even, odd = _result_step(builder, [column[i] for column in half])
            row = builder.add(target, builder.mul(row_bytes, ir.Constant(row_bytes.type, i)))
            last = builder.select(builder.icmp_signed("<", ir.Constant(_I32, i), rows), columns, ir.Constant(_I32, 0))
            for j in range(2 * VECTOR_BYTES // 64):
                code.prefetch(builder.add(row, ahead), 64 * j, write=True)
            for start in (0, code.lanes):
                value = code.shuffle(even, odd, lanes[start : start + code.lanes])
                if is_masked:
                    mask = code.mask(ir.Constant(_I32, 0), builder.sub(last, ir.Constant(_I32, start)))
                    code.store_masked(mask, value, row, start * code.itemsize)
                else:
                    code.store(value, row, start * code.itemsize)
        return context.get_dummy_value()

    return types.void(like, masked, *(types.intp,) * 7), generate


def _source_step(builder: Any, d: list[Any]) -> list[Any]:
    """Return Bᵀ d of four vectors."""
    return [builder.fsub(d[0], d[2]), builder.fadd(d[1], d[2]), builder.fsub(d[2], d[1]), builder.fsub(d[1], d[3])]


def _result_step(builder: Any, m: list[Any]) -> list[Any]:
    """Return Aᵀ m of four vectors."""
    return [builder.fadd(builder.fadd(m[0], m[1]), m[2]), builder.fsub(builder.fsub(m[1], m[2]), m[3])]


@compiled
def read_tiles(  # type: ignore[no-untyped-def]
    like, x, target, first, last, channels, batch_channels, channel_elements, distance, shape, grid, origin
):  # fmt: skip
    """Transform the tiles `first` to `last` of some channels of the source.

    Parameters
    ----------
    like : array
        Of the dtype.
    x : int
        Address of the first channel in the first image.
    target : int
        Address of the first channel's first tile.
    channels, batch_channels : int
        How many channels; how many an image has.
    channel_elements, distance : int
        Elements from one channel to the next, and from one of the 16 matrices to the next.
    shape, grid, origin : tuple of int
        Rows and columns of the source and of tiles; row and column of the first tile's first element.
    """
    size = itemsize(like)
    lanes = VECTOR_BYTES // size
    height, width = shape
    plane = height * width * size
    row, first_column = divmod(first, grid[1])
    first_image, first_row = divmod(row, grid[0])
    for channel in range(channels):
        image, row, column, p = first_image, first_row, first_column, first
        to = target + (channel * channel_elements - first) * size
        while p < last:
            count = min(last - p, grid[1] - column)
            y, z = 2 * row + origin[0], 2 * column + origin[1]
            start = x + (((image * batch_channels + channel) * height + y) * width + z) * size
            top, bottom = min(4, max(0, -y)), min(4, height - y)
            for i in range(0, count, lanes):
                left, right = max(0, -z - 2 * i), min(2 * lanes + 2, width - z - 2 * i)
                at, into = start + 2 * i * size, to + (p + i) * size
                if top == 0 and bottom == 4 and left == 0 and right == 2 * lanes + 2:
                    transform_source(like, 0, at, width * size, 0, 0, 0, 0, into, distance * size, plane)
                else:
                    transform_source(like, 1, at, width * size, top, bottom, left, right, into, distance * size, plane)
            p += count
            column = 0
            row += 1
            if row == grid[0]:
                row = 0
                image += 1


@compiled
def write_tiles(  # type: ignore[no-untyped-def]
    like, source, out, first, last, channels, batch_channels, channel_elements, distance, shape, grid
):  # fmt: skip
    """Transform the tiles `first` to `last` of some channels back into results; parameters as for `read_tiles`."""
    size = itemsize(like)
    lanes = VECTOR_BYTES // size
    height, width = shape
    plane = height * width * size
    row, first_column = divmod(first, grid[1])
    first_image, first_row = divmod(row, grid[0])
    for channel in range(channels):
        image, row, column, p = first_image, first_row, first_column, first
        base = source + (channel * channel_elements - first) * size
        while p < last:
            count = min(last - p, grid[1] - column)
            y, z = 2 * row, 2 * column
            start = out + (((image * batch_channels + channel) * height + y) * width + z) * size
            rows, columns = min(2, height - y), min(2 * count, width - z)
            for i in range(0, count, lanes):
                at, into = base + (p + i) * size, start + 2 * i * size
                if rows == 2 and 2 * (i + lanes) <= columns:
                    transform_result(like, 0, at, distance * size, into, width * size, 0, 0, plane)
                else:
                    left = min(2 * lanes, columns - 2 * i)
                    transform_result(like, 1, at, distance * size, into, width * size, rows, left, plane)
            p += count
            column = 0
            row += 1
            if row == grid[0]:
                row = 0
                image += 1


@compiled
def run_tasks(  # type: ignore[no-untyped-def]
    start, stop, x, out, tiles, pieces, shares, weights, scratch, sizes, addresses, offsets, counts
):  # fmt: skip
    """Compute the tasks `start` to `stop` of a product: each a range of tiles, and of results of a group.

    Parameters
    ----------
    x, out : int
        Addresses of the source and of the target.
    tiles, pieces, shares : int
        Number of tiles in the whole batch; of ranges that they are divided into, each of whole vectors but the last; and of
        ranges of result channels.
    weights, scratch : array
        The transformed kernel; memory for one thread.
    sizes, addresses, offsets, counts : int64 array
        Tables of the direction.
    """
    size = itemsize(weights)
    lanes = VECTOR_BYTES // size
    groups, sources, results, rows, blocks, most_blocks = sizes[:6]
    length, source_distance, result_distance = sizes[6:9]
    shape, target_shape, grid = (sizes[9], sizes[10]), (sizes[11], sizes[12]), (sizes[13], sizes[14])
    origin = sizes[15], sizes[16]
    widest = addresses.shape[0]
    vectors = (tiles + lanes - 1) // lanes
    aligned = (scratch.ctypes.data + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES
    products = aligned + 16 * source_distance * size
    for task in range(start, stop):
        piece, share = divmod(task, shares)
        group, piece = divmod(piece, pieces)
        first = vectors * piece // pieces
        used = vectors * (piece + 1) // pieces - first
        first *= lanes
        last = min(tiles, first + used * lanes)
        x_at = x + group * sources * shape[0] * shape[1] * size
        read_tiles(
            weights, x_at, aligned, first, last, sources, groups * sources, length, source_distance, shape, grid, origin
        )
        last_block = blocks * (share + 1) // shares
        for block in range(blocks * share // shares, last_block, most_blocks):
            count = min(most_blocks, last_block - block)
            for t in range(16):
                a = weights.ctypes.data + ((group * 16 + t) * blocks + block) * sources * rows * size
                b = aligned + t * source_distance * size
                c = products + t * result_distance * size
                done = 0
                while done < used:
                    n = min(widest, used - done)
                    if used - done == widest + 1:  # a single vector would wait for its factors
                        n = widest - 1
                    for i in range(count):
                        call_tile(
                            addresses[n - 1], a + i * sources * rows * size, b + done * VECTOR_BYTES,
                            offsets.ctypes.data, counts.ctypes.data,
                            c + (i * rows * length) * size + done * VECTOR_BYTES, length * size,
                        )  # fmt: skip
                    done += n
            channel = group * results + block * rows
            out_at = out + channel * target_shape[0] * target_shape[1] * size
            count = min(count * rows, results - block * rows)
            write_tiles(
                weights, products, out_at, first, last, count, groups * results, length, result_distance,
                target_shape, grid,
            )  # fmt: skip
