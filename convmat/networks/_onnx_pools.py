"""ONNX's windows, and its operators that pool them: the mean or the largest number of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from convmat.geometry import Axis
from convmat.networks._builder import Builder, Operand, check_shape
from convmat.networks._onnx_nodes import Node, Rule
from convmat.networks._stages import Value


@dataclass(frozen=True)
class Window:
    """The windows of an axis: their taps, what they step over, and the padding.

    Attributes
    ----------
    size, taps, stride, dilation, before, after : int
        Of the axis, as in a convolution.
    """

    size: int
    taps: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        """Distance from the first position of a window to the one after its last."""
        return (self.taps - 1) * self.dilation + 1

    def outputs(self, is_ceiled: bool) -> int:
        """Return how many windows there are; those that would begin after the padded input are left out."""
        room = self.size + self.before + self.after - self.reach
        if not is_ceiled:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        return count - 1 if (count - 1) * self.stride >= self.size + self.before else count


def windows(node: Node, x: Value, taps: Sequence[int]) -> list[Window]:
    """Return the windows of the spatial axes, the last ones of an array."""
    count = len(taps)
    sizes = x.shape[2:]
    if len(sizes) != count or not count:
        raise ValueError(f"{node} must have as many spatial axes as its kernel has, {count}, got input shape {x.shape}")
    strides, dilations = per_axis(node, "strides", count), per_axis(node, "dilations", count)
    if min(*strides, *dilations, *taps) < 1:
        raise ValueError(f"{node} must have positive kernel sizes, strides and dilations, got one that is not")
    mode, pads = node.get("auto_pad", "NOTSET"), per_axis(node, "pads", 2 * count, 0)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(sizes, taps, strides, dilations, mode == "SAME_UPPER")
    elif mode == "VALID":
        pads = [0] * (2 * count)
    elif mode != "NOTSET" or min(pads) < 0:
        raise ValueError(f"{node} must have a known auto_pad and no negative pads, got {mode} and {pads}")
    return [Window(*own) for own in zip(sizes, taps, strides, dilations, pads[:count], pads[count:], strict=True)]


def per_axis(node: Node, name: str, count: int, default: int = 1) -> list[int]:
    """Return an attribute that has a number for each axis."""
    given = list(node.get(name) or [default] * count)
    if len(given) != count:
        raise ValueError(f"{node} must have {count} {name}, got {given}")
    return given


def _same(
    sizes: Sequence[int], taps: Sequence[int], strides: Sequence[int], dilations: Sequence[int], is_upper: bool
) -> list[int]:
    """Return the pads with which there are ⌈size/stride⌉ windows; of an odd number, one more is at one side."""
    sums = [
        max(0, (-(-size // stride) - 1) * stride + (count - 1) * dilation + 1 - size)
        for size, count, stride, dilation in zip(sizes, taps, strides, dilations, strict=True)
    ]
    small, large = [each // 2 for each in sums], [each - each // 2 for each in sums]
    return small + large if is_upper else large + small


def _outputs(node: Node, found: Sequence[Window]) -> list[int]:
    is_ceiled = bool(node.get("ceil_mode", 0))
    outputs = [each.outputs(is_ceiled) for each in found]
    if min(outputs) < 1:
        raise ValueError(f"{node} must have a window that fits into its padded input, got {outputs} outputs")
    return outputs


def average(builder: Builder, node: Node) -> Operand:
    """Take the mean of each window, axis by axis."""
    x = node.value()
    found = windows(node, x, node.get("kernel_shape"))
    counts_padding = bool(node.get("count_include_pad", 0))
    factors = {
        axis: _means(own, outputs, counts_padding)
        for axis, (own, outputs) in enumerate(zip(found, _outputs(node, found), strict=True), 2)
    }
    return builder.along(node.name, node.op, x, factors)


def _means(window: Window, outputs: int, counts_padding: bool) -> sparse.csr_array:
    check_shape((outputs, window.taps))
    taps = np.arange(window.taps, dtype=np.int64) * window.dilation
    positions = np.arange(outputs, dtype=np.int64)[:, None] * window.stride - window.before + taps
    inside = (positions >= 0) & (positions < window.size)
    # What a window reads after the padding, where the number of windows was rounded up, is never counted.
    counted = positions < window.size + window.after if counts_padding else inside
    weights = np.broadcast_to(1 / np.maximum(counted.sum(axis=1, keepdims=True), 1), positions.shape)
    starts = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
    return sparse.csr_array((weights[inside], positions[inside], starts), shape=(outputs, window.size))


def largest(builder: Builder, node: Node) -> Operand:
    """Take the largest number of each window."""
    node.refuse_outputs()
    x = node.value()
    found = windows(node, x, node.get("kernel_shape"))
    axes = []
    for own, outputs in zip(found, _outputs(node, found), strict=True):
        check_shape((outputs, own.taps))
        after = max(own.after, (outputs - 1) * own.stride + own.reach - own.size - own.before)
        axes.append(Axis(own.size, own.taps, own.stride, own.before, after, own.dilation, outputs))
    return builder.max_pool(node.name, x, axes)


def average_all(builder: Builder, node: Node) -> Operand:
    """Take the mean of each channel."""
    x = node.value()
    return builder.reduce(node.name, node.op, x, range(2, len(x.shape)), True, True)


def largest_of_all(builder: Builder, node: Node) -> Operand:
    """Take the largest number of each channel."""
    x = node.value()
    return builder.max_pool(node.name, x, [Axis(size, size, 1, 0, 0, 1, 1) for size in x.shape[2:]])


POOLS: dict[str, Rule] = {
    "AveragePool": average,
    "GlobalAveragePool": average_all,
    "GlobalMaxPool": largest_of_all,
    "MaxPool": largest,
}
