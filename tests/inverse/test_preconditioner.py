"""Preconditioners are symmetric positive definite, and near the inverse."""

import numpy as np
import pytest
from hypothesis import assume, given
from scipy.sparse.linalg import LinearOperator, cg

from convmat import Convolution, inverse
from convmat.geometry import PADDING_MODES
from convmat.inverse._penalties import WORDS, Borders, penalty_terms
from convmat.inverse._preconditioner import mirrored_spread
from convmat.inverse._strips import Strip
from convmat.inverse._system import System
from tests.cases import cases
from tests.inverse.problems import by_dense_algebra, differences, problems

RNG = np.random.default_rng(0)


@given(cases())
@pytest.mark.parametrize("word", WORDS)
def test_penalties_are_differences(word, case):
    A = case.operator(np.ones(case.kernel_shape), False)
    shape = A.input_shape if A.geometry.has_channels else (1, *A.input_shape)
    assume(np.prod(shape) <= 200)
    borders = Borders.of(A.geometry.axes)
    terms = penalty_terms(word, shape, borders)
    expected = differences(shape, word, borders)
    gram = sum((L.T @ L for L in expected), np.zeros((np.prod(shape),) * 2))
    own = sum((L.gram().toarray() for L in terms), np.zeros_like(gram)) if word != "identity" else np.eye(len(gram))
    np.testing.assert_array_equal(own, gram)


@given(problems())
@pytest.mark.parametrize("whole", [False, True])
def test_strips_have_their_part_of_the_matrix(whole, problem):
    A, _, _, word = problem
    system = System.of(A, word)
    strip = Strip.whole(system) if whole else Strip.of(system)
    gram, penalty = system.A.gram().toarray(), np.eye(system.size)
    if word != "identity":
        penalty = sum((term.gram().toarray() for term in system.terms), np.zeros((system.size, system.size)))
    chosen = np.ix_(strip.indices, strip.indices)
    for expected, (rows, columns, values) in zip((gram, penalty), strip.parts(), strict=True):
        part = np.zeros_like(expected[chosen])
        np.add.at(part, (rows, columns), values)
        np.testing.assert_allclose(part, np.tril(expected[chosen]), rtol=0, atol=1e-12 * max(1, abs(gram).max()))
    assert len(np.unique(strip.indices)) == len(strip.indices)
    assert not whole or len(strip.indices) == system.size


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_the_matrix_of_a_kernel_that_pads_nothing(mode, word):
    """Its penalty has free ends, whatever the mode."""
    system = System.of(Convolution(RNG.standard_normal((2, 1)), (5, 4), padding_mode=mode), word)
    strip = Strip.whole(system)
    dense = system.A.gram().toarray()
    dense = dense + (sum(term.gram().toarray() for term in system.terms) if word != "identity" else np.eye(20))
    part = np.zeros_like(dense)
    for rows, columns, values in strip.parts():
        np.add.at(part, (rows, columns), values)
    np.testing.assert_allclose(part, np.tril(dense[np.ix_(strip.indices, strip.indices)]), atol=1e-12)


LONG = {
    f"{mode}-{stride}-{adjoint}": (mode, stride, adjoint)
    for mode in PADDING_MODES
    for stride in (1, 2)
    for adjoint in (False, True)
}


@pytest.mark.parametrize("case", LONG)
@pytest.mark.parametrize("word", ["identity", "laplacian"])
def test_strips_of_long_axes(case, word):
    """Long enough for most rows in the middle to be of one kind."""
    mode, stride, adjoint = LONG[case]
    A = Convolution(
        RNG.standard_normal((2, 1, 3, 2)), (1, 61, 47), stride=stride, padding=((1, 2), (2, 0)), padding_mode=mode
    )
    system = System.of(A.T if adjoint else A, word)
    strip = Strip.of(system)
    assert 0 < len(strip.indices) < 0.6 * system.size
    matrix = system.A.gram().toarray()
    rows, columns, values = strip.parts()[0]
    part = np.zeros((len(strip.indices),) * 2)
    part[rows, columns] = values
    np.testing.assert_allclose(part, np.tril(matrix[np.ix_(strip.indices, strip.indices)]), atol=1e-12)


