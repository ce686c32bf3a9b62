"""Layers of PyTorch that are affine, and those that pool or normalise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from convmat.geometry import Array, Axis
from convmat.networks._builder import Operand
from convmat.networks._maps import Diagonal
from convmat.networks._stages import Value
from convmat.networks._torch_calls import Call, load_torch

# Convolutions


def _per_axis(given: Any, count: int, default: int = 1) -> list[int]:
    """Return one number for each axis."""
    numbers = given if isinstance(given, (list, tuple)) else [given]
    own = [int(each) for each in numbers] or [default]
    return own * count if len(own) == 1 else own


def convolve(call: Call) -> Value:
    """Convolve, or transpose that."""
    x, kernel, bias = call.value("input"), call.array("weight"), call.array("bias")
    assert kernel is not None
    count = kernel.ndim - 2
    options: dict[str, Any] = {key: _per_axis(call[key], count) for key in ("stride", "dilation")}
    is_transposed = "transpose" in call.kind or bool(call.get("transposed"))
    padding = call["padding"]
    if isinstance(padding, str):
        reaches = [
            each * (size - 1) if padding == "same" else 0
            for each, size in zip(options["dilation"], kernel.shape[2:], strict=True)
        ]
        pairs = [(reach // 2, reach - reach // 2) for reach in reaches]
    else:
        pairs = [(each, each) for each in _per_axis(padding, count)]
    if is_transposed:
        return _convolve_transposed(call, x, kernel, bias, pairs, options)
    return call.builder.convolve(call.name, x, kernel, bias, padding=pairs, groups=int(call["groups"]), **options)


def _convolve_transposed(
    call: Call, x: Value, kernel: Array, bias: Array | None, pairs: list[tuple[int, int]], options: dict[str, Any]
) -> Value:
    """Transpose a convolution. What `output_padding` adds reads the padding first, and what lies behind it is zero."""
    count, groups = kernel.ndim - 2, int(call["groups"])
    rests = _per_axis(call["output_padding"], count)
    own = []
    for axis, (before, after) in enumerate(pairs):
        extra = min(rests[axis], after)
        rests[axis] -= extra
        own.append((before, after - extra))
    fits = all(rest < stride for rest, stride in zip(rests, options["stride"], strict=True))
    if fits:
        options = {**options, "output_padding": rests}
    result = call.builder.convolve(
        call.name, x, kernel, bias if fits else None, is_transposed=True, padding=own, groups=groups, **options
    )
    if fits:
        return result
    widths = [(0, 0)] * (len(result.shape) - count) + [(0, rest) for rest in rests]
    padded = call.moved(result, "Pad", lambda places: np.pad(places, widths, constant_values=-1))
    if bias is not None:
        padded = call.builder.shift(f"{call.name}/bias", padded, bias.reshape(-1, *(1 for _ in range(count))))
    return padded  # type: ignore[return-value]


def fold(call: Call) -> Operand:
    """Sum overlapping patches: a transposed convolution whose kernels are ones."""
    x = call.value("self")
    size = _per_axis(call["kernel_size"], 2)
    options = {key: _per_axis(call[key], 2) for key in ("stride", "dilation", "padding")}
    output = _per_axis(call["output_size"], 2)
    spans = zip(output, size, options["stride"], options["dilation"], options["padding"], strict=True)
    blocks = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, d, p in spans]
    taps = size[0] * size[1]
    channels = x.shape[-2] // taps
    kernel = np.tile(np.eye(taps).reshape(taps, 1, *size), (channels, 1, 1, 1))
    patches = call.reshaped(x, (*x.shape[:-1], *blocks))
    pairs = [(each, each) for each in options.pop("padding")]
    return call.builder.convolve(
        call.name,
        patches,  # type: ignore[arg-type]
        kernel,
        is_transposed=True,
        groups=channels,
        padding=pairs,
        output_shape=output,
        **options,  # type: ignore[arg-type]
    )


# Products with matrices


# What pools


def _axis_factors(x: Value, count: int, make: Callable[[int, Any], Any]) -> dict[int, sparse.csr_array]:
    """Return the matrix of each of the last axes: what an operation makes of the identity, (n, 1, n, 1) to (n, 1, m, 1)."""
    torch = load_torch()
    factors = {}
    for number in range(count):
        size = x.shape[number - count]
        lines = torch.eye(size, dtype=torch.float64).reshape(size, 1, size, 1)
        result = make(number, lines).reshape(size, -1).numpy()
        factors[number - count] = sparse.csr_array(result.T)
    return factors


def average_pool(call: Call) -> Value:
    """Take the mean of each window."""
    torch = load_torch()
    x, count = call.value("self"), int(call.kind[-2])
    size = _per_axis(call["kernel_size"], count)
    stride = _per_axis(call["stride"] or size, count)
    padding = _per_axis(call["padding"], count)
    divisor = call.get("divisor_override")

    def pool(number: int, lines: Any) -> Any:
        options = [size[number], 1], [stride[number], 1], [padding[number], 0]
        result = torch.ops.aten.avg_pool2d(
            lines, *options, call["ceil_mode"], call["count_include_pad"], 1 if divisor else None
        )
        return result / divisor if divisor and number == 0 else result

    return call.builder.along(call.name, "AveragePool", x, _axis_factors(x, count, pool))


def adaptive_average_pool(call: Call) -> Value:
    """Take the mean of each window, so many of them."""
    torch = load_torch()
    x, count = call.value("self"), int(call.kind[-2])
    shape = call.result_shape()[-count:]

    def pool(number: int, lines: Any) -> Any:
        return torch.ops.aten.adaptive_avg_pool2d(lines, [shape[number], 1])

    return call.builder.along(call.name, "AveragePool", x, _axis_factors(x, count, pool))


def resize(call: Call) -> Value:
    """Interpolate, axis by axis."""
    torch = load_torch()
    x = call.value("input" if "input" in call.arguments else "self")
    kind = call.kind.removesuffix("_aa").removesuffix("_vec")
    count = int(kind[-2])
    shape = call.result_shape()[-count:]
    scales = call.get("scale_factors")
    if scales is None:
        names = ["scales"] if count == 1 else [f"scales_{letter}" for letter in "dhw"[-count:]]
        scales = [call.get(name) for name in names]
    base = {1: "upsample_bilinear2d", 2: call.kind, 3: "upsample_bilinear2d"}[count]
    op = getattr(torch.ops.aten, base).default

    def interpolate(number: int, lines: Any) -> Any:
        # With one column PyTorch 2.13 returns the first line everywhere, if it is to filter.
        pairs = lines.repeat(1, 1, 1, 2)
        return op(pairs, [shape[number], 2], call["align_corners"], scales[number], None)[..., 0]

    return call.builder.along(call.name, "Resize", x, _axis_factors(x, count, interpolate))


def max_pool(call: Call) -> Any:
    """Take the largest number of each window; only the values are known, not where they are from."""
    x = call.value("self")
    count = int(call.kind.removesuffix("_with_indices")[-2])
    size = _per_axis(call["kernel_size"], count)
    stride = _per_axis(call["stride"] or size, count)
    padding, dilation = _per_axis(call["padding"], count), _per_axis(call["dilation"], count)
    axes = []
    for number, outputs in enumerate(call.result_shape()[-count:]):
        sizes = x.shape[number - count], size[number], stride[number], padding[number]
        after = max(0, (outputs - 1) * sizes[2] - sizes[3] + dilation[number] * (sizes[1] - 1) + 1 - sizes[0])
        axes.append(Axis(*sizes, max(after, sizes[3]), dilation[number], outputs))
    result = call.builder.max_pool(call.name, x, axes)
    return {0: result} if call.kind.endswith("_with_indices") else result


def adaptive_max_pool(call: Call) -> dict[int, Value]:
    """Take the largest number of each window, so many of them; they must have one size."""
    x, count = call.value("self"), int(call.kind[-2])
    shape = call.result_shape()[-count:]
    axes = []
    for size, outputs in zip(x.shape[-count:], shape, strict=True):
        if size % outputs:
            raise ValueError(f"{call.kind} must have windows of one size, got {outputs} for {size} numbers")
        axes.append(Axis(size, size // outputs, size // outputs, 0, 0, 1, outputs))
    return {0: call.builder.max_pool(call.name, x, axes)}


def largest(call: Call) -> Any:
    """Take the largest number along an axis, or the smallest; of equal ones it is the first."""
    if "dim" not in call.arguments:
        if "other" in call.arguments:
            return call.builder.extremum(call.name, call.operand("self"), call.operand("other"), call.kind == "max")
        raise ValueError(f"{call.kind} must be along an axis, got one of all numbers")
    x, axis = call.value("self"), int(call["dim"])
    axis %= len(x.shape)
    sign = np.asarray(1.0 if call.kind == "max" else -1.0)
    last: Any = call.moved(x, "Transpose", lambda places: np.moveaxis(places, axis, -1))
    if sign < 0:
        last = call.builder.scale(f"{call.name}/negate", last, sign, "Neg")
    result: Any = call.builder.max_pool(call.name, last, [Axis(x.shape[axis], x.shape[axis], 1, 0, 0, 1, 1)])
    if sign < 0:
        result = call.builder.scale(f"{call.name}/back", result, sign, "Neg")
    return {0: call.reshaped(result, call.result_shape())}


# What normalises


def _scale_shift(call: Call, x: Value, factors: Array | None, offset: Array | None) -> Value:
    """Multiply by constants, and add some; both are broadcast from the right."""
    if factors is None and offset is None:
        return x
    own = np.broadcast_to(np.asarray(1.0 if factors is None else factors, call.builder.dtype), x.shape)
    return call.builder.affine(f"{call.name}/affine", "Mul", [x], [Diagonal(own)], offset)


def _by_channel(numbers: Array | None, x: Value) -> Array | None:
    return None if numbers is None else numbers.reshape(-1, *(1 for _ in x.shape[2:]))


def batch_norm(call: Call) -> dict[int, Value] | Value:
    """Multiply and add a number for each channel."""
    mean, variance = call.array("running_mean"), call.array("running_var")
    if call.get("training", call.get("use_input_stats", False)) or mean is None or variance is None:
        raise ValueError(
            f"{call.kind} must use the statistics that it has learned, got one that takes them from its input"
        )
    weight, bias = call.array("weight"), call.array("bias")
    factors = 1 / np.sqrt(variance + call.number("eps", call.number("epsilon")))
    factors = factors if weight is None else factors * weight
    offset = -mean * factors if bias is None else bias - mean * factors
    result = call.builder.normalise_channels(call.name, call.value("input"), factors, offset)
    return result if call.kind in ("batch_norm", "instance_norm") else {0: result}


def instance_norm(call: Call) -> Any:
    """Normalise each channel."""
    if not call["use_input_stats"]:
        return batch_norm(call)
    x = call.value("input")
    axes = range(2, len(x.shape))
    own = call.builder.normalise(call.name, "InstanceNormalization", x, tuple(axes), call.number("eps"))
    return _scale_shift(call, own, _by_channel(call.array("weight"), x), _by_channel(call.array("bias"), x))


def layer_norm(call: Call) -> dict[int, Value] | Value:
    """Normalise the last axes."""
    x, count = call.value("input"), len(call["normalized_shape"])
    axes = tuple(range(len(x.shape) - count, len(x.shape)))
    own = call.builder.normalise(call.name, "LayerNormalization", x, axes, call.number("eps"))
    result = _scale_shift(call, own, call.array("weight"), call.array("bias"))
    return {0: result} if call.kind.startswith("native") else result


def group_norm(call: Call) -> dict[int, Value] | Value:
    """Normalise groups of channels."""
    x = call.value("input")
    groups = int(call["group"] if "group" in call.arguments else call["num_groups"])
    lines: Any = call.reshaped(x, (x.shape[0], groups, -1))
    own = call.builder.normalise(call.name, "GroupNormalization", lines, (2,), call.number("eps"))
    back: Any = call.reshaped(own, x.shape)
    result = _scale_shift(call, back, _by_channel(call.array("weight"), x), _by_channel(call.array("bias"), x))
    return {0: result} if call.kind.startswith("native") else result


_DIMENSIONS = ("1d", "2d", "3d")


def _names(*forms: str) -> Sequence[str]:
    return [form.format(count) for form in forms for count in _DIMENSIONS]


LAYERS: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(["convolution", "_convolution", *_names("conv{}", "conv_transpose{}")], convolve),
    "col2im": fold,
    **dict.fromkeys(_names("avg_pool{}"), average_pool),
    **dict.fromkeys(_names("adaptive_avg_pool{}", "_adaptive_avg_pool{}"), adaptive_average_pool),
    **dict.fromkeys(_names("max_pool{}", "max_pool{}_with_indices"), max_pool),
    **dict.fromkeys(_names("adaptive_max_pool{}"), adaptive_max_pool),
    **dict.fromkeys(["max", "min"], largest),
    **dict.fromkeys(["upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"], resize),
    **dict.fromkeys(["_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa"], resize),
    **dict.fromkeys(["batch_norm", "native_batch_norm", "cudnn_batch_norm", "_batch_norm_no_update"], batch_norm),
    "_native_batch_norm_legit_no_training": batch_norm,
    "_native_batch_norm_legit": batch_norm,
    "instance_norm": instance_norm,
    **dict.fromkeys(["layer_norm", "native_layer_norm"], layer_norm),
    **dict.fromkeys(["group_norm", "native_group_norm"], group_norm),
}
