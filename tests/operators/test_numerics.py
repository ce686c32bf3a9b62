"""What products do with what is not finite, with NumPy's error state, and with results that read nothing."""

import pickle

import numpy as np
import pytest

from convmat import Convolution, ConvolutionGeometry, TransposedConvolution, convolution_matrix
from convmat._runtime.parallel import run_blocks
from convmat.engines import ENGINES, Machine, is_compiled
from convmat.engines import _gemm as gemm
from convmat.engines._planner import plan
from tests.cases import oracle, skip_if_absent, takes, values
from tests.engines.test_engines import CASES, TAKEN, geometry_of, operator

NARROW = np.exp(-(np.arange(-60.0, 61.0) ** 2))  # whose ends are subnormal, or 0


@pytest.fixture
def strict():
    """Let NumPy raise whatever it can, and check that this is how it stays."""
    with np.errstate(all="raise"):
        before, size = np.geterr(), np.getbufsize()
        yield
        assert (np.geterr(), np.getbufsize()) == (before, size)


def operands(name, dtype="float64"):
    kernel, size, options = CASES[name]
    return values(kernel, dtype), size, options


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e308, 1e-308])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.usefixtures("strict")
def test_no_product_warns_or_raises_of_its_numbers(engine, bad, dtype, monkeypatch):
    skip_if_absent(engine)
    monkeypatch.setattr(gemm, "SERIAL", 0)  # in helpers, too
    for name in CASES:
        if not takes(engine, geometry_of(name), dtype):
            continue
        kernel, size, options = operands(name, dtype)
        if engine == "separable":  # outer products alone
            kernel = np.ones_like(kernel)
        A = Convolution(kernel, size, engine=engine, workers=2, **options)
        for B in (A, A.T, A.H):
            x = np.full(B.input_shape, 3, dtype)
            x.flat[:: max(1, x.size // 7)] = bad
            B.apply(x)
        if np.isfinite(bad):
            A.with_kernel(kernel * 1e300).apply(
                x[...] if x.shape == A.input_shape else np.full(A.input_shape, 1e300, dtype)
            )


@pytest.mark.parametrize("engine", ["auto", "gemm", "fft", "csr"])
@pytest.mark.usefixtures("strict")
def test_plans_and_matrices_do_not_depend_on_the_error_state(engine):
    with np.errstate(all="ignore"):
        kernel, large = np.outer(NARROW, NARROW), NARROW.astype(np.float32) * np.float32(3e38)
    size = 64 if engine == "csr" else 200  # a W that takes little memory
    A = Convolution(kernel, (size, size), engine=engine, padding="same")
    assert "separable" in str(A.explain())
    A.apply(np.ones((size, size)))
    W = convolution_matrix(NARROW, 61, padding=60, padding_mode="replicate", dtype="float32")
    assert W.dtype == np.float32
    Convolution(large, 300, padding=60, padding_mode="symmetric").tocsr()


def test_helpers_compute_as_their_caller():
    """The error state is a thread's own, so that a helper would have another one."""
    seen = []
    with np.errstate(all="raise"):
        A = Convolution(np.ones((8, 8, 3, 3)), (8, 9, 9), engine="gemm")
        run_blocks(lambda: seen.append(A.apply(np.full((8, 9, 9), np.inf))), [()] * 6, 3)
    assert len(seen) == 6


LARGE = np.ones((63, 63)) + np.eye(63)  # no outer product


def auto(**options):
    """Return what is chosen on a machine without compiled code, whatever this one has."""
    geometry = ConvolutionGeometry(LARGE.shape, (512, 512), padding="same")
    engines = {name: engine for name, engine in ENGINES.items() if not is_compiled(engine)}
    estimates = plan(geometry, np.dtype("d"), 1, False, Machine(), engines, **options)
    return next(estimate.engine for estimate in estimates if estimate.chosen), {e.engine: e for e in estimates}


def test_local_keeps_auto_from_engines_that_spread():
    chosen, _ = auto()
    assert not ENGINES[chosen].local
    chosen, estimates = auto(local=True)
    assert ENGINES[chosen].local
    assert "local=True" in estimates["fft"].reason
    assert estimates["fft"].cost is None


@pytest.mark.parametrize("kind", [Convolution, TransposedConvolution])
def test_local_stays_with_the_family(kind):
    A = kind(LARGE, (70, 70), local=True)
    for B in (A, A.T, A.H, A.with_kernel(LARGE), pickle.loads(pickle.dumps(A))):
        assert all("local=True" in e.reason for e in B.explain().estimates if e.engine == "fft")
    assert not any("local=True" in e.reason for e in kind(LARGE, (70, 70)).explain().estimates)
    with pytest.raises(ValueError, match=r"engine='fft' cannot do this convolution: .*local=True"):
        kind(LARGE, (70, 70), engine="fft", local=True)
    with pytest.raises(TypeError, match="local must be a bool, got 1"):
        kind(LARGE, (70, 70), local=1)


@pytest.mark.parametrize(("name", "engine"), [(name, engine) for name, engine in TAKEN if ENGINES[engine].local])
def test_one_large_input_changes_no_output_that_does_not_read_it(name, engine):
    A, W = operator(name, engine)
    for B, matrix in ((A, W), (A.T, W.T.tocsr())):
        x = values((B.shape[1],), "float64", 3)
        usual = B @ x
        for place in (0, B.shape[1] // 2, B.shape[1] - 1):
            changed = x.copy()
            changed[place] = 1e16
            readers = np.zeros(B.shape[0], bool)
            readers[matrix[:, [place]].nonzero()[0]] = True
            product = B @ changed
            np.testing.assert_array_equal(product[~readers], usual[~readers])
            assert (product[readers] != usual[readers]).all()


EMPTY = {  # kernel, input, options; where some outputs or some inputs have no tap
    "padding": ((3,), (20,), {"padding": 30}),
    "stride": ((3,), (20,), {"stride": 7}),
    "both": ((2, 3), (9, 20), {"stride": (4, 1), "padding": (0, 9)}),
    "dilation": ((2, 2), (5, 6), {"padding": 8, "dilation": 9}),
    "replicated": ((2,), (30,), {"stride": 5, "padding": 4, "padding_mode": "replicate"}),
    "mirrored": ((2,), (30,), {"stride": 5, "padding": 4, "padding_mode": "reflect"}),
    "around": ((2, 3), (9, 20), {"stride": (4, 5), "padding": 3, "padding_mode": "circular"}),
    "channels": ((20, 16, 3), (16, 9), {"padding": 9, "stride": 2}),
}


EMPTY_TAKEN = [
    (name, engine)
    for name, (shape, size, options) in EMPTY.items()
    for engine in ("auto", *ENGINES)
    if takes(engine, ConvolutionGeometry(shape, size, **options), "float64")
]


@pytest.mark.parametrize(("name", "engine"), EMPTY_TAKEN)
def test_results_that_read_nothing_are_zero(name, engine):
    skip_if_absent(engine)
    shape, size, options = EMPTY[name]
    kernel = np.ones(shape) if engine == "separable" else values(shape, "float64")
    A = Convolution(kernel, size, engine=engine, **options)
    W = oracle(kernel, A.geometry)
    counts = np.diff(W.indptr), np.diff(W.tocsc().indptr)
    assert any((count == 0).any() for count in counts)
    for B, count in zip((A, A.T), counts, strict=True):
        result = B @ values((B.shape[1],), "float64", 1)
        assert (result[count == 0] == 0).all()
        assert (result[count > 0] != 0).all()
