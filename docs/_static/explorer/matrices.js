/* The drawings of W or Wᵀ between what goes in and what comes out, of WᵀW, and of the copies that Wᵀ y adds. */
"use strict";
var convmat = window.convmat || {};

convmat.matrices = (() => {
    const { product, unravel, valueOf } = convmat.geometry;
    const { boardsOf, coloursOf, largest, range, toned } = convmat.boards;
    const { board, caption, marks } = convmat.draw;
    const { text } = convmat.sentences;

    const HIGHEST = 600;
    const CAPTION = 150; // the widest of those that stand side by side
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

    /** The places where an output's copy of the kernel lands, in the padded input of a channel. */
    function copyOf({ geometry, kernel, W, y }, output, channel) {
        const { axis, dimensions } = geometry;
        return W.reads[output]
            .filter(({ from }) => from === channel)
            .map(({ place, weight }) => {
                const [row, column] = dimensions === 1 ? [0, place[0]] : place;
                return {
                    ...{ row: dimensions === 1 ? 0 : row + axis.before, column: column + axis.before },
                    ...{ value: kernel[weight] * y[output], colours: coloursOf(geometry, [weight]) },
                };
            });
    }

    /** Sums of copies at the places of a padded input. */
    function summed(copies, rows, columns) {
        const sums = Array(rows * columns).fill(0);
        for (const { row, column, value } of copies.flat()) sums[row * columns + column] += value;
        return sums;
    }

    const numbered = (values, columns, peak = largest(values)) =>
        values.map((value, index) => ({
            row: Math.floor(index / columns),
            column: index % columns,
            text: text(value),
            colours: toned(value, peak),
            quiet: !value,
        }));

    /** One axis: a row for each copy, their sum, and what is left of it when the padding is folded back. */
    function scatterOfOneAxis(model, width, selected) {
        const { geometry, y, z } = model;
        const { axis, channelsIn, rows } = geometry;
        const span = axis.before + axis.size + axis.after;
        const strip = 30;
        const cell = clamp((width - strip - 12) / span, 2, 30);
        const height = clamp(Math.min(cell, 420 / rows), 6, 26);
        const boards = [];
        let [markup, top] = ["", 20];
        for (const channel of range(channelsIn)) {
            const copies = y.map((_, output) => copyOf(model, output, channel));
            const left = strip + 10;
            const values = {
                id: `copies-y${channel}`,
                kind: "output",
                x: 2,
                y: top,
                rows,
                columns: 1,
                width: strip,
                height,
            };
            values.cells = y.map((value, row) => ({ row, column: 0, output: row, text: text(value) }));
            const table = {
                id: `copies${channel}`,
                kind: "copies",
                x: left,
                y: top,
                rows,
                columns: span,
                width: cell,
                height,
            };
            table.cells = copies.flatMap((copy, row) => copy.map((of) => ({ ...of, row, text: text(of.value) })));
            const sum = {
                id: `sum${channel}`,
                kind: "sum",
                x: left,
                y: top + rows * height + 22,
                rows: 1,
                columns: span,
                width: cell,
                height: 24,
            };
            sum.cells = numbered(summed(copies, 1, span), span);
            const result = {
                id: `z${channel}`,
                kind: "input",
                x: left + axis.before * cell,
                y: sum.y + 46,
                rows: 1,
                columns: axis.size,
                width: cell,
                height: 24,
            };
            const own = z.slice(channel * axis.size, (channel + 1) * axis.size);
            result.cells = numbered(own, axis.size, largest(z)).map((of, i) => ({
                ...of,
                input: channel * axis.size + i,
            }));
            const name = channelsIn > 1 ? `, channel ${channel}` : "";
            markup +=
                caption(2, top - 6, "y") +
                caption(left, top - 6, `y[o] · K in its place${name}`) +
                caption(left, sum.y - 6, "their sum") +
                caption(left, result.y - 6, `z = Wᵀ y${name}`);
            boards.push(values, table, sum, result);
            top = result.y + 24 + 34;
        }
        const drawn = boards.map(board).join("");
        const rings = boards.map((each) =>
            each.kind === "output" || each.kind === "copies" ? marks(each, [], [[selected, 0, 1, each.columns]]) : "",
        );
        return { width, height: top - 28, boards, markup: markup + drawn + rings.join("") };
    }

    /** Two axes: the copy of one output, the sum of the copies up to it, and the result. */
    function scatterOfTwoAxes(model, width, selected) {
        const { geometry, y, z } = model;
        const { axis, channelsIn } = geometry;
        const span = axis.before + axis.size + axis.after;
        const beside = Math.min((width - 40) / (2 * span + axis.size), (width - CAPTION - 40) / (span + axis.size));
        const several = channelsIn > 1;
        const stacked = beside < 12 || width < 3 * CAPTION;
        const cell = clamp(stacked ? (width - 4) / span : beside, 2, stacked ? 22 : 30);
        const boards = [];
        let [markup, top] = ["", 20];
        for (const channel of range(channelsIn)) {
            const copies = range(selected + 1).map((output) => copyOf(model, output, channel));
            const place = copies.at(-1);
            const shape = {
                rows: span,
                columns: span,
                width: cell,
                height: cell,
                before: axis.before,
                after: axis.after,
            };
            const size = product(geometry.inputs);
            const own = numbered(z.slice(channel * size, (channel + 1) * size), axis.size, largest(z));
            const parts = [
                [
                    several ? "y[o] · K" : "y[o] · K in its place",
                    { ...shape, kind: "copy", cells: place.map((of) => ({ ...of, text: text(of.value) })) },
                ],
                [
                    several ? "sum so far" : "sum of the copies so far",
                    { ...shape, kind: "sum", cells: numbered(summed(copies, span, span), span), rings: place },
                ],
                [
                    "z = Wᵀ y",
                    {
                        ...shape,
                        rows: axis.size,
                        columns: axis.size,
                        before: 0,
                        after: 0,
                        kind: "input",
                        cells: own.map((of, i) => ({ ...of, input: channel * size + i })),
                    },
                ],
            ];
            let left = 2;
            for (const [name, part] of parts) {
                Object.assign(part, { id: `${part.kind}${channel}`, x: left, y: top });
                markup +=
                    caption(left, top - 7, several ? `${name}, channel ${channel}` : name) +
                    board(part) +
                    ringsAround(part);
                boards.push(part);
                if (stacked) top += part.rows * cell + 30;
                else left += Math.max(CAPTION, part.columns * cell) + 18;
            }
            if (!stacked) top += span * cell + 34;
        }
        return { width, height: top - 26, boards, markup };
    }

    const ringsAround = (part) =>
        marks(
            part,
            [],
            (part.rings || []).map(({ row, column }) => [row, column, 1, 1, "edge"]),
        );

    const scatter = (model, width, selected) =>
        (model.geometry.dimensions === 1 ? scatterOfOneAxis : scatterOfTwoAxes)(model, width, selected);

    return { matrix, gramMatrix, scatter };
})();
