"""Deconvolution equals dense algebra in all ways, and says how good it is."""

import numpy as np
import pytest
from hypothesis import assume, given
from scipy.sparse.linalg import LinearOperator

from convmat import Convolution, TransposedConvolution, inverse
from convmat.geometry import PADDING_MODES
from convmat.inverse._penalties import Borders
from tests.inverse.problems import CONDITION, by_dense_algebra, differences, problems

RNG = np.random.default_rng(0)


def usable(A, weight, word):
    return [plan for plan in inverse.explain(A, regularization=weight, penalty=word).plans if not plan.why_not]


def tolerance(A, y, plan, condition):
    if any(np.dtype(dtype) in (np.float32, np.complex64) for dtype in (np.result_type(A.dtype, y.dtype),)):
        return 1e-5
    return 1e-6 if plan.method == "cg" else 1e-13 * (1e3 + condition)


@given(problems())
def test_all_ways_equal_dense_algebra(problem):
    A, y, weight, word = problem
    expected, condition = by_dense_algebra(A, y, weight, word)
    assume(condition < CONDITION)
    for plan in usable(A, weight, word):
        options = {"preconditioner": plan.preconditioner} if plan.method == "cg" else {}
        try:
            found = inverse.deconvolve(
                A, y, regularization=weight, penalty=word, method=plan.method, rtol=1e-13, **options
            )
        except ValueError as error:
            if plan.preconditioner == "none" or "AᴴA + λLᴴL has no inverse" not in str(error):
                raise
            continue  # circles have frequencies that neither A nor L sees
        size = np.linalg.norm(expected) + 1e-3 * np.linalg.norm(y) / np.sqrt(weight)
        assert np.linalg.norm(found.x - expected) <= tolerance(A, y, plan, condition) * size, plan


EXACT = {
    "fourier": Convolution(RNG.standard_normal((3, 4)), (8, 9), padding=((0, 2), (1, 2)), padding_mode="circular"),
    "fourier, channels and stride": Convolution(
        RNG.standard_normal((2, 3, 3, 2)), (3, 8, 6), stride=2, padding=((0, 1), (0, 0)), padding_mode="circular"
    ),
    "fourier, transposed": TransposedConvolution(
        RNG.standard_normal((2, 3, 3)) + 1j, (2, 4), stride=2, padding=((0, 1),), padding_mode="circular",
        output_shape=(3, 8),
    ),
    "cosine": Convolution([[1.0, 3, 1], [2, 9, 2], [1, 3, 1]], (7, 8), padding=1, padding_mode="symmetric"),
    "separable": Convolution(np.outer([1.0, 2, 4], [3.0, 1]), (9, 8), stride=(2, 1), padding=1, padding_mode="reflect"),
    "separable, channels": Convolution(
        RNG.standard_normal((3, 2, 4, 1)) * RNG.standard_normal(3), (2, 8, 7), padding=1, padding_mode="replicate"
    ),
    "direct": Convolution(RNG.standard_normal((3, 3)), (8, 9), stride=2, padding=1, padding_mode="replicate"),
}  # fmt: skip


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("word", ["identity", "gradient", "laplacian"])
def test_exact_ways(case, word):
    A, method = EXACT[case], case.split(",")[0]
    y = RNG.standard_normal(A.output_shape)
    if method == "separable" and word != "identity":
        with pytest.raises(ValueError, match="method='separable' cannot be used here"):
            inverse.deconvolve(A, y, regularization=0.1, penalty=word, method=method)
        return
    expected, condition = by_dense_algebra(A, y, 0.1, word)
    found = inverse.deconvolve(A, y, regularization=0.1, penalty=word, method=method)
    assert found.method == method
    np.testing.assert_allclose(found.x, expected, rtol=0, atol=1e-10 * max(1, abs(expected).max(), 1e-4 * condition))
    assert found.residual_norm == pytest.approx(np.linalg.norm(A.apply(found.x) - y))


