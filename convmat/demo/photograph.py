"""A photograph halved by W and brought back to size by Wᵀ, checked against the textbook's loops."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convmat import textbook
from convmat.assembly import convolution_matrix, transposed_convolution_matrix
from convmat.dtypes import Array
from convmat.geometry import ConvolutionGeometry

STRIDE, PADDING = 2, 1
DEGREES = 25
MATRIX_LIMIT = 256 * 10**6  # bytes of W: larger photographs are reduced first, so that the demo takes seconds anywhere
TOLERANCE = 1e-5  # of pixels between 0 and 1, in float32
CROP = 24  # outputs on each axis that the loops check
DEEP = ("I", "F")  # modes of grey images with more than 8 bits, which Pillow would clip on the way to RGB
RUNS = 3  # of each step, of which the fastest is shown: the first is often slowed down by fresh memory


class DemoError(Exception):
    """The demo cannot go on; its message is one sentence for the user, and `status` is the exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def check(name: str, agrees: bool) -> None:
    """Raise DemoError if a result is wrong."""
    if not agrees:
        raise DemoError(f"{name} is not what it must be; please report this as a bug", status=1)


@dataclass(frozen=True)
class Photograph:
    """Pixels (3, H, W) in float32 between 0 and 1, where they come from, and what the file has besides."""

    pixels: Array
    name: str
    size: tuple[int, int]  # (H, W) in the file
    transparent: bool  # whether the file has pixels that are not opaque, which the demo takes as if they were


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
        if source.is_dir():
            raise DemoError(f"the image must be a file, got the folder {str(source)!r}")
        if not source.is_file():
            raise DemoError(f"there is no file {str(source)!r}")
        with warnings.catch_warnings(), Image.open(source) as file:
            warnings.simplefilter("ignore")  # of a file's oddities, which do not matter here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(file)
            transparent = False
            if not image.mode.startswith(DEEP):
                transparent = _transparent(image)
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
    return Photograph(_pixels(image), source.name, size, transparent)


def _transparent(image: Any) -> bool:
    """Tell whether an image has pixels that are not opaque; many that could have such pixels do not."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    least, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(least < 255)


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
    check("W·x", forward <= TOLERANCE)
    check("Wᵀ·y", back <= TOLERANCE)
    return forward, back
