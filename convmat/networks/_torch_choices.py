"""Comparisons of PyTorch, which are 1 or 0 and whose derivative is 0, and choices by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convmat.geometry import Array
from convmat.networks._builder import Operand
from convmat.networks._functions import Elementwise, Function, Interval
from convmat.networks._maps import Diagonal, Gather, LinearMap, Shape
from convmat.networks._stages import Value
from convmat.networks._torch_calls import Call, depends
from convmat.networks._torch_moves import move


@dataclass(frozen=True)
class Choice(Function):
    """Of two arrays, the number of the first where a condition is 1, and of the second where it is 0."""

    output_shape: Shape
    op: str = "Where"

    def value(self, *arrays: Array) -> Array:
        """Return the values for a condition and two arrays with the same batch axes in front."""
        condition, first, second = arrays
        return np.where(condition != 0, first, second)

    def derivative(self, *arrays: Array) -> tuple[LinearMap, ...]:
        """Return the derivative for each array, at a point."""
        condition, first, _ = arrays
        chosen = (condition != 0).astype(first.dtype)
        nothing = Gather(np.full(self.output_shape, -1, np.int64), self.output_shape, first.dtype)
        return nothing, Diagonal(chosen), Diagonal(1 - chosen)

    def bounds(self, *intervals: Interval) -> Interval:
        """Return bounds of the values, of both arrays where the condition is not known."""
        condition, first, second = intervals
        always, never = condition.low > 0.5, condition.high < 0.5  # conditions are 1 or 0, up to rounding
        low = np.where(always, first.low, np.where(never, second.low, np.minimum(first.low, second.low)))
        high = np.where(always, first.high, np.where(never, second.high, np.maximum(first.high, second.high)))
        return Interval(low, high)


# What each comparison with 0 is, and where it turns.
_COMPARISONS: dict[str, Callable[[Array], Array]] = {
    "gt": lambda x: x > 0,
    "ge": lambda x: x >= 0,
    "lt": lambda x: x < 0,
    "le": lambda x: x <= 0,
    "eq": lambda x: x == 0,
    "ne": lambda x: x != 0,
    "sign": np.sign,
    "logical_not": lambda x: x == 0,
    "bitwise_not": lambda x: x == 0,
}


def step(kind: str) -> Callable[[Shape], Elementwise]:
    """Return a comparison with 0."""
    return lambda shape: Elementwise(kind.title(), shape, _COMPARISONS[kind], np.zeros_like, turns=(0.0,))


def compare(call: Call) -> Operand:
    """Compare arrays with constants, or with one another, by the sign of what they differ by."""
    x: Any = call.operand("self")
    if "other" in call.arguments:
        x = call.builder.add(f"{call.name}/difference", x, call.operand("other"), -1.0)
    return call.builder.elementwise(call.name, x, step(call.kind))


def both(call: Call) -> Operand:
    """Return 1 where two conditions hold."""
    return call.builder.multiply(call.name, call.operand("self"), call.operand("other"))


def either(call: Call) -> Operand:
    """Return 1 where one of two conditions holds."""
    return call.builder.extremum(call.name, call.operand("self"), call.operand("other"), True)


def choose(call: Call) -> Any:
    """Choose between two arrays, or between one and a number."""
    key = "condition" if call.kind == "where" else "mask"
    condition = call[key]
    if not depends(condition):
        return move(call)
    pair = [call.operand("self"), call.operand("other" if call.kind == "where" else "value")]
    if call.kind == "masked_fill":
        pair.reverse()
    shape = np.broadcast_shapes(condition.shape, *(each.shape for each in pair))
    inputs = [call.builder.broadcast(call.name, condition, shape), *(_as_value(call, each, shape) for each in pair)]
    return call.builder.function(call.name, inputs, Choice(shape))  # type: ignore[arg-type]


def _as_value(call: Call, x: Operand, shape: Shape) -> Operand:
    """Return a constant as a stage, too, which has no nonzeros."""
    if isinstance(x, Value):
        return call.builder.broadcast(call.name, x, shape)
    source = call.builder.input
    nothing = Gather(np.full(shape, -1, np.int64), source.shape, call.builder.dtype)
    return call.builder.affine(f"{call.name}/constant", "Constant", [source], [nothing], x)


CHOICES: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(_COMPARISONS, compare),
    **dict.fromkeys(["logical_and", "bitwise_and", "__and__"], both),
    **dict.fromkeys(["logical_or", "bitwise_or", "__or__"], either),
    **dict.fromkeys(["where", "masked_fill"], choose),
}
