"""Ways to compute the same product, one class each: the textbook's loops, W in its forms, im2col, spectra, and libraries.

Each way says what it counts, before anything runs: the operations that it does, the bytes that it moves and the bytes that
it keeps. Each is written as one would write it who knows the method well and has an hour, with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise, product
from math import log2, prod
from typing import Any, Protocol

import numpy as np
import scipy.fft

from convmat import textbook
from convmat.assembly import convolution_matrix, memory_limit, transposed_convolution_matrix
from convmat.dtypes import Array
from convmat.exercise.cases import Case
from convmat.operators import Convolution
from convmat.parallel import run_blocks

LOOPS_LIMIT = 64 * 64  # windows that the loops in Python are waited for: an image of 64 × 64
_SERIAL = 1 << 16  # multiplications below which another thread does not pay


@dataclass(frozen=True)
class Work:
    """What a product costs by counting.

    Attributes
    ----------
    flops : float
        Multiplications and additions.
    bytes : float
        Bytes read and written, if every array goes from and to memory once for each pass over it.
    memory : float
        Bytes that the way needs beside the kernel, the input and the output: kept between products, or made anew in each.
    """

    flops: float
    bytes: float
    memory: float

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: operations for each byte."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Ready:
    """A way with everything prepared that does not depend on the input."""

    product: Callable[[Array], Array]  # (C_in, H, W) → (C_out, H_out, W_out)
    transposed: Callable[[Array], Array]  # (C_out, H_out, W_out) → (C_in, H, W)


class Way(Protocol):
    """One way to compute products; stateless."""

    name: str
    title: str

    def refuses(self, case: Case) -> str | None:
        """Return why it is left out, as a sentence, or None."""

    def work(self, case: Case) -> Work:
        """Count one product."""

    def build(self, case: Case, workers: int) -> Ready:
        """Prepare."""


def memory_allowed() -> int:
    """Return the bytes that a way may need: so that several fit into this machine beside each other."""
    return min(2 * 10**9, memory_limit() // 6)


class Loops:
    """One weighted sum after the other, as the book writes them: every window is a handful of calls of the interpreter."""

    name = "loops"
    title = "the book's loops"

    def refuses(self, case: Case) -> str | None:
        """Refuse what the book does not do, and what would take seconds."""
        geometry = case.geometry
        if geometry.groups != 1 or set(geometry.dilation) != {1} or any(a != b for a, b in geometry.padding):
            return "the book's loops know neither groups nor dilation, and pad both sides alike"
        windows = geometry.in_channels * prod(geometry.output_shape)
        if windows > LOOPS_LIMIT:
            return f"loops in Python are waited for up to {LOOPS_LIMIT:,} windows, as in an image of 64 × 64"
        return None

    def work(self, case: Case) -> Work:
        """Count the arithmetic, and the input and output once."""
        return Work(case.geometry.flops, _vectors(case), _padded_bytes(case))

    def build(self, case: Case, workers: int) -> Ready:
        """Prepare nothing."""
        geometry = case.geometry
        padding = tuple(before for before, _ in geometry.padding)

        def transposed(y: Array) -> Array:
            z = np.zeros(geometry.padded.input_shape, case.dtype)  # the last of it may be in no window
            laid = textbook.trans_conv(y, case.kernel, stride=geometry.stride)
            z[:, : laid.shape[1], : laid.shape[2]] = laid
            return _crop(case, z)

        return Ready(lambda x: textbook.corr2d(x, case.kernel, stride=geometry.stride, padding=padding), transposed)


class CompiledLoops:
    """The same loops, compiled by numba as they stand, one share of the rows of the output for each thread."""

    name = "compiled"
    title = "the same loops, compiled"

    def refuses(self, case: Case) -> str | None:
        """Refuse if numba is missing."""
        return _missing("numba")

    def work(self, case: Case) -> Work:
        """Count as the loops do."""
        return Work(case.geometry.flops, _vectors(case), _padded_bytes(case))

    def build(self, case: Case, workers: int) -> Ready:
        """Import the loops; the first product compiles them."""
        from convmat.exercise import loops

        geometry, kernel = case.geometry, case.kernel
        steps = (*geometry.stride, *geometry.dilation, geometry.groups)
        shares = _shares(geometry.out_channels * geometry.spatial_output[0], geometry.flops // 2, workers)

        def product(x: Array) -> Array:
            padded, y = _pad(case, x), np.empty(geometry.output_shape, case.dtype)
            run_blocks(lambda first, last: loops.corr2d(padded, kernel, y, *steps, first, last), shares, workers)
            return y

        def transposed(y: Array) -> Array:
            # Neighbouring outputs add to the same inputs, so each thread has an array of its own.
            z = np.zeros((len(shares), *geometry.padded.input_shape), case.dtype)

            def scatter(i: int, first: int, last: int) -> None:
                loops.trans_conv(y, kernel, z[i], *steps, first, last)

            run_blocks(scatter, [(i, *share) for i, share in enumerate(shares)], workers)
            return _crop(case, z.sum(0) if len(z) > 1 else z[0])

        return Ready(product, transposed)


class DenseMatrix:
    """W as an ordinary matrix, nearly all zeros."""

    name = "dense"
    title = "dense W"

    def refuses(self, case: Case) -> str | None:
        """Refuse what does not fit."""
        return _too_large(self.work(case))

    def work(self, case: Case) -> Work:
        """Count every entry of W, zero or not: its bytes once, 2 operations each."""
        entries = prod(case.geometry.shape)
        matrix = entries * case.itemsize
        return Work(2 * entries, matrix + _vectors(case), matrix)

    def build(self, case: Case, workers: int) -> Ready:
        """Write W."""
        W = convolution_matrix(case.kernel, case.input_shape, **case.options, workers=workers).toarray()
        shapes = case.geometry.output_shape, case.geometry.input_shape
        return Ready(lambda x: (W @ x.ravel()).reshape(shapes[0]), lambda y: (W.T @ y.ravel()).reshape(shapes[1]))


class StoredMatrix:
    """W as a sparse matrix, built once, with a share of its rows for each thread; Wᵀ likewise, when it is first used."""

    name = "csr"
    title = "CSR W, built once"

    def refuses(self, case: Case) -> str | None:
        """Refuse what does not fit."""
        return _too_large(self.work(case))

    def work(self, case: Case) -> Work:
        """Count a value and its column for every nonzero, and 2 operations: in float64 12 bytes, while int32 suffices."""
        matrix = case.geometry.matrix_nbytes(case.dtype)
        return Work(2 * case.geometry.nnz, matrix + _vectors(case), matrix)

    def build(self, case: Case, workers: int) -> Ready:
        """Write W, share by share."""
        geometry = case.geometry
        built: dict[bool, list[tuple[int, int, Any]]] = {}

        def matrix(transposed: bool) -> list[tuple[int, int, Any]]:
            if transposed not in built:
                write: Any = convolution_matrix
                shape: tuple[int, ...] = case.input_shape
                options = dict(case.options)
                if transposed:
                    write, shape = transposed_convolution_matrix, geometry.output_shape
                    options["output_shape"] = geometry.input_shape
                shares = _shares(geometry.shape[transposed], geometry.nnz, workers)
                built[transposed] = [
                    (*rows, write(case.kernel, shape, **options, rows=rows, workers=workers)) for rows in shares
                ]
            return built[transposed]

        def multiply(transposed: bool, vector: Array) -> Array:
            result = np.empty(geometry.shape[transposed], case.dtype)

            def rows(first: int, last: int, block: Any) -> None:
                result[first:last] = block @ vector.ravel()

            run_blocks(rows, matrix(transposed), workers)
            return result.reshape(geometry.input_shape if transposed else geometry.output_shape)

        matrix(False)
        return Ready(partial(multiply, False), partial(multiply, True))


class RebuiltMatrix:
    """W as a sparse matrix, built for one product and thrown away."""

    name = "csr anew"
    title = "CSR W, built every time"

    def refuses(self, case: Case) -> str | None:
        """Refuse what does not fit."""
        return STORED.refuses(case)

    def work(self, case: Case) -> Work:
        """Count W twice: written, and read."""
        work = STORED.work(case)
        return Work(work.flops, work.bytes + work.memory, work.memory)

    def build(self, case: Case, workers: int) -> Ready:
        """Prepare nothing."""

        def transposed(y: Array) -> Array:
            Wt = transposed_convolution_matrix(
                case.kernel, y.shape, **case.options, output_shape=case.input_shape, workers=workers
            )
            z: Array = Wt @ y.ravel()
            return z.reshape(case.input_shape)

        return Ready(lambda x: STORED.build(case, workers).product(x), transposed)


class Im2col:
    """The other matrix multiplication: all windows as the columns of a matrix, and the kernel, flattened, times it."""

    name = "im2col"
    title = "im2col + BLAS"

    def refuses(self, case: Case) -> str | None:
        """Refuse what does not fit."""
        return _too_large(self.work(case))

    def work(self, case: Case) -> Work:
        """Count the copy of every pixel for every tap, written and read, and the arithmetic, zeros of the border too."""
        geometry = case.geometry
        columns = geometry.in_channels * prod(geometry.spatial_kernel) * prod(geometry.spatial_output)
        copy = columns * case.itemsize
        return Work(2 * columns * geometry.out_channels // geometry.groups, 2 * copy + _vectors(case), copy)

    def build(self, case: Case, workers: int) -> Ready:
        """Flatten the kernel, and find where the windows lie."""
        geometry = case.geometry
        groups, (h, w), (n_h, n_w) = geometry.groups, geometry.spatial_kernel, geometry.spatial_output
        kernel = case.kernel.reshape(groups, geometry.out_channels // groups, -1)
        spans = [
            [slice(tap * d, tap * d + s * (n - 1) + 1, s) for tap in range(taps)]
            for taps, d, s, n in zip(
                geometry.spatial_kernel, geometry.dilation, geometry.stride, geometry.spatial_output, strict=True
            )
        ]
        shares = _shares(geometry.in_channels, geometry.in_channels * h * w * n_h * n_w, workers)

        def product_(x: Array) -> Array:
            padded, columns = _pad(case, x), np.empty((geometry.in_channels, h, w, n_h, n_w), case.dtype)

            def gather(first: int, last: int) -> None:
                for a, b in product(range(h), range(w)):
                    columns[first:last, a, b] = padded[first:last, spans[0][a], spans[1][b]]

            run_blocks(gather, shares, workers)
            y: Array = kernel @ columns.reshape(groups, -1, n_h * n_w)
            return y.reshape(geometry.output_shape)

        def transposed(y: Array) -> Array:
            columns = kernel.transpose(0, 2, 1) @ y.reshape(groups, -1, n_h * n_w)
            columns = columns.reshape(geometry.in_channels, h, w, n_h, n_w)
            z = np.zeros(geometry.padded.input_shape, case.dtype)

            def scatter(first: int, last: int) -> None:
                for a, b in product(range(h), range(w)):
                    z[first:last, spans[0][a], spans[1][b]] += columns[first:last, a, b]

            run_blocks(scatter, shares, workers)
            return _crop(case, z)

        return Ready(product_, transposed)


class Spectra:
    """Products of Fourier transforms of the whole padded image; the kernel's is taken once."""

    name = "fft"
    title = "FFT"

    def refuses(self, case: Case) -> str | None:
        """Refuse spectra that do not fit."""
        return _too_large(self.work(case))

    def work(self, case: Case) -> Work:
        """Count 5 n log₂ n for a complex transform, half for a real one, and 8 for each product of two frequencies.

        A transform of two axes reads and writes its half spectrum once for each axis.
        """
        geometry = case.geometry
        n = prod(self._lengths(case))
        planes = geometry.in_channels + geometry.out_channels
        pairs = geometry.in_channels * geometry.out_channels // geometry.groups
        plane = n * case.itemsize  # a half spectrum has n / 2 complex numbers
        flops = 2.5 * n * log2(n) * planes + 8 * pairs * n / 2
        moved = plane * (4 * planes + pairs + planes) + _vectors(case)
        return Work(flops, moved, plane * (pairs + planes))

    def build(self, case: Case, workers: int) -> Ready:
        """Transform the kernel."""
        geometry = case.geometry
        lengths, axes, groups = self._lengths(case), (-2, -1), geometry.groups
        h, w = geometry.spatial_kernel
        stretched = np.zeros((*case.kernel.shape[:2], *geometry.padded.spatial_input), case.dtype)
        stretched[..., : geometry.dilation[0] * (h - 1) + 1 : geometry.dilation[0], :][
            ..., : geometry.dilation[1] * (w - 1) + 1 : geometry.dilation[1]
        ] = case.kernel
        spectrum = scipy.fft.rfft2(stretched, lengths, workers=workers)
        spectrum = spectrum.reshape(groups, -1, *spectrum.shape[1:])  # (G, C_out / G, C_in / G, *frequencies)
        conjugate = spectrum.conj()  # of a correlation
        inside = tuple(
            slice(0, s * (n - 1) + 1, s) for n, s in zip(geometry.spatial_output, geometry.stride, strict=True)
        )

        def product_(x: Array) -> Array:
            given = scipy.fft.rfft2(_pad(case, x), lengths, workers=workers)
            given = given.reshape(groups, -1, *given.shape[1:])
            result = np.einsum("goihw,gihw->gohw", conjugate, given).reshape(-1, *given.shape[2:])
            y: Array = scipy.fft.irfft2(result, lengths, axes, workers=workers)
            return y[:, *inside]

        def transposed(y: Array) -> Array:
            apart = np.zeros((len(y), *lengths), case.dtype)
            apart[:, *inside] = y
            given = scipy.fft.rfft2(apart, lengths, workers=workers)
            given = given.reshape(groups, -1, *given.shape[1:])
            result = np.einsum("goihw,gohw->gihw", spectrum, given).reshape(-1, *given.shape[2:])
            z: Array = scipy.fft.irfft2(result, lengths, axes, workers=workers)
            return _crop(case, z)

        return Ready(product_, transposed)

    def _lengths(self, case: Case) -> tuple[int, ...]:
        return tuple(scipy.fft.next_fast_len(n, real=True) for n in case.geometry.padded.spatial_input)


