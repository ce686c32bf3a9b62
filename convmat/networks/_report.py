"""What a network is made of, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import numpy as np

from convmat._messages import scaled
from convmat.geometry import IntArray
from convmat.networks._convolution_map import axis_table_pattern
from convmat.networks._functions import Elementwise, Function
from convmat.networks._groups import MaxPool
from convmat.networks._maps import Shape
from convmat.networks._norms import stage_norm_bound
from convmat.networks._patterns import AxisPattern, Full, csr_sizes
from convmat.networks._stages import Stage

Field = (
    list[tuple[IntArray, IntArray]] | None
)  # for each axis, the first and the last position of the input that is read


class ReportRow(NamedTuple):
    """A stage of a network.

    Attributes
    ----------
    name, op : str
        What it is called in the model, and what it does.
    output_shape : tuple of int
        Shape of what comes out.
    nonzeros, nbytes : int
        Those of the matrix of an affine stage in CSR form, which is not built; 0 for a function.
    norm : float or None
        An upper bound of the matrix' norm, or of a function's derivative; None if it was not asked for.
    receptive_field : tuple of int or None
        How many positions of the input, along each axis but the first, a number of the output depends on at most; None if
        axes are not kept apart, as behind a fully connected layer.
    """

    name: str
    op: str
    output_shape: Shape
    nonzeros: int
    nbytes: int
    norm: float | None
    receptive_field: Shape | None


@dataclass(frozen=True)
class Report:
    """A table of a network's stages.

    Attributes
    ----------
    rows : tuple of ReportRow
        One for each stage.
    """

    rows: tuple[ReportRow, ...]

    @property
    def nonzeros(self) -> int:
        """Those of all matrices."""
        return sum(row.nonzeros for row in self.rows)

    @property
    def nbytes(self) -> int:
        """The bytes of all matrices in CSR form."""
        return sum(row.nbytes for row in self.rows)

    def _cells(self) -> list[list[str]]:
        has_norms = any(row.norm is not None for row in self.rows)
        head = [
            "stage",
            "op",
            "output",
            "nonzeros",
            "bytes",
            *(["norm at most"] if has_norms else []),
            "receptive field",
        ]
        cells = [head, *(_cells_of(row, has_norms) for row in self.rows)]
        total = ["", "", "", f"{self.nonzeros:,}", scaled(self.nbytes, "B"), *([""] if has_norms else []), ""]
        return [*cells, total]

    def __str__(self) -> str:
        cells = [[cell if len(cell) <= 40 else "…" + cell[-39:] for cell in row] for row in self._cells()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        texts = {0, 1, 2}
        lines = [
            "  ".join(
                cell.ljust(width) if place in texts else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *rows = self._cells()
        top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cells_of(row: ReportRow, has_norms: bool) -> list[str]:
    return [
        row.name,
        row.op,
        " × ".join(map(str, row.output_shape)),
        f"{row.nonzeros:,}" if row.nonzeros else "",
        scaled(row.nbytes, "B") if row.nbytes else "",
        *([f"{row.norm:.4g}" if row.norm is not None else ""] if has_norms else []),
        "all" if row.receptive_field is None else " × ".join(map(str, row.receptive_field)),
    ]


def report(stages: Sequence[Stage], input_shape: Shape, norms: bool) -> Report:
    """Return the table of stages that are given an array of a shape."""
    positions = [np.arange(size) for size in input_shape]
    fields: dict[int, Field] = {0: [(line, line) for line in positions]}
    rows = []
    for number, stage in enumerate(stages, 1):
        fields[number] = _field(stage, [fields[value.number] for value in stage.inputs])
        own = fields[number]
        sizes = None if own is None else tuple(int((last - first).max(initial=0)) + 1 for first, last in own[2:])
        nonzeros = sum(each.nnz for each in stage.maps)
        nbytes = sum(csr_sizes(each.pattern, each.dtype.itemsize) for each in stage.maps)
        norm = stage_norm_bound(stage) if norms else None
        rows.append(ReportRow(stage.name, stage.op, stage.output_shape, nonzeros, nbytes, norm, sizes))
    return Report(tuple(rows))


def _field(stage: Stage, fields: Sequence[Field]) -> Field:
    """Return what the outputs of a stage read of the network's input, from what its inputs do."""
    total: Field = None
    for place, field in enumerate(fields):
        axes = stage.maps[place].pattern.axes if stage.function is None else _reads(stage.function)
        if field is None or axes is None or len(axes) != len(field):
            return None
        own = [_along(pattern, *ends) for pattern, ends in zip(axes, field, strict=True)]
        if total is None:
            total = own
        else:
            pairs = zip(total, own, strict=True)
            total = [(np.minimum(a[0], b[0]), np.maximum(a[1], b[1])) for a, b in pairs]
    return total


def _reads(function: Function) -> tuple[AxisPattern, ...] | None:
    """Return the pattern of a function's axes, None for what reads one number each."""
    count = len(function.output_shape)
    if isinstance(function, MaxPool):
        own = [axis_table_pattern(axis, False) for axis in function.axes]
        return (*(None for _ in range(count - len(own))), *own)
    return (None,) * count if isinstance(function, Elementwise) or function.is_elementwise else None


def _along(pattern: AxisPattern, first: IntArray, last: IntArray) -> tuple[IntArray, IntArray]:
    if pattern is None:
        return first, last
    if isinstance(pattern, Full):
        size = pattern.shape[0]
        return np.full(size, first.min(initial=2**62)), np.full(size, last.max(initial=-1))
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    low, high = np.full(pattern.shape[0], 2**62), np.full(pattern.shape[0], -1)
    np.minimum.at(low, rows, first[pattern.indices])
    np.maximum.at(high, rows, last[pattern.indices])
    empty: Any = high < 0
    low[empty], high[empty] = 0, -1
    return low, high
