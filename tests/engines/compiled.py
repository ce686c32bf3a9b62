"""What the tests of the compiled engines share: loops over the taps, and buffers beside pages that must not be touched."""

import ctypes
import itertools
import mmap

import numpy as np

from convmat.geometry import ConvolutionGeometry

_LAYER = ConvolutionGeometry((40, 33, 3, 3), (33, 41, 37), padding=1)
LARGE = {  # enough work for several threads
    "taps": ConvolutionGeometry((24, 24, 3, 3), (24, 60, 61), padding=1, stride=(1, 2)),
    "winograd": _LAYER,
    "winograd4": _LAYER,
}


def slices(geometry, taps):
    """What a tap reads in the padded input."""
    return tuple(
        slice(tap * axis.dilation, tap * axis.dilation + (axis.outputs - 1) * axis.stride + 1, axis.stride)
        for tap, axis in zip(taps, geometry.axes, strict=True)
    )


def padding(geometry):
    return [(0, 0), (0, 0), *((axis.before, max(axis.after, axis.overrun)) for axis in geometry.axes)]


def forward(geometry, kernel, x):
    padded = np.pad(x, padding(geometry))
    split = (len(x), geometry.groups, geometry.in_channels // geometry.groups, -1)
    out = np.zeros((len(x), geometry.out_channels, *geometry.spatial_output), np.result_type(x, kernel))
    for taps in itertools.product(*map(range, geometry.spatial_kernel)):
        read = padded[(..., *slices(geometry, taps))].reshape(split)
        weights = kernel[(slice(None), slice(None), *taps)].reshape(geometry.groups, -1, split[2])
        out += np.einsum("goc,bgcp->bgop", weights, read).reshape(out.shape)
    return out


def transpose(geometry, kernel, y):
    widths = padding(geometry)[2:]
    sizes = [axis.size + sum(pair) for axis, pair in zip(geometry.axes, widths, strict=True)]
    padded = np.zeros((len(y), geometry.in_channels, *sizes), np.result_type(y, kernel))
    split = (len(y), geometry.groups, geometry.out_channels // geometry.groups, -1)
    for taps in itertools.product(*map(range, geometry.spatial_kernel)):
        weights = kernel[(slice(None), slice(None), *taps)].reshape(geometry.groups, split[2], -1)
        written = padded[(..., *slices(geometry, taps))]
        written += np.einsum("goc,bgop->bgcp", weights, y.reshape(split)).reshape(written.shape)
    inner = tuple(slice(before, before + axis.size) for axis, (before, _) in zip(geometry.axes, widths, strict=True))
    return padded[(..., *inner)]


def random_array(rng, shape, dtype):
    value = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        value = value + 1j * rng.standard_normal(shape)
    return np.ascontiguousarray(value.astype(dtype))


def kernel_shape(geometry):
    return geometry.kernel_shape if geometry.has_channels else (1, 1, *geometry.kernel_shape)


def operands(geometry, dtype, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    return (
        random_array(rng, kernel_shape(geometry), dtype),
        random_array(rng, (batch, geometry.in_channels, *geometry.spatial_input), dtype),
        random_array(rng, (batch, geometry.out_channels, *geometry.spatial_output), dtype),
    )


def bound(engine, geometry, kernel, workers=1):
    return engine.bind(engine.prepare(geometry, kernel.dtype, workers), kernel)


def guarded(array, at_end):
    """Copy an array to memory that begins or ends at a page that cannot be read or written."""
    page, size = mmap.PAGESIZE, array.nbytes
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    libc, start = ctypes.CDLL(None), ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for border in (start, start + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(border), page, 0) == 0
    offset = page + (pages * page - size if at_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


def check_guarded(engine, cases, guard_inner):
    """Compute products in guarded buffers, each at the end of its memory or at the beginning.

    `cases` yields (geometry, dtype, batch, at_end). `guard_inner(direction, products, transposed, at_end)` guards what an
    engine keeps for a direction: tables, packed or transformed kernels, and scratch memory, which is NaN at first.
    """
    for geometry, dtype, batch, at_end in cases:
        kernel, x, y = operands(geometry, dtype, batch)
        for transposed, source in ((False, x), (True, y)):
            plan = engine.prepare(geometry, kernel.dtype, 1)
            products = engine.bind(plan, kernel)
            guard_inner(plan.direction(transposed), products, transposed, at_end)
            expected = (transpose if transposed else forward)(geometry, kernel, source)
            out = guarded(np.full(expected.shape, np.nan, dtype), at_end)
            (products.transpose if transposed else products.forward)(guarded(source, at_end), out)
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-3, err_msg=f"{geometry}, {dtype}, {transposed}")
    print("done")


def older_processor(width):
    """Return the environment in which code is compiled for a processor with narrower vectors than `width` bytes."""
    if width > 32:
        return {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}
    return {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
