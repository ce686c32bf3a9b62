"""Products over {geometries × dtypes × engines} equal the loop, and are adjoint; engines refuse what they are not for."""

from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convmat.engines import ENGINES
from convmat.engines._fft import fft
from tests.cases import (
    DTYPES,
    INEXACT,
    PACKAGES,
    Case,
    assert_close,
    cases,
    engines_for,
    layers,
    many_channels,
    outer_product,
    outer_products,
    takes,
    values,
)

LAYERS = [name for name in ENGINES if name != "separable"]  # which takes outer products alone and has tests of its own
GENERAL = [name for name in LAYERS if not name.startswith("winograd")]  # which takes kernels of 3 × 3 alone
FIXED = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "padding_mode": "reflect"}


# What is drawn, of which dtypes, and the engines that this must reach. The first has too few channels for the others.
DRAWN = {
    "any": (cases(truncated=True), DTYPES, ("taps", "gemm", "fft", "csr", "torch")),
    "layers": (layers(), ("float32", "float64"), ("winograd", "winograd4")),
    "many channels": (many_channels(), INEXACT, ("fft",)),
    "outer products": (outer_products(), INEXACT, ("separable",)),
}
SPREADING = ("fft", "winograd4", "auto")  # which leave rounding where no tap reads anything
# Of sixty drawn products, chance gives each engine several, but not always more; of a few, it may give none.
LEAST = 1 if settings().max_examples >= 60 else 0


def drawn_kernel(name, case, dtype):
    """Return a kernel for a drawn case, and the engines that it is for."""
    if name == "outer products":
        return outer_product(case, dtype), ["auto", *engines_for(case, dtype)]
    if name == "many channels":  # products of matrices, which is what these are drawn for
        assert fft.engine.prepare(case.geometry.padded, np.dtype(dtype), 1).matrices
    return values(case.kernel_shape, dtype), ["auto", *(e for e in engines_for(case, dtype) if e != "separable")]


def assert_reached(name, reached):
    """Check that what has been drawn was not all refused."""
    for engine in DRAWN[name][2]:
        assert reached[engine] >= LEAST or find_spec(PACKAGES.get(engine, "numpy")) is None, engine


@pytest.mark.parametrize("name", DRAWN)
def test_products_equal_the_oracle(name):
    drawn, dtypes, _ = DRAWN[name]
    reached = Counter()

    @given(case=drawn, dtype=st.sampled_from(dtypes), data=st.data(), transposed=st.booleans(), flip=st.booleans())
    def check(case, dtype, data, transposed, flip):
        x_dtype = data.draw(st.sampled_from(DTYPES)) if name == "any" else dtype
        result = np.result_type(np.dtype(dtype), np.dtype(x_dtype))
        kernel, engines = drawn_kernel(name, case, dtype)
        engines = [engine for engine in engines if takes(engine, case.geometry, result)]
        oracle = kernel.astype(result)
        turned = np.flip(oracle, tuple(range(-len(case.stride), 0))) if flip else oracle
        W, absolute = map(case.sparse_matrix, (turned, np.abs(turned)))  # of taps before the padding merges some
        W, absolute = (W.T, absolute.T) if transposed else (W, absolute)
        batch = data.draw(st.sampled_from([(), (1,), (3,), (2, 2), (0,)]))
        for engine in engines:
            A = case.operator(kernel, transposed, engine=engine, flip=flip, workers=2)
            assert A.shape == W.shape
            assert A.dtype == kernel.dtype
            x = values((*batch, *A.input_shape), x_dtype, 1)
            expected = (W @ x.reshape(-1, W.shape[1]).astype(result).T).T.reshape(*batch, *A.output_shape)
            scale = absolute.sum(axis=1).max() * np.abs(x).max(initial=0)
            if engine in SPREADING:
                scale = max(scale, np.abs(oracle).sum() * np.abs(x).max(initial=0))
            assert_close(A.apply(x), expected, scale)
            out = np.full((*batch, *A.output_shape), 77, result)
            assert A.apply(x, out=out) is out
            assert_close(out, expected, scale)
            reached[engine] += out.size > 0

    check()
    assert_reached(name, reached)


@pytest.mark.parametrize("name", DRAWN)
def test_adjoint(name):
    drawn, dtypes, _ = DRAWN[name]
    reached = Counter()

    @given(case=drawn, dtype=st.sampled_from([d for d in dtypes if d in INEXACT]), transposed=st.booleans())
    def check(case, dtype, transposed):
        kernel, engines = drawn_kernel(name, case, dtype)
        for engine in engines:
            A = case.operator(kernel, transposed, engine=engine, workers=2)
            x, y = values((A.shape[1],), dtype, 1), values((A.shape[0],), dtype, 2)
            Ax, Ahy = A @ x, A.H @ y
            scale = np.linalg.norm(Ax) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(Ahy)
            if engine in SPREADING or case.padding_mode != "zeros":  # taps that the padding merges may cancel
                scale += np.abs(kernel).sum() * np.linalg.norm(x) * np.linalg.norm(y)
            tolerance = 100 * np.finfo(dtype).eps
            assert abs(np.vdot(y, Ax) - np.vdot(Ahy, x)) <= tolerance * scale
            assert abs(y @ Ax - (A.T @ y) @ x) <= tolerance * scale
            same = partial(assert_close, scale=scale) if engine == "auto" else np.testing.assert_array_equal
            same(A.rmatvec(y), Ahy)
            same(A.H @ y, (A.T @ y.conj()).conj())
            reached[engine] += 1

    check()
    assert_reached(name, reached)


def plain(taps, *channels):
    """Return a case of single outputs: nothing but a kernel."""
    return Case(channels + taps, channels[1:] + taps, (1,) * len(taps), ((0, 0),) * len(taps), (1,) * len(taps))


LIMITS = [  # on either side of what a rule names
    *(plain((1,) * axes) for axes in (3, 4, 30, 31)),
    *(plain((3, 3), *channels) for channels in ((8, 8), (8, 7), (7, 8), (256, 8), (8, 257), (32768, 8), (8, 32769))),
    *(plain(taps, 8, 8) for taps in ((3,), (3, 2), (3, 3, 3))),
    *(replace(plain((3, 3), 8, 8), input_shape=(8, 9, 9), **{name: (1, 2)}) for name in ("stride", "dilation")),
    *(plain(taps, *channels) for taps in ((2, 2), (1, 2)) for channels in ((), (1, 1), (2, 1), (1, 2))),
]


@pytest.mark.parametrize("case", LIMITS)
def test_engines_refuse_what_they_are_not_for_and_nothing_else(case):
    for (name, engine), dtype in product(ENGINES.items(), DTYPES):
        own = case.geometry if case.padding_mode in engine.pads else case.geometry.padded
        there = find_spec(PACKAGES.get(name, "numpy")) is not None
        assert (engine.refuses(own, np.dtype(dtype)) is None) == (there and takes(name, case.geometry, dtype)), name
