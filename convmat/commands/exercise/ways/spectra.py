"""Products in the frequency domain."""

from __future__ import annotations

from math import log2, prod

import numpy as np
import scipy.fft

from convmat.commands.exercise.cases import Case
from convmat.commands.exercise.ways.base import Ready, Work, crop, pad, too_large, vector_bytes
from convmat.geometry import Array


class Spectra:
    """Products of Fourier transforms of the whole padded image; the kernel is transformed once."""

    name = "fft"
    title = "FFT"

    def refuses(self, case: Case) -> str | None:
        """Refuse spectra that do not fit into memory."""
        return too_large(self.work(case))

    def work(self, case: Case) -> Work:
        """Count 5 n log₂ n for a complex transform, half for a real one, and 8 for each product of two frequencies.

        A transform of two axes reads and writes its half spectrum once for each axis.
        """
        geometry = case.geometry
        n = prod(self._lengths(case))
        planes = geometry.in_channels + geometry.out_channels
        pairs = geometry.in_channels * geometry.out_channels // geometry.groups
        plane = n * case.itemsize  # a half spectrum has n / 2 complex numbers
        flops = 2.5 * n * log2(n) * planes + 8 * pairs * n / 2
        moved = plane * (4 * planes + pairs + planes) + vector_bytes(case)
        return Work(flops, moved, plane * (pairs + planes))

    def build(self, case: Case, workers: int) -> Ready:
        """Transform the kernel."""
        geometry = case.geometry
        lengths, axes, groups = self._lengths(case), (-2, -1), geometry.groups
        h, w = geometry.spatial_kernel
        stretched = np.zeros((*case.kernel.shape[:2], *geometry.padded.spatial_input), case.dtype)
        stretched[..., : geometry.dilation[0] * (h - 1) + 1 : geometry.dilation[0], :][
            ..., : geometry.dilation[1] * (w - 1) + 1 : geometry.dilation[1]
        ] = case.kernel
        spectrum = scipy.fft.rfft2(stretched, lengths, workers=workers)
        spectrum = spectrum.reshape(groups, -1, *spectrum.shape[1:])  # (G, C_out / G, C_in / G, *frequencies)
        conjugate = spectrum.conj()  # because the convolution is a correlation
        inside = tuple(
            slice(0, s * (n - 1) + 1, s) for n, s in zip(geometry.spatial_output, geometry.stride, strict=True)
        )

        def product_(x: Array) -> Array:
            given = scipy.fft.rfft2(pad(case, x), lengths, workers=workers)
            given = given.reshape(groups, -1, *given.shape[1:])
            result = np.einsum("goihw,gihw->gohw", conjugate, given).reshape(-1, *given.shape[2:])
            y: Array = scipy.fft.irfft2(result, lengths, axes, workers=workers)
            return y[:, *inside]

        def transposed(y: Array) -> Array:
            apart = np.zeros((len(y), *lengths), case.dtype)
            apart[:, *inside] = y
            given = scipy.fft.rfft2(apart, lengths, workers=workers)
            given = given.reshape(groups, -1, *given.shape[1:])
            result = np.einsum("goihw,gohw->gihw", spectrum, given).reshape(-1, *given.shape[2:])
            z: Array = scipy.fft.irfft2(result, lengths, axes, workers=workers)
            return crop(case, z)

        return Ready(product_, transposed)

    def _lengths(self, case: Case) -> tuple[int, ...]:
        return tuple(scipy.fft.next_fast_len(n, real=True) for n in case.geometry.padded.spatial_input)
