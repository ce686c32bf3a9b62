"""Operations of PyTorch on numbers: sums, products, and the functions of one or two numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from convmat.geometry import Array
from convmat.networks import _elementary as elementary
from convmat.networks._builder import Operand
from convmat.networks._elementary import Maker
from convmat.networks._functions import Elementwise
from convmat.networks._stages import Value
from convmat.networks._torch_calls import Call, as_array

# Arithmetic


def add(call: Call) -> Operand:
    """Add two arrays, the second one times alpha."""
    sign = -1.0 if call.kind in ("sub", "subtract") else 1.0
    return call.builder.add(call.name, call.operand("self"), call.operand("other"), sign * call.number("alpha"))


def subtract_from(call: Call) -> Operand:
    """Subtract the first array, times alpha, from the second."""
    return call.builder.add(call.name, call.operand("other"), call.operand("self"), -call.number("alpha"))


def multiply(call: Call) -> Operand:
    """Multiply two arrays."""
    return call.builder.multiply(call.name, call.operand("self"), call.operand("other"))


def divide(call: Call) -> Operand:
    """Divide two arrays, without rounding."""
    if call.get("rounding_mode") is not None:
        raise ValueError(f"{call.kind} must not round, got rounding mode {call['rounding_mode']!r}")
    return call.builder.divide(call.name, call.operand("self"), call.operand("other"))


def negate(call: Call) -> Operand:
    """Change the sign."""
    return call.builder.scale(call.name, call.value("self"), np.asarray(-1.0), "Neg")


def extremum(call: Call) -> Operand:
    """Take the larger, or the smaller, of two arrays."""
    is_largest = call.kind in ("maximum", "max")
    return call.builder.extremum(call.name, call.operand("self"), call.operand("other"), is_largest)


def power(call: Call) -> Operand:
    """Raise to a constant power, or a constant to powers."""
    exponent = call.get("exponent", 2)
    if isinstance(exponent, Value):
        base = call.array("self")
        if base is None or not (base > 0).all():
            raise ValueError(f"{call.kind} must have a constant exponent, or a base that is positive and constant")
        x = call.builder.scale(f"{call.name}/log", exponent, np.log(base))
        return call.builder.elementwise(call.name, x, elementary.exp)
    numbers = np.unique(as_array(exponent))
    if len(numbers) != 1:
        raise ValueError(f"{call.kind} must have one exponent for all numbers, got {len(numbers)}")
    return call.builder.elementwise(call.name, call.value("self"), elementary.power(float(numbers[0])))


# Sums


def _axes(call: Call, x: Value) -> Sequence[int]:
    axes = call.get("dim")
    given = [axes] if isinstance(axes, int) else axes
    return tuple(given) if given else tuple(range(len(x.shape)))


def reduce(call: Call) -> Operand:
    """Take sums, or means, along axes."""
    x, is_mean = call.value("self"), call.kind == "mean"
    op = "ReduceMean" if is_mean else "ReduceSum"
    return call.builder.reduce(call.name, op, x, _axes(call, x), bool(call.get("keepdim")), is_mean)


def cumulate(call: Call) -> Value:
    """Take running sums along an axis."""
    x, axis = call.value("self"), call["dim"]
    return call.builder.along(call.name, "CumSum", x, {axis: np.tri(x.shape[axis])})


def variance(call: Call) -> Any:
    """Take the mean of the squares of what differs from the mean, or its root."""
    x, b = call.value("self"), call.builder
    axes = _axes(call, x)
    count = prod(x.shape[axis] for axis in axes)
    correction = call.number("correction", 0.0 if call.get("unbiased") is False else 1.0)
    means = b.reduce(f"{call.name}/mean", "ReduceMean", x, axes, True, True)
    centred: Any = b.add(f"{call.name}/centre", x, means, -1.0)
    squares: Any = b.elementwise(f"{call.name}/square", centred, elementary.power(2))
    factor = np.asarray(1 / max(count - correction, 0))
    scaled: Any = b.scale(f"{call.name}/scale", squares, factor)
    result = b.reduce(call.name, "ReduceSum", scaled, axes, bool(call.get("keepdim")), False)
    return b.elementwise(f"{call.name}/root", result, elementary.sqrt) if call.kind == "std" else result


def _root(shape: tuple[int, ...]) -> Elementwise:
    """Return the square root, whose derivative is 0 at 0 as that of a norm."""
    return Elementwise("Sqrt", shape, np.sqrt, lambda x: np.where(x > 0, 0.5 / np.sqrt(x), 0.0), domain=(0.0, np.inf))


def norm(call: Call) -> Operand:
    """Take sums of magnitudes, or Euclidean norms."""
    x, b, order = call.value("self"), call.builder, call.number("ord", 2.0)
    if order not in (1.0, 2.0):
        raise ValueError(f"{call.kind} must have order 1 or 2, got {order:g}")
    make: Maker = elementary.absolute if order == 1 else elementary.power(2)
    parts: Any = b.elementwise(f"{call.name}/parts", x, make)
    sums = b.reduce(f"{call.name}/sum", "ReduceSum", parts, _axes(call, x), bool(call.get("keepdim")), False)
    return sums if order == 1 else b.elementwise(call.name, sums, _root)


def softmax(call: Call) -> Operand:
    """Take the shares of exponentials along an axis, or their logarithms."""
    x = call.value("self")
    take = call.builder.log_softmax if "log" in call.kind else call.builder.softmax
    return take(call.name, x, int(call["dim"]))


# Functions of one number


def clamp(call: Call) -> Operand:
    """Limit numbers; at the limits the derivative is 1."""
    x = call.value("self")
    low, high = call.array("min"), call.array("max")
    low = np.asarray(-np.inf) if low is None else low
    high = np.asarray(np.inf) if high is None else high
    if low.ndim == high.ndim == 0:
        return call.builder.elementwise(call.name, x, elementary.clip(float(low), float(high)))
    shape = np.broadcast_shapes(x.shape, low.shape, high.shape)
    function = Elementwise(
        "Clip",
        shape,
        lambda x, low, high: np.minimum(np.maximum(x, low), high),
        lambda x, low, high: (x >= low) & (x <= high),
        tuple(np.broadcast_to(each.astype(call.builder.dtype), shape) for each in (low, high)),
    )
    wide: Any = call.builder.broadcast(call.name, x, shape)
    return call.builder.function(call.name, [wide], function)


def hard_tanh(call: Call) -> Maker:
    """Limit numbers; at the limits the derivative is 0."""
    low, high = (0.0, 6.0) if call.kind == "relu6" else (call.number("min_val", -1.0), call.number("max_val"))
    return elementary.clip(low, high, is_open=True)


def prelu(call: Call) -> Operand:
    """Multiply numbers that are not positive by a slope for each channel."""
    x, slopes = call.value("self"), call.array("weight")
    assert slopes is not None
    if call.kind == "prelu" and slopes.size > 1:
        slopes = slopes.reshape(-1, *(1 for _ in x.shape[2:]))
    return call.builder.elementwise(call.name, x, elementary.prelu(slopes.astype(call.builder.dtype)))


def random_relu(call: Call) -> Maker:
    """Multiply numbers that are not positive by the mean slope."""
    if call.get("training"):
        raise ValueError(f"{call.kind} must be in evaluation mode, got one that is training")
    return elementary.leaky_relu((call.number("lower", 1 / 8) + call.number("upper", 1 / 3)) / 2)


def threshold(call: Call) -> Maker:
    """Return x where it is above a threshold, and a value elsewhere."""
    limit, other = call.number("threshold"), call.number("value")
    return lambda shape: Elementwise(
        "Threshold",
        shape,
        lambda x: np.where(x > limit, x, other),
        lambda x: x > limit,
        turns=(limit, float(np.nextafter(limit, np.inf))),
    )


def hard_shrink(call: Call) -> Maker:
    """Return x where its magnitude is above a limit, and 0 elsewhere."""
    limit = call.number("lambd", 0.5)
    return lambda shape: Elementwise(
        "Shrink", shape, lambda x: np.where(abs(x) > limit, x, 0), lambda x: abs(x) > limit
    )


def soft_shrink(call: Call) -> Maker:
    """Return x, less a limit towards 0."""
    limit = call.number("lambd", 0.5)

    def value(x: Array) -> Array:
        return np.where(abs(x) > limit, x - np.sign(x) * limit, 0)

    return lambda shape: Elementwise("Shrink", shape, value, lambda x: abs(x) > limit)


def _elu(call: Call) -> Maker:
    if call.kind == "celu":
        alpha = call.number("alpha")
        return elementary.elu(alpha, 1.0, 1 / alpha, op="Celu")
    return elementary.elu(call.number("alpha"), call.number("scale"), call.number("input_scale"))


def _log1p(shape: tuple[int, ...]) -> Elementwise:
    return Elementwise("Log1p", shape, np.log1p, lambda x: 1 / (1 + x), domain=(-1.0, np.inf))


def _expm1(shape: tuple[int, ...]) -> Elementwise:
    return Elementwise("Expm1", shape, np.expm1, np.exp)


def _plain(maker: Maker) -> Callable[[Call], Maker]:
    return lambda call: maker


FUNCTIONS: dict[str, Callable[[Call], Maker]] = {
    "relu": _plain(elementary.relu),
    "hardtanh": hard_tanh,
    "relu6": hard_tanh,
    "leaky_relu": lambda call: elementary.leaky_relu(call.number("negative_slope", 0.01)),
    "hardsigmoid": _plain(elementary.hard_sigmoid()),
    "hardswish": _plain(elementary.hard_swish),
    "threshold": threshold,
    "hardshrink": hard_shrink,
    "softshrink": soft_shrink,
    "abs": _plain(elementary.absolute),
    "sigmoid": _plain(elementary.sigmoid),
    "log_sigmoid": _plain(elementary.log_sigmoid),
    "tanh": _plain(elementary.tanh),
    "silu": _plain(elementary.silu),
    "gelu": lambda call: elementary.gelu(call.get("approximate", "none")),
    "rrelu": random_relu,
    "elu": _elu,
    "celu": _elu,
    "selu": _plain(elementary.selu),
    "softplus": lambda call: elementary.softplus(call.number("beta"), call.number("threshold", 20.0)),
    "mish": _plain(elementary.mish),
    "exp": _plain(elementary.exp),
    "expm1": _plain(_expm1),
    "log": _plain(elementary.log),
    "log1p": _plain(_log1p),
    "sqrt": _plain(elementary.sqrt),
    "rsqrt": _plain(elementary.reciprocal_sqrt),
    "reciprocal": _plain(elementary.reciprocal),
    "erf": _plain(elementary.error_function),
}


def function(call: Call) -> Operand:
    """Apply a function of one number."""
    return call.builder.elementwise(call.name, call.value("self"), FUNCTIONS[call.kind](call))


ARITHMETIC: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(FUNCTIONS, function),
    "log_sigmoid_forward": lambda call: {
        0: call.builder.elementwise(call.name, call.value("self"), elementary.log_sigmoid)
    },
    "rrelu_with_noise_functional": lambda call: {
        0: call.builder.elementwise(call.name, call.value("self"), random_relu(call))
    },
    **dict.fromkeys(["add", "sub", "subtract"], add),
    "rsub": subtract_from,
    **dict.fromkeys(["mul", "multiply"], multiply),
    **dict.fromkeys(["div", "divide", "true_divide"], divide),
    **dict.fromkeys(["neg", "negative"], negate),
    **dict.fromkeys(["maximum", "minimum"], extremum),
    **dict.fromkeys(["pow", "square"], power),
    **dict.fromkeys(["sum", "mean"], reduce),
    "cumsum": cumulate,
    **dict.fromkeys(["var", "std"], variance),
    "linalg_vector_norm": norm,
    **dict.fromkeys(["softmax", "_softmax", "log_softmax", "_log_softmax"], softmax),
    **dict.fromkeys(["clamp", "clamp_min", "clamp_max", "clip"], clamp),
    **dict.fromkeys(["prelu", "_prelu_kernel"], prelu),
}
