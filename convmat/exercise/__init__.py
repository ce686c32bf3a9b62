"""The exercise, answered on the reader's machine: whether matrix multiplication is efficient, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from convmat.exercise.answer import QUESTION, left_out, paragraphs
from convmat.exercise.cases import CASES, Case
from convmat.exercise.measure import Comparison, compare
from convmat.exercise.tables import case_tables, ratio_table
from convmat.parallel import count_workers
from convmat.units import scaled

__all__ = ["ExerciseError", "run"]

SECONDS = 50.0  # of measuring; what is slower than its share adds some
BRIEF = tuple(case for case in CASES if case.brief)


class ExerciseError(Exception):
    """The command cannot go on; its message is one sentence for the user, and `status` is the exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def run(figure: Path | None = None, seconds: float = SECONDS, cases: Sequence[Case] | None = None) -> Comparison:
    """Measure the ways to compute the same products on this machine, and print tables and the answer.

    Parameters
    ----------
    figure : Path, optional
        Where to draw time against size, and the roofline.
    seconds : float
        How long to measure, about.
    cases : sequence of Case, optional
        What to compute; by default those of the suite that take not too long.

    Returns
    -------
    Comparison
        What was measured.

    Raises
    ------
    ExerciseError
        If something that it needs is not installed, the figure cannot be written, or two ways do not agree.
    """
    _check_extra("tqdm")
    if figure is not None:
        _check_extra("matplotlib")
        _check_figure(figure)
    if not 0 < seconds < float("inf"):
        raise ExerciseError(f"the seconds to measure must be a positive number, got {seconds}")
    cases = BRIEF if cases is None else cases
    workers = count_workers(None)
    try:
        with _progress(len(cases) + 1) as step:
            comparison = compare(cases, seconds, workers, step)
    except RuntimeError as error:
        raise ExerciseError(f"{error}; please report this as a bug", status=1) from None
    print(report(comparison))
    if figure is not None:
        from convmat.exercise.figure import draw

        try:
            draw(comparison, figure)
        except OSError as error:
            raise ExerciseError(f"the figure cannot be written to {str(figure)!r} ({error.strerror})") from None
        print(f"\nThe figure is in {figure}")
    return comparison


def report(comparison: Comparison) -> str:
    """Return all that the command prints."""
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


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show what is measured, on standard error where that is a terminal; yield what announces the next."""
    from tqdm import tqdm

    with tqdm(total=steps, leave=False, disable=None, bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}") as bar:

        def step(name: str) -> None:
            bar.set_description(name)
            bar.update()

        yield step


def _check_extra(name: str) -> None:
    if find_spec(name) is None:
        raise ExerciseError(f'this needs {name}, which pip install "convmat[demo]" installs')


def _check_figure(path: Path) -> None:
    """Raise unless a figure can be written under this name, before any work."""
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if not path.parent.is_dir():
        raise ExerciseError(f"there is no folder {str(path.parent)!r} for the figure")
    if path.is_dir():
        raise ExerciseError(f"the figure must be a file, got the folder {str(path)!r}")
    if path.suffix and path.suffix[1:].lower() not in formats:
        raise ExerciseError(f"the figure's name must end in one of {', '.join(sorted(formats))}, got {path.name!r}")
