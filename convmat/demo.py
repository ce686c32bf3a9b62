"""The demo: the textbook's example as matrices, and a photograph halved by W and brought back to size by Wᵀ."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convmat import textbook
from convmat.assembly import convolution_matrix, transposed_convolution_matrix
from convmat.geometry import ConvolutionGeometry

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

STRIDE, PADDING = 2, 1
DEGREES = 25
MATRIX_LIMIT = 256 * 10**6  # bytes of W: larger photographs are reduced first, so that the demo takes seconds anywhere
TOLERANCE = 1e-5  # of pixels between 0 and 1, in float32
CROP = 24  # outputs on each axis that the loops check
DEEP = ("I", "F")  # modes of grey images with more than 8 bits, which Pillow would clip on the way to RGB
RUNS = 3  # of each step, of which the fastest is shown: the first is often slowed down by fresh memory
WINDOW = 8  # pixels on each axis of the window whose part of W is drawn
HIGHLIGHT = "#e6007e"


class DemoError(Exception):
    """The demo cannot go on; its message is one sentence for the user, and `status` is the exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def run(image: Path | None, figure: Path) -> None:
    """Print the textbook's example, send a photograph through W and Wᵀ, and draw it.

    Parameters
    ----------
    image : Path or None
        An image file; None is a portrait that matplotlib ships.
    figure : Path
        Where to write the figure.

    Raises
    ------
    DemoError
        If the image cannot be read, the figure cannot be written, or something that the demo needs is not installed.
    """
    _check_extra()
    _check_figure(figure)
    photograph = load(image)
    print_example()
    with progress(6) as step:
        pictures = halve_and_enlarge(photograph.pixels, step)
        step("loops")
        differences = check_against_loops(pictures)
        step("figure")
        draw(pictures, figure)
    print_photograph(photograph, pictures, differences)
    print(f"\n(c) The figure is in {figure}")


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show which step runs, on standard error where that is a terminal; yield what announces the next one."""
    from tqdm import tqdm

    with tqdm(total=steps, leave=False, disable=None, bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}") as bar:

        def step(name: str) -> None:
            bar.set_description(name)
            bar.update()

        yield step


def _check_extra() -> None:
    """Raise DemoError unless everything that the extra "demo" installs is there; Pillow comes with matplotlib."""
    for name in ("matplotlib", "PIL", "tqdm"):
        if find_spec(name) is None:
            raise DemoError(f'the demo needs {name}, which pip install "convmat[demo]" installs')


def _check_figure(path: Path) -> None:
    """Raise DemoError unless a figure can be written under this name, before any work."""
    from matplotlib.backend_bases import FigureCanvasBase

    if not path.parent.is_dir():
        raise DemoError(f"there is no folder {str(path.parent)!r} for the figure")
    if path.is_dir():
        raise DemoError(f"the figure must be a file, got the folder {str(path)!r}")
    formats = FigureCanvasBase.get_supported_filetypes()
    if _format(path) not in formats:
        raise DemoError(f"the figure's name must end in one of {', '.join(sorted(formats))}, got {path.name!r}")


def _format(path: Path) -> str:
    return path.suffix[1:].lower() or "png"


def _check(name: str, agrees: bool) -> None:
    """Raise DemoError if a result is wrong."""
    if not agrees:
        raise DemoError(f"{name} is not what it must be; please report this as a bug", status=1)


# (a) The textbook's example


def print_example() -> None:
    """Print the textbook's example as matrices, and the answer to the first of its exercises."""
    X, K = np.arange(9).reshape(3, 3), np.array([[1, 2], [3, 4]])
    W = convolution_matrix(K, X.shape).toarray()
    Y = (W @ X.ravel()).reshape(2, 2)
    Z = (W.T @ Y.ravel()).reshape(X.shape)
    _check("W", np.array_equal(W, textbook.kernel2matrix(K, X.shape)))
    _check("W·x", np.array_equal(Y, textbook.corr2d(X, K)))
    _check("Wᵀ·y", np.array_equal(Z, textbook.trans_conv(Y, K)))
    print("(a) The textbook's example\n")
    print(matrices({"X": X, "K": K}), matrices({"W": W}), sep="\n\n", end="\n\n")
    print("x and y are X and Y row after row, as vectors. Y = W·x is the convolution of X with K, and Z = Wᵀ·y is the")
    print("transposed convolution of Y:\n")
    print(matrices({"Y": Y, "Z": Z}), end="\n\n")
    print("The loops give the same: W is kernel2matrix(K), Y is corr2d(X, K), Z is trans_conv(Y, K).\n")
    print_exercise(X, W, Z)


