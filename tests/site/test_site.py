"""The documentation site, in a real browser: served from its own host alone, complete, and readable in a narrow window.

What it is taken from, and when the tests are skipped, is said in `tests/pages.py`.
"""

import inspect
import json
import re
from types import SimpleNamespace

import pytest

import convmat
from convmat.engines import ENGINES
from tests.site.pages import SITE, WIDTHS, missing, too_wide

SECTIONS = [
    "index",
    "start",
    "book",
    "explorer",
    "exercises",
    "auto_examples",
    "howto",
    "reference",
    "explanation",
    "benchmarks",
]


def pages():
    """All pages of the site; the index alone where it is not built, so that there is a test to skip."""
    found = (path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    kept = sorted(page for page in found if not page.startswith(("_", "benchmarks/")))
    return kept or ["index.html"]


def public_names():
    names = []
    for name in convmat.__all__:
        thing = getattr(convmat, name)
        if inspect.ismodule(thing):
            functions = (value for _, value in inspect.getmembers(thing, inspect.isfunction))
            names += [
                f"{name}.{f.__name__}" for f in functions if f.__module__ == thing.__name__ and f.__name__[0] != "_"
            ]
            continue
        names.append(name)
        if inspect.isclass(thing) and name != "TransposedConvolution":  # whose methods are those of Convolution
            own = [
                attribute for base in thing.__mro__ if base.__module__.startswith("convmat") for attribute in vars(base)
            ]
            names += [f"{name}.{attribute}" for attribute in sorted(set(own)) if attribute[0] != "_"]
    return names


def test_every_section_is_there(site):
    found = set(pages())
    for section in SECTIONS:
        assert found & {f"{section}.html", f"{section}/index.html"}, section


def test_every_public_name_is_in_the_reference(site):
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    documented = set(re.findall(r'id="convmat\.([\w.]+)"', text))
    names = public_names()
    assert {"Convolution.apply", "ConvolutionGeometry.nnz", "textbook.corr2d", "convolution_matrix"} <= set(names)
    assert [name for name in names if name not in documented and name != "Convolution.conjugate"] == []


def test_every_engine_is_explained(site):
    text = (site / "explanation" / "engines.html").read_text(encoding="utf-8")
    described = set(re.findall(r'<td><p><code[^>]*><span class="pre">(\w+)</span></code></p></td>', text))
    assert described == set(ENGINES)


@pytest.mark.parametrize("page", pages())
def test_page(visit, page):
    tab = visit(page)
    if tab.locator(".math").count():
        tab.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        tab.evaluate("MathJax.startup.promise.then(() => null)")
        assert tab.locator(".math:not(:has(mjx-container))").count() == 0
        assert tab.locator("mjx-merror, [data-mml-node='merror']").count() == 0
    # Pictures that wait for being scrolled to are loaded too.
    tab.evaluate(
        """() => Promise.all([...document.images].map((image) => {
            image.loading = "eager";
            return image.decode().catch(() => null);
        }))"""
    )
    shown = (
        "(image) => image.naturalWidth > 0 && (image.offsetParent === null || image.getBoundingClientRect().width > 0)"
    )
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        assert too_wide(tab) == []
        assert (
            tab.evaluate(f"[...document.images].filter((image) => !({shown})(image)).map((image) => image.src)") == []
        )


@pytest.fixture(scope="module")
def report(site):
    """What asv has published: its benchmarks, and one of them that has parameters."""
    index = site / "benchmarks" / "index.json"
    if not index.is_file():
        missing("the site was built without the benchmarks' report")
    benchmarks = json.loads(index.read_text(encoding="utf-8"))["benchmarks"]
    timed = [
        name for name, one in benchmarks.items() if one["type"] == "time" and any(len(v) > 1 for v in one["params"])
    ]
    parameters = list(zip(benchmarks[timed[0]]["param_names"], benchmarks[timed[0]]["params"], strict=True))
    return SimpleNamespace(benchmarks=benchmarks, name=timed[0], parameters=parameters)


def pixels(tab, selector):
    """The number of pixels of each canvas under an element that are not transparent."""
    return tab.eval_on_selector_all(
        f"{selector} canvas.flot-base",
        """(all) => all.map((canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
            .filter((value, i) => i % 4 === 3 && value > 0).length)""",
    )


def test_report_shows_a_plot_for_each_benchmark(visit, width, report):
    tab = visit("benchmarks/index.html", "networkidle")
    for name in report.benchmarks:
        tab.locator(f"[id='summarygrid-{name}']").scroll_into_view_if_needed()
    drawn = "document.querySelectorAll('.benchmark-plot canvas.flot-base').length"
    tab.wait_for_function(f"{drawn} === {len(report.benchmarks)}")
    assert too_wide(tab) == []
    assert min(pixels(tab, ".benchmark-plot")) > 100


def test_report_draws_a_benchmark_and_switches_its_parameters(visit, width, report):
    tab = visit("benchmarks/index.html", "networkidle")
    tab.locator(f"a.benchmark-container[href='#{report.name}']").click()
    tab.wait_for_selector("#main-graph canvas.flot-base")
    tab.wait_for_load_state("networkidle")
    assert report.name in tab.url
    assert min(pixels(tab, "#main-graph")) > 500
    assert too_wide(tab) == []
    assert tab.locator("#main-graph .legend tr").count()

    def panel_of(name):
        heading = tab.locator(
            "#graphdisplay-navigation .panel-heading", has_text=re.compile(rf"^\s*{re.escape(name)}\s*$")
        )
        return heading.locator("xpath=..")

    picture = "document.querySelector('#main-graph canvas.flot-base').toDataURL()"

    # Take away one value of a parameter, then plot against something else.
    axis = panel_of("x-axis").locator("a.active").inner_text()
    other = next((name for name, values in report.parameters if name != axis and len(values) > 1), None)
    buttons = [panel_of("x-axis").locator("a:not(.active)").first]
    if other is not None:
        buttons.insert(0, panel_of(other).locator("a.active").first)
    for button in buttons:
        before, url = tab.evaluate(picture), tab.url
        button.click()
        tab.wait_for_function(f"{picture} !== {json.dumps(before)}")
        assert tab.url != url
    assert too_wide(tab) == []


@pytest.mark.parametrize("page", ["#/summarylist", "#/regressions"])
def test_report_has_its_other_pages(visit, width, report, page):
    tab = visit(f"benchmarks/index.html{page}", "networkidle")
    tab.wait_for_selector("#summarylist-body table" if "list" in page else "#regressions-body > *")
    assert too_wide(tab) == []
