"""Compiled code on the disk and in memory: never wrong, and never anybody else's."""

import ast
import os
import pickle
import shutil
import stat
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import convmat
from convmat.engines._compiled import codecache
from convmat.engines._compiled import loader as compiled
from convmat.engines._compiled.loader import CompilerUnavailable
from tests import caches
from tests.processes import python

ENGINES = Path(codecache.__file__).parents[1]
BESIDE = Path(codecache.__file__).with_name("__pycache__")
KEY = "loops.run", "float32", "ab" * 32, "a processor"
posix = pytest.mark.skipif(os.name != "posix", reason="needs permissions of POSIX")


def read_all(*key):
    return list(codecache.read(*key))


# What is compiled from what.


def test_digest_changes_with_every_byte_of_every_source(tmp_path, monkeypatch):
    for name in codecache.SOURCES:
        copy = tmp_path / f"{name}.py"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(ENGINES / f"{name}.py", copy)
    monkeypatch.setattr(codecache, "__file__", str(tmp_path / "_compiled" / "codecache.py"))
    digests = {codecache.digest_sources()}
    changes = 0
    for name in codecache.SOURCES:
        source = tmp_path / f"{name}.py"
        content = source.read_bytes()
        places = {*range(0, len(content), 97), len(content) - 1}
        changed = [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in places]
        for other in (*changed, content[:-1], content + b"\n"):
            source.write_bytes(other)
            digests.add(codecache.digest_sources())
            changes += 1
        source.write_bytes(content)
    assert len(digests) == changes + 1


def test_all_modules_of_compiled_code_are_in_the_digest():
    imports = {}
    for file in ENGINES.rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        imports[str(file.relative_to(ENGINES).with_suffix(""))] = {node.module for node in nodes if node.module}
    compiling = {name for name, modules in imports.items() if any(m.startswith("llvmlite") for m in modules)}
    compiling |= {name for name, modules in imports.items() if "numba.np.numpy_support" in modules}
    assert compiling < set(codecache.SOURCES)
    for name in compiling:
        used = {module[len("convmat.engines.") :].replace(".", "/") for module in imports[name] if "convmat" in module}
        assert used <= set(codecache.SOURCES)


# Files.


def test_what_is_written_is_read(folder):
    assert not read_all(*KEY)
    codecache.write(*KEY, b"code")
    assert read_all(*KEY) == [b"code"]
    for place in range(4):
        other = [*KEY]
        other[place] += "x"
        assert not read_all(*other)


def test_damaged_files_are_not_read(folder):
    codecache.write(*KEY, b"code" * 10)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    damaged = [content[:size] for size in range(len(content))]
    damaged += [
        content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :] for i in range(len(content)) for bit in (1, 128)
    ]
    damaged += [content + b"\0", b"\0" * len(content), pickle.dumps(("foreign", 1.0)), content.swapcase()]
    for other in damaged:
        file.write_bytes(other)
        assert not read_all(*KEY)
    codecache.write(*KEY, b"new")
    assert read_all(*KEY) == [b"new"]


def test_exchanged_files_are_not_read(folder):
    keys = [(KEY[0], variant, *KEY[2:]) for variant in ("float32", "float64")]
    for key in keys:
        codecache.write(*key, key[1].encode())
    one, other = folder.iterdir()
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    assert not any(read_all(*key) for key in keys)


@posix
@pytest.mark.parametrize("kind", ["folder", "pipe", "endless", "nowhere"])
def test_what_is_no_plain_file_is_not_read(folder, kind):
    codecache.write(*KEY, b"code")
    (file,) = folder.iterdir()
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero" if kind == "endless" else "/nowhere")
    assert not read_all(*KEY)
    codecache.write(*KEY, b"new")
    assert read_all(*KEY) == ([] if kind == "folder" else [b"new"])


