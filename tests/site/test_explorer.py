"""The explorer, in a real browser: its numbers are convmat's, and pointer, keys, links and switches do what they say.

What it is taken from, and when the tests are skipped, is said in `tests/pages.py`.
"""

import html
import json
import re

import numpy as np
import pytest
import scipy.sparse

import convmat
from tests.site.pages import SITE, WIDTHS, too_wide

PAGE = "explorer.html"
MODES = ["zeros", "circular", "reflect", "symmetric", "replicate"]
BOOK = "axes=2&size=3&kernel=2&padding=0,0&show=output-2"
CHECKERBOARD = "axes=2&size=4&stride=2&padding=0,0&weights=ones&values=ones&transposed&show=input-40"
LARGE = "axes=2&size=11&kernel=5&padding=2,2&channels=2,2&mode=reflect"
MOST = 256


GO = """(fragment) => new Promise((done) => {
    window.addEventListener("hashchange", done, { once: true }); // after the page's own
    location.hash = fragment;
})"""


@pytest.fixture
def explore(visit):
    """A function that opens the page with settings, or follows a link on it, and returns its tab."""
    tabs = []

    def follow(fragment=""):
        if tabs:
            tabs[0].evaluate(f"({GO})({json.dumps(fragment)}).then(() => null)")
        else:
            tabs.append(visit(f"{PAGE}#{fragment}"))
        return tabs[0]

    return follow


@pytest.fixture
def alone(chromium):
    """A function that gives a tab which shares nothing: neither clock nor touch screen."""
    contexts = []

    def open_tab(**options):
        contexts.append(chromium.new_context(**options))
        return contexts[-1].new_page()

    yield open_tab
    for context in contexts:
        context.close()


def sentence(tab):
    return tab.inner_text("#explorer-sentence")


def error(tab):
    return tab.inner_text("#explorer-error")


# --- The numbers


def draw(rng):
    """Settings as a link says them, and the arguments that they stand for."""
    axes = int(rng.integers(1, 3))
    kernel, stride, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(rng.integers(1, 4))
    transposed = bool(rng.integers(2))
    size = int(rng.integers(1, (5 if transposed else 7) if axes == 2 else 12))
    before, after = (int(width) for width in rng.integers(0, min(8, size + 2) + 1, 2))
    mode = MODES[rng.integers(5)]
    channels_in, channels_out = (int(count) for count in rng.integers(1, 3, 2))
    several = channels_in * channels_out > 1
    shape = (*((channels_out, channels_in) if several else ()), *(kernel,) * axes)
    weights = rng.integers(-3, 4, shape)  # zeros too, which W stores
    inputs = (*([channels_out if transposed else channels_in] if several else []), *(size,) * axes)
    options = {"stride": stride, "padding": ((before, after),) * axes, "dilation": dilation, "padding_mode": mode}
    said = f"axes={axes}&size={size}&kernel={kernel}&stride={stride}&dilation={dilation}"
    said += f"&padding={before},{after}&mode={mode}"
    said += f"&channels={channels_in},{channels_out}&weights={','.join(map(str, weights.ravel()))}"
    if transposed:
        options["output_padding"] = extra = int(rng.integers(0, 4))
        said += f"&output_padding={extra}&transposed"
    return said, transposed, weights, inputs, options


def convmats(transposed, weights, inputs, options):
    """W by convmat, and what Wᵀ is there, or None where it refuses."""
    make = convmat.transposed_convolution_matrix if transposed else convmat.convolution_matrix
    try:
        made = make(weights, inputs, **options)
    except ValueError:
        return None
    return made.T.tocsr() if transposed else made


# As text, which is carried over faster than many arrays.
MODELS = """(links) => JSON.stringify(links.map((link) => {
    const { SettingsError, describe, valueOf } = convmat.geometry;
    try {
        const { W, kernel, gram, y, z, geometry } = convmat.page.modelOf(convmat.state.read(link));
        const entries = W.entries.map((entry) => [entry.row, entry.column, valueOf(entry, kernel)]);
        const products = gram.map((entry) => [entry.row, entry.column, entry.value]);
        return { shape: [geometry.rows, geometry.columns], entries, gram: products, y, z };
    } catch (error) {
        if (!(error instanceof SettingsError)) throw error;
        return { refused: error.message };
    }
}))"""


def sparse(entries, shape):
    rows, columns, values = np.array(entries).reshape(-1, 3).T
    found = scipy.sparse.csr_array((values, (rows.astype(int), columns.astype(int))), shape)
    assert found.nnz == len(entries)  # none twice
    found.sort_indices()
    return found


