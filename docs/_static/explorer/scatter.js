/* The third drawing: Wᵀ y as a sum of copies of the kernel, each weighted by an element of y. */
"use strict";
var convmat = window.convmat || {};

convmat.scatter = (() => {
    const { product } = convmat.geometry;
    const { coloursOf, largest, range, toned } = convmat.boards;
    const { board, caption, marks } = convmat.draw;
    const { text } = convmat.sentences;

    const CAPTION = 150; // the widest of those that stand side by side
    const STRIP = 30; // the numbers of y
    const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
    const spanOf = ({ before, size, after }) => before + size + after;

    /** The places where an output's copy of the kernel lands, in the padded input of a channel. */
    function copyOf({ geometry, kernel, W, y }, output, channel) {
        const { axis, dimensions } = geometry;
        const reads = W.reads[output].filter(({ from }) => from === channel);
        return reads.map(({ place, weight }) => ({
            row: dimensions > 1 ? place[0] + axis.before : 0,
            column: place.at(-1) + axis.before,
            value: kernel[weight] * y[output],
            text: text(kernel[weight] * y[output]),
            colours: coloursOf(geometry, [weight]),
        }));
    }

    /** Sums of copies at the places of a padded input. */
    function summed(copies, rows, columns) {
        const sums = Array(rows * columns).fill(0);
        for (const { row, column, value } of copies.flat()) sums[row * columns + column] += value;
        return sums;
    }

    const numbered = (values, columns, peak = largest(values)) =>
        values.map((value, index) => {
            const [row, column] = [Math.floor(index / columns), index % columns];
            return { row, column, text: text(value), colours: toned(value, peak), quiet: !value };
        });

    /** The cells of a channel of z. */
    function resultCells({ geometry, z }, channel) {
        const size = product(geometry.inputs);
        const own = z.slice(channel * size, (channel + 1) * size);
        return numbered(own, geometry.axis.size, largest(z)).map((cell, i) => ({ ...cell, input: channel * size + i }));
    }

    const ringsOfInput = (cells, { kind, index }) =>
        cells.filter(({ input }) => kind === "input" && input === index).map(({ row, column }) => [row, column]);

    /** The outputs whose copies belong to what is selected; a tap is in all of them. */
    const chosen = ({ kind, index, outputs }) => ({ output: [index], input: [...outputs.keys()], tap: [] })[kind];

    /** One axis: a row for each copy, their sum, and what is left of it when the padding is folded back. */
    function channelOfOneAxis(model, lights, channel, top, cell) {
        const { geometry, y } = model;
        const { axis, rows } = geometry;
        const [left, span] = [STRIP + 10, spanOf(axis)];
        const height = clamp(Math.min(cell, 420 / rows), 6, 26);
        const row = { rows: 1, width: cell, height: 24 };
        const copies = y.map((_, output) => copyOf(model, output, channel));
        const rings = chosen(lights).map((output) => [output, 0]);
        const sumTop = top + rows * height + 22;
        const result = resultCells(model, channel);
        const values = y.map((value, output) => ({ row: output, column: 0, output, text: text(value) }));
        const laid = copies.flatMap((copy, output) => copy.map((of) => ({ ...of, row: output })));
        const boards = [
            {
                id: "weight",
                kind: "output",
                x: 2,
                y: top,
                rows,
                columns: 1,
                width: STRIP,
                height,
                cells: values,
                rings,
            },
            { id: "copies", kind: "copies", x: left, y: top, rows, columns: span, width: cell, height, cells: laid },
            {
                ...row,
                id: "sum",
                kind: "sum",
                x: left,
                y: sumTop,
                columns: span,
                cells: numbered(summed(copies, 1, span), span),
            },
            {
                ...row,
                id: "z",
                kind: "input",
                x: left + axis.before * cell,
                y: sumTop + 46,
                columns: axis.size,
                cells: result,
            },
        ];
        boards[1].rings = rings.map(([output]) => [output, 0, 1, span]);
        boards[3].rings = ringsOfInput(result, lights);
        const name = geometry.channelsIn > 1 ? `, channel ${channel}` : "";
        const captions = ["y", `y[o] · K in its place${name}`, "their sum", `z = Wᵀ y${name}`];
        const labels = captions.map((words, i) => caption(i ? left : 2, boards[i].y - 6, words));
        return { boards, labels, end: sumTop + 70 };
    }

    /** Two axes: the copy of one output, the sum of the copies up to it, and the result. */
    function channelOfTwoAxes(model, lights, channel, top, cell, stacked) {
        const { axis, channelsIn } = model.geometry;
        const span = spanOf(axis);
        const last = Math.max(0, ...(lights.kind === "tap" ? lights.outputs.keys() : chosen(lights)));
        const copies = range(last + 1).map((output) => copyOf(model, output, channel));
        const place = copies.at(-1);
        const result = resultCells(model, channel);
        const padded = { rows: span, columns: span, before: axis.before, after: axis.after, width: cell, height: cell };
        const plain = { rows: axis.size, columns: axis.size, width: cell, height: cell };
        const sums = numbered(summed(copies, span, span), span);
        const boards = [
            { ...padded, id: "copy", kind: "copy", cells: place, rings: [] },
            {
                ...padded,
                id: "sum",
                kind: "sum",
                cells: sums,
                rings: place.map(({ row, column }) => [row, column, 1, 1, "edge"]),
            },
            { ...plain, id: "z", kind: "input", cells: result, rings: ringsOfInput(result, lights) },
        ];
        let [left, end] = [2, top];
        for (const each of boards) {
            Object.assign(each, { x: left, y: stacked ? end : top });
            end = Math.max(end, each.y + each.rows * cell + (stacked ? 30 : 0));
            if (!stacked) left += Math.max(CAPTION, each.columns * cell) + 18;
        }
        const captions =
            channelsIn > 1
                ? ["y[o] · K", "sum so far", "z = Wᵀ y"].map((words) => `${words}, channel ${channel}`)
                : ["y[o] · K in its place", "sum of the copies so far", "z = Wᵀ y"];
        return {
            boards,
            labels: captions.map((words, i) => caption(boards[i].x, boards[i].y - 7, words)),
            end: stacked ? end - 30 : end,
        };
    }

    /** How large a cell is, and whether boards stand below one another. */
    function sizesOf({ axis, dimensions }, width) {
        const span = spanOf(axis);
        if (dimensions === 1) return [clamp((width - STRIP - 12) / span, 2, 30), false];
        const beside = Math.min((width - 40) / (2 * span + axis.size), (width - CAPTION - 40) / (span + axis.size));
        const stacked = beside < 12 || width < 3 * CAPTION;
        return [clamp(stacked ? (width - 4) / span : beside, 2, stacked ? 22 : 30), stacked];
    }

    function layout(model, width, lights) {
        const { geometry } = model;
        const [cell, stacked] = sizesOf(geometry, width);
        const ofChannel = geometry.dimensions === 1 ? channelOfOneAxis : channelOfTwoAxes;
        const [boards, labels] = [[], []];
        let top = 20;
        for (const channel of range(geometry.channelsIn)) {
            const part = ofChannel(model, lights, channel, top, cell, stacked);
            boards.push(...part.boards);
            labels.push(...part.labels);
            top = part.end + 34;
        }
        const rings = boards.map((each) => marks(each, [], each.rings));
        return { width, height: top - 28, boards, markup: [...labels, ...boards.map(board), ...rings].join("") };
    }

    return { layout };
})();