@pytest.mark.parametrize("case", EXACT)
def test_without_regularization_the_solution_is_the_shortest(case):
    A = EXACT[case]
    y = RNG.standard_normal(A.output_shape)
    W = A.toarray()
    found = inverse.deconvolve(A, y, rtol=1e-13)
    np.testing.assert_allclose(found.x.ravel(), np.linalg.lstsq(W, y.ravel(), rcond=1e-12)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", EXACT)
def test_the_residual_is_that_of_the_noise(case):
    A = EXACT[case]
    y = A.apply(RNG.standard_normal(A.input_shape))
    noise = RNG.standard_normal(y.shape) * 0.05 * np.linalg.norm(y) / np.sqrt(y.size)
    for method in ("auto", "cg"):
        norm = np.linalg.norm(noise)
        found = inverse.deconvolve(A, y + noise, regularization="discrepancy", noise_norm=norm, method=method)
        assert found.residual_norm == pytest.approx(norm, rel=0.02)


@pytest.mark.parametrize("word", ["identity", "gradient"])
@pytest.mark.parametrize("mode", ["circular", "symmetric", "reflect", "zeros"])
def test_cross_validation_finds_its_least_value(mode, word):
    """The function as it is defined, with dense matrices; where the trace is estimated, its value is nearly the least."""
    rng = np.random.default_rng(1)
    A = Convolution(np.outer([1.0, 2, 3, 2, 1], [1.0, 2, 4, 2, 1]) / 90, (15, 16), padding="same", padding_mode=mode)
    truth = np.cumsum(np.cumsum(rng.standard_normal(A.input_shape), 0), 1)
    y = A.apply(truth)
    y = y + rng.standard_normal(y.shape) * 0.02 * np.linalg.norm(y) / np.sqrt(y.size)
    W, L = A.toarray(), np.concatenate(differences((1, *A.input_shape), word, Borders.of(A.geometry.axes)))

    def function(weight):
        influence = W @ np.linalg.solve(W.T @ W + weight * L.T @ L, W.T)
        plain = np.linalg.norm(y.ravel() - influence @ y.ravel()) / (y.size - np.trace(influence))
        return plain * np.sqrt(0.3 + 0.7 * np.trace(influence @ influence) / y.size)

    least = min(function(weight) for weight in 10.0 ** np.arange(-6, 1, 0.2))
    exact = inverse.deconvolve(A, y, regularization="gcv", penalty=word)
    assert (
        function(exact.regularization)
        <= (1.002 if exact.method in ("fourier", "cosine", "separable") else 1.05) * least
    )
    assert "end" not in exact.reason
    estimated = inverse.deconvolve(A, y, regularization="gcv", penalty=word, method="cg")
    assert function(estimated.regularization) <= 1.05 * least


def test_cross_validation_says_where_it_stops():
    """Without noise, less regularisation is always better."""
    A = Convolution([1.0, 3.0, 1.0], 40, padding="full")
    found = inverse.deconvolve(A, A.apply(np.cos(np.arange(40.0))), regularization="gcv")
    assert "the cross-validation function has its least value at an end" in found.reason


def test_batches_are_solved_each_for_itself():
    A = Convolution(np.array([[1.0, 2, 1], [0, 1, 3]]), (9, 8), padding="same", padding_mode="reflect")
    y = RNG.standard_normal((2, 3, *A.output_shape))
    for options in ({"regularization": 0.1}, {"regularization": "gcv"}, {"regularization": 0.1, "nonnegative": True}):
        options["rtol"] = 1e-10  # "auto" may take another way the next time
        together = inverse.deconvolve(A, y, **options)
        assert together.x.shape == (2, 3, *A.input_shape)
        assert np.shape(together.residual_norm) == np.shape(together.regularization) == (2, 3)
        alone = inverse.deconvolve(A, y[1, 2], **options)
        np.testing.assert_allclose(together.x[1, 2], alone.x, atol=1e-6)
        assert together.residual_norm[1, 2] == pytest.approx(alone.residual_norm, rel=1e-5)
    assert inverse.deconvolve(A, y[:0], regularization=0.1).x.shape == (0, 3, *A.input_shape)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_a_solution_that_must_not_be_negative(mode):
    A = Convolution([1.0, 2.0, 0.5], 12, padding="same", padding_mode=mode)
    y = RNG.standard_normal(12)
    found = inverse.deconvolve(A, y, regularization=0.1, nonnegative=True, rtol=1e-9)
    W = A.toarray()
    gradient = W.T @ (W @ found.x - y) + 0.1 * found.x
    assert found.x.min() >= 0
    assert found.converged
    assert gradient.min() > -1e-7
    assert abs(gradient * found.x).max() < 1e-7


def test_any_operator_is_a_penalty():
    A = Convolution([1.0, 2.0, 1.0], 10, padding="same", padding_mode="replicate")
    y, L = RNG.standard_normal(10), RNG.standard_normal((4, 10))
    found = inverse.deconvolve(A, y, regularization=0.5, penalty=L, rtol=1e-12)
    W = A.toarray()
    np.testing.assert_allclose(found.x, np.linalg.solve(W.T @ W + 0.5 * L.T @ L, W.T @ y), atol=1e-7)
    assert found.penalty_norm == pytest.approx(np.linalg.norm(L @ found.x))
    chosen = inverse.deconvolve(A, y, regularization="discrepancy", noise_norm=1.0, penalty=L)
    assert chosen.residual_norm == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (3000, {"padding": ((14, 17),)}),
        (2001, {"padding": ((14, 17),), "stride": 3}),
        (2500, {"padding": ((300, 0),), "dilation": 40}),
        (300, {"padding": ((299, 299),), "dilation": 20, "stride": 2}),  # the kernel is longer than the input
    ],
)
def test_long_signals(mode, size, options):
    """Solutions of all ways have the normal equations' residual that was asked for, by products with the sparse W."""
    conv = Convolution(np.hanning(34)[1:-1] * np.linspace(1, 2, 32), size, padding_mode=mode, **options)
    A = conv if size % 2 == 0 else conv.T
    W, y, weight = A.tocsr(), RNG.standard_normal(A.output_shape), 0.05 * np.abs(conv.kernel).sum() ** 2
    right = W.T @ y
    for plan in usable(A, weight, "identity"):
        given = {"preconditioner": plan.preconditioner} if plan.method == "cg" else {}
        found = inverse.deconvolve(A, y, regularization=weight, method=plan.method, rtol=1e-9, **given)
        left = W.T @ (W @ found.x) + weight * found.x - right
        assert np.linalg.norm(left) <= 1e-8 * np.linalg.norm(right), plan
        assert found.iterations < 60


