/* The page: settings make a model, the model is drawn, and pointer, keys and the player choose what is highlighted. */
"use strict";
var convmat = window.convmat || {};

convmat.page = (() => {
    const { SettingsError, describe, build, apply, applyTransposed, gram } = convmat.geometry;
    const { INITIAL, PRESETS, read, write, kernelOf, valuesOf, turned, code } = convmat.state;
    const { sentence, sum, facts, ofScatter } = convmat.sentences;
    const { lit, coloursOf } = convmat.boards;
    const { show, highlight } = convmat.draw;
    const { cellAt, pick, moved, partOf } = convmat.picking;

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
        const svg = element("scatter");
        drawings.scatter = convmat.scatter.layout(model, widthOf(svg), lights);
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
        element("stage").classList.toggle("stale", Boolean(error));
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
        const { hash } = location;
        if (model && hash && !/=|^#transposed$/.test(hash)) return; // an anchor, such as the link to the main content
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

    /** Takes a preset also where its link is the address already, as after a setting that was wrong. */
    function choose(event, preset) {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // wants a tab of its own
        event.preventDefault();
        pause();
        history.pushState(null, "", event.currentTarget.href);
        take({ ...preset });
    }

    function buildPresets() {
        const items = PRESETS.map((preset) => {
            const link = Object.assign(document.createElement("a"), {
                href: `#${write(preset.state)}`,
                textContent: preset.name,
            });
            link.addEventListener("click", (event) => choose(event, preset.state));
            const item = document.createElement("li");
            item.append(link);
            return item;
        });
        element("presets").append(...items);
    }

    /** Marks the preset that the settings are, whatever is highlighted, and says what is to be seen. */
    function markPreset() {
        const plain = (of) => write({ ...of, show: INITIAL.show });
        const current = PRESETS.findIndex((preset) => plain(preset.state) === plain(state));
        for (const [i, link] of element("presets").querySelectorAll("a").entries()) {
            if (i === current) link.setAttribute("aria-current", "true");
            else link.removeAttribute("aria-current");
        }
        element("note").textContent = current < 0 ? "" : PRESETS[current].note;
    }

    // --- Pointer and keys

    function point(name, event) {
        const svg = element(name);
        const box = svg.getBoundingClientRect();
        const scale = drawings[name].width / box.width;
        const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
        const follow = document.querySelector("input[name=follow]:checked").value;
        for (const board of drawings[name].boards) {
            const place = cellAt(board, x, y);
            const picked = place && pick(model, board, place, follow);
            if (picked) {
                pause();
                select(...picked);
                return;
            }
        }
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

    /** Keeps the bar below the page's header, which stays in view too. */
    function placeBar() {
        const header = document.querySelector(".bd-header");
        element("page").style.setProperty("--header", `${header ? header.offsetHeight : 0}px`);
    }

    function resize() {
        placeBar();
        draw();
        light();
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
            // A telephone's bars change the height alone.
            if (width === window.innerWidth) return;
            width = window.innerWidth;
            resize();
        });
        placeBar();
        labelPlayer();
        fromAddress();
    }

    start();
    return { modelOf };
})();
