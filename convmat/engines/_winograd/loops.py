"""The compiled loops of the engine `winograd`. Imports numba; import it late.

Everything is `nogil` and runs in the thread that calls it. Addresses are plain integers, in bytes, and the loops check
nothing; `convmat.engines._winograd.winograd` says what their tables mean. A `like` is an array that stands for its dtype.
"""

from __future__ import annotations

from convmat.engines._compiled.simd import VECTOR_BYTES, call_tile, compiled, itemsize, literally
from convmat.engines._winograd.transforms import transform_result, transform_source

_TASKS = (
    "void("
    + "intp, " * 7  # start to shares
    + "{0}[::1], {0}[::1], "  # weights, scratch
    + "int64[::1], " * 4  # sizes to counts
    + ")"
)
SIGNATURES = {"run_tasks_of_2": _TASKS, "run_tasks_of_4": _TASKS}  # of what is called from Python, for a dtype


@compiled
def read_tiles(  # type: ignore[no-untyped-def]
    like, edge, x, target, first, last, channels, batch_channels, channel_elements, distance, shape, grid, origin
):  # fmt: skip
    """Transform the tiles `first` to `last` of some channels of the source.

    Parameters
    ----------
    like : array
        Of the dtype.
    edge : literal int
        Rows and columns of results of a tile.
    x : int
        Address of the first channel in the first image.
    target : int
        Address of the first channel's first tile.
    channels, batch_channels : int
        How many channels; how many an image has.
    channel_elements, distance : int
        Elements from one channel to the next, and from one of the matrices to the next.
    shape, grid, origin : tuple of int
        Rows and columns of the source and of tiles; row and column of the first tile's first element.
    """
    edge, size = literally(edge), itemsize(like)
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
            y, z = edge * row + origin[0], edge * column + origin[1]
            start = x + (((image * batch_channels + channel) * height + y) * width + z) * size
            top, bottom = min(edge + 2, max(0, -y)), min(edge + 2, height - y)
            for i in range(0, count, lanes):
                left, right = max(0, -z - edge * i), min(edge * lanes + 2, width - z - edge * i)
                at, into = start + edge * i * size, to + (p + i) * size
                if top == 0 and bottom == edge + 2 and left == 0 and right == edge * lanes + 2:
                    transform_source(like, edge, 0, at, width * size, 0, 0, 0, 0, into, distance * size, plane)
                else:
                    transform_source(
                        like, edge, 1, at, width * size, top, bottom, left, right, into, distance * size, plane
                    )
            p += count
            column = 0
            row += 1
            if row == grid[0]:
                row = 0
                image += 1


@compiled
def write_tiles(  # type: ignore[no-untyped-def]
    like, edge, source, out, first, last, channels, batch_channels, channel_elements, distance, shape, grid
):  # fmt: skip
    """Transform the tiles `first` to `last` of some channels back into results; parameters as for `read_tiles`."""
    edge, size = literally(edge), itemsize(like)
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
            y, z = edge * row, edge * column
            start = out + (((image * batch_channels + channel) * height + y) * width + z) * size
            rows, columns = min(edge, height - y), min(edge * count, width - z)
            for i in range(0, count, lanes):
                at, into = base + (p + i) * size, start + edge * i * size
                if rows == edge and edge * (i + lanes) <= columns:
                    transform_result(like, edge, 0, at, distance * size, into, width * size, 0, 0, plane)
                else:
                    left = min(edge * lanes, columns - edge * i)
                    transform_result(like, edge, 1, at, distance * size, into, width * size, rows, left, plane)
            p += count
            column = 0
            row += 1
            if row == grid[0]:
                row = 0
                image += 1


@compiled
def run_tasks(  # type: ignore[no-untyped-def]
    edge, start, stop, x, out, tiles, pieces, shares, weights, scratch, sizes, addresses, offsets, counts
):  # fmt: skip
    """Compute the tasks `start` to `stop` of a product: each a range of tiles, and of results of a group.

    Parameters
    ----------
    edge : literal int
        Rows and columns of results of a tile.
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
    edge, size = literally(edge), itemsize(weights)
    products = (edge + 2) ** 2
    lanes = VECTOR_BYTES // size
    groups, sources, results, rows, blocks, most_blocks = sizes[:6]
    length, source_distance, result_distance = sizes[6:9]
    shape, target_shape, grid = (sizes[9], sizes[10]), (sizes[11], sizes[12]), (sizes[13], sizes[14])
    origin = sizes[15], sizes[16]
    widest = addresses.shape[0]
    vectors = (tiles + lanes - 1) // lanes
    aligned = (scratch.ctypes.data + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES
    results_at = aligned + products * source_distance * size
    for task in range(start, stop):
        piece, share = divmod(task, shares)
        group, piece = divmod(piece, pieces)
        first = vectors * piece // pieces
        used = vectors * (piece + 1) // pieces - first
        first *= lanes
        last = min(tiles, first + used * lanes)
        x_at = x + group * sources * shape[0] * shape[1] * size
        read_tiles(
            weights, edge, x_at, aligned, first, last, sources, groups * sources, length, source_distance, shape, grid,
            origin,
        )  # fmt: skip
        last_block = blocks * (share + 1) // shares
        for block in range(blocks * share // shares, last_block, most_blocks):
            count = min(most_blocks, last_block - block)
            for t in range(products):
                a = weights.ctypes.data + ((group * products + t) * blocks + block) * sources * rows * size
                b = aligned + t * source_distance * size
                c = results_at + t * result_distance * size
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
                weights, edge, results_at, out_at, first, last, count, groups * results, length, result_distance,
                target_shape, grid,
            )  # fmt: skip


@compiled
def run_tasks_of_2(  # type: ignore[no-untyped-def]
    start, stop, x, out, tiles, pieces, shares, weights, scratch, sizes, addresses, offsets, counts
):  # fmt: skip
    """Compute tasks with tiles of 2 × 2 results."""
    run_tasks(2, start, stop, x, out, tiles, pieces, shares, weights, scratch, sizes, addresses, offsets, counts)


@compiled
def run_tasks_of_4(  # type: ignore[no-untyped-def]
    start, stop, x, out, tiles, pieces, shares, weights, scratch, sizes, addresses, offsets, counts
):  # fmt: skip
    """Compute tasks with tiles of 4 × 4 results."""
    run_tasks(4, start, stop, x, out, tiles, pieces, shares, weights, scratch, sizes, addresses, offsets, counts)
