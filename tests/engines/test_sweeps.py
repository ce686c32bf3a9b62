"""The tables of the engine `taps` against their logical twin, and the axes' phases against the definition.

Nothing here needs numba, or depends on the processor: all shapes of vectors and registers are tried on every machine.
"""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat.engines._taps import sweeps as module
from convmat.engines._taps.phases import banded, result_phases
from convmat.engines._taps.sweeps import sweeps
from convmat.engines._taps.tables import Fit
from convmat.engines._taps.tiling import Tiling
from convmat.geometry import Axis, merge_axes
from tests.cases import WIDE, Case, cases
from tests.engines.sweep_twin import Twin

PACKED = (64, 1000, 1 << 19)
FITS = [
    Fit(lanes, registers, itemsize, components, workers)
    for lanes, itemsize in ((2, 8), (4, 8), (4, 4), (8, 8), (8, 4), (16, 4))
    for registers in (16, 32)
    for components in (1, 2)
    for workers in (1, 2, 3)
]


def integers(rng, shape):
    """Return numbers of which sums of products are exact, and no two are likely to be equal."""
    return rng.integers(-(2**15), 2**15, shape).astype(np.float64)


def weights_of(sweep, kernel, components):
    """Return the weights (groups, rows, k) of a sweep, from a kernel (groups, results, sources, taps, components)."""
    groups, results = kernel.shape[:2]
    classes = len(sweep.taps)
    weights = np.zeros((groups, results * classes, len(sweep.reads)))
    for k, (channel, component, read) in enumerate(zip(sweep.channels, sweep.components, sweep.reads, strict=True)):
        for row in range(classes):
            if (tap := sweep.taps[row, read]) < 0:
                continue
            values = kernel[:, :, channel, tap]
            crossed = components == 2 and row % 2 != component  # real to imaginary, or imaginary to real
            weights[:, row::classes, k] = values[..., int(crossed)] * (-1 if crossed and component else 1)
    return weights


def check(case, transposed, fit):
    """Compare what the twin makes of a case's tables with the oracle's product; return the twins."""
    geometry = case.geometry
    rng = np.random.default_rng(0)
    groups, components = geometry.groups, fit.components
    inner, outer = geometry.in_channels // groups, geometry.out_channels // groups
    kernel = integers(rng, (groups, outer, inner, prod(geometry.spatial_kernel), components))
    source, target = (1, 0) if not transposed else (0, 1)
    x, out = integers(rng, geometry.shape[source] * components), np.full(geometry.shape[target] * components, np.nan)
    channels = (outer, inner) if transposed else (inner, outer)
    found, missing = sweeps(merge_axes(geometry.axes), transposed, groups, *channels, fit)
    if missing:
        out[...] = 0
    twins = []
    for sweep in found:
        turned = kernel.swapaxes(1, 2) if transposed else kernel
        twins.append(Twin(sweep, fit, weights_of(sweep, turned, components), x, out))
        twins[-1].run()
    flat = kernel.reshape(*case.kernel_shape, components)
    matrices = [case.sparse_matrix(flat[..., component]) for component in range(components)]
    matrices = [matrix.T if transposed else matrix for matrix in matrices]
    x = x.reshape(-1, components)
    if components == 1:
        expected = matrices[0] @ x[:, 0]
    else:
        real, imag = matrices
        expected = np.stack([real @ x[:, 0] - imag @ x[:, 1], real @ x[:, 1] + imag @ x[:, 0]], axis=1).ravel()
    np.testing.assert_array_equal(out, expected)
    return twins


