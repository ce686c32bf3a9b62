"""The numbers of Winograd's transforms, by the edge of a tile of results: of the points 0, ±1, ∞ and 0, ±a, ±b, ∞."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from convmat.geometry import Array

POINTS = a, b = 11 / 16, 3 / 2
_OF_A, _OF_B = 2 * a**2 * (a**2 - b**2), 2 * b**2 * (b**2 - a**2)

KERNEL = {  # G
    2: np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]),
    4: np.array(
        [
            [1 / (a * b) ** 2, 0, 0],
            [1 / _OF_A, a / _OF_A, a**2 / _OF_A],
            [1 / _OF_A, -a / _OF_A, a**2 / _OF_A],
            [1 / _OF_B, b / _OF_B, b**2 / _OF_B],
            [1 / _OF_B, -b / _OF_B, b**2 / _OF_B],
            [0, 0, 1],
        ]
    ),
}


def kernel_step(k: Array, edge: int) -> Iterator[Array]:
    """Yield the rows of G k, each an array, for the three rows of k."""
    for row in KERNEL[edge]:
        yield sum(factor * values for factor, values in zip(row, k, strict=True) if factor)
