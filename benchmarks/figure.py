"""The comparison with other packages as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.workloads import DIRECTIONS, DTYPES

_COLOURS = {"forward": "#1f5fa8", "adjoint": "#d9722b"}
_OFFSETS = {"forward": -0.17, "adjoint": 0.17}


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the ratio of each product, one panel for each dtype.

    Parameters
    ----------
    rows : sequence of dict
        With the keys case, direction, dtype, batch and ratio, as the JSON has them.
    path : Path
        Where to write the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(row["case"] for row in rows))
    height = {name: -place for place, name in enumerate(names)}
    figure = Figure(figsize=(9, 1.6 + 0.26 * len(names)), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(DTYPES), sharey=True, sharex=True)
    for panel, dtype in zip(panels, DTYPES, strict=True):
        shown = [row for row in rows if row["dtype"] == dtype]
        for row in shown:
            colour = _COLOURS[row["direction"]]
            panel.plot(
                row["ratio"],
                height[row["case"]] - _OFFSETS[row["direction"]],
                "o" if row["batch"] == 1 else "D",
                color=colour,
                markerfacecolor=colour if row["batch"] == 1 else "white",
                markersize=6 if row["batch"] == 1 else 5,
            )
        panel.set_title(dtype, fontsize=11)
        _decorate(panel, list(height.values()))
    ratios = [row["ratio"] for row in rows]
    panels[0].set_xlim(min(0.5, min(ratios) / 1.3), max(2, max(ratios) * 1.3))
    panels[0].set_yticks(list(height.values()), names, fontsize=10)
    batches = sorted({row["batch"] for row in rows})
    handles = [
        Line2D(
            [],
            [],
            color=_COLOURS[direction],
            linestyle="none",
            marker="o" if batch == 1 else "D",
            markerfacecolor=_COLOURS[direction] if batch == 1 else "white",
            label=f"{direction}, " + ("one array" if batch == 1 else f"batch of {batch}"),
        )
        for direction in DIRECTIONS
        for batch in batches
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=10)
    figure.supxlabel("time of the fastest other package / time of convmat (right of 1: convmat is faster)", fontsize=10)
    figure.savefig(path)


def _decorate(panel: Any, heights: Sequence[int]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    panel.set_xscale("log")
    panel.axvline(1, color="black", linewidth=1)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for height in heights[::2]:
        panel.axhspan(height - 0.5, height + 0.5, color="0.95", zorder=0)
    panel.set_ylim(min(heights) - 0.6, max(heights) + 0.6)
    panel.grid(axis="x", color="0.8", linewidth=0.6)
    panel.tick_params(axis="y", length=0)
