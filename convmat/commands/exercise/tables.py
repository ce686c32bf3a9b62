"""The measurements as text: one table for each case, and one of all ratios."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convmat._messages import scaled
from convmat.commands.exercise.measure import Comparison
from convmat.commands.exercise.ways import WAYS


def fold(ratio: float) -> str:
    """Return a ratio in two digits.

    Examples
    --------
    >>> fold(1.04), fold(3.26), fold(46.4), fold(1234)
    ('1.0', '3.3', '46', '1,200')
    """
    if ratio < 9.95:
        return f"{ratio:.1f}" if ratio >= 0.095 else f"{ratio:.2g}"
    return f"{ratio:.0f}" if ratio < 99.5 else f"{float(f'{ratio:.2g}'):,.0f}"


def case_tables(comparison: Comparison) -> str:
    """Return a table for each case, with the counts and times of each way."""
    blocks = []
    headings = ("", "build", "W·x", "× best", "Wᵀ·y", "moves", "GB/s", "GFLOP/s", "flops/B")
    for case in comparison.cases:
        timings = comparison.of(case)
        best = min(timing.product for timing in timings.values())
        rows = [
            (
                WAYS[way].title,
                "" if timing.build is None else scaled(timing.build, "s"),
                scaled(timing.product, "s"),
                fold(timing.product / best),
                "" if timing.transposed is None else scaled(timing.transposed, "s"),
                scaled(timing.work.bytes, "B"),
                f"{timing.bandwidth / 1e9:.3g}",
                f"{timing.rate / 1e9:.3g}",
                f"{timing.work.intensity:.2g}",
            )
            for way, timing in timings.items()
        ]
        blocks.append(f"{case.name}: {case}\n\n{table([headings, *rows])}")
    return "\n\n".join(blocks)


def ratio_table(comparison: Comparison) -> str:
    """Return a table of ways by cases: the time of a product over that of the fastest way."""
    cases = comparison.cases
    best = {case.name: min(timing.product for timing in comparison.of(case).values()) for case in cases}
    rows: list[tuple[str, ...]] = [("", *(case.name for case in cases))]
    for way in dict.fromkeys(timing.way for timing in comparison.timings):
        found = [comparison.find(case.name, way) for case in cases]
        rows.append((way, *("–" if t is None else fold(t.product / best[t.case.name]) for t in found)))
    return table(rows)


def table(rows: Sequence[Iterable[str]]) -> str:
    """Return rows of cells as text, indented by two spaces. The first column is aligned left, the others right."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        words = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append(("  " + "  ".join(words)).rstrip())
    return "\n".join(lines)
