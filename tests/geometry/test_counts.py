"""Counts in closed form, against what is counted one by one."""

import tracemalloc
from math import gcd

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat import ConvolutionGeometry, convolution_matrix, transposed_convolution_matrix
from convmat.geometry import PADDING_MODES
from convmat.geometry._axis import Axis
from convmat.geometry._counts import count_nonzeros, pairs_below
from tests.geometry.test_geometry import axes, by_definition

FEW = st.integers(1, 12)


@given(st.integers(-20, 200), FEW, st.integers(0, 12), FEW, st.integers(0, 12))
def test_pairs_below_a_limit(limit, stride, outputs, dilation, taps):
    below = sum(o * stride + t * dilation < limit for o in range(outputs) for t in range(taps))
    assert pairs_below(limit, stride, outputs, dilation, taps) == below


@st.composite
def wide_axes(draw):
    """Axes whose taps and padding reach around the input, and far behind it where they may."""
    n, k, s, d = draw(st.integers(1, 30)), draw(st.integers(1, 60)), draw(FEW), draw(FEW)
    mode = draw(st.sampled_from(PADDING_MODES))
    limit = {"zeros": 300, "replicate": 300, "reflect": n - 1}.get(mode, n)
    a, b = draw(st.integers(0, limit)), draw(st.integers(0, limit))
    k = min(k, (n + a + b - 1) // d + 1)
    return Axis(n, k, s, a, b, d, draw(st.integers(1, (n + a + b - d * (k - 1) - 1) // s + 1)), mode)


@given(st.one_of(axes(), wide_axes()), st.data())
def test_nonzeros_of_a_range_of_outputs_and_sources(axis, data):
    nonzero = by_definition(axis).any(axis=2)
    for size in nonzero.shape:
        assert size > 0
    outputs, sources = (tuple(sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2)))) for size in nonzero.shape)
    expected = nonzero[slice(*outputs), slice(*sources)].sum()
    assert count_nonzeros(axis, outputs, sources) == expected


@given(wide_axes(), st.booleans(), st.data())
def test_tables_and_runs_of_wide_axes(axis, transposed, data):
    nonzero = by_definition(axis).any(axis=2)
    nonzero = nonzero.T if transposed else nonzero
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(nonzero))] * 2)))
    rows = np.arange(start, stop)
    table = axis.table(transposed, rows)
    there = table.inside.T
    np.testing.assert_array_equal(there.sum(axis=1), nonzero[rows].sum(axis=1))
    np.testing.assert_array_equal(table.columns.T[there], nonzero[rows].nonzero()[1])
    listed = [
        run.start + run.period * p + i
        for run in axis.runs(transposed, start, stop)
        for p in range(run.periods)
        for i in range(run.period)
    ]
    assert listed == list(rows)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (3, 1), (2, 3)])
def test_a_million_taps_are_counted_at_once(mode, stride, dilation):
    k, n = 10**6, 3 * 10**6
    axis = ConvolutionGeometry(k, n, padding=10**6, stride=stride, dilation=dilation, padding_mode=mode).axes[0]
    o = np.arange(axis.outputs) * stride - axis.before  # where each output begins
    taps = np.clip(-((o - n) // dilation), 0, k) - np.clip(-(o // dilation), 0, k)  # inside the input
    if mode == "zeros":
        assert axis.entries == axis.pairs == taps.sum()
    elif mode == "replicate":
        inner = np.clip(-((o - n + 1) // dilation), 0, k) - np.clip(-((o - 1) // dilation), 0, k)
        assert axis.entries == inner.sum() + (o <= 0).sum() + (o + axis.reach >= n - 1).sum()
    elif mode == "circular":
        assert axis.entries == axis.outputs * min(k, n // gcd(n, dilation))
    else:
        for output in (0, axis.outputs // 2, axis.outputs - 1):
            seen = np.zeros(n, bool)
            seen[axis.sources(np.array([output]))] = True
            assert count_nonzeros(axis, (output, output + 1), (0, n)) == seen.sum()


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_counts_of_the_longest_axes_are_exact(mode):
    n, k, pad = 2**61, 2**40 + 1, 2**40
    axis = Axis(n, k, 1, pad, pad, 1, n + 2 * pad - k + 1, mode)
    # By symmetry: all outputs have k taps but for a triangle at either end.
    lost = {"zeros": pad * (pad + 1), "circular": 0, "replicate": pad * (pad + 1)}
    if mode in lost:
        assert axis.entries == axis.outputs * k - lost[mode]
    assert axis.count(False, 0, n // 3) + axis.count(False, n // 3, axis.outputs) == axis.entries
    assert axis.count(True, 0, n // 3) + axis.count(True, n // 3, n) == axis.entries


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("build", [convolution_matrix, transposed_convolution_matrix])
@pytest.mark.parametrize(
    ("k", "n", "pad", "stride"), [(3, 10**12, 1, 1), (3, 10**8, 1, 2), (100, 10**9, 40, 7), (10**5, 100, 10**5, 1)]
)
def test_a_row_of_an_immense_matrix_takes_what_it_holds(mode, build, k, n, pad, stride):
    if mode not in ("zeros", "replicate") and pad > n:
        pad, k = n - 1, n
    geometry = ConvolutionGeometry(k, n, padding=pad, stride=stride, padding_mode=mode)
    options = {"stride": stride, "padding": pad, "padding_mode": mode, "workers": 1}
    transposed = build is transposed_convolution_matrix
    shape, options = (geometry.output_shape, {**options, "output_shape": n}) if transposed else (n, options)
    size = geometry.shape[int(transposed)]
    if transposed and mode == "replicate" and k > 1000:  # each tap more that is held on to is another sum
        size = 0
    for row in {0, 1, size // 2, size - 1} if size else (50,):
        tracemalloc.start()
        W = build(np.ones(k), shape, rows=(row, row + 1), **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10**6 + 100 * max(W.nnz, k)
