"""The integers of a convolution: axes, shapes and counts. No kernel values, no floats."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from convmat._runtime import lazy
from convmat.geometry._axis import Axis
from convmat.geometry._dtypes import as_dtype, csr_nbytes, index_dtype
from convmat.geometry._options import IntPerAxis, Options, Padding, Shape

__all__ = ["ConvolutionGeometry", "IntPerAxis", "Padding", "Shape"]


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
        ``(*spatial,)``, as many numbers as the kernel has dimensions, which then has no channels; or one less:
        ``(C_in, *spatial)``. Batch axes are no part of it.
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
        What a position outside the input reads. Padding is limited to the input's size n for circular and symmetric, and
        to n − 1 for reflect. In the words of `numpy.pad`: "constant", "wrap", "reflect", "symmetric",
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
        options = Options(kernel_shape, input_shape, stride, padding, dilation, groups, padding_mode, transposed=False)
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
            Added to the smallest size, ``stride·(n − 1) + dilation·(k − 1) + 1 − before − after``; below
            ``max(stride, dilation)``. Below the stride it chooses among the sizes that the convolution maps to the same
            output. From there on, the convolution of that size has more outputs, of which the geometry keeps the first n.
        output_shape : int or sequence of int, optional
            The size itself, channels included if there are any. Not together with `output_padding`.

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
        options = Options(kernel_shape, input_shape, stride, padding, dilation, groups, padding_mode, transposed=True)
        shape = options.transposed_shape(output_padding, output_shape)
        axes = options.axes(shape[-len(options.spatial) :], options.spatial)
        geometry = cls.__new__(cls)
        geometry._set(options.kernel_shape, shape, options.groups, axes)
        return geometry

    def _set(
        self, kernel_shape: tuple[int, ...], input_shape: tuple[int, ...], groups: int, axes: tuple[Axis, ...]
    ) -> None:
        for name, value in zip(
            ("kernel_shape", "input_shape", "groups", "axes"), (kernel_shape, input_shape, groups, axes), strict=True
        ):
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return what makes it equal to another one; not what it has computed, which would change its pickle with use."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __repr__(self) -> str:
        options = (
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"padding_mode={self.padding_mode!r}"
        )
        read = ((axis.size + axis.before + axis.after - axis.reach - 1) // axis.stride + 1 for axis in self.axes)
        if self.spatial_output == tuple(read):
            return f"ConvolutionGeometry({self.kernel_shape}, {self.input_shape}, {options})"
        return (  # the transpose of only the first outputs
            f"ConvolutionGeometry.of_transposed({self.kernel_shape}, {self.output_shape}, {options}, "
            f"output_shape={self.input_shape})"
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

    @lazy
    def nnz(self) -> int:
        """Number of nonzeros of W, exactly; taps that read the same source are one nonzero."""
        return self.out_channels * (self.in_channels // self.groups) * prod(axis.entries for axis in self.axes)

    @lazy
    def flops(self) -> int:
        """Two for each tap that reads something, before taps with the same source are merged."""
        return 2 * self.out_channels * (self.in_channels // self.groups) * prod(axis.pairs for axis in self.axes)

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """The dtype of W's indices: int32 while the number of nonzeros and both dimensions fit, else int64."""
        return index_dtype(self.nnz, *self.shape)

    def matrix_nbytes(self, dtype: npt.DTypeLike) -> int:
        """Return the bytes of W in CSR form: data of the given dtype, indices and row pointers."""
        return csr_nbytes(*self.shape, self.nnz, as_dtype(dtype).itemsize)

    @lazy
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
