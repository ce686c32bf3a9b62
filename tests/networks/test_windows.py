"""Rows as windows equal products of sparse matrices, and have the nonzeros that their product has without cancelling."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convmat.geometry import PADDING_MODES
from convmat.networks import Network
from convmat.networks import _elementary as elementary
from convmat.networks._builder import Builder


@st.composite
def layers(draw, channels, sizes):
    """Options of a convolution of an image of these sizes that leaves something."""
    groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
    padding, taps, dilation = [], [], []
    for size in sizes:
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        dilation.append(draw(st.integers(1, 3)))
        most = (size + before + after - 1) // dilation[-1] + 1
        taps.append(draw(st.integers(1, min(4, most))))
        padding.append((before, after))
    mode = draw(st.sampled_from(["zeros"] * 4 + [mode for mode in PADDING_MODES if mode != "zeros"]))
    if mode != "zeros":
        padding = [tuple(min(pad, size - 1) for pad in pads) for pads, size in zip(padding, sizes, strict=True)]
        taps = [
            min(tap, (size + sum(pads) - 1) // step + 1)
            for tap, size, pads, step in zip(taps, sizes, padding, dilation, strict=True)
        ]
    options = {
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "stride": tuple(draw(st.integers(1, 3)) for _ in sizes),
        "groups": groups,
        "padding_mode": mode,
    }
    return (2, channels // groups, *taps), options


@st.composite
def chains(draw):
    """A network of two or three convolutions with ReLU between them, perhaps with a skip connection."""
    sizes = tuple(draw(st.integers(2, 9)) for _ in range(draw(st.integers(1, 3))))
    builder = Builder((1, draw(st.integers(1, 3)), *sizes), np.float64)
    rng, value = np.random.default_rng(draw(st.integers(0, 99))), builder.input
    for number in range(draw(st.integers(2, 3))):
        shape, options = draw(layers(value.shape[1], value.shape[2:]))
        before = value
        value = builder.convolve(f"conv {number}", value, rng.standard_normal(shape), **options)
        if value.shape == before.shape and draw(st.booleans()):
            value = builder.add(f"skip {number}", value, before)
        value = builder.elementwise(f"relu {number}", value, elementary.relu)
    return Network(builder.stages, builder.input, value, np.float64, (builder.input.shape[1:], value.shape[1:]))


@given(chains())
def test_the_jacobian_is_the_product_of_matrices_and_keeps_what_cancels(net):
    x = np.random.default_rng(0).standard_normal(net.input_shape)
    matrix = net.at(x).matrix
    values, patterns = {0: np.eye(matrix.shape[1])}, {0: np.eye(matrix.shape[1], dtype=bool)}
    for number, stage in matrix._stages:
        own = [each.tocsr() for each in stage.maps]
        values[number] = sum(m.toarray() @ values[v.number] for m, v in zip(own, stage.inputs, strict=True))
        ones = [_stored(m) for m in own]
        patterns[number] = np.any([p @ patterns[v.number] for p, v in zip(ones, stage.inputs, strict=True)], axis=0)
    found = matrix.tocsr()
    np.testing.assert_allclose(found.toarray(), values[number], atol=1e-9 * max(1, abs(values[number]).max()))
    np.testing.assert_array_equal(_stored(found), patterns[number])
    if matrix.pattern.is_exact:
        np.testing.assert_array_equal(np.diff(found.indptr), matrix.pattern.row_counts)
    rows = np.flatnonzero(np.random.default_rng(1).random(matrix.shape[0]) < 0.4)
    np.testing.assert_allclose(matrix.take(rows).toarray(), found.toarray()[rows], atol=1e-9)


def _stored(matrix):
    """Return which entries are stored, zeros included."""
    stored = np.zeros(matrix.shape, bool)
    stored[np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices] = True
    return stored
