"""Weighted sums, one after the other: the book's loops, interpreted and compiled."""

from __future__ import annotations

from math import prod

import numpy as np

from convmat import textbook
from convmat._runtime import run_blocks
from convmat.commands.exercise.cases import Case
from convmat.commands.exercise.ways.base import Ready, Work, crop, cut, missing, pad, padded_bytes, vector_bytes
from convmat.geometry import Array

LOOPS_LIMIT = 64 * 64  # most windows for the loops in Python: an image of 64 × 64


class Loops:
    """One weighted sum after the other, as the book writes them; each window takes several calls of the interpreter."""

    name = "loops"
    title = "the book's loops"

    def refuses(self, case: Case) -> str | None:
        """Refuse options that the book does not have, and cases that would take seconds."""
        geometry = case.geometry
        if geometry.groups != 1 or set(geometry.dilation) != {1} or any(a != b for a, b in geometry.padding):
            return "the book's loops know neither groups nor dilation, and pad both sides alike"
        windows = geometry.in_channels * prod(geometry.output_shape)
        if windows > LOOPS_LIMIT:
            return f"loops in Python are waited for up to {LOOPS_LIMIT:,} windows, as in an image of 64 × 64"
        return None

    def work(self, case: Case) -> Work:
        """Count the arithmetic, and the input and output once."""
        return Work(case.geometry.flops, vector_bytes(case), padded_bytes(case))

    def build(self, case: Case, workers: int) -> Ready:
        """Prepare nothing."""
        geometry = case.geometry
        padding = tuple(before for before, _ in geometry.padding)

        def transposed(y: Array) -> Array:
            z = np.zeros(geometry.padded.input_shape, case.dtype)  # its last rows and columns may be in no window
            laid = textbook.trans_conv(y, case.kernel, stride=geometry.stride)
            z[:, : laid.shape[1], : laid.shape[2]] = laid
            return crop(case, z)

        return Ready(lambda x: textbook.corr2d(x, case.kernel, stride=geometry.stride, padding=padding), transposed)


class CompiledLoops:
    """The same loops, compiled by numba, with a block of output rows for each thread."""

    name = "compiled"
    title = "the same loops, compiled"

    def refuses(self, case: Case) -> str | None:
        """Refuse if numba is missing or disabled."""
        if (refusal := missing("numba")) is not None:
            return refusal
        from numba import config

        disabled = getattr(config, "DISABLE_JIT", 0)  # set when numba is imported
        return "numba is told by NUMBA_DISABLE_JIT not to compile" if disabled else None

    def work(self, case: Case) -> Work:
        """Count as the loops do."""
        return Work(case.geometry.flops, vector_bytes(case), padded_bytes(case))

    def build(self, case: Case, workers: int) -> Ready:
        """Import the loops; the first product compiles them."""
        from convmat.commands.exercise import loops

        geometry, kernel = case.geometry, case.kernel
        steps = (*geometry.stride, *geometry.dilation, geometry.groups)
        shares = cut(geometry.out_channels * geometry.spatial_output[0], geometry.flops // 2, workers)

        def product(x: Array) -> Array:
            padded, y = pad(case, x), np.empty(geometry.output_shape, case.dtype)
            run_blocks(lambda first, last: loops.corr2d(padded, kernel, y, *steps, first, last), shares, workers)
            return y

        def transposed(y: Array) -> Array:
            # Neighbouring outputs add to the same inputs, so each thread has its own array.
            z = np.zeros((len(shares), *geometry.padded.input_shape), case.dtype)

            def scatter(i: int, first: int, last: int) -> None:
                loops.trans_conv(y, kernel, z[i], *steps, first, last)

            run_blocks(scatter, [(i, *share) for i, share in enumerate(shares)], workers)
            return crop(case, z.sum(0) if len(z) > 1 else z[0])

        return Ready(product, transposed)