def print_exercise(X: Array, W: Array, Z: Array) -> None:
    """Print why the transposed convolution of Y is not X."""
    rank = int(np.linalg.matrix_rank(W))
    V = np.array([[4, -2, 1], [0, 0, 0], [0, 0, 0]])
    _check("W·v", not (W @ V.ravel()).any())
    outputs, inputs = W.shape
    print("The first exercise: Z has the shape of X; does it have the values of X?\n")
    print("No. Z = WᵀW·x, and WᵀW is not the identity:\n")
    print(matrices({"WᵀW": W.T @ W, "Z − X": Z - X}), end="\n\n")
    print(f"No other matrix brings X back from Y either. W is {outputs} × {inputs} and has rank {rank}: its null space")
    print(
        f"has {inputs} − {rank} = {inputs - rank} dimensions, and what X has in them is lost in Y. A null vector is\n"
    )
    print(matrices({"V": V, "W·v": (W @ V.ravel())[None], "W·(x + v)": (W @ (X + V).ravel())[None]}), end="\n\n")
    print("X and X + V have the same Y: whoever sees Y alone cannot tell them apart.")


def matrices(named: Mapping[str, Array]) -> str:
    """Return integer matrices as text, side by side, each after its name.

    Examples
    --------
    >>> print(matrices({"A": np.array([[1, -2], [30, 4]]), "B": np.array([[5]])}))
    A = [ 1 -2]    B = [5]
        [30  4]
    """
    blocks = []
    for name, matrix in named.items():
        width = max(len(str(value)) for value in matrix.flat)
        rows = ["[" + " ".join(f"{value:{width}}" for value in row) + "]" for row in matrix.tolist()]
        blocks.append([f"{name} = {rows[0]}", *(" " * (len(name) + 3) + row for row in rows[1:])])
    height = max(len(block) for block in blocks)
    padded = [block + [" " * len(block[0])] * (height - len(block)) for block in blocks]
    return "\n".join("    ".join(lines).rstrip() for lines in zip(*padded, strict=True))


# (b) The photograph


@dataclass(frozen=True)
class Photograph:
    """Pixels (3, H, W) in float32 between 0 and 1, where they come from, and the size that the file has."""

    pixels: Array
    name: str
    size: tuple[int, int]  # (H, W)


@dataclass(frozen=True)
class Pictures:
    """A photograph x, y = W·x, z = Wᵀ·y, the matrices, and the seconds that each step took."""

    K: Array
    geometry: ConvolutionGeometry
    W: Any
    Wt: Any
    x: Array
    y: Array
    z: Array
    seconds: dict[str, float]


def load(path: Path | None) -> Photograph:
    """Read an image as RGB, reduced where its W would be too large for a demo."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image, ImageOps

    source = Path(get_sample_data("grace_hopper.jpg", asfileobj=False)) if path is None else path
    try:
        if not source.is_file():
            raise DemoError(f"there is no file {str(source)!r}")
        with warnings.catch_warnings(), Image.open(source) as file:
            warnings.simplefilter("ignore")  # of a file's oddities, which do not matter here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(file)
            if not image.mode.startswith(DEEP):
                image = image.convert("RGB")
            size = (image.height, image.width)
            if min(size) < 2:
                raise DemoError(f"the image must have at least 2 × 2 pixels, got {image.width} × {image.height}")
            height, width = fitting_size(size)
            if (height, width) != size:
                image = image.resize((width, height), Image.Resampling.BOX)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DemoError(f"{str(source)!r} has too many pixels for a demo; reduce it first") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow raises all of these for broken files
        raise DemoError(f"{str(source)!r} is no image that can be read ({error})") from None
    return Photograph(_pixels(image), source.name, size)


def _pixels(image: Any) -> Array:
    """Return an image as an array (3, H, W)."""
    values: Array = np.asarray(image, np.float32)
    if values.ndim == 2:
        grey = np.nan_to_num(values, posinf=0, neginf=0).clip(0)
        return np.repeat(grey[None] / (grey.max() or 1), 3, axis=0)
    return np.ascontiguousarray(values.transpose(2, 0, 1) / 255)


def geometry_of(shape: tuple[int, int]) -> ConvolutionGeometry:
    """Return the geometry of the demo's convolution of a photograph (H, W)."""
    return ConvolutionGeometry((3, 3, 4, 4), (3, *shape), stride=STRIDE, padding=PADDING)


