"""Linear operators of SciPy that are given by what they do to arrays in their own shape."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

from convmat.geometry import Array


class ArrayOperator(LinearOperator):
    """A linear operator of SciPy that is given by what it does to one array."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def _set(self, dtype: np.dtype[Any], input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
        self.input_shape, self.output_shape = input_shape, output_shape
        super().__init__(dtype, (prod(output_shape), prod(input_shape)))  # type: ignore[call-arg]

    def apply(self, array: npt.ArrayLike) -> Array:
        """Return what becomes of an array of shape `input_shape`."""
        raise NotImplementedError

    def _apply_each(self, vectors: Array) -> Array:
        """Return what becomes of vectors (..., N), as vectors (..., M)."""
        results = [
            self.apply(vector.reshape(self.input_shape)).ravel() for vector in vectors.reshape(-1, self.shape[1])
        ]
        shape = (*vectors.shape[:-1], self.shape[0])
        return np.stack(results).reshape(shape) if results else np.empty(shape, self.dtype)

    def _matvec(self, v: Array) -> Array:
        # (N,) or (N, 1) before SciPy 1.18, (..., N) from then on.
        v = np.asarray(v)
        return self._apply_each(v if v.shape[-1] == self.shape[1] else v.reshape(-1))

    def _matmat(self, V: Array) -> Array:
        return self._apply_each(np.swapaxes(V, -1, -2)).swapaxes(-1, -2)
