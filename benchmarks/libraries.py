"""How other packages do the products that convmat is compared on, each as its documentation has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

from benchmarks.workloads import WORKERS, Array, Product

Call = Callable[[], Array]

_FEW = 64  # pairs of channels up to which single-channel functions are summed over channels
_DIRECT = 6e7  # multiplications up to which scipy.signal's direct method is waited for


@dataclass(frozen=True)
class Library:
    """Another package's way to the product: a call for each product that it can do, None for others."""

    name: str
    prepare: Callable[[Product], Call | None]
    package: str = "scipy"
    needs: str = "numpy"  # another package, which it imports

    @property
    def installed(self) -> bool:
        """Whether its package is there, with what that needs."""
        return all(find_spec(package) is not None for package in (self.package, self.needs))


def torch_convolution(product: Product) -> Callable[..., Any] | None:
    """Return PyTorch's function of tensors of images and kernel, with the output padding that restores the size."""
    import torch

    axes = product.geometry.axes
    if len(axes) > 3 or any(axis.before != axis.after for axis in axes):
        return None
    options: dict[str, Any] = {
        "stride": product.geometry.stride,
        "padding": tuple(axis.before for axis in axes),
        "dilation": product.geometry.dilation,
        "groups": product.geometry.groups,
    }
    if product.transposed:
        options["output_padding"] = tuple(
            axis.size - ((axis.outputs - 1) * axis.stride - 2 * axis.before + axis.dilation * (axis.taps - 1) + 1)
            for axis in axes
        )
    name = "conv_transpose" if product.transposed else "conv"
    return partial(getattr(torch.nn.functional, f"{name}{len(axes)}d"), **options)


def torch_product(product: Product) -> Call | None:
    """Return PyTorch's convolution, or transposed convolution."""
    import torch

    function = torch_convolution(product)
    if function is None:
        return None
    images, kernel = torch.from_numpy(product.images), torch.from_numpy(product.kernel)

    def call() -> Array:
        with torch.no_grad():
            return function(images, kernel).numpy()  # type: ignore[no-any-return]

    return call


def scipy_fft_product(convolve: Callable[..., Array], product: Product) -> Call | None:
    """Return one of SciPy's convolutions by Fourier transforms, all pairs of channels at once and then summed."""
    if not _keeps_size(product) or _pairs(product) > _FEW:
        return None
    groups, axes = product.geometry.groups, _spatial(product)
    kernel = product.kernel if product.transposed else np.flip(product.kernel, axes)
    if _pairs(product) == 1:
        images, kernel = product.images, kernel[None, :, 0]

        def one() -> Array:
            with scipy.fft.set_workers(WORKERS):
                return convolve(images, kernel, mode="same", axes=axes)

        return one

    # Channels of a group broadcast against each other, which "same" would crop.
    kernel = kernel.reshape(1, groups, -1, *kernel.shape[1:])  # (1, G, C_out / G, C_in / G, *k)
    images = product.images.reshape(product.batch, groups, -1, *product.images.shape[2:])
    summed = 2 if product.transposed else 3
    images = np.expand_dims(images, 5 - summed)
    inside: tuple[Any, ...] = (..., *(slice(axis.before, axis.before + axis.size) for axis in product.geometry.axes))

    def call() -> Array:
        with scipy.fft.set_workers(WORKERS):
            return convolve(images, kernel, mode="full", axes=axes)[inside].sum(summed)  # type: ignore[no-any-return]

    return call


def correlate_product(product: Product) -> Call | None:
    """Return SciPy's direct correlation, or convolution, of single channels."""
    work = prod(product.output_shape) * prod(product.geometry.spatial_kernel)
    if not _keeps_size(product) or not _single(product) or work > _DIRECT:
        return None
    function = scipy.signal.convolve if product.transposed else scipy.signal.correlate
    kernel = product.kernel[0, 0]
    return lambda: np.stack([function(image[0], kernel, mode="same", method="direct") for image in product.images])


