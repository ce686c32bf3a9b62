"""Compiled code on the disk: a file for each function and variant of it, which is read only if it is whole and trusted.

A file's name and content carry the key of what was compiled: function, variant, sources, versions and processor. The
content is a digest of key and code, then the code. So a file that is cut off, exchanged, foreign or outdated is not read;
it is replaced when the code has been compiled anew. Files are written aside and renamed, so that processes may write the
same one at once. What is read will be unpickled and run: so nobody but this user, or root, may be able to write to it.

Nothing here imports numba.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

# Modules of compiled code, of its constants and of its records, in the package of the engines.
SOURCES = ("_compiled/simd", "_sums", "_taps/loops", "_taps/tables", "_winograd/loops", "_csr/loops")
_HEADER = b"convmat compiled code\n"
_MOST = 64 << 20  # bytes of a file that is read


def digest_sources() -> str:
    """Return a digest of every byte that compiled code is made from.

    Raises
    ------
    OSError
        If the sources cannot be read, as where there are none.
    """
    digest = sha256()
    for name in SOURCES:
        source = Path(__file__).parents[1].joinpath(f"{name}.py").read_bytes()
        digest.update(f"{name} {len(source)}\n".encode() + source)
    return digest.hexdigest()


@cache
def has_variant(function: str, variant: str) -> bool:
    """Tell whether a variant of a function seems to be cached, for this or another processor."""
    with suppress(OSError):
        beginning = _beginning(function, variant, digest_sources())
        return any(any(folder.glob(f"{beginning}*")) for folder in _folders())
    return False


def read(function: str, variant: str, sources: str, rest: str) -> Iterator[bytes]:
    """Yield the code of a variant from each folder where it is whole and trusted; parameters as for `write`."""
    key = _key(function, variant, sources, rest)
    for folder in _folders():
        content = _read_trusted(folder / _file_name(function, variant, sources, key))
        start = len(_HEADER) + sha256().digest_size
        if content[:start] == _header(key, content[start:]):
            yield content[start:]


def write(function: str, variant: str, sources: str, rest: str, code: bytes) -> None:
    """Keep the code of a variant in the first folder that can be written; if there is none, do nothing.

    Parameters
    ----------
    function, variant : str
        Name of the function, with its module; dtypes or shape. Both are legible in the file's name.
    sources : str
        Digest of the sources.
    rest : str
        What else the code depends on.
    code : bytes
        What `read` yields.
    """
    key = _key(function, variant, sources, rest)
    for folder in _folders():
        if _write_whole(folder / _file_name(function, variant, sources, key), _header(key, code) + code):
            return


def _key(function: str, variant: str, sources: str, rest: str) -> bytes:
    return f"{function}\n{variant}\n{sources}\n{rest}".encode()


def _header(key: bytes, code: bytes) -> bytes:
    return _HEADER + sha256(len(key).to_bytes(8, "little") + key + code).digest()


def _beginning(function: str, variant: str, sources: str) -> str:
    return f"{function}-{variant}-{sources[:16]}-"


def _file_name(function: str, variant: str, sources: str, key: bytes) -> str:
    return f"{_beginning(function, variant, sources)}{sha256(key).hexdigest()[:16]}.code"


def _folders() -> list[Path]:
    """Return where code may be: in ``NUMBA_CACHE_DIR`` if it is set, else beside this module, or in the user's cache."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen, "convmat")]
    folders = [Path(__file__).absolute().with_name("__pycache__")]
    with suppress(RuntimeError):  # there may be no home
        folders.append(_user_cache() / "convmat")
    return folders


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser())
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser()
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return chosen if chosen.is_absolute() else Path("~/.cache").expanduser()


def _read_trusted(path: Path) -> bytes:
    """Return what is in a file, or nothing if it cannot be read or others can write to it."""
    with suppress(OSError):
        # Without waiting, as a pipe would let us. The file that has been opened is the one that is judged.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if _is_trusted(status) and status.st_size <= _MOST:
                return file.read(_MOST)
    return b""


def _is_trusted(status: os.stat_result) -> bool:
    """Tell whether a file is a plain one that nobody but its owner, this user or root, can write to."""
    if not stat.S_ISREG(status.st_mode):
        return False
    if os.name != "posix":
        return True
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write_whole(path: Path, content: bytes) -> bool:
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
