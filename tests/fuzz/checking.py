"""What is compared: products of every engine, and matrices, with those of the oracle."""

import pickle
import warnings
from collections import Counter
from contextlib import contextmanager
from math import prod

import numpy as np
from scipy import sparse

from convmat import Convolution, TransposedConvolution, convolution_matrix, transposed_convolution_matrix
from convmat.engines import ENGINES
from convmat.engines._fft import tiles
from convmat.matrices import _pattern as pattern
from tests import reference
from tests.fuzz.drawing import module_of

TOLERANCE = {"f": 1e-5, "d": 1e-12, "F": 1e-5, "D": 1e-12}
SPREADS = ("fft", "auto")  # engines that leave rounding where no tap reads anything
ALL_ENGINES = (*ENGINES, "auto")


class Difference(AssertionError):
    """Something computed is not what it should be."""


class Counts:
    """What has been computed, by engine and direction; in how many cases each engine was reached; and what differed."""

    def __init__(self):
        self.cases, self.matrices, self.differences = 0, 0, 0
        self.products, self.reached, self.absent = Counter(), Counter(), {}

    def __str__(self):
        lines = [f"{self.cases} cases, {self.products.total()} products, {self.matrices} matrices"]
        for name in ALL_ENGINES:
            forward, transposed = self.products[name, False], self.products[name, True]
            lines.append(f"{name:>10}: {self.reached[name]} cases, {forward} products with W and {transposed} with W.T")
            if name in self.absent:
                lines[-1] += f" ({self.absent[name]})"
        return "\n".join(lines)

    def unreached(self, engines):
        """Return the engines that were never reached, but for those that lack a package."""
        return [name for name in engines if not self.reached[name] and name not in self.absent]


@contextmanager
def patched(thresholds):
    """Set thresholds, and forget what was planned with others."""
    modules = {name: module_of(name) for name in thresholds}
    usual = {name: getattr(*place) for name, place in modules.items()}
    pattern.forget()
    tiles._best_tiles.cache_clear()
    try:
        for name, (module, attribute) in modules.items():
            setattr(module, attribute, type(usual[name])(thresholds[name]))
        yield
    finally:
        for name, (module, attribute) in modules.items():
            setattr(module, attribute, usual[name])


def random_values(shape, dtype, *seed):
    """Return random numbers; integers are so small that sums of a few of them fit."""
    generator, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind in "iu":
        return generator.integers(-3 if dtype.kind == "i" else 0, 4, shape).astype(dtype)
    real = generator.standard_normal(shape)
    return (real + 1j * generator.standard_normal(shape) if dtype.kind == "c" else real).astype(dtype)


def kernel_of(case):
    """Return a case's kernel."""
    if not case.outer_product:
        return random_values(case.kernel_shape, case.dtype, *case.seed, 0)
    channels = case.kernel_shape[: 2 * case.has_channels]
    kernel = np.ones(channels, case.dtype)
    for axis, length in enumerate(case.kernel_shape[len(channels) :]):
        vector = random_values((*channels, length), case.dtype, *case.seed, 0, axis)
        kernel = kernel[..., None] * vector.reshape(*channels, *(1,) * axis, length)
    return kernel


def laid_out(array, layout):
    """Return an equal array that lies otherwise in memory."""
    match layout:
        case "F":
            return np.asfortranarray(array)
        case "reversed":
            return array[..., ::-1].copy()[..., ::-1]  # of which an axis of one may have a negative stride
        case "every second":
            return np.repeat(array, 2, axis=-1)[..., ::2]
        case "swapped":
            return array.astype(array.dtype.newbyteorder())
        case "read-only":
            array.flags.writeable = False
    return array


