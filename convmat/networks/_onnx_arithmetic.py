"""ONNX's operators that compute number by number, and those that sum along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convmat.geometry import Array, Axis
from convmat.networks import _elementary as elementary
from convmat.networks._builder import Builder, Operand
from convmat.networks._elementary import Maker
from convmat.networks._functions import Elementwise
from convmat.networks._onnx_nodes import Node, Rule
from convmat.networks._stages import Value

# Functions of one number; the attributes that they have are read from the node.
_FUNCTIONS: dict[str, Callable[[Node], Maker]] = {
    "Abs": lambda node: elementary.absolute,
    "Celu": lambda node: elementary.elu(node.get("alpha"), 1.0, 1 / node.get("alpha"), "Celu"),
    "Elu": lambda node: elementary.elu(node.get("alpha")),
    "Erf": lambda node: elementary.error_function,
    "Exp": lambda node: elementary.exp,
    "Gelu": lambda node: elementary.gelu(node.get("approximate")),
    "HardSigmoid": lambda node: elementary.hard_sigmoid(node.get("alpha"), node.get("beta")),
    "HardSwish": lambda node: elementary.hard_swish,
    "LeakyRelu": lambda node: elementary.leaky_relu(node.get("alpha")),
    "Log": lambda node: elementary.log,
    "Mish": lambda node: elementary.mish,
    "Reciprocal": lambda node: elementary.reciprocal,
    "Relu": lambda node: elementary.relu,
    "Selu": lambda node: elementary.elu(node.get("alpha"), node.get("gamma"), op="Selu"),
    "Sigmoid": lambda node: elementary.sigmoid,
    "Softplus": lambda node: elementary.softplus(),
    "Softsign": lambda node: elementary.softsign,
    "Sqrt": lambda node: elementary.sqrt,
    "Tanh": lambda node: elementary.tanh,
}


def function(builder: Builder, node: Node) -> Operand:
    """Apply a function to each number."""
    return builder.elementwise(node.name, node.value(), _FUNCTIONS[node.op](node))


def negate(builder: Builder, node: Node) -> Operand:
    """Change the signs."""
    return builder.scale(node.name, node.value(), np.asarray(-1.0), "Neg")


def pair(builder: Builder, node: Node) -> tuple[Operand, Operand]:
    """Return two operands; before version 7, the second one says itself which axes it is repeated along."""
    first, second = node.operand(0), node.operand(1)
    if node.version < 7 and node.get("broadcast", 0) and (axis := node.get("axis")) is not None:
        count, own = len(first.shape), tuple(second.shape)
        shape = own + (1,) * (count - axis % count - len(own))
        second = reshape(builder, f"{node.name}/expand", second, shape)
    return first, second


def reshape(builder: Builder, name: str, x: Operand, shape: tuple[int, ...]) -> Operand:
    """Give an array another shape, without a stage where it has that."""
    if not isinstance(x, Value):
        return np.reshape(x, shape)
    return x if x.shape == shape else builder.move(name, "Reshape", lambda places: places.reshape(shape), [x])


def add(builder: Builder, node: Node) -> Operand:
    """Add two arrays, or subtract one."""
    first, second = pair(builder, node)
    return builder.add(node.name, first, second, -1.0 if node.op == "Sub" else 1.0)


def multiply(builder: Builder, node: Node) -> Operand:
    """Multiply two arrays."""
    return builder.multiply(node.name, *pair(builder, node))


def divide(builder: Builder, node: Node) -> Operand:
    """Divide two arrays."""
    return builder.divide(node.name, *pair(builder, node))


def power(builder: Builder, node: Node) -> Operand:
    """Take a constant power, or the power of a positive constant."""
    base, exponent = pair(builder, node)
    if not isinstance(base, Value):
        if not np.all(np.asarray(base) > 0):
            raise ValueError(f"{node} must have a base that is positive where the exponent is no constant")
        logarithms = builder.scale(f"{node.name}/log", exponent, np.log(np.asarray(base, np.float64)))
        return builder.elementwise(node.name, logarithms, elementary.exp)
    if isinstance(exponent, Value):
        raise ValueError(f"{node} must have a constant base or exponent, got two that depend on the network's input")
    base = builder.broadcast(node.name, base, np.broadcast_shapes(base.shape, np.shape(exponent)))
    if np.unique(exponent).size == 1:
        return builder.elementwise(node.name, base, elementary.power(float(np.ravel(exponent)[0])))
    return builder.elementwise(node.name, base, _powers(np.asarray(exponent, np.float64)))


def _powers(exponents: Array) -> Maker:
    """Return powers with an exponent for each number."""
    is_whole = bool((exponents % 1 == 0).all())

    def slope(x: Array, own: Array) -> Array:
        return np.where(own == 0, 0, own * np.power(x, np.where(own == 0, 1, own - 1)))

    return lambda shape: Elementwise(
        "Pow",
        shape,
        lambda x, own: np.power(x, own),
        slope,
        (np.broadcast_to(exponents, shape),),
        (0.0,),
        (-np.inf if is_whole else 0.0, np.inf),
        0.0 if (exponents < 0).any() else None,
    )


def fold(builder: Builder, node: Node) -> Operand:
    """Add several arrays, take their mean, or the largest or smallest numbers."""
    result = node.operand(0)
    for index in range(1, len(node.inputs)):
        is_last = index == len(node.inputs) - 1 and node.op != "Mean"
        name = node.name if is_last else f"{node.name}/{index}"
        if node.op in ("Sum", "Mean"):
            result = builder.add(name, result, node.operand(index))
        else:
            result = builder.extremum(name, result, node.operand(index), node.op == "Max")
    if node.op == "Mean" and len(node.inputs) > 1:
        return builder.scale(node.name, result, np.asarray(1 / len(node.inputs)), "Mean")
    return result


def clip(builder: Builder, node: Node) -> Operand:
    """Keep numbers between two bounds."""
    if node.version < 11:
        low, high = node.get("min"), node.get("max")
    else:
        low, high = node.constant(1), node.constant(2)
    bounds = [None if each is None or not np.size(each) else float(np.ravel(each)[0]) for each in (low, high)]
    least, most = (limit if each is None else each for each, limit in zip(bounds, (-np.inf, np.inf), strict=True))
    return builder.elementwise(node.name, node.value(), elementary.clip(min(least, most), most))


def prelu(builder: Builder, node: Node) -> Operand:
    """Multiply by slopes where numbers are negative."""
    x, slopes = node.value(), np.asarray(node.weights(1), builder.dtype)
    if node.version < 7 and slopes.ndim == 1 and slopes.size > 1:  # one for each channel
        slopes = slopes.reshape(-1, *(1 for _ in x.shape[2:]))
    return builder.elementwise(node.name, x, elementary.prelu(slopes))


def swish(builder: Builder, node: Node) -> Operand:
    """Take x·sigmoid(alpha·x)."""
    x, alpha = node.value(), node.get("alpha")
    if alpha == 1:
        return builder.elementwise(node.name, x, elementary.silu)
    scaled = builder.scale(f"{node.name}/scale", x, np.asarray(alpha))
    return builder.multiply(node.name, x, builder.elementwise(f"{node.name}/sigmoid", scaled, elementary.sigmoid))


# What is done before and after a sum along axes
_REDUCTIONS: Mapping[str, tuple[Maker | None, Maker | None]] = {
    "ReduceL1": (elementary.absolute, None),
    "ReduceL2": (elementary.power(2), elementary.sqrt),
    "ReduceLogSum": (None, elementary.log),
    "ReduceMean": (None, None),
    "ReduceSum": (None, None),
    "ReduceSumSquare": (elementary.power(2), None),
}


def _axes(node: Node, x: Value) -> list[int]:
    axes = node.integers("axes", 1) or []
    if not axes and not node.get("noop_with_empty_axes", 0):
        axes = list(range(len(x.shape)))
    if any(not -len(x.shape) <= axis < len(x.shape) for axis in axes):
        raise ValueError(f"{node} must have axes of {len(x.shape)}, got {axes}")
    return sorted({axis % len(x.shape) for axis in axes})


def reduce(builder: Builder, node: Node) -> Operand:
    """Take sums or means along axes, perhaps of functions of the numbers."""
    x, (before, after) = node.value(), _REDUCTIONS[node.op]
    axes, keeps = _axes(node, x), bool(node.get("keepdims"))
    result: Operand = builder.elementwise(f"{node.name}/each", x, before) if before else x
    if axes:
        name = f"{node.name}/sum" if after else node.name
        result = builder.reduce(name, node.op, result, axes, keeps, node.op == "ReduceMean")  # type: ignore[arg-type]
    return builder.elementwise(node.name, result, after) if after else result


def reduce_extremum(builder: Builder, node: Node) -> Operand:
    """Take the largest or the smallest number along axes."""
    x = node.value()
    axes = _axes(node, x)
    if not axes:
        return x
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    if not node.get("keepdims"):
        shape = tuple(x.shape[axis] for axis in kept)
    sign = np.asarray(1.0 if node.op == "ReduceMax" else -1.0)
    last: Any = builder.move(f"{node.name}/transpose", "Transpose", lambda places: places.transpose(*kept, *axes), [x])
    last = last if sign > 0 else builder.scale(f"{node.name}/negate", last, sign, "Neg")
    found: Operand = builder.max_pool(
        node.name, last, [Axis(x.shape[axis], x.shape[axis], 1, 0, 0, 1, 1) for axis in axes]
    )
    found = found if sign > 0 else builder.scale(f"{node.name}/back", found, sign, "Neg")
    return reshape(builder, f"{node.name}/reshape", found, shape)


ARITHMETIC: dict[str, Rule] = {
    **dict.fromkeys(_FUNCTIONS, function),
    **dict.fromkeys(("Add", "Sub"), add),
    **dict.fromkeys(("Sum", "Mean", "Max", "Min"), fold),
    **dict.fromkeys(_REDUCTIONS, reduce),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), reduce_extremum),
    "Clip": clip,
    "Div": divide,
    "Mul": multiply,
    "Neg": negate,
    "PRelu": prelu,
    "Pow": power,
    "Swish": swish,
}
