/* Boards of cells in SVG, in the colours of the taps. A board is drawn once; what is highlighted is drawn over it. */
"use strict";
var convmat = window.convmat || {};

convmat.draw = (() => {
    // The colours of the book's drawings first; all are light enough for black numbers, in both themes.
    const SHADES = ["#a8d4f0", "#f6cf7f", "#8fd3bb", "#e6b6d2", "#cfc4f2", "#f5b39b", "#d5df8a", "#93dbe3", "#d9c6ac"];
    const HUES = [240, 75, 165, 345, 290, 30, 120];
    const TONES = 8;
    const SMALLEST_TEXT = 7.5;
    const SMALLEST_GRID = 7; // cells below this size have no lines between them

    /** The colour of a tap. A kernel of more than nine has a hue for each of its rows, lighter to darker along the row. */
    function colourOf(tap, taps) {
        const all = taps.reduce((a, b) => a * b, 1);
        if (all <= SHADES.length) return SHADES[tap];
        const along = taps.at(-1);
        const lightness = 0.91 - (0.17 * (tap % along)) / Math.max(1, along - 1);
        return `oklch(${lightness.toFixed(3)} 0.085 ${HUES[Math.floor(tap / along) % HUES.length]})`;
    }

    /** A tone for a value: none for zero, deeper with its size; another hue below zero. */
    function toneOf(value, most) {
        if (!value || !most) return null;
        const level = Math.max(1, Math.round((TONES * Math.abs(value)) / most));
        return `var(--${value < 0 ? "minus" : "plus"}-${level})`;
    }

    const escaped = (text) => text.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;");
    const round = (value) => Math.round(value * 100) / 100;

    /** Cells of a board stand side by side, or `pitch` apart. */
    const pitchOf = (board) => board.pitch || board.width;
    const cornerOf = (board, row, column) => [board.x + column * pitchOf(board), board.y + row * board.height];
    const centreOf = (board, row, column) => {
        const [x, y] = cornerOf(board, row, column);
        return [x + board.width / 2, y + board.height / 2];
    };

    const rectangle = (x, y, w, h) => `M${round(x)} ${round(y)}h${round(w)}v${round(h)}h${round(-w)}z`;

    /** The parts of a cell that its colours share: four as quarters, others as stripes. */
    function shared(board, { row, column, colours }) {
        const high = colours.length === 4 ? 2 : 1;
        const wide = Math.ceil(colours.length / high);
        const [w, h] = [board.width / wide, board.height / high];
        const [x, y] = cornerOf(board, row, column);
        return colours.map((colour, i) => [colour, rectangle(x + (i % wide) * w, y + Math.floor(i / wide) * h, w, h)]);
    }

    function fills(board, cells) {
        const paths = new Map();
        for (const cell of cells.filter(({ colours }) => colours && colours.length)) {
            for (const [colour, path] of shared(board, cell)) paths.set(colour, (paths.get(colour) || "") + path);
        }
        return [...paths].map(([colour, path]) => `<path style="fill:${colour}" d="${path}"/>`).join("");
    }

    /** One size of numbers for a board, in which the longest of them fits. */
    function textSize(board) {
        const longest = Math.max(1.6, ...board.cells.map(({ text = "" }) => text.length));
        return round(Math.min(board.height * 0.52, 15, (board.width * 1.36) / longest));
    }

    function texts(board, cells) {
        const size = textSize(board);
        if (size < SMALLEST_TEXT) return "";
        const kindOf = ({ quiet, colours = [] }) =>
            quiet ? "quiet" : colours.length && !colours[0].startsWith("var") ? "on-colour" : "on-paper";
        return cells
            .filter(({ text }) => text)
            .map((cell) => {
                const [x, y] = centreOf(board, cell.row, cell.column);
                return `<text class="${kindOf(cell)}" x="${round(x)}" y="${round(y + size * 0.36)}" font-size="${size}">${cell.text}</text>`;
            })
            .join("");
    }

    /** Lines between cells, and heavier ones every `blocks` rows and columns. */
    function lines(board, [down, across], kind) {
        const { x, y, rows, columns, width, height } = board;
        let path = "";
        for (let row = down; row < rows; row += down)
            path += `M${round(x)} ${round(y + row * height)}h${round(columns * width)}`;
        for (let column = across; column < columns; column += across) {
            path += `M${round(x + column * width)} ${round(y)}v${round(rows * height)}`;
        }
        return path && `<path class="${kind}" d="${path}"/>`;
    }

    /** A frame around some cells. */
    function ring(board, row, column, rows = 1, columns = 1, kind = "ring") {
        const [x, y] = cornerOf(board, row, column);
        const [w, h] = [(columns - 1) * pitchOf(board) + board.width, rows * board.height];
        const out = kind === "ring" ? 1 : 0; // so that it does not cover cells that are small
        return (
            `<rect class="${kind}" x="${round(x - out)}" y="${round(y - out)}" ` +
            `width="${round(w + 2 * out)}" height="${round(h + 2 * out)}" rx="1.5"/>`
        );
    }

    /** The outline of a board, or of each of its cells where they stand apart, or of what the padding surrounds. */
    function outline(board, kind) {
        const { before = 0, after = 0, rows, columns } = board;
        const above = rows > 1 ? [before, after] : [0, 0];
        if (kind === "padding") return before + after ? ring(board, 0, 0, rows, columns, kind) : "";
        if (pitchOf(board) === board.width) {
            return ring(board, above[0], before, rows - above[0] - above[1], columns - before - after, kind);
        }
        const cells = Array.from({ length: columns }, (_, column) =>
            rectangle(...cornerOf(board, 0, column), board.width, board.height),
        );
        return `<path class="${kind}" d="${cells.join("")}"/>`;
    }

    /** A board, of `rows` by `columns` cells of `width` by `height`; one that has a `label` takes the keyboard's focus. */
    function board(board) {
        const focus = board.label
            ? `tabindex="0" role="application" aria-roledescription="board" aria-label="${escaped(board.label)}" aria-describedby="explorer-keys"`
            : 'aria-hidden="true"';
        const fine = Math.min(board.width, board.height) >= SMALLEST_GRID && pitchOf(board) === board.width;
        const blocks = (board.blocks || []).map((step, i) => lines(board, step, `grid block-${i}`)).join("");
        return (
            `<g class="board" data-board="${board.id}" ${focus}>${outline(board, "padding")}${outline(board, "paper")}${fills(board, board.cells)}` +
            `${fine ? lines(board, [1, 1], "grid") : ""}${blocks}${texts(board, board.cells)}${outline(board, "frame")}</g>`
        );
    }

    /** What is highlighted in a board: all else pales under a veil, if it is asked for. */
    function marks(board, cells, rings = [], veil = false) {
        const cover = veil ? ring(board, 0, 0, board.rows, board.columns, "veil") : "";
        const edges = cells
            .map(({ row, column }) => rectangle(...cornerOf(board, row, column), board.width, board.height))
            .join("");
        const edge =
            Math.min(board.width, board.height) >= SMALLEST_GRID && edges ? `<path class="edge" d="${edges}"/>` : "";
        return (
            cover + fills(board, cells) + edge + texts(board, cells) + rings.map((of) => ring(board, ...of)).join("")
        );
    }

    const caption = (x, y, text, kind = "caption") =>
        `<text class="${kind}" x="${round(x)}" y="${round(y)}">${text}</text>`;

    /** Small numbers beside the cells of a board: columns above (or below), rows to the left. */
    function indices(board, { count, first = 0, side = "above" }) {
        const size = Math.min(11, board.width * 0.5);
        if (size < SMALLEST_TEXT) return "";
        return Array.from({ length: count }, (_, i) => {
            const [x, y] =
                side === "left"
                    ? [board.x - 5, centreOf(board, i + first, 0)[1] + size * 0.36]
                    : side === "above"
                      ? [centreOf(board, 0, i + first)[0], board.y - 4]
                      : [centreOf(board, 0, i + first)[0], board.y + board.rows * board.height + size + 2];
            return `<text class="index ${side}" font-size="${round(size)}" x="${round(x)}" y="${round(y)}">${i}</text>`;
        }).join("");
    }

    /** A line between two points; one that is highlighted has a head at its end. */
    function line([x1, y1], [x2, y2], colour, { strong = false, dotted = false }) {
        const kind = `line${strong ? " strong" : ""}${dotted ? " dotted" : ""}`;
        const path = `<path class="${kind}" style="stroke:${colour}" d="M${round(x1)} ${round(y1)}L${round(x2)} ${round(y2)}"/>`;
        if (!strong) return path;
        const length = Math.hypot(x2 - x1, y2 - y1) || 1;
        const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
        const [bx, by] = [x2 - 9 * dx, y2 - 9 * dy];
        const corners = [
            [x2, y2],
            [bx - 4.5 * dy, by + 4.5 * dx],
            [bx + 4.5 * dy, by - 4.5 * dx],
        ];
        return `${path}<path class="head" style="fill:${colour}" d="M${corners.map((point) => point.map(round).join(" ")).join("L")}z"/>`;
    }

    /** Puts a drawing into its element: what is behind the boards, the boards, and a group over each for what is highlighted. */
    function show(svg, { width, height, behind = "", markup }) {
        svg.setAttribute("viewBox", `0 0 ${round(width)} ${round(height)}`);
        svg.setAttribute("width", round(width));
        svg.setAttribute("height", round(height));
        svg.innerHTML = `${behind}<g class="beneath" aria-hidden="true"></g>${markup}<g class="marks" aria-hidden="true"></g>`;
    }

    function highlight(svg, { beneath = "", above }) {
        svg.querySelector(".beneath").innerHTML = beneath;
        svg.querySelector(".marks").innerHTML = above;
    }

    return { colourOf, toneOf, board, marks, caption, indices, line, show, highlight, centreOf, cornerOf };
})();
