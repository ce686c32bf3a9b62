"""What the compiled loops do with the tables of a sweep, said plainly: slow, with a check of every read and write."""

from operator import itemgetter

import numpy as np


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


def fields(record):
    """Return a record as a dictionary."""
    return dict(zip(record.dtype.names, record.tolist(), strict=True))


class Twin:
    """One sweep, run for one array of a batch. The names are those of the module `tables`.

    `weights` is (groups, rows of a group, k) and `x` (elements of the source), both float64 with small integers, so that
    sums are exact and equal ones are the same sums. What is in scratch memory is NaN until it is written.
    """

    def __init__(self, sweep, fit, weights, x, out):
        self.rows, vectors, self.banded = sweep.tile
        self.width = vectors * fit.lanes
        self.tables, offsets = sweep.tables, sweep.tables.offsets
        (self.size,) = map(fields, sweep.tables.sizes)
        assert (self.size["tile_rows"], self.size["tile_vectors"]) == sweep.tile[:2]
        assert (offsets % fit.itemsize == 0).all()
        self.sweep, self.fit, self.weights, self.offsets = sweep, fit, weights, offsets // fit.itemsize
        self.x, self.out = Memory(x), Memory(out)
        # The row of the group that wrote an element: sums of others have another order.
        self.writer = np.full(out.size, -1)
        self.copies = 0

    def run(self):
        """Compute all tasks."""
        size = self.size
        assert self.sweep.tasks == size["strips"] * size["ranges"] * size["groups"]
        done = set()
        for task in range(self.sweep.tasks):
            strip, part = divmod(task, size["ranges"])
            group, number = divmod(strip, size["strips"])
            first = number * size["tiles_per_strip"]
            tiles = self.tables.tiles[first : first + size["tiles_per_strip"]]
            assert len(tiles)
            memory, base = self.x, group * size["source_group"]
            if len(self.tables.segments):
                memory, base = self.pack(base, tiles), -int(tiles[0]["position"])
            low, high = (size["blocks"] * edge // size["ranges"] for edge in (part, part + 1))
            for block in range(low, high):
                for number_of_tile, tile in enumerate(tiles, first):
                    assert (group, block, number_of_tile) not in done
                    done.add((group, block, number_of_tile))
                    self.tile(memory, base, group, block, **fields(tile))
        assert len(done) == size["groups"] * size["blocks"] * len(self.tables.tiles)

    def pack(self, x, tiles):
        """Return scratch memory with what a strip reads; every segment stays within its own memory."""
        memory = Memory(np.full(self.sweep.scratch - self.rows * self.width, np.nan))
        first, size, lanes, segments = int(tiles[0]["position"]), self.size, self.fit.lanes, self.tables.segments
        length = int(tiles[-1]["position"]) - first + self.width
        ends = [*segments["packed"][1:], memory.values.size - lanes]
        for segment, room in zip(map(fields, segments), ends, strict=True):
            source, phase, low, high, start, extra, packed = itemgetter(*segments.dtype.names)(segment)
            p, line_length = first + start, size["line_length"]
            end = min(p + length + extra, size["plane_size"])
            assert packed + length + extra <= room

            def zero(begin, stop, move=packed - p):
                count = stop - begin
                memory.write(move + begin, np.zeros(-(-count // lanes) * lanes))  # whole vectors

            written = p
            for line in range(p // line_length, -(-end // line_length)) if p < end else ():
                origin = line * line_length
                a = max(p, origin + low)
                n = min(end, origin + line_length, origin + high) - a
                start_of_line = int(self.tables.source_lines[phase, line])
                if start_of_line >= 0 and n > 0:
                    zero(written, a)
                    read, step = x + source + start_of_line + (a - origin) * size["source_step"], size["source_step"]
                    memory.write(packed - p + a, self.x[read : read + (n - 1) * step + 1 : step])
                    written = a + n
            zero(written, end)
        self.copies += 1
        return memory

    def tile(self, memory, base, group, block, position, target):
        """Compute a tile and store it."""
        first, size = block * self.rows, self.size
        count = min(self.rows, size["group_rows"] - first)
        result = np.zeros((count, self.width))
        for k, offset in enumerate(self.offsets.tolist()):
            read = memory[base + position + offset : base + position + offset + self.width]
            for row in range(count):
                if self.takes_part(row, k):
                    result[row] += self.weights[group, first + row, k] * read
                else:
                    assert self.weights[group, first + row, k] == 0
        out = group * size["target_group"]
        if target >= 0 and (block + 1) * self.rows <= size["group_rows"]:
            for row in range(count):
                start = out + target + first * size["target_channel"] + row * size["row_distance"]
                self.store(start, result[row], first + row)
            return
        for row in range(count):
            self.leave_out(out, result[row], position, first + row)

    def takes_part(self, row, k):
        """Tell whether a row of a banded tile takes part in a product: of the first, then of all, then of the last rows."""
        if not self.banded:
            assert self.tables.counts.tolist() == [len(self.offsets)]
            return True
        assert len(self.tables.counts) == 2 * self.rows - 1
        assert self.tables.counts.sum() == len(self.offsets)
        segment = int(np.searchsorted(np.cumsum(self.tables.counts), k, side="right"))
        return row <= segment if segment < self.rows else row > segment - self.rows

    def leave_out(self, out, result, p, number):
        """Store a row of a tile, but for what is no result."""
        channel, results = divmod(number, len(self.tables.classes))
        lines, low, high, base = self.tables.classes[results].tolist()
        line_length, target_lines, step = (
            self.size["line_length"],
            self.tables.target_lines[lines],
            self.size["target_step"],
        )
        for line in range(p // line_length, min((p + self.width - 1) // line_length + 1, len(target_lines))):
            target, origin = int(target_lines[line]), line * line_length
            a = max(p, origin + low)
            n = min(p + self.width, origin + high) - a
            if target >= 0 and n > 0:
                start = out + base + channel * self.size["target_channel"] + target + (a - origin) * step
                self.store(start, result[a - p : a - p + n], number, step)

    def store(self, start, values, number, step=1):
        """Write results; what writes an element twice writes the same sum, in the same order."""
        self.out.write(start, values, step)
        writer = self.writer[start : start + (len(values) - 1) * step + 1 : step]
        assert ((writer == -1) | (writer == number)).all()
        writer[...] = number
