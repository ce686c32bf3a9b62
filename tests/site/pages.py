"""Where the documentation site is that the tests look at, and what to do where it is not.

The site is taken from the folder that the environment variable CONVMAT_SITE names, or from docs/_build/html. Where there is
none, or no Chromium and Playwright, the tests are skipped, unless CONVMAT_SITE is set: then they fail.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GIVEN = os.environ.get("CONVMAT_SITE")
SITE = Path(GIVEN or ROOT / "docs" / "_build" / "html")
WIDTHS = [1280, 390]


def missing(reason):
    """Skip a test for want of something, or fail where the site was to be there."""
    if GIVEN:
        pytest.fail(reason)
    pytest.skip(reason)


def too_wide(tab):
    """Return nothing, or what makes the page, or its article, which could scroll by itself, wider than the window."""
    return tab.evaluate(
        """() => {
            const boxes = [document.documentElement, ...document.querySelectorAll("main, .bd-article-container")];
            if (boxes.every((box) => box.scrollWidth <= box.clientWidth + 1)) return [];
            return [...document.querySelectorAll("body *")]
                .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
                .map((element) => `${element.tagName}.${element.className}`).slice(0, 10)
                .concat(["too wide"]);
        }"""
    )