@given(problems())
def test_symmetric_and_positive_definite(problem):
    A, _, weight, word = problem
    try:
        P = inverse.preconditioner(A, regularization=weight, penalty=word)
    except ValueError as error:
        if "has no inverse" not in str(error):
            raise
        assume(False)
    dense = P @ np.eye(P.shape[0])
    scale = abs(dense).max()
    # The strip is solved up to the condition of its own matrix.
    assert abs(dense - dense.conj().T).max() <= 1e-6 * scale
    assert np.linalg.eigvalsh((dense + dense.conj().T) / 2).min() > -1e-6 * scale


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("word", WORDS)
def test_conjugate_gradients_take_fewer_iterations(mode, word):
    i, j = np.mgrid[-3:4, -3:4]
    kernel = np.exp(-((0.8 * i + 0.5 * j) ** 2) / 4 - (j - 0.4 * i) ** 2 / 6) * (1 + 0.6 * np.tanh(i / 3))
    A = Convolution(kernel / kernel.sum(), (64, 72), padding="same", padding_mode=mode)
    y, counts = RNG.standard_normal(A.output_shape), {}
    for name in ("none", "transform", "schwarz"):
        if name == "schwarz" and mode == "circular":
            continue
        found = inverse.deconvolve(A, y, regularization=1e-3, penalty=word, method="cg", preconditioner=name)
        assert found.converged
        counts[name] = found.iterations
    assert counts.get("schwarz", 1) <= max(1, counts["none"] / 5), counts
    if mode in ("zeros", "symmetric"):
        assert counts["transform"] <= counts["none"] / 2, counts
    if mode == "circular":
        assert counts["transform"] == 1


def test_what_a_mirror_takes_for_one():
    """The largest ratio of two frequencies' values of AᴴA + λ that differ in signs alone."""
    kernel, weight = RNG.standard_normal((4, 3)), 0.3
    A = Convolution(kernel, (100, 90), padding=((2, 1), (1, 1)), padding_mode="symmetric")
    system = System.of(A, "identity")
    angles = np.exp(-1j * np.outer(np.linspace(0, np.pi, 150), np.arange(4)))
    along = np.exp(-1j * np.outer(np.linspace(0, np.pi, 150), np.arange(3)))
    scaled = kernel / system.scale
    both = [abs(rows @ scaled @ along.T) ** 2 + weight for rows in (angles, angles.conj())]
    expected = max((both[0] / both[1]).max(), (both[1] / both[0]).max())
    assert expected > 1.5
    assert 0.8 * expected <= mirrored_spread(system, weight) <= 1.001 * expected  # fewer frequencies
    even = System.of(A.with_kernel(np.outer([1.0, 2, 2, 1], [3.0, 1, 3])), "gradient")
    assert mirrored_spread(even, weight) == pytest.approx(1)


def test_for_any_solver():
    A = Convolution(RNG.standard_normal((3, 2, 3, 3)), (2, 20, 21), stride=2, padding=1, padding_mode="reflect")
    y, weight = RNG.standard_normal(A.output_shape), 0.5
    P = inverse.preconditioner(A, regularization=weight)
    M = LinearOperator((840, 840), lambda x: A.H @ (A @ x) + weight * x, dtype=float)
    steps = []
    x, status = cg(M, A.H @ y.ravel(), M=P, rtol=1e-10, callback=steps.append)
    assert status == 0
    np.testing.assert_allclose(x.reshape(A.input_shape), by_dense_algebra(A, y, weight, "identity")[0], atol=1e-7)
    given = inverse.deconvolve(A, y, regularization=weight, preconditioner=P)
    assert given.method == "cg with the preconditioner given"
    assert given.iterations < 40


def test_errors():
    A = Convolution([1.0, -1.0], 9, padding=((0, 1),), padding_mode="circular")
    with pytest.raises(ValueError, match=r"regularization must be larger, .* got 0"):
        inverse.preconditioner(A)  # nothing is seen of a constant
    with pytest.raises(TypeError, match="penalty must be one of identity, gradient, laplacian for a preconditioner"):
        inverse.preconditioner(A, regularization=1.0, penalty=np.eye(9))
    with pytest.raises(ValueError, match="regularization must be at least 0"):
        inverse.preconditioner(A, regularization=-1)