def expects(case, name, dtype):
    """Tell whether an engine should take a case, None if it may: restated, so that no refusal goes unnoticed."""
    spatial, (outer, inner) = case.kernel_shape[-len(case.stride) :], _channels(case)
    match name:
        case "taps" | "fft":
            return dtype.kind in "fc"
        case "torch":
            return dtype.kind in "fc" and len(spatial) <= 3
        case "winograd" | "winograd4":
            least = case.thresholds.get("convmat.engines._winograd.winograd._CHANNELS", 8)
            layer = spatial == (3, 3) and case.stride == case.dilation == (1, 1)
            sizes, most = ((8,), 1024) if name == "winograd4" else ((4, 8), 32768)
            real = dtype.kind == "f" and dtype.itemsize in sizes
            return real and layer and least <= min(outer, inner) <= max(outer, inner) <= most
        case "separable":
            several = outer == inner == 1 and sum(length > 1 for length in spatial) > 1
            if dtype.kind in "fc" and several and not (case.outer_product and case.dtype == dtype):
                return None  # small integers are an outer product now and then
            return dtype.kind in "fc" and several
    return True


def _channels(case):
    if not case.has_channels:
        return 1, 1
    return case.kernel_shape[0] // case.groups, case.kernel_shape[1]


class Check:
    """One case: its arrays, and what the oracle makes of them."""

    def __init__(self, case, counts):
        self.case, self.counts, self.kernel = case, counts, laid_out(kernel_of(case), case.layout)
        self.kernel_bytes = self.kernel.tobytes()
        self.result = np.result_type(self.kernel.dtype, np.dtype(case.x_dtype))
        self.W = self.oracle(self.kernel, self.result if self.result.kind in "iu" else np.result_type(self.result, "d"))
        # A real kernel is applied to the parts of a complex input.
        self.own = self.result if self.kernel.dtype.kind == "c" else np.zeros((), self.result).real.dtype
        self.x = self.given(False)
        self.y = self.given(True)
        # Of taps before the padding merges some, which may cancel.
        flat = self.oracle(np.abs(self.kernel), np.float64)
        self.norms = float(flat.sum(axis=1).max()), float(flat.sum(axis=0).max())
        self.kernel_norm = float(np.abs(self.kernel).sum(dtype=np.float64))

    def oracle(self, kernel, dtype):
        """Return the matrix W of a kernel."""
        case = self.case
        kernel = np.flip(kernel, tuple(range(-len(case.stride), 0))) if case.flip else kernel
        return reference.sparse_matrix(kernel.astype(dtype), case.input_shape, **case.options, outputs=case.outputs)

    def given(self, transposed):
        """Return what is multiplied by W or by its transpose."""
        case = self.case
        shape = (*case.batch, *(case.output_shape if transposed else case.input_shape))
        return laid_out(random_values(shape, case.x_dtype, *case.seed, 1 + transposed), case.layout)

    def operator(self, kernel, **options):
        """Return the operator of a case: W or its transpose."""
        case, shared = self.case, {**self.case.options, "flip": self.case.flip, "workers": self.case.workers, **options}
        if case.transposed or case.truncated:
            return TransposedConvolution(kernel, case.output_shape, output_shape=case.input_shape, **shared)
        return Convolution(kernel, case.input_shape, **shared)

    def engine(self, name):
        """Compare the products of an engine; return whether it computes any."""
        wanted = expects(self.case, name, self.own)
        try:
            A = self.operator(self.kernel, engine=name)
            A = A.T if isinstance(A, TransposedConvolution) else A
            products = [self.product(A, name, transposed) for transposed in (False, True)]
        except ValueError as refusal:
            if "cannot do this" not in str(refusal):
                raise
            if "not installed" in str(refusal):
                self.counts.absent[name] = str(refusal)
            elif wanted:
                raise Difference(f"refuses: {refusal}") from None
            return
        if wanted is False and self.x.size:
            raise Difference("takes what it should refuse")
        self.counts.reached[name] += 1
        self.adjoint(*products)
        self.relatives(A, name)
        if self.kernel.tobytes() != self.kernel_bytes:
            raise Difference("the kernel is modified")

    def product(self, A, name, transposed):
        """Compare a product of W or its transpose, and the same again in an array that is given."""
        B, x = (A.T, self.y) if transposed else (A, self.x)
        before = x.copy()
        actual = B.apply(x)
        self.compare(name, transposed, actual, x, self.W.T if transposed else self.W)
        layout = "C" if self.case.layout in ("swapped", "read-only") else self.case.layout
        out = laid_out(np.full(actual.shape, 77, actual.dtype), layout)
        if B.apply(x, out=out) is not out:
            raise Difference("out is not what is returned")
        self.counts.products[name, transposed] += 1
        if out.tobytes() != actual.tobytes():
            raise Difference("another call gives other bits")
        if x.tobytes() != before.tobytes():
            raise Difference("the input is modified")
        return actual

    def compare(self, name, transposed, actual, x, W):
        """Compare arrays (..., *output) with the product of the oracle and arrays (..., *input)."""
        case = self.case
        shape = (*case.batch, *(case.input_shape if transposed else case.output_shape))
        if actual.dtype != self.result or actual.shape != shape:
            raise Difference(f"{actual.dtype} {actual.shape} where {self.result} {shape} should be")
        self.counts.products[name, transposed] += 1
        wide = x.reshape(-1, W.shape[1]).astype(W.dtype)
        scale = max(self.norms[transposed], self.kernel_norm if name in SPREADS else 0)
        self.close(actual.reshape(-1, W.shape[0]), (W @ wide.T).T, scale * float(np.abs(wide).max(initial=0)))

    def close(self, actual, expected, scale):
        """Compare exactly for integers, else to the contract's tolerance of ‖W‖∞‖x‖∞."""
        if self.result.kind in "iu":
            wrong = actual != expected
        else:
            wrong = ~(np.abs(actual - expected) <= TOLERANCE[self.result.char] * scale)  # also where it is NaN
        if wrong.any():
            place = tuple(int(index[0]) for index in wrong.nonzero())
            raise Difference(
                f"{wrong.sum()} of {wrong.size} differ, the first at {place}: {actual[place]!s} "
                f"where {expected[place]!s} should be"
            )

    def adjoint(self, forward, transposed):
        """Compare y·(W x) with (Wᵀ y)·x."""
        if self.result.kind in "iu" or not forward.size:
            return
        wide = np.result_type(self.result, "d")
        Ax, ATy, x, y = (array.astype(wide).ravel() for array in (forward, transposed, self.x, self.y))
        scale = np.linalg.norm(Ax) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(ATy)
        scale += self.kernel_norm * np.linalg.norm(x) * np.linalg.norm(y) * 1e-2
        if not abs(y @ Ax - ATy @ x) <= 100 * float(np.finfo(self.result).eps) * scale:
            raise Difference("y·(A x) is not (A.T y)·x")

    def relatives(self, A, name):
        """Compare a product of an operator that comes from another one; which one, the case's number says."""
        case, which = self.case, self.case.seed[1] % 5
        conjugate = np.dtype(case.dtype).kind == "c"
        if which == 0:
            self.compare(name, False, A.conj().apply(self.x), self.x, self.W.conj() if conjugate else self.W)
        elif which == 1:
            self.compare(name, True, A.H.apply(self.y), self.y, self.W.conj().T if conjugate else self.W.T)
        elif which == 2:
            again = pickle.loads(pickle.dumps(A.T)).T
            if (again.geometry, again.engine) != (A.geometry, A.engine):
                raise Difference("a pickle has another geometry or engine")
            self.compare(name, False, again.apply(self.x), self.x, self.W)
        elif which == 3 and not case.outer_product:
            other = self.operator(np.zeros_like(self.kernel), engine=name).with_kernel(self.kernel)
            other = other.T if isinstance(other, TransposedConvolution) else other
            self.compare(name, True, other.T.apply(self.y), self.y, self.W.T)
        else:
            columns = self.x.reshape(prod(case.batch), self.W.shape[1])
            result = (A @ columns.T).T if len(columns) != 1 else A @ columns[0]
            self.compare(name, False, result.reshape(*case.batch, *case.output_shape), self.x, self.W)

    def matrices(self):
        """Compare the matrix of either direction, as CSR and in the case's format, and a range of its rows."""
        W = self.oracle(self.kernel, np.dtype(self.case.dtype))
        transposed = self.case.transposed or self.case.truncated
        expected = W.T.tocsr() if transposed else W
        self.matrix(self.build(transposed, "csr"), expected, W.nnz)
        rows = tuple(round(share * expected.shape[0]) for share in self.case.rows)
        self.matrix(self.build(transposed, "csr", rows=rows), expected[slice(*rows)])
        if not self.case.truncated:
            self.matrix(self.build(not transposed, "csr"), W if transposed else W.T.tocsr(), W.nnz)
        format = self.case.format
        if format == "csr" or (format != "csc" and expected.shape[0] * expected.shape[1] > 10**5):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sparse.SparseEfficiencyWarning)
            other = self.build(transposed, format)
        self.counts.matrices += 1
        if other.format != format:
            raise Difference(f"a matrix of format {other.format}, not {format}")
        if format == "csc":
            self.matrix(other.T, expected.T.tocsr(), W.nnz)
        else:
            self.values(other.toarray(), expected.toarray())

    def build(self, transposed, format, **options):
        """Return a matrix of W or Wᵀ."""
        case, options = self.case, {**options, "format": format, "flip": self.case.flip, "workers": self.case.workers}
        if transposed:
            return transposed_convolution_matrix(
                self.kernel, case.output_shape, output_shape=case.input_shape, **case.options, **options
            )
        return convolution_matrix(self.kernel, case.input_shape, **case.options, **options)

    def matrix(self, actual, expected, nnz=None):
        """Compare CSR arrays entry by entry; sorted, without duplicates, and of the right index dtype."""
        self.counts.matrices += 1
        index = sparse.get_index_dtype(maxval=max(expected.nnz, *expected.shape))
        if actual.shape != expected.shape or actual.nnz != expected.nnz or nnz not in (None, self.case.geometry().nnz):
            raise Difference(f"a matrix of {actual.shape} and {actual.nnz}, not {expected.shape} and {expected.nnz}")
        if not actual.has_canonical_format or {actual.indices.dtype, actual.indptr.dtype} != {np.dtype(index)}:
            raise Difference(f"indices of {actual.indices.dtype} and {actual.indptr.dtype}, not {index}")
        for name in ("indptr", "indices"):
            if not np.array_equal(getattr(actual, name), getattr(expected, name)):
                raise Difference(f"other {name} of a matrix")
        self.values(actual.data, expected.data)

    def values(self, actual, expected):
        """Compare the values of a matrix."""
        if actual.dtype != self.case.dtype:
            raise Difference(f"a matrix of {actual.dtype}, not {self.case.dtype}")
        exact = actual.dtype.kind in "iu"
        scale = 0 if exact else 8 * np.finfo(actual.dtype).eps * self.kernel_norm
        if not (np.abs(actual - expected) <= scale).all():
            raise Difference(f"other values of a matrix, by up to {np.abs(actual - expected).max()}")


def check(case, engines=ALL_ENGINES, counts=None):
    """Yield what is compared, by name, and the difference found, or None; with matrices if `engines` are all."""
    counts = Counts() if counts is None else counts
    with patched(case.thresholds):
        checked = Check(case, counts)
        counts.cases += 1
        for name in engines:
            yield name, _difference(checked.engine, name)
        yield "matrices", _difference(checked.matrices)


def _difference(function, *arguments):
    """Return the difference that a check finds; whatever else it raises is one."""
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001
        return error if isinstance(error, Difference) else Difference(f"{type(error).__name__}: {error}")
    return None
