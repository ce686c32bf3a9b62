"""Compiled code on the disk: a file for each function and variant of it, which is read only if it is whole and trusted.

A file's name and content carry the key of what was compiled: function, variant, sources, versions and processor. The
content is a digest of key and code, then the code. So a file that is cut off, exchanged, foreign or outdated is not read;
it is replaced when the code has been compiled anew. Files are written aside and renamed, so that processes may write the
same one at once. What is read will be unpickled and run: so nobody but this user, or root, may be able to write to it.

Nothing here imports numba.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from convmat._runtime import read_trusted, user_cache, write_whole

# Modules of compiled code, of its constants and of its records, in the package of the engines.
SOURCES = (
    *("_compiled/simd", "_sums", "_taps/loops", "_taps/tables", "_csr/loops"),
    *("_winograd/loops", "_winograd/transforms", "_winograd/matrices"),
)
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


def has_variant(function: str, variant: str, now: bool = False) -> bool:
    """Tell whether a variant of a function, in which * is anything, seems to be cached, for this or another processor.

    That was so when it was first asked for, or is so now.
    """
    return bool(fnmatch.filter(_list() if now else _list_once(), _beginning(function, variant, "") + "*"))


def _list() -> list[str]:
    """Return the names of the files of these sources, without the sources."""
    with suppress(OSError):
        mark = _beginning("", "", digest_sources())[1:]
        names = [path.name for folder in folders() if folder.is_dir() for path in folder.iterdir()]
        return [name.replace(mark, "--") for name in names if mark in name]
    return []


_list_once = cache(_list)


def read(function: str, variant: str, sources: str, rest: str) -> Iterator[bytes]:
    """Yield the code of a variant from each folder where it is whole and trusted; parameters as for `write`."""
    key = _key(function, variant, sources, rest)
    for folder in folders():
        content = read_trusted(folder / _file_name(function, variant, sources, key), _MOST)
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
    for folder in folders():
        if write_whole(folder / _file_name(function, variant, sources, key), _header(key, code) + code):
            return


def _key(function: str, variant: str, sources: str, rest: str) -> bytes:
    return f"{function}\n{variant}\n{sources}\n{rest}".encode()


def _header(key: bytes, code: bytes) -> bytes:
    return _HEADER + sha256(len(key).to_bytes(8, "little") + key + code).digest()


def _beginning(function: str, variant: str, sources: str) -> str:
    return f"{function}-{variant}-{sources[:16]}-"


def _file_name(function: str, variant: str, sources: str, key: bytes) -> str:
    return f"{_beginning(function, variant, sources)}{sha256(key).hexdigest()[:16]}.code"


def folders() -> list[Path]:
    """Return where code may be: in ``NUMBA_CACHE_DIR`` if it is set, else beside this module, or in the user's cache."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen, "convmat")]
    folders = [Path(__file__).absolute().with_name("__pycache__")]
    with suppress(RuntimeError):  # there may be no home
        folders.append(user_cache())
    return folders
