"""Products of every engine, matrices and what goes with them, in a few seconds: `python -m tests.smoke`.

The checks raise, so that they hold under `python -O` too. Expected values come from `numpy.pad` and a loop over taps, and
from no BLAS. The last line names the engines that have computed; `--demand` and `--refuse` say which should, or should not.
"""

import argparse
import pickle
import warnings
from itertools import product

import numpy as np
import scipy.sparse

from convmat import Convolution, TransposedConvolution, convolution_matrix, transposed_convolution_matrix

NUMPY_MODE = {"circular": "wrap", "reflect": "reflect", "symmetric": "symmetric", "replicate": "edge"}
ENGINES = ("auto", "taps", "winograd", "winograd4", "separable", "gemm", "fft", "csr", "torch")
FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
TOLERANCE = {"f": 1e-5, "d": 1e-12, "F": 1e-5, "D": 1e-12}
INEXACT = ("float32", "float64", "complex64", "complex128")
EVERY = (*INEXACT, "int8", "uint16", "int64")

# Kernel's shape, input's shape, options, dtypes, batch. Padding is one pair for each axis.
SMALL = [
    ((5,), (40,), {"padding": ((2, 3),), "stride": (2,)}, EVERY, (3,)),
    ((2,), (300,), {"padding": ((299, 300),), "dilation": (599,)}, INEXACT, ()),
    ((3, 3), (9, 10), {"padding": ((1, 1), (2, 0))}, EVERY, ()),
    ((4, 3), (9, 8), {"padding": ((3, 2), (5, 7)), "padding_mode": "reflect"}, EVERY, (2,)),
    ((3, 5), (6, 7), {"padding": ((6, 6), (2, 7)), "padding_mode": "circular"}, INEXACT, ()),
    ((3, 2, 3), (5, 4, 6), {"padding": ((5, 1), (0, 2), (3, 3)), "padding_mode": "symmetric"}, INEXACT, ()),
    ((4, 3, 3, 2), (6, 11, 9), {"padding": ((2, 9), (4, 0)), "groups": 2, "padding_mode": "replicate"}, EVERY, (2, 2)),
    ((8, 8, 1, 3), (8, 4, 32), {"padding": ((0, 0), (20, 30)), "dilation": (1, 35)}, INEXACT, ()),
    ((9, 8, 3, 3), (8, 7, 6), {"padding": ((1, 1), (1, 1))}, INEXACT, (3,)),
]
LARGE = [  # enough work for several threads
    ((24, 24, 3, 3), (24, 60, 61), {"padding": ((1, 1), (1, 1)), "stride": (1, 2)}, ("float32", "complex128"), ()),
    ((40, 33, 3, 3), (33, 41, 37), {"padding": ((1, 1), (1, 1))}, ("float32", "float64"), (2,)),
    ((15, 15), (120, 130), {"padding": ((7, 7), (7, 7))}, ("float32", "float64"), (2,)),
    ((2, 3, 5, 5), (3, 90, 80), {"padding": ((2, 2), (2, 2))}, ("int64", "float64"), ()),
]


class SmokeError(Exception):
    """What a check has found."""


def is_refusal(text, engine):
    """Tell whether an error says in a sentence that an engine cannot do something."""
    return text.startswith(f"engine={engine!r} cannot do this ") and "\n" not in text and not text.endswith(".")


