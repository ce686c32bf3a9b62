"""ONNX's Resize and Upsample: a matrix for each axis, or the number that is nearest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from scipy import sparse

from convmat.geometry import Array, IntArray
from convmat.networks._builder import Builder, Operand, check_shape
from convmat.networks._onnx_nodes import Node, Rule
from convmat.networks._stages import Value

_TIE = 1e-9  # how near to a half a position is one


@dataclass(frozen=True)
class Line:
    """What is done along an axis.

    Attributes
    ----------
    size, outputs : int
        Before and after.
    scale : float
        How much longer the axis becomes; times the size, not always a whole number.
    region : (float, float)
        Where the part begins that is resized, and its length, if only a part is; as shares of the axis.
    """

    size: int
    outputs: int
    scale: float
    region: tuple[float, float]

    @property
    def changes(self) -> bool:
        """Whether anything is done."""
        return not (self.size == self.outputs and np.isclose(self.scale, 1.0) and self.region == (0.0, 1.0))


def resize(builder: Builder, node: Node) -> Operand:
    """Interpolate along axes."""
    x, mode = node.value(), node.get("mode")
    if mode not in ("nearest", "linear", "cubic"):
        raise ValueError(f"{node} must have mode nearest, linear or cubic, got {mode!r}")
    lines = {axis: line for axis, line in _lines(node, x).items() if line.changes}
    check_shape([lines[axis].outputs if axis in lines else size for axis, size in enumerate(x.shape)])
    outside = [_outside(node, line) for line in lines.values()]
    fill = float(node.get("extrapolation_value", 0.0)) if any(each.any() for each in outside) else 0.0
    if not lines:
        return x
    if mode == "nearest":
        places = {axis: _nearest(node, line) for axis, line in lines.items()}
        return builder.move(node.name, node.op, partial(_taken, places), [x], fill)
    offset = _offset(x, dict(zip(lines, outside, strict=True)), fill) if fill else None
    return builder.along(node.name, node.op, x, {axis: _matrix(node, line) for axis, line in lines.items()}, offset)


def _taken(lines: dict[int, IntArray], places: IntArray) -> IntArray:
    for axis, own in lines.items():
        places = places.take(np.maximum(own, 0), axis)
        np.moveaxis(places, axis, 0)[own < 0] = -1
    return places


def _offset(x: Value, outside: dict[int, Any], fill: float) -> Array:
    """Return what is put where an axis is read outside."""
    offset = np.zeros([len(outside.get(axis, range(size))) for axis, size in enumerate(x.shape)])
    for axis, own in outside.items():
        np.moveaxis(offset, axis, 0)[own] = fill
    return offset


def _lines(node: Node, x: Value) -> dict[int, Line]:
    """Return what is done along each axis that the node names."""
    count = len(x.shape)
    axes = [int(axis) % count for axis in node.get("axes") or range(count)]
    regions, scales, sizes = _region(node, len(axes)), _numbers(node, "scales"), _numbers(node, "sizes")
    if (scales is None) == (sizes is None) or len(cast(Any, sizes if scales is None else scales)) != len(axes):
        raise ValueError(f"{node} must have either sizes or scales for {len(axes)} axes")
    own = [x.shape[axis] for axis in axes]
    if sizes is None:
        factors = [float(each) for each in cast(Any, scales)]
        wanted = [int(factor * size) for factor, size in zip(factors, own, strict=True)]
    else:
        factors = [int(each) / size for each, size in zip(sizes, own, strict=True)]
        wanted = [int(each) for each in sizes]
        policy = node.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factors = [{"not_larger": min, "not_smaller": max}[policy](factors)] * len(axes)
            wanted = [int(factor * size + 0.5) for factor, size in zip(factors, own, strict=True)]
    if min(wanted, default=1) < 1 or not all(np.isfinite(factors)):
        raise ValueError(f"{node} must have positive sizes, got {wanted}")
    return {
        axis: Line(size, outputs, factor, region)
        for axis, size, outputs, factor, region in zip(axes, own, wanted, factors, regions, strict=True)
    }


_PLACES = {("Resize", "scales"): 2, ("Resize", "sizes"): 3, ("Upsample", "scales"): 1}


def _numbers(node: Node, name: str) -> Array | None:
    """Return scales or sizes, if they are given; older versions have scales elsewhere."""
    if node.get(name) is not None:
        return np.array(node.get(name))
    place = _PLACES.get((node.op, name))
    if node.op == "Resize" and node.version < 11:
        place = 1 if name == "scales" else None
    found = None if place is None else node.constant(place)
    return None if found is None or not np.size(found) else np.ravel(found)


def _coordinates_mode(node: Node) -> str:
    return str(node.get("coordinate_transformation_mode", "asymmetric"))


def _region(node: Node, count: int) -> list[tuple[float, float]]:
    if _coordinates_mode(node) != "tf_crop_and_resize":
        return [(0.0, 1.0)] * count
    given = np.ravel(node.weights(1))
    if len(given) != 2 * count:
        raise ValueError(f"{node} must have a region of {2 * count} numbers, got {len(given)}")
    return [(float(first), float(last - first)) for first, last in zip(given[:count], given[count:], strict=True)]


def _coordinates(node: Node, line: Line) -> Array:
    """Return the position before that each position after is, a fraction; rounding errors beside halves are taken out."""
    found = _fractions(node, line)
    halves = np.rint(2 * found) / 2
    return np.where(abs(found - halves) < _TIE, halves, found)


def _fractions(node: Node, line: Line) -> Array:
    own = np.arange(line.outputs, dtype=float)
    length, mode = line.scale * line.size, _coordinates_mode(node)  # a fraction, too
    if mode == "asymmetric":
        return own / line.scale
    if mode == "align_corners":
        return np.zeros_like(own) if length == 1 else own * (line.size - 1) / (length - 1)
    if mode == "tf_crop_and_resize":
        first, part = line.region[0] * (line.size - 1), line.region[1] * (line.size - 1)
        return first + part * (np.full_like(own, 0.5) if length == 1 else own / (length - 1))
    if mode == "pytorch_half_pixel" and length == 1:
        return np.full_like(own, -0.5)
    if mode == "half_pixel_symmetric":
        return line.size / 2 * (1 - line.outputs / length) + (own + 0.5) / line.scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (own + 0.5) / line.scale - 0.5
    raise ValueError(f"{node} must have a known coordinate_transformation_mode, got {mode!r}")


def _outside(node: Node, line: Line) -> Any:
    """Tell which positions are outside of the axis, and have a number of their own."""
    if _coordinates_mode(node) != "tf_crop_and_resize":
        return np.zeros(line.outputs, bool)
    found = _coordinates(node, line)
    return (found < 0) | (found > line.size - 1)


def _nearest(node: Node, line: Line) -> IntArray:
    found = _coordinates(node, line)
    mode = node.get("nearest_mode", "floor")
    rounded = {
        "round_prefer_floor": lambda: np.ceil(found - 0.5),
        "round_prefer_ceil": lambda: np.floor(found + 0.5),
        "floor": lambda: np.floor(found),
        "ceil": lambda: np.ceil(found),
    }[mode]()
    places = np.clip(rounded, 0, line.size - 1).astype(np.int64)
    return np.where(_outside(node, line), -1, places)


def _matrix(node: Node, line: Line) -> sparse.csr_array:
    """Return the matrix of an axis: weights of neighbours, the ends repeated."""
    found, mode = _coordinates(node, line), node.get("mode")
    squeezed = min(line.scale, 1.0) if node.get("antialias", 0) else 1.0
    half = 1 if mode == "linear" else 2
    reach = int(np.ceil(half / squeezed))
    check_shape((line.outputs, 2 * reach + 1))
    places = np.floor(found).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    distances = abs(found[:, None] - places)
    weights = (
        _linear(distances * squeezed)
        if mode == "linear"
        else _cubic(distances * squeezed, node.get("cubic_coeff_a", -0.75))
    )
    if node.get("exclude_outside", 0):
        weights = np.where((places >= 0) & (places < line.size), weights, 0.0)
    if squeezed < 1 or node.get("exclude_outside", 0):
        sums = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(sums == 0, 1.0, sums)
    weights[_outside(node, line)] = 0
    rows = np.broadcast_to(np.arange(line.outputs)[:, None], weights.shape)
    columns = np.clip(places, 0, line.size - 1)
    matrix = sparse.csr_array((weights.ravel(), (rows.ravel(), columns.ravel())), shape=(line.outputs, line.size))
    matrix.eliminate_zeros()
    return matrix


def _linear(distances: Array) -> Array:
    weights: Array = np.maximum(1 - distances, 0)
    return weights


def _cubic(distances: Array, a: float) -> Array:
    near = ((a + 2) * distances - (a + 3)) * distances**2 + 1
    far = ((a * distances - 5 * a) * distances + 8 * a) * distances - 4 * a
    return np.where(distances <= 1, near, np.where(distances < 2, far, 0.0))


RESIZES: dict[str, Rule] = {"Resize": resize, "Upsample": resize}
