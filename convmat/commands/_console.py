"""What the commands share: errors, checks of packages, progress, and figures that are written completely or not at all."""

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
    """A command cannot go on. The message is one sentence for the user, and `status` is the exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def words(error: BaseException) -> str:
    r"""Return the message of an error in one line.

    Examples
    --------
    >>> words(FileNotFoundError(2, "No such file or directory", "x")), words(ValueError("two\nlines.")), words(EOFError())
    ('No such file or directory', 'two lines', 'EOFError')
    """
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()).rstrip(".") or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and logs of other libraries, as about files, caches and fonts, even under ``-W error``."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def unusable(package: str) -> str | None:
    """Return why a package cannot be imported, as the predicate of a sentence, or None."""
    try:
        with quiet():
            import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            return "is not installed"
        return f"cannot be imported ({words(error)})"
    except Exception as error:  # noqa: BLE001 (a package may raise anything if its version does not fit the others)
        return f"cannot be imported ({words(error)})"
    return None


def require(what: str, *packages: str, extra: str = "demo") -> None:
    """Raise CommandError if one of these packages of an extra cannot be imported."""
    for package in packages:
        match unusable(package):
            case None:
                continue
            case "is not installed":
                raise CommandError(f'{what} needs {package}, which pip install "convmat[{extra}]" installs')
            case why:
                raise CommandError(f"{what} needs {package}, which {why}")


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that announces the next step. A bar shows it if tqdm is installed and stderr is a terminal."""
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
    """Raise CommandError, before any work, if a figure cannot be drawn or written under this name."""
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
    """Return a figure in the format of the name's ending; PNG if it has none."""
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
    """Write a file completely. If that fails, the old file stays as it was."""
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
    """Return the status of the file at a path, or None if there is none."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _beside(target: Path) -> Path:
    """Return the name of a new file in the same folder, so that renaming it to the target is atomic."""
    return target.with_name(f".convmat-{secrets.token_hex(8)}")


def _check_place(path: Path) -> None:
    """Raise CommandError or OSError if a file cannot be written under this name."""
    place = _status(path)
    if place is not None:
        if stat.S_ISDIR(place.st_mode):
            raise CommandError(f"the figure must be a file, got the folder {str(path)!r}")
        if _takes_text(place):
            raise CommandError(f"the figure needs a file of its own, got {str(path)!r}, where the text goes")
        if not stat.S_ISREG(place.st_mode):  # opening a pipe would wait for its reader
            return
        path.open("r+b").close()  # raises if the file may not be written: then it must not be replaced either
    target = Path(os.path.realpath(path))
    for folder in (path.parent, target.parent):
        if not folder.is_dir():
            raise CommandError(f"there is no folder {str(folder)!r} for the figure")
    trial = _beside(target)
    trial.open("xb").close()
    trial.unlink()


def _takes_text(place: os.stat_result) -> bool:
    """Tell whether standard output or standard error goes to this file. Devices such as /dev/null are allowed."""
    for stream in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(place, os.fstat(stream)) and (os.isatty(stream) or not stat.S_ISCHR(place.st_mode)):
                return True
    return False
