/* The boards of input, output and kernel for a model, without their places, and what of them is highlighted. */
"use strict";
var convmat = window.convmat || {};

convmat.boards = (() => {
    const { product, ravel, shown, unravel } = convmat.geometry;
    const { colourOf, toneOf } = convmat.draw;
    const { text } = convmat.sentences;

    const range = (n) => [...Array(n).keys()];
    const largest = (values) => Math.max(...values.map(Math.abs));

    /** A spatial place as a row and a column; one axis is a board of one row. */
    const flat = (place) => (place.length === 1 ? [0, place[0]] : place);

    const coloursOf = ({ taps }, weights) => weights.map((weight) => colourOf(weight % product(taps), taps));
    const toned = (value, peak) => [toneOf(value, peak)].filter(Boolean);

    /** A channel of the input with its padding: values inside, and around them what the padding mode shows. */
    function inputCells({ geometry, xSide, state }, channel) {
        const { axis, inputs } = geometry;
        const spans = inputs.map(() => axis.before + axis.size + axis.after);
        const peak = state.transposed ? largest(xSide) : 0;
        return range(product(spans)).map((index) => {
            const [row, column] = flat(unravel(index, spans));
            const place = unravel(index, spans).map((p) => p - axis.before);
            const sources = place.map((p) => shown(axis, p));
            const inside = place.every((p) => p >= 0 && p < axis.size);
            const input = sources.includes(-1) ? -1 : channel * product(inputs) + ravel(sources, inputs);
            if (!inside) {
                const value = state.transposed ? "" : input < 0 ? "0" : text(xSide[input]);
                return { row, column, place, input, pad: true, quiet: true, text: value };
            }
            return { row, column, place, input, text: text(xSide[input]), colours: toned(xSide[input], peak) };
        });
    }

    function outputCells({ geometry, y, state }, channel) {
        const peak = state.transposed ? 0 : largest(y);
        return range(product(geometry.outputs)).map((index) => {
            const [row, column] = flat(unravel(index, geometry.outputs));
            const output = channel * product(geometry.outputs) + index;
            return { row, column, output, text: text(y[output]), colours: toned(y[output], peak) };
        });
    }

    function kernelCells({ geometry, kernel }, pair) {
        return range(product(geometry.taps)).map((t) => {
            const [row, column] = flat(unravel(t, geometry.taps));
            const tap = pair * product(geometry.taps) + t;
            return { row, column, tap, text: text(kernel[tap]), colours: coloursOf(geometry, [tap]) };
        });
    }

    /** Boards of the input's channels, of the output's, and of the kernel for each pair of them. */
    function boardsOf(model) {
        const { geometry, state } = model;
        const { axis, channelsIn, channelsOut, dimensions } = geometry;
        const { before, after } = axis;
        const shape = (size) => ({ rows: dimensions === 1 ? 1 : size, columns: size });
        const named = (channels, channel) => (channels > 1 ? `, channel ${channel}` : "");
        const [xName, yName] = state.transposed ? ["Output z", "Input y"] : ["Input x", "Output y"];
        const between = (pair) => {
            const [to, from] = [Math.floor(pair / channelsIn), pair % channelsIn];
            return channelsIn * channelsOut > 1 ? `, from channel ${from} to channel ${to}` : "";
        };
        return {
            x: range(channelsIn).map((channel) => ({
                ...shape(before + axis.size + after),
                ...{ id: `x${channel}`, kind: "input", channel, before, after },
                ...{ label: xName + named(channelsIn, channel), cells: inputCells(model, channel) },
            })),
            y: range(channelsOut).map((channel) => ({
                ...shape(axis.outputs),
                ...{ id: `y${channel}`, kind: "output", channel },
                ...{ label: yName + named(channelsOut, channel), cells: outputCells(model, channel) },
            })),
            kernels: range(channelsOut * channelsIn).map((pair) => ({
                ...shape(axis.taps),
                ...{ id: `k${pair}`, kind: "tap", label: `Kernel K${between(pair)}`, cells: kernelCells(model, pair) },
            })),
        };
    }

    const push = (map, key, weight) => map.set(key, [...(map.get(key) || []), weight]);
    const keyOf = (channel, place) => `${channel}:${place}`;

    /** What a selection lights: reads, entries of W, and which taps reach each place, input, and output. */
    function lit(model, { kind, index }) {
        const { W, geometry } = model;
        const { axis } = geometry;
        const chosen = {
            output: () => W.reads[index],
            input: () => W.byColumn[index].flatMap(({ row }) => W.reads[row].filter(({ column }) => column === index)),
            tap: () => W.reads.flatMap((reads) => reads.filter(({ weight }) => weight === index)),
        };
        const entries = {
            output: () => W.byRow[index],
            input: () => W.byColumn[index],
            tap: () => W.entries.filter(({ weights }) => weights.includes(index)),
        };
        const [places, inputs, outputs] = [new Map(), new Map(), new Map()];
        const reads = chosen[kind]();
        for (const { from, place, column, row, weight } of reads) {
            const outside = place.some((p) => p < 0 || p >= axis.size);
            if (column >= 0) push(outputs, row, weight);
            if (outside) push(places, keyOf(from, place), weight);
            if (column >= 0) push(inputs, column, weight);
        }
        const weights = new Set(reads.filter(({ column }) => column >= 0).map(({ weight }) => weight));
        return { kind, index, reads, entries: entries[kind](), places, inputs, outputs, weights };
    }

    /** The highlighted cells of a board of the input, of the output or of the kernel, and the rings around what is selected. */
    function highlighted({ geometry }, board, light) {
        const weightsOf = {
            input: (cell) =>
                cell.pad ? light.places.get(keyOf(board.channel, cell.place)) : light.inputs.get(cell.input),
            output: (cell) => light.outputs.get(cell.output),
            tap: (cell) => (light.weights.has(cell.tap) ? [cell.tap] : undefined),
        }[board.kind];
        const own = board.kind === light.kind;
        const chosen = board.cells.filter((cell) => own && cell[board.kind] === light.index && !cell.pad);
        const cells = board.cells
            .filter((cell) => weightsOf(cell) && (board.kind === "tap" || !chosen.includes(cell)))
            .map((cell) => ({ ...cell, quiet: false, colours: coloursOf(geometry, weightsOf(cell)) }));
        return [cells, chosen.map(({ row, column }) => [row, column])];
    }

    return { range, largest, coloursOf, toned, boardsOf, lit, highlighted };
})();
