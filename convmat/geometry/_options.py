"""The options of a convolution: parsing and validation, and the sizes and axes that they give."""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any, SupportsIndex, TypeGuard, cast

import numpy as np

from convmat._messages import choose, hint
from convmat.geometry._axis import Axis
from convmat.geometry._modes import MODES

IntPerAxis = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
Shape = int | Sequence[int]
RowRange = tuple[int, int] | slice | None  # which rows of a matrix

_NO_NUMBERS = (str, bytes, bytearray, memoryview, range)  # sequences, but a range is written like (start, stop)
_EXTENT = 2**62  # positions and their sums are int64
_MOST_AXES = 64 - 3
_STEP = 2**31  # and so are products of two numbers below a stride

_PADDINGS = ("valid", "same", "full")
_MODES_ELSEWHERE = {
    name: f"{name!r} of {library} is {mode!r} here"
    for mode, row in MODES.items()
    for name, library in row.elsewhere.items()
}
_MODES_ELSEWHERE |= {  # what these put into a border is no copy of one value
    name: f"{name!r} has no counterpart here; pad first, and convolve with padding=0"
    for name in (
        *("linear_ramp", "maximum", "mean", "median", "minimum", "empty"),
        *("antisymmetric", "antireflect", "smooth", "periodization", "asym", "asymh", "asymw", "sp1", "spd"),
    )
}
_PADDINGS_ELSEWHERE = {
    name: f"{name!r} is a padding_mode, padding says how many positions" for name in (*MODES, *_MODES_ELSEWHERE)
} | {
    "half": "same",
    "none": "valid",
    "causal": "give ((dilation·(k − 1), 0),), one (before, after) pair per axis",
}


