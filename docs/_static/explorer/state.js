/* The page's settings: their limits, what a link says of them, presets, and the arrays that they stand for. */
"use strict";
var convmat = window.convmat || {};

convmat.state = (() => {
    const { SettingsError, describe, product, smallest, unravel } = convmat.geometry;

    // Least, most, and what is not said in a link. Sliders end earlier where `slider` says so.
    const NUMBERS = {
        size: { least: 1, most: 128, initial: 8, slider: 16 },
        kernel: { least: 1, most: 7, initial: 3 },
        stride: { least: 1, most: 4, initial: 1 },
        before: { least: 0, most: 8, initial: 1 },
        after: { least: 0, most: 8, initial: 1 },
        dilation: { least: 1, most: 4, initial: 1 },
        output_padding: { least: 0, most: 3, initial: 0 },
        axes: { least: 1, most: 2, initial: 1 },
        channels_in: { least: 1, most: 2, initial: 1 },
        channels_out: { least: 1, most: 2, initial: 1 },
    };
    const CHOICES = {
        mode: ["zeros", "circular", "reflect", "symmetric", "replicate"],
        weights: ["counting", "ones", "triangle", "difference", "own"],
        values: ["counting", "ones", "impulse"],
    };
    const KINDS = ["output", "input", "tap"];
    // What a link may say, in the order in which `write` says it.
    const NAMES = [
        ...["axes", "size", "kernel", "stride", "padding", "dilation", "output_padding", "mode", "channels"],
        ...["weights", "values", "transposed", "show"],
    ];

    const INITIAL = {
        ...Object.fromEntries(Object.entries(NUMBERS).map(([name, { initial }]) => [name, initial])),
        ...{ mode: "zeros", weights: "counting", values: "counting", own: "", transposed: false },
        show: { kind: "output", index: 1 },
    };

    const plain = { before: 0, after: 0 };
    const book = { ...plain, axes: 2, size: 3, kernel: 2, show: { kind: "output", index: 2 } };
    const upwards = { ...plain, size: 4, stride: 2, transposed: true };
    const checkerboard = { ...upwards, axes: 2, weights: "ones", values: "ones" };
    const PRESETS = [
        {
            name: "The book's 3 × 3",
            note: "A 2 × 2 kernel on a 3 × 3 input: each row of W is the kernel, spread over the columns of its window.",
            changes: book,
        },
        {
            name: "Its transpose",
            note: "The same matrix, turned: each column of Wᵀ lays a copy of the kernel down, and copies that overlap add up.",
            changes: { ...book, size: 2, transposed: true },
        },
        {
            name: "One axis",
            note: "One axis with a zero on either side: each tap is a diagonal of W, and the rows at the borders lack a tap.",
            changes: {},
        },
        {
            name: "Stride 2",
            note: "The window moves by two inputs, so each row of W moves by two columns.",
            changes: { size: 9, stride: 2, show: { kind: "output", index: 2 } },
        },
        {
            name: "Dilation 2",
            note: "Taps stand two inputs apart, and so do the diagonals of W.",
            changes: { size: 9, dilation: 2, before: 2, after: 2, show: { kind: "output", index: 4 } },
        },
        {
            name: "Circular",
            note: "The border shows the other end of the input, so a diagonal that leaves W on one side comes in on the other.",
            changes: { mode: "circular", show: { kind: "output", index: 0 } },
        },
        {
            name: "Two channels",
            note: "W has a block for each pair of an input channel and an output channel, and each pair has its own kernel.",
            changes: { size: 5, channels_in: 2, channels_out: 2, show: { kind: "tap", index: 4 } },
        },
        {
            name: "Checkerboard",
            note: "Three taps at stride 2: copies overlap unevenly, and a constant becomes a checkerboard.",
            changes: { ...checkerboard, kernel: 3, show: { kind: "input", index: 40 } },
        },
        {
            name: "No checkerboard",
            note: "Four taps at stride 2: away from the borders, every output collects the same number of inputs.",
            changes: { ...checkerboard, kernel: 4, show: { kind: "input", index: 44 } },
        },
        {
            name: "output_padding",
            note: "A convolution makes 4 of 9 and of 10 inputs. output_padding chooses 10, and no copy reaches the tenth.",
            changes: { ...upwards, output_padding: 1, show: { kind: "input", index: 9 } },
        },
        {
            name: "A larger W",
            note: "Bands of bands: each tap is a diagonal, with gaps where a line of the image ends.",
            changes: { axes: 2, size: 10, show: { kind: "tap", index: 5 } },
        },
    ].map(({ name, note, changes }) => ({ name, note, state: { ...INITIAL, ...changes } }));

    /** What a link says: all that is not initial. */
    function write(state) {
        const said = [];
        const say = (name, value, initial) => String(value) === String(initial) || said.push(`${name}=${value}`);
        say("axes", state.axes, INITIAL.axes);
        for (const name of ["size", "kernel", "stride"]) say(name, state[name], INITIAL[name]);
        say("padding", [state.before, state.after], [INITIAL.before, INITIAL.after]);
        for (const name of ["dilation", "output_padding", "mode"]) say(name, state[name], INITIAL[name]);
        say("channels", [state.channels_in, state.channels_out], [1, 1]);
        say("weights", state.weights === "own" ? numbersIn(state.own).join(",") : state.weights, INITIAL.weights);
        say("values", state.values, INITIAL.values);
        if (state.transposed) said.push("transposed");
        say("show", `${state.show.kind}-${state.show.index}`, `${INITIAL.show.kind}-${INITIAL.show.index}`);
        return said.join("&");
    }

    function number(name, text) {
        const { least, most } = NUMBERS[name];
        const value = Number(text);
        if (text === undefined || text === "" || !Number.isInteger(value) || value < least || value > most) {
            throw new SettingsError(`The link's ${name} must be a whole number from ${least} to ${most}, got ${text}.`);
        }
        return value;
    }

    function choice(name, text) {
        if (!CHOICES[name].includes(text) || text === "own") {
            const words = CHOICES[name].filter((word) => word !== "own").join(", ");
            throw new SettingsError(`The link's ${name} must be one of ${words}, got ${text}.`);
        }
        return text;
    }

    function pair(names, text) {
        const [first, second = first] = text.split(",");
        return { [names[0]]: number(names[0], first), [names[1]]: number(names[1], second) };
    }

    function shownIn(text) {
        const [kind, index] = text.split("-");
        if (!KINDS.includes(kind) || !/^\d+$/.test(index)) {
            throw new SettingsError(
                `The link's show must be output, input or tap and an index, as in output-3, got ${text}.`,
            );
        }
        return { show: { kind, index: Number(index) } };
    }

    /** The settings that one part of a link stands for. */
    function said(name, text) {
        if (name === "padding") return pair(["before", "after"], text);
        if (name === "channels") return pair(["channels_in", "channels_out"], text);
        if (name === "show") return shownIn(text);
        if (name === "transposed") return { transposed: true };
        if (name === "weights" && /\d/.test(text)) return { weights: "own", own: text };
        if (!NAMES.includes(name))
            throw new SettingsError(`The link's ${name} is no setting; settings are ${NAMES.join(", ")}.`);
        if (name in NUMBERS) return { [name]: number(name, text) };
        return { [name]: choice(name, text) };
    }

    function decoded(fragment) {
        try {
            return decodeURIComponent(fragment.replace(/^#/, ""));
        } catch {
            throw new SettingsError(`The link must say its settings as in size=8&stride=2, got ${fragment}.`);
        }
    }

    /** Settings from a link's fragment. Throws a SettingsError. */
    function read(fragment) {
        const parts = decoded(fragment).split("&").filter(Boolean);
        const changes = parts.map((part) => {
            const [name, text = ""] = part.split("=");
            // A lone word is an anchor of the page, such as that of its search.
            return part.includes("=") || name === "transposed" ? said(name, text) : {};
        });
        return Object.assign({}, INITIAL, ...changes);
    }

    const numbersIn = (text) =>
        text
            .split(/[\s,;]+/)
            .filter(Boolean)
            .map((word) => Number(word.replace("−", "-")));

    const triangle = (n) => Array.from({ length: n }, (_, t) => Math.min(t + 1, n - t));
    const difference = (n) => Array.from({ length: n }, (_, t) => (2 * t - n + 1) / (n % 2 ? 2 : 1));

    /** The kernel's elements in C order. */
    function kernelOf(state, geometry) {
        const { kernelSize, taps, dimensions } = geometry;
        const indices = [...Array(kernelSize).keys()];
        const last = state.weights === "difference" ? difference : triangle;
        const outer = (index) =>
            unravel(index % product(taps), taps).reduce((value, t, axis) => {
                const along = axis === dimensions - 1 ? last : triangle;
                return value * along(state.kernel)[t];
            }, 1);
        if (state.weights === "own") {
            const numbers = numbersIn(state.own);
            if (numbers.length !== kernelSize || !numbers.every(Number.isFinite)) {
                throw new SettingsError(
                    `The kernel needs ${kernelSize} ${kernelSize > 1 ? "numbers, row after row" : "number"}, got ` +
                        `${numbers.every(Number.isFinite) ? numbers.length : `“${state.own}”`}.`,
                );
            }
            return numbers;
        }
        if (state.weights === "counting") return indices.map((index) => index + 1);
        if (state.weights === "ones") return indices.map(() => 1);
        return indices.map(outer);
    }

    /** What goes in: x for W, y for Wᵀ. */
    function valuesOf(state, length) {
        const middle = Math.floor(length / 2);
        const at = { counting: (i) => i, ones: () => 1, impulse: (i) => Number(i === middle) }[state.values];
        return Array.from({ length }, (_, i) => at(i));
    }

    /** The settings of the transposed convolution with the same W, or back. */
    function turned(state) {
        const { axis } = describe(state);
        if (state.transposed) return { ...state, transposed: false, size: axis.size, output_padding: 0 };
        const extra = axis.size - smallest(state, axis.outputs);
        return { ...state, transposed: true, size: axis.outputs, output_padding: extra };
    }

    const tuple = (numbers) => (numbers.length === 1 ? `(${numbers[0]},)` : `(${numbers.join(", ")})`);

    function nested(numbers, shape) {
        if (shape.length === 1) return `[${numbers.join(", ")}]`;
        const step = numbers.length / shape[0];
        const parts = [...Array(shape[0]).keys()].map((i) =>
            nested(numbers.slice(i * step, (i + 1) * step), shape.slice(1)),
        );
        return `[${parts.join(", ")}]`;
    }

    function options(state) {
        const { stride, before, after, dilation, mode, output_padding: extra, transposed, axes } = state;
        const pairs = tuple(Array(axes).fill(`(${before}, ${after})`));
        return [
            stride > 1 && `stride=${stride}`,
            before + after > 0 && `padding=${before === after ? before : pairs}`,
            dilation > 1 && `dilation=${dilation}`,
            mode !== "zeros" && `padding_mode="${mode}"`,
            transposed && extra > 0 && `output_padding=${extra}`,
        ].filter(Boolean);
    }

    /** The same in Python, with convmat. */
    function code(state, geometry, kernel) {
        const { channelsIn, channelsOut, taps, inputs, outputs, rows, columns } = geometry;
        const channels = channelsIn * channelsOut > 1;
        const kernelShape = channels ? [channelsOut, channelsIn, ...taps] : taps;
        const shapes = [
            [channelsOut, ...outputs],
            [channelsIn, ...inputs],
        ].map((shape) => (channels ? shape : shape.slice(1)));
        const [goesIn, comesOut] = state.transposed ? shapes : [...shapes].reverse();
        const length = state.transposed ? rows : columns;
        const [maker, matrix, vector, result] = state.transposed
            ? ["transposed_convolution_matrix", "Wt", "y", "z"]
            : ["convolution_matrix", "W", "x", "y"];
        const values = { counting: `np.arange(${length})`, ones: `np.ones(${length}, int)` };
        values.impulse = `np.eye(${length}, dtype=int)[${Math.floor(length / 2)}]`;
        return [
            "import numpy as np",
            `from convmat import ${maker}`,
            "",
            `kernel = np.array(${nested(kernel, kernelShape)})`,
            `${matrix} = ${maker}(${["kernel", tuple(goesIn), ...options(state)].join(", ")})`,
            `${vector} = ${values[state.values]}`,
            `${result} = (${matrix} @ ${vector}).reshape${comesOut.length > 1 ? tuple(comesOut) : `(${comesOut[0]})`}`,
        ].join("\n");
    }

    return { NUMBERS, CHOICES, INITIAL, PRESETS, read, write, kernelOf, valuesOf, turned, code };
})();
