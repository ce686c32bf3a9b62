"""What the book's pages draw with: tables of numbers, one axis of a convolution, and pictures."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data
from matplotlib.patches import Rectangle

SHADES = ("#a8d4f0", "#f6cf7f", "#8fd3bb", "#e6b6d2")  # light enough for black numbers
GREY = "#d9dee4"
LINE = "#5b6470"
MARK = "#d55e00"


def table(ax, values, shades=None, title="", size=11):
    """Draw a matrix as a table of numbers; `shades` maps (row, column) to the colours that share that cell."""
    values = np.atleast_2d(values)
    rows, columns = values.shape
    shades = shades or {}
    for i, j in product(range(rows), range(columns)):
        colours = shades.get((i, j), ())
        high = 2 if len(colours) == 4 else 1  # four share a cell as quarters, fewer as stripes
        wide = max(1, len(colours) // high)
        for n, colour in enumerate(colours):
            corner = (j + n % wide / wide, i + n // wide / high)
            ax.add_patch(Rectangle(corner, 1 / wide, 1 / high, facecolor=colour, linewidth=0))
        ax.add_patch(Rectangle((j, i), 1, 1, fill=False, edgecolor=LINE, linewidth=0.7))
        value = values[i, j]
        text = value if isinstance(value, str) else f"{value:.3g}".replace("-", "−")
        quiet = not colours and text == "0"
        ax.text(j + 0.5, i + 0.52, text, ha="center", va="center", size=size, color="#a3abb5" if quiet else "black")
    ax.set(xlim=(-0.05, columns + 0.05), ylim=(rows + 0.05, -0.05), aspect="equal")
    ax.axis("off")
    ax.set_title(title)


def box(ax, top, left, height, width, colour=MARK):
    """Draw a frame around cells of a table."""
    ax.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=2.4, clip_on=False))


def symbol(ax, text):
    """Write a sign between two tables."""
    ax.text(0.5, 0.5, text, ha="center", va="center", size=16)
    ax.axis("off")


def axis(ax, geometry, title=""):
    """Draw a convolution over one axis: the input below, the outputs above, and a line for each tap that reads."""
    (size,), (outputs,) = geometry.spatial_input, geometry.spatial_output
    (taps,), (stride,), (dilation,) = geometry.spatial_kernel, geometry.stride, geometry.dilation
    ((before, after),) = geometry.padding
    read = {o * stride - before + t * dilation for o in range(outputs) for t in range(taps)}

    def cell(x, y, text, colour, inside=True):
        line = "-" if inside else ":"
        box = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=LINE, linestyle=line, linewidth=0.8)
        ax.add_patch(box)
        ax.text(x, y, text, ha="center", va="center", size=10 if inside else 8, color="black" if inside else LINE)

    for position in range(-before, size + after):
        inside = 0 <= position < size
        colour = "white" if not inside else GREY if position in read else "#fbe3d6"
        cell(position, 0, str(position) if inside else "pad", colour, inside)
    for o in range(outputs):
        middle = o * stride - before + dilation * (taps - 1) / 2
        colour = SHADES[o % len(SHADES)]
        cell(middle, 2.4, str(o), colour)
        for t in range(taps):
            source = o * stride - before + t * dilation
            style = "-" if 0 <= source < size else ":"
            ax.plot((source, middle), (0.5, 1.9), style, color=colour, zorder=0)
    ax.set(xlim=(-before - 0.6, size + after - 0.4), ylim=(-0.6, 3), aspect="equal")
    ax.axis("off")
    ax.set_title(title, loc="left")


def picture(ax, image, title="", **options):
    """Draw a picture of values between 0 and 1, unless told otherwise."""
    ax.imshow(image, **{"cmap": "gray", "vmin": 0, "vmax": 1} | options)
    ax.set_title(title)
    ax.axis("off")


def photograph(height=150, width=128):
    """Return a grey photograph with values between 0 and 1: the portrait that matplotlib ships, averaged to this size."""
    colours = plt.imread(get_sample_data("grace_hopper.jpg", asfileobj=False)) / 255
    grey = colours @ [0.299, 0.587, 0.114]
    step = min(grey.shape[0] // height, grey.shape[1] // width)
    grey = grey[: step * height, : step * width]
    return grey.reshape(height, step, width, step).mean(axis=(1, 3))
