"""The site and the README name files, modules and members that are there, and the glossary has every term."""

import pydoc
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/[!_a]*/*.md"))]
TERMS = (
    "tap source reach overrun span image strand relation phase run axis geometry W Wᵀ P V fold dual pattern "
    "products engine plan bound local workers block tile sweep observations figures torus certificate system "
    "decomposition strip stage window"
)
PHRASES = "merged taps", "merge axes", "padding mode", "kernel operator", "review, trial", "Gram matrix", "part, factor"


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:convmat|benchmarks|tests)/[^`\s]*)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"\b(?:convmat|(?<=-m )(?:benchmarks|tests))(?:\.\w+)+", text):
        assert is_module(name) or pydoc.locate(name) is not None, name


def test_the_glossary_has_every_term_once_and_says_where_it_lives():
    text = (ROOT / "docs" / "explanation" / "terms.md").read_text(encoding="utf-8")
    entries = re.findall(r"^(\S[^\n:]*)\n: (.*?)(?=\n\n)", text + "\n", re.DOTALL | re.MULTILINE)
    assert sorted(term for term, _ in entries) == sorted([*TERMS.split(), *PHRASES])
    for term, entry in entries:
        assert re.search(r"`convmat/\S+`$", entry), term