def test_matrices_are_those_of_convmat(explore):
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(600)]
    models = json.loads(explore().evaluate(MODELS, [said for said, *_ in drawn]))
    seen = dict.fromkeys([(axes, mode) for axes in (1, 2) for mode in MODES], 0)
    refused = 0
    for (said, transposed, weights, inputs, options), model in zip(drawn, models, strict=True):
        W = convmats(transposed, weights, inputs, options)
        if W is None or max(W.shape) > MOST:
            assert "refused" in model, said
            assert W is None or f"at most {MOST}" in model["refused"]
            refused += 1
            continue
        found = sparse(model["entries"], model["shape"])
        assert found.shape == W.shape, said
        assert np.array_equal(found.indptr, W.indptr), said
        assert np.array_equal(found.indices, W.indices), said
        assert np.array_equal(found.data, W.data), said
        gram = (W.T @ W).toarray()
        assert np.array_equal(sparse(model["gram"], gram.shape).toarray(), gram), said
        assert np.array_equal(W.T @ model["y"], model["z"]), said
        seen[len(options["padding"]), options["padding_mode"]] += 1
    assert min(seen.values()) > 10
    assert sum(seen.values()) > 200
    assert refused > 50


def drawn_numbers(tab, board):
    texts = tab.locator(f"#explorer-matrix .board[data-board={board}] text:not(.quiet)").all_text_contents()
    return [float(text.replace("−", "-")) for text in texts]


@pytest.mark.parametrize(
    "fragment",
    [
        "",
        BOOK,
        "axes=2&size=2&kernel=2&padding=0,0&transposed",
        "size=6&stride=2&padding=2,1&mode=symmetric&weights=difference&values=impulse",
        "size=4&stride=3&padding=0,1&output_padding=2&dilation=2&mode=replicate&channels=1,2&transposed",
        "axes=2&size=3&padding=1,0&mode=circular&channels=2,1&weights=triangle&values=ones",
        "axes=2&size=3&kernel=1&padding=0,0&weights=2",
    ],
)
def test_the_code_computes_what_is_drawn(explore, fragment):
    tab = explore(fragment)
    names = {}
    exec(tab.inner_text("#explorer-code"), names)  # noqa: S102
    transposed = "Wt" in names
    W = names["Wt"].T.tocsr() if transposed else names["W"]
    assert drawn_numbers(tab, "W") == W.data.tolist()
    assert drawn_numbers(tab, "out") == names["z" if transposed else "y"].ravel().tolist()
    assert drawn_numbers(tab, "in") == names["y" if transposed else "x"].ravel().tolist()


# --- Links


def test_a_link_leads_to_the_same_settings(explore):
    tab = explore()
    tab.locator("#set-size").fill("6")
    tab.locator("#set-kernel").fill("2")
    tab.locator("#set-stride").fill("2")
    tab.locator("#set-after").fill("3")
    tab.locator("#set-mode").select_option("circular")
    tab.locator("#set-weights").select_option("own")
    tab.locator("#set-own").fill("5 -1")
    tab.locator("[name=direction][value=transposed]").check(force=True)
    tab.locator("#set-output_padding").fill("1")
    tab.locator("[data-board=k0]").press("ArrowRight")
    tab.wait_for_function("location.hash.includes('show=tap-1')")
    code, said = tab.inner_text("#explorer-code"), sentence(tab)
    assert "[5, -1]" in code
    assert 'stride=2, padding=((1, 3),), padding_mode="circular", output_padding=1' in code
    link = tab.evaluate("location.hash.slice(1)")
    other = explore("size=9")
    assert other.inner_text("#explorer-code") != code
    explore(link)
    assert other.inner_text("#explorer-code") == code
    assert sentence(other) == said


LINKS = """(links) => links.map((link) => {
    const state = convmat.state.read(link);
    return [convmat.state.write(state), Boolean(convmat.page.modelOf(state))];
})"""


def test_presets_say_what_they_are(explore):
    tab = explore()
    presets = tab.locator("#explorer-presets a")
    links = [link.removeprefix("#") for link in presets.evaluate_all("(all) => all.map((a) => a.getAttribute('href'))")]
    assert tab.evaluate(LINKS, links) == [[link, True] for link in links]
    presets.filter(has_text=re.compile("^Checkerboard")).click()
    tab.wait_for_function("document.querySelector('#explorer-facts').textContent.includes('checkerboard')")
    assert "draws a checkerboard" in tab.inner_text("#explorer-facts")
    assert tab.locator("#explorer-presets a[aria-current]").inner_text() == "Checkerboard"
    counts = np.reshape(
        drawn_numbers(tab, "out") or tab.evaluate("convmat.page.modelOf(convmat.state.read(location.hash)).z"), (9, 9)
    )
    assert set(counts[2:7, 2:7].ravel().tolist()) == {1, 2, 4}
    presets.filter(has_text="No checkerboard").click()
    tab.wait_for_function("document.querySelector('#explorer-facts').textContent.includes('no checkerboard')")


