"""The figures of exercise 2, from the committed results."""

from __future__ import annotations

import json
import sys
from itertools import product
from math import inf
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the benchmarks are not installed

from benchmarks.recorded import Recorded
from benchmarks.winners import FILE, METHODS
from convmat._messages import scaled
from convmat.commands.exercise import figure as drawing
from convmat.commands.exercise.cases import SIZES, square
from convmat.commands.exercise.figure import STYLES, handles
from convmat.commands.exercise.tables import two_digits
from convmat.commands.exercise.ways import WAYS

RESOLVED = 2e6  # bytes: less disappears in what a process has free
COUNTED = ("dense", "csr", "im2col", "fft")  # ways whose memory is known before anything runs


def markdown(*paragraphs: list[str]) -> Markdown:
    """Show paragraphs, each a list of sentences."""
    return Markdown("\n\n".join(" ".join(sentences) for sentences in paragraphs if sentences))


def machine(run: Recorded) -> Markdown:
    """Say what was measured on, and what it does at best."""
    top = run.comparison.ceilings
    described = {"cpu": "{}", "num_cpu": "{} cores", "ram": "{}", "os": "{}"}
    about = ", ".join(words.format(run.machine[key]) for key, words in described.items() if run.machine.get(key))
    return Markdown(
        f"Measured on {about}, with {run.comparison.workers} threads for every way but the book's loops, in "
        f"{run.comparison.cases[0].dtype}, at the commit of {run.date:%d %B %Y}. It copies memory at "
        f"{scaled(top.copy, 'B/s')}, within a cache at {scaled(top.cached, 'B/s')}, and its BLAS does "
        f"{scaled(top.gemm, 'FLOP/s')}."
    )


def ways() -> Markdown:
    """List the ways."""
    lines = ["| way | what it does |", "|---|---|"]
    lines += [f"| {way.title} | {_summary(way)} |" for way in WAYS.values()]
    return Markdown("\n".join(lines))


def cases(run: Recorded) -> Markdown:
    """List the convolutions, the nonzeros of W, and how long the fastest way takes."""
    lines = ["| case | kernel, image, channels | nonzeros of W | fastest |", "|---|---|---:|---:|"]
    for case in run.comparison.cases:
        best = min(timing.product for timing in run.comparison.of(case).values())
        lines.append(f"| {case.name} | {case} | {run.nnz[case.name]:,} | {scaled(best, 's')} |")
    return Markdown("\n".join(lines))


