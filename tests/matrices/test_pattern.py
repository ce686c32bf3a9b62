"""The sparsity pattern and what is written from it, against the definition, and where its numbers are large."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat import ConvolutionGeometry, convolution_matrix
from convmat.geometry import PADDING_MODES
from convmat.matrices import _pattern as pattern
from convmat.matrices import _writer as writer
from convmat.matrices._pattern import Box
from convmat.matrices._writer import MatrixRows, _with_sums
from tests.cases import cases, values
from tests.reference import sparse_matrix

THRESHOLDS = {
    pattern: {"_BLOCK": (1, 40), "_LINE": (1, 200), "_TABLE": (1, 400), "_FRACTION": (1, 16), "_KEPT": (0, 1 << 12)},
    writer: {"_CHUNK": (1, 2000), "_SMALL": (0, 64)},
}
REPEATING = {
    "three axes": ((2, 3, 2), (4, 6, 5), {"padding": 1}),
    "sums on two axes": ((4, 3), (6, 7), {"padding": 2}),
    "stride and dilation": ((3, 2), (9, 12), {"padding": 1, "stride": (2, 1), "dilation": (1, 2)}),
    "channels and groups": ((4, 3, 3, 2), (6, 5, 9), {"padding": (1, 0), "groups": 2}),
}


def _whole(geometry, transposed, dtype=np.int64):
    """Return the box of all rows of a row channel."""
    spans = tuple((0, axis.rows(transposed)) for axis in geometry.axes)
    channels = (geometry.out_channels if transposed else geometry.in_channels) // geometry.groups
    return Box(geometry.axes, transposed, spans, channels, np.dtype(dtype))


def _logical_matrix(geometry, kernel, transposed):
    """Return data, indices and ends of W or its transpose by the definition, as lists."""
    groups = geometry.groups
    kernel = kernel.reshape(groups, geometry.out_channels // groups, geometry.in_channels // groups, -1)
    kernel = kernel.swapaxes(1, 2) if transposed else kernel
    box = _whole(geometry, transposed)
    columns_of_a_group = box.channels * prod(axis.rows(not transposed) for axis in geometry.axes)
    data, indices, ends = [], [], []
    for group, of_group in enumerate(kernel):
        for of_row in of_group:
            taps = of_row.ravel().tolist()
            for nonzeros in pattern.logical_rows(box):
                data += [sum(taps[tap] for tap in summed) for summed in nonzeros.values()]
                indices += [group * columns_of_a_group + column for column in nonzeros]
                ends.append(len(data))
    return data, indices, ends


@given(case=cases(most=4000, truncated=True), transposed=st.booleans())
def test_logical_rows_are_those_of_the_oracle(case, transposed):
    kernel = values(case.kernel_shape, "int64")
    expected = case.matrix(kernel)
    actual = np.zeros_like(expected.T if transposed else expected)
    data, indices, ends = _logical_matrix(case.geometry, kernel, transposed)
    actual[np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0)), indices] = data
    np.testing.assert_array_equal(actual, expected.T if transposed else expected)


def _check_rows(geometry, transposed, start, stop, expected, thresholds):
    """Write rows under thresholds of both modules, and compare with the definition.

    Each element of the kernel is another power of two, so that a sum tells which taps are in it.
    """
    values, columns, ends = expected
    begin, end = (ends[row - 1] if row else 0 for row in (start, stop))
    written = np.zeros(end - begin, object), np.zeros(end - begin, np.int32), np.zeros(stop - start, np.int32)
    with pytest.MonkeyPatch.context() as patch:
        for module, names in thresholds.items():
            for name, value in names.items():
                patch.setattr(module, name, value)
        pattern.forget()
        for _ in range(2):  # the second time from patterns that are kept
            for array in written:
                array[...] = -1
            MatrixRows(geometry, _powers(geometry), transposed).write(start, stop, *written)
            assert written[0].tolist() == values[begin:end]
            assert written[1].tolist() == columns[begin:end]
            assert written[2].tolist() == [row_end - begin for row_end in ends[start:stop]]
    pattern.forget()


def _powers(geometry):
    return np.array([1 << n for n in range(prod(geometry.kernel_shape))], object)


@given(case=cases(most=20_000, truncated=True), transposed=st.booleans(), data=st.data())
def test_rows_are_written_as_the_definition_says(case, transposed, data):
    geometry = case.geometry
    expected = _logical_matrix(geometry, _powers(geometry), transposed)
    rows = len(expected[2])
    start, stop = 0, rows
    if data.draw(st.booleans(), "some rows"):
        start = data.draw(st.integers(0, rows), "start")
        stop = data.draw(st.integers(start, rows), "stop")
    thresholds = {
        module: {name: data.draw(st.integers(*limits), name) for name, limits in names.items()}
        for module, names in THRESHOLDS.items()
    }
    _check_rows(geometry, transposed, start, stop, expected, thresholds)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("name", REPEATING)
def test_rows_that_repeat_are_written_as_the_definition_says(name, mode, transposed):
    kernel_shape, input_shape, options = REPEATING[name]
    geometry = ConvolutionGeometry(kernel_shape, input_shape, padding_mode=mode, **options)
    expected = _logical_matrix(geometry, _powers(geometry), transposed)
    rows = len(expected[2])
    for most in (1, 30, 1000):
        thresholds = {
            module: {name: min(most, limits[1]) for name, limits in names.items()}
            for module, names in THRESHOLDS.items()
        }
        thresholds[pattern]["_KEPT"] = 1 << 20
        for start, stop in ((0, rows), (rows // 3, rows - 1)):
            _check_rows(geometry, transposed, start, stop, expected, thresholds)


@given(axes=st.integers(1, 5), bits=st.integers(1, 20), taps=st.integers(1, 1000), data=st.data())
def test_codes_add_up_and_those_outside_stay_negative(axes, bits, taps, data):
    integer, outside = pattern._code_integer(bits, taps, axes)
    own = []
    for most in (taps - 1, 2**bits - 1):
        ends = sorted(data.draw(st.lists(st.integers(0, most), min_size=axes, max_size=axes)))
        own.append(np.diff(ends, prepend=0).tolist())
    codes = [pattern.pack(tap, column, bits) for tap, column in zip(*own, strict=True)]
    unpacked = pattern.unpack(np.array(codes, integer).sum(keepdims=True, dtype=integer), bits)
    assert [one.tolist() for one in unpacked] == [[sum(own[0])], [sum(own[1])]]
    largest = pattern.pack(taps - 1, 2**bits - 1, bits)
    sums = np.cumsum([largest, *[outside] * axes], dtype=integer)
    assert sums.tolist() == [largest + n * int(outside) for n in range(axes + 1)]  # so none of them wraps around
    assert (sums[1:] < 0).all()


@pytest.mark.parametrize(
    ("bits", "taps", "axes", "integer"),
    [(20, 1023, 1, np.int32), (20, 1024, 1, np.int64), (20, 682, 2, np.int32), (20, 683, 2, np.int64)],
)
def test_codes_have_32_bits_where_all_sums_fit(bits, taps, axes, integer):
    assert pattern._code_integer(bits, taps, axes)[0] is integer


def test_codes_of_more_than_64_bits_are_refused():
    assert pattern._code_integer(40, 2**22 - 1, 1)[0] is np.int64
    with pytest.raises(ValueError, match=r"got 2\*\*40 columns and 4194304 taps for each row"):
        pattern._code_integer(40, 2**22, 1)


def test_the_segments_of_the_worked_example():
    """Rows 1 to 4 of axis 0 are one that is there four times; of axis 1, 384 rows are there seven times."""
    lister = pattern._Lister(_whole(ConvolutionGeometry((3, 3), (6, 3000), padding=1), False))
    assert lister.cut == 1
    assert [segment[:4] for segment in lister.segments(0)] == [(0, 1, 1, 0), (1, 1, 4, 3000), (5, 1, 1, 0)]
    assert [segment[:4] for segment in lister.segments(1)] == [(0, 1, 1, 0), (1, 384, 7, 384), (2689, 311, 1, 0)]
    (listed,) = lister.patterns()
    middle = listed.groups[1][1]
    assert (middle.row, middle.entry) == (3001, 18002)
    assert middle.repeats == ((4, 3000, 26994, 3000), (7, 384, 3456, 384))


@pytest.mark.parametrize(
    ("block", "alone", "segments"),
    [
        (4, 5, [(0, 1, 1, 0), (1, 4, 2, 4), (9, 3, 1, 0)]),
        (4, 2, [(0, 1, 1, 0), (1, 4, 2, 4), (9, 2, 1, 0), (11, 1, 1, 0)]),
        (6, 20, [(0, 12, 1, 0)]),
        (12, 12, [(0, 12, 1, 0)]),
        (1, 1, [(0, 1, 1, 0), (1, 1, 10, 1), (11, 1, 1, 0)]),
    ],
)
def test_segments_of_an_axis(block, alone, segments):
    """Outputs 1 to 10 of twelve have all three taps."""
    lister = pattern._Lister(_whole(ConvolutionGeometry((3,), (12,), padding=1), False))
    lister.block, lister.alone = block, alone
    assert [segment[:4] for segment in lister.segments(0)] == segments


FAR = {  # columns and taps that are listed as one integer of more than 31 bits, in a few rows
    "tap above column": ((3,), (2**29,), {"stride": (2**27,), "padding": ((0, 0),)}),
    "outside on two axes": ((3, 3), (2**13, 2**13), {"stride": (2**12,) * 2, "padding": ((1, 1),) * 2}),
    "outside on three axes": ((2, 3, 2), (2**8,) * 3, {"stride": (2**7,) * 3, "padding": ((1, 1),) * 3}),
    "channels": ((2, 3, 3), (3, 2**26), {"stride": (2**24,), "padding": ((1, 1),)}),
}


@pytest.mark.parametrize("name", FAR)
def test_listed_rows_of_far_columns(name):
    kernel_shape, input_shape, options = FAR[name]
    kernel = np.arange(1.0, 1 + np.prod(kernel_shape)).reshape(kernel_shape)
    expected = _far_matrix(kernel, input_shape, **options)
    W = convolution_matrix(kernel, input_shape, **options)
    assert W.indices.dtype == np.int32
    assert W.shape == expected.shape
    np.testing.assert_array_equal(W.indptr, expected.indptr)
    np.testing.assert_array_equal(W.indices, expected.indices)
    np.testing.assert_array_equal(W.data, expected.data)


def _far_matrix(kernel, input_shape, stride, padding):
    """Return the oracle's W; by the definition alone on one axis, which numpy.pad would write out."""
    if len(stride) > 1:
        return sparse_matrix(kernel, input_shape, stride=stride, padding=padding, dilation=(1,) * len(stride))
    from scipy import sparse

    (size,), (step,), ((before, after),) = input_shape[-1:], stride, padding
    kernel = kernel.reshape(-1, kernel.shape[-2] if kernel.ndim > 1 else 1, kernel.shape[-1])
    outputs = (size + before + after - kernel.shape[2]) // step + 1
    entries = [
        (value, c * outputs + o, i * size + source)
        for (c, i, t), value in np.ndenumerate(kernel)
        for o in range(outputs)
        if 0 <= (source := o * step - before + t) < size
    ]
    data, rows, columns = zip(*entries, strict=True)
    return sparse.coo_array((data, (rows, columns)), shape=(len(kernel) * outputs, kernel.shape[1] * size)).tocsr()


@pytest.mark.parametrize("mode", ["circular", "reflect", "symmetric", "replicate"])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32", "complex64"])
def test_sums_of_taps_have_the_dtype_of_the_kernel(mode, dtype):
    """Those of integers would be wider by NumPy's rule, and so would be all values that are written."""
    geometry = ConvolutionGeometry((5,), (4,), padding=3, padding_mode=mode)
    kernel = np.arange(1, 6).astype(dtype)
    for listed in pattern.patterns(_whole(geometry, False, np.int32)):
        assert listed.sums
        values = _with_sums(kernel.reshape(1, 1, 5), listed)
        assert values.dtype == kernel.dtype
        assert values.shape[1] == 5 + len(listed.sums[0][2])
