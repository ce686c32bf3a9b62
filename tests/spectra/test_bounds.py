"""Bounds of the norm: they contain it, whatever the geometry, the dtype and the traps; and they are as narrow as they
should be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat import Convolution, TransposedConvolution, spectra
from convmat.geometry import PADDING_MODES
from convmat.spectra import _bounds, _certificates, _rounding, _ways
from convmat.spectra._parts import part_of
from tests.spectra.matrices import dense, operators, scale, wide_operators

RNG = np.random.default_rng(12)
EXACT = 1e-14  # of the norm of |W|: what LAPACK's norm may be wrong by


def check(A, bounds, rtol=None):
    norm, slack = np.linalg.norm(dense(A), 2) if min(A.shape) else 0.0, EXACT * scale(A)
    assert bounds.lower <= norm + slack
    assert norm <= bounds.upper + slack
    if rtol is not None and norm > 1e-6 * scale(A):
        assert bounds.upper <= bounds.lower * (1 + rtol)


@given(st.one_of(operators(), wide_operators()), st.sampled_from([1e-2, 1e-6]))
def test_bounds_contain_the_norm_and_are_as_narrow_as_asked_for(A, rtol):
    check(A, spectra.norm_bounds(A, rtol=rtol), rtol)


@given(st.one_of(operators(), wide_operators()), st.sampled_from(["torus", "schur", "cholesky"]))
def test_each_method_is_a_bound_of_its_own(A, method):
    bounds = spectra.norm_bounds(A, method=method)
    assert bounds.method in (method, "zero")
    check(A, bounds)


@given(operators(), st.floats(-3, 3))
def test_no_certificate_is_given_below_the_norm(A, distance):
    """A bound that is too small by more than LAPACK's error is never proven, however near it is."""
    norm = np.linalg.norm(dense(A), 2)
    for group in part_of(A).groups():
        if group.kernel.any():
            own = np.linalg.norm(group.operator().toarray(), 2)
            slack = EXACT * _certificates.sums_of(group).norm
            bound = own * (1 + 1e-13 * distance)
            assert not (_certificates.gram_proves(group, bound) and bound < own - slack)
            assert _certificates.torus_bound(group, 0.0) >= own - slack
    assert spectra.norm_bounds(A).upper >= norm - EXACT * scale(A)


