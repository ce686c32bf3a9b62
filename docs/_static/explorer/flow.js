/* The first drawing: input, kernel and output, and which of them read which. */
"use strict";
var convmat = window.convmat || {};

convmat.flow = (() => {
    const { boardsOf, coloursOf, highlighted } = convmat.boards;
    const { board, caption, centreOf, cornerOf, indices, line, marks } = convmat.draw;

    const MOST_LINES = 400;
    const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
    const captions = ({ state }) => (state.transposed ? { x: "z = Wᵀ y", y: "y" } : { x: "x", y: "y = W x" });

    /** Puts kernels from (x, y) on, a row for each channel of the output; returns the height that they take. */
    function placeKernels(kernels, { channelsIn, channelsOut }, x, y, cell) {
        kernels.forEach((kernel, pair) => {
            const [to, from] = [Math.floor(pair / channelsIn), pair % channelsIn];
            const [right, down] = [from * (kernel.columns * cell + 10), to * (kernel.rows * cell + 10)];
            Object.assign(kernel, { x: x + right, y: y + down, width: cell, height: cell });
        });
        return channelsOut * (kernels[0].rows * cell + 10) - 10;
    }

    /** Puts boards below one another; returns where they end. */
    function placeBelow(boards, x, top, cell, gap) {
        for (const each of boards) {
            Object.assign(each, { x, y: top, width: cell, height: cell });
            top += each.rows * cell + gap;
        }
        return top - gap;
    }

    /** One axis: outputs above the middles of their windows, inputs below. */
    function layoutOfOneAxis(model, width) {
        const { geometry } = model;
        const { axis } = geometry;
        const boards = boardsOf(model);
        const { x, y, kernels } = boards;
        const names = captions(model);
        const cell = clamp((width - 4) / x[0].columns, 2, 40);
        const kernelEnd = 20 + placeKernels(kernels, geometry, 2, 20, clamp(cell, 20, 30));
        const top = kernelEnd + 44;
        const middle = 2 + (axis.dilation * (axis.taps - 1) * cell) / 2;
        const between = placeBelow(y, middle, top, cell, 14);
        for (const strip of y) strip.pitch = axis.stride * cell;
        const below = between + clamp(1.9 * cell, 54, 76);
        const end = placeBelow(x, 2, below, cell, 10);
        const markup =
            caption(2, 12, "kernel K") +
            caption(2, top - 22, names.y) +
            caption(2, end + 30, names.x) +
            indices(y[0], { count: axis.outputs }) +
            indices(x.at(-1), { count: axis.size, first: axis.before, side: "below" });
        return { ...boards, markup, width, height: end + 36 };
    }

    /** Two axes: the kernel above, the padded input, and the output beside it, or below it where there is no room. */
    function layoutOfTwoAxes(model, width) {
        const { geometry } = model;
        const { axis, channelsIn } = geometry;
        const boards = boardsOf(model);
        const { x, y, kernels } = boards;
        const names = captions(model);
        const [margin, gap] = [18, 58];
        const beside = (width - 2 * margin - gap - 4) / (x[0].columns + axis.outputs);
        const under = (width - margin - 4) / Math.max(x[0].columns, axis.outputs);
        const stacked = beside < 15 && under > 1.15 * beside;
        const cell = clamp(stacked ? under : beside, 2, 44);
        const kernelCell = clamp(Math.min(cell, 190 / (channelsIn * axis.taps)), 14, 30);
        const top = 20 + placeKernels(kernels, geometry, margin, 20, kernelCell) + 44;
        const tall = (of) => of.length * (of[0].rows * cell + 14) - 14;
        const end = placeBelow(x, margin, top, cell, 14);
        // Beside a taller input, the output stands in the middle.
        const yTop = stacked ? end + 52 : top + Math.max(0, (tall(x) - tall(y)) / 2);
        const yLeft = stacked ? margin : margin + x[0].columns * cell + gap;
        const yEnd = placeBelow(y, yLeft, yTop, cell, 14);
        const inner = { ...x[0], y: top + axis.before * cell };
        const markup =
            caption(margin, 12, "kernel K") +
            caption(margin, top - 20, names.x) +
            caption(yLeft, yTop - 20, names.y) +
            indices(x[0], { count: axis.size, first: axis.before }) +
            indices(inner, { count: axis.size, side: "left" }) +
            indices(y[0], { count: axis.outputs }) +
            indices(y[0], { count: axis.outputs, side: "left" });
        return { ...boards, markup, stacked, width, height: Math.max(end, yEnd) + 4 };
    }

    /** The line of a read, between the upper edge of an input and the lower edge of an output. */
    function lineOf({ geometry, state }, layout, { from, place, column, row, weight }, strong) {
        const { axis } = geometry;
        const [input, output] = [layout.x[from], layout.y[Math.floor(row / axis.outputs)]];
        const [inputX] = centreOf(input, 0, place[0] + axis.before);
        const [outputX] = centreOf(output, 0, row % axis.outputs);
        const ends = [
            [inputX, input.y],
            [outputX, output.y + output.height],
        ];
        const [start, end] = state.transposed ? ends.reverse() : ends;
        return line(start, end, coloursOf(geometry, [weight])[0], { strong, dotted: column < 0 });
    }

    /** The corners of a box around the cells of the first board that has some of those that are asked for. */
    function boxOf(boards, isIn) {
        const found = boards.map((board) => ({ board, cells: board.cells.filter((cell) => isIn(cell, board)) }));
        const first = found.find(({ cells }) => cells.length);
        if (!first) return null;
        const rows = first.cells.map(({ row }) => row);
        const columns = first.cells.map(({ column }) => column);
        const [x1, y1] = cornerOf(first.board, Math.min(...rows), Math.min(...columns));
        const [x2, y2] = cornerOf(first.board, Math.max(...rows) + 1, Math.max(...columns) + 1);
        return { x1, y1, x2, y2 };
    }

    /** The beam between a window and its output, or between an input and the outputs that read it. */
    function beam({ kind, index, reads, outputs }, { x, y, stacked }) {
        if (kind === "tap") return "";
        const read = new Set(reads.map(({ from, place }) => `${from}:${place}`));
        const window = boxOf(x, ({ place, input, pad }, { channel }) =>
            kind === "input" ? input === index && !pad : read.has(`${channel}:${place}`),
        );
        const seen = boxOf(y, ({ output }) => (kind === "output" ? output === index : outputs.has(output)));
        if (!window || !seen) return "";
        const points = stacked
            ? [
                  [window.x1, window.y2],
                  [seen.x1, seen.y1],
                  [seen.x2, seen.y1],
                  [window.x2, window.y2],
              ]
            : [
                  [window.x2, window.y1],
                  [seen.x1, seen.y1],
                  [seen.x1, seen.y2],
                  [window.x2, window.y2],
              ];
        return `<polygon class="beam" points="${points.map((point) => point.join(",")).join(" ")}"/>`;
    }

    /** The arrow from what goes in to what comes out. */
    function arrow({ state }, { x, y, stacked }) {
        const bottom = x.at(-1).y + x.at(-1).rows * x.at(-1).height;
        const [from, to] = stacked
            ? [
                  [x[0].x + 70, bottom + 8],
                  [x[0].x + 70, bottom + 44],
              ]
            : [
                  [y[0].x - 50, y[0].y - 24],
                  [y[0].x - 22, y[0].y - 24],
              ];
        return line(...(state.transposed ? [to, from] : [from, to]), "currentColor", { strong: true });
    }

    function layout(model, width) {
        const oneAxis = model.geometry.dimensions === 1;
        const placed = oneAxis ? layoutOfOneAxis(model, width) : layoutOfTwoAxes(model, width);
        const boards = [...placed.kernels, ...placed.y, ...placed.x];
        const allReads = oneAxis ? model.W.reads.flat() : [];
        const faint =
            allReads.length <= MOST_LINES ? allReads.map((read) => lineOf(model, placed, read, false)).join("") : "";
        return {
            ...{ width, height: placed.height, boards, behind: faint },
            markup: (oneAxis ? "" : arrow(model, placed)) + placed.markup + boards.map(board).join(""),
            marks: (light) => ({
                beneath: oneAxis
                    ? light.reads.map((read) => lineOf(model, placed, read, true)).join("")
                    : beam(light, placed),
                above: boards
                    .map((each) => marks(each, ...highlighted(model, each, light), each.kind === "tap"))
                    .join(""),
            }),
        };
    }

    return { layout };
})();
