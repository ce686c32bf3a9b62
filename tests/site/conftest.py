"""Fixtures of tests that look at the site in a browser."""

import functools
import http.server
import shutil
import threading
from importlib.util import find_spec

import pytest

from tests.site.pages import SITE, WIDTHS, missing

LEFT = "net::ERR_ABORTED"  # what Chromium says of a request of a page that is left while it is answered


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

    def failed(request):
        if request.failure != LEFT:
            problems.append(f"failed: {request.url}, {request.failure}")

    tab.on("request", asked)
    tab.on("response", answered)
    tab.on("requestfailed", failed)
    tab.on("console", lambda message: problems.append(f"console: {message.text}") if message.type == "error" else None)
    tab.on("pageerror", lambda error: problems.append(f"script: {error}"))

    def open_page(page, wait_until="load"):
        tab.goto(address + page, wait_until=wait_until)
        return tab

    yield open_page
    tab.wait_for_load_state("load")
    told = list(problems)
    tab.close()
    assert not told
