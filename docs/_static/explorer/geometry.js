/* The matrix of a convolution from integers in closed form, as in convmat/geometry. Knows nothing of the page. */
"use strict";
var convmat = window.convmat || {};

convmat.geometry = (() => {
    // Rows or columns that the page has room for.
    const MOST = 256;

    // What a padding mode shows at a position outside 0 … n − 1 (−1 is nothing), and how wide a border may be.
    const MODES = {
        zeros: { source: () => -1, limit: () => Infinity },
        circular: { source: (position, n) => (position + n) % n, limit: (n) => n },
        reflect: { source: (position, n) => (position < 0 ? -position : 2 * (n - 1) - position), limit: (n) => n - 1 },
        symmetric: { source: (position, n) => (position < 0 ? -1 - position : 2 * n - 1 - position), limit: (n) => n },
        replicate: { source: (position, n) => (position < 0 ? 0 : n - 1), limit: () => Infinity },
    };

    /** What is wrong with the settings, in one sentence that says what would be right. */
    class SettingsError extends RangeError {}

    const product = (numbers) => numbers.reduce((a, b) => a * b, 1);
    const repeat = (value, times) => Array(times).fill(value);

    /** The position in the padded input that an output reads through a tap; the first input is at 0. */
    const position = (axis, output, tap) => output * axis.stride - axis.before + tap * axis.dilation;

    /** The input that the padding mode shows at a position; −1 is none. */
    function shown(axis, place) {
        return place >= 0 && place < axis.size ? place : MODES[axis.mode].source(place, axis.size);
    }

    const source = (axis, output, tap) => shown(axis, position(axis, output, tap));

    function unravel(index, shape) {
        const place = [];
        for (const size of [...shape].reverse()) {
            place.unshift(index % size);
            index = Math.floor(index / size);
        }
        return place;
    }

    const ravel = (place, shape) => place.reduce((index, value, axis) => index * shape[axis] + value, 0);

    const reach = ({ kernel, dilation }) => dilation * (kernel - 1);

    /** The smallest input that the convolution maps to this many outputs: what a transposed convolution gives. */
    const smallest = (settings, outputs) =>
        settings.stride * (outputs - 1) + reach(settings) + 1 - settings.before - settings.after;

    function transposedSize(settings) {
        const { size, stride, dilation, before, after, output_padding: extra } = settings;
        const limit = Math.max(stride, dilation);
        if (extra >= limit) {
            throw new SettingsError(`output_padding must be below max(stride, dilation) = ${limit}, got ${extra}.`);
        }
        const inputs = smallest(settings, size) + extra;
        if (inputs < 1) {
            const most = before + after + inputs - 1;
            throw new SettingsError(
                `Padding must leave an output: before and after may add up to at most ${most} here, got ${before + after}.`,
            );
        }
        return inputs;
    }

    /** One axis, or an error. Seen from the transposed convolution, `size` is the number of outputs of the convolution. */
    function axisOf(settings) {
        const { stride, before, after, dilation, mode, kernel: taps, transposed } = settings;
        const size = transposed ? transposedSize(settings) : settings.size;
        const limit = MODES[mode].limit(size);
        if (Math.max(before, after) > limit) {
            throw new SettingsError(
                `Padding with the mode ${mode} must be at most ${limit} for an input of size ${size}, ` +
                    `got ${before} before and ${after} after.`,
            );
        }
        const room = size + before + after - reach(settings) - 1;
        if (room < 0) {
            throw new SettingsError(
                `The kernel must fit into the padded input: it reaches over ${reach(settings) + 1} positions, and there are ` +
                    `${size + before + after}; choose a smaller kernel or dilation, a larger input or more padding.`,
            );
        }
        // A transposed convolution keeps its number of outputs, also where output_padding makes room for one more.
        const outputs = transposed ? settings.size : Math.floor(room / stride) + 1;
        return { size, taps, stride, before, after, dilation, outputs, mode };
    }

    /** The geometry that settings describe: the same on each of their axes. Throws a SettingsError. */
    function describe(settings) {
        const axis = axisOf(settings);
        const { axes: dimensions, channels_in: channelsIn, channels_out: channelsOut } = settings;
        const inputs = repeat(axis.size, dimensions);
        const outputs = repeat(axis.outputs, dimensions);
        const taps = repeat(axis.taps, dimensions);
        const rows = channelsOut * product(outputs);
        const columns = channelsIn * product(inputs);
        if (Math.max(rows, columns) > MOST) {
            throw new SettingsError(
                `W must have at most ${MOST} rows and columns to be drawn here, got ${rows} and ${columns}; ` +
                    "choose a smaller size or one channel.",
            );
        }
        const kernelSize = channelsOut * channelsIn * product(taps);
        return { axis, dimensions, channelsIn, channelsOut, inputs, outputs, taps, rows, columns, kernelSize };
    }

    /** What one output reads: for each tap of its kernels, the place in the padded input and the column, or −1. */
    function reads(geometry, row) {
        const { axis, inputs, outputs, taps, channelsIn } = geometry;
        const [channel, ...output] = unravel(row, [geometry.channelsOut, ...outputs]);
        const found = [];
        for (let from = 0; from < channelsIn; from += 1) {
            for (let t = 0; t < product(taps); t += 1) {
                const tap = unravel(t, taps);
                const place = output.map((o, i) => position(axis, o, tap[i]));
                const sources = place.map((p) => shown(axis, p));
                const column = sources.includes(-1) ? -1 : from * product(inputs) + ravel(sources, inputs);
                const weight = (channel * channelsIn + from) * product(taps) + t;
                found.push({ row, column, from, place, tap, weight });
            }
        }
        return found;
    }

    /** W by rows and columns; an entry has the kernel's elements that are added in it, several where a border repeats an input. */
    function build(geometry) {
        const byRow = Array.from({ length: geometry.rows }, () => []);
        const byColumn = Array.from({ length: geometry.columns }, () => []);
        const readsOf = byRow.map((_, row) => reads(geometry, row));
        for (const all of readsOf) {
            const found = new Map();
            for (const { row, column, weight } of all) {
                if (column < 0) continue;
                if (!found.has(column)) found.set(column, { row, column, weights: [] });
                found.get(column).weights.push(weight);
            }
            for (const entry of [...found.values()].sort((a, b) => a.column - b.column)) {
                byRow[entry.row].push(entry);
                byColumn[entry.column].push(entry);
            }
        }
        return { geometry, byRow, byColumn, reads: readsOf, entries: byRow.flat() };
    }

    const valueOf = (entry, kernel) => entry.weights.reduce((sum, weight) => sum + kernel[weight], 0);

    /** W x, and Wᵀ y. */
    const apply = (W, kernel, x) =>
        W.byRow.map((row) => row.reduce((sum, entry) => sum + valueOf(entry, kernel) * x[entry.column], 0));
    const applyTransposed = (W, kernel, y) =>
        W.byColumn.map((column) => column.reduce((sum, entry) => sum + valueOf(entry, kernel) * y[entry.row], 0));

    /** WᵀW as entries: a value for each pair of inputs that an output reads. */
    function gram(W, kernel) {
        const size = W.geometry.columns;
        const found = new Map();
        for (const row of W.byRow) {
            for (const one of row) {
                for (const other of row) {
                    const key = one.column * size + other.column;
                    const value = valueOf(one, kernel) * valueOf(other, kernel);
                    found.set(key, (found.get(key) || 0) + value);
                }
            }
        }
        return [...found].map(([key, value]) => ({ row: Math.floor(key / size), column: key % size, value }));
    }

    /** How many taps each phase of the inputs meets far from the borders: uneven counts draw a checkerboard. */
    function phases(axis) {
        const counts = repeat(0, axis.stride);
        for (let tap = 0; tap < axis.taps; tap += 1) counts[(tap * axis.dilation) % axis.stride] += 1;
        return counts;
    }

    return {
        ...{ MODES, MOST, SettingsError, product, unravel, ravel, position, shown, source, smallest, describe },
        ...{ build, valueOf, apply, applyTransposed, gram, phases },
    };
})();
