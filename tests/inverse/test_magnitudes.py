"""Kernels and data of any size: squares neither overflow nor vanish."""

import numpy as np
import pytest

from convmat import Convolution, inverse

RNG = np.random.default_rng(0)
FACTORS = [2.0**-700, 2.0**-40, 2.0**700]


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e150])
def test_kernels_of_any_size(scale):
    """λ is in units of the kernel's square: neither overflows."""
    kernel = np.array([1.0, 2, 3, 0.5])
    weight = 0.1 * scale * scale
    if weight == 0:
        weight = 0.0
    A = Convolution(kernel * scale, 20, padding="same", padding_mode="reflect")
    y = np.cos(np.arange(20.0))
    found = inverse.deconvolve(A, y, regularization=weight)
    unit = inverse.deconvolve(A.with_kernel(kernel), y, regularization=0.1 if weight else 0.0)
    np.testing.assert_allclose(found.x * scale, unit.x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    "options",
    [
        {"regularization": 0.1},
        {"regularization": 0.1, "method": "cg"},
        {"regularization": 0.1, "nonnegative": True},
        {"regularization": "gcv"},
        {"regularization": "discrepancy", "noise_norm": 0.5},
        {"regularization": "discrepancy", "noise_norm": 0.5, "method": "cg"},
        {"regularization": "discrepancy", "noise_norm": 1e3},
    ],
)
def test_deconvolution_of_data_of_any_size(options, factor):
    """A power of two rounds nothing: λ is the same, and all else is multiplied by it."""
    A = Convolution(RNG.standard_normal((3, 2)), (6, 7), padding=((1, 1), (0, 1)), padding_mode="reflect")
    y = RNG.standard_normal((2, *A.output_shape))
    y[1] *= 2.0**-30  # items of a batch are of any size, too
    start = {"x0": RNG.standard_normal(A.input_shape)} if options.get("method") == "cg" else {}
    found = inverse.deconvolve(A, y, **options, **start)
    scaled = {
        name: value * factor for name, value in (*options.items(), *start.items()) if name in ("noise_norm", "x0")
    }
    large = inverse.deconvolve(A, y * factor, **{**options, **scaled})
    np.testing.assert_array_equal(large.regularization, found.regularization)
    for name in ("x", "residual_norm", "penalty_norm"):
        np.testing.assert_array_equal(getattr(large, name), getattr(found, name) * factor)
    assert large.reason == found.reason


def test_a_residual_of_exactly_the_noise():
    """Where no λ leaves less, or more, than the noise, there is still one to give."""
    A = Convolution([1.0, 0.0], 6, padding=((0, 1),), padding_mode="circular")
    y = np.ones(6)
    found = inverse.deconvolve(A, y, regularization="discrepancy", noise_norm=float(np.nextafter(np.sqrt(6.0), 0)))
    assert found.regularization > 0
    assert np.isfinite(found.x).all()


@pytest.mark.parametrize("kernel_factor", [2.0**-250, 1.0, 2.0**250])
@pytest.mark.parametrize("factor", FACTORS[1:])
def test_counts_of_any_size(factor, kernel_factor):
    A = Convolution(RNG.random(3), 7, padding=1)
    y, x = RNG.random(7), RNG.random(7)
    found = inverse.richardson_lucy(A, y, iterations=5, background=0.1, x0=x)
    other = A.with_kernel(A.kernel * kernel_factor)
    options = {"background": 0.1 * factor, "x0": x * factor / kernel_factor}
    large = inverse.richardson_lucy(other, y * factor, iterations=5, **options)
    np.testing.assert_allclose(large.x, found.x * (factor / kernel_factor))
    np.testing.assert_allclose(large.residual_norm, found.residual_norm * factor)


@pytest.mark.parametrize(("of_x", "of_y"), [(x, y) for x in FACTORS for y in FACTORS if 2.0**-500 < y / x < 2.0**500])
def test_kernels_from_data_of_any_size(of_x, of_y):
    A = Convolution(RNG.standard_normal(3), 12)
    x = RNG.standard_normal(12)
    y = A @ x + 0.1 * RNG.standard_normal(10)
    found, scaled = inverse.estimate_kernel(A, x, y), inverse.estimate_kernel(A, x * of_x, y * of_y)
    assert scaled.rank == found.rank
    np.testing.assert_array_equal(scaled.singular_values, found.singular_values * of_x)
    np.testing.assert_array_equal(scaled.residual_norm, found.residual_norm * of_y)
    np.testing.assert_array_equal(scaled.kernel, found.kernel * (of_y / of_x))
