/* What a place on a board stands for, and where keys lead from it. */
"use strict";
var convmat = window.convmat || {};

convmat.picking = (() => {
    /** The row and column of a point on a board, or null. */
    function cellAt(board, x, y) {
        const column = Math.floor((x - board.x) / (board.pitch || board.width));
        const row = Math.floor((y - board.y) / board.height);
        return row >= 0 && row < board.rows && column >= 0 && column < board.columns ? { row, column } : null;
    }

    /** What a cell of the matrix stands for: its row, its column, or its tap. */
    function pickInMatrix({ state, W }, { row, column }, follow) {
        const [output, input] = state.transposed ? [column, row] : [row, column];
        if (follow === "tap") {
            const entry = W.byRow[output].find((of) => of.column === input);
            return entry ? ["tap", entry.weights[0]] : null;
        }
        return (follow === "row") !== state.transposed ? ["output", output] : ["input", input];
    }

    /** The kind and the index of what a cell stands for, or null. */
    function pick(model, board, place, follow) {
        if (board.kind === "matrix") return pickInMatrix(model, place, follow);
        if (board.kind === "gram") return ["input", place.row];
        if (board.kind === "copies") return ["output", place.row];
        const cell = board.cells.find(({ row, column }) => row === place.row && column === place.column);
        const index = cell?.[board.kind];
        return index >= 0 ? [board.kind, index] : null;
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

    /** The first index and the size of a board among all of its kind: channels have boards of their own. */
    function partOf(board) {
        const inside = board.cells.filter((cell) => !cell.pad);
        const columns = new Set(inside.map(({ column }) => column)).size;
        return { first: inside[0][board.kind], rows: inside.length / columns, columns };
    }

    return { cellAt, pick, moved, partOf };
})();