@pytest.mark.parametrize("method", ["auto", "cholesky", "torus", "schur"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_taps_that_cancel(method, dtype):
    """W is zero, or nearly, though its kernel is not: on one position of a circle, all taps are one."""
    for last in (-3.0, -3.0 + 2.0**-20, -3.0 + 2.0**-50):
        for stride in (1, 2):
            kernel = np.array([1.0, 2.0, last], dtype)
            A = Convolution(kernel, 1, stride=stride, padding=((1, 1),), padding_mode="circular")
            lower, upper, _ = spectra.norm_bounds(A, method=method)
            assert lower <= abs(kernel.astype(complex).sum()) <= upper <= 8
            check(A, spectra.norm_bounds(A, method=method))


@given(operators(), st.integers(0, 100))
def test_every_vector_gives_a_lower_bound(A, seed):
    rng = np.random.default_rng(seed)
    for group in part_of(A).groups():
        vector = rng.standard_normal(group.shape[1]).astype(group.kernel.dtype)
        value, W = _bounds.rayleigh(group, vector), group.operator().toarray()
        ratio = np.linalg.norm(W @ vector) / np.linalg.norm(vector)
        assert value <= ratio + EXACT * scale(group.operator())
        assert value >= ratio - 1e-11 * scale(group.operator())


@pytest.mark.parametrize("padding", [((1, 0),), ((0, 1),), "full"])
def test_a_transform_at_the_size_of_the_input_is_no_bound(padding):
    """The kernel [1, −1] on 3 inputs with zeros: the circle of 3 gives √3, less than the norm."""
    A = Convolution([1.0, -1.0], 3, padding=padding)
    norm = np.linalg.norm(A.toarray(), 2)
    assert abs(np.fft.fft([1, -1], 3)).max() < norm - 0.05
    part = part_of(A)
    assert norm <= _certificates.torus_bound(part, 0.0) * part.scale
    lower, upper, method = spectra.norm_bounds(A, method="torus")
    assert lower <= norm <= upper
    assert method == "torus"


@pytest.mark.parametrize(("mode", "square"), [("reflect", 2), ("replicate", 3), ("symmetric", 2), ("circular", 2)])
def test_a_shift_that_copies_makes_some_inputs_longer(mode, square):
    """One tap, moved by two positions: it reads some inputs more than once."""
    kernel = np.zeros(5)
    kernel[0] = 1
    padding = ((2, 2),) if mode != "circular" else ((4, 2),)
    A = Convolution(kernel, 6, padding=padding, padding_mode=mode)
    bounds = spectra.norm_bounds(A, rtol=1e-9)
    check(A, bounds, 1e-9)
    assert bounds.upper == pytest.approx(np.sqrt(square))


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64"])
def test_layers(mode, dtype):
    kernel = RNG.standard_normal((6, 4, 3, 3)).astype(dtype)
    for A in (
        Convolution(kernel, (4, 12, 11), padding=1, padding_mode=mode),
        Convolution(kernel, (4, 12, 12), padding=1, padding_mode=mode, stride=2),
        TransposedConvolution(kernel, (6, 6, 6), padding=1, padding_mode=mode, stride=2),
    ):
        check(A, spectra.norm_bounds(A, rtol=1e-6), 1e-6)


@given(operators())
def test_sums_of_absolute_values_and_numbers_of_products(A):
    for group in part_of(A).groups():
        sums, W = _certificates.sums_of(group), group.operator()
        magnitudes = W.with_kernel(abs(W.kernel)).toarray()
        assert sums.rows >= magnitudes.sum(axis=1).max()
        assert sums.columns >= magnitudes.sum(axis=0).max()
        ones = W.with_kernel(np.ones(W.kernel.shape)).toarray()
        assert sums.terms >= max((ones.T @ ones).max(), (ones @ ones.T).max())


@pytest.mark.parametrize("shape", [(9, 3, 3), (9, 3, 5), (9, 5, 3), (2, 8, 8)])
@pytest.mark.parametrize("dtype", ["d", "D"])
def test_blocks_are_proven_from_the_largest_norm_on(shape, dtype):
    matrices = RNG.standard_normal(shape).astype(dtype)
    if dtype == "D":
        matrices += 1j * RNG.standard_normal(shape)
    matrices[shape[0] // 2] *= 1.5
    largest = np.linalg.norm(matrices, 2, axis=(1, 2)).max()
    for distance in (1e-12, 1e-9, 1e-3):
        assert _certificates._proves(matrices, largest * (1 + distance))
        assert not _certificates._proves(matrices, largest * (1 - distance))
    assert largest <= _certificates._raised(matrices, 0.0) <= largest * (1 + 1e-8)
    assert _certificates._raised(matrices, 2 * largest) == 2 * largest


def test_float32_kernels_are_taken_as_they_are():
    """The bound is that of the float32 values, not of what they were rounded from."""
    kernel = np.full(7, 0.1, "float32")
    A = Convolution(kernel, 50, padding="same", padding_mode="circular")
    lower, upper, _ = spectra.norm_bounds(A, rtol=1e-12)
    assert lower <= 7 * float(kernel[0]) <= upper
    assert upper < lower * (1 + 1e-11)
    assert not lower <= 0.7 <= upper


def test_large_integers_are_rounded_and_that_is_counted():
    value = 2**60 + 1
    A = Convolution(np.array([value]), 4)
    lower, upper, _ = spectra.norm_bounds(A)
    assert lower < value < upper


def test_groups_have_the_largest_norm_and_not_the_product():
    A = Convolution(np.array([[[3.0]], [[2.0]]]), (2, 5), groups=2)
    lower, upper, _ = spectra.norm_bounds(A, rtol=1e-9)
    assert lower <= 3 <= upper < 3 + 1e-6


def test_zero_and_a_single_row():
    assert spectra.norm_bounds(Convolution(np.zeros((2, 2)), (4, 4))) == (0, 0, "zero")
    A = Convolution(RNG.standard_normal((4, 4)), (4, 4))
    check(A, spectra.norm_bounds(A, rtol=1e-9), 1e-9)


def test_a_certificate_that_does_not_fit_into_memory():
    A = Convolution(np.ones((64, 64, 3, 3)) + RNG.standard_normal((64, 64, 3, 3)), (64, 400, 400), padding=1)
    part = part_of(A)
    with pytest.raises(MemoryError, match=r"a factorisation of 10240000 rows and \d+ diagonals takes"):
        _certificates.gram_proves(part, 1.0)


def test_the_lower_bound_needs_no_convergence(monkeypatch):
    monkeypatch.setattr(_ways, "DENSE", 5)
    monkeypatch.setattr(_bounds._lanczos, "largest", lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
    A = Convolution(RNG.standard_normal((3, 3)), (20, 20), padding=1)
    check(A, spectra.norm_bounds(A))


def test_without_room_for_a_certificate_the_bound_is_wider(monkeypatch):
    A = Convolution(RNG.standard_normal((3, 3)), (12, 12), padding=1, padding_mode="reflect")
    narrow = spectra.norm_bounds(A)
    monkeypatch.setattr(_certificates, "_WORK", 0)
    wide = spectra.norm_bounds(A)
    assert narrow.method == "cholesky"
    assert wide.method in ("torus", "schur")
    check(A, wide)
    assert wide.upper > narrow.upper


def test_blocks_of_many_frequencies_are_all_looked_at():
    """The norm on the torus is at one frequency alone."""
    n, frequency = 40, 13
    kernel = np.cos(2 * np.pi * frequency * np.arange(n) / n)
    A = Convolution(kernel, n, padding=((n // 2, n // 2 - 1),), padding_mode="circular")
    lower, upper, _ = spectra.norm_bounds(A, rtol=1e-9)
    assert lower <= n / 2 * (1 + 1e-14)
    assert n / 2 <= upper * (1 + 1e-14)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=300))
def test_norms_are_rounded_outwards(values):
    from fractions import Fraction

    array = np.array([*values, 1.0])
    low, high = _rounding.norm_between(array)
    square = sum(Fraction(value) ** 2 for value in array.tolist())
    assert Fraction(low) ** 2 <= square <= Fraction(high) ** 2


def test_gamma_is_a_bound_and_ends_where_it_says_nothing():
    assert _rounding.gamma(10, np.dtype("d")) > 10 * 2.0**-53
    assert _rounding.gamma(10, np.dtype("D")) > _rounding.gamma(10, np.dtype("d"))
    assert _rounding.gamma(2**60, np.dtype("d")) == float("inf")
