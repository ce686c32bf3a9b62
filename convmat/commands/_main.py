"""The command line: ``python -m convmat`` runs the demo."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TextIO

from convmat import __version__
from convmat.commands._console import CommandError, words

COMMANDS = ("demo", "exercise", "network", "warm-up")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after ``python -m convmat``; those of the process by default. If they name no command, it is ``demo``.

    Returns
    -------
    int
        0 after success, 1 if the command fails or its output is not read, 2 if it cannot run with these arguments, 130 if
        it is interrupted. A sentence on standard error may say why.
    """
    _prepare_streams()
    status, sentence = _outcome(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or 1
    except OSError as error:
        status, sentence = status or 1, sentence or _unwritten(error)
    if sentence:
        with suppress(OSError, ValueError):
            print(f"convmat: {sentence}", file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        _empty(stream)
    return status


def _outcome(argv: list[str]) -> tuple[int, str]:
    """Run a command; return its exit status, and a final sentence for standard error or ""."""
    try:
        _run(argv)
    except SystemExit as done:  # after --help and --version
        return int(done.code or 0), ""
    except CommandError as error:
        return error.status, str(error)
    except KeyboardInterrupt:
        return 130, ""
    except MemoryError as error:
        return 1, f"there is too little memory ({words(error)})"
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        return 1, ""
    except OSError as error:
        if error.filename is not None:
            return 1, f"{words(error)}: {error.filename!r}"
        return 1, _unwritten(error)
    return 0, ""


def _run(argv: list[str]) -> None:
    """Run a command. Its imports are here, so that an interrupt during them ends it properly too."""
    named = bool(argv) and (argv[0] in COMMANDS or argv[0] in ("-h", "--help", "--version"))
    arguments = _parser().parse_args(argv if named else ["demo", *argv])
    if arguments.command == "exercise":
        from convmat.commands import exercise

        exercise.run(arguments.figure, arguments.seconds)
        return
    if arguments.command == "warm-up":
        from convmat.commands import warm_up

        warm_up.run(arguments.dtype)
        return
    if arguments.command == "network":
        from convmat.commands import network

        network.run(arguments.model, arguments.input_shape, arguments.output, arguments.norms)
        return
    if not named:
        _check_image(arguments.image)
    from convmat.commands import demo

    demo.run(arguments.image, arguments.figure)


def _check_image(image: Path | None) -> None:
    """Raise CommandError if the name of an image is probably a misspelt or misplaced command."""
    if image is None or len(image.parts) != 1 or image.suffix or os.path.lexists(image):
        return
    likely = get_close_matches(image.name, COMMANDS, 1)
    hint = f"did you mean python -m convmat {likely[0]}?" if likely else f"the commands are {', '.join(COMMANDS)}"
    raise CommandError(f"there is neither a command nor an image {str(image)!r}; {hint}")


def _prepare_streams() -> None:
    """Open closed streams on the null device, and let all streams replace letters that their encoding lacks."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the next file that is opened would get its number
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a "?" is better than a traceback
            stream.reconfigure(errors="replace")


def _unwritten(error: OSError) -> str:
    return f"the output cannot be written ({words(error)})"


def _empty(stream: TextIO) -> None:
    """Flush a stream; discard what it cannot write, so that the interpreter does not try again at its end."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors; `main` prints them."""

    def error(self, message: str) -> NoReturn:
        """Raise an error that names the help."""
        raise CommandError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help or the version. argparse's own method ignores an output that cannot be written."""
        print(message, end="", file=file)


def _number(text: str) -> float:
    """Return any float; the command checks its range."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"the seconds to measure must be a positive number, got {text!r}") from None


def _add_network(commands: Any) -> None:
    command = commands.add_parser(
        "network",
        help="what the network in an ONNX file is made of: nonzeros, bytes and receptive field of each stage",
        description="Read a network from an ONNX file and print its stages as a table. No matrix is built for it.",
    )
    command.add_argument("model", type=Path, metavar="MODEL", help="an ONNX file")
    command.add_argument(
        "--input-shape", type=int, nargs="+", metavar="SIZE", help="shape of one input, where the file leaves it open"
    )
    command.add_argument("--output", metavar="NAME", help="which output, where there are several")
    command.add_argument(
        "--norms", action="store_true", help="also bound the norm of each stage, which may take minutes"
    )


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from convmat.commands.exercise import SECONDS

    parser = _Parser(
        prog="python -m convmat",
        description="Convolution as a sparse matrix.",
        epilog="Without a command, the arguments are those of demo: python -m convmat IMAGE --figure FILE.",
    )
    parser.add_argument("--version", action="version", version=f"convmat {__version__}")
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
        help="where to write the figure, in the format that the name ends in; never over the image (default: %(default)s)",
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
        type=_number,
        default=SECONDS,
        metavar="NUMBER",
        help="how long to measure, about (default: %(default)g)",
    )
    _add_network(commands)
    command = commands.add_parser(
        "warm-up",
        help="compile all that products call, so that the first ones need not wait: for images and containers",
        description="Compile all code of the fast engines, and keep it on the disk for this processor: in NUMBA_CACHE_DIR "
        "if that is set, else beside the package or in the user's cache.",
    )
    command.add_argument(
        "--dtype", choices=("float32", "float64"), help="for this dtype and its complex one alone (default: both)"
    )
    return parser
