"""The plans of the kernels: structs are what C makes of them, and segments describe what rows are by definition."""

import ctypes
from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat.cupy import _records as records
from convmat.cupy import _segments as segments
from convmat.cupy._tables import MatrixTables
from convmat.geometry import PADDING_MODES, Axis, ConvolutionGeometry, merge_axes
from tests.cases import axes, cases
from tests.cupy import stand_in


@pytest.mark.skipif(stand_in.COMPILER is None, reason="there is no g++")
@pytest.mark.parametrize("name", records.STRUCTS)
def test_structs_in_c_are_the_records(name):
    record = records.STRUCTS[name]
    measured = [f"sizeof({name})", *(f"__builtin_offsetof({name}, {field})" for field in record.names)]
    measured += [f"sizeof((({name}*)0)->{field})" for field in record.names]
    code = f'{records.declarations()}extern "C" void measure(Big* out) {{ '
    code += " ".join(f"out[{i}] = {expression};" for i, expression in enumerate(measured)) + " }\n"
    found = (ctypes.c_longlong * len(measured))()
    stand_in.compile_library(code).measure(found)
    fields = [record.fields[field] for field in record.names]
    assert list(found) == [
        record.itemsize, *(offset for _, offset in fields), *(field.itemsize for field, _ in fields)
    ]  # fmt: skip


def test_records_want_all_their_fields():
    with pytest.raises(KeyError, match="count"):
        records.records(records.PERIODS, run=1, first=2)
    assert records.plan_of(records.records(records.PERIODS, run=[1, 4], first=2, count=3)).tolist() == [
        1,
        2,
        3,
        4,
        2,
        3,
    ]


def read_row(found, row, taps):
    """Return the columns of a row and the taps that each sums, entry by entry, as the kernel reads segments."""
    table = found.table[found.rows == row]
    sums = np.split(found.merged, found.starts[1:]) if len(found.starts) else []
    listed = []
    for entry in range(found.counts[row]):
        last = bisect_right(table["before"].tolist(), entry) - 1
        interleaved = int(table["interleaved"][last])
        nth, turn = divmod(entry - int(table["before"][last]), interleaved)
        steps = table["progression"][last - interleaved + 1 + turn]
        weight = int(steps["weight"] + nth * steps["weight_step"])
        own = (weight,) if weight < taps else tuple(sorted(sums[weight - taps].tolist()))
        listed.append((int(steps["column"] + nth * steps["column_step"]), own))
    return listed


@st.composite
def dense_axes(draw, mode):
    """Draw an axis whose many taps read its few positions on either side of both borders."""
    size, stride, dilation = draw(st.integers(1, 9)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    most = {"reflect": size - 1, "zeros": 9, "replicate": 9}.get(mode, size)
    before, after = draw(st.integers(0, most)), draw(st.integers(0, most))
    room = size + before + after - 1
    taps = draw(st.integers(1, room // dilation + 1))
    return size, taps, stride, dilation, (before, after), (room - dilation * (taps - 1)) // stride + 1


@pytest.mark.parametrize("mode", PADDING_MODES)
@given(data=st.data(), transposed=st.booleans())
def test_segments_are_what_rows_are_by_definition(mode, data, transposed):
    drawn = data.draw(st.one_of(axes(mode), axes(mode, wide=True), dense_axes(mode)))
    size, taps, stride, dilation, (before, after), outputs = drawn
    axis = Axis(size, taps, stride, before, after, dilation, outputs, mode)
    rows = data.draw(
        st.lists(st.integers(0, axis.rows(transposed) - 1), min_size=1, max_size=8, unique=True).map(sorted)
    )
    found = segments.segments_of(axis, transposed, np.array(rows), 0)
    assert (np.diff(found.rows) >= 0).all()
    for nth, row in enumerate(rows):
        assert read_row(found, nth, taps) == segments.row_logical(axis, transposed, row)


@given(case=cases(), transposed=st.booleans(), data=st.data())
def test_rows_are_counted_as_they_are_by_definition(case, transposed, data):
    geometry = ConvolutionGeometry(case.kernel_shape, case.input_shape, **case.options)
    counts = np.ones(1, np.int64)
    for axis in geometry.axes:
        own = [len(segments.row_logical(axis, transposed, row)) for row in range(axis.rows(transposed))]
        counts = np.multiply.outer(counts, own).ravel()
    channels = (geometry.in_channels, geometry.out_channels)[:: -1 if transposed else 1]
    counts = np.tile(counts, channels[1]) * (channels[0] // geometry.groups)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(counts))] * 2)))
    tables = MatrixTables(geometry, transposed, start, stop)
    assert tables.shape[0] == stop - start
    assert tables.nnz == counts[start:stop].sum()
    heads = [launch.plan[: records.integers(records.MATRIX)].view(records.MATRIX)[0] for launch in tables.launches]
    assert all(head["first_row"] == start and head["first_entry"] == counts[:start].sum() for head in heads)
    assert [launch.jobs for launch in tables.launches] == [head["jobs"] for head in heads]


@given(drawn=axes(), carried=st.integers(1, 4), transposed=st.booleans())
def test_merged_axes_are_the_product_of_their_rows(drawn, carried, transposed):
    size, taps, _, dilation, (before, after), _ = drawn
    axis = Axis(size, taps, 1, before, after, dilation, size + before + after - dilation * (taps - 1))
    (merged,) = merge_axes([axis, Axis(carried, 1, outputs=carried)])
    assert merged.rows(transposed) == axis.rows(transposed) * carried
    for row in range(merged.rows(transposed)):
        outer, inner = divmod(row, carried)
        expected = [(column * carried + inner, own) for column, own in segments.row_logical(axis, transposed, outer)]
        assert segments.row_logical(merged, transposed, row) == expected


def test_axes_that_do_something_are_not_merged():
    carried, strided, mirrored = Axis(3, 1, outputs=3), Axis(9, 3, 2, outputs=4), Axis(9, 3, 1, 1, 1, 1, 9, "reflect")
    assert merge_axes([strided, carried]) == [strided, carried]
    assert merge_axes([mirrored, carried]) == [mirrored, carried]
    assert merge_axes([carried]) == [carried]
    for other in (strided, Axis(3, 1, before=1, outputs=3), Axis(3, 1, outputs=2), Axis(9, 3, outputs=7)):
        assert merge_axes([Axis(9, 3, outputs=7), other]) == [Axis(9, 3, outputs=7), other]
