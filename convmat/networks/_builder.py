"""How readers of models make stages: one method for each kind of step, whatever a format calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from convmat.geometry import Array, Axis, IntArray
from convmat.networks import _elementary as elementary
from convmat.networks._convolution_map import ConvolutionMap
from convmat.networks._functions import Divide, Elementwise, Extremum, Function, Multiply
from convmat.networks._groups import LogSoftmax, MaxPool, Normalise, Softmax
from convmat.networks._maps import AxisProducts, Diagonal, Gather, LinearMap, Shape, identity
from convmat.networks._matrix_products import MatrixProduct, fitting_shapes
from convmat.networks._stages import Stage, Value
from convmat.operators import Convolution, TransposedConvolution

Operand = Value | Array  # what a step takes: what a stage returns, or a constant
_MOST = 1 << 27  # numbers in an array that a model may declare


class Builder:
    """Makes the stages of a network, one after the other.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of what the network takes.
    dtype : dtype
        That of its numbers.

    Attributes
    ----------
    stages : list of Stage
        What has been made.
    input : Value
        What the network is given.
    """

    def __init__(self, input_shape: Sequence[int], dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.stages: list[Stage] = []
        self.input = Value(0, check_shape(input_shape))

    def affine(
        self, name: str, op: str, inputs: Sequence[Value], maps: Sequence[LinearMap], offset: Array | None = None
    ) -> Value:
        """Add an affine stage, and return what it returns."""
        shape = check_shape(maps[0].output_shape)
        if offset is not None:
            offset = np.broadcast_to(np.asarray(offset, self.dtype), shape)
        self.stages.append(Stage(name, op, tuple(inputs), shape, tuple(maps), offset))
        return Value(len(self.stages), shape)

    def function(self, name: str, inputs: Sequence[Value], function: Function) -> Value:
        """Add a stage that is no affine map, and return what it returns."""
        check_shape(function.output_shape)
        self.stages.append(Stage(name, function.op, tuple(inputs), function.output_shape, function=function))
        return Value(len(self.stages), function.output_shape)

    # What moves numbers

    def move(
        self, name: str, op: str, function: Callable[..., Any], operands: Sequence[Operand], fill: float = 0.0
    ) -> Operand:
        """Add a stage that only moves numbers, repeats them and leaves some out.

        Parameters
        ----------
        name, op : str
            Of the stage.
        function : callable
            What does so with arrays. It is called with int64 arrays, which hold the places of numbers instead of them, and
            returns where each number of the result comes from; −1 stands for `fill`.
        operands : sequence of Value or array
            What it takes.
        fill : float
            What is put where no number comes from anywhere.
        """
        numbers: dict[Value, int] = {}
        constants, start = [], 0
        for each in operands:
            if isinstance(each, Value) and each not in numbers:
                numbers[each] = start
                start += prod(each.shape)
        places = [self._places(each, numbers) for each in operands]
        for index, each in enumerate(operands):
            if not isinstance(each, Value):
                places[index] = places[index] + start
                start += places[index].size
                constants.append(np.asarray(each, self.dtype).ravel())
        sources = np.asarray(function(*places), np.int64)
        check_shape(sources.shape)
        known = np.concatenate([*constants, np.full(1, fill, self.dtype)])
        first = start - (len(known) - 1)  # the place of the first constant
        is_constant = (sources < 0) | (sources >= first)
        offset = np.where(is_constant, known[np.where(sources < 0, -1, np.maximum(sources - first, 0))], 0)
        maps, inputs = [], []
        for value, begin in numbers.items():
            own = (sources >= begin) & (sources < begin + prod(value.shape))
            if own.any():
                inputs.append(value)
                maps.append(Gather(np.where(own, sources - begin, -1), value.shape, self.dtype))
        if not maps:
            return offset.astype(self.dtype)
        return self.affine(name, op, inputs, maps, offset if offset.any() else None)

    @staticmethod
    def _places(each: Operand, numbers: Mapping[Value, int]) -> IntArray:
        if isinstance(each, Value):
            return np.arange(prod(each.shape), dtype=np.int64).reshape(each.shape) + numbers[each]
        return np.arange(np.size(each), dtype=np.int64).reshape(np.shape(each))

    def broadcast(self, name: str, x: Operand, shape: Shape) -> Operand:
        """Repeat an array along axes, so that it has a shape."""
        if not isinstance(x, Value):
            return np.broadcast_to(x, shape)
        if x.shape == shape:
            return x
        return self.move(f"{name}/expand", "Expand", lambda places: np.broadcast_to(places, shape), [x])

    # Arithmetic

    def scale(self, name: str, x: Operand, factors: Array, op: str = "Mul") -> Operand:
        """Multiply by constants."""
        shape = np.broadcast_shapes(x.shape, np.shape(factors))
        x = self.broadcast(name, x, shape)
        own = np.broadcast_to(np.asarray(factors, self.dtype), shape)
        return self.affine(name, op, [x], [Diagonal(own)]) if isinstance(x, Value) else np.asarray(x, self.dtype) * own

    def shift(self, name: str, x: Operand, offset: Array, op: str = "Add") -> Operand:
        """Add constants."""
        shape = np.broadcast_shapes(x.shape, np.shape(offset))
        x = self.broadcast(name, x, shape)
        if not isinstance(x, Value):
            return np.add(x, offset, dtype=self.dtype)
        return self.affine(name, op, [x], [identity(shape, self.dtype)], offset)

    def normalise_channels(self, name: str, x: Value, factors: Array, offset: Array, axis: int = 1) -> Value:
        """Multiply and add a number for each channel, as a batch normalisation does whose statistics are fixed."""
        shape = tuple(-1 if place == axis else 1 for place in range(len(x.shape)))
        own = np.broadcast_to(np.asarray(factors, self.dtype).reshape(shape), x.shape)
        return self.affine(name, "BatchNormalization", [x], [Diagonal(own)], np.asarray(offset).reshape(shape))

    def add(self, name: str, first: Operand, second: Operand, sign: float = 1.0) -> Operand:
        """Add two arrays, the second one times `sign`."""
        op = "Add" if sign == 1 else "Sub"
        if not isinstance(second, Value):
            return self.shift(name, first, sign * np.asarray(second, self.dtype), op)
        if not isinstance(first, Value):
            negated = second if sign == 1 else self.scale(f"{name}/negate", second, np.asarray(sign), op)
            return self.shift(name, negated, first, op)
        shape = np.broadcast_shapes(first.shape, second.shape)
        inputs = [self.broadcast(name, each, shape) for each in (first, second)]
        if inputs[0] == inputs[1]:
            return self.scale(name, first, np.asarray(1 + sign), op)
        own = identity(shape, self.dtype)
        other = own if sign == 1 else Diagonal(np.broadcast_to(np.asarray(sign, self.dtype), shape))
        return self.affine(name, op, inputs, [own, other])  # type: ignore[arg-type]

    def multiply(self, name: str, first: Operand, second: Operand) -> Operand:
        """Multiply two arrays."""
        if not isinstance(second, Value):
            return self.scale(name, first, second)
        if not isinstance(first, Value):
            return self.scale(name, second, first)
        return self._pair(name, first, second, Multiply)

    def divide(self, name: str, upper: Operand, lower: Operand) -> Operand:
        """Divide two arrays."""
        if not isinstance(lower, Value):
            return self.scale(name, upper, 1 / np.asarray(lower, self.dtype), "Div")
        if not isinstance(upper, Value):
            inverse = self.elementwise(f"{name}/reciprocal", lower, elementary.reciprocal)
            return self.scale(name, inverse, upper, "Div")
        return self._pair(name, upper, lower, Divide)

    def extremum(self, name: str, first: Operand, second: Operand, is_largest: bool) -> Operand:
        """Take the larger, or the smaller, of two arrays, number by number; of equal ones the constant counts half."""
        if not isinstance(first, Value) and not isinstance(second, Value):
            return np.asarray((np.maximum if is_largest else np.minimum)(first, second))
        if isinstance(first, Value) and isinstance(second, Value):
            return self._pair(name, first, second, lambda shape: Extremum(shape, is_largest))
        x, limit = (first, second) if isinstance(first, Value) else (second, first)
        x = self.broadcast(name, x, np.broadcast_shapes(x.shape, np.shape(limit)))
        sign = 1 if is_largest else -1
        function = Elementwise(
            "Max" if is_largest else "Min",
            x.shape,
            np.maximum if is_largest else np.minimum,
            lambda x, limit: np.where(x == limit, 0.5, sign * x > sign * limit),
            (np.broadcast_to(np.asarray(limit, self.dtype), x.shape),),
            slope_range=(0.0, 1.0),
        )
        return self.function(name, [x], function)  # type: ignore[list-item]

    def matmul(self, name: str, first: Value, second: Value) -> Value:
        """Multiply two arrays of matrices that both depend on the input; a vector stands for a row, or for a column."""
        shapes = [first.shape if len(first.shape) > 1 else (1, *first.shape)]
        shapes += [second.shape if len(second.shape) > 1 else (*second.shape, 1)]
        wanted = fitting_shapes(*shapes)
        own = [
            self.broadcast(name, self._reshaped(name, each, shape), full)
            for each, shape, full in zip((first, second), shapes, wanted, strict=True)
        ]
        check_shape((*wanted[0][:-1], wanted[1][-1]))
        found = self.function(name, own, MatrixProduct(*wanted))  # type: ignore[arg-type]
        lost = (len(first.shape) == 1, len(second.shape) == 1)
        rows, columns = found.shape[-2:]
        last = (*(() if lost[0] else (rows,)), *(() if lost[1] else (columns,)))
        return self._reshaped(name, found, (*found.shape[:-2], *last))

    def _reshaped(self, name: str, x: Value, shape: Shape) -> Value:
        if x.shape == shape:
            return x
        return self.move(f"{name}/reshape", "Reshape", lambda places: places.reshape(shape), [x])  # type: ignore[return-value]

    def _pair(self, name: str, first: Value, second: Value, kind: Callable[[Shape], Function]) -> Value:
        shape = np.broadcast_shapes(first.shape, second.shape)
        inputs = [self.broadcast(name, each, shape) for each in (first, second)]
        return self.function(name, inputs, kind(shape))  # type: ignore[arg-type]

    def elementwise(self, name: str, x: Operand, make: Callable[[Shape], Elementwise]) -> Operand:
        """Apply a function to each number; `make` is given the shape."""
        if not isinstance(x, Value):
            return make(np.shape(x)).value(np.asarray(x, self.dtype))
        return self.function(name, [x], make(x.shape))

    # What sums

    def along(self, name: str, op: str, x: Value, factors: Mapping[int, Any], offset: Array | None = None) -> Value:
        """Multiply by matrices (outputs × inputs) along axes."""
        count = len(x.shape)
        own = {axis % count: factor.astype(self.dtype) for axis, factor in factors.items()}
        return self.affine(name, op, [x], [AxisProducts(x.shape, own)], offset)

    def reduce(self, name: str, op: str, x: Value, axes: Sequence[int], keeps: bool, is_mean: bool) -> Operand:
        """Take sums, or means, along axes."""
        places = {axis % len(x.shape) for axis in axes}
        factors = {
            axis: np.full((1, x.shape[axis]), 1 / x.shape[axis] if is_mean else 1.0, self.dtype) for axis in places
        }
        result = self.along(name, op, x, factors) if factors else x
        if keeps:
            return result
        shape = tuple(size for axis, size in enumerate(x.shape) if axis not in places)
        return self.move(f"{name}/squeeze", "Reshape", lambda numbers: numbers.reshape(shape), [result])

    def convolve(
        self,
        name: str,
        x: Value,
        kernel: Array,
        bias: Array | None = None,
        *,
        is_transposed: bool = False,
        output_shape: Sequence[int] | None = None,
        **options: Any,
    ) -> Value:
        """Convolve an array (*outer, channels, *spatial), or transpose that, with the options of `Convolution`.

        `output_shape` are the sizes of the spatial axes of a transposed convolution.
        """
        kernel = np.asarray(kernel, self.dtype)
        count = kernel.ndim - 2
        outer, own = x.shape[: -count - 1], x.shape[-count - 1 :]
        operator: Any
        if is_transposed:
            if output_shape is not None:
                options["output_shape"] = (kernel.shape[1] * options.get("groups", 1), *output_shape)
            operator = TransposedConvolution(kernel, own, **options)
        else:
            operator = Convolution(kernel, own, **options)
        offset = None if bias is None else np.asarray(bias).reshape(-1, *(1 for _ in range(count)))
        return self.affine(
            name, "ConvTranspose" if is_transposed else "Conv", [x], [ConvolutionMap(operator, outer, options)], offset
        )

    def max_pool(self, name: str, x: Value, axes: Sequence[Axis]) -> Value:
        """Take the largest number of each window of the last axes; padding mode zeros stands for nothing there."""
        return self.function(name, [x], MaxPool(x.shape, tuple(axes)))

    def softmax(self, name: str, x: Value, axis: int) -> Value:
        """Take eˣ over its sum along an axis."""
        return self.function(name, [x], Softmax(x.shape, axis % len(x.shape)))

    def log_softmax(self, name: str, x: Value, axis: int) -> Value:
        """Take the logarithm of eˣ over its sum along an axis."""
        return self.function(name, [x], LogSoftmax(x.shape, axis % len(x.shape)))

    def normalise(self, name: str, op: str, x: Value, axes: Sequence[int], epsilon: float) -> Value:
        """Subtract the mean and divide by the deviation of the numbers along some axes."""
        return self.function(name, [x], Normalise(x.shape, tuple(axes), float(epsilon), op))

    def needed(self, target: Value) -> tuple[tuple[Stage, ...], Value]:
        """Return the stages that a value needs, and the value as one of them."""
        wanted = {target.number}
        for number in range(len(self.stages), 0, -1):
            if number in wanted:
                wanted.update(value.number for value in self.stages[number - 1].inputs)
        places = {old: new for new, old in enumerate(sorted(wanted | {0}))}
        stages = []
        for number in sorted(wanted - {0}):
            stage = self.stages[number - 1]
            inputs = tuple(value._replace(number=places[value.number]) for value in stage.inputs)
            stages.append(replace(stage, inputs=inputs))
        return tuple(stages), target._replace(number=places[target.number])


def check_shape(shape: Sequence[int]) -> Shape:
    """Return a shape that is not absurdly large, before anything of that size is made."""
    sizes = tuple(int(size) for size in shape)
    if min(sizes, default=1) < 0 or prod(sizes) > _MOST:
        raise ValueError(f"an array of a network must have at most {_MOST} numbers, got shape {sizes}")
    return sizes
