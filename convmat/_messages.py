"""What sentences for users are made of: numbers with units, and what is said of a name that is not known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import MappingProxyType

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
NO_MEANINGS: Mapping[str, str] = MappingProxyType({})


def choose(
    option: str, name: object, names: Collection[str], meanings: Mapping[str, str] = NO_MEANINGS, *, place: str = ""
) -> str:
    """Return the one of some names that a user gives.

    Parameters
    ----------
    option : str
        What is chosen, for messages.
    name : object
        What the user gives.
    names : collection of str
        What there is to choose from.
    meanings : mapping of str to str
        Which of them is meant by other names, in lower case, that a user may know from elsewhere; or what to say of them.
    place : str
        Where there are these names, for messages.

    Raises
    ------
    TypeError
        If `name` is no str.
    ValueError
        If `name` is none of the names.

    Examples
    --------
    >>> choose("colour", "Red", ("red", "green"))
    Traceback (most recent call last):
        ...
    ValueError: colour must be one of red, green, got 'Red'; did you mean 'red'?
    """
    if not isinstance(name, str):
        raise TypeError(f"{option} must be a str, got {name!r}")
    if type(name) is str and name in names:  # nearly always
        return name
    known = tuple(names)
    if name not in known:
        raise ValueError(
            f"{option} must be one of {', '.join(known)}{place}, got {name!r}{hint(name, known, meanings)}"
        )
    return known[known.index(name)]  # of the type str, whatever subclass of it was given


def hint(name: str, names: Collection[str], meanings: Mapping[str, str] = NO_MEANINGS) -> str:
    """Return the end of a sentence about a name that is not known: which one may be meant, or nothing."""
    lower = name.strip().lower().replace(" ", "_")
    known, meant = tuple(names), meanings.get(lower)
    if meant not in known:
        if meant:
            return f"; {meant}"
        meant = next(iter(get_close_matches(lower, known, 1, 0.7)), None)
    return f"; did you mean {meant!r}?" if meant else ""


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
