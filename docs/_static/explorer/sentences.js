/* What the page says in words: the highlighted part, its sum, and facts of the geometry. */
"use strict";
var convmat = window.convmat || {};

convmat.sentences = (() => {
    const { phases, shown, unravel, valueOf } = convmat.geometry;

    // How many places are listed one by one; pairs are longer than numbers.
    const MOST_TERMS = 9;
    const mostListed = ([first]) => (first && first.length > 1 ? 4 : MOST_TERMS);

    const text = (value) => String(Number(value.toPrecision(4))).replace("-", "−");
    const factor = (value) => (value < 0 ? `(${text(value)})` : text(value));
    const plural = (count, word) => (count === 1 ? word : `${word}s`);
    const tupled = (place) => (place.length === 1 ? String(place[0]) : `(${place.join(", ")})`);

    /** The place of a row, a column or an element of the kernel: its channels, and the rest. */
    function placeIn(geometry, kind, index) {
        const { channelsIn, channelsOut, inputs, outputs, taps } = geometry;
        const shape = {
            output: [channelsOut, ...outputs],
            input: [channelsIn, ...inputs],
            tap: [channelsOut, channelsIn, ...taps],
        };
        const place = unravel(index, shape[kind]);
        const channels = kind === "tap" ? 2 : 1;
        return { channels: place.slice(0, channels), spatial: place.slice(channels) };
    }

    /** As it is indexed: y[3], or y[1, 3] with channels. */
    function indexed(model, kind, index) {
        const { channelsIn, channelsOut } = model.geometry;
        const name = { output: "y", input: model.state.transposed ? "z" : "x", tap: "K" }[kind];
        const { channels, spatial } = placeIn(model.geometry, kind, index);
        const place = channelsIn * channelsOut > 1 ? [...channels, ...spatial] : spatial;
        return `${name}[${place.join(", ")}]`;
    }

    const ofChannel = (count, channel) => (count > 1 ? ` of channel ${channel}` : "");
    const ofBoth = (count) => (count > 1 ? " of both channels" : "");

    const unique = (places) => [...new Map(places.map((place) => [tupled(place), place])).values()];

    /** “inputs 4, 5, 6”, or how many, and between which. */
    function listed(word, places) {
        if (places.length <= mostListed(places))
            return `${plural(places.length, word)} ${places.map(tupled).join(", ")}`;
        const corner = (of) => tupled(places[0].map((_, axis) => of(...places.map((place) => place[axis]))));
        return `${unique(places).length} ${word}s between ${corner(Math.min)} and ${corner(Math.max)}`;
    }

    function throughTaps(places) {
        return places.length <= mostListed(places)
            ? `through ${listed("tap", places)}`
            : `through ${places.length} taps`;
    }

    /** What taps that fall on the padding find there. */
    function ofPadding({ geometry, state }, reads) {
        const { axis } = geometry;
        const outside = reads.filter(({ place }) => place.some((p) => p < 0 || p >= axis.size));
        if (!outside.length) return "";
        const many = outside.length > 1;
        const all = outside.map(({ tap }) => tap);
        const taps = all.length > mostListed(all) ? `${all.length} taps` : listed("tap", all).replace(/^t/, "T");
        const falls = `${taps} ${many ? "fall" : "falls"} on the padding`;
        if (axis.mode === "zeros") {
            return state.transposed ? ` ${falls} and ${many ? "are" : "is"} cut off.` : ` ${falls}, which is zero.`;
        }
        const sources = outside.map(({ place }) => place.map((p) => shown(axis, p)));
        return ` ${falls}, which shows ${listed(state.transposed ? "output" : "input", unique(sources))}.`;
    }

    function ofOutput({ geometry, state, W }, index) {
        const { channels, spatial } = placeIn(geometry, "output", index);
        const reads = W.reads[index].filter(({ from }) => from === 0);
        const inside = reads.filter(({ column }) => column >= 0);
        const inputs = inside.map(({ column }) => placeIn(geometry, "input", column).spatial);
        const output = `${tupled(spatial)}${ofChannel(geometry.channelsOut, channels[0])}`;
        const through = `${ofBoth(geometry.channelsIn)} ${throughTaps(inside.map(({ tap }) => tap))}.`;
        const padding = ofPadding({ geometry, state }, reads);
        if (state.transposed) {
            if (!inside.length) return `Input ${output} lands on the padding alone: its column of Wᵀ is empty.`;
            return `Input ${output} lays the kernel on ${listed("output", inputs)}${through}${padding}`;
        }
        if (!inside.length) return `Output ${output} reads nothing but padding: its row of W is empty.`;
        return `Output ${output} reads ${listed("input", inputs)}${through}${padding}`;
    }

    function ofInput(model, index) {
        const { geometry, state, W } = model;
        const { channels, spatial } = placeIn(geometry, "input", index);
        const input = `${tupled(spatial)}${ofChannel(geometry.channelsIn, channels[0])}`;
        const pairs = W.byColumn[index].flatMap(({ row, weights }) =>
            weights.map((weight) => ({
                row: placeIn(geometry, "output", row),
                tap: placeIn(geometry, "tap", weight).spatial,
            })),
        );
        const first = pairs.filter(({ row }) => row.channels[0] === 0);
        if (!first.length) {
            return state.transposed
                ? `Output ${input} collects nothing: its row of Wᵀ is empty.`
                : `Input ${input} is read by no output: its column of W is empty.`;
        }
        const both = ofBoth(geometry.channelsOut);
        const taps = throughTaps(first.map(({ tap }) => tap));
        const rows = first.map(({ row }) => row.spatial);
        return state.transposed
            ? `Output ${input} collects ${listed("input", rows)}${both} ${taps}.`
            : `Input ${input} is read by ${listed("output", rows)}${both} ${taps}.`;
    }

    /** “2·o − 1”: what an output reads through a tap, on one axis. */
    function affine(axis, tap, letter) {
        const offset = tap * axis.dilation - axis.before;
        const step = axis.stride > 1 ? `${axis.stride}·${letter}` : letter;
        return offset ? `${step} ${offset < 0 ? "−" : "+"} ${Math.abs(offset)}` : step;
    }

    function ofTap(model, index) {
        const { geometry, state, W, kernel } = model;
        const { channels, spatial } = placeIn(geometry, "tap", index);
        const count = W.entries.filter(({ weights }) => weights.includes(index)).length;
        const letters = ["o", "p"].slice(0, spatial.length);
        const target = tupled(spatial.map((t, i) => affine(geometry.axis, t, letters[i])));
        const several = geometry.channelsIn * geometry.channelsOut > 1;
        const between = several ? ` from channel ${channels[1]} to channel ${channels[0]}` : "";
        const rule = state.transposed
            ? `input ${tupled(letters)} lands on output ${target}`
            : `output ${tupled(letters)} reads input ${target}`;
        const matrix = state.transposed ? "Wᵀ" : "W";
        return `Tap ${tupled(spatial)}${between} is ${text(kernel[index])} and has ${count} ${plural(count, "place")} in ${matrix}: ${rule}.`;
    }

    /** The sentence on what is highlighted. */
    const sentence = (model, { kind, index }) => ({ output: ofOutput, input: ofInput, tap: ofTap })[kind](model, index);

    /** The highlighted part in numbers: what it is called, terms (value, factor, weight that colours them), and their sum. */
    function sum(model, { kind, index }) {
        const { W, kernel, state, y, xSide } = model;
        const name = indexed(model, kind, index);
        if (kind === "tap") return { head: `${name} = ${text(kernel[index])}`, terms: [], total: "" };
        const gathers = (kind === "output") !== state.transposed;
        const byTap = (a, b) => a.weights[0] - b.weights[0];
        const entries = kind === "output" ? [...W.byRow[index]].sort(byTap) : W.byColumn[index];
        const ownValue = kind === "output" ? y[index] : xSide[index];
        const terms = entries.slice(0, MOST_TERMS).map((entry) => {
            const other = kind === "output" ? xSide[entry.column] : y[entry.row];
            const target = indexed(
                model,
                kind === "output" ? "input" : "output",
                kind === "output" ? entry.column : entry.row,
            );
            const factors = `${factor(valueOf(entry, kernel))}·${factor(gathers ? other : ownValue)}`;
            return { text: gathers ? factors : `${factors} to ${target}`, weights: entry.weights };
        });
        const more = entries.length > MOST_TERMS ? `${entries.length - MOST_TERMS} more` : "";
        if (!entries.length) return { head: `${name} = ${text(ownValue)}`, terms, total: "" };
        return gathers
            ? { head: `${name} =`, terms, more, joint: "+", total: `= ${text(ownValue)}` }
            : { head: `${name} = ${text(ownValue)} gives`, terms, more, joint: ",", total: "" };
    }

    function ofSize({ state, geometry }) {
        const { size, taps, stride, before, after, dilation, outputs } = geometry.axis;
        const each = geometry.dimensions > 1 ? "On each axis " : "";
        if (state.transposed) {
            return (
                `${each}n = s·(m − 1) + d·(k − 1) + 1 − a − b + output_padding = ${stride}·(${outputs} − 1) + ` +
                `${dilation}·(${taps} − 1) + 1 − ${before} − ${after} + ${state.output_padding} = ${size}.`
            );
        }
        return (
            `${each}m = ⌊(n + a + b − d·(k − 1) − 1)/s⌋ + 1 = ` +
            `⌊(${size} + ${before} + ${after} − ${dilation}·(${taps} − 1) − 1)/${stride}⌋ + 1 = ${outputs}.`
        );
    }

    function ofEntries({ state, geometry, W }) {
        const { rows, columns, kernelSize } = geometry;
        const [name, height, width] = state.transposed ? ["Wᵀ", columns, rows] : ["W", rows, columns];
        const share = Math.round((100 * W.entries.length) / (rows * columns));
        return (
            `${name} is ${height} × ${width}. It stores ${W.entries.length} of its ${rows * columns} entries (${share} %), ` +
            `all made of the kernel's ${kernelSize} ${plural(kernelSize, "number")}.`
        );
    }

    function ofOverlap({ state, geometry }) {
        const counts = phases(geometry.axis);
        if (counts.length < 2) return "";
        const along = geometry.dimensions > 1 ? " along each axis" : "";
        if (counts.every((count) => count === counts[0])) {
            const who = state.transposed ? "every output collects" : "every input is read by";
            const what = plural(counts[0], state.transposed ? "input" : "output");
            return `Far from the borders ${who} ${counts[0]} ${what}${along}: equal weights draw no checkerboard.`;
        }
        const several = `${counts.slice(0, -1).join(", ")} and ${counts.at(-1)}`;
        return state.transposed
            ? `Far from the borders outputs in turn collect ${several} inputs${along}: uneven overlap, which draws a checkerboard.`
            : `Far from the borders inputs are in turn read by ${several} outputs${along}: from this Wᵀ y gets a checkerboard.`;
    }

    const facts = (model) => [ofSize, ofEntries, ofOverlap].map((of) => of(model)).filter(Boolean);

    /** What matters of the third panel: where contributions go that land in the padding. */
    function ofScatter({ geometry }) {
        const { before, after, mode } = geometry.axis;
        if (before + after === 0) return "";
        return mode === "zeros"
            ? "What lands in the padding is cut off."
            : "What lands in the padding is added to the inputs that it shows.";
    }

    return { text, sentence, sum, facts, ofScatter };
})();
