"""The records that the kernels read: structured dtypes of NumPy, and the C structs that are declared from them.

A kernel gets all integers of a convolution in one int64 array, its plan, which is records one behind the other. What a field
is called `..._at` is where in the plan other records begin, counted in integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Record = np.dtype[np.void]
Records = npt.NDArray[np.void]


def _record(*fields: str | tuple[str, Record]) -> Record:
    """Return a record of integers, and of other records where a field is given with one."""
    return np.dtype([field if isinstance(field, tuple) else (field, np.int64) for field in fields])


# Entries, which are the nonzeros of an axis' matrix, in arithmetic progression. A weight is what an entry multiplies by: a
# tap, or, from the number of taps on, a sum of taps that have one column.
PROGRESSION = _record(
    "column",  # of the first entry, and
    "column_step",  # what is added for the next
    "weight",
    "weight_step",
)
# A progression of a row that has several. Those that are interleaved take turns: one entry of each, then the next of each.
SEGMENT = _record(
    "before",  # entries of the row before the segment and those interleaved with it
    "interleaved",  # how many segments take turns, this one included; 1 is on its own
    ("progression", PROGRESSION),
)
ROW = _record(
    "before",  # entries of the period before the row
    "count",  # its entries
    ("only", PROGRESSION),  # all of them, if there is one segment
    "segments",  # how many there are
    "segments_at",  # and where, if there are several
)
# Rows that repeat: row r + period has the weights of row r, and its columns plus the shift. The rows of a period are listed.
RUN = _record(
    "start",  # the first row
    "period",  # rows
    "shift",
    "before",  # entries of the axis before the run
    "entries",  # of a period
    "rows_at",
)
MATRIX_AXIS = _record(
    "rows",  # of the whole axis
    "inner_entries",  # product of the entries of the axes after it
    "runs_at",
    "runs",  # how many there are
)
# Periods of a run of the last axis, which one job writes for one line: a line is one row of every axis before the last.
PERIODS = _record(
    "run",
    "first",
    "count",
)
MATRIX = _record(
    "jobs",  # lines · ranges
    "first_line",
    "ranges",  # how many records of PERIODS there are for each line
    "row_channels",  # of a group
    "column_channels",  # of a group
    "channel_columns",  # columns of one channel
    "channel_weights",  # weights of one channel
    "channel_entries",  # product of the entries of all axes
    "first_row",  # of the rows that are built,
    "first_entry",  # and how many nonzeros of the whole matrix are before it
    "ranges_at",
)
# A product sums `data`, which is read, to `results`, which are written.
PRODUCT = _record(
    "batch",
    "groups",
    "results",  # channels of a group,
    "data",
    "kernel_group",  # and how far they are apart in the kernel
    "kernel_result",
    "kernel_data",
)
PRODUCT_AXIS = _record(
    "size",  # positions of the data
    "results",
    "before",  # padding before the data
)

STRUCTS: dict[str, Record] = {
    "Progression": PROGRESSION,
    "Segment": SEGMENT,
    "Row": ROW,
    "Run": RUN,
    "MatrixAxis": MATRIX_AXIS,
    "Periods": PERIODS,
    "Matrix": MATRIX,
    "Product": PRODUCT,
    "ProductAxis": PRODUCT_AXIS,
}


def declarations() -> str:
    """Return the C structs of all records."""
    types: dict[Any, str] = {np.dtype(np.int64): "Big", **{record: name for name, record in STRUCTS.items()}}
    lines = ["typedef long long Big;"]
    for name, record in STRUCTS.items():
        members = " ".join(f"{types[record[field]]} {field};" for field in record.names or ())
        lines.append(f"struct {name} {{ {members} }};")
    return "\n".join(lines) + "\n"


def records(record: Record, **fields: Any) -> Records:
    """Return an array of records from numbers or arrays of each of its fields."""
    result = np.empty(np.broadcast(*fields.values()).shape or 1, record)
    for name in record.names or ():
        result[name] = fields[name]
    return result


def integers(record: Record) -> int:
    """Return how many integers a record is."""
    return record.itemsize // 8


def plan_of(*blocks: Records) -> npt.NDArray[np.int64]:
    """Return the integers of records, one array of them behind the other."""
    return np.concatenate([block.view(np.int64) for block in blocks])
