"""ONNX's operators that only move numbers: ONNX's reference moves the numbers' places, once, and stages do the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from convmat._runtime import check_memory
from convmat.geometry import Array, IntArray
from convmat.networks._builder import Builder, Operand, check_shape
from convmat.networks._onnx_nodes import Node, Rule, evaluate
from convmat.networks._stages import Value

# Which inputs are the numbers that are moved; all of them for an empty tuple. Others are constants.
_MOVED: dict[str, tuple[int, ...]] = {
    "CenterCropPad": (0,),
    "Compress": (0,),
    "Concat": (),
    "DepthToSpace": (0,),
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Reshape": (0,),
    "ReverseSequence": (0,),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Slice": (0,),
    "SpaceToDepth": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Trilu": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}
_BYTES = 64  # that moving a number takes, for its places before and after


def move(builder: Builder, node: Node) -> tuple[Operand | None, ...]:
    """Move numbers as ONNX's reference does; where it puts zeros, zeros are put."""
    if node.get("reduction", "none") != "none":
        raise ValueError(f"{node} must put numbers in places without reduction, got {node.get('reduction')!r}")
    moved = _MOVED[node.op] or tuple(range(len(node.inputs)))
    operands = [node.operand(index) for index in moved]
    others = {index: node.constant(index) for index in range(len(node.inputs)) if index not in moved}
    _check_size(node, sum(_size(each) for each in operands))

    def places_of(output: int) -> Any:
        def places(*given: IntArray) -> IntArray:
            shifted = {index: each + 1 for index, each in zip(moved, given, strict=True)}  # so that 0 is no place
            arrays = [shifted[index] if index in shifted else others[index] for index in range(len(node.inputs))]
            found: IntArray = evaluate(node, arrays, places=moved)[output] - 1
            _check_size(node, found.size)
            return found

        return places

    is_split = sum(node.wanted) > 1
    return tuple(
        builder.move(f"{node.name}/{output}" if is_split else node.name, node.op, places_of(output), operands)
        if is_wanted
        else None
        for output, is_wanted in enumerate(node.wanted)
    )


def _size(operand: Operand) -> int:
    return int(np.prod(operand.shape, dtype=object)) if isinstance(operand, Value) else np.size(operand)


def _check_size(node: Node, count: int) -> None:
    check_memory(lambda: f"{node} needs", count * _BYTES, "take a smaller input_shape")


def keep(builder: Builder, node: Node) -> Operand:
    """Return what goes in: a step that changes nothing is no stage."""
    return node.operand()


def dropout(builder: Builder, node: Node) -> Operand:
    """Return what goes in, as a trained network does."""
    node.refuse_outputs()
    flag = node.constant(2) if node.version >= 12 else None
    if (flag is not None and np.any(flag)) or (node.version < 7 and not node.get("is_test", 0)):
        raise ValueError(f"{node} must be that of a trained network, got one in training mode")
    return node.operand()


def cast(builder: Builder, node: Node) -> Operand:
    """Return what goes in, if it is cast to a type of real numbers."""
    if node.op == "CastLike":
        other = node.operand(1)
        kind = "FLOAT" if isinstance(other, Value) else _kind(other)
    else:
        to = node.get("to")  # of the oldest version, a text
        kind = to if isinstance(to, str) else onnx.TensorProto.DataType.Name(to)
    if kind not in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"):
        raise ValueError(f"{node} must cast to real numbers what depends on the network's input, got {kind}")
    return node.operand()


def _kind(array: Array) -> str:
    return str(onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(array.dtype)))


def shape_of(builder: Builder, node: Node) -> Array:
    """Return a shape, or part of one, which is constant."""
    shape = np.array(node.value().shape, np.int64)
    return shape[node.get("start", 0) : node.get("end")]


def size_of(builder: Builder, node: Node) -> Array:
    """Return how many numbers there are, which is constant."""
    return np.array(_size(node.value()), np.int64)


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def pad(builder: Builder, node: Node) -> Operand:
    """Put numbers around an array, or leave out those at its ends."""
    x = node.value()
    pads = node.integers("paddings" if node.version == 1 else "pads", 1) or []
    axes = node.constant(3)
    places = range(len(x.shape)) if axes is None else [int(axis) % len(x.shape) for axis in np.ravel(axes)]
    if len(pads) != 2 * len(places):
        raise ValueError(f"{node} must have two pads for each of {len(places)} axes, got {len(pads)}")
    around = [(0, 0)] * len(x.shape)
    for axis, *own in zip(places, pads[: len(places)], pads[len(places) :], strict=True):
        around[axis] = own[0], own[1]
    mode = _MODES[node.get("mode", "constant")]
    given = node.constant(2)
    fill = node.get("value", 0.0) if given is None or not np.size(given) else np.ravel(given)[0]
    return _padded(builder, node, x, around, mode, float(fill) if mode == "constant" else 0.0)


def _padded(
    builder: Builder, node: Node, x: Value, around: Sequence[tuple[int, int]], mode: str, fill: float
) -> Operand:
    sizes = [size + before + after for size, (before, after) in zip(x.shape, around, strict=True)]
    _check_size(node, int(np.prod(check_shape(sizes), dtype=object)))
    inside = tuple(
        slice(max(0, -before), size - max(0, -after)) for size, (before, after) in zip(x.shape, around, strict=True)
    )
    widths = [(max(0, before), max(0, after)) for before, after in around]
    options: Any = {"constant_values": -1} if mode == "constant" else {}
    return builder.move(node.name, "Pad", lambda p: np.pad(p[inside], widths, mode=mode, **options), [x], fill)  # type: ignore[call-overload]


MOVES: dict[str, Rule] = {
    **dict.fromkeys(_MOVED, move),
    "Cast": cast,
    "CastLike": cast,
    "Dropout": dropout,
    "Identity": keep,
    "Pad": pad,
    "Shape": shape_of,
    "Size": size_of,
}
