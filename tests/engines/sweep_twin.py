"""What the compiled loops do with the tables of a sweep, said plainly: slow, with a check of every read and write."""

import numpy as np

_SIZES = (
    "strips", "strip_tiles", "shares", "groups", "blocks", "tile_major", "x_batch", "x_group", "out_batch", "out_group",
    "channel_size", "row_length", "plane_size", "source_step", "target_step", "row_distance", "group_rows",
)  # fmt: skip


class Memory:
    """An array of which every element that is read or written is known to exist."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, key):
        start, stop, step = key.start, key.stop, key.step or 1
        assert start >= 0
        assert (stop - 1 - start) // step * step + start < self.values.size
        return self.values[key]

    def write(self, start, values, step=1):
        assert start >= 0
        if len(values):
            assert start + (len(values) - 1) * step < self.values.size
            self.values[start : start + (len(values) - 1) * step + 1 : step] = values


class Twin:
    """One sweep, run for one array of a batch.

    `weights` is (groups, rows of a group, k) and `x` (elements of the source), both float64 with small integers, so that
    sums are exact and equal ones are the same sums. What is in scratch memory is NaN until it is written.
    """

    def __init__(self, sweep, fit, weights, x, out):
        self.rows, vectors, self.banded = sweep.tile
        self.width = vectors * fit.lanes
        sizes, offsets, self.counts, self.pieces, self.source_rows, self.tiles, self.targets, self.kinds = sweep.tables
        self.size = dict(zip(_SIZES, sizes.tolist(), strict=True))
        assert (offsets % fit.itemsize == 0).all()
        self.sweep, self.fit, self.weights, self.offsets = sweep, fit, weights, offsets // fit.itemsize
        self.x, self.out = Memory(x), Memory(out)
        self.writer = np.full(
            out.size, -1
        )  # the row of the group that wrote an element: sums of others have another order
        self.copies = 0

    def run(self):
        """Compute all tasks."""
        size = self.size
        assert self.sweep.tasks == size["strips"] * size["shares"] * size["groups"]
        done = set()
        for task in range(self.sweep.tasks):
            strip, share = divmod(task, size["shares"])
            group, number = divmod(strip, size["strips"])
            first = number * size["strip_tiles"]
            tiles = self.tiles[first : first + size["strip_tiles"]]
            assert len(tiles)
            memory, base = self.x, group * size["x_group"]
            if len(self.pieces):
                memory, base = self.pack(base, tiles), -int(tiles[0, 0])
            low, high = (size["blocks"] * part // size["shares"] for part in (share, share + 1))
            for block in range(low, high):
                for number_of_tile, tile in enumerate(tiles, first):
                    assert (group, block, number_of_tile) not in done
                    done.add((group, block, number_of_tile))
                    self.tile(memory, base, group, block, *map(int, tile))
        assert len(done) == size["groups"] * size["blocks"] * len(self.tiles)

    def pack(self, x, tiles):
        """Return scratch memory with what a strip reads; every piece stays in its own place."""
        memory = Memory(np.full(self.sweep.scratch - self.rows * self.width, np.nan))
        first, size, lanes = int(tiles[0, 0]), self.size, self.fit.lanes
        length = int(tiles[-1, 0]) - first + self.width
        ends = [*self.pieces[1:, 6], memory.values.size - lanes]
        for (base, table, low, high, start, extra, place), room in zip(self.pieces.tolist(), ends, strict=True):
            p, row_length = first + start, size["row_length"]
            end = min(p + length + extra, size["plane_size"])
            assert place + length + extra <= room

            def zero(begin, stop, move=place - p):
                count = stop - begin
                memory.write(move + begin, np.zeros(-(-count // lanes) * lanes))  # whole vectors

            written = p
            for row in range(p // row_length, -(-end // row_length)) if p < end else ():
                origin = row * row_length
                a = max(p, origin + low)
                n = min(end, origin + row_length, origin + high) - a
                source = int(self.source_rows[table, row])
                if source >= 0 and n > 0:
                    zero(written, a)
                    read, step = x + base + source + (a - origin) * size["source_step"], size["source_step"]
                    memory.write(place - p + a, self.x[read : read + (n - 1) * step + 1 : step])
                    written = a + n
            zero(written, end)
        self.copies += 1
        return memory

    def tile(self, memory, base, group, block, p, target):
        """Compute a tile and store it."""
        first, size = block * self.rows, self.size
        count = min(self.rows, size["group_rows"] - first)
        result = np.zeros((count, self.width))
        for k, offset in enumerate(self.offsets.tolist()):
            read = memory[base + p + offset : base + p + offset + self.width]
            for row in range(count):
                if self.takes_part(row, k):
                    result[row] += self.weights[group, first + row, k] * read
                else:
                    assert self.weights[group, first + row, k] == 0
        out = group * size["out_group"]
        if target >= 0 and (block + 1) * self.rows <= size["group_rows"]:
            for row in range(count):
                start = out + target + first * size["channel_size"] + row * size["row_distance"]
                self.store(start, result[row], first + row)
            return
        for row in range(count):
            self.leave_out(out, result[row], p, first + row)

    def takes_part(self, row, k):
        """Tell whether a row of a banded tile takes part in a product: of the first, then of all, then of the last rows."""
        if not self.banded:
            assert self.counts.tolist() == [len(self.offsets)]
            return True
        assert len(self.counts) == 2 * self.rows - 1
        assert self.counts.sum() == len(self.offsets)
        segment = int(np.searchsorted(np.cumsum(self.counts), k, side="right"))
        return row <= segment if segment < self.rows else row > segment - self.rows

    def leave_out(self, out, result, p, number):
        """Store a row of a tile, but for what is no result."""
        channel, kind = divmod(number, len(self.kinds))
        table, low, high, base = self.kinds[kind].tolist()
        row_length = self.size["row_length"]
        for row in range(p // row_length, min((p + self.width - 1) // row_length + 1, self.targets.shape[1])):
            target, origin = int(self.targets[table, row]), row * row_length
            a = max(p, origin + low)
            n = min(p + self.width, origin + high) - a
            if target >= 0 and n > 0:
                start = out + base + channel * self.size["channel_size"] + target
                start += (a - origin) * self.size["target_step"]
                self.store(start, result[a - p : a - p + n], number, self.size["target_step"])

    def store(self, start, values, number, step=1):
        """Write results; what writes an element twice writes the same sum, in the same order."""
        self.out.write(start, values, step)
        writer = self.writer[start : start + (len(values) - 1) * step + 1 : step]
        assert ((writer == -1) | (writer == number)).all()
        writer[...] = number
