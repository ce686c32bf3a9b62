"""The measurements as pictures: time against size, and the roofline. Imports matplotlib late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from convmat._messages import scaled
from convmat.commands.exercise.cases import Case
from convmat.commands.exercise.measure import Comparison
from convmat.commands.exercise.ways import WAYS

# Colours that differ also for people who cannot tell red from green, and a marker for each way.
STYLES = {
    "loops": ("#000000", "v"),
    "compiled": ("#7f7f7f", "^"),
    "dense": ("#8c510a", "s"),
    "csr": ("#d55e00", "o"),
    "csr anew": ("#e69f00", "o"),
    "im2col": ("#cc79a7", "D"),
    "fft": ("#56b4e9", "P"),
    "auto": ("#0072b2", "*"),
    "torch": ("#009e73", "X"),
}


def draw(comparison: Comparison) -> Any:
    """Return the figure: time against the size of the image, and of the kernel, and the roofline."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9.5), dpi=110, layout="constrained")
    top, bottom = cast(Any, figure).subfigures(2, 1, height_ratios=(1, 1.15))
    left, right = top.subplots(1, 2)
    draw_times(left, comparison, "image")
    draw_times(right, comparison, "kernel")
    draw_roofline(bottom.subplots(), comparison)
    figure.legend(handles=handles(comparison), loc="outside upper center", ncols=5, frameon=False)
    return figure


def draw_times(axes: Any, comparison: Comparison, ladder: str) -> None:
    """Draw the time of a product against one size, of the image or of the kernel, at the other's most frequent value."""
    from matplotlib.ticker import EngFormatter

    which = 0 if ladder == "image" else 1
    cases = _ladder(comparison.cases, which)
    if not cases:
        axes.set_axis_off()
        return
    for way, (colour, marker) in STYLES.items():
        points = [
            (_sizes(case)[which], timing.product) for case in cases if (timing := comparison.find(case.name, way))
        ]
        if points:
            size, seconds = np.array(sorted(points)).T
            axes.plot(size, seconds, marker=marker, color=colour, linewidth=1.4, markersize=_markersize(marker))
    ticks = sorted({_sizes(case)[which] for case in cases})
    axes.set(xscale="log", yscale="log", ylabel="time of W·x")
    axes.yaxis.set_major_formatter(EngFormatter("s"))
    axes.set_xticks(ticks, [f"{n}²" for n in ticks])
    axes.minorticks_off()
    k, n = _sizes(cases[0])[1], _sizes(cases[0])[0]
    if ladder == "image":
        axes.set_xlabel("pixels of the image")
        axes.set_title(f"{k} × {k} kernel, one channel", loc="left")
    else:
        axes.set_xlabel("taps of the kernel")
        axes.set_title(f"{n} × {n} image, one channel", loc="left")
    axes.grid(color="0.88", linewidth=0.7)


def draw_roofline(axes: Any, comparison: Comparison, cases: Sequence[Case] | None = None) -> None:
    """Draw the rate of each product against its arithmetic intensity, under the machine's ceilings."""
    from matplotlib.ticker import EngFormatter

    top = comparison.ceilings
    chosen = {case.name for case in (comparison.cases if cases is None else cases)}
    points = [timing for timing in comparison.timings if timing.case.name in chosen]
    intensities = [timing.work.intensity for timing in points]
    x = np.geomspace(min(intensities) / 1.6, max(max(intensities), top.gemm / top.copy) * 1.8, 300)
    lines = (
        (top.copy, "-", f"copying, in memory: {scaled(top.copy, 'B/s')}"),
        (top.cached, ":", f"copying, in a cache: {scaled(top.cached, 'B/s')}"),
    )
    for rate, style, name in lines:
        axes.plot(x, np.minimum(rate * x, top.gemm), style, color="0.35", linewidth=1.4, label=name)
    axes.plot([], [], color="none", label=f"both, flat: BLAS, {scaled(top.gemm, 'FLOP/s')}")
    for timing in points:
        colour, marker = STYLES[timing.way]
        axes.plot(
            timing.work.intensity,
            timing.rate,
            marker=marker,
            color=colour,
            markersize=_markersize(marker),
            markeredgecolor="white",
            markeredgewidth=0.5,
            linestyle="none",
        )
    axes.set(xscale="log", yscale="log", xlim=(x[0], x[-1]))
    axes.yaxis.set_major_formatter(EngFormatter("FLOP/s"))
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    axes.set_xlabel("arithmetic intensity: operations for each byte moved, as counted")
    axes.set_ylabel("rate of W·x, as counted")
    axes.set_title("Roofline: one point for each way and case", loc="left")
    axes.grid(color="0.88", linewidth=0.7)


def handles(comparison: Comparison) -> list[Any]:
    """Return the legend's entries for the ways that were measured."""
    from matplotlib.lines import Line2D

    measured = {timing.way for timing in comparison.timings}
    return [
        Line2D([], [], color=colour, marker=marker, markersize=_markersize(marker), label=WAYS[way].title)
        for way, (colour, marker) in STYLES.items()
        if way in measured
    ]


def _sizes(case: Case) -> tuple[int, int]:
    """Return the sides of a square image and of a square kernel."""
    return case.input_shape[1], case.kernel_shape[2]


def _ladder(cases: Sequence[Case], which: int) -> list[Case]:
    """Return the largest set of square single-channel cases in which only one size varies."""
    groups: dict[int, list[Case]] = {}
    for case in cases:
        if case.single and case.input_shape[1] == case.input_shape[2] and case.kernel_shape[2] == case.kernel_shape[3]:
            groups.setdefault(_sizes(case)[1 - which], []).append(case)
    return max(groups.values(), key=len, default=[])


def _markersize(marker: str) -> float:
    return {"*": 11, "o": 6.5, "D": 6, "s": 6}.get(marker, 7.5)