def ndimage_product(product: Product) -> Call | None:
    """Return scipy.ndimage's correlation, or convolution, of each pair of channels, summed."""
    if not _keeps_size(product) or _pairs(product) > _FEW:
        return None
    if product.workload.separable:
        return _ndimage_by_axis(product)
    function = scipy.ndimage.convolve if product.transposed else scipy.ndimage.correlate
    images, kernel = product.images, product.kernel
    outs, ins = (len(kernel) // product.geometry.groups, kernel.shape[1])  # of a group
    pairs = [(out, out // outs * ins + i, kernel[out, i][None]) for out in range(len(kernel)) for i in range(ins)]

    def call() -> Array:
        if _single(product):
            return function(images[:, 0], pairs[0][2], mode="constant")
        result = np.zeros((product.batch, *product.output_shape[1:]), product.dtype)
        for out, source, taps in pairs:
            target, origin = (source, out) if product.transposed else (out, source)
            result[:, target] += function(images[:, origin], taps, mode="constant")
        return result

    return call


def _ndimage_by_axis(product: Product) -> Call:
    """Return scipy.ndimage's correlation, or convolution, along one axis after the other."""
    function = scipy.ndimage.convolve1d if product.transposed else scipy.ndimage.correlate1d
    vectors = product.workload.vectors(product.dtype)

    def call() -> Array:
        result = product.x
        for axis, vector in enumerate(vectors, start=1):
            result = function(result, vector, axis, mode="constant")
        return result

    return call


def pylops_product(product: Product) -> Call | None:
    """Return PyLops' operator, or its adjoint, for single channels; by default it multiplies spectra."""
    if not _keeps_size(product) or not _single(product):
        return None
    from pylops.signalprocessing import Convolve2D, ConvolveND

    axes = _spatial(product)
    kernel = np.flip(product.kernel[0, 0])  # it convolves, and its adjoint correlates
    options = {"offset": tuple(taps // 2 for taps in kernel.shape), "axes": axes, "dtype": product.dtype}
    operator = (Convolve2D if len(axes) == 2 else ConvolveND)(product.x.shape, kernel, **options)
    apply = operator.rmatvec if product.transposed else operator.matvec

    def call() -> Array:
        with scipy.fft.set_workers(WORKERS):
            return apply(product.x.ravel())  # type: ignore[no-any-return]

    return call


def sigpy_product(product: Product) -> Call | None:
    """Return SigPy's convolution of the padded input, or its adjoint, cropped."""
    geometry = product.geometry
    if geometry.groups != 1 or any(axis.dilation != 1 for axis in geometry.axes):
        return None
    import sigpy

    many = not _single(product)
    kernel = np.flip(product.kernel, _spatial(product))
    images = product.images if many else product.images[:, 0]
    options = {"mode": "valid", "strides": geometry.stride, "multi_channel": many}
    channels = (geometry.in_channels,) if many else ()
    padded = (product.batch, *channels, *(axis.before + axis.size + axis.after for axis in geometry.axes))
    inside: tuple[Any, ...] = (..., *(slice(axis.before, axis.before + axis.size) for axis in geometry.axes))
    widths = [(0, 0)] * (1 + many) + [(axis.before, axis.after) for axis in geometry.axes]
    kernel = kernel if many else kernel[0, 0]

    def forward() -> Array:
        with scipy.fft.set_workers(WORKERS):
            return sigpy.convolve(np.pad(images, widths), kernel, **options)  # type: ignore[no-any-return]

    def adjoint() -> Array:
        with scipy.fft.set_workers(WORKERS):
            return sigpy.convolve_data_adjoint(images, kernel, padded, **options)[inside]  # type: ignore[no-any-return]

    return adjoint if product.transposed else forward


def _keeps_size(product: Product) -> bool:
    """Return whether the convolution is what "same" means everywhere: no stride, no dilation, odd kernels."""
    return all(
        axis.stride == axis.dilation == 1 and axis.before == axis.after == (axis.taps - 1) / 2
        for axis in product.geometry.axes
    )


def _pairs(product: Product) -> int:
    """Return the pairs of channels of a group."""
    geometry = product.geometry
    return (geometry.in_channels // geometry.groups) * (geometry.out_channels // geometry.groups)


def _single(product: Product) -> bool:
    return product.geometry.in_channels == product.geometry.out_channels == 1


def _spatial(product: Product) -> tuple[int, ...]:
    return tuple(range(-len(product.geometry.axes), 0))


LIBRARIES = (
    Library("torch", torch_product, "torch"),
    Library("oaconvolve", partial(scipy_fft_product, scipy.signal.oaconvolve)),
    Library("fftconvolve", partial(scipy_fft_product, scipy.signal.fftconvolve)),
    Library("correlate", correlate_product),
    Library("ndimage", ndimage_product),
    Library("PyLops", pylops_product, "pylops"),
    Library("SigPy", sigpy_product, "sigpy", "numba"),
)