def ratios(run: Recorded) -> Markdown:
    """Tabulate how many times as long as the fastest way each takes."""
    comparison = run.comparison
    names = list(dict.fromkeys(timing.way for timing in comparison.timings))
    lines = ["| case | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for case in comparison.cases:
        found = comparison.of(case)
        best = min(timing.product for timing in found.values())
        cells = [two_digits(found[name].product / best) if name in found else "–" for name in names]
        lines.append(f"| {case.name} | {' | '.join(cells)} |")
    return Markdown("\n".join(lines))


def times(run: Recorded, ladder: str) -> None:
    """Draw time against the size of the image or of the kernel."""
    figure, axes = plt.subplots(figsize=(6.4, 5.2))
    drawing.draw_times(axes, run.comparison, ladder)
    _legend(figure, run)


def memory(run: Recorded) -> None:
    """Draw the memory beside kernel, input and output: counted as lines, measured as markers."""
    figure, axes = plt.subplots(figsize=(6.4, 5.2))
    sides = sorted({case.input_shape[1] for case in SIZES})
    kernel = SIZES[0].kernel_shape[2]
    for way in COUNTED:
        counted = [WAYS[way].work(square("counted", side, kernel)).memory for side in sides]
        axes.plot(sides, counted, color=STYLES[way][0])
    x = [square("counted", side, kernel).x.nbytes for side in sides]
    axes.plot(sides, x, color="0.6", linestyle="--")
    by_name = {case.name: case for case in SIZES}
    measured = set()
    for (name, way), peak in run.peaks.items():
        if name not in by_name or way == "csr anew":
            continue
        extra = peak - by_name[name].y.nbytes  # the output is made in the product, too
        if extra > RESOLVED:
            colour, marker = STYLES[way]
            axes.plot(by_name[name].input_shape[1], extra, marker=marker, color=colour, linestyle="none")
            measured.add(way)
    axes.set(xscale="log", yscale="log", xlabel="pixels of the image", ylabel="memory")
    axes.set_xticks(sides, [f"{side}²" for side in sides])
    axes.yaxis.set_major_formatter(EngFormatter("B"))
    axes.yaxis.set_major_locator(LogLocator(numticks=12, subs=(1.0,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(True)
    axes.set_title(f"{kernel} × {kernel} kernel, one channel. Lines: counted; markers: measured peak", loc="left")
    entries = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker if way in measured else "",
            linestyle="-" if way in COUNTED else "none",
            label=WAYS[way].title,
        )
        for way, (colour, marker) in STYLES.items()
        if way in measured or way in COUNTED
    ]
    entries.append(Line2D([], [], color="0.6", linestyle="--", label="the image itself"))
    figure.legend(handles=entries, loc="outside upper center", ncols=3, fontsize=9)
    plt.show()


def roofline(run: Recorded) -> None:
    """Draw every way and case under what the machine does at best."""
    figure, axes = plt.subplots(figsize=(6.4, 5.6))
    drawing.draw_roofline(axes, run.comparison)
    _legend(figure, run)


def prediction(run: Recorded) -> None:
    """Draw the measured time of every product against the least that the ceilings allow."""
    comparison = run.comparison
    figure, axes = plt.subplots(figsize=(6.4, 5.6))
    for way, (colour, marker) in STYLES.items():
        points = [(comparison.ceilings.bound(t.work), t.product) for t in comparison.timings if t.way == way]
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, color=colour, linestyle="none")
    bounds = [comparison.ceilings.bound(t.work) for t in comparison.timings]
    low, high = min(bounds) / 2, max(t.product for t in comparison.timings) * 2
    for factor, style in ((1, "-"), (10, "--"), (100, ":")):
        axes.plot([low, high], [factor * low, factor * high], style, color="0.5", linewidth=1, zorder=0)
        axes.annotate(
            "as predicted" if factor == 1 else f"{factor} ×",
            (low * 2, factor * low * 2),
            xytext=(5, -2),
            textcoords="offset points",
            va="top",
            color="0.35",
            fontsize=9,
        )
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set(
        xlabel="predicted: the longer of bytes / copy rate and operations / BLAS rate", ylabel="measured time of W·x"
    )
    axes.xaxis.set_major_formatter(EngFormatter("s"))
    axes.yaxis.set_major_formatter(EngFormatter("s"))
    axes.grid(True)
    _legend(figure, run)


def prediction_text(run: Recorded) -> Markdown:
    """Say how far from the prediction each way is."""
    comparison = run.comparison
    lines = ["| way | measured / predicted, median | least | most |", "|---|---:|---:|---:|"]
    for name, way in WAYS.items():
        found = [t.product / comparison.ceilings.bound(t.work) for t in comparison.timings if t.way == name]
        if found:
            lines.append(
                f"| {way.title} | {two_digits(median(found))} | {two_digits(min(found))} | {two_digits(max(found))} |"
            )
    return Markdown("\n".join(lines))


def prediction_sentences(run: Recorded) -> Markdown:
    """Say whether the matrix multiplications could be mended, and the loops."""
    ceilings = run.comparison.ceilings
    sentences = []
    for way in ("csr", "im2col", "compiled", "loops"):
        found = [t for t in run.comparison.timings if t.way == way]
        if not found:
            continue
        off = median(t.product / ceilings.bound(t.work) for t in found)
        moved = median(t.work.bytes / ceilings.copy / ceilings.bound(t.work) for t in found)
        why = "its bytes" if moved == 1 else "its operations"
        gain = (
            "better code gains no more than that"
            if off < 10
            else "the time goes elsewhere, and better code could save it"
        )
        sentences.append(f"{WAYS[way].title}: {two_digits(off)} times what {why} take at least; {gain}.")
    return Markdown("\n".join(f"- {sentence}" for sentence in sentences))


def winners(file: Path = FILE) -> None:
    """Draw the fastest method for each kernel size and number of channels."""
    content = json.loads(file.read_text(encoding="utf-8"))
    rows = {(row["channels"], row["kernel"]): row["seconds"] for row in content["rows"]}
    channels, kernels = (sorted({key[which] for key in rows}) for which in (0, 1))
    grid = np.empty((len(channels), len(kernels)), int)
    figure, axes = plt.subplots(figsize=(6.4, 4.4))
    for (i, c), (j, k) in product(enumerate(channels), enumerate(kernels)):
        seconds = rows[c, k]
        best = min(METHODS, key=lambda name, seconds=seconds: seconds.get(name, inf))
        grid[i, j] = METHODS.index(best)
        stored, auto = (two_digits(seconds[way] / seconds[best]) if way in seconds else "–" for way in ("csr", "auto"))
        axes.text(j, i, f"W {stored}\nauto {auto}", ha="center", va="center", fontsize=8.5)
    colours = [_pale(STYLES[name][0]) for name in METHODS]
    axes.imshow(grid, cmap=ListedColormap(colours), vmin=-0.5, vmax=len(METHODS) - 0.5, aspect="auto", origin="lower")
    axes.set_xticks(range(len(kernels)), [f"{k}²" for k in kernels])
    axes.set_yticks(range(len(channels)), channels)
    axes.set(xlabel="taps of the kernel", ylabel="channels, in and out")
    side = content["size"]
    axes.set_title(
        f"Fastest method, {side} × {side} image. Times of the stored W,\nand of convmat's auto, over its time",
        loc="left",
    )
    patches = [plt.Rectangle((0, 0), 1, 1, color=c, label=WAYS[n].title) for n, c in zip(METHODS, colours, strict=True)]
    figure.legend(handles=patches, loc="outside upper center", ncols=2)
    plt.show()


def columns(run: Recorded) -> Markdown:
    """Tabulate the arithmetic intensity of W by a matrix of columns, which is streamed once for all of them."""
    case = max(SIZES, key=lambda case: case.input_shape[1])
    work, geometry = WAYS["csr"].work(case), case.geometry
    vectors = sum(geometry.shape) * case.itemsize
    lines = ["| columns | moves, for each column | operations a byte |", "|---:|---:|---:|"]
    for count in (1, 4, 16, 64):
        moved = work.memory + count * vectors
        lines.append(f"| {count} | {scaled(moved / count, 'B')} | {count * work.flops / moved:.2g} |")
    return Markdown("\n".join(lines))


def _summary(way: object) -> str:
    """Return the first sentence of a way's own description."""
    return (type(way).__doc__ or "").partition("\n")[0].rstrip(".")


def _legend(figure: plt.Figure, run: Recorded) -> None:
    figure.legend(handles=handles(run.comparison), loc="outside upper center", ncols=3, fontsize=9)
    plt.show()


def _pale(colour: str) -> tuple[float, ...]:
    """Return a colour on which black text is read."""
    return tuple(0.45 + 0.55 * value for value in to_rgb(colour))