class Options:
    """The arguments that a convolution and its transpose share, checked and in one form.

    `input_shape` is what goes in: into the convolution, or into its transpose if `transposed` says so.
    """

    def __init__(
        self,
        kernel_shape: Shape,
        input_shape: Shape,
        stride: IntPerAxis,
        padding: Padding,
        dilation: IntPerAxis,
        groups: int,
        padding_mode: str,
        transposed: bool,
    ) -> None:
        self.input_shape = _shape("input_shape", input_shape)
        self.kernel_shape = _shape("kernel_shape", kernel_shape)
        extra = len(self.kernel_shape) - len(self.input_shape)
        self.has_channels = extra == 1 and len(self.kernel_shape) > 2
        if extra and not self.has_channels:
            raise ValueError(
                "kernel and input_shape must have N and N dimensions, or N + 2 and N + 1 with channels, "
                f"got a kernel of shape {self.kernel_shape} and input_shape {self.input_shape}"
            )
        channel_axes = 2 * int(self.has_channels)
        self.spatial = self.input_shape[int(self.has_channels) :]
        self.taps = self.kernel_shape[channel_axes:]
        n = len(self.spatial)
        if n > _MOST_AXES:
            raise ValueError(
                f"kernel must have up to {_MOST_AXES} spatial axes, as arrays have up to 64 dimensions, three of them for "
                f"channels and groups, got {n}"
            )
        self.groups = integer("groups", groups, 1)
        if not self.has_channels and self.groups != 1:
            raise ValueError(f"groups must be 1 for a kernel without channels, got {self.groups}")
        self.stride = _per_axis("stride", stride, n, 1)
        self.dilation = _per_axis("dilation", dilation, n, 1)
        reaches = tuple(d * (k - 1) for d, k in zip(self.dilation, self.taps, strict=True))
        self.padding = _padding(padding, self.stride, reaches)
        self.transposed = transposed
        self.mode = choose("padding_mode", padding_mode, MODES, _MODES_ELSEWHERE)
        if self.has_channels:
            outer, inner = self.kernel_shape[:2]
            if outer % self.groups:
                raise ValueError(f"groups must divide the kernel's first dimension, {outer}, got {self.groups}")
            formula, count = "kernel_shape[1] * groups", inner * self.groups
            if transposed:
                formula, count = "kernel_shape[0]", outer
            if self.input_shape[0] != count:
                raise ValueError(f"input_shape must have {formula} = {count} channels, got {self.input_shape}")

    def _warn_of_a_batch(self) -> None:
        """Warn where shapes are those of a layer and a batch of images: they mean a convolution over all axes."""
        channels, seen = self.input_shape[1], self.kernel_shape[0 if self.transposed else 1]
        first = zip(self.stride, self.dilation, self.padding, strict=True)
        if channels != seen or any(axis != (1, 1, (0, 0)) for _, axis in zip(range(2), first, strict=False)):
            return
        warnings.warn(
            f"a kernel of shape {self.kernel_shape} and input_shape {self.input_shape} mean a convolution over "
            f"{len(self.taps)} axes, without channels; for a layer give input_shape={self.input_shape[1:]}, as batches "
            f"belong to apply; if all axes are meant, kernel[None, None] and input_shape={(1, *self.input_shape)} say so",
            UserWarning,
            stacklevel=_outside(),
        )

    def transposed_shape(self, output_padding: IntPerAxis, output_shape: Shape | None) -> tuple[int, ...]:
        """Return the shape that comes out of the transposed convolution: of those that are possible, the one chosen."""
        channels = (self.kernel_shape[1] * self.groups,) if self.has_channels else ()
        n = len(self.spatial)
        extra = _per_axis("output_padding", output_padding, n, 0)
        smallest = tuple(
            stride * (outputs - 1) + dilation * (taps - 1) + 1 - before - after
            for outputs, taps, stride, dilation, (before, after) in self._each_axis()
        )
        limits = tuple(max(pair) for pair in zip(self.stride, self.dilation, strict=True))
        if output_shape is None:
            for amount, limit in zip(extra, limits, strict=True):
                if amount >= limit:
                    raise ValueError(f"output_padding must be below max(stride, dilation) = {limit}, got {amount}")
        else:
            if any(extra):
                raise ValueError(
                    f"output_padding={output_padding!r} and output_shape={output_shape!r} both choose the output's size; "
                    "give one of them"
                )
            wanted = _shape("output_shape", output_shape, len(channels) + n)
            least = (*channels, *smallest)
            most = (*channels, *(low + limit - 1 for low, limit in zip(smallest, limits, strict=True)))
            if not all(low <= size <= high for size, low, high in zip(wanted, least, most, strict=True)):
                raise ValueError(f"output_shape must lie between {least} and {most}, got {wanted}")
            extra = tuple(size - low for size, low in zip(wanted[len(channels) :], smallest, strict=True))
        sizes = tuple(low + amount for low, amount in zip(smallest, extra, strict=True))
        if min(sizes) < 1:
            raise ValueError(
                f"padding must leave an output: input_shape {self.input_shape} gives spatial output sizes {sizes}, all must "
                "be positive"
            )
        return (*channels, *sizes)

    def axes(self, sizes: tuple[int, ...], outputs: tuple[int, ...] | None) -> tuple[Axis, ...]:
        """Return the axes for the given input sizes, with as many outputs as fit or the first of them."""
        axes = []
        for i, (size, (_, taps, stride, dilation, (before, after))) in enumerate(
            zip(sizes, self._each_axis(), strict=True)
        ):
            limit = MODES[self.mode].limit(size)
            if limit is not None and max(before, after) > limit:
                raise ValueError(
                    f"padding with padding_mode={self.mode!r} must be at most {limit} for an input of size {size}, "
                    f"got {(before, after)} on axis {i}"
                )
            room = size + before + after - dilation * (taps - 1) - 1
            if room < 0:
                batch = not (i or self.has_channels) and len(sizes) > 2 and self.kernel_shape[1] == sizes[1]
                raise ValueError(
                    f"kernel must fit into the padded input: on axis {i} it reaches over {dilation * (taps - 1) + 1} "
                    f"positions (size {taps}, dilation {dilation}), got {size + before + after} "
                    f"(input {size}, padding {(before, after)})"
                    f"{'; if input_shape has a batch axis, leave it out' if batch else ''}"
                )
            if size + before + after + stride + dilation >= _EXTENT:
                raise ValueError(
                    f"input_shape, padding, stride and dilation must add up to less than 2**62 on each axis, got {size}, "
                    f"{(before, after)}, {stride} and {dilation} on axis {i}"
                )
            if stride >= _STEP and dilation > 1:
                raise ValueError(f"stride must be below 2**31 where dilation is not 1, got {stride} on axis {i}")
            count = room // stride + 1 if outputs is None else outputs[i]
            axes.append(Axis(size, taps, stride, before, after, dilation, count, self.mode))
        if not self.has_channels and len(axes) in (4, 5):
            self._warn_of_a_batch()
        return tuple(axes)

    def _each_axis(self) -> Iterable[tuple[int, int, int, int, tuple[int, int]]]:
        """Yield (size, taps, stride, dilation, padding) of each axis."""
        return zip(self.spatial, self.taps, self.stride, self.dilation, self.padding, strict=True)


