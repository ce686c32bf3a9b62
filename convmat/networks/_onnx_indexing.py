"""ONNX's operators that read and write at indices: ONNX's reference loops over these, here they are NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convmat.geometry import Array, IntArray

Attributes = dict[str, Any]


def _cropped(data: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Return the part of an array that indices of a shape can mean: along their own axis all of it."""
    return data[tuple(slice(None) if place == axis else slice(size) for place, size in enumerate(shape))]


def gather_elements(given: Attributes, data: Array, indices: IntArray) -> Array:
    """Take numbers at indices along an axis, each index for itself."""
    axis = given.get("axis", 0) % data.ndim
    return np.take_along_axis(_cropped(data, indices.shape, axis), indices, axis)


def scatter_elements(given: Attributes, data: Array, indices: IntArray, updates: Array) -> Array:
    """Put numbers at indices along an axis, each index for itself."""
    axis, result = given.get("axis", 0) % data.ndim, np.array(data)
    np.put_along_axis(_cropped(result, indices.shape, axis), indices, updates, axis)
    return result


def gather_nd(given: Attributes, data: Array, indices: IntArray) -> Array:
    """Take slices at indices of several axes, which the last axis of `indices` lists."""
    outer = given.get("batch_dims", 0)
    count = indices.shape[-1]
    flat = data.reshape(-1, *data.shape[outer:])
    own = np.moveaxis(indices.reshape(len(flat), -1, count), -1, 0)
    found: Array = flat[(np.arange(len(flat))[:, None], *own)]
    return found.reshape(*indices.shape[:-1], *data.shape[outer + count :])


def scatter_nd(given: Attributes, data: Array, indices: IntArray, updates: Array) -> Array:
    """Put slices at indices of several axes, which the last axis of `indices` lists."""
    result = np.array(data)
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return result


def reverse_sequence(given: Attributes, data: Array, lengths: IntArray) -> Array:
    """Reverse the first numbers along an axis, for each place along another one as many as its length says."""
    time, batch = given.get("time_axis", 0), given.get("batch_axis", 1)
    moved = np.moveaxis(data, (batch, time), (0, 1))
    places = np.arange(moved.shape[1])
    own = np.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)
    found = moved[np.arange(len(moved))[:, None], own]
    return np.moveaxis(found, (0, 1), (batch, time))


DIRECT: dict[str, Callable[..., Array]] = {
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ReverseSequence": reverse_sequence,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
}
