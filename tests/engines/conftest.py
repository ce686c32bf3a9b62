"""A cache of compiled code, and a process that has loaded none of it yet."""

import pytest

from convmat.engines._compiled import loader as compiled
from convmat.operators import Ledger
from convmat.operators._host import HostProducts


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache of this process."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path / "convmat"


@pytest.fixture
def fresh(folder, monkeypatch):
    """A process that has loaded nothing yet, nor failed."""
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "_loaded", {})
    monkeypatch.setattr(compiled, "_failures", [])
    monkeypatch.setattr(HostProducts, "ledger", Ledger())
