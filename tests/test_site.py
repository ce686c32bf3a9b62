"""The documentation site, in a real browser: served from its own host alone, complete, and readable in a narrow window.

The site is taken from the folder that the environment variable CONVMAT_SITE names, or from docs/_build/html. Where there is
none, or no Chromium and Playwright, the tests are skipped, unless CONVMAT_SITE is set: then they fail.
"""

import functools
import http.server
import inspect
import json
import os
import re
import shutil
import threading
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import convmat
from convmat.engines import ENGINES

ROOT = Path(__file__).parent.parent
GIVEN = os.environ.get("CONVMAT_SITE")
SITE = Path(GIVEN or ROOT / "docs" / "_build" / "html")
SECTIONS = ["index", "start", "book", "exercises", "auto_examples", "howto", "reference", "explanation", "benchmarks"]
WIDTHS = [1280, 390]


def missing(reason):
    """Skip a test for want of something, or fail where the site was to be there."""
    if GIVEN:
        pytest.fail(reason)
    pytest.skip(reason)


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


@pytest.fixture(scope="module")
def site():
    if not (SITE / "index.html").is_file():
        missing(f"there is no site in {SITE}; build it with sphinx-build -W -b html docs docs/_build/html")
    return SITE


@pytest.fixture(scope="module")
def address(site):
    """Serve the site on this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def chromium():
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        missing("there is no Chromium; on Debian: apt-get install chromium")
    if find_spec("playwright") is None:
        missing("Playwright is not installed; pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container has neither user namespaces for the sandbox nor much of /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(chromium):
    """What all tabs share: above all, scripts are read and compiled once."""
    context = chromium.new_context()
    yield context
    context.close()


@pytest.fixture(params=WIDTHS)
def width(request):
    return request.param


@pytest.fixture
def visit(request, context, address):
    """A function that opens a page, in a window of `width` if the test has it; what went wrong on the way fails the test."""
    tab = context.new_page()
    width = request.getfixturevalue("width") if "width" in request.fixturenames else WIDTHS[0]
    tab.set_viewport_size({"width": width, "height": 900})
    problems = []

    def answered(response):
        if response.status >= 400:
            problems.append(f"{response.status} for {response.url}")

    def asked(request):
        if not request.url.startswith((address, "data:", "blob:", "about:")):
            problems.append(f"request to another host: {request.url}")

    tab.on("request", asked)
    tab.on("response", answered)
    tab.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    tab.on("console", lambda message: problems.append(f"console: {message.text}") if message.type == "error" else None)
    tab.on("pageerror", lambda error: problems.append(f"script: {error}"))

    def open_page(page, wait_until="load"):
        tab.goto(address + page, wait_until=wait_until)
        return tab

    yield open_page
    tab.close()
    assert not problems


def assert_no_overflow(tab):
    """Neither the page nor its article, which could scroll by itself, is wider than the window; what is, is named."""
    wide = tab.evaluate(
        """() => {
            const boxes = [document.documentElement, ...document.querySelectorAll("main, .bd-article-container")];
            if (boxes.every((box) => box.scrollWidth <= box.clientWidth + 1)) return [];
            return [...document.querySelectorAll("body *")]
                .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
                .map((element) => `${element.tagName}.${element.className}`).slice(0, 10)
                .concat(["too wide"]);
        }"""
    )
    assert wide == []


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
        assert_no_overflow(tab)
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
    assert_no_overflow(tab)
    assert min(pixels(tab, ".benchmark-plot")) > 100


def test_report_draws_a_benchmark_and_switches_its_parameters(visit, width, report):
    tab = visit("benchmarks/index.html", "networkidle")
    tab.locator(f"a.benchmark-container[href='#{report.name}']").click()
    tab.wait_for_selector("#main-graph canvas.flot-base")
    tab.wait_for_load_state("networkidle")
    assert report.name in tab.url
    assert min(pixels(tab, "#main-graph")) > 500
    assert_no_overflow(tab)
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
    assert_no_overflow(tab)


@pytest.mark.parametrize("page", ["#/summarylist", "#/regressions"])
def test_report_has_its_other_pages(visit, width, report, page):
    tab = visit(f"benchmarks/index.html{page}", "networkidle")
    tab.wait_for_selector("#summarylist-body table" if "list" in page else "#regressions-body > *")
    assert_no_overflow(tab)
