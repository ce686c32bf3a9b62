"""Ways to compute the same product, one class each: the textbook's loops, W in its forms, im2col, spectra, and libraries.

Before anything runs, each way counts its operations, the bytes that it moves and the bytes that it keeps. Each is a careful
but short implementation of its method, and all have the same number of threads.
"""

from __future__ import annotations

from convmat.commands.exercise.ways.base import Ready, Way, Work
from convmat.commands.exercise.ways.direct import CompiledLoops, Loops
from convmat.commands.exercise.ways.libraries import Auto, Torch
from convmat.commands.exercise.ways.matrices import STORED, DenseMatrix, Im2col, RebuiltMatrix
from convmat.commands.exercise.ways.spectra import Spectra

__all__ = ["WAYS", "Ready", "Way", "Work"]

WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        Loops(), CompiledLoops(), DenseMatrix(), STORED, RebuiltMatrix(), Im2col(), Spectra(), Auto(), Torch()
    )
}  # fmt: skip
