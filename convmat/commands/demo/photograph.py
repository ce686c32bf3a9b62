"""A photograph halved by W and brought back to size by Wᵀ, checked against the textbook's loops."""

from __future__ import annotations

import io
import os
import stat
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convmat import textbook
from convmat.commands._console import CommandError, quiet, words
from convmat.geometry import Array, ConvolutionGeometry
from convmat.matrices import convolution_matrix, transposed_convolution_matrix

STRIDE, PADDING = 2, 1
DEGREES = 25
MATRIX_LIMIT = 256 * 10**6  # bytes of W: larger photographs are reduced first, so that the demo takes seconds
TOLERANCE = 1e-5  # of pixels between 0 and 1, in float32
CROP = 24  # outputs on each axis that are compared with the loops
PIPE_LIMIT = 256 * 10**6  # bytes to read from a pipe or a device, which may never end
SAMPLE_FORMAT, UNSIGNED = 339, (1,)  # TIFF's tag for the type of its numbers, and the value for unsigned integers
RUNS = 3  # of each step; the fastest is shown, because fresh memory slows down the first


def check(name: str, agrees: bool) -> None:
    """Raise CommandError if a result is wrong."""
    if not agrees:
        raise CommandError(f"{name} is not what it must be; please report this as a bug", status=1)


@dataclass(frozen=True)
class Photograph:
    """Pixels (3, H, W) in float32 between 0 and 1, and a description of the file."""

    pixels: Array
    name: str
    size: tuple[int, int]  # (H, W) in the file
    channels: str  # a pixel's channels in the file
    conversion: str  # a sentence: how the demo makes three channels of them; empty if there are three
    transparent: bool  # whether the file has pixels that are not opaque; the demo treats them as opaque


@dataclass(frozen=True)
class Pictures:
    """A photograph x, y = W·x, z = Wᵀ·y, the matrices, and the seconds of each step."""

    K: Array
    geometry: ConvolutionGeometry
    W: Any
    Wt: Any
    x: Array
    y: Array
    z: Array
    seconds: dict[str, float]


def find(image: Path | None) -> Path:
    """Return the path of the image, or of a portrait that matplotlib ships."""
    if image is not None:
        return image
    from matplotlib.cbook import get_sample_data

    return Path(get_sample_data("grace_hopper.jpg", asfileobj=False))


def check_apart(image: Path, figure: Path) -> None:
    """Raise CommandError if the figure would overwrite the image, even under another name."""
    try:
        same = image.samefile(figure)
    except (OSError, ValueError):  # one of them is not there
        return
    if same and not stat.S_ISCHR(figure.stat().st_mode):
        raise CommandError(
            f"the figure would overwrite the image {str(image)!r}; give it another name, as in --figure halved.png"
        )


def load(path: Path) -> Photograph:
    """Read an image as RGB, and reduce it if its W would be too large for a demo."""
    from PIL import Image, UnidentifiedImageError

    name = repr(str(path))
    try:
        if path.is_dir():
            raise CommandError(f"the image must be a file, got the folder {name}")
        opened = path.open("rb")
    except FileNotFoundError:
        raise CommandError(f"there is no file {name}") from None
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise CommandError(f"{name} cannot be read ({words(error)})") from None
    try:
        with opened, quiet():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # before anything can warn of it
            return _read(path, _seekable(opened))
    except CommandError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise CommandError(f"{name} has too many pixels for a demo; reduce it first") from None
    except MemoryError:
        raise CommandError(f"{name} takes more memory than there is; reduce it first") from None
    except UnidentifiedImageError:
        raise CommandError(f"{name} is no image that can be read") from None
    except Exception as error:  # noqa: BLE001 (for a damaged file, Pillow may raise anything)
        raise CommandError(f"{name} is no image that can be read ({words(error)})") from None


