/* The drawings of W or Wᵀ, between what goes in and what comes out, and of WᵀW. */
"use strict";
var convmat = window.convmat || {};

convmat.matrices = (() => {
    const { product, valueOf } = convmat.geometry;
    const { coloursOf, largest, range, toned } = convmat.boards;
    const { board, caption, marks } = convmat.draw;
    const { text } = convmat.sentences;

    const HIGHEST = 600;
    const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

    /** Every so many rows or columns a line: where images' rows end, and where channels do. */
    function stepsOf({ axis, dimensions, inputs, outputs }, transposed) {
        const sides = transposed ? [axis.size, axis.outputs] : [axis.outputs, axis.size];
        const channels = transposed ? [product(inputs), product(outputs)] : [product(outputs), product(inputs)];
        return dimensions > 1 ? [sides, channels] : [channels];
    }

    const turn = (transposed, row, column) => (transposed ? [column, row] : [row, column]);

    /** W or Wᵀ: above it the vector that goes in, at its right the one that comes out. */
    function matrix(model, width) {
        const { geometry, state, W, kernel, x, y, xSide } = model;
        const { transposed } = state;
        const [rows, columns] = turn(transposed, geometry.rows, geometry.columns);
        const strip = clamp((width - 30) / (columns + 1), 13, 30);
        const cell = clamp(Math.min((width - strip - 12) / columns, HIGHEST / rows), 1, 40);
        const name = transposed ? "Wᵀ" : "W";
        const few = rows * columns <= 500;
        const at = { x: 1, y: 24 + strip + 8 };
        const body = {
            ...at,
            id: "W",
            kind: "matrix",
            rows,
            columns,
            width: cell,
            height: cell,
            blocks: stepsOf(geometry, transposed),
            label: `${name}, ${rows} rows and ${columns} columns`,
        };
        const cells = W.entries.map((entry) => {
            const [row, column] = turn(transposed, entry.row, entry.column);
            return { row, column, text: text(valueOf(entry, kernel)), colours: coloursOf(geometry, entry.weights) };
        });
        const stored = new Set(cells.map(({ row, column }) => row * columns + column));
        const zeros = few ? range(rows * columns).filter((index) => !stored.has(index)) : [];
        const quiet = zeros.map((index) => ({
            row: Math.floor(index / columns),
            column: index % columns,
            text: "0",
            quiet: true,
        }));
        const [goesIn, comesOut] = transposed ? [y, xSide] : [x, y];
        const [above, beside] = transposed ? ["output", "input"] : ["input", "output"];
        const top = {
            id: "in",
            kind: above,
            x: 1,
            y: 24,
            rows: 1,
            columns,
            width: cell,
            height: Math.max(cell, strip),
        };
        top.height = Math.min(top.height, strip);
        const right = {
            id: "out",
            kind: beside,
            x: at.x + columns * cell + 8,
            y: at.y,
            rows,
            columns: 1,
            width: strip,
            height: cell,
        };
        top.cells = goesIn.map((value, column) => ({ row: 0, column, [above]: column, text: text(value) }));
        right.cells = comesOut.map((value, row) => ({
            row,
            column: 0,
            [beside]: row,
            text: text(value),
            colours: toned(value, largest(comesOut)),
        }));
        const boards = [top, { ...body, cells: [...cells, ...quiet] }, right];
        const [inName, outName] = transposed ? ["y", "z"] : ["x", "y"];
        const markup =
            caption(2, 14, `${inName}, row after row`) +
            caption(right.x, at.y - 6, outName, "caption end") +
            boards.map(board).join("");
        return {
            width,
            height: at.y + rows * cell + 4,
            boards,
            markup,
            marks: (light) => marksOfMatrix(model, boards, light),
        };
    }

    /** The selected row or column, or the diagonal of a tap, and the parts of the two vectors that belong to it. */
    function marksOfMatrix({ geometry, state, kernel }, [top, body, right], light) {
        const cells = light.entries.map((entry) => {
            const [row, column] = turn(state.transposed, entry.row, entry.column);
            const weights = light.kind === "tap" ? [light.index] : entry.weights;
            return { row, column, text: text(valueOf(entry, kernel)), colours: coloursOf(geometry, weights) };
        });
        const asRow = (light.kind === "output") !== state.transposed;
        const rings =
            light.kind === "tap" ? [] : asRow ? [[light.index, 0, 1, body.columns]] : [[0, light.index, body.rows, 1]];
        const vectors = [top, right].map((strip) => {
            const weightsOf = { input: light.inputs, output: light.outputs }[strip.kind];
            const own = strip.kind === light.kind;
            const of = strip.cells
                .filter((cell) => !own && weightsOf.has(cell[strip.kind]))
                .map((cell) => ({ ...cell, colours: coloursOf(geometry, weightsOf.get(cell[strip.kind])) }));
            const chosen = strip.cells.filter((cell) => own && cell[strip.kind] === light.index);
            return marks(
                strip,
                of,
                chosen.map(({ row, column }) => [row, column]),
            );
        });
        return { above: marks(body, cells, rings, true) + vectors.join("") };
    }

    /** WᵀW: which inputs are read together, and how strongly. */
    function gramMatrix(model, width) {
        const { geometry, gram } = model;
        const n = geometry.columns;
        const cell = clamp(Math.min((width - 2) / n, 480 / n), 1, 30);
        const peak = largest(gram.map(({ value }) => value));
        const body = {
            id: "gram",
            kind: "gram",
            x: 1,
            y: 4,
            rows: n,
            columns: n,
            width: cell,
            height: cell,
            blocks: stepsOf(
                { ...geometry, axis: { ...geometry.axis, outputs: geometry.axis.size }, outputs: geometry.inputs },
                false,
            ),
            label: `WᵀW, ${n} rows and ${n} columns`,
        };
        const cells = gram.map(({ row, column, value }) => ({
            row,
            column,
            text: text(value),
            colours: toned(value, peak),
        }));
        const whole = { ...body, cells };
        const marksOf = (light) => {
            if (light.kind === "tap") return { above: "" };
            const chosen = new Set(light.kind === "input" ? [light.index] : light.inputs.keys());
            const block = cells.filter(
                ({ row, column }) => chosen.has(row) && (light.kind === "input" || chosen.has(column)),
            );
            const rings = light.kind === "input" ? [[light.index, 0, 1, n]] : [];
            return { above: marks(whole, block, rings, true) };
        };
        return { width, height: n * cell + 8, boards: [whole], markup: board(whole), marks: marksOf };
    }

    return { matrix, gramMatrix };
})();
