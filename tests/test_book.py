"""The pages about the book run with their assertions where PyTorch is not installed; the site is built where it is."""

import builtins
import runpy
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [*sorted(DOCS.glob("book/*.md")), DOCS / "exercises" / "same-shape.md"]


def code_of(page):
    """Return the page with all but the code blanked out, so that line numbers stay."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```{code-cell}"
            line = ""
        lines.append(line if inside and not line.startswith(":tags:") else "")
    return "\n".join(lines)


def without_pytorch(name, *arguments, find=builtins.__import__, **options):
    """Import as usual, and find no PyTorch."""
    if name.partition(".")[0] == "torch":
        raise ModuleNotFoundError(f"No module named {name!r}")
    return find(name, *arguments, **options)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_page_runs_without_pytorch(page, monkeypatch, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    script = tmp_path / f"{page.stem}.py"
    script.write_text(code_of(page), encoding="utf-8")
    monkeypatch.setattr(builtins, "__import__", without_pytorch)
    monkeypatch.setattr(sys, "path", [str(DOCS / "book"), *sys.path])
    monkeypatch.chdir(page.parent)
    names = runpy.run_path(str(script))
    assert "np" in names  # the code was found
    pyplot.close("all")