def _seekable(file: BinaryIO) -> BinaryIO:
    """Return a file in which Pillow can seek. A pipe or a device is read to its end first."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    content = file.read(PIPE_LIMIT + 1)
    if len(content) > PIPE_LIMIT:
        raise CommandError(
            f"{file.name!r} has more than {PIPE_LIMIT / 1e6:.0f} MB; write the image to a file, or reduce it"
        )
    return io.BytesIO(content)


def _read(path: Path, file: BinaryIO) -> Photograph:
    """Read an open image."""
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        mode, transparent = image.mode, False
        if image.mode.startswith(("I", "F")):  # grey of more than 8 bits: Pillow's conversion to RGB would clip it
            tags = getattr(opened, "tag_v2", {})
            unsigned = image.mode == "I" and tags.get(SAMPLE_FORMAT) == UNSIGNED
            image = Image.fromarray(_shades(image, unsigned))
        else:
            transparent = _transparent(image)
            image = image.convert("RGB")
    size = (image.height, image.width)
    if min(size) < 2:
        raise CommandError(f"the image must have at least 2 × 2 pixels, got {image.width} × {image.height}")
    height, width = fitting_size(size)
    if (height, width) != size:
        image = image.resize((width, height), Image.Resampling.BOX)
    return Photograph(_pixels(image), path.name, size, *_described(mode), transparent)


def _described(mode: str) -> tuple[str, str]:
    """Return the channels of one of Pillow's modes, and how the demo converts them to red, green and blue."""
    grey = "The demo takes its grey as red, green and blue alike."
    deep = "The demo divides its values by the largest of them, and takes them as red, green and blue alike."
    converted = "The demo converts it to red, green and blue."
    looked_up = "The demo looks up its red, green and blue in the palette."
    left_out = "The demo leaves alpha out."
    modes = {
        "1": ("one channel, black or white", grey),
        "L": ("one channel, grey", grey),
        "LA": ("two channels, grey and alpha", f"{grey} It leaves alpha out."),
        "La": ("two channels, grey and alpha", f"{grey} It leaves alpha out."),
        "P": ("one channel, with a palette", looked_up),
        "PA": ("two channels, one with a palette and alpha", f"{looked_up} It leaves alpha out."),
        "RGB": ("three channels", ""),
        "RGBX": ("three channels", ""),
        "RGBA": ("four channels: red, green, blue and alpha", left_out),
        "RGBa": ("four channels: red, green, blue and alpha", left_out),
        "CMYK": ("four channels: cyan, magenta, yellow and black", converted),
        "YCbCr": ("three channels: luma and two of chroma", converted),
        "LAB": ("three channels: lightness and two of colour", converted),
        "HSV": ("three channels: hue, saturation and value", converted),
        "I": ("one channel of integers", deep),
        "F": ("one channel of floating-point numbers", deep),
    }
    if mode.startswith("I;16"):
        return "one channel of 16 bits", deep
    return modes.get(mode, (f"channels in Pillow's mode {mode}", converted))


def _transparent(image: Any) -> bool:
    """Tell whether an image has pixels that are not opaque. Many images with an alpha channel have none."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    least, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(least < 255)


def _shades(image: Any, unsigned: bool) -> Array:
    """Return deep grey as float32, which Pillow can resize for any order of bytes. NaN and Inf become 0."""
    values: Array = np.asarray(image)
    if unsigned:  # Pillow has no mode for unsigned 32 bits, and takes the highest bit for a sign
        values = values.view(np.uint32)
    shades: Array = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0).clip(0)
    return shades


def _pixels(image: Any) -> Array:
    """Return an image as an array (3, H, W)."""
    values: Array = np.asarray(image, np.float32)
    if values.ndim == 2:
        return np.repeat(values[None] / (values.max() or 1), 3, axis=0)
    return np.ascontiguousarray(values.transpose(2, 0, 1) / 255)


def geometry_of(shape: tuple[int, int]) -> ConvolutionGeometry:
    """Return the geometry of the demo's convolution of a photograph (H, W)."""
    return ConvolutionGeometry((3, 3, 4, 4), (3, *shape), stride=STRIDE, padding=PADDING)


def fitting_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Return a size (H, W) in the same proportions whose W stays below the limit. Nothing is built for this."""
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
        # Two sizes, an odd and an even one, halve to the same: `output_shape` says which of them is meant.
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
        # The outermost line of a crop reads pixels beyond the crop, so it is not compared.
        inner.append(slice(None) if whole else slice(1, -1))
    options = {"stride": STRIDE, "padding": PADDING}
    crop = pictures.y[:, *outputs]
    Y = textbook.corr2d(pictures.x[:, *pixels], pictures.K, **options)
    Z = textbook.trans_conv(crop, pictures.K, **options)
    _, height, width = Z.shape  # for an odd size, the loops give the even size below it
    forward = float(np.abs(Y - crop)[:, *inner].max())
    back = float(np.abs(Z - pictures.z[:, *pixels][:, :height, :width])[:, *inner].max())
    check("W·x", forward <= TOLERANCE)
    check("Wᵀ·y", back <= TOLERANCE)
    return forward, back
