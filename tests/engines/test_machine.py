"""Figures of the machine: plausible, kept on disk, and read only if they are whole, recent and this user's."""

import json
import os
import time

import pytest

from convmat.engines import _machine
from convmat.engines._machine import Machine, measure_machine, this_machine

FIGURES = {"bandwidth": 2e10, "gemm": 5e10, "fft": 5e9, "call": 1e-6}


@pytest.fixture
def unknown(folder, monkeypatch):
    """A machine of which nothing is known, and a count of measurements."""
    measured = []

    def measure():
        measured.append(1)
        return dict(FIGURES)

    monkeypatch.setattr(_machine, "_known", [])
    monkeypatch.setattr(_machine, "_measure", measure)
    _machine._read_once.cache_clear()
    yield measured
    _machine._read_once.cache_clear()


def forget():
    _machine._known.clear()
    _machine._read_once.cache_clear()


def the_file(folder):
    (file,) = folder.glob("machine-*.json")
    return file


def test_figures_are_measured_once_and_kept(folder, unknown):
    assert this_machine(2, 1e9) == Machine(2, memory=1e9)
    measure_machine()
    expected = Machine(2, memory=1e9, measured=True, **FIGURES)
    assert this_machine(2, 1e9) == expected
    measure_machine()
    forget()  # another process
    assert this_machine(2, 1e9) == expected
    measure_machine()
    assert len(unknown) == 1


def with_figures(**changes):
    return lambda kept: json.dumps({**kept, **changes}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: b"",
        lambda kept: b"{",
        lambda kept: b"[" * 4000,
        lambda kept: b"\xff\x00",
        lambda kept: b"[1, 2]",
        lambda kept: b" " * 5000 + json.dumps(kept).encode(),
        with_figures(key="another machine"),
        with_figures(time=0),
        with_figures(time=1e12),
        with_figures(time="now"),
        with_figures(gemm=-1.0),
        with_figures(gemm=float("nan")),
        with_figures(gemm=1e20),
        with_figures(call="1"),
        with_figures(fft=None),
    ],
)
def test_a_file_that_is_damaged_old_or_of_another_machine_is_not_used(folder, unknown, damage):
    measure_machine()
    file = the_file(folder)
    file.write_bytes(damage(json.loads(file.read_bytes())))
    forget()
    assert not this_machine(1, 1e9).measured
    measure_machine()
    assert len(unknown) == 2
    forget()
    assert this_machine(1, 1e9).measured


@pytest.mark.skipif(os.name != "posix", reason="needs permissions as on POSIX")
def test_a_file_that_others_can_write_is_not_used(folder, unknown):
    measure_machine()
    the_file(folder).chmod(0o666)
    forget()
    assert not this_machine(1, 1e9).measured


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, unknown, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    measure_machine()
    assert this_machine(1, 1e9).measured


def test_figures_are_read_while_they_are_recent(folder, unknown, monkeypatch):
    measure_machine()
    now = time.time()
    for days, known in ((29, True), (31, False)):
        forget()
        monkeypatch.setattr(time, "time", lambda days=days: now + 86_400 * days)
        assert this_machine(1, 1e9).measured == known


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no scipy.fft"), ZeroDivisionError()])
def test_a_measurement_that_fails_is_no_error_and_not_repeated(folder, unknown, monkeypatch, error):
    def fail():
        unknown.append(1)
        raise error

    monkeypatch.setattr(_machine, "_measure", fail)
    for _ in range(2):
        measure_machine()
        assert this_machine(2, 1e9) == Machine(2, memory=1e9, measured=True)
    assert len(unknown) == 1
    assert not list(folder.glob("machine-*"))


def test_the_disk_is_asked_once(folder, unknown, monkeypatch):
    asked = []
    monkeypatch.setattr(_machine, "read_trusted", lambda *arguments: asked.append(arguments) or b"")
    for _ in range(3):
        this_machine(1, 1e9)
    assert len(asked) == 1


def test_what_is_measured_is_plausible():
    figures = _machine._measure()
    assert set(figures) == set(FIGURES)
    assert _machine._is_plausible(figures)


def test_a_machine_prints_its_figures():
    printed = str(Machine(3, memory=16e9, **FIGURES))
    assert printed == (
        "3 threads, each 50 GFLOP/s in matrix products, 5 GFLOP/s in Fourier transforms, 20 GB/s, 1 µs a call; "
        "16 GB of memory"
    )
    assert "1 thread," in str(Machine())
