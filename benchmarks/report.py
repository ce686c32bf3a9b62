"""Tables that print while they are measured, limits and whether they are met, and what machine it was."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """A figure and what it must reach."""

    section: str
    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of its limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f} (limit {'≥' if self.at_least else '≤'} {self.limit:g})"


class Report:
    """Everything that a run measures."""

    def __init__(self) -> None:
        self.machine = machine()
        self.checks: list[Check] = []
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.elsewhere: dict[str, float | None] = {}
        self._section = ""
        self._widths: list[int] = []
        self._headings: list[str] = []

    def table(self, section: str, title: str, headings: Sequence[str], names: Sequence[str]) -> None:
        """Begin a table, whose first column holds the names."""
        self._section, self._headings = section, list(headings)
        self._widths = [max(map(len, (headings[0], *names))), *(max(9, len(heading)) for heading in headings[1:])]
        self.rows.setdefault(section, [])
        print(f"\n{title}\n\n{self._line(headings)}\n{self._line(['-' * width for width in self._widths])}", flush=True)

    def row(self, cells: Sequence[Any], checks: Sequence[Check] = (), **details: Any) -> None:
        """Print a row, followed by whether its limits are met, and keep it."""
        words = [cell if isinstance(cell, str) else _figure(cell) for cell in cells]
        if checks:
            words.append("yes" if all(check.met for check in checks) else "NO")
        print(self._line(words).rstrip(), flush=True)
        self.checks.extend(checks)
        self.rows[self._section].append({**dict(zip(self._headings, cells, strict=False)), **details})

    def close(self, elsewhere: float | None) -> None:
        """End a section: say how many cores other processes kept busy meanwhile."""
        self.elsewhere[self._section] = elsewhere
        if elsewhere is not None:
            print(f"\nOther processes kept {elsewhere:.2f} cores busy meanwhile.", flush=True)

    def summary(self) -> str:
        """Return one line: how many limits are met, and which are not."""
        met = sum(check.met for check in self.checks)
        line = f"{met} of {len(self.checks)} limits met"
        for section in self.rows:
            missed = [str(check) for check in self.checks if check.section == section and not check.met]
            if missed:
                line += f"; missed in {section}: {', '.join(missed)}"
        return line

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        checks = [{**asdict(check), "met": check.met} for check in self.checks]
        content = {"machine": self.machine, "elsewhere": self.elsewhere, "rows": self.rows, "checks": checks}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _line(self, words: Sequence[str]) -> str:
        pairs = list(zip(words, self._widths, strict=False))
        return "  ".join([pairs[0][0].ljust(pairs[0][1]), *(word.rjust(width) for word, width in pairs[1:])])


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, load, versions."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = {}
    for name in ("numpy", "scipy", "convmat", "pylops", "sparse_convolution"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "processor": _processor(),
        "cores": cpus,
        "memory_gb": round(memory / 1e9, 1),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **packages,
    }


def _processor() -> str:
    """Return the processor's name; Python's own answer is empty on Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _figure(value: float) -> str:
    """Return a number to three digits, or to the two decimals in which limits are given."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