@posix
def test_files_that_others_can_write_are_not_read(folder, monkeypatch):
    codecache.write(*KEY, b"code")
    (file,) = folder.iterdir()
    for mode in (0o664, 0o646, 0o666, 0o622):
        file.chmod(mode)
        assert not read_all(*KEY)
    for mode in (0o644, 0o600, 0o755):
        file.chmod(mode)
        assert read_all(*KEY) == [b"code"]
    real, mine = os.fstat, os.geteuid()

    def owned_by(user):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(os, "fstat", lambda number: SimpleNamespace(**_fields(real(number)) | {"st_uid": user}))
        return read_all(*KEY)

    assert owned_by(1000) == owned_by(0) == [b"code"]
    assert not owned_by(1001)
    monkeypatch.setattr(os, "fstat", real)
    monkeypatch.setattr(os, "geteuid", lambda: mine)


def _fields(status):
    return {name: getattr(status, name) for name in ("st_mode", "st_uid", "st_size")}


@posix
@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_files_are_written_for_their_owner_alone(folder, mask):
    before = os.umask(mask)
    try:
        codecache.write(*KEY, b"code")
    finally:
        os.umask(before)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o644 & ~mask
    assert read_all(*KEY) == [b"code"]


def test_the_first_folder_that_can_be_written_is_taken_and_all_are_read(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    folders = [tmp_path / "file" / "below", tmp_path / "one", tmp_path / "two"]
    monkeypatch.setattr(codecache, "folders", lambda: folders)
    codecache.write(*KEY, b"code")
    assert [folder.exists() for folder in folders] == [False, True, False]
    folders.reverse()
    assert read_all(*KEY) == [b"code"]
    folders[:] = [tmp_path / "file" / "below", tmp_path / ("x" * 5000)]
    codecache.write(*KEY, b"code")
    assert not read_all(*KEY)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_no_half_file_is_left(folder, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    if isinstance(error, OSError):
        codecache.write(*KEY, b"code")
    else:
        with pytest.raises(KeyboardInterrupt):
            codecache.write(*KEY, b"code")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NUMBA_CACHE_DIR": "chosen"}, ["chosen/convmat"]),
        ({"XDG_CACHE_HOME": "/cache"}, ["__pycache__", "/cache/convmat"]),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, ["__pycache__", "/home/me/.cache/convmat"]),
    ],
)
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs a home as on Linux")
def test_folders(monkeypatch, variables, expected):
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert codecache.folders() == [BESIDE if path == "__pycache__" else Path(path) for path in expected]


def test_no_home(monkeypatch):
    def fail(path):
        raise RuntimeError("Could not determine home directory.")

    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", fail)
    assert codecache.folders() == [BESIDE]


# From the disk into products.

INTERLEAVE = """
import numpy as np
from convmat.engines._compiled import loader as compiled
x, grouped = np.arange(12.0), np.zeros(12)
loop = compiled.load_loop("csr", "interleave", "float64")
loop(0, 3, x, x.ctypes.data, grouped.ctypes.data, 3, 1)
print(*map(int, grouped))
for rows in (1, 2, 3):
    compiled.load_tile(4, rows, 2, 0)
from convmat.engines._compiled import jit
shape = 4, 2, 2, 0
print(jit.multiplies_right(compiled.load_tile(*shape), *shape))
"""
INTERLEAVED = [str(3 * j + i) for i in range(3) for j in range(4)]


