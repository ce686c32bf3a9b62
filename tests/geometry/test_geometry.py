"""Shapes, counts and axes, against the definition."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat import ConvolutionGeometry
from convmat.geometry import PADDING_MODES
from convmat.geometry._axis import Axis
from tests.cases import cases, values


@given(cases(truncated=True))
def test_shapes_and_counts_follow_from_the_definition(case):
    geometry = case.geometry
    W = case.matrix(np.ones(case.kernel_shape, int))
    assert geometry.output_shape == case.output_shape
    assert geometry.shape == W.shape
    assert geometry.nnz == np.count_nonzero(W)
    assert geometry.flops == 2 * W.sum()


@given(cases())
def test_bytes_are_those_of_the_matrix(case):
    from convmat import convolution_matrix

    W = convolution_matrix(values(case.kernel_shape, "float32"), case.input_shape, **case.options)
    assert case.geometry.matrix_nbytes("float32") == W.data.nbytes + W.indices.nbytes + W.indptr.nbytes


def by_definition(axis):
    """Return (outputs, size, taps) counts from source(o, t) alone, folding position by position."""
    counts = np.zeros((axis.outputs, axis.size, axis.taps), int)
    for o in range(axis.outputs):
        for t in range(axis.taps):
            p = o * axis.stride - axis.before + t * axis.dilation
            n = axis.size
            if axis.mode == "circular":
                p %= n
            elif axis.mode == "replicate":
                p = min(max(p, 0), n - 1)
            elif axis.mode == "reflect" and n > 1:
                p = min(p % (2 * n - 2), -p % (2 * n - 2))
            elif axis.mode == "symmetric":
                p = min(p % (2 * n), (-1 - p) % (2 * n))
            if 0 <= p < n:
                counts[o, p, t] += 1
    return counts


@st.composite
def axes(draw):
    mode = draw(st.sampled_from(PADDING_MODES))
    wide = draw(st.booleans())  # with stride, dilation and padding up to beyond the input
    n = draw(st.integers(1, 40 if wide else 12))
    limit = {"zeros": 3 * n if wide else 15, "replicate": 3 * n if wide else 15, "reflect": n - 1}.get(mode, n)
    k = draw(st.integers(1, 6))
    s, d = draw(st.integers(1, 2 * n + 2 if wide else 6)), draw(st.integers(1, 2 * n + 2 if wide else 5))
    a, b = draw(st.integers(0, limit)), draw(st.integers(0, limit))
    most = (n + a + b - d * (k - 1) - 1) // s + 1
    if most < 1:
        k, most = 1, (n + a + b - 1) // s + 1
    return Axis(n, k, s, a, b, d, draw(st.integers(1, most)), mode)


@given(axes(), st.booleans(), st.data())
def test_runs_describe_every_row_in_order(axis, transposed, data):
    expected = by_definition(axis)
    if transposed:
        expected = expected.transpose(1, 0, 2)
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    row = start
    for run in axis.runs(transposed, start, stop):
        assert run.start == row
        table = axis.table(transposed, np.arange(row, row + run.period))
        taps = np.broadcast_to(table.taps, table.columns.shape)
        merged = np.split(table.merged, table.starts[1:])
        for period in range(run.periods):
            for i in range(run.period):
                there = table.inside[:, i]
                columns = table.columns[there, i] + period * run.shift
                assert (np.diff(columns) > 0).all()
                counts = np.zeros_like(expected[0])
                for column, tap in zip(columns, taps[there, i], strict=True):
                    counts[column, tap if tap < axis.taps else merged[tap - axis.taps]] += 1
                np.testing.assert_array_equal(counts, expected[row])
                row += 1
    assert row == stop


@given(axes(), st.booleans(), st.data())
def test_tables_and_lengths_of_some_rows(axis, transposed, data):
    expected = by_definition(axis)
    if transposed:
        expected = expected.transpose(1, 0, 2)
    rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(expected), max_size=len(expected))))
    table = axis.table(transposed, rows)
    assert table.columns.shape == table.inside.shape
    nonzero = expected[rows].sum(axis=2) > 0
    np.testing.assert_array_equal(table.inside.sum(axis=0), nonzero.sum(axis=1))
    np.testing.assert_array_equal(table.columns.T[table.inside.T], nonzero.nonzero()[1])
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(expected))] * 2)))
    assert axis.count(transposed, start, stop) == np.count_nonzero(expected[start:stop].sum(axis=2))


@given(axes())
def test_entries_and_pairs(axis):
    counts = by_definition(axis)
    assert axis.pairs == counts.sum()
    assert axis.entries == np.count_nonzero(counts.sum(axis=2))


def test_axes_store_nothing_that_grows_with_the_input():
    axis = Axis(10**12, 31, 2, 15, 15, 1, 5 * 10**11)
    assert len(axis.runs()) < 40
    assert len(axis.runs(True)) < 40
    assert axis.entries == axis.count(True, 0, 10**6) + axis.count(True, 10**6, 10**12)


@pytest.mark.parametrize("mode", ["circular", "reflect", "symmetric", "replicate"])
def test_large_padding_leaves_few_rows_to_list(mode):
    n, k, pad = 10**12, 31, 4 * 10**11
    axis = Axis(n, k, 2, pad, pad, 1, (n + 2 * pad - k) // 2 + 1, mode)
    for transposed in (False, True) if mode in ("circular", "replicate") else (False,):  # mirrored, W.T repeats nothing
        runs = axis.runs(transposed)
        assert sum(run.period for run in runs) < 300
        assert runs[-1].start + runs[-1].period * runs[-1].periods == axis.rows(transposed)
    if mode == "circular":
        assert axis.entries == axis.outputs * k
    assert axis.entries == axis.count(False, 0, pad // 2) + axis.count(False, pad // 2, axis.outputs)
    assert axis.count(False, 0, 1000) == 1000 * (1 if mode == "replicate" else k)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (1, ((1, 1), (1, 1))),
        ((1, 2), ((1, 1), (2, 2))),
        (((1, 2), (3, 0)), ((1, 2), (3, 0))),
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 2), (2, 2))),
        ("full", ((3, 3), (4, 4))),
        (np.array([1, 2]), ((1, 1), (2, 2))),
        ([np.int64(1), (0, 2)], ((1, 1), (0, 2))),
    ],
)
def test_padding_words_and_numbers(padding, expected):
    assert ConvolutionGeometry((4, 3), (9, 9), padding=padding, dilation=(1, 2)).padding == expected


@pytest.mark.parametrize(("mode", "limit"), [("reflect", 6), ("circular", 7), ("symmetric", 7)])
def test_padding_that_folds_is_limited_on_either_side(mode, limit):
    assert ConvolutionGeometry(2, 7, padding=((limit, 0),), padding_mode=mode).output_shape == (limit + 6,)
    assert ConvolutionGeometry(2, 7, padding=((0, limit),), padding_mode=mode).output_shape == (limit + 6,)
    for pair in ((limit + 1, 0), (0, limit + 1), (limit + 1, limit), (limit, limit + 1)):
        with pytest.raises(ValueError, match=rf"at most {limit} for an input of size 7, got \({pair[0]}, {pair[1]}\)"):
            ConvolutionGeometry(2, 7, padding=(pair,), padding_mode=mode)


@pytest.mark.parametrize("mode", ["reflect", "circular", "symmetric"])
def test_a_border_that_no_output_reads_is_no_image(mode):
    """The stride leaves the padding at the end unread: listing it would take memory and find nothing."""
    axis = Axis(8, 2, 3, 1, 1, 1, 3, mode)  # reads −1 … 6
    assert axis.overrun == 0
    for transposed in (False, True):
        assert len(axis.strands(transposed, np.arange(axis.rows(transposed))).counts) == 2  # the input, and before it
    whole = Axis(9, 2, 3, 1, 1, 1, 4, mode)
    assert whole.overrun == 1
    assert len(whole.strands(True, np.arange(9)).counts) == 3


def test_one_pair_on_one_axis():
    assert ConvolutionGeometry((3,), 9, padding=((0, 2),)).padding == ((0, 2),)
    assert ConvolutionGeometry(3, 9, padding=(2,)).padding == ((2, 2),)


def test_transposed_sizes_of_the_textbook():
    # stride · (n − 1) + k − 2 · padding, and a layer of the book: 16 comes back, 15 gives 13 and 17 gives 16.
    for size, back in ((16, 16), (15, 13), (17, 16)):
        forward = ConvolutionGeometry((20, 10, 5, 5), (10, size, size), padding=2, stride=3)
        backward = ConvolutionGeometry.of_transposed((20, 10, 5, 5), forward.output_shape, padding=2, stride=3)
        assert backward.input_shape == (10, back, back)
        chosen = ConvolutionGeometry.of_transposed(
            (20, 10, 5, 5), forward.output_shape, padding=2, stride=3, output_shape=(10, size, size)
        )
        assert chosen == forward
        assert hash(chosen) == hash(forward)


@given(cases())
def test_output_shape_gives_back_the_convolution(case):
    geometry = case.geometry
    rest = [(m + a + b - d * (k - 1) - 1) % s for m, k, s, (a, b), d in _axis_numbers(case)]
    named = ConvolutionGeometry.of_transposed(
        case.kernel_shape, geometry.output_shape, output_shape=geometry.input_shape, **case.options
    )
    padded = ConvolutionGeometry.of_transposed(
        case.kernel_shape, geometry.output_shape, output_padding=rest, **case.options
    )
    assert named == padded == geometry


def _axis_numbers(case):
    n = len(case.stride)
    return zip(case.input_shape[-n:], case.kernel_shape[-n:], case.stride, case.padding, case.dilation, strict=True)


def test_output_padding_that_reaches_the_stride_keeps_the_first_outputs():
    geometry = ConvolutionGeometry.of_transposed((3,), (4,), dilation=3, output_padding=2)
    assert geometry.input_shape == (12,)
    assert geometry.output_shape == (4,)  # 6 would fit
    assert eval(repr(geometry)) == geometry
    few = ConvolutionGeometry.of_transposed((2, 3, 2, 1), (2, 3, 4), dilation=(3, 1), output_padding=(2, 0))
    assert few.input_shape == (3, 8, 4)
    assert few.output_shape == (2, 3, 4)
    assert ConvolutionGeometry((2, 3, 2, 1), few.input_shape, dilation=(3, 1)).output_shape == (2, 5, 4)
    assert eval(repr(few)) == few


def test_geometry_is_a_value():
    geometry = ConvolutionGeometry((4, 2, 3), (4, 9), groups=2, padding=1, padding_mode="reflect")
    assert pickle.loads(pickle.dumps(geometry)) == geometry
    assert eval(repr(geometry)) == geometry
    with pytest.raises(AttributeError):
        geometry.groups = 1


@given(cases())
def test_equal_geometries_have_equal_pickles_whatever_they_have_computed(case):
    geometry, used = case.geometry, case.geometry
    before, plain = hash(used), pickle.dumps(geometry)
    assert used.nnz + used.flops + used.padded.nnz + used.index_dtype.itemsize > 0
    assert pickle.dumps(geometry) == plain
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.dumps(used, protocol) == pickle.dumps(geometry, protocol)
        again = pickle.loads(pickle.dumps(used, protocol))
        assert pickle.dumps(again, protocol) == pickle.dumps(geometry, protocol)
    for other in (copy.copy(used), copy.deepcopy(used), again):
        assert (other, hash(other)) == (geometry, before)
        assert vars(other).keys() == vars(geometry).keys()


def test_a_mode_of_numpys_own_strings_is_pickled_as_any_other():
    named = ConvolutionGeometry(3, 9, padding_mode=np.str_("reflect"))
    assert pickle.dumps(named) == pickle.dumps(ConvolutionGeometry(3, 9, padding_mode="reflect"))


def test_counts_beyond_64_bits():
    n = 2**40
    geometry = ConvolutionGeometry((3, 3), (n, n), padding=1)
    assert geometry.nnz == (3 * n - 2) ** 2
    assert geometry.index_dtype == np.int64
    assert geometry.matrix_nbytes("float32") == 12 * geometry.nnz + 8 * (n * n + 1)


def test_the_largest_axis():
    most = 2**62 - 5
    for mode in PADDING_MODES:
        geometry = ConvolutionGeometry(3, most, padding=1, padding_mode=mode)
        assert geometry.nnz == 3 * most - (0 if mode == "circular" else 2)
    assert ConvolutionGeometry(3, 5, stride=2**62 - 7).output_shape == (1,)
    with pytest.raises(ValueError, match=r"less than 2\*\*62 on each axis"):
        ConvolutionGeometry(3, most + 1, padding=1)


def test_padding_modes_matter_for_equality():
    assert ConvolutionGeometry(3, 9, padding=1) != ConvolutionGeometry(3, 9, padding=1, padding_mode="circular")