class Auto:
    """What convmat picks; counted as the convolution's own arithmetic, whichever engine it is."""

    name = "auto"
    title = 'convmat, engine="auto"'

    def refuses(self, case: Case) -> str | None:
        """Refuse nothing."""
        return None

    def work(self, case: Case) -> Work:
        """Count the arithmetic, and the input and output once; what is kept is what the chosen engine states."""
        estimates = self._operator(case, None).explain().estimates
        state = next(e.cost.state for e in estimates if e.chosen and not e.transposed and e.cost is not None)
        return Work(case.geometry.flops, _vectors(case), state)

    def build(self, case: Case, workers: int) -> Ready:
        """Make the operator. It prepares itself in the first product, so that there is one here."""
        A = self._operator(case, workers)
        A.apply(np.zeros(case.input_shape, case.dtype))
        transpose: Any = A.T
        return Ready(A.apply, transpose.apply)

    def _operator(self, case: Case, workers: int | None) -> Convolution:
        return Convolution(case.kernel, case.input_shape, **case.options, workers=workers)


class Torch:
    """PyTorch's convolution and transposed convolution."""

    name = "torch"
    title = "PyTorch"

    def refuses(self, case: Case) -> str | None:
        """Refuse if PyTorch is missing, and padding that it does not have."""
        if any(a != b for a, b in case.geometry.padding):
            return "PyTorch pads both sides alike"
        return _missing("torch")

    def work(self, case: Case) -> Work:
        """Count the arithmetic, and the input and output once: which of its methods it takes is not known."""
        return Work(case.geometry.flops, _vectors(case), 0)

    def build(self, case: Case, workers: int) -> Ready:
        """Import PyTorch, and bound its threads."""
        import torch

        torch.set_num_threads(workers)
        geometry = case.geometry
        options: dict[str, Any] = {
            "stride": geometry.stride,
            "padding": tuple(before for before, _ in geometry.padding),
            "dilation": geometry.dilation,
            "groups": geometry.groups,
        }
        rest = tuple(  # inputs that no window reads
            axis.before + axis.size + axis.after - (axis.outputs - 1) * axis.stride - axis.reach - 1
            for axis in geometry.axes
        )
        kernel = torch.from_numpy(case.kernel)

        def call(name: str, image: Array, **more: Any) -> Array:
            with torch.no_grad():
                function = getattr(torch.nn.functional, name)
                result: Array = function(torch.from_numpy(image)[None], kernel, **options, **more)[0].numpy()
            return result

        return Ready(
            lambda x: call("conv2d", x),
            lambda y: call("conv_transpose2d", y, output_padding=rest),
        )


