"""The integers of a convolution: parsing, validation, axes, shapes and counts. No kernel values, no floats."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Self, SupportsIndex, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import get_index_dtype

from convmat.axis import PADDING_MODES, Axis

IntPerAxis = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
Shape = int | Sequence[int]


@dataclass(frozen=True, init=False, repr=False)
class ConvolutionGeometry:
    """Shapes, axes and counts of a convolution.

    Frozen, hashable, and free of kernel values: everything that follows from the integers of a convolution alone, before
    anything is built.

    Parameters
    ----------
    kernel_shape : int or sequence of int
        ``(*k,)`` for one channel in and out, or ``(C_out, C_in // groups, *k)``.
    input_shape : int or sequence of int
        ``(*spatial,)`` or ``(C_in, *spatial)``; which of the two follows from the number of dimensions of the kernel.
    stride : int or sequence of int
        Step between outputs, for all axes or one per axis.
    padding : int, str or sequence
        Positions added before and after each axis: an int for all, one int per axis, one ``(before, after)`` pair per
        axis, or ``"valid"`` (none), ``"same"`` (stride 1 only; dilation·(k − 1) in all, half of it, rounded down, before)
        or ``"full"`` (dilation·(k − 1) on both sides).
    dilation : int or sequence of int
        Distance between taps.
    groups : int
        Number of groups of channels that do not see each other.
    padding_mode : {"zeros", "circular", "reflect", "symmetric", "replicate"}
        What a position outside the input reads. In the words of `numpy.pad`: "constant", "wrap", "reflect", "symmetric",
        "edge". In those of `scipy.ndimage`: "constant", "wrap" ("grid-wrap"), "mirror", "reflect", "nearest".

    Attributes
    ----------
    kernel_shape, input_shape, output_shape : tuple of int
        Shapes of the arrays, channels included where there are any.
    groups : int
        As given.
    axes : tuple of Axis
        The spatial axes.

    Raises
    ------
    TypeError
        If an argument is not of the type above.
    ValueError
        If an argument has a wrong value, or the kernel reaches beyond the padded input.

    Examples
    --------
    >>> from convmat import ConvolutionGeometry
    >>> geometry = ConvolutionGeometry((64, 3, 7, 7), (3, 224, 224), stride=2, padding=3)
    >>> geometry.output_shape
    (64, 112, 112)
    >>> geometry.nnz, geometry.matrix_nbytes("float32")
    (116214528, 932927492)
    """

    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    groups: int
    axes: tuple[Axis, ...]

    def __init__(
        self,
        kernel_shape: Shape,
        input_shape: Shape,
        *,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        dilation: IntPerAxis = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        options = _Options(kernel_shape, input_shape, stride, padding, dilation, groups, padding_mode)
        if options.has_channels:
            _check_divides(options.groups, "kernel's first dimension", options.kernel_shape[0])
            expected = options.kernel_shape[1] * options.groups
            if options.input_shape[0] != expected:
                raise ValueError(
                    f"input_shape must have kernel_shape[1] * groups = {expected} channels, got {options.input_shape}"
                )
        axes = options.axes(options.spatial, None)
        self._set(options.kernel_shape, options.input_shape, options.groups, axes)

    @classmethod
    def of_transposed(
        cls,
        kernel_shape: Shape,
        input_shape: Shape,
        *,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        dilation: IntPerAxis = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        output_padding: IntPerAxis = 0,
        output_shape: Shape | None = None,
    ) -> Self:
        """Return the geometry of the convolution that a transposed convolution transposes.

        Parameters
        ----------
        kernel_shape : int or sequence of int
            ``(*k,)`` or ``(C_in, C_out // groups, *k)``, as in PyTorch's ``ConvTranspose``.
        input_shape : int or sequence of int
            What goes into the transposed convolution: the *output* shape of the geometry returned.
        stride, padding, dilation, groups, padding_mode
            The options of the convolution.
        output_padding : int or sequence of int
            Which of the sizes that the strided convolution maps to the same output is meant: it is added to the smallest
            one, ``stride·(n − 1) + dilation·(k − 1) + 1 − before − after``. Below ``max(stride, dilation)``.
        output_shape : int or sequence of int, optional
            The same choice by name, channels included if there are any. Not together with `output_padding`.

        Returns
        -------
        ConvolutionGeometry
            Its ``output_shape`` is the `input_shape` given, its ``input_shape`` is what comes out.

        Raises
        ------
        TypeError
            If an argument is not of the type above.
        ValueError
            If an argument has a wrong value, or `output_shape` is not among the sizes that are possible.

        Examples
        --------
        >>> from convmat import ConvolutionGeometry
        >>> ConvolutionGeometry.of_transposed((3,), (4,), stride=2).input_shape
        (9,)
        >>> ConvolutionGeometry.of_transposed((3,), (4,), stride=2, output_shape=(10,)).input_shape
        (10,)
        """
        options = _Options(kernel_shape, input_shape, stride, padding, dilation, groups, padding_mode)
        kernel, given = options.kernel_shape, options.input_shape
        if options.has_channels:
            _check_divides(options.groups, "kernel's first dimension", kernel[0])
            if given[0] != kernel[0]:
                raise ValueError(f"input_shape must have kernel_shape[0] = {kernel[0]} channels, got {given}")
        channels = (kernel[1] * options.groups,) if options.has_channels else ()
        n = len(options.spatial)
        extra = _per_axis("output_padding", output_padding, n, 0)
        smallest = tuple(
            stride * (outputs - 1) + dilation * (taps - 1) + 1 - before - after
            for outputs, taps, stride, dilation, (before, after) in options.per_axis()
        )
        limits = tuple(max(pair) for pair in zip(options.stride, options.dilation, strict=True))
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
                f"padding must leave an output: input_shape {given} gives spatial output sizes {sizes}, all must be positive"
            )
        geometry = cls.__new__(cls)
        geometry._set(kernel, (*channels, *sizes), options.groups, options.axes(sizes, options.spatial))
        return geometry

    def _set(
        self, kernel_shape: tuple[int, ...], input_shape: tuple[int, ...], groups: int, axes: tuple[Axis, ...]
    ) -> None:
        for name, value in zip(
            ("kernel_shape", "input_shape", "groups", "axes"), (kernel_shape, input_shape, groups, axes), strict=True
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return (
            f"ConvolutionGeometry({self.kernel_shape}, {self.input_shape}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, groups={self.groups}, padding_mode={self.padding_mode!r})"
        )

    @property
    def has_channels(self) -> bool:
        """Whether the arrays have a channel axis."""
        return len(self.kernel_shape) > len(self.axes)

    @property
    def in_channels(self) -> int:
        """Number of channels of the input; 1 without a channel axis."""
        return self.input_shape[0] if self.has_channels else 1

    @property
    def out_channels(self) -> int:
        """Number of channels of the output; 1 without a channel axis."""
        return self.kernel_shape[0] if self.has_channels else 1

    @property
    def spatial_kernel(self) -> tuple[int, ...]:
        """Length of the kernel on each axis."""
        return tuple(axis.taps for axis in self.axes)

    @property
    def spatial_input(self) -> tuple[int, ...]:
        """Number of input positions on each axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def spatial_output(self) -> tuple[int, ...]:
        """Number of outputs on each axis."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def stride(self) -> tuple[int, ...]:
        """Step between outputs on each axis."""
        return tuple(axis.stride for axis in self.axes)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Positions added ``(before, after)`` each axis."""
        return tuple((axis.before, axis.after) for axis in self.axes)

    @property
    def dilation(self) -> tuple[int, ...]:
        """Distance between taps on each axis."""
        return tuple(axis.dilation for axis in self.axes)

    @property
    def padding_mode(self) -> str:
        """What a position outside the input reads."""
        return self.axes[0].mode

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output, channels included where there are any."""
        return (*self.kernel_shape[: int(self.has_channels)], *self.spatial_output)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of W: size of the output by size of the input."""
        return prod(self.output_shape), prod(self.input_shape)

    @cached_property
    def nnz(self) -> int:
        """Number of nonzeros of W, exactly; taps that read the same source are one nonzero."""
        return self.out_channels * (self.in_channels // self.groups) * prod(axis.entries for axis in self.axes)

    @cached_property
    def flops(self) -> int:
        """Two for each tap that reads something, before taps with the same source are merged."""
        return 2 * self.out_channels * (self.in_channels // self.groups) * prod(axis.pairs for axis in self.axes)

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """The dtype of W's indices: int32 while the number of nonzeros and both dimensions fit, else int64."""
        return np.dtype(get_index_dtype(maxval=max(self.nnz, *self.shape)))

    def matrix_nbytes(self, dtype: npt.DTypeLike) -> int:
        """Return the bytes of W in CSR form: data of the given dtype, indices and row pointers."""
        return (
            self.nnz * (np.dtype(dtype).itemsize + self.index_dtype.itemsize)
            + (self.shape[0] + 1) * self.index_dtype.itemsize
        )

    @cached_property
    def padded(self) -> ConvolutionGeometry:
        """The geometry of V in W = V·P: the same convolution, without padding, of the padded input."""
        axes = tuple(
            Axis(axis.before + axis.size + axis.after, axis.taps, axis.stride, 0, 0, axis.dilation, axis.outputs)
            for axis in self.axes
        )
        channels = self.input_shape[: int(self.has_channels)]
        geometry = ConvolutionGeometry.__new__(ConvolutionGeometry)
        geometry._set(self.kernel_shape, (*channels, *(axis.size for axis in axes)), self.groups, axes)
        return geometry


class _Options:
    """The arguments that both directions share, checked and in one form."""

    def __init__(
        self,
        kernel_shape: Shape,
        input_shape: Shape,
        stride: IntPerAxis,
        padding: Padding,
        dilation: IntPerAxis,
        groups: int,
        padding_mode: str,
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
        self.groups = _integer("groups", groups, 1)
        if not self.has_channels and self.groups != 1:
            raise ValueError(f"groups must be 1 for a kernel without channels, got {self.groups}")
        self.stride = _per_axis("stride", stride, n, 1)
        self.dilation = _per_axis("dilation", dilation, n, 1)
        reaches = tuple(d * (k - 1) for d, k in zip(self.dilation, self.taps, strict=True))
        self.padding = _padding(padding, self.stride, reaches)
        if not isinstance(padding_mode, str):
            raise TypeError(f"padding_mode must be a str, got {padding_mode!r}")
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, got {padding_mode!r}")
        self.mode = padding_mode

    def per_axis(self) -> Iterable[tuple[int, int, int, int, tuple[int, int]]]:
        """Yield (size, taps, stride, dilation, padding) of each axis."""
        return zip(self.spatial, self.taps, self.stride, self.dilation, self.padding, strict=True)

    def axes(self, sizes: tuple[int, ...], outputs: tuple[int, ...] | None) -> tuple[Axis, ...]:
        """Return the axes for the given input sizes, with as many outputs as fit or the first of them."""
        axes = []
        for i, (size, (_, taps, stride, dilation, (before, after))) in enumerate(
            zip(sizes, self.per_axis(), strict=True)
        ):
            limit = {"reflect": size - 1, "circular": size, "symmetric": size}.get(self.mode)
            if limit is not None and max(before, after) > limit:
                raise ValueError(
                    f"padding with padding_mode={self.mode!r} must be at most {limit} for an input of size {size}, "
                    f"got {(before, after)} on axis {i}"
                )
            room = size + before + after - dilation * (taps - 1) - 1
            if room < 0:
                raise ValueError(
                    f"kernel must fit into the padded input: on axis {i} it reaches over {dilation * (taps - 1) + 1} "
                    f"positions (size {taps}, dilation {dilation}), got {size + before + after} "
                    f"(input {size}, padding {(before, after)})"
                )
            count = room // stride + 1 if outputs is None else outputs[i]
            axes.append(Axis(size, taps, stride, before, after, dilation, count, self.mode))
        return tuple(axes)


def _integer(name: str, value: object, least: int) -> int:
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


def _is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    if type(value) is tuple:
        return True
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _per_axis(name: str, value: object, n: int, least: int) -> tuple[int, ...]:
    """Return one integer per axis."""
    if not _is_sequence(value):
        try:
            return (_integer(name, value, least),) * n
        except TypeError:
            raise TypeError(f"{name} must be an int or a sequence of {n} ints, got {value!r}") from None
    values = tuple(_integer(f"each {name}", item, least) for item in value)
    if len(values) != n:
        raise ValueError(f"{name} must be an int or one per axis ({n}), got {value!r}")
    return values


def _shape(name: str, value: object, dimensions: int | None = None) -> tuple[int, ...]:
    """Return a shape of positive sizes."""
    if not _is_sequence(value):
        try:
            shape: tuple[int, ...] = (_integer(name, value, 1),)
        except TypeError:
            raise TypeError(f"{name} must be an int or a sequence of ints, got {value!r}") from None
    else:
        shape = tuple(_integer(f"each size in {name}", item, 1) for item in value)
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
        raise ValueError(f"padding must be 'valid', 'same', 'full' or numbers, got {value!r}")
    expected = f"an int, one int or one (before, after) pair per axis ({n}), or a word"
    if not _is_sequence(value):
        try:
            return ((_integer("padding", value, 0),) * 2,) * n
        except TypeError:
            raise TypeError(f"padding must be {expected}, got {value!r}") from None
    items = tuple(value)
    if len(items) != n:
        raise ValueError(f"padding must be {expected}, got {value!r}")
    pairs = []
    for item in items:
        pair = item if _is_sequence(item) else (item, item)
        if len(pair) != 2:
            raise ValueError(f"padding must be {expected}, got {value!r}")
        pairs.append((_integer("each padding", pair[0], 0), _integer("each padding", pair[1], 0)))
    return tuple(pairs)


def _check_divides(groups: int, what: str, channels: int) -> None:
    if channels % groups:
        raise ValueError(f"groups must divide the {what}, {channels}, got {groups}")
