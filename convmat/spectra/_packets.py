"""An input that W makes longer by nearly its norm: a wave of the frequency with the largest block, faded at the borders.

On a torus the norm is that of one frequency's block, and a wave of that frequency attains it. W sees a part of the torus.
Under half a period of a sine, the wave contains frequencies about π/n away, and loses the square of that, times the
curvature of the blocks' norms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from convmat.geometry import Array
from convmat.spectra._blocks import Torus, frequency_of, in_pieces, periodic_blocks, waves_of
from convmat.spectra._certificates import circles_of
from convmat.spectra._parts import Part

_STEPS, _VECTORS = 4, 8  # of the subspace iteration that finds the largest block


class _Peak(NamedTuple):
    """The largest block of a group, as far as a few steps of subspace iteration tell.

    Attributes
    ----------
    size : float
        About its norm.
    where : int
        The number of its frequency.
    matrix : array (C_out, columns)
        The block.
    """

    size: float
    where: int
    matrix: Array


def _peaks(part: Part, circles: list[Torus]) -> list[_Peak]:
    """Return the largest block of each group."""
    groups, count = len(part.kernel), 0
    peaks = [_Peak(-1.0, 0, each) for each in part.kernel]
    for blocks in periodic_blocks(part.kernel, circles):
        sizes = in_pieces(blocks.matrices, _about_norms).reshape(-1, groups)
        for group, number in enumerate(sizes.argmax(axis=0).tolist()):
            if sizes[number, group] > peaks[group].size:
                matrix = blocks.matrices[number * groups + group]
                peaks[group] = _Peak(float(sizes[number, group]), count + number, matrix)
        count += len(sizes)
    return peaks


def largest_group(part: Part) -> int:
    """Return the number of the group that most likely has the largest norm."""
    sizes = [peak.size for peak in _peaks(part, circles_of(part)[0])]
    return int(np.argmax(sizes))


def wave_packet(group: Part) -> Array:
    """Return an input of a single group, (C_in · sizes,)."""
    circles, _ = circles_of(group)
    (peak,) = _peaks(group, circles)
    frequency = frequency_of(peak.where, circles, group.kernel.dtype.kind != "c")
    row = np.linalg.svd(peak.matrix, full_matrices=False)[2][:1].conj()
    packet = waves_of(row, frequency, circles, group.axes)[0]
    for place, axis in enumerate(group.axes):
        window = np.sin(np.pi * (np.arange(axis.size) + 1) / (axis.size + 1))
        shape = [1] * packet.ndim
        shape[1 + place] = axis.size
        packet = packet[(slice(None),) * (1 + place) + (slice(axis.size),)] * window.reshape(shape)
    if group.kernel.dtype.kind != "c":
        packet = packet.real if np.linalg.norm(packet.real) >= np.linalg.norm(packet.imag) else packet.imag
    return np.ascontiguousarray(packet).ravel()


def _about_norms(matrices: Array) -> Array:
    """Return numbers up to the norms of matrices, and near them."""
    if 1 in matrices.shape[1:]:
        norms: Array = np.linalg.norm(matrices, axis=(1, 2))
        return norms
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((matrices.shape[1], min(_VECTORS, matrices.shape[1]))).astype(matrices.dtype)
    adjoint = matrices.conj().swapaxes(1, 2)
    for _ in range(_STEPS):
        basis = np.linalg.qr(matrices @ (adjoint @ basis))[0]
    images = adjoint @ basis  # of an orthonormal basis of the subspace: Rayleigh and Ritz take the best vector in it
    largest: Array = np.sqrt(np.linalg.eigvalsh(images.conj().swapaxes(1, 2) @ images)[:, -1].clip(0))
    return largest