STORED = StoredMatrix()
WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        Loops(), CompiledLoops(), DenseMatrix(), STORED, RebuiltMatrix(), Im2col(), Spectra(), Auto(), Torch()
    )
}  # fmt: skip
LIBRARIES = ("auto", "torch")  # these choose among methods; the others are one method each


def _vectors(case: Case) -> float:
    """Return the bytes of the input, the output and the kernel."""
    return (sum(case.geometry.shape) + prod(case.kernel_shape)) * case.itemsize


def _padded_bytes(case: Case) -> float:
    """Return the bytes of the padded input, where there is padding."""
    return prod(case.geometry.padded.input_shape) * case.itemsize if any(map(any, case.geometry.padding)) else 0


def _too_large(work: Work) -> str | None:
    allowed = memory_allowed()
    if work.memory <= allowed:
        return None
    return f"it would take {work.memory / 1e9:,.1f} GB; a way may take {allowed / 1e9:.3g} GB here"


def _missing(package: str) -> str | None:
    return None if find_spec(package) is not None else f"{package} is not installed"


def _shares(count: int, multiplications: int, workers: int) -> list[tuple[int, int]]:
    """Cut a range into one share for each thread, fewer where a share would be too little work."""
    pieces = max(1, min(workers, count, multiplications // _SERIAL))
    return list(pairwise(count * piece // pieces for piece in range(pieces + 1)))


def _pad(case: Case, x: Array) -> Array:
    return np.pad(x, [(0, 0), *case.geometry.padding]) if any(map(any, case.geometry.padding)) else x


def _crop(case: Case, z: Array) -> Array:
    return z[:, *(slice(axis.before, axis.before + axis.size) for axis in case.geometry.axes)]