def run_interleave(folder):
    assert python(INTERLEAVE, NUMBA_CACHE_DIR=str(folder)) == [*INTERLEAVED, "True"]
    return {file.name: (file.stat().st_ino, file.read_bytes()) for file in (folder / "convmat").iterdir()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache with a loop and three tiles."""
    pytest.importorskip("numba")
    folder = tmp_path_factory.mktemp("filled")
    files = run_interleave(folder)
    assert len(files) == 4
    assert run_interleave(folder) == files
    return folder


def _cut(files):
    for file in files:
        file.write_bytes(file.read_bytes()[:-1000])


def _empty(files):
    for file in files:
        file.write_bytes(b"")


def _flip(files):
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        file.write_bytes(content)


def _exchange(files):
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)


def _foreign(files):
    for file in files:
        file.write_bytes(pickle.dumps((file.name, "0.68", b"nbc")))


def _remove_rights(files):
    for file in files:
        file.chmod(0o666)


@pytest.mark.parametrize(
    "damage", [_cut, _empty, _flip, _exchange, _foreign, pytest.param(_remove_rights, marks=posix)]
)
def test_damaged_caches_heal(filled, tmp_path, damage):
    folder = tmp_path / "cache"
    shutil.copytree(filled, folder)
    before = {file: file.stat().st_ino for file in (folder / "convmat").iterdir()}
    damage(sorted(before))
    healed = run_interleave(folder)
    assert healed.keys() == {file.name for file in before}
    assert all(healed[file.name][0] != number for file, number in before.items())
    assert run_interleave(folder) == healed


def test_a_tile_of_another_shape_is_compiled_anew_even_if_its_file_says_otherwise(fresh, folder, monkeypatch):
    """Tiles of one size in memory: only multiplying with them tells them apart."""
    compiled.load_tile(4, 3, 2, 0)
    (file,) = folder.iterdir()
    written, write = [], codecache.write
    monkeypatch.setattr(codecache, "write", lambda *arguments: written.append(arguments))
    compiled.load_tile(4, 2, 3, 0)
    monkeypatch.setattr(codecache, "write", write)
    ((function, _, *rest, code),) = written
    write(function, "4x3x2x0", *rest, code)
    wrong = file.read_bytes()
    compiled._loaded.clear()
    from convmat.engines._compiled import jit

    assert jit.multiplies_right(compiled.load_tile(4, 3, 2, 0), 4, 3, 2, 0)
    assert file.read_bytes() != wrong
    healed = file.stat().st_ino
    compiled._loaded.clear()
    assert jit.multiplies_right(compiled.load_tile(4, 3, 2, 0), 4, 3, 2, 0)
    assert file.stat().st_ino == healed


@pytest.mark.parametrize("shape", [(4, 1, 4, 0), (8, 3, 2, 0), (4, 2, 3, 1), (8, 4, 1, 1)])
def test_only_the_right_tile_passes_its_check(fresh, shape):
    from convmat.engines._compiled import jit

    address = compiled.load_tile(*shape)
    itemsize, rows, vectors, banded = shape
    assert jit.multiplies_right(address, *shape)
    if vectors > 1:
        assert not jit.multiplies_right(compiled.load_tile(itemsize, rows, vectors - 1, banded), *shape)
    if rows > 1:
        assert not jit.multiplies_right(compiled.load_tile(itemsize, rows - 1, vectors, banded), *shape)


def test_a_tile_that_is_compiled_wrong_is_an_error(fresh, monkeypatch):
    from convmat.engines._compiled import jit

    monkeypatch.setattr(jit, "multiplies_right", lambda *_: False)
    with pytest.raises(
        CompilerUnavailable, match=r"ArithmeticError: a compiled product of shape \(4, 2, 1, 0\) is wrong$"
    ):
        compiled.load_tile(4, 2, 1, 0)


class _Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@posix
def test_what_others_can_write_is_not_unpickled(fresh, folder, tmp_path, monkeypatch):
    write = codecache.write
    mark = tmp_path / "exploded"
    monkeypatch.setattr(codecache, "write", lambda *key_and_code: write(*key_and_code[:-1], pickle.dumps(_Bomb(mark))))
    compiled.load_tile(4, 2, 1, 0)
    monkeypatch.setattr(codecache, "write", lambda *_: None)
    (file,) = folder.iterdir()
    for mode, exploded in ((0o666, False), (0o664, False), (0o644, True)):  # the last to show that the bomb is one
        compiled._loaded.clear()
        file.chmod(mode)
        assert compiled.load_tile(4, 2, 1, 0)
        assert mark.exists() == exploded


def test_code_is_not_kept_if_its_sources_change_meanwhile(fresh, folder, monkeypatch):
    digests = iter(["one", "other"])
    monkeypatch.setattr(codecache, "digest_sources", lambda: next(digests))
    assert compiled.load_tile(4, 2, 1, 0)
    assert not folder.exists()


def test_a_package_without_sources_is_not_cached(fresh, folder, monkeypatch):
    def fail():
        raise FileNotFoundError

    monkeypatch.setattr(codecache, "digest_sources", fail)
    assert compiled.load_tile(4, 2, 1, 0)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["_reduce", "_rebuild"])
def test_a_numba_with_other_insides_compiles_uncached(fresh, folder, monkeypatch, name):
    monkeypatch.delattr(f"numba.core.compiler.CompileResult.{name}")
    for _ in range(2):
        assert compiled.load_tile(4, 2, 1, 0)
        compiled._loaded.clear()
    assert folder.exists() == (name == "_rebuild")


def test_four_processes_fill_a_cache_at_once(tmp_path):
    """Once; `nox -s caches` does it more often."""
    pytest.importorskip("numba")
    assert not caches.fill_and_check(tmp_path, 0)


# Threads and processes.


def test_threads_compile_a_variant_once(fresh, monkeypatch):
    from convmat.engines._compiled import jit

    calls, compile_tile = [], jit.compile_tile

    def count(*shape):
        calls.append(shape)
        return compile_tile(*shape)

    monkeypatch.setattr(jit, "compile_tile", count)
    addresses, barrier = [], threading.Barrier(4)

    def load():
        barrier.wait()
        addresses.append(compiled.load_tile(4, 2, 1, 0))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [(4, 2, 1, 0)]
    assert len(set(addresses)) == 1
    assert len(addresses) == 4


FORK = """
import os, threading, time
from convmat.engines._compiled import loader as compiled
from convmat.engines._compiled import jit
compiling, go = threading.Event(), threading.Event()
original = jit.compile_tile

def slow(*shape):
    compiling.set()
    go.wait(1)  # in the meantime the other thread begins to fork
    return original(*shape)

jit.compile_tile = slow
thread = threading.Thread(target=compiled.load_tile, args=(4, 2, 1, 0))
thread.start()
compiling.wait()
child = os.fork()
jit.compile_tile = original
if not child:
    compiled.load_tile(4, 3, 1, 0)
    os._exit(7)
compiled.load_tile(4, 3, 1, 0)
thread.join()
for _ in range(3000):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    time.sleep(0.02)
print(os.waitstatus_to_exitcode(status) if done else "hangs")
if not done:
    os.kill(child, 9)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_a_thread_compiles_can_compile(tmp_path):
    pytest.importorskip("numba")
    assert python(FORK, NUMBA_CACHE_DIR=str(tmp_path), PYTHONWARNINGS="ignore") == ["7"]


# Where nothing can be written.


@pytest.fixture
def read_only(tmp_path):
    """A package and a home that even root cannot write to."""
    package = tmp_path / "package" / "convmat"
    shutil.copytree(Path(convmat.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "engines" / "__pycache__").touch()
    (tmp_path / "home").touch()
    home = str(tmp_path / "home")
    return package, {"NUMBA_CACHE_DIR": "", "HOME": home, "XDG_CACHE_HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}


WORKS = """
import sys
sys.path.insert(0, {!r})
import numpy as np, convmat
print(convmat.__file__)
A = convmat.Convolution(np.ones((2, 2)), (5, 5), engine="taps", workers=1)
with np.errstate(all="raise"):
    print(A.apply(np.ones((5, 5))).sum())
"""


def test_read_only_package_and_home(read_only):
    pytest.importorskip("numba")
    package, environment = read_only
    file, total = python(WORKS.format(str(package.parent)), **environment)
    assert Path(file).parent == package
    assert float(total) == 64


@pytest.mark.parametrize("variable", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("place", ["/dev/null", "/proc/none", "x" * 4000])
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_unusable_folders(read_only, variable, place):
    pytest.importorskip("numba")
    package, environment = read_only
    here = f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
    assert python(here + INTERLEAVE, **environment | {variable: place}) == [*INTERLEAVED, "True"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_full_disk(tmp_path):
    """No file may become larger than some bytes, which fails in the middle of writing, as on a disk that is full."""
    pytest.importorskip("numba")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    assert python(limit + INTERLEAVE, NUMBA_CACHE_DIR=str(tmp_path)) == [*INTERLEAVED, "True"]
    assert not list((tmp_path / "convmat").iterdir())


def test_warnings_are_no_errors(tmp_path):
    pytest.importorskip("numba")
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "error"}
    for optimise in ("0", "1"):
        assert python(INTERLEAVE, **environment, PYTHONOPTIMIZE=optimise) == [*INTERLEAVED, "True"]
