"""Arrays as vectors, one for each frequency and group of channels: by Fourier transforms on circles, or by the DCT-II."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from scipy import fft

from convmat._runtime import count_workers
from convmat.geometry import Array
from convmat.inverse._penalties import penalty_symbol
from convmat.spectra import Part, Torus, periodic_blocks


@dataclass(frozen=True)
class Grid:
    """Where arrays (C, *sizes) live, and how their Fourier transforms are arranged.

    Attributes
    ----------
    groups, channels : int
        Number of groups of channels, and of channels in each.
    coarse, aliases : tuple of int
        Number of coarse frequencies of each axis, and how many frequencies each of them stands for.
    is_real : bool
        Whether arrays are real.
    is_halved : bool
        Whether half of the coarse frequencies of the last axis do, as arrays are real and the axis has one alias.
    """

    groups: int
    channels: int
    coarse: tuple[int, ...]
    aliases: tuple[int, ...]
    is_real: bool
    is_halved: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of positions on each circle."""
        return tuple(map(prod, zip(self.coarse, self.aliases, strict=True)))

    @property
    def kept(self) -> tuple[int, ...]:
        """The number of coarse frequencies of each axis that are kept."""
        return (*self.coarse[:-1], self.coarse[-1] // 2 + 1) if self.is_halved else self.coarse

    @property
    def weights(self) -> Array:
        """How many frequencies each one that is kept stands for, to broadcast with coefficients."""
        last = np.ones(self.kept[-1])
        if self.is_halved:
            last[1 : (self.coarse[-1] + 1) // 2] = 2
        return last[:, None, None]

    @property
    def angles(self) -> list[Array]:
        """What frequencies turn by from one position to the next, (kept …, aliases …) for each axis, to broadcast."""
        angles, count = [], len(self.coarse)
        for axis, (kept, coarse, aliases) in enumerate(zip(self.kept, self.coarse, self.aliases, strict=True)):
            frequencies = np.arange(kept)[:, None] + np.arange(aliases) * coarse
            shape = [1] * (2 * count)
            shape[axis], shape[count + axis] = kept, aliases
            angles.append((2 * np.pi / (coarse * aliases) * frequencies).reshape(shape))
        return angles

    def symbol(self, word: str) -> Array:
        """Return what a penalty multiplies squares by, (kept …, 1, channels · aliases), the same for each channel."""
        values = penalty_symbol(word, self.angles).reshape(*self.kept, 1, 1, *self.aliases)
        shape = (*self.kept, 1, self.channels, *self.aliases)
        return np.broadcast_to(values, shape).reshape(*self.kept, 1, -1)

    def to(self, array: Array) -> Array:
        """Return the coefficients (kept …, G, channels · aliases) of an array (C, *sizes), which may be smaller."""
        axes = tuple(range(1, array.ndim))
        transform: Any = fft.rfftn if self.is_halved else fft.fftn
        result = transform(array, self.sizes, axes, norm="ortho", workers=count_workers(None))
        count = len(axes)
        split = [number for pair in zip(self.aliases, self.kept, strict=True) for number in pair]
        result = result.reshape(self.groups, self.channels, *split)
        order = [*range(3, 3 + 2 * count, 2), 0, 1, *range(2, 2 + 2 * count, 2)]
        arranged: Array = result.transpose(order).reshape(*self.kept, self.groups, -1)
        return arranged

    def back(self, coefficients: Array, sizes: Sequence[int]) -> Array:
        """Return the first positions of the array that has these coefficients, (C, *sizes)."""
        count = len(self.coarse)
        result = coefficients.reshape(*self.kept, self.groups, self.channels, *self.aliases)
        order = [count, count + 1, *(place for axis in range(count) for place in (count + 2 + axis, axis))]
        result = result.transpose(order)
        lengths = [kept * aliases for kept, aliases in zip(self.kept, self.aliases, strict=True)]
        result = result.reshape(self.groups * self.channels, *lengths)
        axes = tuple(range(1, 1 + count))
        inverse: Any = fft.irfftn if self.is_halved else fft.ifftn
        result = inverse(result, self.sizes, axes, norm="ortho", workers=count_workers(None))
        result = result[(slice(None), *(slice(size) for size in sizes))]
        own: Array = result.real if self.is_real else result
        return own


@dataclass(frozen=True)
class CosineGrid:
    """Where arrays (C, *sizes) live that are mirrored with their edge, and how their DCT-II is arranged.

    Attributes
    ----------
    groups, channels : int
        Number of groups of channels, and of channels in each.
    kept : tuple of int
        Number of positions of each axis, and of frequencies.
    """

    groups: int
    channels: int
    kept: tuple[int, ...]

    @property
    def weights(self) -> Array:
        """How many frequencies each one stands for."""
        return np.ones(())

    def symbol(self, word: str) -> Array:
        """Return what a penalty multiplies squares by, (kept …, 1, channels)."""
        count = len(self.kept)
        angles = [
            (np.pi / size * np.arange(size)).reshape([-1 if other == axis else 1 for other in range(count)])
            for axis, size in enumerate(self.kept)
        ]
        # The basis vectors are eigenvectors, at half of the angles of a circle that is twice as long.
        return np.broadcast_to(penalty_symbol(word, angles)[..., None, None], (*self.kept, 1, self.channels))

    def to(self, array: Array) -> Array:
        """Return the coefficients (kept …, G, channels) of an array (C, *sizes)."""
        axes = tuple(range(1, array.ndim))
        result = fft.dctn(array, axes=axes, norm="ortho", workers=count_workers(None))
        return np.moveaxis(result, 0, -1).reshape(*self.kept, self.groups, -1)

    def back(self, coefficients: Array, sizes: Sequence[int]) -> Array:
        """Return the array (C, *sizes) that has these coefficients."""
        arranged = np.moveaxis(coefficients.reshape(*sizes, -1), -1, 0)
        result: Array = fft.idctn(
            arranged, axes=tuple(range(1, arranged.ndim)), norm="ortho", workers=count_workers(None)
        )
        return result


@dataclass(frozen=True)
class Circulant:
    """A convolution on circles, or its adjoint, as one small matrix for each coarse frequency and group.

    Attributes
    ----------
    source, target : Grid
        Where its inputs and its outputs live.
    matrices : array (kept …, G, rows, columns)
        The matrices, for coefficients of inputs and outputs whose first positions are those of the operator.
    """

    source: Grid
    target: Grid
    matrices: Array

    @classmethod
    def of(cls, part: Part, circles: Sequence[Torus], adjoint: bool) -> Circulant:
        """Return a part of W on circles, or the adjoint of that."""
        groups, outer, inner = part.kernel.shape[:3]
        aliases = tuple(circle.stride for circle in circles)
        coarse = tuple(circle.outputs for circle in circles)
        is_real = part.kernel.dtype.kind != "c"
        is_halved = is_real and aliases[-1] == 1
        fine = Grid(groups, inner, coarse, aliases, is_real, is_halved)
        rough = Grid(groups, outer, coarse, (1,) * len(circles), is_real, is_halved)
        kernel = part.kernel if is_halved else part.kernel.astype(np.complex128)
        blocks = np.concatenate([some.matrices for some in periodic_blocks(kernel, list(circles))])
        # Output 0 reads from position −before on, which is a factor for each frequency.
        shape = (*fine.kept, groups, outer, inner, *aliases)
        matrices = blocks.reshape(shape)
        count = len(circles)
        for axis, angles in zip(part.axes, fine.angles, strict=True):
            factor = np.exp(-1j * axis.before * angles)
            matrices = matrices * factor.reshape(*factor.shape[:count], 1, 1, 1, *factor.shape[count:])
        matrices = matrices.reshape(*fine.kept, groups, outer, -1)
        if adjoint:
            return cls(rough, fine, matrices.conj().swapaxes(-1, -2))
        return cls(fine, rough, matrices)

    @property
    def gram(self) -> Array:
        """The Gram matrices of all matrices."""
        return multiply(self.matrices.conj().swapaxes(-1, -2), self.matrices)


def multiply(left: Array, right: Array) -> Array:
    """Return products of small matrices (…, p, q) and (…, q, r)."""
    if left.shape[-1] == 1:
        outer: Array = left * right
        return outer
    product: Array = left @ right
    return product