def fitting_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the size (H, W) in the same proportions whose W stays below the limit, known before anything is built."""
    while (nbytes := geometry_of(shape).matrix_nbytes(np.float32)) > MATRIX_LIMIT:
        factor = 0.999 * (MATRIX_LIMIT / nbytes) ** 0.5
        shape = max(2, int(shape[0] * factor)), max(2, int(shape[1] * factor))
    return shape


def photograph_kernel() -> Array:
    """Return the kernel (3, 3, 4, 4): a blur in each pair of channels, weighted by a rotation of the colours.

    The blur is binomial. The rotation is about the grey axis and orthogonal, so its transpose turns the colours back.
    """
    binomial = np.array([1, 3, 3, 1]) / 8
    angle = np.deg2rad(DEGREES)
    turn = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]]) / 3**0.5
    colours = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) / 3 + np.sin(angle) * turn
    kernel: Array = colours[:, :, None, None] * np.outer(binomial, binomial)
    return kernel.astype(np.float32)


def halve_and_enlarge(x: Array, step: Callable[[str], None]) -> Pictures:
    """Build W and its transpose, and apply one after the other to a photograph."""
    K, geometry = photograph_kernel(), geometry_of(x.shape[1:])
    seconds = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        step(name)
        runs = []
        for _ in range(RUNS):
            result = None  # frees what the run before it built
            start = time.perf_counter()
            result = function()
            runs.append(time.perf_counter() - start)
        seconds[name] = min(runs)
        return result

    def build_transpose() -> Any:
        # An odd size is one of two that halve to the same: the transpose is told which.
        return transposed_convolution_matrix(K, y.shape, stride=STRIDE, padding=PADDING, output_shape=x.shape)

    W = timed("building W", lambda: convolution_matrix(K, x.shape, stride=STRIDE, padding=PADDING))
    y = timed("W·x", lambda: W @ x.ravel()).reshape(geometry.output_shape)
    Wt = timed("building Wᵀ", build_transpose)
    z = timed("Wᵀ·y", lambda: Wt @ y.ravel()).reshape(x.shape)
    return Pictures(K, geometry, W, Wt, x, y, z, seconds)


def check_against_loops(pictures: Pictures) -> tuple[float, float]:
    """Return the largest differences of W·x and of Wᵀ·y from the textbook's loops, on a crop."""
    outputs, pixels, inner = [], [], []
    for n, size in zip(pictures.geometry.spatial_output, pictures.geometry.spatial_input, strict=True):
        start = max(0, (n - CROP) // 2)
        stop = min(n, start + CROP)
        whole = stop - start == n
        outputs.append(slice(start, stop))
        pixels.append(slice(start * STRIDE, size if whole else stop * STRIDE))
        # The outermost line of a crop lacks what lies beyond it.
        inner.append(slice(None) if whole else slice(1, -1))
    options = {"stride": STRIDE, "padding": PADDING}
    crop = pictures.y[:, *outputs]
    Y = textbook.corr2d(pictures.x[:, *pixels], pictures.K, **options)
    Z = textbook.trans_conv(crop, pictures.K, **options)
    _, height, width = Z.shape  # of an odd size, the loops give the even one below it
    forward = float(np.abs(Y - crop)[:, *inner].max())
    back = float(np.abs(Z - pictures.z[:, *pixels][:, :height, :width])[:, *inner].max())
    _check("W·x", forward <= TOLERANCE)
    _check("Wᵀ·y", back <= TOLERANCE)
    return forward, back


def print_photograph(photograph: Photograph, pictures: Pictures, differences: tuple[float, float]) -> None:
    """Print what was done to the photograph, and what it took."""
    geometry, W, Wt, seconds = pictures.geometry, pictures.W, pictures.Wt, pictures.seconds
    _check("the number of nonzeros", geometry.nnz == W.nnz == Wt.nnz)
    height, width = photograph.size
    print(f"\n(b) A photograph: {photograph.name}, {width} × {height} pixels, three channels\n")
    if photograph.size != geometry.spatial_input:
        full, (height, width) = geometry_of(photograph.size), geometry.spatial_input
        print(f"Its W would have {full.nnz:,} nonzeros and take {_bytes(full.matrix_nbytes(W.dtype))}.")
        print(f"To stay below {_bytes(MATRIX_LIMIT)}, the photograph is reduced to {width} × {height} pixels first.\n")
    print(f"K is a 4 × 4 blur from each channel to each, weighted so that it turns the colours by {DEGREES}°.")
    print("With stride 2, y = W·x has half the size of x. Wᵀ, with the same K, brings y back to size and turns the")
    print("colours back.\n")
    rows = [
        ("", "W", "Wᵀ"),
        ("shape", *(" × ".join(f"{n:,}" for n in matrix.shape) for matrix in (W, Wt))),
        ("nonzeros, from the geometry alone", f"{geometry.nnz:,}", f"{geometry.nnz:,}"),
        ("nonzeros, as built", f"{W.nnz:,}", f"{Wt.nnz:,}"),
        (f"size in {W.dtype}, {W.indices.dtype}", _bytes(_nbytes(W)), _bytes(_nbytes(Wt))),
        (
            f"time to build, best of {RUNS}",
            *(f"{1e3 * seconds[name]:.1f} ms" for name in ("building W", "building Wᵀ")),
        ),
        (f"time of W·x, of Wᵀ·y, best of {RUNS}", *(f"{1e3 * seconds[name]:.1f} ms" for name in ("W·x", "Wᵀ·y"))),
        ("largest difference from the loops", *(f"{difference:.1e}" for difference in differences)),
    ]
    for name, *cells in rows:
        print(f"  {name:34}" + "".join(f"{cell:>22}" for cell in cells))
    print("\nThe pixels lie between 0 and 1; the loops were run on a crop, for they are slow. Away from the border, a")
    print("row of W sums to 1 and a column to 1/4, because there are four times as many. So the figure shows 4·Wᵀ·y,")
    print("which is y interpolated linearly. The colours come back because their rotation is orthogonal; what the")
    print("blur took away does not.")


def _nbytes(matrix: Any) -> int:
    return int(matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes)


def _bytes(count: int) -> str:
    """Return a number of bytes in decimal units.

    Examples
    --------
    >>> _bytes(999), _bytes(88_500_000)
    ('999 B', '88.5 MB')
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


# (c) The figure


@dataclass(frozen=True)
class Window:
    """A few pixels of the photograph, the outputs over them, and one output among these."""

    top: int
    left: int
    height: int
    width: int

    @property
    def output(self) -> tuple[int, int]:
        """Place of the highlighted output among the window's; a full window holds all of its receptive field."""
        return min(1, self.height // STRIDE - 1), min(2, self.width // STRIDE - 1)

    def positions(self, shape: Shape, step: int) -> Array:
        """Return where the window lies in the ravel of an array (C, H, W) that has one pixel for `step` pixels."""
        top, left, height, width = (n // step for n in (self.top, self.left, self.height, self.width))
        every = np.arange(prod(shape)).reshape(shape)
        return every[:, top : top + height, left : left + width].ravel()


def most_varied_window(x: Array) -> Window:
    """Return the window of the picture's lower half, near which it is enlarged, in which the colours differ most."""
    _, H, W = x.shape
    h, w = min(WINDOW, H // STRIDE * STRIDE), min(WINDOW, W // STRIDE * STRIDE)
    colours = x - x.mean(axis=0) if np.ptp(x, axis=0).any() else x  # grey pictures have only their brightness
    blocks = colours[:, : H // h * h, : W // w * w].reshape(3, H // h, h, W // w, w)
    spread = blocks.std(axis=(2, 4)).sum(axis=0)
    middle = len(spread) // 2
    row, column = np.unravel_index(spread[middle:].argmax(), spread[middle:].shape)
    return Window((middle + int(row)) * h, int(column) * w, h, w)


def draw(pictures: Pictures, path: Path) -> None:
    """Write the figure: the photograph, W·x, Wᵀ·y, and where W has its nonzeros."""
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
    try:
        figure.savefig(path, format=_format(path))
    except OSError as error:
        raise DemoError(f"the figure cannot be written to {str(path)!r} ({error.strerror})") from None


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
