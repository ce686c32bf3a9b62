"""ONNX's layers: convolutions, products with matrices, normalisations, and what is made of these."""

from __future__ import annotations

from math import prod
from typing import Any, cast

import numpy as np
from scipy import sparse

from convmat.geometry import Array, IntArray
from convmat.networks import _elementary as elementary
from convmat.networks._builder import Builder, Operand, check_shape
from convmat.networks._maps import Diagonal, Shape
from convmat.networks._onnx_arithmetic import reshape
from convmat.networks._onnx_nodes import Node, Rule
from convmat.networks._onnx_pools import per_axis, windows
from convmat.networks._stages import Value


def convolve(builder: Builder, node: Node) -> Operand:
    """Convolve with a constant kernel."""
    x, kernel = node.value(), node.weights(1)
    found = windows(node, x, kernel.shape[2:])
    check_shape([max(0, each.outputs(False)) for each in found])
    return builder.convolve(
        node.name,
        x,
        kernel,
        node.constant(2),
        stride=tuple(each.stride for each in found),
        padding=tuple((each.before, each.after) for each in found),
        dilation=tuple(each.dilation for each in found),
        groups=node.get("group"),
    )


def convolve_transposed(builder: Builder, node: Node) -> Operand:
    """Apply the transpose of a convolution with a constant kernel."""
    x, kernel, bias = node.value(), node.weights(1), node.constant(2)
    taps, sizes = kernel.shape[2:], x.shape[2:]
    strides, dilations = per_axis(node, "strides", len(taps)), per_axis(node, "dilations", len(taps))
    if len(sizes) != len(taps) or not taps or min(*strides, *dilations, *taps) < 1:
        raise ValueError(
            f"{node} must have a kernel, strides and dilations for {len(sizes)} axes, got shape {kernel.shape}"
        )
    whole = [  # what the convolution's transpose reaches
        (size - 1) * stride + (count - 1) * dilation + 1
        for size, count, stride, dilation in zip(sizes, taps, strides, dilations, strict=True)
    ]
    before, outputs = _transposed_sizes(node, whole, strides)
    check_shape(outputs)
    # Where the convolution that is transposed would have one output more, zeros follow instead.
    reached = [
        min(output, size + stride - 1 - first)
        for output, size, stride, first in zip(outputs, whole, strides, before, strict=True)
    ]
    options: dict[str, Any] = {"stride": tuple(strides), "dilation": tuple(dilations), "groups": node.get("group")}
    options["padding"] = tuple(
        (first, max(0, size - output - first)) for first, size, output in zip(before, whole, reached, strict=True)
    )
    options["output_shape"] = reached
    if reached == outputs:
        return builder.convolve(node.name, x, kernel, bias, is_transposed=True, **options)
    found: Operand = builder.convolve(f"{node.name}/reached", x, kernel, is_transposed=True, **options)
    widths = [(0, 0), (0, 0), *((0, own - size) for own, size in zip(outputs, reached, strict=True))]
    found = builder.move(node.name, "Pad", lambda places: np.pad(places, widths, constant_values=-1), [found])
    return (
        found if bias is None else builder.shift(f"{node.name}/bias", found, np.reshape(bias, (-1, *(1 for _ in taps))))
    )


