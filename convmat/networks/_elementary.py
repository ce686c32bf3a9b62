"""The functions of numbers that networks use, each as a function of the array's shape.

Derivatives at kinks are those of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import erf, expit, log_expit, log_ndtr, ndtr

from convmat.geometry import Array
from convmat.networks._functions import Elementwise

Maker = Callable[[tuple[int, ...]], Elementwise]
_SILU_TURN = -1.2784645427610738  # where the derivative is zero, of x·sigmoid(x),
_GELU_TURN = -0.7517915246935645  # of x·Φ(x),
_TANH_GELU_TURN = -0.7524614220710162  # of its approximation by tanh,
_MISH_TURN = -1.1924561570790055  # and of x·tanh(softplus(x))
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _density(x: Array) -> Array:
    result: Array = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    return result


def relu(shape: tuple[int, ...]) -> Elementwise:
    """Return max(x, 0)."""
    return Elementwise("Relu", shape, lambda x: np.maximum(x, 0), lambda x: x > 0, slope_range=(0.0, 1.0))


def leaky_relu(slope: float, op: str = "LeakyRelu") -> Maker:
    """Return x, times a slope where it is not positive."""
    turns = (0.0,) if slope < 0 else ()
    return lambda shape: Elementwise(
        op,
        shape,
        lambda x, a: np.where(x > 0, x, a * x),
        lambda x, a: np.where(x > 0, 1.0, a),
        (slope,),
        turns,
        slope_range=(min(slope, 1.0), max(slope, 1.0)),
    )


def prelu(slopes: Array) -> Maker:
    """Return x, times a slope of its own where it is not positive; `slopes` are broadcast from the right."""
    return lambda shape: Elementwise(
        "PRelu",
        shape,
        lambda x, a: np.where(x > 0, x, a * x),
        lambda x, a: np.where(x > 0, 1.0, a),
        (np.broadcast_to(slopes, shape),),
        (0.0,),
        slope_range=(float(np.min(slopes, initial=1.0)), float(np.max(slopes, initial=1.0))),
    )


def clip(low: float, high: float, is_open: bool = False) -> Maker:
    """Return x between two bounds; at these the derivative is 1, or 0 if `is_open`, as of PyTorch's hardtanh."""

    def slope(x: Array) -> Array:
        return (x > low) & (x < high) if is_open else (x >= low) & (x <= high)

    return lambda shape: Elementwise("Clip", shape, lambda x: np.clip(x, low, high), slope, slope_range=(0.0, 1.0))


def hard_sigmoid(alpha: float = 1 / 6, beta: float = 0.5) -> Maker:
    """Return alpha·x + beta between 0 and 1."""

    def slope(x: Array) -> Array:
        value = alpha * x + beta
        return np.where((value > 0) & (value < 1), alpha, 0.0)

    return lambda shape: Elementwise(
        "HardSigmoid",
        shape,
        lambda x: np.clip(alpha * x + beta, 0, 1),
        slope,
        slope_range=(min(alpha, 0.0), max(alpha, 0.0)),
        cancels=True,
    )


def hard_swish(shape: tuple[int, ...]) -> Elementwise:
    """Return x·clip(x/6 + 1/2, 0, 1)."""

    def slope(x: Array) -> Array:
        return np.where(x <= -3, 0.0, np.where(x < 3, x / 3 + 0.5, 1.0))

    return Elementwise(
        "HardSwish",
        shape,
        lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        slope,
        turns=(-1.5, -3.0),
        slope_range=(-0.5, 1.5),
        cancels=True,
    )


def absolute(shape: tuple[int, ...]) -> Elementwise:
    """Return |x|."""
    return Elementwise("Abs", shape, np.abs, np.sign, turns=(0.0,), slope_range=(-1.0, 1.0))


def sigmoid(shape: tuple[int, ...]) -> Elementwise:
    """Return 1/(1 + e⁻ˣ)."""
    return Elementwise("Sigmoid", shape, expit, lambda x: expit(x) * expit(-x), slope_range=(0.0, 0.25))


def log_sigmoid(shape: tuple[int, ...]) -> Elementwise:
    """Return log(1/(1 + e⁻ˣ))."""
    return Elementwise("LogSigmoid", shape, log_expit, lambda x: expit(-x), slope_range=(0.0, 1.0))


def tanh(shape: tuple[int, ...]) -> Elementwise:
    """Return tanh(x)."""
    return Elementwise("Tanh", shape, np.tanh, lambda x: 1 / np.cosh(x) ** 2, slope_range=(0.0, 1.0))


def silu(shape: tuple[int, ...]) -> Elementwise:
    """Return x·sigmoid(x)."""

    def slope(x: Array) -> Array:
        own = expit(x)
        result: Array = own * (1 + x * expit(-x))
        return result

    return Elementwise("Silu", shape, lambda x: x * expit(x), slope, turns=(_SILU_TURN,), slope_range=(-0.0999, 1.0999))


