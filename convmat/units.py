"""Numbers as people read them: three digits, a decimal prefix and a unit."""

from __future__ import annotations

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def scaled(value: float, unit: str = "") -> str:
    """Return a number with three digits, a decimal prefix and a unit.

    Examples
    --------
    >>> scaled(0.00123, "s"), scaled(711e6, "B"), scaled(999.7, "B"), scaled(0, "s"), scaled(9.44e6)
    ('1.23 ms', '711 MB', '1 kB', '0 s', '9.44 M')
    """
    if value == 0:
        return f"0 {unit}".strip()
    factor, prefix = next((pair for pair in _PREFIXES if value >= 0.9995 * pair[0]), _PREFIXES[-1])
    return f"{value / factor:.3g} {prefix}{unit}".strip()
