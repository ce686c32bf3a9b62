"""ONNX's operators that change the size of an image: each axis has a matrix of its own, as ONNX's reference computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from scipy import sparse

from convmat.geometry import Array, IntArray
from convmat.networks._builder import Builder, Operand, check_shape
from convmat.networks._onnx_nodes import Node, Rule, evaluate
from convmat.networks._stages import Value

_FIRST_VERSION = 11  # of Resize that has all options; what is older is written as one of these
_SEPARABLE = ("linear", "bilinear", "cubic")


def resize(builder: Builder, node: Node) -> Operand:
    """Change the size of an array: nearest numbers are moved, others are sums along each axis."""
    node = _modern(node)
    x = node.value()
    axes, scales, sizes, roi = _resized(node, x)
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch" and sizes is not None:
        raise ValueError(f"{node} must stretch to its sizes, got policy {node.get('keep_aspect_ratio_policy')!r}")
    wanted = list(x.shape)
    for place, axis in enumerate(axes):
        wanted[axis] = int(sizes[place]) if sizes is not None else int(np.floor(x.shape[axis] * scales[place]))
    check_shape(wanted)
    if node.get("mode", "nearest") == "nearest":
        return _nearest(builder, node, x)
    if node.get("mode") not in _SEPARABLE:
        raise ValueError(f"{node} must have mode nearest, linear or cubic, got {node.get('mode')!r}")
    if node.get("coordinate_transformation_mode") == "tf_crop_and_resize" and node.get("extrapolation_value", 0.0):
        raise ValueError(f"{node} must put zeros outside, got extrapolation_value {node.get('extrapolation_value')}")
    factors = {}
    for place, axis in enumerate(axes):
        own = (
            _chosen(scales, place),
            _chosen(sizes, place),
            None if roi is None else (roi[place], roi[place + len(axes)]),
        )
        if wanted[axis] != x.shape[axis] or own[2] is not None or (scales is not None and scales[place] != 1):
            factors[axis] = _matrix(node, x.shape[axis], *own)
    return builder.along(node.name, node.op, x, factors) if factors else x


def _chosen(values: Array | None, place: int) -> float | None:
    return None if values is None else float(values[place])


def _modern(node: Node) -> Node:
    """Return a node as one of Resize in a version that has all options."""
    if node.op == "Resize" and node.version >= _FIRST_VERSION:
        return node
    scales = node.get("scales") if node.op == "Upsample" and node.version < 9 else node.weights(1)
    proto = onnx.helper.make_node(
        "Resize",
        ["x", "", "scales"],
        list(node.proto.output),
        node.name,
        mode=node.get("mode", "nearest"),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    inputs = node.operand(), None, np.asarray(scales, np.float32)
    return replace(node, proto=proto, inputs=inputs, opsets={**node.opsets, "": 13})


def _resized(node: Node, x: Value) -> tuple[list[int], Any, Array | None, Array | None]:
    """Return which axes change, their scales or sizes, and the region that is taken of each."""
    given = node.get("axes")
    axes = list(range(len(x.shape))) if given is None else [int(axis) % len(x.shape) for axis in given]
    scales, sizes = (node.constant(index) for index in (2, 3))
    scales, sizes = (None if each is None or not each.size else np.ravel(each) for each in (scales, sizes))
    if (scales is None) == (sizes is None):
        raise ValueError(f"{node} must have either scales or sizes, got {'neither' if scales is None else 'both'}")
    roi = node.constant(1) if node.get("coordinate_transformation_mode") == "tf_crop_and_resize" else None
    for values, count in ((scales, len(axes)), (sizes, len(axes)), (roi, 2 * len(axes))):
        if values is not None and np.size(values) != count:
            raise ValueError(f"{node} must have {count} numbers for {len(axes)} axes, got {np.size(values)}")
    return axes, scales, sizes, roi


def _nearest(builder: Builder, node: Node, x: Value) -> Operand:
    fill = float(node.get("extrapolation_value", 0.0) or 0.0)
    constants = [node.constant(index) for index in range(1, len(node.inputs))]

    def places(given: IntArray) -> IntArray:
        found = evaluate(node, [given + 1.0, *constants], {"extrapolation_value": 0.0})[0]  # so that 0 is no place
        moved: IntArray = np.rint(found).astype(np.int64) - 1
        return moved

    return builder.move(node.name, node.op, places, [x], fill)


def _matrix(
    node: Node, size: int, scale: float | None, wanted: float | None, region: Sequence[float] | None
) -> sparse.csr_array:
    """Return the matrix of an axis: what becomes of unit vectors, which lie along another axis that keeps its size."""
    units = np.eye(size)[:, :, None, None]
    sizes = None if wanted is None else np.array([size, int(wanted), 1, 1], np.int64)
    scales = None if scale is None else np.array([1.0, scale, 1.0, 1.0], np.float32)
    roi = None if region is None else np.array([0, region[0], 0, 0, 1, region[1], 1, 1], np.float32)
    plain = replace(node, proto=_without_axes(node.proto))
    found = evaluate(plain, [units, roi, scales, sizes])[0]
    return sparse.csr_array(np.ascontiguousarray(found[:, :, 0, 0].T))


def _without_axes(proto: Any) -> Any:
    own = onnx.NodeProto()
    own.CopyFrom(proto)
    kept = [each for each in own.attribute if each.name != "axes"]
    own.ClearField("attribute")
    own.attribute.extend(kept)
    return own


RESIZES: dict[str, Rule] = {"Resize": resize, "Upsample": resize}
