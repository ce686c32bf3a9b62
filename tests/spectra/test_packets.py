"""Waves that a layer makes longer by nearly its norm."""

import numpy as np
import pytest
from scipy.sparse.linalg import svds

from convmat import Convolution, TransposedConvolution, spectra
from convmat.spectra._packets import wave_packet
from convmat.spectra._parts import part_of

RNG = np.random.default_rng(17)


@pytest.mark.parametrize(
    "A",
    [
        Convolution(RNG.standard_normal((5, 5)), (40, 44), padding=2),
        Convolution(RNG.standard_normal((4, 6, 3, 3)), (6, 30, 32), padding=1),
        Convolution(RNG.standard_normal((6, 4, 3, 3)) * (1 + 2j), (4, 32, 32), padding=1, stride=2),
        Convolution(RNG.standard_normal((6, 4, 3, 4)), (4, 33, 40), stride=(2, 3), dilation=(1, 2)),
        TransposedConvolution(RNG.standard_normal((3, 2, 3, 3)), (3, 16, 16), padding=1, stride=2),
        Convolution(RNG.standard_normal((1, 3, 7)), (3, 100), padding="full"),
    ],
    ids=repr,
)
def test_they_become_longer_by_nearly_the_norm(A):
    part = part_of(A)
    W, packet = part.operator(), wave_packet(part)
    assert packet.dtype == part.kernel.dtype
    ratio = np.linalg.norm(W @ packet) / np.linalg.norm(packet)
    assert 0.97 * svds(W, 1, tol=1e-3, return_singular_vectors=False, rng=1)[0] <= ratio
    shuffled = RNG.permutation(packet)  # no matter what is as long
    assert np.linalg.norm(W @ shuffled) < 0.9 * np.linalg.norm(W @ packet)


def test_on_a_torus_they_need_not_fade():
    part = part_of(
        Convolution(RNG.standard_normal((4, 3, 3, 3)), (3, 24, 24), padding=1, padding_mode="circular", stride=2)
    )
    W, packet = part.operator(), wave_packet(part)
    assert np.linalg.norm(W @ packet) >= 0.95 * spectra.norm(W) * np.linalg.norm(packet)
