"""Bounds and estimates of a layer's norm that others have published, computed from their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def blocks_at_size(kernel: Array, size: tuple[int, ...]) -> Array:
    """Return the kernel's Fourier transform at a size, (*size, C_out, C_in)."""
    spectrum = np.fft.fftn(kernel, size, axes=tuple(range(2, kernel.ndim)))
    return np.moveaxis(spectrum, (0, 1), (-2, -1))


def per_frequency(kernel: Array, size: tuple[int, ...]) -> Array:
    """Return all singular values with circular padding and stride 1, as Sedghi, Gupta & Long (2019) publish it in NumPy."""
    return np.linalg.svd(blocks_at_size(kernel, size), compute_uv=False)


def four_unfoldings(kernel: Array) -> float:
    """Return the bound of Singla & Feizi (2021): √(h·w) times the least norm of four matrices made of the kernel."""
    outer, inner, height, width = kernel.shape
    matrices = (
        kernel.reshape(outer, -1),
        kernel.transpose(0, 2, 3, 1).reshape(-1, inner),
        kernel.transpose(0, 2, 1, 3).reshape(outer * height, inner * width),
        kernel.transpose(0, 3, 1, 2).reshape(outer * width, inner * height),
    )
    return float(np.sqrt(height * width) * min(np.linalg.norm(matrix, 2) for matrix in matrices))


def gram_iteration(kernel: Array, size: tuple[int, ...], steps: int = 6) -> float:
    """Return the estimate of Delattre et al. (2023) at a size.

    It is the largest ‖(BᴴB)^(2^(steps − 1))‖_F^(2^−steps) of all blocks B, and bounds the norm with circular padding in
    exact arithmetic.
    """
    blocks = blocks_at_size(kernel, size).reshape(-1, *kernel.shape[:2])
    logarithm = np.zeros(len(blocks))
    for _ in range(steps):
        scale = np.linalg.norm(blocks, axis=(1, 2))
        blocks = blocks / scale[:, None, None]
        blocks = blocks.conj().swapaxes(1, 2) @ blocks
        logarithm = 2 * (logarithm + np.log(scale))
    norms = np.log(np.linalg.norm(blocks, axis=(1, 2)))
    return float(np.exp((logarithm + norms).max() / 2**steps))


def tensor_norm(kernel: Array, steps: int = 100) -> float:
    """Return √(h·w) times the kernel's spectral norm as a tensor, by Grishina et al. (2024).

    The tensor's norm comes from the higher-order power method, which gives no bound.
    """
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(length) for length in kernel.shape]
    value = 0.0
    for _ in range(steps):
        for axis in range(4):
            others = [place for place in range(4) if place != axis]
            operands: list[Any] = [kernel, [0, 1, 2, 3]]
            for place in others:
                operands += [vectors[place], [place]]
            vector = np.einsum(*operands, [axis], optimize=True)
            value = float(np.linalg.norm(vector))
            vectors[axis] = vector / value
    return float(np.sqrt(np.prod(kernel.shape[2:])) * value)
