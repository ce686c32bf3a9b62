"""The tables of the engine `taps` against their logical twin, and the axes' patterns against the definition.

Nothing here needs numba, or depends on the processor: all shapes of vectors and registers are tried on every machine.
"""

from math import prod

import numpy as np
import pytest
from cases import WIDE, cases
from hypothesis import example, given
from hypothesis import strategies as st
from sweep_twin import Twin

from convmat.axis import Axis
from convmat.engines import sweeps as module
from convmat.engines.patterns import Line, banded, fold, patterns
from convmat.engines.sweeps import Fit, sweeps

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
            if parts == 1:
                weight = values[..., 0]
            elif kind % 2 == part:  # real to real, and imaginary to imaginary
                weight = values[..., 0]
            else:
                weight = values[..., 1] if kind % 2 else -values[..., 1]
            weights[:, kind::kinds, k] = weight
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
