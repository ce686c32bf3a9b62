"""What others have published for the norm of a layer, as the benchmark of spectra computes it."""

import numpy as np
import pytest

from benchmarks import published, spectra
from convmat import Convolution


@pytest.fixture
def layer():
    kernel = np.random.default_rng(2).standard_normal((5, 4, 3, 3))
    return kernel, Convolution(kernel, (4, 8, 8), padding=1, padding_mode="circular").toarray()


def test_numbers_for_a_layer(layer):
    kernel, W = layer
    norm = np.linalg.norm(W, 2)
    assert published.per_frequency(kernel, (8, 8)).max() == pytest.approx(norm)
    assert published.gram_iteration(kernel, (8, 8), steps=12) == pytest.approx(norm, rel=1e-3)
    assert norm <= published.gram_iteration(kernel, (8, 8)) < 1.1 * norm
    assert norm <= published.four_unfoldings(kernel) < 3 * norm
    assert norm <= published.tensor_norm(kernel) < 3 * norm


def test_the_tensor_norm_of_an_outer_product():
    vectors = [np.random.default_rng(axis).standard_normal(length) for axis, length in enumerate((5, 4, 3, 3))]
    kernel = np.einsum("a,b,c,d->abcd", *vectors)
    assert published.tensor_norm(kernel) == pytest.approx(3 * np.prod([np.linalg.norm(vector) for vector in vectors]))


def test_a_quick_run_prints_its_tables(monkeypatch, capsys):
    small = (spectra.Layer(3, 2, 3, 8), spectra.Layer(2, 3, 3, 8, 2))
    monkeypatch.setattr(spectra, "VALUES", small[:1])
    monkeypatch.setattr(spectra, "NORMS", small)
    monkeypatch.setattr(spectra, "GRADIENTS", ("not quick", "not quick", *small))
    assert spectra.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("3 × 2 × 3 × 3 at 8²") >= 3
    assert "limits met" in printed
