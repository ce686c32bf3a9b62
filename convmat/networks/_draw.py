"""A network's matrices drawn as a chain, with what one output reads traced back through them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from convmat.geometry import Array, IntArray
from convmat.networks._convolution_map import axis_table_pattern
from convmat.networks._groups import MaxPool, Normalise, Softmax
from convmat.networks._maps import AxisProducts
from convmat.networks._matrix_products import MatrixProduct
from convmat.networks._stages import Stage, Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 160  # along the longer side of a drawn matrix
_MOST = 1 << 24  # nonzeros of a matrix that is drawn
_ROW = 5  # panels beside one another
_ENTRY, _TRACED = "#b8c0cc", "#d1495b"


def draw(stages: Sequence[Stage], target: Value, output: int, figure: Figure | None) -> Figure:
    """Return a figure of the matrices of affine stages, and of what an output reads of each."""
    from matplotlib.figure import Figure

    traced = trace(stages, target, output)
    numbers = [
        number for number in range(1, len(stages) + 1) if stages[number - 1].is_affine and traced[number] is not None
    ]
    rows = max(1, ceil(len(numbers) / _ROW))
    columns = min(_ROW, max(1, len(numbers)))
    if figure is None:
        figure = Figure(figsize=(2.4 * columns, 2.9 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for panel in panels[len(numbers) :]:
        panel.set_axis_off()
    for panel, number in zip(panels, numbers, strict=False):
        _draw_stage(panel, stages[number - 1], traced[number])
    reads = traced[0]
    count = 0 if reads is None else int(reads.sum())
    figure.suptitle(f"Output {output} of {prod(target.shape)} reads {count} numbers of the input", fontsize="medium")
    return figure


def trace(stages: Sequence[Stage], target: Value, output: int) -> dict[int, Any]:
    """Return, for each value, which of its numbers an output reads; None for a value that it does not depend on."""
    found: dict[int, Any] = dict.fromkeys(range(len(stages) + 1))
    found[target.number] = np.arange(prod(target.shape)) == output
    for number in range(len(stages), 0, -1):
        stage = stages[number - 1]
        if found[number] is None:
            continue
        rows = np.flatnonzero(found[number])
        for place, value in enumerate(stage.inputs):
            columns = stage.maps[place].take(rows).indices if stage.function is None else _reads(stage, place, rows)
            own = np.zeros(prod(value.shape), bool)
            own[columns] = True
            found[value.number] = own if found[value.number] is None else own | found[value.number]
    return found


def _reads(stage: Stage, place: int, rows: IntArray) -> IntArray:
    """Return the numbers of an input that numbers of a function's output depend on."""
    function, shape = stage.function, stage.inputs[place].shape
    if isinstance(function, MatrixProduct):
        products = function.derivative(*(np.ones(value.shape) for value in stage.inputs))
        return products[place].take(rows).indices.astype(np.int64)
    if isinstance(function, MaxPool):
        places = range(len(shape) - len(function.axes), len(shape))
        factors: dict[int, Any] = {
            place: axis_table_pattern(axis, False) for place, axis in zip(places, function.axes, strict=True)
        }
    elif isinstance(function, Softmax | Normalise):
        axes = (function.axis,) if isinstance(function, Softmax) else function.axes
        factors = {axis % len(shape): np.ones((shape[axis], shape[axis])) for axis in axes}
    else:
        return rows
    indices: IntArray = AxisProducts(shape, factors).take(rows).indices.astype(np.int64)
    return indices


def _draw_stage(panel: Any, stage: Stage, traced: Array) -> None:
    """Draw the matrix of a stage, with the rows that are read in another colour."""
    from matplotlib.colors import ListedColormap

    height, width = prod(stage.output_shape), stage.matrix.shape[1]
    panel.set_title(f"{stage.name[-24:]}\n{stage.op}, {height} × {width}", fontsize="x-small")
    panel.set_xticks([])
    panel.set_yticks([])
    if sum(each.nnz for each in stage.maps) > _MOST:
        panel.text(0.5, 0.5, "too large to draw", ha="center", va="center", fontsize="small", transform=panel.transAxes)
        return
    scale = max(1.0, max(height, width) / _BINS)
    shape = ceil(height / scale), ceil(width / scale)
    matrix = stage.matrix.tocsr()  # type: ignore[attr-defined]
    lines = np.repeat(np.arange(height), np.diff(matrix.indptr))
    picture = np.zeros(shape, np.int8)
    for value, own in ((1, slice(None)), (2, traced[lines])):
        picture[(lines[own] / scale).astype(int), (matrix.indices[own] / scale).astype(int)] = value
    panel.imshow(picture, cmap=ListedColormap(["white", _ENTRY, _TRACED]), vmin=0, vmax=2, interpolation="nearest")
