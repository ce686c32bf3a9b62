/* The page: settings make a model, the model is drawn, and pointer, keys and the player choose what is highlighted. */
"use strict";
var convmat = window.convmat || {};

convmat.page = (() => {
    const { SettingsError, describe, build, apply, applyTransposed, gram } = convmat.geometry;
    const { INITIAL, PRESETS, read, write, kernelOf, valuesOf, turned, code } = convmat.state;
    const { sentence, sum, facts, ofScatter } = convmat.sentences;
    const { lit, coloursOf } = convmat.boards;
    const { show, highlight } = convmat.draw;

    const element = (name) => document.getElementById(`explorer-${name}`);
    const still = window.matchMedia("(prefers-reduced-motion: reduce)");
    const LAYOUTS = { flow: convmat.flow.layout, matrix: convmat.matrices.matrix, gram: convmat.matrices.gramMatrix };

    let state = { ...INITIAL };
    let model = null;
    let drawings = {};
    let timer = null;
    let written = null;

    // --- The model

    /** Everything that is drawn, from the settings. Throws a SettingsError. */
    function modelOf(settings) {
        const geometry = describe(settings);
        const W = build(geometry);
        const kernel = kernelOf(settings, geometry);
        const values = valuesOf(settings, settings.transposed ? geometry.rows : geometry.columns);
        const x = settings.transposed ? null : values;
        const y = settings.transposed ? values : apply(W, kernel, x);
        const z = applyTransposed(W, kernel, y);
        return {
            state: settings,
            geometry,
            W,
            kernel,
            x,
            y,
            z,
            xSide: settings.transposed ? z : x,
            gram: gram(W, kernel),
        };
    }

    const countOf = ({ geometry }, kind) =>
        ({ output: geometry.rows, input: geometry.columns, tap: geometry.kernelSize })[kind];

    // --- Drawing

    const widthOf = (svg) => Math.max(240, svg.parentElement.clientWidth - 2);

    function draw() {
        const focused = document.activeElement?.dataset?.board;
        for (const [name, layout] of Object.entries(LAYOUTS)) {
            const svg = element(name);
            drawings[name] = layout(model, widthOf(svg));
            show(svg, drawings[name]);
        }
        element("flow-title").textContent = model.state.transposed ? "The transposed convolution" : "The convolution";
        element("matrix-title").textContent = model.state.transposed ? "The matrix Wᵀ" : "The matrix W";
        element("facts").replaceChildren(
            ...facts(model).map((text) => Object.assign(document.createElement("li"), { textContent: text })),
        );
        element("scatter-note").textContent = ofScatter(model);
        element("code").textContent = code(model.state, model.geometry, model.kernel);
        document.querySelector(`[data-board="${focused}"][tabindex]`)?.focus();
    }

    function chip({ text, weights }) {
        const term = Object.assign(document.createElement("span"), { className: "term", textContent: text });
        const colours = coloursOf(model.geometry, weights);
        const stops = colours.map(
            (colour, i) => `${colour} ${(100 * i) / colours.length}% ${(100 * (i + 1)) / colours.length}%`,
        );
        term.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
        return term;
    }

    function showSum({ head, terms, more, joint, total }) {
        const parts = [head];
        terms.forEach((term, i) => parts.push(i ? ` ${joint} `.replace(" ,", ",") : " ", chip(term)));
        if (more) parts.push(` ${joint} ${more}`.replace(" ,", ","));
        element("sum").replaceChildren(...parts, total ? ` ${total}` : "");
    }

    /** Lights what is selected. */
    function light() {
        const { show: selected } = model.state;
        const lights = lit(model, selected);
        for (const name of Object.keys(LAYOUTS)) highlight(element(name), drawings[name].marks(lights));
        // The copy of the output, or of the last output that belongs to the selection.
        const output = selected.kind === "output" ? selected.index : Math.max(0, ...lights.outputs.keys());
        const svg = element("scatter");
        drawings.scatter = convmat.matrices.scatter(model, widthOf(svg), output);
        show(svg, drawings.scatter);
        element("sentence").textContent = sentence(model, selected);
        showSum(sum(model, selected));
    }

    // --- Changing

    function remember() {
        clearTimeout(written);
        // Browsers refuse more than a few addresses a second.
        written = setTimeout(() => {
            const fragment = `#${write(state)}`;
            if (location.hash !== fragment) history.replaceState(null, "", fragment);
        }, 250);
    }

    function say(error) {
        element("error").textContent = error ? error.message : "";
        element("panels").classList.toggle("stale", Boolean(error));
        element("panels").inert = Boolean(error);
    }

    /** Takes new settings; what is wrong with them is said, and the drawing before stays, pale. */
    function take(settings) {
        state = settings;
        convmat.controls.fill(element("form"), state);
        for (const radio of document.getElementsByName("direction"))
            radio.checked = (radio.value === "transposed") === state.transposed;
        markPreset();
        try {
            model = modelOf(state);
            say(null);
        } catch (error) {
            if (!(error instanceof SettingsError)) throw error;
            pause();
            if (!model) {
                model = modelOf(INITIAL);
                draw();
                light();
            }
            say(error);
            return;
        }
        const { kind, index } = state.show;
        state = { ...state, show: { kind, index: Math.min(index, countOf(model, kind) - 1) } };
        model.state = state;
        draw();
        light();
        remember();
    }

    function select(kind, index) {
        if (!model || element("panels").inert || (state.show.kind === kind && state.show.index === index)) return;
        state = { ...state, show: { kind, index } };
        model.state = state;
        light();
        markPreset();
        remember();
    }

    function change(name, value) {
        const settings = { ...state, [name]: value };
        if (name === "weights" && value === "own" && !state.own) settings.own = model.kernel.join(" ");
        take(settings);
    }

    function turn(transposed) {
        if (transposed === state.transposed) return;
        try {
            take(turned(state));
        } catch (error) {
            if (!(error instanceof SettingsError)) throw error;
            take({ ...state, transposed });
        }
    }

    function fromAddress() {
        pause();
        try {
            take(read(location.hash));
        } catch (error) {
            if (!(error instanceof SettingsError)) throw error;
            if (!model) take({ ...INITIAL });
            say(error);
        }
    }

    // --- Presets

    function buildPresets() {
        const items = PRESETS.map((preset) => {
            const link = Object.assign(document.createElement("a"), {
                href: `#${write(preset.state)}`,
                textContent: preset.name,
            });
            const item = document.createElement("li");
            item.append(link);
            return item;
        });
        element("presets").append(...items);
    }

    function markPreset() {
        const own = write({ ...state, show: INITIAL.show });
        for (const [i, link] of element("presets").querySelectorAll("a").entries()) {
            const same = write({ ...PRESETS[i].state, show: INITIAL.show }) === own;
            if (same) link.setAttribute("aria-current", "true");
            else link.removeAttribute("aria-current");
        }
    }

    // --- Pointer and keys

    /** The row and column of a point on a board, or null. */
    function cellAt(board, x, y) {
        const column = Math.floor((x - board.x) / (board.pitch || board.width));
        const row = Math.floor((y - board.y) / board.height);
        return row >= 0 && row < board.rows && column >= 0 && column < board.columns ? { row, column } : null;
    }

    function followed() {
        return document.querySelector("input[name=follow]:checked").value;
    }

    /** What a cell of the matrix stands for: its row, its column, or its tap. */
    function pickInMatrix({ row, column }) {
        const [output, input] = state.transposed ? [column, row] : [row, column];
        const follow = followed();
        if (follow === "tap") {
            const entry = model.W.byRow[output].find((of) => of.column === input);
            return entry && ["tap", entry.weights[0]];
        }
        return (follow === "row") !== state.transposed ? ["output", output] : ["input", input];
    }

    function pick(board, place) {
        if (board.kind === "matrix") return pickInMatrix(place);
        if (board.kind === "gram") return ["input", place.row];
        if (board.kind === "copies") return ["output", place.row];
        const cell = board.cells.find(({ row, column }) => row === place.row && column === place.column);
        const index = cell?.[board.kind];
        return index >= 0 ? [board.kind, index] : null;
    }

    function point(name, event) {
        const svg = element(name);
        const box = svg.getBoundingClientRect();
        const scale = drawings[name].width / box.width;
        const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
        for (const board of drawings[name].boards) {
            const place = cellAt(board, x, y);
            const picked = place && pick(board, place);
            if (picked) {
                pause();
                select(...picked);
                return;
            }
        }
    }

    /** Where a key leads among cells that are counted row after row; in a single row, up and down are left and right. */
    function moved(index, { rows, columns }, key) {
        const last = rows * columns - 1;
        const down = rows > 1 ? columns : 1;
        const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -down, ArrowDown: down, Home: -last, End: last };
        const target = index + steps[key];
        if (rows > 1 && (target < 0 || target > last) && Math.abs(steps[key]) === down) return index;
        return Math.max(0, Math.min(last, target));
    }

    const kept = { output: 0, input: 0, tap: 0 };

    function keyInMatrix(key) {
        const upright = key === "ArrowUp" || key === "ArrowDown";
        const edge = key === "Home" || key === "End";
        const kind =
            edge && state.show.kind !== "tap" ? state.show.kind : upright !== state.transposed ? "output" : "input";
        const index = moved(currentOf(kind), { rows: 1, columns: countOf(model, kind) }, key);
        select(kind, index);
    }

    /** The index from which keys move: that of the selection, or the last one of this kind. */
    function currentOf(kind) {
        if (state.show.kind === kind) kept[kind] = state.show.index;
        return Math.min(kept[kind], countOf(model, kind) - 1);
    }

    /** The first index and the size of a board among all of its kind: channels have boards of their own. */
    function partOf(board) {
        const inside = board.cells.filter((cell) => !cell.pad);
        const columns = new Set(inside.map(({ column }) => column)).size;
        return { first: inside[0][board.kind], rows: inside.length / columns, columns };
    }

    function press(name, event) {
        const board = drawings[name]?.boards.find(({ id }) => id === event.target.dataset.board);
        if (!board || event.ctrlKey || event.metaKey || event.altKey) return;
        if (!/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key)) return;
        event.preventDefault();
        pause();
        if (board.kind === "matrix") return void keyInMatrix(event.key);
        if (board.kind === "gram")
            return void select("input", moved(currentOf("input"), { rows: 1, columns: board.rows }, event.key));
        const { first, rows, columns } = partOf(board);
        const within = Math.max(0, Math.min(rows * columns - 1, currentOf(board.kind) - first));
        select(board.kind, first + moved(within, { rows, columns }, event.key));
    }

    /** A board that takes the focus by the keyboard shows its own part. */
    function focus(name, event) {
        const board = drawings[name]?.boards.find(({ id }) => id === event.target.dataset.board);
        if (!board || !event.target.matches(":focus-visible") || board.kind === "matrix") return;
        if (board.kind === "gram") return void select("input", currentOf("input"));
        const { first, rows, columns } = partOf(board);
        select(board.kind, Math.max(first, Math.min(first + rows * columns - 1, currentOf(board.kind))));
    }

    function listen(name) {
        const svg = element(name);
        svg.addEventListener("pointermove", (event) => event.pointerType !== "touch" && point(name, event));
        svg.addEventListener("click", (event) => point(name, event));
        svg.addEventListener("keydown", (event) => press(name, event));
        svg.addEventListener("focusin", (event) => focus(name, event));
    }

    // --- The player

    function step(by) {
        const count = countOf(model, "output");
        const from = state.show.kind === "output" ? state.show.index + by : currentOf("output");
        select("output", (from + count) % count);
    }

    function pause() {
        if (timer === null) return;
        clearInterval(timer);
        timer = null;
        labelPlayer();
    }

    function labelPlayer() {
        const playing = timer !== null;
        element("play").textContent = still.matches ? "Step" : playing ? "Pause" : "Play";
        element("forward").hidden = still.matches;
        // A sentence a second is too many to be read aloud.
        element("sentence").setAttribute("aria-live", playing ? "off" : "polite");
    }

    function play() {
        if (element("panels").inert) return;
        if (timer !== null) return pause();
        step(1);
        if (still.matches) return;
        const pace = Math.max(160, Math.min(800, 8000 / countOf(model, "output")));
        timer = setInterval(() => step(1), pace);
        labelPlayer();
    }

    function stepOnce(by) {
        if (element("panels").inert) return;
        pause();
        step(by);
    }

    // --- Start

    async function copy(text, what) {
        try {
            await navigator.clipboard.writeText(text);
            element("copied").textContent = `${what} is copied.`;
        } catch {
            element("copied").textContent = "This browser does not let the page copy.";
        }
    }

    function start() {
        element("settings").open = window.matchMedia("(min-width: 960px)").matches;
        buildPresets();
        element("page").hidden = false;
        convmat.controls.build(element("form"), change);
        ["flow", "matrix", "gram", "scatter"].forEach(listen);
        element("direction").addEventListener("change", ({ target }) => turn(target.value === "transposed"));
        element("play").addEventListener("click", play);
        element("back").addEventListener("click", () => stepOnce(-1));
        element("forward").addEventListener("click", () => stepOnce(1));
        element("copy").addEventListener("click", () => copy(element("code").textContent, "The code"));
        element("link").addEventListener("click", () =>
            copy(`${location.href.split("#")[0]}#${write(state)}`, "The link"),
        );
        still.addEventListener("change", () => (pause(), labelPlayer()));
        window.addEventListener("hashchange", fromAddress);
        let width = window.innerWidth;
        window.addEventListener("resize", () => {
            if (width === window.innerWidth || !model) return;
            width = window.innerWidth;
            draw();
            light();
        });
        labelPlayer();
        fromAddress();
    }

    start();
    return { modelOf };
})();
