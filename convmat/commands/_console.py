"""What the commands share: errors, what is installed, progress, and figures that are written whole or not at all."""

from __future__ import annotations

import io
import logging
import os
import secrets
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any


class CommandError(Exception):
    """A command cannot go on; its message is one sentence for the user, and `status` is the exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def words(error: BaseException) -> str:
    r"""Return what an error says, in one line.

    Examples
    --------
    >>> words(FileNotFoundError(2, "No such file or directory", "x")), words(ValueError("two\nlines.")), words(EOFError())
    ('No such file or directory', 'two lines', 'EOFError')
    """
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()).rstrip(".") or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what other libraries warn of and log: a file's oddities, caches, fonts. ``-W error`` raises none of it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def unusable(package: str) -> str | None:
    """Return why a package cannot be imported, as what follows its name, or None."""
    try:
        with quiet():
            import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            return "is not installed"
        return f"cannot be imported ({words(error)})"
    except Exception as error:  # noqa: BLE001 (a package that does not fit the others may raise anything)
        return f"cannot be imported ({words(error)})"
    return None


def require(what: str, *packages: str) -> None:
    """Raise CommandError unless these packages, which the extra "demo" installs, can be imported."""
    for package in packages:
        match unusable(package):
            case None:
                continue
            case "is not installed":
                raise CommandError(f'{what} needs {package}, which pip install "convmat[demo]" installs')
            case why:
                raise CommandError(f"{what} needs {package}, which {why}")


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show which step runs, on standard error where that is a terminal and tqdm is there; yield what announces the next."""
    if unusable("tqdm") is not None:
        yield lambda name: None
        return
    from tqdm import tqdm

    with tqdm(total=steps, leave=False, disable=None, bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}") as bar:

        def step(name: str) -> None:
            bar.set_description(name)
            bar.update()

        yield step


def check_figure(path: Path) -> None:
    """Raise CommandError unless a figure can be drawn and written under this name, before any work."""
    with quiet():
        from matplotlib.backend_bases import FigureCanvasBase
        from matplotlib.figure import Figure

    try:
        _check_place(path)
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise _unwritable(path, error) from None
    formats = FigureCanvasBase.get_supported_filetypes()
    if _format(path) not in formats:
        raise CommandError(f"the figure's name must end in one of {', '.join(sorted(formats))}, got {path.name!r}")
    trial = Figure(figsize=(1, 1))
    trial.text(0, 0, "W")  # some formats leave text to another program
    render(trial, path)


def render(figure: Any, path: Path) -> bytes:
    """Return a figure in the format that the name ends in, PNG without an ending."""
    content = io.BytesIO()
    try:
        with quiet():
            figure.savefig(content, format=_format(path))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (each format fails in its own ways)
        raise CommandError(f"the figure cannot be drawn as {_format(path)} ({words(error)})") from None
    return content.getvalue()


def write(content: bytes, path: Path) -> None:
    """Write a file so that it is complete or, if that fails, as it was before."""
    try:
        place = _status(path)
        if place is not None and not stat.S_ISREG(place.st_mode):  # a pipe or a device
            path.write_bytes(content)
            return
        target = Path(os.path.realpath(path))  # a link stays one
        scratch = _beside(target)
        try:
            with scratch.open("xb") as file:
                file.write(content)
            if place is not None:
                shutil.copymode(target, scratch)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None


def _format(path: Path) -> str:
    return path.suffix[1:].lower() or "png"


def _unwritable(path: Path, error: Exception) -> CommandError:
    return CommandError(f"the figure cannot be written to {str(path)!r} ({words(error)})")


def _status(path: Path) -> os.stat_result | None:
    """Return the status of what a path leads to, or None where nothing is."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _beside(target: Path) -> Path:
    """Return the name of a new file in the same folder, which can be renamed to the target in one step."""
    return target.with_name(f".convmat-{secrets.token_hex(8)}")


def _check_place(path: Path) -> None:
    """Raise CommandError or OSError unless a file can be written under this name."""
    place = _status(path)
    if place is not None:
        if stat.S_ISDIR(place.st_mode):
            raise CommandError(f"the figure must be a file, got the folder {str(path)!r}")
        if _takes_text(place):
            raise CommandError(f"the figure needs a file of its own, got {str(path)!r}, where the text goes")
        if not stat.S_ISREG(place.st_mode):  # opening a pipe would wait for its reader
            return
        path.open("r+b").close()  # one that may not be written is not replaced either
    target = Path(os.path.realpath(path))
    for folder in (path.parent, target.parent):
        if not folder.is_dir():
            raise CommandError(f"there is no folder {str(folder)!r} for the figure")
    trial = _beside(target)
    trial.open("xb").close()
    trial.unlink()


def _takes_text(place: os.stat_result) -> bool:
    """Tell whether a file is where standard output or standard error goes; devices such as /dev/null may be both."""
    for stream in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(place, os.fstat(stream)) and (os.isatty(stream) or not stat.S_ISCHR(place.st_mode)):
                return True
    return False
