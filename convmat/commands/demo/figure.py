"""The demo's figure: the photograph, W·x, Wᵀ·y, and the part of W between a few of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from convmat.commands.demo.photograph import PADDING, STRIDE, Pictures
from convmat.geometry import Array

Shape = tuple[int, ...]

WINDOW = 8  # pixels on each axis of the window whose part of W is drawn
HIGHLIGHT = "#e6007e"


@dataclass(frozen=True)
class Window:
    """A few pixels of the photograph, the outputs over them, and one output among these."""

    top: int
    left: int
    height: int
    width: int

    @property
    def output(self) -> tuple[int, int]:
        """Row and column of the highlighted output in the window. A full window contains its whole receptive field."""
        return min(1, self.height // STRIDE - 1), min(2, self.width // STRIDE - 1)

    def positions(self, shape: Shape, step: int) -> Array:
        """Return the window's indices in the ravel of an array (C, H, W) that has one pixel for every `step` pixels."""
        top, left, height, width = (n // step for n in (self.top, self.left, self.height, self.width))
        every = np.arange(prod(shape)).reshape(shape)
        return every[:, top : top + height, left : left + width].ravel()


def most_varied_window(x: Array) -> Window:
    """Return the window with the most varied colours in the picture's lower half, where it is shown enlarged."""
    _, H, W = x.shape
    h, w = min(WINDOW, H // STRIDE * STRIDE), min(WINDOW, W // STRIDE * STRIDE)
    colours = x - x.mean(axis=0) if np.ptp(x, axis=0).any() else x  # grey pictures have only their brightness
    blocks = colours[:, : H // h * h, : W // w * w].reshape(3, H // h, h, W // w, w)
    spread = blocks.std(axis=(2, 4)).sum(axis=0)
    middle = len(spread) // 2
    row, column = np.unravel_index(spread[middle:].argmax(), spread[middle:].shape)
    return Window((middle + int(row)) * h, int(column) * w, h, w)


def draw(pictures: Pictures) -> Any:
    """Return the figure: the photograph, W·x, Wᵀ·y, and where W has its nonzeros."""
    from matplotlib.figure import Figure

    _, H, W = pictures.x.shape
    window = most_varied_window(pictures.x)
    pictures_height = min(max(4.2 * H / W, 2.0), 7.0)
    figure = Figure(figsize=(13, pictures_height + 4.6), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(pictures_height, 3.6))
    i, j = window.output
    field = (STRIDE * i - PADDING, STRIDE * j - PADDING, 4)  # top, left, size within the window
    h, w = pictures.y.shape[1:]
    panels = [
        (pictures.x, f"The photograph: x, {W} × {H} pixels", 1, field),
        (pictures.y, f"W·x, {w} × {h} pixels", STRIDE, (i, j, 1)),
        (4 * pictures.z, f"4·Wᵀ·y, {W} × {H} pixels", 1, field),
    ]
    for column, (image, title, step, mark) in enumerate(panels):
        axes = figure.add_subplot(grid[0, column])
        axes.set_title(title, loc="left")
        _draw_picture(axes, image, (H, W), window, step, mark)
    _draw_matrix(figure.add_subplot(grid[1, :]), pictures, window)
    return figure


def _draw_picture(
    axes: Any, image: Array, frame: tuple[int, int], window: Window, step: int, mark: tuple[int, int, int]
) -> None:
    """Draw a picture in pixels of the same size whatever its own, with the window enlarged in a corner."""
    from matplotlib import rc_context
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    pixels = image.transpose(1, 2, 0).clip(0, 1)
    H, W = frame
    axes.imshow(pixels)
    axes.set(xlim=(-0.5, W - 0.5), ylim=(H - 0.5, -0.5))
    axes.axis("off")
    top, left, height, width = (n // step for n in (window.top, window.left, window.height, window.width))
    side = 0.44 * min(H, W)
    # In the lower corner that is farther from the window; beside a half-sized picture, the right one is always free.
    right = step > 1 or 2 * window.left + window.width < W
    inset = axes.inset_axes((0.98 - side / W if right else 0.02, 0.02 * W / H, side / W, side / H))
    inset.imshow(pixels[top : top + height, left : left + width], interpolation="nearest", aspect="auto")
    inset.set(xticks=[], yticks=[])
    y, x, size = mark
    inset.add_patch(Rectangle((x - 0.5, y - 0.5), size, size, fill=False, edgecolor=HIGHLIGHT, linewidth=3))
    outline = [withStroke(linewidth=3, foreground="black")]  # white is seen on dark, the outline on light
    with rc_context({"path.effects": outline}):
        axes.indicate_inset((left - 0.5, top - 0.5, width, height), inset, edgecolor="white", alpha=1, linewidth=1.5)


def _draw_matrix(axes: Any, pictures: Pictures, window: Window) -> None:
    """Draw where the window's part of W has nonzeros, with one output's row in colour."""
    from matplotlib.colors import ListedColormap

    rows, columns = window.positions(pictures.y.shape, STRIDE), window.positions(pictures.x.shape, 1)
    nonzero = (pictures.W[rows][:, columns].toarray() != 0).astype(int)
    i, j = window.output
    row = i * (window.width // STRIDE) + j
    nonzero[row] *= 2
    axes.imshow(nonzero, cmap=ListedColormap(["white", "#7b8794", HIGHLIGHT]), interpolation="nearest", vmin=0, vmax=2)
    height, width = nonzero.shape
    for channel in (1, 2):
        axes.axhline(channel * height / 3 - 0.5, color="black", linewidth=0.8)
        axes.axvline(channel * width / 3 - 0.5, color="black", linewidth=0.8)
    axes.axhspan(row - 0.5, row + 0.5, color=HIGHLIGHT, alpha=0.12, linewidth=0)
    for left in np.arange(0, width, window.width):
        axes.axvline(left - 0.5, color="black", linewidth=0.3, alpha=0.3)
    middles = (2 * np.arange(3) + 1) / 6
    axes.set_xticks(middles * width - 0.5, ["red", "green", "blue"])
    axes.set_yticks(middles * height - 0.5, ["red", "green", "blue"])
    axes.tick_params(length=0)
    axes.set_xlabel(
        f"columns: the {window.height} × {window.width} pixels enlarged above, row after row, of each channel of x"
    )
    axes.set_ylabel("rows: channels of y")
    size = " × ".join(f"{n:,}" for n in pictures.W.shape)
    axes.set_title(
        f"W, its part for the enlarged pixels: {height} × {width} of {size}.\n"
        "In colour: one output; the nonzeros in its row are its receptive field",
        loc="left",
    )
