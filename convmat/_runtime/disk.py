"""Files that the package keeps: read only if nobody else can have written them, and written whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from secrets import token_hex


def user_cache() -> Path:
    """Return the package's folder in the user's cache, which need not exist.

    Raises
    ------
    RuntimeError
        If there is no home.
    """
    return _user_cache() / "convmat"


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser())
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser()
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return chosen if chosen.is_absolute() else Path("~/.cache").expanduser()


def read_trusted(path: Path, most: int) -> bytes:
    """Return what is in a file; nothing if it cannot be read, others can write to it, or it has more than `most` bytes."""
    with suppress(OSError):
        # Without waiting, as a pipe would let us. The file that has been opened is the one that is judged.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if _is_trusted(status) and status.st_size <= most:
                return file.read(most)
    return b""


def _is_trusted(status: os.stat_result) -> bool:
    """Tell whether a file is a plain one that nobody but its owner, this user or root, can write to."""
    if not stat.S_ISREG(status.st_mode):
        return False
    if os.name != "posix":
        return True
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def write_whole(path: Path, content: bytes) -> bool:
    """Write a file, all of it or nothing, and tell whether that has been done."""
    aside = path.with_name(f"{token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(aside, flags, 0o644), "wb") as file:
            file.write(content)
        aside.replace(path)
    except OSError:
        return False
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return True