def test_plans_list_no_matrix(monkeypatch):
    """Kernels of thousands of taps: what would take long is told before anything is listed."""
    for operator in (Convolution, TransposedConvolution):
        monkeypatch.setattr(operator, "gram", None)
    A = Convolution(np.arange(1.0, 3002.0), 100_000, padding="same", padding_mode="reflect")
    plans = {(plan.method, plan.preconditioner): plan for plan in inverse.explain(A, regularization=1.0).plans}
    assert "the borders take" in plans["cg", "schwarz"].why_not
    assert "a factorisation takes" in plans["direct", "none"].why_not
    far = inverse.explain(Convolution([1.0, 2.0], 10, padding=((0, 10**9),), dilation=10**9), regularization=1.0)
    assert not far.plans[0].why_not


def test_dtypes_stay():
    A = Convolution(np.float32([1, 2, 1]), 8, padding=1)
    assert inverse.deconvolve(A, np.ones(8, np.float32), regularization=1.0).x.dtype == np.float32
    assert inverse.deconvolve(A, np.ones(8, int), regularization=1.0).x.dtype == np.float64
    assert inverse.deconvolve(A, np.ones(8, np.complex64), regularization=1.0).x.dtype == np.complex64
    assert inverse.deconvolve(Convolution([1, 2], 8), np.ones(7, int), regularization=1.0).x.dtype == np.float64


# What is said


def test_what_cannot_be_told_is_said():
    A = Convolution([1.0, 2.0, 1.0], 20, padding=1, padding_mode="circular")
    y = RNG.standard_normal(20)
    for other in (A, Convolution(RNG.standard_normal(3), 20)):
        data = y[: other.shape[0]]
        noisy = inverse.deconvolve(other, data, regularization="discrepancy", noise_norm=100.0)
        assert not noisy.x.any()
        assert noisy.regularization == np.inf
        assert "times the norm of y, and not less" in noisy.reason
    tall = Convolution(RNG.standard_normal(5), 20, padding="full")
    found = inverse.deconvolve(tall, RNG.standard_normal(24), regularization="discrepancy", noise_norm=1e-9)
    assert "times the residual for the least λ that was tried" in found.reason
    for word in (0.1, "gcv", "discrepancy"):
        options = {"noise_norm": 0.1} if word == "discrepancy" else {}
        nothing = inverse.deconvolve(A.with_kernel(np.zeros(3)), y, regularization=word, **options)
        assert not nothing.x.any()
        assert "zero" in nothing.reason
    rng = np.random.default_rng(0)
    hard = Convolution(rng.standard_normal((5, 5)), (30, 30), padding=2, padding_mode="replicate")
    stopped = inverse.deconvolve(hard, rng.standard_normal((30, 30)), method="cg", preconditioner="none", maxiter=3)
    assert not stopped.converged
    assert "3 iterations were made, as many as maxiter allows" in stopped.reason
    assert stopped.reason in repr(stopped)


