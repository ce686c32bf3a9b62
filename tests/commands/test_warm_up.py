"""`python -m convmat warm-up`: it compiles, or says in a sentence why not."""

import pytest

import convmat.operators._warm_up as module
from convmat.commands._main import main


@pytest.fixture
def loaded(monkeypatch):
    """The code that is loaded, none of which is."""
    pytest.importorskip("numba")
    codes = []
    monkeypatch.setattr(module, "load_code", codes.append)
    monkeypatch.setattr(module, "is_kept", lambda code: True)
    return codes


def test_all_is_compiled_or_what_a_dtype_needs(loaded, capsys):
    assert main(["warm-up"]) == 0
    assert capsys.readouterr().out.startswith("All code is compiled and kept, after ")
    everything = set(loaded)
    loaded.clear()
    assert main(["warm-up", "--dtype", "float32"]) == 0
    assert set(loaded) < everything
    assert not any("float64" in variant for _, variant in loaded)


def test_a_cache_that_keeps_nothing_is_said(loaded, monkeypatch, capsys):
    monkeypatch.setattr(module, "is_kept", lambda code: False)
    assert main(["warm-up"]) == 1
    sentence = "the code has been compiled, but no folder for it can be written to; set NUMBA_CACHE_DIR"
    assert capsys.readouterr() == ("", f"convmat: {sentence}\n")


def test_a_compiler_that_is_missing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(module, "refusal", lambda: "numba is not installed")
    assert main(["warm-up"]) == 1
    assert capsys.readouterr().err == "convmat: no code can be compiled: numba is not installed\n"


def test_another_dtype_is_refused(capsys):
    assert main(["warm-up", "--dtype", "int8"]) == 2
    assert "invalid choice: 'int8'" in capsys.readouterr().err
