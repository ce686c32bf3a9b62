"""Random convolutions of every kind, for properties over {geometries × dtypes × engines}."""

from dataclasses import dataclass

import numpy as np
import pytest
import reference
from hypothesis import strategies as st

from convmat import Convolution, ConvolutionGeometry
from convmat.engines import ENGINES
from convmat.relation import PADDING_MODES

DTYPES = ("int8", "uint16", "int64", "float32", "float64", "complex64", "complex128")
INEXACT = tuple(dtype for dtype in DTYPES if np.dtype(dtype).kind in "fc")
TOLERANCE = {"f": 1e-5, "d": 1e-12, "F": 1e-5, "D": 1e-12}


@dataclass(frozen=True)
class Case:
    """A kernel's shape, an input's shape, and the options of a convolution."""

    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    padding_mode: str = "zeros"

    @property
    def options(self):
        """The options as keyword arguments."""
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        return {name: getattr(self, name) for name in names}

    def matrix(self, kernel):
        """Return the oracle's W."""
        return reference.matrix(kernel, self.input_shape, **self.options)

    @property
    def output_shape(self):
        """The shape of the output, by the textbook's formula."""
        n = len(self.stride)
        sizes = zip(
            self.input_shape[-n:], self.kernel_shape[-n:], self.stride, self.padding, self.dilation, strict=True
        )
        spatial = tuple((m + a + b - d * (k - 1) - 1) // s + 1 for m, k, s, (a, b), d in sizes)
        return (*self.kernel_shape[: len(self.input_shape) - n], *spatial)


@st.composite
def cases(draw, modes=PADDING_MODES, most_axes=3, torch_only=False):
    """Draw a case that has an output; sizes stay small enough for the oracle."""
    n = draw(st.integers(1, most_axes))
    mode = draw(st.sampled_from(modes))
    taps = [draw(st.integers(1, 4)) for _ in range(n)]
    dilation = [draw(st.integers(1, 3)) for _ in range(n)]
    stride = [draw(st.integers(1, 4)) for _ in range(n)]
    spatial, padding = [], []
    for k, d in zip(taps, dilation, strict=True):
        size = draw(st.integers(1, {1: 20, 2: 8, 3: 5}[n]))
        limit = {"zeros": 6, "replicate": 6, "reflect": size - 1, "circular": size, "symmetric": size}[mode]
        reach = d * (k - 1) + 1
        if size + 2 * limit < reach:
            size = reach
            limit = min(limit, size - 1)
        before = draw(st.integers(0, limit))
        after = draw(st.integers(min(limit, max(0, reach - size - before)), limit))
        if size + before + after < reach:
            before = after = limit
        if torch_only:
            before = after = max(before, after)
        spatial.append(size)
        padding.append((before, after))
    groups, channels = 1, torch_only or draw(st.booleans())
    if channels:
        groups, outer, inner = (draw(st.integers(1, most)) for most in (3, 2, 3))
        kernel_shape, input_shape = (groups * outer, inner, *taps), (groups * inner, *spatial)
    else:
        kernel_shape, input_shape = tuple(taps), tuple(spatial)
    return Case(kernel_shape, input_shape, tuple(stride), tuple(padding), tuple(dilation), groups, mode)


def values(shape, dtype, seed=0):
    """Return random values, small integers for integer dtypes, in any order of memory that comes."""
    generator = np.random.default_rng([seed, *shape])
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return generator.integers(0, 9, shape).astype(dtype)
    real = generator.standard_normal(shape)
    return (real + 1j * generator.standard_normal(shape) if dtype.kind == "c" else real).astype(dtype)


def assert_close(actual, expected, scale):
    """Compare exactly for integers, else to the contract's tolerance of ‖W‖∞‖x‖∞."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected)
    elif actual.size:
        assert np.abs(actual - expected).max() <= TOLERANCE[actual.dtype.char] * max(scale, 1e-30)


def convolution_or_skip(*arguments, **options):
    """Return an operator, or skip the test where its engine refuses: some need a package that is optional."""
    try:
        return Convolution(*arguments, **options)
    except ValueError as refusal:
        pytest.skip(str(refusal))


def engines_for(case, dtype):
    """Return the names of the engines that take a case."""
    geometry = ConvolutionGeometry(case.kernel_shape, case.input_shape, **case.options)
    return [
        name
        for name, engine in ENGINES.items()
        if engine.refuses(geometry if geometry.padding_mode in engine.pads else geometry.padded, np.dtype(dtype))
        is None
    ]
