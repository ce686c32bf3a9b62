"""Prints what a network in an ONNX file is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from convmat.commands._console import CommandError, require


def run(model: Path, input_shape: Sequence[int] | None, output: str | None, norms: bool) -> None:
    """Print the stages of a network as a table, with nonzeros, bytes and receptive fields.

    Raises
    ------
    CommandError
        If a package is missing, or the model cannot be read.
    """
    require("this command", "onnx", extra="onnx")
    from convmat.networks import from_onnx

    try:
        network = from_onnx(model, None if not input_shape else tuple(input_shape), output=output)
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    print(network.report(norms=norms))
    kind = "affine" if network.is_affine else "not affine"
    shapes = [" × ".join(map(str, shape)) for shape in (network.input_shape, network.output_shape)]
    print(f"\n{len(network.stages)} stages, {kind}, from {shapes[0]} to {shapes[1]}, {network.dtype}")
    if norms:
        print(f"‖f(x) − f(z)‖ ≤ {network.lipschitz_bound():.4g}·‖x − z‖")
