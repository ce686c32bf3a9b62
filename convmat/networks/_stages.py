"""What a network is made of: affine maps and functions, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convmat.geometry import Array, RowRange
from convmat.networks._functions import Function
from convmat.networks._maps import LinearMap, Shape, row_range
from convmat.operators import ArrayOperator


class Value(NamedTuple):
    """What a stage returns, or the network is given.

    Attributes
    ----------
    number : int
        0 for the input of the network, n + 1 for what stage n returns.
    shape : tuple of int
        Its shape.
    """

    number: int
    shape: Shape


@dataclass(frozen=True)
class Stage:
    """A step of a network.

    Attributes
    ----------
    name : str
        Its name in the model.
    op : str
        What it does.
    inputs : tuple of Value
        What it takes.
    output_shape : tuple of int
        Shape of what comes out.
    maps : tuple of LinearMap
        Of an affine stage, the linear map of each input.
    offset : array or None
        Of an affine stage, what is added, of shape `output_shape`; None for zero.
    function : Function or None
        Of another stage, what it computes.
    """

    name: str
    op: str
    inputs: tuple[Value, ...]
    output_shape: Shape
    maps: tuple[LinearMap, ...] = ()
    offset: Array | None = None
    function: Function | None = None

    def __repr__(self) -> str:
        shapes = ", ".join(str(value.shape) for value in self.inputs)
        return f"<Stage {self.name!r}: {self.op}, {shapes} to {self.output_shape}>"

    @property
    def is_affine(self) -> bool:
        """Whether it is an affine map."""
        return self.function is None

    @property
    def input_shape(self) -> Any:
        """Shape of what goes in; of several inputs, a tuple of their shapes."""
        shapes = tuple(value.shape for value in self.inputs)
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def matrix(self) -> ArrayOperator:
        """The matrix of an affine stage, a linear operator with `tocsr`; of several inputs, theirs side by side.

        Raises
        ------
        ValueError
            If the stage is not affine.
        """
        if not self.is_affine:
            raise ValueError(f"a stage must be affine to have a matrix, got {self!r}; see Network.at")
        return self.maps[0] if len(self.maps) == 1 else _SideBySide(self.maps)

    def apply(self, *arrays: Array) -> Array:
        """Return what comes out, for arrays with the same batch axes in front."""
        if self.function is not None:
            return self.function.value(*arrays)
        result = self.maps[0].apply(arrays[0])
        for each, array in zip(self.maps[1:], arrays[1:], strict=True):
            result = result + each.apply(array)
        return result if self.offset is None else result + self.offset

    def at(self, value: Array, *arrays: Array) -> Stage:
        """Return the affine stage that this one is near a point, where it has a value; one array for each input."""
        if self.function is None:
            return self
        maps, offset = self.function.derivative(*arrays), value
        for each, array in zip(maps, arrays, strict=True):
            offset = offset - each.apply(array)
        return replace(self, maps=maps, offset=offset, function=None)

    def astype(self, dtype: npt.DTypeLike) -> Stage:
        """Return the stage in another dtype."""
        return replace(
            self,
            maps=tuple(each.astype(dtype) for each in self.maps),
            offset=None if self.offset is None else self.offset.astype(dtype),
            function=None if self.function is None else self.function.astype(dtype),
        )


class _SideBySide(ArrayOperator):
    """The matrices of several inputs, side by side, for one vector that holds them all."""

    def __init__(self, maps: tuple[LinearMap, ...]) -> None:
        self.maps = maps
        sizes = [prod(each.input_shape) for each in maps]
        self._cuts = np.cumsum(sizes)[:-1]
        self._set(np.result_type(*(each.dtype for each in maps)), (sum(sizes),), maps[0].output_shape)

    @property
    def nnz(self) -> int:
        """The number of nonzeros."""
        return sum(each.nnz for each in self.maps)

    def apply(self, array: npt.ArrayLike) -> Array:
        """Return the product with a vector that holds all inputs."""
        parts = np.split(np.asarray(array), self._cuts)
        pairs = zip(self.maps, parts, strict=True)
        return np.sum([each.apply(part.reshape(each.input_shape)) for each, part in pairs], axis=0)  # type: ignore[no-any-return]

    def tocsr(self, rows: RowRange = None) -> sparse.csr_array:
        """Return the matrix, or a range of its rows, as a new CSR array."""
        span = row_range(rows, self.shape[0])
        return sparse.csr_array(sparse.hstack([each.tocsr(span) for each in self.maps], format="csr"))

    def _rmatvec(self, y: Array) -> Array:
        shape = self.output_shape
        return np.concatenate([each.apply_adjoint(np.reshape(y, shape)).ravel() for each in self.maps])
