"""The stage that runs tests as on machines of other people says what fails, what hangs and what cannot be had."""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader

import pytest

from tests.processes import REPOSITORY


@pytest.fixture(scope="module")
def stage():
    sys.path.insert(0, str(REPOSITORY / ".ci"))
    try:
        loader = SourceFileLoader("hostile", str(REPOSITORY / ".ci" / "hostile"))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("hostile", loader))
        sys.modules["hostile"] = module  # where its dataclasses look their types up
        loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def verdict(stage, tmp_path, code, **options):
    row = stage.Condition("name", "what", (stage.python("-c", code),), stage.as_it_is, **options)
    return stage.judge(row, tmp_path)


def judge(stage, tmp_path, code, **options):
    return verdict(stage, tmp_path, code, **options).result


def test_results(stage, tmp_path):
    assert judge(stage, tmp_path, "") == "passed"
    failed = verdict(stage, tmp_path, "print('because'); raise SystemExit(3)")
    assert failed.result == "FAILED: exit status 3"
    assert "because" in failed.lines
    assert judge(stage, tmp_path, "import os; os.abort()") == "FAILED: exit status -6"
    assert judge(stage, tmp_path, "", lacking=lambda: "no such machine") == "not had: no such machine"


def test_what_hangs_is_ended_and_shows_where(stage, tmp_path):
    code = "def hang():\n while True: pass\nhang()"
    ended = verdict(stage, tmp_path, code, limit=2)
    assert ended.result == "FAILED: it did not end in 2 s"
    assert "in hang" in "".join(ended.lines)


def test_what_failed_is_printed_last(stage, monkeypatch, capsys):
    """A log that is cut off shows its end."""
    rows = [stage.Condition(name, name, (stage.python("-c", code),), stage.as_it_is)
            for name, code in (("bad", "print('because'); raise SystemExit(3)"), ("good", ""))]  # fmt: skip
    monkeypatch.setattr(stage, "table", lambda full: rows)
    monkeypatch.setattr(sys, "argv", ["hostile"])
    assert stage.main() == 1
    printed = capsys.readouterr().out
    assert printed.endswith("bad | because\nbad: FAILED: exit status 3\n")


def test_commands_use_this_checkout_and_nothing_of_the_callers_settings(stage, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    code = (
        "import os, sys; sys.exit(os.environ['PYTHONPATH'] != "
        f"{str(REPOSITORY)!r} or bool({{'OPENBLAS_CORETYPE', 'NUMBA_DISABLE_JIT'}} & set(os.environ)))"
    )
    assert judge(stage, tmp_path, code) == "passed"


def test_every_kind_of_damage_changes_a_file(stage, tmp_path):
    for number in range(6):
        path = tmp_path / str(number)
        path.write_bytes(b"code" * 100)
        sys.modules["machines"].damage(path, number)
        assert path.is_dir() or path.read_bytes() != b"code" * 100


def test_names_of_conditions_are_unique(stage):
    for full in (False, True):
        names = [row.name for row in stage.table(full)]
        assert len(set(names)) == len(names) > 25
