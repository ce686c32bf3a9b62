"""Random convolutions of every kind, for properties over {geometries × dtypes × engines}."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import prod

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from convmat import Convolution, ConvolutionGeometry, TransposedConvolution
from convmat.engines import ENGINES
from convmat.geometry import PADDING_MODES
from tests import reference

DTYPES = ("int8", "uint16", "int64", "float32", "float64", "complex64", "complex128")
INEXACT = tuple(dtype for dtype in DTYPES if np.dtype(dtype).kind in "fc")
PACKAGES = {  # which an engine needs
    **dict.fromkeys(("taps", "winograd", "winograd4", "separable"), "numba"),
    "torch": "torch",
}
TOLERANCE = {"f": 1e-5, "d": 1e-12, "F": 1e-5, "D": 1e-12}


@dataclass(frozen=True)
class Case:
    """A kernel's shape, an input's shape, and the options of a convolution; with its first outputs, if it says how many."""

    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    padding_mode: str = "zeros"
    outputs: tuple[int, ...] | None = None

    @property
    def options(self):
        """The options as keyword arguments."""
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        return {name: getattr(self, name) for name in names}

    @property
    def geometry(self):
        """What convmat makes of it."""
        if self.outputs is None:
            return ConvolutionGeometry(self.kernel_shape, self.input_shape, **self.options)
        return ConvolutionGeometry.of_transposed(
            self.kernel_shape, self.output_shape, output_shape=self.input_shape, **self.options
        )

    def matrix(self, kernel):
        """Return the oracle's W."""
        return self.sparse_matrix(kernel).toarray()

    def sparse_matrix(self, kernel):
        """Return the oracle's W as a CSR array."""
        return reference.sparse_matrix(kernel, self.input_shape, **self.options, outputs=self.outputs)

    def operator(self, kernel, transposed=False, **options):
        """Return the operator for W or its transpose."""
        if not transposed and self.outputs is None:
            return Convolution(kernel, self.input_shape, **self.options, **options)
        A = TransposedConvolution(kernel, self.output_shape, output_shape=self.input_shape, **self.options, **options)
        return A if transposed else A.T

    @property
    def output_shape(self):
        """The shape of the output, by the textbook's formula."""
        n = len(self.stride)
        sizes = zip(
            self.input_shape[-n:], self.kernel_shape[-n:], self.stride, self.padding, self.dilation, strict=True
        )
        spatial = self.outputs or tuple((m + a + b - d * (k - 1) - 1) // s + 1 for m, k, s, (a, b), d in sizes)
        return (*self.kernel_shape[: len(self.input_shape) - n], *spatial)


@st.composite
def axes(draw, mode="zeros", most_size=20, wide=False, truncated=False):
    """Draw size, taps, stride, dilation, padding and outputs of an axis; a wide one has all of them beyond its input."""
    size = draw(st.integers(1, {1: 1, 20: 300, 8: 60, 5: 20}[most_size] if wide else most_size))
    taps = draw(st.integers(1, 4))
    beyond = st.integers(1, 2 * size + 2)
    stride = draw(st.one_of(st.integers(1, 4), beyond) if wide else st.integers(1, 4))
    near = st.sampled_from([max(1, size + off) for off in (-1, 0, 1, size - 1, size)])
    dilation = draw(st.one_of(st.integers(1, 3), beyond, near) if wide else st.integers(1, 3))
    reach = dilation * (taps - 1)
    if size < reach + 1 and mode not in ("zeros", "replicate"):
        size = reach + 1
    limit = {"reflect": size - 1, "circular": size, "symmetric": size}.get(mode, 6 + reach * wide)
    before = draw(st.integers(0, limit))
    exact = max(0, reach - before)  # as many outputs as inputs, at stride 1
    after = draw(st.one_of(st.just(min(exact, limit)), st.integers(0, limit)) if wide else st.integers(0, limit))
    if size + before + after < reach + 1:
        after = reach + 1 - size - before
    room = size + before + after - reach - 1
    outputs = room // stride + 1
    if truncated and dilation > stride + room % stride:
        outputs = max(1, outputs - draw(st.integers(0, (dilation - 1 - room % stride) // stride)))
    return size, taps, stride, dilation, (before, after), outputs


@st.composite
def cases(draw, modes=PADDING_MODES, most_axes=3, torch_only=False, wide=True, truncated=False, most=300_000):
    """Draw a case that has an output, and a W of at most so many elements.

    `wide` ones have an axis that is long, or has padding, dilation and stride up to beyond its input; `truncated` ones may
    keep the first outputs alone, which only a transposed convolution can ask for.
    """
    n = draw(st.integers(1, most_axes))
    mode = draw(st.sampled_from(modes))
    long = draw(st.integers(0, n - 1)) if wide and draw(st.booleans()) else None
    size, taps, stride, dilation, padding, outputs = zip(
        *(draw(axes(mode, {1: 20, 2: 8, 3: 5}[n], number == long, truncated)) for number in range(n)), strict=True
    )
    if torch_only:
        padding = tuple((max(pair),) * 2 for pair in padding)
    groups, channels = 1, torch_only or draw(st.booleans())
    if channels:
        groups, outer, inner = (draw(st.integers(1, most)) for most in (3, 2, 3))
        kernel_shape, input_shape = (groups * outer, inner, *taps), (groups * inner, *size)
    else:
        kernel_shape, input_shape = taps, size
    case = Case(kernel_shape, input_shape, stride, padding, dilation, groups, mode)
    if outputs != case.output_shape[-n:] and not torch_only:
        case = replace(case, outputs=outputs)
    assume(prod(case.output_shape) * prod(case.input_shape) <= most)
    return case


@st.composite
def layers(draw):
    """Draw a layer of 3 × 3 taps and many channels, which the engines `winograd` and `winograd4` take."""
    mode = draw(st.sampled_from(PADDING_MODES))
    size = draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    padding = tuple(
        (draw(st.integers(max(0, 3 - n), limit)), draw(st.integers(0, limit)))
        for n in size
        for limit in [{"reflect": n - 1, "circular": n, "symmetric": n}.get(mode, 5)]
    )
    groups, outer, inner = draw(st.integers(1, 2)), draw(st.integers(8, 19)), draw(st.integers(8, 19))
    return Case((groups * outer, inner, 3, 3), (groups * inner, *size), (1, 1), padding, (1, 1), groups, mode)


@st.composite
def many_channels(draw):
    """Draw a layer of so many channels that the engine `fft` multiplies matrices; others have too few."""
    case = draw(cases(most_axes=2, truncated=True, most=400).filter(lambda case: len(case.kernel_shape) < 3))
    outer, inner = draw(st.integers(13, 20)), draw(st.integers(13, 20))
    return replace(case, kernel_shape=(outer, inner, *case.kernel_shape), input_shape=(inner, *case.input_shape))


@st.composite
def outer_products(draw, modes=PADDING_MODES):
    """Draw a case for the engine `separable`: two or three axes, one channel in each group."""
    mode, n, groups = draw(st.sampled_from(modes)), draw(st.integers(2, 3)), draw(st.integers(0, 3))
    drawn = [draw(axes(mode, {2: 8, 3: 5}[n], draw(st.booleans()))) for _ in range(n)]
    assume(sum(taps > 1 for _, taps, *_ in drawn) > 1)
    size, taps, stride, dilation, padding, _ = zip(*drawn, strict=True)
    shapes = ((groups, 1, *taps), (groups, *size)) if groups else (taps, size)
    case = Case(*shapes, stride, padding, dilation, max(1, groups), mode)
    assume(prod(case.output_shape) * prod(case.input_shape) <= 1_000_000)
    return case


# What is read begins or ends where padding, stride or the input do, or some inputs and outputs are left out.
WIDE = {
    "reads as many as there are, after padding": Case((2,), (300,), (1,), ((299, 300),), (599,)),
    "the same of several channels": Case((3, 2, 1, 3), (2, 4, 256), (1, 1), ((0, 0), (20, 260)), (1, 140)),
    "as many outputs as inputs, each through one tap": Case((6,), (34,), (1,), ((33, 392),), (85,)),
    "a tap beyond either end": Case((3,), (50,), (1,), ((120, 130),), (100,)),
    "padding alone at both ends": Case((3, 2), (40, 3), (7, 1), ((90, 75), (5, 4)), (2, 3)),
    "stride beyond the input": Case((3,), (20,), (33,), ((40, 60),), (17,)),
    "stride beyond the input on one of two axes": Case((2, 3), (5, 60), (9, 61), ((4, 9), (61, 70)), (3, 5)),
    "dilation and stride alike": Case((4,), (200,), (50,), ((50, 100),), (50,)),
    "dilation a multiple of the stride": Case((4,), (100,), (6,), ((31, 20),), (18,)),
    "thousands of inputs": Case((5,), (3001,), (1,), ((700, 1000),), (700,)),
    "thousands of inputs, with stride": Case((4, 3), (3, 2500), (1, 5), ((1, 1), (2499, 3)), (1, 1200)),
    "first outputs": Case((3,), (34,), (1,), ((1, 1),), (3,), outputs=(28,)),
    "first outputs of several axes": Case((2, 3, 3, 3), (3, 16, 17), (2, 1), ((1, 0), (0, 2)), (5, 4), outputs=(2, 8)),
    "first outputs, long": Case((2,), (1500,), (3,), ((10, 0),), (700,), outputs=(100,)),
    "one output of many that fit": Case((3, 2), (9, 40), (1, 1), ((0, 0), (0, 0)), (1, 30), outputs=(7, 1)),
    "circular, all around": Case((4,), (120,), (1,), ((120, 120),), (119,), padding_mode="circular"),
    "reflected to the other end": Case((3, 2), (2, 90), (1, 4), ((1, 1), (89, 89)), (1, 88), padding_mode="reflect"),
    "mirrored whole": Case((2, 2, 5), (2, 64), (3,), ((64, 64),), (40,), padding_mode="symmetric"),
    "edges far out": Case((3, 3), (1, 70), (1, 2), ((9, 9), (200, 210)), (9, 150), padding_mode="replicate"),
    "edges, first outputs": Case((4,), (25,), (2,), ((60, 5),), (21,), padding_mode="replicate", outputs=(7,)),
}


def values(shape, dtype, seed=0):
    """Return random values, small integers for integer dtypes, in any order of memory that comes."""
    generator = np.random.default_rng([seed, *shape])
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return generator.integers(0, 9, shape).astype(dtype)
    real = generator.standard_normal(shape)
    return (real + 1j * generator.standard_normal(shape) if dtype.kind == "c" else real).astype(dtype)


def outer_product(case, dtype, seed=0):
    """Return an outer product of random vectors as the kernel of a case with one channel in each group."""
    n = len(case.stride)
    channels = case.kernel_shape[:-n]
    kernel = np.ones(channels, dtype)
    for axis, length in enumerate(case.kernel_shape[-n:]):
        vector = values((*channels, length), dtype, seed + axis)
        kernel = kernel[..., None] * vector.reshape(*channels, *(1,) * axis, length)
    return kernel


def assert_close(actual, expected, scale):
    """Compare exactly for integers, else to the contract's tolerance of ‖W‖∞‖x‖∞."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected)
    elif actual.size:
        assert np.abs(actual - expected).max() <= TOLERANCE[actual.dtype.char] * max(scale, 1e-30)


def oracle(kernel, geometry):
    """Return the oracle's W of a geometry, as a CSR array."""
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    return reference.sparse_matrix(kernel, geometry.input_shape, **{name: getattr(geometry, name) for name in names})


def skip_if_absent(engine):
    """Skip where the package that an engine needs is absent; whatever the engine refuses then is an error."""
    pytest.importorskip(PACKAGES.get(engine, "numpy"))


def takes(engine, geometry, dtype):
    """Tell whether a convolution is one that an engine is for: the rule, said apart from the engines that follow it."""
    inexact = np.dtype(dtype).kind in "fc"
    inner, outer = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    match engine:
        case "auto" | "csr":
            return True
        case "gemm":
            return len(geometry.axes) <= 30
        case "fft" | "taps":
            return inexact
        case "torch":
            return inexact and len(geometry.axes) <= 3
        case "separable":  # and then for kernels that are outer products
            return inexact and inner == outer == 1 and sum(taps > 1 for taps in geometry.spatial_kernel) > 1
        case "winograd" | "winograd4":
            plain = geometry.spatial_kernel == (3, 3) and geometry.stride == geometry.dilation == (1, 1)
            numbers, most = (("float32", "float64"), 32768) if engine == "winograd" else (("float64",), 1024)
            return np.dtype(dtype).name in numbers and plain and 8 <= min(inner, outer) <= max(inner, outer) <= most
    raise ValueError(f"no rule says what {engine!r} is for")


def engines_for(case, dtype):
    """Return the names of the engines that a case is for, and whose packages are there."""
    return [name for name in ENGINES if find_spec(PACKAGES.get(name, "numpy")) and takes(name, case.geometry, dtype)]