class Oracle:
    """W by its definition: `numpy.pad` tells which input each output reads through each tap."""

    def __init__(self, kernel, input_shape, padding, stride=None, dilation=None, groups=1, padding_mode="zeros"):
        n = len(padding)
        stride, dilation = stride or (1,) * n, dilation or (1,) * n
        spatial = input_shape[-n:]
        self.size, self.groups = int(np.prod(spatial)), groups
        self.kernel = kernel if kernel.ndim > n else kernel[None, None]
        number = np.arange(self.size).reshape(spatial)
        if padding_mode == "zeros":
            number = np.pad(number, padding, constant_values=self.size)  # one more position, which is 0
        else:
            number = np.pad(number, padding, mode=NUMPY_MODE[padding_mode])
        sizes = zip(number.shape, self.kernel.shape[2:], stride, dilation, strict=True)
        outputs = [(m - d * (k - 1) - 1) // s + 1 for m, k, s, d in sizes]
        self.output_shape = (*kernel.shape[: kernel.ndim - n][:1], *outputs)
        self.sources = []
        for taps in product(*map(range, self.kernel.shape[2:])):
            axes = zip(taps, dilation, stride, outputs, strict=True)
            read = tuple(slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, s, o in axes)
            self.sources.append((taps, number[read].ravel()))

    def _weights(self, taps):
        weights = self.kernel[(..., *taps)]
        return weights.reshape(self.groups, -1, weights.shape[1])

    def forward(self, x):
        """Return W x for x (B, C_in · size)."""
        x = x.reshape(len(x), self.groups, -1, self.size)
        x = np.concatenate([x, np.zeros_like(x[..., :1])], axis=-1)
        terms = (np.einsum("goc,bgcp->bgop", self._weights(taps), x[..., at]) for taps, at in self.sources)
        return sum(terms).reshape(len(x), -1)

    def transpose(self, y):
        """Return Wᵀ y for y (B, C_out · outputs)."""
        y = y.reshape(len(y), self.groups, self.kernel.shape[0] // self.groups, -1)
        total = np.zeros((self.size + 1, len(y), self.groups, self.kernel.shape[1]), y.dtype)
        for taps, at in self.sources:
            np.add.at(total, at, np.einsum("goc,bgop->pbgc", self._weights(taps), y))
        return np.moveaxis(total[:-1], 0, -1).reshape(len(y), -1)


def check(condition, message):
    """Raise, unless a condition holds."""
    if not condition:
        raise SmokeError(message)


def check_equal(actual, expected, scale, what):
    """Compare exactly for integers, else to the stated share of ‖W‖∞‖x‖∞."""
    check(actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype} for {expected.dtype}")
    check(actual.shape == expected.shape, f"{what}: shape {actual.shape} for {expected.shape}")
    error = 0 if np.array_equal(actual, expected) else np.abs(actual - expected).max()
    check(error <= TOLERANCE.get(actual.dtype.char, 0) * scale, f"{what}: an error of {error} beside {scale}")


def draw(rng, shape, dtype):
    """Return random values; small integers for integer dtypes."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 3, shape).astype(dtype)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)


def outer_product(rng, shape, axes, dtype):
    """Return a random kernel that is an outer product along its last axes."""
    kernel = draw(rng, shape[:-axes], dtype).reshape(*shape[:-axes], *(1,) * axes)
    for axis in range(-axes, 0):
        kernel = kernel * draw(rng, shape[axis], dtype).reshape(-1, *(1,) * (-axis - 1))
    return kernel


class Products:
    """A kernel, arrays and the products that are right, for all operators that should compute them."""

    def __init__(self, rng, kernel, size, options, batch):
        oracle, dtype = Oracle(kernel, size, **options), kernel.dtype
        self.directions, self.output_shape = [], oracle.output_shape
        sizes = ((size, oracle.forward), (oracle.output_shape, oracle.transpose))
        for (inputs, multiply), (outputs, _) in zip(sizes, sizes[::-1], strict=True):
            x = np.asarray(draw(rng, (*inputs, *batch), dtype))
            x = np.moveaxis(x, range(-len(batch), 0), range(len(batch))) if batch else x  # not contiguous
            values = multiply(x.reshape(-1, int(np.prod(inputs)))).reshape(*batch, *outputs)
            self.directions.append((x, values, np.abs(kernel).sum() * np.abs(x).max()))

    def check(self, A, what):
        """Check the products of an operator and of its transpose."""
        for B, (x, expected, scale) in zip((A, A.T), self.directions, strict=True):
            before, out = x.copy(), np.empty(expected.shape, expected.dtype)
            check_equal(B.apply(x), expected, scale, f"{what}, {B!r}")
            check(B.apply(x, out=out) is out, f"{what}: not what it was given to write to")
            check_equal(out, expected, scale, f"{what}, with out")
            columns = x.reshape(-1, B.shape[1]).T
            check_equal(B @ columns, expected.reshape(-1, B.shape[0]).T, scale, f"{what}, @")
            check(np.array_equal(x, before), f"{what}: the input is changed")


def check_case(case, dtype, rng):
    """Check all engines on one case, and return the names of those that have computed something."""
    shape, size, options, _, batch = case
    ran, products, general = set(), {}, draw(rng, shape, dtype)
    outer = outer_product(rng, shape, len(options["padding"]), dtype)
    for engine in ENGINES:
        kernel = outer if engine == "separable" else general
        if id(kernel) not in products:
            products[id(kernel)] = Products(rng, kernel, size, options, batch)
        try:
            A = Convolution(kernel, size, engine=engine, workers=2, **options)
            products[id(kernel)].check(A, f"{engine}, {dtype}, {shape} on {size}")
        except (ValueError, RuntimeError) as refusal:  # the latter where compiled code turns out not to be had
            check(is_refusal(str(refusal), engine), f"{engine}, {dtype}, {shape} on {size}: {refusal!r}")
        else:
            ran.add(engine)
    return ran


def run_engines(cases, rng):
    """Check all engines on all cases, and return the names of those that have computed something."""
    return set().union(*(check_case(case, dtype, rng) for case in cases for dtype in case[3]))


def check_matrices(rng):
    """Check W and Wᵀ in all formats, whole and by rows."""
    warnings.filterwarnings("ignore", "Constructing a DIA matrix", scipy.sparse.SparseEfficiencyWarning)
    for shape, size, options, dtypes, _ in SMALL:
        for dtype in dtypes:
            kernel = draw(rng, shape, dtype)
            oracle = Oracle(kernel, size, **options)
            W = oracle.transpose(np.eye(int(np.prod(oracle.output_shape)), dtype=dtype))
            builders = ((convolution_matrix, size, W), (transposed_convolution_matrix, oracle.output_shape, W.T))
            for build, shape_in, expected in builders:
                named = {**options, "output_shape": size} if build is transposed_convolution_matrix else options
                scale = np.abs(kernel).sum()
                for format in FORMATS:
                    matrix = build(kernel, shape_in, format=format, **named)
                    check(matrix.format == format, f"{matrix.format} for {format}")
                    check_equal(matrix.toarray(), expected, scale, f"{build.__name__}, {format}, {dtype}, {shape}")
                start, stop = len(expected) // 3, len(expected) // 2
                part = build(kernel, shape_in, rows=(start, stop), **named)
                check_equal(part.toarray(), expected[start:stop], scale, f"{build.__name__}, rows")
    shape, size, options, *_ = LARGE[0]
    kernel = draw(rng, shape, "float64")
    W, A = convolution_matrix(kernel, size, **options), Convolution(kernel, size, engine="csr", **options)
    x = draw(rng, W.shape[1], "float64")
    scale = np.abs(kernel).sum() * np.abs(x).max()
    check_equal(W @ x, Oracle(kernel, size, **options).forward(x[None])[0], scale, "a large W")
    check(isinstance(A.tocsr(), scipy.sparse.csr_array), "tocsr gives another type")


def check_the_rest(ran, rng):
    """Check with_kernel, pickle, explain and the operator of the transpose."""
    for engine in sorted(ran):
        shape, size, options, _, batch = SMALL[2 if engine == "separable" else -1]
        first, second = (outer_product(rng, shape, 2, "float64") for _ in range(2))
        A = Convolution(first, size, engine=engine, **options)
        A.apply(draw(rng, size, "float64"))
        products = Products(rng, second, size, options, batch)
        products.check(A.with_kernel(second), f"{engine}, with_kernel")
        products.check(pickle.loads(pickle.dumps(A.with_kernel(second))), f"{engine}, pickle")
        chosen = [estimate.engine for estimate in A.explain().estimates if estimate.chosen]
        check(len(chosen) == 2 and ran.issuperset(chosen), f"{chosen} are chosen, {sorted(ran)} have computed")
        T = TransposedConvolution(second, products.output_shape, output_shape=size, engine=engine, **options)
        products.check(T.T, f"{engine}, transposed")


def names(text):
    """Split names at commas."""
    return set(text.split(",")) if text else set()


def main():
    """Run all checks."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.smoke", description="Check every engine, and matrices, in a few seconds."
    )
    parser.add_argument(
        "--demand", type=names, default=names(""), help="engines that have to compute, as taps,winograd"
    )
    parser.add_argument("--refuse", type=names, default=names(""), help="engines that have to refuse")
    parser.add_argument("--errstate", action="store_true", help="run inside numpy.errstate(all='raise')")
    parser.add_argument("--small", action="store_true", help="leave out what takes several threads and much memory")
    options = parser.parse_args()
    rng = np.random.default_rng(20261128)
    with np.errstate(all="raise") if options.errstate else np.errstate():
        ran = run_engines(SMALL if options.small else SMALL + LARGE, rng)
        check_the_rest(ran, rng)
        if not options.small:
            check_matrices(rng)
    print("engines:", *(name for name in ENGINES if name in ran), flush=True)
    missing = ({"auto", "gemm", "fft", "csr"} | options.demand) - options.refuse - ran
    check(not missing, f"{sorted(missing)} should have computed")
    check(not options.refuse & ran, f"{sorted(options.refuse & ran)} should have refused")


if __name__ == "__main__":
    main()