@pytest.mark.parametrize("packed", PACKED)
@given(case=cases(modes=("zeros",), truncated=True, most=20_000), transposed=st.booleans(), fit=st.sampled_from(FITS))
def test_tables_do_what_the_definition_says(packed, case, transposed, fit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PACKED", packed)
        check(case, transposed, fit)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", [name for name, case in WIDE.items() if case.padding_mode == "zeros"])
def test_tables_of_wide_geometries(name, transposed, monkeypatch):
    for number, fit in enumerate(FITS):
        monkeypatch.setattr(module, "PACKED", PACKED[number % 3])
        if WIDE[name].geometry.nnz * fit.components < 3000 or number % 7 == 0:
            check(WIDE[name], transposed, fit)


IN_PLACE = {  # a case, whether it is transposed, and how many tiles are nothing but results, with 16 and with 32 registers
    "rows are channels": (Case((5, 2, 3), (2, 70), (1,), ((1, 1),), (1,)), False, (12, 5)),
    "rows are a band": (Case((3, 3), (12, 70), (1, 1), ((1, 1), (1, 1)), (1, 1)), False, (72, 36)),
    "a band, transposed": (Case((3, 3), (12, 70), (1, 1), ((1, 1), (1, 1)), (1, 1)), True, (72, 36)),
    "a band with stride": (Case((4, 3), (21, 70), (2, 1), ((1, 1), (1, 1)), (1, 1)), False, (45, 45)),
    "rows are two phases of the first axis": (Case((4, 3), (12, 70), (2, 1), ((1, 1), (1, 1)), (1, 1)), True, (0, 0)),
    "one phase of the first axis at a time": (Case((2, 2, 1, 3), (2, 9, 70), (2, 1), ((0, 0),) * 2, (1, 1)), True, (35, 14)),
    "results two apart": (Case((2, 3), (9, 90), (1, 2), ((0, 0),) * 2, (1, 1)), True, (0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_tiles_that_are_nothing_but_results_are_stored_in_place(name):
    case, transposed, expected = IN_PLACE[name]
    for registers, count in zip((16, 32), expected, strict=True):
        twins = check(case, transposed, Fit(2, registers, 8, 1, 1))
        assert sum((twin.tables.tiles["target"] >= 0).sum() for twin in twins) == count
        of_complex = check(case, transposed, Fit(2, registers, 8, 2, 1))
        assert all((twin.tables.tiles["target"] < 0).all() for twin in of_complex)


def test_runs_go_on_over_the_ends_of_lines():
    """The examples in the documentation of `Tiling`."""
    lines, along = (result_phases(Axis(n, 3, outputs=n - 2), False)[0] for n in (5, 14))
    tiling = Tiling([lines._replace(reads=lines.reads[:1]), along], banded=False)
    assert tiling.grid == [3, 14]
    assert tiling.runs(8) == (0, 1, 5)
    assert tiling.tile_positions(8).tolist() == [0, 8, 16, 24, 32]
    assert tiling.runs(12) == (1, 3, 1)
    assert tiling.tile_positions(12).tolist() == [0, 14, 28]
    band = Tiling([banded(result_phases(Axis(9, 3, outputs=7), False)[0], 3), along], banded=True)
    assert band.tile_positions(12).tolist() == [0, 3 * 14, 4 * 14]
    assert [np.flatnonzero(band.is_stored(np.arange(7), row)).tolist() for row in range(3)] == [
        [0, 3],
        [0, 3],
        [0, 3, 4],
    ]


def test_reads_that_are_near_have_a_segment_in_common():
    """Offsets 0, 1, 9 and 40 of one phase, and their segments in the packed copy, each an odd number of cache lines long."""
    axis = Axis(size=141, taps=41, stride=1, before=0, dilation=1, outputs=101)
    taps = [0, 1, 9, 40]
    (phases,) = result_phases(axis, False)
    phases = phases._replace(
        reads=tuple(phases.reads[tap] for tap in taps), classes=(phases.classes[0]._replace(taps=tuple(taps)),)
    )
    builder = module._Builder([phases], [101], [41], 1, 2, 1, Fit(4, 16, 8, 1, 1))
    segments, packed_at, packed = builder._segments(10)
    assert segments[["start", "extra", "packed"]].tolist() == [(0, 9, 0), (40, 0, 48), (0, 9, 64), (40, 0, 112)]
    assert packed_at.tolist() == [[[0, 1, 9, 48]], [[64, 65, 73, 112]]]
    assert packed == 128


def axes():
    """An axis without its padding mode, up to beyond its input; its first outputs alone now and then."""
    return cases(modes=("zeros",), most_axes=1, truncated=True).map(lambda case: merge_axes(case.geometry.axes)[0])


def pairs_of(phases):
    """Return (result, source, tap) of all that positions read, and the results that there are."""
    pairs, found = [], []
    for axis in phases:
        for results in axis.classes:
            for q in range(results.low, results.high):
                found.append(result := q * results.step + results.first)
                for (phase, delta), tap in zip(axis.reads, results.taps, strict=True):
                    source = (q + delta) * axis.stride + phase - axis.before
                    if tap >= 0 and 0 <= source < axis.size:
                        assert axis.start <= q + delta < axis.start + axis.extent
                        low, high = axis.inside(phase)
                        assert low <= q + delta - axis.start < high
                        pairs.append((result, source, tap))
    return pairs, found


def expected_pairs(axis, transposed):
    """Return the same by the definition."""
    pairs = [
        (output, source, tap)
        for output in range(axis.outputs)
        for tap in range(axis.taps)
        if 0 <= (source := output * axis.stride - axis.before + tap * axis.dilation) < axis.size
    ]
    return sorted((source, output, tap) if transposed else (output, source, tap) for output, source, tap in pairs)


@given(axis=axes(), transposed=st.booleans())
def test_phases_of_an_axis_have_each_pair_once(axis, transposed):
    phases = result_phases(axis, transposed)
    pairs, results = pairs_of(phases)
    assert sorted(pairs) == expected_pairs(axis, transposed)
    assert len(results) == len(set(results))
    count = axis.size if transposed else axis.outputs
    assert set(results) <= set(range(count))
    if not any(alike.classes == () for alike in phases):  # else the others are 0
        assert len(results) == count


@given(axis=axes(), transposed=st.booleans(), most=st.sampled_from([3, 4]))
def test_neighbouring_rows_read_what_the_row_itself_reads(axis, transposed, most):
    for phases in result_phases(axis, transposed):
        if not phases.reads:
            continue
        rows, (alone, _) = banded(phases, most), pairs_of([phases])
        for results in rows.classes if rows is not phases else ():  # row r of a band at q is row 0 of one at q + r
            pairs, _ = pairs_of([rows._replace(classes=(results,))])
            first = results.low * results.step + results.first
            assert sorted(pairs) == sorted(pair for pair in alone if pair[0] >= first)


def test_worked_examples():
    """What the documentation of the tables says of 3 taps over 7 inputs, at stride 2 with padding 1."""
    axis = Axis(size=7, taps=3, stride=2, before=1, dilation=1, outputs=4)
    assert [phases.reads for phases in result_phases(axis, False)] == [((0, 0), (1, 0), (0, 1))]
    assert [phases.reads for phases in result_phases(axis, True)] == [((0, -1), (0, 0)), ((0, 0),)]
    (both,) = result_phases(replace(axis, taps=4), True)
    assert both.reads == ((0, -1), (0, 0))
    assert [results.taps for results in both.classes] == [(2, 0), (3, 1)]
    band = banded(result_phases(Axis(9, 3, outputs=7), False)[0], 2)
    assert [results.taps for results in band.classes] == [(0, 1, 2, -1), (-1, 0, 1, 2)]

    fit = Fit(lanes=4, registers=16, itemsize=8, components=1, workers=1)
    (forward,), (first, second) = (sweeps([axis], transposed, 1, 1, 1, fit)[0] for transposed in (False, True))
    assert forward.tables.offsets.tolist() == [0, 16 * 8, 1 * 8]
    assert forward.tables.segments.tolist() == [(-1, 0, 1, 4, 0, 1, 0), (0, 0, 0, 4, 0, 0, 16)]
    assert forward.tables.tiles.tolist() == [(0, -1)]
    assert forward.tables.classes.tolist() == [(0, 0, 4, 0)]
    assert [sweep.tables.offsets.tolist() for sweep in (first, second)] == [[0, 8], [0]]
    assert [sweep.tables.classes.tolist() for sweep in (first, second)] == [[(0, 0, 3, 1)], [(0, 0, 4, 0)]]
