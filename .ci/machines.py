"""What makes a machine hostile, and whether this one can be made so: the settings of the conditions in `hostile`."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def python(*arguments: str) -> tuple[str, ...]:
    """Return a command of this Python."""
    return (PYTHON, *arguments)


def environment(**more: str) -> dict[str, str]:
    """Return the variables that commands start with: this checkout, and nothing that would steer what is tested."""
    steering = ("NUMBA_", "OPENBLAS_", "OMP_", "MKL_", "PYTHON", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONFAULTHANDLER": "1",
        "MPLBACKEND": "Agg",
        **more,
    }


@dataclass(frozen=True)
class Setting:
    """How commands are started so that a condition holds for them."""

    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = ROOT


Around = Callable[[Path, Path], AbstractContextManager[Setting]]  # of an empty directory, and a filled cache


# ---- what makes a machine so -----------------------------------------------------------------------------------------


def variables(**environment: str) -> Around:
    """Set variables, with a filled cache of compiled code."""

    @contextmanager
    def around(place: Path, cache: Path) -> Iterator[Setting]:
        shutil.copytree(cache, place / "cache")
        yield Setting(environment={"NUMBA_CACHE_DIR": str(place / "cache"), **environment})

    return around


as_it_is = variables()


def prefixed(*prefix: str) -> Around:
    """Start commands through another one."""

    @contextmanager
    def around(place: Path, cache: Path) -> Iterator[Setting]:
        with as_it_is(place, cache) as setting:
            yield Setting(prefix, setting.environment)

    return around


@contextmanager
def empty_cache(place: Path, cache: Path) -> Iterator[Setting]:
    """Start with an empty cache; it fills the one that other conditions begin with, if nothing has yet."""
    yield Setting(environment={"NUMBA_CACHE_DIR": str(place / "cache")})
    if not any(cache.iterdir()):
        shutil.copytree(place / "cache", cache, dirs_exist_ok=True)


@contextmanager
def busy_core(place: Path, cache: Path) -> Iterator[Setting]:
    """Let another process spin."""
    spinning = subprocess.Popen(python("-c", "while True: pass"))
    try:
        with as_it_is(place, cache) as setting:
            yield setting
    finally:
        spinning.kill()
        spinning.wait()


def copy_checkout(place: Path, *names: str) -> Path:
    """Copy parts of the checkout, without what Python has compiled."""
    for name in names:
        source, unwanted = ROOT / name, shutil.ignore_patterns("__pycache__", "_build")
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=unwanted)
        else:
            shutil.copy(source, place / name)
    return place


def mounted(script: str, place: Path, command: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return a prefix that starts a command where a script has mounted things for it alone; $0 is the directory."""
    return ("unshare", "-m", "sh", "-ec", f'{script}; exec "$@"', str(place), *command)


@contextmanager
def read_only(place: Path, cache: Path) -> Iterator[Setting]:
    """Let neither the package nor the user's directory be written to."""
    copy_checkout(place, "convmat", "tests")
    (place / "home").mkdir()
    environment = {"HOME": str(place / "home"), "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": ""}
    if IS_ROOT:
        prefix = mounted('mount --bind "$0" "$0"; mount -o remount,ro,bind "$0"', place)
        yield Setting(prefix, environment, place)
        return
    directories = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for path in directories:
        path.chmod(0o555)
    yield Setting((), environment, place)
    for path in directories:
        path.chmod(0o755)


@contextmanager
def full_cache(place: Path, cache: Path) -> Iterator[Setting]:
    """Have a cache without room."""
    script = 'mount -t tmpfs -o size=64k tmpfs "$0"; head -c 1M /dev/zero >"$0/full" 2>/dev/null || true'
    yield Setting(mounted(script, place), {"NUMBA_CACHE_DIR": str(place)})


