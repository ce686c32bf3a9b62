"""The command line: ``python -m convmat`` runs the demo."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from convmat import demo, exercise


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after ``python -m convmat``; those of the process by default. None at all means ``demo``.

    Returns
    -------
    int
        0, or what the command says; 2 where it cannot run with these arguments, after one sentence on standard error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # where the terminal's encoding has no ᵀ, a ? is better than a traceback
            stream.reconfigure(errors="replace")
    given = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(given or ["demo"])
    try:
        if arguments.command == "demo":
            demo.run(arguments.image, arguments.figure)
        else:
            exercise.run(arguments.figure, arguments.seconds)
    except (demo.DemoError, exercise.ExerciseError) as error:
        print(f"convmat: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:  # whoever read the output, as in `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m convmat", description="Convolution as a sparse matrix.")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "demo",
        help="the textbook's example as matrices, and a photograph through W and Wᵀ (also what runs without a command)",
        description="Print the textbook's example as matrices, halve a photograph through the matrix W of a strided "
        "convolution, bring it back to size through Wᵀ, and draw it all.",
    )
    command.add_argument(
        "image",
        nargs="?",
        type=Path,
        metavar="IMAGE",
        help="any image file, its transparency left out (default: a portrait from matplotlib)",
    )
    command.add_argument(
        "--figure",
        type=Path,
        default=Path("convmat-demo.png"),
        metavar="FILE",
        help="where to write the figure (default: %(default)s)",
    )
    command = commands.add_parser(
        "exercise",
        help="is it efficient to use matrix multiplication to implement convolutions? Measured here, in about a minute",
        description="Compute the same products in all ways, on this machine: the textbook's loops, as they stand and "
        "compiled, W dense and sparse, im2col, Fourier transforms, convmat, PyTorch. Print what each takes, and the answer.",
    )
    command.add_argument("--figure", type=Path, metavar="FILE", help="also draw time against size, and the roofline")
    command.add_argument(
        "--seconds",
        type=float,
        default=exercise.SECONDS,
        metavar="NUMBER",
        help="how long to measure, about (default: %(default)g)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