def test_callbacks_and_starts():
    A = Convolution(RNG.standard_normal((3, 3)), (12, 12), padding=1, padding_mode="reflect")
    y, seen = RNG.standard_normal((12, 12)), []
    options = {"regularization": 0.1, "method": "cg", "preconditioner": "none"}
    found = inverse.deconvolve(A, y, callback=lambda *values: seen.append(values), **options)
    assert [number for number, _ in seen] == list(range(1, found.iterations + 1))
    assert seen[-1][1] < 1e-6 < seen[0][1]
    again = inverse.deconvolve(A, y, x0=found.x, **options)
    assert again.iterations <= 1
    for name in ("transform", "schwarz"):
        again = inverse.deconvolve(A, y, regularization=0.1, method="cg", preconditioner=name, x0=found.x)
        np.testing.assert_allclose(again.x, found.x, atol=1e-4)


def test_all_that_iterates_is_told(capsys):
    pytest.importorskip("tqdm")
    A = Convolution(RNG.standard_normal((3, 3)), (9, 9), padding=1, padding_mode="reflect")
    y, seen = RNG.standard_normal((9, 9)), []
    found = inverse.deconvolve(
        A, y, regularization=0.1, nonnegative=True, progress=True, callback=lambda *values: seen.append(values)
    )
    assert [number for number, _ in seen] == list(range(1, found.iterations + 1))
    assert seen[-1][1] < 1e-3
    assert "residual" in capsys.readouterr().err
    seen.clear()
    chosen = inverse.deconvolve(
        A, y, regularization="gcv", method="cg", preconditioner="none", callback=lambda *values: seen.append(values)
    )
    assert len(seen) == chosen.iterations  # and nothing of the choice


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"regularization": -1.0}, ValueError, "regularization must be at least 0 and finite, got -1.0"),
        ({"regularization": np.nan}, ValueError, "regularization must be at least 0"),
        ({"regularization": True}, TypeError, "regularization must be a number"),
        ({"regularization": "best"}, ValueError, "regularization must be one of discrepancy, gcv, got 'best'"),
        ({"regularization": "discrepancy"}, ValueError, "needs noise_norm"),
        ({"noise_norm": 1.0}, ValueError, "noise_norm is for"),
        ({"regularization": "gcv", "noise_norm": 1.0}, ValueError, "noise_norm is for"),
        ({"regularization": "discrepancy", "noise_norm": -1.0}, ValueError, "noise_norm must be at least 0"),
        ({"penalty": "tv"}, ValueError, "penalty must be one of identity, gradient, laplacian, got 'tv'"),
        ({"penalty": 3}, TypeError, "penalty must be one of .* or a LinearOperator, got int"),
        ({"penalty": np.ones((3, 4))}, ValueError, "penalty must have 36 columns, as A has, got 4"),
        ({"method": "fourier"}, ValueError, "method='fourier' cannot be used here: not all axes are circles"),
        ({"method": "direct"}, ValueError, "method='direct' cannot be used here: without regularization"),
        ({"method": "lu"}, ValueError, "method must be one of auto, fourier"),
        ({"preconditioner": "ilu"}, ValueError, "preconditioner must be one of"),
        (
            {"preconditioner": "schwarz", "method": "direct"},
            ValueError,
            "preconditioner='schwarz' is for method=\"cg\"",
        ),
        ({"preconditioner": "transform"}, ValueError, "preconditioner='transform' cannot be used here"),
        ({"preconditioner": LinearOperator((3, 3), lambda x: x)}, ValueError, r"must have shape \(36, 36\)"),
        ({"nonnegative": 1}, TypeError, "nonnegative must be"),
        ({"maxiter": 0}, ValueError, "maxiter"),
        ({"rtol": -1}, ValueError, "rtol must be at least 0"),
        ({"x0": np.ones(3)}, ValueError, r"x0 must have shape \(6, 6\), got \(3,\)"),
    ],
)
def test_errors_name_what_is_wrong(options, kind, words):
    A = Convolution(RNG.standard_normal((3, 3)), (6, 6), padding=1, padding_mode="reflect")
    with pytest.raises(kind, match=words):
        inverse.deconvolve(A, np.ones((6, 6)), **options)


def test_data_that_are_wrong():
    A = Convolution(np.ones((3, 3)), (6, 6))
    with pytest.raises(ValueError, match=r"y must have shape \(\.\.\., 4, 4\), got \(6, 6\)"):
        inverse.deconvolve(A, np.ones((6, 6)))
    with pytest.raises(ValueError, match="y must have finite values, got NaN or infinite ones"):
        inverse.deconvolve(A, np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="A must have a kernel of finite values"):
        inverse.deconvolve(A.with_kernel(np.full((3, 3), np.inf)), np.ones((4, 4)))
    with pytest.raises(TypeError, match="A must be a Convolution"):
        inverse.deconvolve(np.eye(3), np.ones(3))
    with pytest.raises(ValueError, match="nonnegative=True needs a real kernel and real y"):
        inverse.deconvolve(A, np.ones((4, 4)) * 1j, nonnegative=True)
