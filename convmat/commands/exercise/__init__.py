"""The exercise, answered on the reader's machine: whether matrix multiplication is efficient, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from convmat._messages import scaled
from convmat._runtime import count_workers
from convmat.commands._console import CommandError, check_figure, progress, render, require, write
from convmat.commands.exercise.answer import QUESTION, left_out, paragraphs
from convmat.commands.exercise.cases import CASES, Case
from convmat.commands.exercise.measure import Comparison, compare
from convmat.commands.exercise.tables import case_tables, ratio_table

__all__ = ["run"]

SECONDS = 50.0  # to measure, about: slow ways add some
BRIEF = tuple(case for case in CASES if case.brief)


def run(figure: Path | None = None, seconds: float = SECONDS, cases: Sequence[Case] | None = None) -> Comparison:
    """Measure several ways to compute the same products on this machine, and print tables and the answer.

    Parameters
    ----------
    figure : Path, optional
        Where to draw time against size, and the roofline.
    seconds : float
        How long to measure, about.
    cases : sequence of Case, optional
        What to compute; by default the shorter cases of the suite.

    Returns
    -------
    Comparison
        The measurements.

    Raises
    ------
    CommandError
        If a package is missing, the figure cannot be written, or two ways do not agree.
    """
    if figure is not None:
        require("this", "PIL", "matplotlib")
        check_figure(figure)
    if not 0 < seconds < float("inf"):
        raise CommandError(f"the seconds to measure must be a positive number, got {seconds}")
    cases = BRIEF if cases is None else cases
    workers = count_workers(None)
    try:
        with progress(len(cases) + 1) as step:
            comparison = compare(cases, seconds, workers, step)
    except RuntimeError as error:
        raise CommandError(f"{error}; please report this as a bug", status=1) from None
    print(report(comparison))
    if figure is not None:
        from convmat.commands.exercise.figure import draw

        write(render(draw(comparison), figure), figure)
        print(f"\nThe figure is in {figure}")
    return comparison


def report(comparison: Comparison) -> str:
    """Return the text that the command prints."""
    top = comparison.ceilings
    threads = "1 thread" if comparison.workers == 1 else f"{comparison.workers} threads"
    types = ", ".join(dict.fromkeys(case.dtype for case in comparison.cases))
    protocol = (
        f"Ways to compute the same product, in {types}, {threads} each (the book's loops have one). Times are medians, "
        "taken in turn; bytes and operations are counted, and their rates follow from the time of W·x."
    )
    machine = (
        f"This machine copies memory at {scaled(top.copy, 'B/s')}, within a cache at {scaled(top.cached, 'B/s')}, and its "
        f"BLAS does {scaled(top.gemm, 'FLOP/s')}."
    )
    parts = [protocol, machine, case_tables(comparison)]
    parts += ["How many times as long as the fastest way a product takes:", ratio_table(comparison)]
    if lines := left_out(comparison):
        parts += ["Left out:", "\n".join(f"  {line}" for line in lines)]
    parts += [QUESTION, *paragraphs(comparison)]
    return "\n\n".join(part if "\n" in part or part.startswith("  ") else textwrap.fill(part, 100) for part in parts)