def test_links_of_the_site_are_settings(explore):
    pages = [path.read_text(encoding="utf-8") for path in SITE.glob("*/*.html") if path.parent.name[0] != "_"]
    links = [html.unescape(link) for page in pages for link in re.findall(r'href="\.\./explorer\.html#([^"]+)"', page)]
    assert explore().evaluate(LINKS, links) == [[link, True] for link in links]
    assert len(links) >= 4


# --- Pointer, keys and touch


def test_rows_columns_and_taps_by_keys(explore):
    tab = explore(BOOK)
    W = tab.locator("[data-board=W]")
    W.focus()
    assert sentence(tab).startswith("Output (1, 0) reads inputs (1, 0), (1, 1), (2, 0), (2, 1) through taps (0, 0)")
    W.press("ArrowUp")
    assert sentence(tab).startswith("Output (0, 1) reads inputs (0, 1), (0, 2), (1, 1), (1, 2) through taps (0, 0)")
    lit = tab.locator("#explorer-flow .marks text").all_text_contents()
    assert sorted(lit) == sorted(["1", "2", "3", "4", "1", "2", "4", "5"])  # the kernel, and the window
    W.press("ArrowRight")
    assert sentence(tab).startswith("Input (0, 1) is read by outputs (0, 0), (0, 1) through taps (0, 1), (0, 0)")
    W.press("End")
    assert sentence(tab).startswith("Input (2, 2) is read by output (1, 1) through tap (1, 1)")
    tab.locator("[data-board=k0]").focus()
    tab.locator("[data-board=k0]").press("ArrowDown")
    assert sentence(tab) == "Tap (1, 0) is 3 and has 4 places in W: output (o, p) reads input (o + 1, p)."
    assert tab.locator("#explorer-matrix .marks text").all_text_contents()[:4] == ["3"] * 4


def test_one_axis_is_told_as_it_is(explore):
    tab = explore("size=9&show=output-4")
    assert sentence(tab) == "Output 4 reads inputs 3, 4, 5 through taps 0, 1, 2."
    assert tab.inner_text("#explorer-sum") == "y[4] = 1·3 + 2·4 + 3·5 = 26"
    tab.locator("[data-board=y0]").press("Home")
    assert sentence(tab) == "Output 0 reads inputs 0, 1 through taps 1, 2. Tap 0 falls on the padding, which is zero."
    tab.locator("#set-mode").select_option("circular")
    assert (
        sentence(tab)
        == "Output 0 reads inputs 8, 0, 1 through taps 0, 1, 2. Tap 0 falls on the padding, which shows input 8."
    )


def test_the_pointer_follows_rows_columns_and_taps(explore):
    tab = explore(BOOK)
    box = tab.locator("[data-board=W] .frame").bounding_box()

    def point(row, column):
        tab.mouse.move(box["x"] + (column + 0.5) * box["width"] / 9, box["y"] + (row + 0.5) * box["height"] / 4)

    point(3, 4)
    assert sentence(tab).startswith("Output (1, 1) reads")
    tab.locator("[name=follow][value=column]").check(force=True)
    point(2, 4)
    assert sentence(tab).startswith("Input (1, 1) is read by outputs (0, 0), (0, 1), (1, 0), (1, 1)")
    tab.locator("[name=follow][value=tap]").check(force=True)
    point(2, 4)
    assert sentence(tab).startswith("Tap (0, 1) is 2")
    tab.locator("[data-board=x0]").hover(position={"x": 5, "y": 5})
    assert sentence(tab).startswith("Input (0, 0) is read by output (0, 0)")


def test_touch(alone, address):
    tab = alone(has_touch=True, viewport={"width": 390, "height": 800})
    tab.goto(f"{address}{PAGE}#{BOOK}")
    tab.locator("[data-board=y0]").tap(position={"x": 5, "y": 5})
    assert sentence(tab).startswith("Output (0, 0) reads")


