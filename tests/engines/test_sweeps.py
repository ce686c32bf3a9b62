"""The tables of the engine `taps` against their logical twin, and the axes' patterns against the definition.

Nothing here needs numba, or depends on the processor: all shapes of vectors and registers are tried on every machine.
"""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat.engines._taps import sweeps as module
from convmat.engines._taps.patterns import banded, fold, patterns
from convmat.engines._taps.sweeps import Fit, sweeps
from tests.cases import WIDE, cases
from tests.engines.sweep_twin import Twin

PACKED = (64, 1000, 1 << 19)
FITS = [
    Fit(lanes, registers, itemsize, parts, workers)
    for lanes, itemsize in ((2, 8), (4, 8), (4, 4), (8, 8), (8, 4), (16, 4))
    for registers in (16, 32)
    for parts in (1, 2)
    for workers in (1, 2, 3)
]


def integers(rng, shape):
    """Return numbers of which sums of products are exact, and no two are likely to be equal."""
    return rng.integers(-(2**15), 2**15, shape).astype(np.float64)


def weights_of(sweep, kernel, parts):
    """Return the weights (groups, rows, k) of a sweep, from a kernel (groups, results, sources, taps, parts)."""
    groups, results = kernel.shape[:2]
    kinds = len(sweep.taps)
    weights = np.zeros((groups, results * kinds, len(sweep.reads)))
    for k, (channel, part, read) in enumerate(zip(sweep.channels, sweep.parts, sweep.reads, strict=True)):
        for kind in range(kinds):
            if (tap := sweep.taps[kind, read]) < 0:
                continue
            values = kernel[:, :, channel, tap]
            crossed = parts == 2 and kind % 2 != part  # real to imaginary, or imaginary to real
            weights[:, kind::kinds, k] = values[..., int(crossed)] * (-1 if crossed and part else 1)
    return weights


def check(case, transposed, fit):
    """Compare what the twin makes of a case's tables with the oracle's product; return the twins."""
    geometry = case.geometry
    rng = np.random.default_rng(0)
    groups, parts = geometry.groups, fit.parts
    inner, outer = geometry.in_channels // groups, geometry.out_channels // groups
    kernel = integers(rng, (groups, outer, inner, prod(geometry.spatial_kernel), parts))
    source, target = (1, 0) if not transposed else (0, 1)
    x, out = integers(rng, geometry.shape[source] * parts), np.full(geometry.shape[target] * parts, np.nan)
    channels = (outer, inner) if transposed else (inner, outer)
    found, missing = sweeps(fold(geometry.axes), transposed, groups, *channels, fit)
    if missing:
        out[...] = 0
    twins = []
    for sweep in found:
        turned = kernel.swapaxes(1, 2) if transposed else kernel
        twins.append(Twin(sweep, fit, weights_of(sweep, turned, parts), x, out))
        twins[-1].run()
    flat = kernel.reshape(*case.kernel_shape, parts)
    pieces = [case.sparse_matrix(flat[..., part]) for part in range(parts)]
    pieces = [piece.T if transposed else piece for piece in pieces]
    x = x.reshape(-1, parts)
    if parts == 1:
        expected = pieces[0] @ x[:, 0]
    else:
        real, imag = pieces
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
        if WIDE[name].geometry.nnz * fit.parts < 3000 or number % 7 == 0:
            check(WIDE[name], transposed, fit)


def lines():
    """An axis without its padding mode, up to beyond its input; its first outputs alone now and then."""
    return cases(modes=("zeros",), most_axes=1, truncated=True).map(lambda case: fold(case.geometry.axes)[0])


def pairs_of(patterns_):
    """Return (result, source, tap) of all that positions read, and the results that there are."""
    pairs, results = [], []
    for pattern in patterns_:
        for kind in pattern.kinds:
            for q in range(kind.low, kind.high):
                results.append(result := q * kind.step + kind.first)
                for (phase, delta), tap in zip(pattern.reads, kind.taps, strict=True):
                    source = (q + delta) * pattern.phases + phase - pattern.before
                    if tap >= 0 and 0 <= source < pattern.size:
                        assert pattern.start <= q + delta < pattern.start + pattern.extent
                        low, high = pattern.inside(phase)
                        assert low <= q + delta - pattern.start < high
                        pairs.append((result, source, tap))
    return pairs, results


def expected_pairs(line, transposed):
    """Return the same by the definition."""
    pairs = [
        (output, source, tap)
        for output in range(line.outputs)
        for tap in range(line.taps)
        if 0 <= (source := output * line.stride - line.before + tap * line.dilation) < line.size
    ]
    return sorted((source, output, tap) if transposed else (output, source, tap) for output, source, tap in pairs)


@given(line=lines(), transposed=st.booleans())
def test_patterns_of_an_axis_have_each_pair_once(line, transposed):
    found = patterns(line, transposed)
    pairs, results = pairs_of(found)
    assert sorted(pairs) == expected_pairs(line, transposed)
    assert len(results) == len(set(results))
    count = line.size if transposed else line.outputs
    assert set(results) <= set(range(count))
    if not any(pattern.kinds == () for pattern in found):  # else the others are 0
        assert len(results) == count


@given(line=lines(), transposed=st.booleans(), most=st.sampled_from([3, 4]))
def test_neighbouring_rows_read_what_the_row_itself_reads(line, transposed, most):
    for pattern in patterns(line, transposed):
        if not pattern.reads:
            continue
        rows, (alone, _) = banded(pattern, most), pairs_of([pattern])
        for kind in rows.kinds if rows is not pattern else ():  # row r of a band at q is row 0 of one at q + r
            pairs, _ = pairs_of([rows._replace(kinds=(kind,))])
            first = kind.low * kind.step + kind.first
            assert sorted(pairs) == sorted(pair for pair in alone if pair[0] >= first)
