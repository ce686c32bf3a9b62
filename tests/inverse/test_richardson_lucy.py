"""Richardson–Lucy: the definition, likelihood, borders."""

import numpy as np
import pytest

from convmat import Convolution, TransposedConvolution, inverse
from convmat.geometry import PADDING_MODES

RNG = np.random.default_rng(0)


def operators():
    kernel = RNG.random((3, 4))
    for mode in PADDING_MODES:
        yield Convolution(kernel, (9, 8), padding=1, padding_mode=mode)
        yield Convolution(RNG.random((2, 3, 3, 3)), (3, 8, 8), stride=2, padding=1, padding_mode=mode)
    yield Convolution(kernel, (9, 8))
    yield TransposedConvolution(kernel, (5, 4), stride=2)


@pytest.mark.parametrize("A", list(operators()), ids=str)
@pytest.mark.parametrize("background", [0.0, 2.0])
def test_iterations_are_those_of_the_definition_and_likelihood_rises(A, background):
    W, y = A.toarray(), RNG.poisson(A.apply(RNG.random(A.input_shape) * 50)).astype(float)
    x, likelihood = np.full(A.shape[1], y.sum() / W.sum()), []
    for number in range(1, 6):
        expected = W @ x + background
        likelihood.append((y.ravel() * np.log(expected) - expected).sum())
        x = x * (W.T @ (y.ravel() / expected)) / W.T.sum(axis=1)
        found = inverse.richardson_lucy(A, y, iterations=number, background=background)
        np.testing.assert_allclose(found.x.ravel(), x, rtol=1e-10)
    assert np.all(np.diff(likelihood) >= -1e-9 * abs(likelihood[0]))
    assert found.iterations == 5
    assert found.residual_norm == pytest.approx(np.linalg.norm(W @ x + background - y.ravel()))


@pytest.mark.parametrize("options", [{"padding": 2}, {"padding": "full"}, {}])
def test_borders_stay_as_bright_as_the_inside(options):
    """A constant image stays constant. Dividing by the kernel's sum in place of Aᵀ1 makes the borders dark or bright."""
    A = Convolution(np.ones((5, 5)) / 25, (20, 20), **options)
    found = inverse.richardson_lucy(A, A.apply(np.full((20, 20), 7.0)), iterations=50)
    np.testing.assert_allclose(found.x, 7.0, rtol=0.05 if options.get("padding") == 2 else 1e-6)


def test_batches_starts_and_what_is_not_reached():
    A = Convolution([1.0, 2.0], 7, stride=3)  # inputs 2 and 5 reach nothing
    y = RNG.random((3, 2)) + 1
    found = inverse.richardson_lucy(A, y, iterations=4)
    for own, data in zip(found.x, y, strict=True):
        np.testing.assert_allclose(own, inverse.richardson_lucy(A, data, iterations=4).x)
    start = np.arange(7.0) + 1
    from_start = inverse.richardson_lucy(A, y[0], iterations=4, x0=start)
    np.testing.assert_array_equal(from_start.x[[2, 5]], start[[2, 5]])
    seen = []
    inverse.richardson_lucy(A, y, iterations=3, callback=lambda *values: seen.append(values))
    assert [number for number, _ in seen] == [1, 2, 3]
    assert not inverse.richardson_lucy(A, np.zeros(2), iterations=2).x.any()


@pytest.mark.parametrize(
    ("kernel", "y", "options", "words"),
    [
        ([1.0, -1.0], np.ones(6), {}, "the kernel must be negative nowhere, got -1"),
        ([1.0, 1.0], -np.ones(6), {}, "y must be negative nowhere, got -1"),
        ([1.0, 1.0j], np.ones(6), {}, "must be real"),
        ([1.0, 1.0], np.ones(5), {}, "y must have shape"),
        ([1.0, 1.0], np.full(6, np.nan), {}, "finite"),
        ([1.0, 1.0], np.ones(6), {"iterations": 0}, "iterations"),
        ([1.0, 1.0], np.ones(6), {"background": -1}, "background must be at least 0"),
        ([1.0, 1.0], np.ones(6), {"x0": -np.ones(7)}, "x0 must be real and negative nowhere"),
    ],
)
def test_errors_name_what_is_wrong(kernel, y, options, words):
    with pytest.raises(ValueError, match=words):
        inverse.richardson_lucy(Convolution(kernel, 7), y, **{"iterations": 3, **options})
