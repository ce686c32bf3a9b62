"""Padding modes: what each puts into the borders of an axis, and what it is called elsewhere. One row of one table each.

Everything that depends on a mode is derived from its row. What cannot be derived is decided by `Border`, in a ``match`` that
ends in ``assert_never``: a new sort of border is an error, for mypy and at run time, until each of them has an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, assert_never


class Border(Enum):
    """What is in a border."""

    NOTHING = "no input"
    SHIFTED = "the input once more"
    MIRRORED = "the input once more, backwards"
    EDGE = "the first or the last input"


class Image(NamedTuple):
    """Where the padded input shows the input: source r, ``first`` ≤ r < ``end``, is at position ``sign·r + offset``."""

    sign: int
    offset: int
    first: int
    end: int


class Mode(NamedTuple):
    """A padding mode.

    Attributes
    ----------
    border : Border
        What is in a border.
    edge : int
        Of a mirrored border: 1 where it begins with the edge itself, 0 where with its neighbour.
    elsewhere : mapping of str to str
        What other libraries call it: the name, and which library.
    """

    border: Border
    edge: int
    elsewhere: Mapping[str, str]

    def images(self, size: int) -> tuple[Image, ...]:
        """Return the images of an input of `size` positions before and after it; none where borders show no image.

        Examples
        --------
        >>> MODES["reflect"].images(4)  # 3 2 1 | 0 1 2 3 | 2 1 0
        (Image(sign=-1, offset=0, first=1, end=4), Image(sign=-1, offset=6, first=0, end=3))
        """
        match self.border:
            case Border.SHIFTED:
                return Image(1, -size, 0, size), Image(1, size, 0, size)
            case Border.MIRRORED:
                far = 2 * (size - 1) + self.edge
                return Image(-1, -self.edge, 1 - self.edge, size), Image(-1, far, 0, size - 1 + self.edge)
            case Border.NOTHING | Border.EDGE:
                return ()
            case _:
                assert_never(self.border)

    def limit(self, size: int) -> int | None:
        """Return how wide a border may be, which is one image; None where there is no limit."""
        match self.border:
            case Border.SHIFTED:
                return size
            case Border.MIRRORED:
                return size - 1 + self.edge
            case Border.NOTHING | Border.EDGE:
                return None
            case _:
                assert_never(self.border)


MODES = {
    "zeros": Mode(
        Border.NOTHING,
        0,
        {
            "constant": "numpy.pad and scipy.ndimage",
            "grid-constant": "scipy.ndimage",
            "fill": "scipy.signal",
            "zero": "PyWavelets",
            "zpd": "MATLAB",
        },
    ),
    "circular": Mode(
        Border.SHIFTED,
        0,
        {
            "wrap": "numpy.pad",  # which means another mode in scipy.ndimage
            "grid-wrap": "scipy.ndimage",
            "periodic": "PyWavelets",
            "ppd": "MATLAB",
            "per": "MATLAB",
        },
    ),
    "reflect": Mode(
        Border.MIRRORED,
        0,
        {
            "mirror": "scipy.ndimage",
            "reflection": "PyTorch",
            "reflect_101": "OpenCV",
            "reflect101": "OpenCV",
            "symw": "MATLAB",
        },
    ),
    "symmetric": Mode(
        Border.MIRRORED,
        1,
        {"grid-mirror": "scipy.ndimage", "symm": "scipy.signal", "sym": "MATLAB", "symh": "MATLAB"},
    ),
    "replicate": Mode(
        Border.EDGE,
        0,
        {
            "edge": "numpy.pad",
            "nearest": "scipy.ndimage",
            "replication": "PyTorch",
            "clamp": "textures",
            "sp0": "MATLAB",
        },
    ),
}
PADDING_MODES = tuple(MODES)