def test_the_switch_turns_w_around(explore):
    tab = explore("size=9&stride=2&show=output-2")
    W = drawn_numbers(tab, "W")
    lines = "[...document.querySelectorAll('#explorer-flow .beneath .line')].map((line) => line.getAttribute('d'))"
    upwards = tab.evaluate(lines)
    tab.locator("[name=direction][value=transposed]").check(force=True)
    assert tab.inner_text("#explorer-matrix-title") == "The matrix Wᵀ"
    assert drawn_numbers(tab, "W") == W
    assert sentence(tab) == "Input 2 lays the kernel on outputs 3, 4, 5 through taps 0, 1, 2."
    assert [line[1:].split("L")[::-1] for line in tab.evaluate(lines)] == [line[1:].split("L") for line in upwards]
    tab.locator("[data-board=W]").press("ArrowDown")  # a row of Wᵀ is an output of it
    assert sentence(tab).startswith("Output 1 collects inputs 0, 1 through taps 2, 0")
    tab.locator("[name=direction][value=W]").check(force=True)
    assert "convolution_matrix(kernel, (9,), stride=2, padding=1)" in tab.inner_text("#explorer-code")


# --- The player


def test_play_slides_the_window_and_pauses(alone, address):
    tab = alone()
    tab.clock.install()
    tab.goto(f"{address}{PAGE}")
    play = tab.locator("#explorer-play")
    play.click()
    assert sentence(tab).startswith("Output 2")
    tab.clock.run_for(2500)
    assert sentence(tab).startswith("Output 5")
    assert play.inner_text() == "Pause"
    play.click()
    tab.clock.run_for(5000)
    assert sentence(tab).startswith("Output 5")
    tab.locator("#explorer-back").click()
    assert sentence(tab).startswith("Output 4")


def test_play_only_steps_where_motion_is_not_wanted(alone, address):
    tab = alone(reduced_motion="reduce")
    tab.clock.install()
    tab.goto(f"{address}{PAGE}")
    play = tab.locator("#explorer-play")
    assert play.inner_text() == "Step"
    play.click()
    assert sentence(tab).startswith("Output 2")
    tab.clock.run_for(5000)
    assert sentence(tab).startswith("Output 2")


# --- Settings that are wrong


WRONG = [
    ("size=3&padding=3,0&mode=reflect", "must be at most 2 for an input of size 3, got 3 before and 0 after"),
    ("size=3&kernel=7&padding=0,1", "must fit into the padded input: it reaches over 7 positions, and there are 4"),
    ("size=1&kernel=1&padding=1,0&transposed", "may add up to at most 0 here, got 1"),
    ("size=4&output_padding=1&transposed", "output_padding must be below max(stride, dilation) = 1, got 1"),
    ("axes=2&size=16&channels=2,1", "must have at most 256 rows and columns"),
    ("weights=1,2", "The kernel needs 3 numbers, row after row, got 2"),
    ("size=1000", "size must be a whole number from 1 to 128, got 1000"),
    ("mode=wrap", "mode must be one of zeros, circular, reflect, symmetric, replicate, got wrap"),
    ("size=8%", "must say its settings as in size=8&stride=2"),
    ("strides=2", "strides is no setting; settings are axes, size, kernel, stride,"),
    ("show=row-3", "show must be output, input or tap and an index"),
]


def test_wrong_settings_get_one_sentence(explore):
    for fragment, words in WRONG:
        tab = explore(fragment)
        assert words in error(tab)
        assert error(tab).count(".") == 1
        assert tab.evaluate("document.querySelector('#explorer-panels').inert")
        explore(BOOK)
        assert error(tab) == ""
        assert sentence(tab).startswith("Output (1, 0)")


def test_presets_and_anchors_after_a_wrong_setting(explore):
    tab = explore()
    stride = tab.locator("#explorer-presets a", has_text="Stride 2")
    stride.click()
    tab.locator("#set-dilation").fill("4")
    tab.locator("#set-kernel").fill("7")
    assert "must fit" in error(tab)
    stride.click()
    assert error(tab) == ""
    assert sentence(tab) == "Output 2 reads inputs 3, 4, 5 through taps 0, 1, 2."
    explore("main-content")
    assert sentence(tab) == "Output 2 reads inputs 3, 4, 5 through taps 0, 1, 2."
    assert tab.inner_text("#explorer-presets a[aria-current]") == "Stride 2"


def test_a_wrong_link_is_told_from_the_start(explore):
    tab = explore("size=3&mode=reflect&padding=5,1")
    assert "must be at most 2" in error(tab)
    assert drawn_numbers(tab, "W")  # the first settings, pale


def test_a_slider_that_goes_too_far_keeps_the_drawing_until_it_is_back(explore):
    tab = explore("size=3&mode=reflect")
    tab.locator("#set-before").fill("5")
    assert "at most 2" in error(tab)
    tab.locator("#set-before").fill("2")
    assert error(tab) == ""
    assert not tab.evaluate("document.querySelector('#explorer-panels').inert")