def damage(path: Path, number: int) -> None:
    """Damage a file, each in another way."""
    content = bytearray(path.read_bytes())
    drawn = random.Random(number)
    for _ in range(8):
        content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
    kinds = (bytes(content), path.read_bytes()[: len(content) // 2], b"", b"\x80\x04N.", b"foreign\n" * 99, None)
    path.unlink()
    kind = kinds[number % len(kinds)]
    if kind is None:
        path.mkdir()
    else:
        path.write_bytes(kind)


def damaged_cache(first: int) -> Around:
    """Damage all files of a filled cache, beginning with another kind of damage."""

    @contextmanager
    def around(place: Path, cache: Path) -> Iterator[Setting]:
        with as_it_is(place, cache) as setting:
            files = sorted(path for path in (place / "cache").rglob("*") if path.is_file() and path.stat().st_size)
            for number, path in enumerate(files, first):
                damage(path, number)
            yield setting

    return around


@contextmanager
def others_cache(place: Path, cache: Path) -> Iterator[Setting]:
    """Have a cache that everyone can write to, and whose files are another user's."""
    with as_it_is(place, cache) as setting:
        for path in (place / "cache", *(place / "cache").rglob("*")):
            path.chmod(0o777)
            os.chown(path, 65534, 65534)
        yield setting


@contextmanager
def broken_numba(place: Path, cache: Path) -> Iterator[Setting]:
    """Have a numba that does not import."""
    (place / "numba").mkdir()
    (place / "numba" / "__init__.py").write_text('raise ImportError("Numba needs NumPy 0.1 or less")\n')
    yield Setting(environment={"PYTHONPATH": f"{place}{os.pathsep}{ROOT}"})


def _pids_group() -> Path:
    return Path("/sys/fs/cgroup/pids" if Path("/sys/fs/cgroup/pids").is_dir() else "/sys/fs/cgroup")


def _cpu_group() -> Path:
    return Path("/sys/fs/cgroup/cpu" if Path("/sys/fs/cgroup/cpu").is_dir() else "/sys/fs/cgroup")


def limited_threads(threads: int) -> Around:
    """Let the system give a process so many threads, its first one included."""

    @contextmanager
    def around(place: Path, cache: Path) -> Iterator[Setting]:
        group = Path(tempfile.mkdtemp(prefix="convmat-", dir=_pids_group()))
        try:
            (group / "pids.max").write_text(str(threads))
            with as_it_is(place, cache) as setting:
                alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # others would abort the process
                prefix = ("sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(group))
                yield Setting(prefix, {**setting.environment, **alone})
        finally:
            group.rmdir()

    return around


@contextmanager
def cpu_quota(place: Path, cache: Path) -> Iterator[Setting]:
    """Let a process use the time of one CPU."""
    group = Path(tempfile.mkdtemp(prefix="convmat-", dir=_cpu_group()))
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text("100000 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text("100000")
        with as_it_is(place, cache) as setting:
            yield Setting(("sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(group)), setting.environment)
    finally:
        group.rmdir()


def in_venv(packages: Callable[[], list[str]], wheel: bool) -> Around:
    """Make an environment of its own; with a wheel, the tests run outside of the checkout."""

    @contextmanager
    def around(place: Path, cache: Path) -> Iterator[Setting]:
        quiet = ("-m", "pip", "--quiet", "--disable-pip-version-check")
        run(python("-m", "venv", str(place / "venv")))
        target, outside = place / "outside", str(place / "venv" / "bin")
        wanted = packages()
        if wheel:
            run(python(*quiet, "wheel", "--no-deps", "--wheel-dir", str(place), str(ROOT)))
            wanted = [f"{next(place.glob('*.whl'))}[fast,demo]", *wanted]
        run((f"{outside}/python", *quiet, "install", *wanted))
        environment = {"PATH": f"{outside}{os.pathsep}{os.environ['PATH']}"}
        if not wheel:
            yield Setting(environment=environment)
            return
        target.mkdir()
        kept = (
            "tests",
            "benchmarks",
            "docs",
            "README.md",
            "CHANGELOG.md",
            "CITATION.cff",
            "pyproject.toml",
            "asv.conf.json",
        )
        copy_checkout(target, *kept)
        yield Setting(environment={**environment, "PYTHONPATH": ""}, directory=target)

    return around


def run(command: tuple[str, ...]) -> None:
    """Run a command that prepares, and raise with what it said if it fails."""
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment())


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lowest_versions() -> list[str]:
    """Return the oldest packages that pyproject allows."""
    table = project()["project"]
    extras = table["optional-dependencies"]
    wanted = [*table["dependencies"], *extras["fast"], *extras["demo"]]
    return [*(line.replace(">=", "==") for line in wanted), "pytest", "hypothesis"]


def test_packages() -> list[str]:
    """Return what the tests need, without peers."""
    return [line for line in project()["dependency-groups"]["test"] if "pylops" not in line]


# ---- whether this machine can be so ----------------------------------------------------------------------------------


def works(*command: str) -> bool:
    """Tell whether a command can be run and ends well."""
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def lacks_mounts() -> str | None:
    """Say why nothing can be mounted."""
    if IS_ROOT and not works(*mounted('mount -t tmpfs tmpfs "$0"', Path("/mnt"), ("true",))):
        return "unshare and mount are refused here"
    return None


def lacks_root() -> str | None:
    """Say that this is not root, or cannot mount."""
    return lacks_mounts() if IS_ROOT else "root alone may do this"


def lacks_groups() -> str | None:
    """Say why the number of threads cannot be limited; a limit for the user does not bind root."""
    return None if os.access(_pids_group(), os.W_OK) and IS_ROOT else "no control group for pids can be made here"


def lacks_quota() -> str | None:
    """Say why the time of a process cannot be limited."""
    files = (_cpu_group() / name for name in ("cpu.cfs_quota_us", "cgroup.subtree_control"))
    possible = IS_ROOT and os.access(_cpu_group(), os.W_OK) and any(file.exists() for file in files)
    return None if possible else "no control group for processor time can be made here"


def lacks(*words: str) -> Callable[[], str | None]:
    """Return what says that the processor lacks features, or that no one knows."""

    def lacking() -> str | None:
        try:
            flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        except OSError:
            return "it is not known what this processor can do"
        missing = [word for word in words if word not in flags]
        return f"the processor lacks {', '.join(missing)}" if missing else None

    return lacking


# OpenBLAS names a core by the first that shares its kernels.
SAME_KERNELS = {"Prescott": "Katmai"}


def lacks_core(core: str, *words: str) -> Callable[[], str | None]:
    """Return what says that OpenBLAS does not run a kernel here."""
    code = """if True:
        import numpy, scipy.linalg, threadpoolctl
        numpy.ones((300, 300)) @ numpy.ones((300, 300))
        print(*(library.get("architecture") for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"))
    """

    def lacking() -> str | None:
        if reason := lacks(*words)():
            return reason
        tried = subprocess.run(
            python("-c", code),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment(OPENBLAS_CORETYPE=core),
        )
        found = tried.stdout.split()
        if tried.returncode or {name.lower() for name in found} != {SAME_KERNELS.get(core, core).lower()}:
            return f"OpenBLAS runs {' and '.join(sorted(set(found))) or 'nothing'} when it is told {core}"
        return None

    return lacking


def lacks_tool(name: str) -> Callable[[], str | None]:
    """Return what says that a command is not installed."""
    return lambda: None if shutil.which(name) else f"there is no {name} here"


def lacks_python311() -> str | None:
    """Say that this is not the Python that the lowest versions are for."""
    return None if sys.version_info[:2] == (3, 11) else "the lowest versions are tested on Python 3.11"