def gelu(approximate: str = "none") -> Maker:
    """Return x·Φ(x), with the normal distribution's Φ, or its approximation by tanh."""
    if approximate == "none":
        return lambda shape: Elementwise(
            "Gelu",
            shape,
            lambda x: x * ndtr(x),
            lambda x: ndtr(x) + x * _density(x),
            turns=(_GELU_TURN,),
            slope_range=(-0.1290, 1.1290),
            cancels=True,
        )
    scale = np.sqrt(2 / np.pi)

    def slope(x: Array) -> Array:
        inner = np.tanh(scale * (x + 0.044715 * x**3))
        result: Array = 0.5 * (1 + inner) + 0.5 * x * (1 - inner**2) * scale * (1 + 3 * 0.044715 * x**2)
        return result

    return lambda shape: Elementwise(
        "Gelu",
        shape,
        lambda x: 0.5 * x * (1 + np.tanh(scale * (x + 0.044715 * x**3))),
        slope,
        turns=(_TANH_GELU_TURN,),
        slope_range=(-0.1300, 1.1300),
        cancels=True,
    )


def softplus(beta: float = 1.0, threshold: float = np.inf) -> Maker:
    """Return log(1 + e^(βx))/β, or x where βx is above a threshold."""

    def value(x: Array) -> Array:
        return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)

    def slope(x: Array) -> Array:
        return np.where(beta * x > threshold, 1.0, expit(beta * x))

    return lambda shape: Elementwise("Softplus", shape, value, slope, slope_range=(0.0, 1.0))


def elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0, op: str = "Elu") -> Maker:
    """Return scale·x where it is positive, and scale·alpha·(exp(input_scale·x) − 1) elsewhere."""

    def value(x: Array) -> Array:
        return np.where(x > 0, scale * x, scale * alpha * np.expm1(np.minimum(x, 0) * input_scale))

    def slope(x: Array) -> Array:
        return np.where(x > 0, scale, scale * alpha * input_scale * np.exp(np.minimum(x, 0) * input_scale))

    ends = scale, scale * alpha * input_scale, 0.0
    return lambda shape: Elementwise(op, shape, value, slope, turns=(0.0,), slope_range=(min(ends), max(ends)))


def selu(shape: tuple[int, ...]) -> Elementwise:
    """Return the self-normalising exponential linear unit (Klambauer et al. 2017)."""
    return elu(_SELU_ALPHA, _SELU_SCALE, op="Selu")(shape)


def mish(shape: tuple[int, ...]) -> Elementwise:
    """Return x·tanh(log(1 + eˣ))."""

    def slope(x: Array) -> Array:
        inner = np.tanh(np.logaddexp(0, x))
        result: Array = inner + x * (1 - inner**2) * expit(x)
        return result

    return Elementwise(
        "Mish",
        shape,
        lambda x: x * np.tanh(np.logaddexp(0, x)),
        slope,
        turns=(_MISH_TURN,),
        slope_range=(-0.1126, 1.0885),
    )


def softsign(shape: tuple[int, ...]) -> Elementwise:
    """Return x/(1 + |x|)."""
    return Elementwise(
        "Softsign", shape, lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2, slope_range=(0.0, 1.0)
    )


def exp(shape: tuple[int, ...]) -> Elementwise:
    """Return eˣ."""
    return Elementwise("Exp", shape, np.exp, np.exp)


def log(shape: tuple[int, ...]) -> Elementwise:
    """Return the natural logarithm."""
    return Elementwise("Log", shape, np.log, lambda x: 1 / x, domain=(0.0, np.inf))


def error_function(shape: tuple[int, ...]) -> Elementwise:
    """Return erf(x)."""
    return Elementwise("Erf", shape, erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x), slope_range=(0.0, 1.1284))


def log_normal(shape: tuple[int, ...]) -> Elementwise:
    """Return log Φ(x)."""
    return Elementwise("LogNdtr", shape, log_ndtr, lambda x: np.exp(-0.5 * x * x - log_ndtr(x)) / np.sqrt(2 * np.pi))


def sqrt(shape: tuple[int, ...]) -> Elementwise:
    """Return the square root."""
    return Elementwise("Sqrt", shape, np.sqrt, lambda x: 0.5 / np.sqrt(x), domain=(0.0, np.inf))


def reciprocal(shape: tuple[int, ...]) -> Elementwise:
    """Return 1/x."""
    return Elementwise("Reciprocal", shape, lambda x: 1 / x, lambda x: -1 / x**2, pole=0.0)


def reciprocal_sqrt(shape: tuple[int, ...]) -> Elementwise:
    """Return 1/√x."""
    return Elementwise(
        "Rsqrt", shape, lambda x: 1 / np.sqrt(x), lambda x: -0.5 / (x * np.sqrt(x)), domain=(0.0, np.inf), pole=0.0
    )


def power(exponent: float) -> Maker:
    """Return x to a constant power."""
    whole = float(exponent).is_integer()
    options: dict[str, Any] = {"turns": (0.0,)} if whole else {"domain": (0.0, np.inf)}
    if exponent < 0:
        options["pole"] = 0.0

    def slope(x: Array) -> Array:
        return np.zeros_like(x) if exponent == 0 else exponent * np.power(x, exponent - 1)

    return lambda shape: Elementwise("Pow", shape, lambda x: np.power(x, x.dtype.type(exponent)), slope, **options)