def _outside() -> int:
    """Return the stack level, for a warning of the function that calls this one, of the first frame outside the package."""
    frame: FrameType | None = sys._getframe(1)
    level, package = 1, __name__.partition(".")[0]
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level - 1 if frame is None else level


def integer(name: str, value: object, least: int = 0) -> int:
    """Return an integer of at least `least`."""
    if type(value) is int and value >= least:  # nearly always
        return value
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an int, got {value!r}")
    try:
        number = operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return number


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Tell whether a value is a sequence or an array: of numbers, it seems, not of characters or bytes."""
    if type(value) is tuple:
        return True
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, _NO_NUMBERS)


def _per_axis(name: str, value: object, n: int, least: int) -> tuple[int, ...]:
    """Return one integer per axis."""
    if not is_sequence(value):
        try:
            return (integer(name, value, least),) * n
        except TypeError:
            raise TypeError(f"{name} must be an int or a sequence of {n} ints, got {value!r}") from None
    values = tuple(integer(f"each {name}", item, least) for item in value)
    if len(values) != n:
        raise ValueError(f"{name} must be an int or one per axis ({n}), got {value!r}")
    return values


def _shape(name: str, value: object, dimensions: int | None = None) -> tuple[int, ...]:
    """Return a shape of positive sizes."""
    if not is_sequence(value):
        try:
            shape: tuple[int, ...] = (integer(name, value, 1),)
        except TypeError:
            raise TypeError(f"{name} must be an int or a sequence of ints, got {value!r}") from None
    else:
        shape = tuple(integer(f"each size in {name}", item, 1) for item in value)
    if not shape or len(shape) != (dimensions or len(shape)):
        raise ValueError(f"{name} must have {dimensions or 'at least 1'} dimensions, got {value!r}")
    return shape


def _padding(value: object, stride: tuple[int, ...], reaches: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return one (before, after) pair per axis."""
    n = len(stride)
    if isinstance(value, str):
        match value:
            case "valid":
                return ((0, 0),) * n
            case "full":
                return tuple((reach, reach) for reach in reaches)
            case "same":
                if any(step != 1 for step in stride):
                    raise ValueError(
                        f"padding='same' needs stride 1, got {stride}, as frameworks disagree on it for larger strides: "
                        "PyTorch refuses it, TensorFlow pads max((⌈n/stride⌉ − 1)·stride + dilation·(k − 1) + 1 − n, 0) "
                        "in all; for ⌈n/stride⌉ outputs and an odd kernel give padding=dilation·(k − 1)//2"
                    )
                return tuple((reach // 2, reach - reach // 2) for reach in reaches)
        raise ValueError(
            f"padding must be 'valid', 'same', 'full' or numbers, got {value!r}{hint(value, _PADDINGS, _PADDINGS_ELSEWHERE)}"
        )
    expected = f"an int, one int or one (before, after) pair per axis ({n}), or a word"
    if not is_sequence(value):
        try:
            return ((integer("padding", value, 0),) * 2,) * n
        except TypeError:
            raise TypeError(f"padding must be {expected}, got {value!r}") from None
    items = tuple(value)
    if len(items) != n:
        raise ValueError(f"padding must be {expected}, got {value!r}")
    pairs = []
    for item in items:
        pair = item if is_sequence(item) else (item, item)
        if len(pair) != 2:
            raise ValueError(f"padding must be {expected}, got {value!r}")
        pairs.append((integer("each padding", pair[0], 0), integer("each padding", pair[1], 0)))
    return tuple(pairs)