def _transposed_sizes(node: Node, whole: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
    """Return what is cut off before each axis of a transposed convolution, and the sizes of what is returned."""
    count = len(whole)
    more = per_axis(node, "output_padding", count, 0)
    mode = node.get("auto_pad", "NOTSET")
    outputs = list(node.get("output_shape") or [])[-count:]  # which the oldest versions give with batch and channels
    if not outputs and mode in ("SAME_UPPER", "SAME_LOWER"):
        outputs = [size * stride for size, stride in zip(node.value().shape[2:], strides, strict=True)]
    if outputs:
        sums = [max(0, size + extra - own) for size, extra, own in zip(whole, more, outputs, strict=True)]
        return [each // 2 if mode == "SAME_UPPER" else each - each // 2 for each in sums], outputs
    pads = [0] * (2 * count) if mode == "VALID" else per_axis(node, "pads", 2 * count, 0)
    if mode not in ("VALID", "NOTSET") or min(*pads, *more) < 0:
        raise ValueError(f"{node} must have a known auto_pad and no negative pads, got {mode} and {pads}")
    ends = zip(whole, more, pads[:count], pads[count:], strict=True)
    return pads[:count], [size + extra - first - last for size, extra, first, last in ends]


def gemm(builder: Builder, node: Node) -> Operand:
    """Multiply two matrices, one of them constant, and add."""
    first, second = (
        _transposed(builder, f"{node.name}/transpose", node.operand(index)) if node.get(flag) else node.operand(index)
        for index, flag in enumerate(("transA", "transB"))
    )
    alpha, beta = node.get("alpha"), node.get("beta")
    added = node.input(2)
    if isinstance(first, Value):
        second = _scaled(node, second, alpha)
    else:
        first = _scaled(node, first, alpha)
    if added is None or beta == 0:
        return product(builder, node, node.name, first, second)
    if isinstance(added, Value):
        found = product(builder, node, f"{node.name}/product", first, second)
        return builder.add(node.name, found, builder.scale(f"{node.name}/beta", added, np.asarray(beta)))
    return product(builder, node, node.name, first, second, np.multiply(added, beta, dtype=np.float64))


def _scaled(node: Node, weights: Operand, alpha: float) -> Operand:
    if isinstance(weights, Value):
        raise ValueError(f"{node} must have a constant factor, got two that depend on the network's input")
    return weights if alpha == 1 else np.multiply(weights, alpha, dtype=np.float64)


def _transposed(builder: Builder, name: str, x: Operand) -> Operand:
    """Exchange the last two axes."""
    if not isinstance(x, Value):
        return np.swapaxes(x, -1, -2)
    return builder.move(name, "Transpose", lambda places: places.swapaxes(-1, -2), [x])


def matmul(builder: Builder, node: Node) -> Operand:
    """Multiply two matrices, or stacks of them."""
    return product(builder, node, node.name, node.operand(0), node.operand(1))


def product(
    builder: Builder, node: Node, name: str, first: Operand, second: Operand, offset: Array | None = None
) -> Operand:
    """Multiply matrices, as NumPy's matmul does, and add a constant."""
    if isinstance(first, Value) and isinstance(second, Value):
        both = builder.matmul(name, first, second)
        return both if offset is None else builder.shift(name, both, offset, node.op)
    is_left = isinstance(first, Value)
    x, weights = (first, second) if is_left else (second, first)
    if not isinstance(x, Value) or isinstance(weights, Value):
        raise ValueError(f"{node} must have a factor that depends on the network's input, got two constants")
    left = first.shape if len(first.shape) > 1 else (1, *first.shape)
    right = second.shape if len(second.shape) > 1 else (*second.shape, 1)
    if left[-1] != right[-2] or not (first.shape and second.shape):
        raise ValueError(f"{node} must have matrices that fit together, got shapes {first.shape} and {second.shape}")
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    full = check_shape((*batch, left[-2], right[-1]))
    shape = (*batch, *left[-2:-1][: len(first.shape) - 1], *right[-1:][: len(second.shape) - 1])
    own, matrix = (
        (left, np.asarray(weights, builder.dtype).reshape(right)) if is_left else (right, weights.reshape(left))
    )
    found: Operand
    if prod(matrix.shape[:-2]) == 1:
        x = cast(Value, reshape(builder, f"{name}/reshape", x, (1,) * (len(full) - len(own)) + own))
        matrix = matrix.reshape(matrix.shape[-2:])
        inside = offset if shape == full else None
        factors = {-1: matrix.T} if is_left else {-2: matrix}
        found = reshape(builder, f"{name}/squeeze", builder.along(name, node.op, x, factors, inside), shape)
        return found if inside is offset else builder.shift(name, found, np.asarray(offset), node.op)
    found = reshape(builder, f"{name}/squeeze", _stacked(builder, name, x, matrix, is_left, full), shape)
    return found if offset is None else builder.shift(name, found, offset, node.op)


def _stacked(builder: Builder, name: str, x: Value, matrix: Array, is_left: bool, full: Shape) -> Operand:
    """Multiply by a matrix of its own for each place of the outer axes: a convolution with 1 tap and a group for each."""
    batch, count = full[:-2], prod(full[:-2])
    inner = matrix.shape[-2 if is_left else -1]
    outer = full[-2] if is_left else full[-1]
    own = (*batch, outer, inner) if is_left else (*batch, inner, outer)

    def lined_up(places: IntArray) -> IntArray:
        wide = np.broadcast_to(places.reshape(*x.shape[:-2], *own[-2:]), own).reshape(count, *own[-2:])
        return (wide.swapaxes(1, 2) if is_left else wide).reshape(1, count * inner, outer)

    lines = cast(Value, builder.move(f"{name}/lines", "Transpose", lined_up, [x]))
    rows = matrix.swapaxes(-1, -2) if is_left else matrix
    stacks = np.broadcast_to(rows, (*batch, *rows.shape[-2:]))
    found = builder.convolve(name, lines, stacks.reshape(-1, inner, 1), groups=count)
    if not is_left:
        return reshape(builder, f"{name}/reshape", found, full)
    return builder.move(
        f"{name}/back", "Transpose", lambda p: p.reshape(count, full[-1], outer).swapaxes(1, 2).reshape(full), [found]
    )


def rescale(builder: Builder, name: str, op: str, x: Value, factors: Array | None, offset: Array | None) -> Value:
    """Multiply and add numbers that are repeated from the right, in one stage."""
    if factors is None and offset is None:
        return x
    own = np.asarray(1.0 if factors is None else factors, builder.dtype)
    return builder.affine(name, op, [x], [Diagonal(np.broadcast_to(own, x.shape))], offset)


def _by_channel(x: Value, numbers: Array | None) -> Array | None:
    return None if numbers is None else np.reshape(numbers, (-1, *(1 for _ in x.shape[2:])))


def batch_norm(builder: Builder, node: Node) -> Operand:
    """Multiply and add what fixed statistics say."""
    x = node.value()
    if node.get("training_mode", 0) or node.get("spatial", 1) != 1 or (node.version < 7 and not node.get("is_test")):
        raise ValueError(f"{node} must be that of a trained network, with statistics for each channel, got another one")
    node.refuse_outputs()
    scale, shift, mean, variance = (np.asarray(node.weights(index), np.float64) for index in (1, 2, 3, 4))
    factors = scale / np.sqrt(variance + node.get("epsilon"))
    return rescale(builder, node.name, node.op, x, _by_channel(x, factors), _by_channel(x, shift - mean * factors))


def instance_norm(builder: Builder, node: Node) -> Operand:
    """Normalise each channel of each image."""
    if node.version < 6:
        raise ValueError(f"{node} must be of version 6 or later, got {node.version}")
    x = node.value()
    found = builder.normalise(f"{node.name}/normalise", node.op, x, range(2, len(x.shape)), node.get("epsilon"))
    return rescale(builder, node.name, node.op, found, _by_channel(x, node.weights(1)), _by_channel(x, node.weights(2)))


def layer_norm(builder: Builder, node: Node) -> Operand:
    """Normalise the last axes."""
    node.refuse_outputs()
    x = node.value()
    axes = range(_axis(node, x, node.get("axis")), len(x.shape))
    found = builder.normalise(f"{node.name}/normalise", node.op, x, axes, node.get("epsilon"))
    return rescale(builder, node.name, node.op, found, node.weights(1), node.constant(2))


def _axis(node: Node, x: Value, axis: int) -> int:
    if not -len(x.shape) <= axis <= len(x.shape):
        raise ValueError(f"{node} must have an axis of {len(x.shape)}, got {axis}")
    return axis if axis >= 0 else axis + len(x.shape)


def group_norm(builder: Builder, node: Node) -> Operand:
    """Normalise groups of channels; before version 21, factors are for groups."""
    x, groups = node.value(), node.get("num_groups")
    scale, shift = node.weights(1), node.weights(2)
    if node.version < 21:
        scale, shift = (np.repeat(each, x.shape[1] // groups) for each in (scale, shift))
    wide = cast(Value, reshape(builder, f"{node.name}/groups", x, (x.shape[0], groups, prod(x.shape[1:]) // groups)))
    found: Operand = builder.normalise(f"{node.name}/normalise", node.op, wide, (2,), node.get("epsilon"))
    found = reshape(builder, f"{node.name}/channels", found, x.shape)
    return rescale(builder, node.name, node.op, cast(Value, found), _by_channel(x, scale), _by_channel(x, shift))


def mean_variance_norm(builder: Builder, node: Node) -> Operand:
    """Normalise the numbers along axes."""
    return builder.normalise(node.name, node.op, node.value(), node.get("axes", [0, 2, 3]), 1e-9)


def root_mean_square_norm(builder: Builder, node: Node) -> Operand:
    """Divide by the root of the mean square of the last axes."""
    x, name = node.value(), node.name
    squares = cast(Value, builder.elementwise(f"{name}/square", x, elementary.power(2)))
    axes = range(_axis(node, x, node.get("axis")), len(x.shape))
    means = builder.reduce(f"{name}/mean", "ReduceMean", squares, axes, True, True)
    shifted = builder.shift(f"{name}/epsilon", means, np.asarray(node.get("epsilon")))
    inverse = builder.elementwise(f"{name}/root", shifted, elementary.reciprocal_sqrt)
    return rescale(
        builder, name, node.op, cast(Value, builder.multiply(f"{name}/divide", x, inverse)), node.weights(1), None
    )


def local_response_norm(builder: Builder, node: Node) -> Operand:
    """Divide by a power of the mean square of neighbouring channels."""
    x, name, size = node.value(), node.name, node.get("size")
    channels = np.arange(x.shape[1])
    distance = channels - channels[:, None]
    near = (distance >= -((size - 1) // 2)) & (distance <= size // 2)
    squares = cast(Value, builder.elementwise(f"{name}/square", x, elementary.power(2)))
    matrix = sparse.csr_array(near * (node.get("alpha") / size))
    sums = builder.along(f"{name}/sum", node.op, squares, {1: matrix}, np.full(x.shape, node.get("bias")))
    powers = builder.elementwise(f"{name}/power", sums, elementary.power(-float(node.get("beta"))))
    return builder.multiply(name, x, powers)


def softmax(builder: Builder, node: Node) -> Operand:
    """Take shares, or their logarithms; before version 13, of all numbers from an axis on."""
    x = node.value()
    axis = _axis(node, x, node.get("axis"))
    own = x
    if node.version < 13:
        own = cast(Value, reshape(builder, f"{node.name}/flatten", x, (prod(x.shape[:axis]), prod(x.shape[axis:]))))
        axis = 1
    found: Operand = (builder.log_softmax if node.op == "LogSoftmax" else builder.softmax)(node.name, own, axis)
    return reshape(builder, f"{node.name}/reshape", found, x.shape)


LAYERS: dict[str, Rule] = {
    "BatchNormalization": batch_norm,
    "Conv": convolve,
    "ConvTranspose": convolve_transposed,
    "Gemm": gemm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response_norm,
    "LayerNormalization": layer_norm,
    "LogSoftmax": softmax,
    "MatMul": matmul,
    "MeanVarianceNormalization": mean_variance_norm,
    "RMSNormalization": root_mean_square_norm,
    "Softmax": softmax,
}