# --- For everybody


INSIDE = """(all) => all.every((svg) => {
    const { x, width } = svg.getBBox();
    return svg.getBoundingClientRect().right <= innerWidth && x + width <= svg.width.baseVal.value + 3;
})"""
SIZES = [
    BOOK,
    CHECKERBOARD,
    LARGE,
    "size=16&padding=8,8&channels=2,2",
    "size=16&stride=4&transposed",
    "size=1&kernel=1&padding=0,0",
]


def test_nothing_is_cut_off(explore, width):
    tab = explore()
    if width == min(WIDTHS):
        tab.locator("#explorer-settings summary").click()
    for fragment in SIZES:
        explore(fragment)
        assert error(tab) == ""
        assert too_wide(tab) == []
        assert tab.locator("svg.drawing").evaluate_all(INSIDE), fragment


def test_all_controls_have_names_and_a_visible_focus(explore):
    tab = explore(BOOK)
    controls = tab.locator("#explorer-page :is(input, select, button, a, summary, pre, .board[tabindex]):visible")
    for control in controls.all():
        name = control.evaluate(
            """(element) => element.getAttribute("aria-label") || element.labels?.[0]?.textContent.trim()
                || element.textContent.trim()"""
        )
        assert name
    tab.locator("#explorer-presets a").first.focus()
    unseen = []
    for _ in range(controls.count() - 4):
        tab.keyboard.press("Tab")
        seen = tab.evaluate(
            """() => {
                const element = document.activeElement;
                if (!element.closest("#explorer-page")) return "outside";
                const frame = element.querySelector(":scope > .frame");
                if (frame) return parseFloat(getComputedStyle(frame).strokeWidth) > 3;
                const ringed = element.closest(".choice label") || element;
                return getComputedStyle(ringed).outlineStyle !== "none";
            }"""
        )
        if seen == "outside":
            break
        if not seen:
            unseen.append(tab.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
    assert unseen == []
    assert tab.locator("#explorer-sentence[aria-live=polite]").count() == 1


CONTRASTS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const luminance = (colour) => {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (one, other) => {
        const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    const probe = document.querySelector("#explorer-page").appendChild(document.createElement("span"));
    const colour = (value) => {
        probe.style.color = value;
        return getComputedStyle(probe).color;
    };
    const fill = (selector) => getComputedStyle(document.querySelector(selector)).fill;
    const paper = colour("var(--cell-paper)");
    const found = {
        "numbers": contrast(fill("#explorer-matrix .on-paper"), paper),
        "zeros": contrast(fill("#explorer-matrix .quiet"), paper),
        "padding": contrast(fill("#explorer-flow .quiet"), colour("var(--pst-color-on-background)")),
        "indices": contrast(fill("#explorer-flow .index"), colour("var(--pst-color-background)")),
        "ring": 1.5 * contrast(colour("var(--mark)"), paper),
    };
    for (const [tone, n] of ["plus", "minus"].flatMap((tone) => [[tone, 1], [tone, 8]])) {
        found[`${tone} ${n}`] = contrast(fill("#explorer-matrix .on-paper"), colour(`var(--${tone}-${n})`));
    }
    for (const taps of [[9], [7, 7]]) {
        const count = taps.reduce((a, b) => a * b, 1);
        for (let tap = 0; tap < count; tap += 1) {
            found[`tap ${tap} of ${taps}`] = contrast("#14181e", convmat.draw.colourOf(tap, taps));
        }
    }
    return found;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_numbers_are_readable_in_both_themes(explore, theme):
    tab = explore("size=6&padding=2,0")
    tab.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    contrasts = tab.evaluate(CONTRASTS)
    assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}
    paper = tab.evaluate("getComputedStyle(document.querySelector('#explorer-matrix .paper')).fill")
    assert (paper == "rgb(255, 255, 255)") == (theme == "light")


def test_it_is_there_within_a_second(explore):
    tab = explore()
    ready = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"  # scripts included
    times = [tab.evaluate(ready)]
    for _ in range(2):
        tab.reload()
        times.append(tab.evaluate(ready))
    assert min(times) < 1000


def test_it_works_from_a_folder(alone, site):
    tab = alone()
    tab.goto(f"{(site / PAGE).resolve().as_uri()}#{BOOK}")
    assert sentence(tab).startswith("Output (1, 0) reads")
    tab.locator("[data-board=W]").press("ArrowDown")
    tab.wait_for_function("location.hash.includes('show=output-3')")
