import io
import os
import re
import subprocess
import sys
import warnings
from contextlib import suppress

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convmat import ConvolutionGeometry
from convmat.commands import main
from convmat.commands._console import CommandError
from convmat.commands.demo import photograph as steps

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

PNG = b"\x89PNG\r\n\x1a\n"


def colours(height, width):
    """An image in which every channel varies, so that no mistake in axes or channels goes unseen."""
    row, column = np.mgrid[:height, :width]
    return np.stack([row * 255 // height, column * 255 // width, (row * column) % 256], -1).astype(np.uint8)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photograph.png"
    Image.fromarray(colours(41, 62)).save(path)
    return path


def test_runs_on_an_image(photograph, tmp_path, capsys):
    assert main(["demo", str(photograph), "--figure", str(tmp_path / "figure.png")]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    for part in (
        "W = [1 2 0 3 4 0 0 0 0]\n    [0 1 2 0 3 4 0 0 0]",
        "Y = [27 37]    Z = [ 27  91  74]\n    [57 67]        [138 400 282]",
        "W is 4 × 9 and has rank 4: its null space\nhas 9 − 4 = 5 dimensions",
        "W·v = [0 0 0 0]    W·(x + v) = [27 37 57 67]",
        "photograph.png, 62 × 41 pixels",
        "1,860 × 7,626",
        "7,626 × 1,860",
        f"The figure is in {tmp_path / 'figure.png'}",
    ):
        assert part in output
    nonzeros = f"{ConvolutionGeometry((3, 3, 4, 4), (3, 41, 62), stride=2, padding=1).nnz:,}"
    assert output.count(nonzeros) == 4
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("arguments", [[], ["demo"]])
def test_runs_without_an_image(arguments, tmp_path):
    command = [sys.executable, "-m", "convmat", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "grace_hopper.jpg, 512 × 600 pixels" in result.stdout
    assert (tmp_path / "convmat-demo.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(colours(2, 2)), id="two by two"),
        pytest.param(Image.fromarray(colours(5, 3)), id="five by three"),
        pytest.param(Image.fromarray(colours(8, 300)), id="wide"),
        pytest.param(Image.fromarray(colours(60, 50)).convert("L"), id="grey"),
        pytest.param(Image.fromarray(colours(60, 50)).convert("RGBA"), id="alpha"),
        pytest.param(Image.fromarray(colours(60, 50)).quantize(16), id="palette"),
        pytest.param(Image.fromarray(colours(60, 50)[..., 0].astype(np.uint16) * 257), id="16 bits"),
        pytest.param(Image.fromarray(np.zeros((60, 50), np.uint8)), id="black"),
    ],
)
def test_runs_on_every_kind_of_image(image, tmp_path):
    path, figure = tmp_path / "image.png", tmp_path / "figure.png"
    image.save(path)
    assert main(["demo", str(path), "--figure", str(figure)]) == 0
    assert figure.read_bytes().startswith(PNG)


def with_alpha(least):
    """An image whose alpha channel runs from `least` to 255."""
    alpha = np.linspace(least, 255, 12).astype(np.uint8).reshape(3, 4)
    return Image.fromarray(np.concatenate([colours(3, 4), alpha[..., None]], -1))


@pytest.mark.parametrize(
    ("image", "options", "transparent"),
    [
        pytest.param(with_alpha(0), {}, True, id="alpha"),
        pytest.param(with_alpha(0).convert("LA"), {}, True, id="grey with alpha"),
        pytest.param(with_alpha(0).convert("RGB").quantize(4), {"transparency": 0}, True, id="a transparent colour"),
        pytest.param(with_alpha(255), {}, False, id="opaque alpha"),
        pytest.param(with_alpha(0).convert("RGB"), {}, False, id="no alpha"),
    ],
)
def test_says_that_transparency_is_dropped(image, options, transparent, tmp_path, capsys):
    path = tmp_path / "image.png"
    image.save(path, **options)
    assert main(["demo", str(path), "--figure", str(tmp_path / "figure.png")]) == 0
    assert ("pixels are transparent" in capsys.readouterr().out) == transparent
    assert_array_equal(steps.load(path).pixels[0], np.asarray(image.convert("RGB"), np.float32)[..., 0] / 255)


def test_deep_grey_keeps_its_shades(tmp_path):
    shades = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    Image.fromarray(shades).save(tmp_path / "deep.png")
    pixels = steps.load(tmp_path / "deep.png").pixels
    assert_allclose(pixels, np.broadcast_to(shades / 65535, (3, 3, 4)), rtol=1e-6)


DEEP = np.random.default_rng(3).integers(0, 2**16, (24, 36)) * (np.arange(36) + 1) // 36


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("compression", ["raw", "tiff_deflate", "tiff_lzw"])
@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I", "F"])
def test_deep_grey_keeps_its_shades_in_either_order_of_bytes(mode, compression, halved, tmp_path, monkeypatch):
    dtype = {"I": "<i4", "F": "<f4", "I;16B": ">u2"}.get(mode, "<u2")
    Image.frombytes(mode, (36, 24), DEEP.astype(dtype).tobytes()).save(tmp_path / "a.tif", compression=compression)
    expected = DEEP
    if halved:
        monkeypatch.setattr(steps, "fitting_size", lambda shape: (12, 18))
        expected = DEEP.reshape(12, 2, 18, 2).mean(axis=(1, 3))
    photograph = steps.load(tmp_path / "a.tif")
    assert photograph.channels.startswith("one channel of ")
    assert_allclose(photograph.pixels, np.broadcast_to(expected / expected.max(), (3, *expected.shape)), rtol=1e-5)


def test_deep_grey_without_a_sign_has_all_its_bits(tmp_path):
    values = np.array([[0, 2**30, 2**31], [2**32 - 1, 3, 2**31 + 5]], np.uint32)
    Image.fromarray(values.view(np.int32)).save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    tag = content.index(bytes([83, 1, 3, 0]))  # SampleFormat, a short number
    assert content[tag + 8] == 2  # signed
    content[tag + 8] = 1
    (tmp_path / "a.tif").write_bytes(content)
    assert_allclose(steps.load(tmp_path / "a.tif").pixels[0], values / (2**32 - 1), rtol=1e-6)


def test_what_is_no_number_is_black_and_stays_where_it_is(tmp_path, monkeypatch):
    values = np.full((4, 6), 2, np.float32)
    values[0, 0], values[1, 3], values[3, 5] = np.nan, -7, np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    monkeypatch.setattr(steps, "fitting_size", lambda shape: (2, 3))
    assert_allclose(steps.load(tmp_path / "a.tif").pixels[1], [[0.75, 0.75, 1], [1, 1, 0.75]])


@pytest.mark.parametrize(
    ("mode", "name", "channels", "conversion"),
    [
        ("1", "a.png", "one channel, black or white", "takes its grey"),
        ("L", "a.png", "one channel, grey", "takes its grey"),
        ("L", "a.jpg", "one channel, grey", "takes its grey"),
        ("LA", "a.png", "two channels, grey and alpha", "leaves alpha out"),
        ("P", "a.png", "one channel, with a palette", "in the palette"),
        ("P", "a.gif", "one channel, with a palette", "in the palette"),
        ("RGB", "a.png", "three channels\n", ""),
        ("RGB", "a.jpg", "three channels\n", ""),
        ("RGBA", "a.png", "four channels: red, green, blue and alpha", "leaves alpha out"),
        ("CMYK", "a.jpg", "four channels: cyan, magenta, yellow and black", "converts it to red, green and blue"),
        ("CMYK", "a.tif", "four channels: cyan, magenta, yellow and black", "converts it to red, green and blue"),
        ("YCbCr", "a.tif", "three channels: luma and two of chroma", "converts it to red, green and blue"),
        ("LAB", "a.tif", "three channels: lightness and two of colour", "converts it to red, green and blue"),
        ("I;16", "a.png", "one channel of 16 bits", "divides its values by the largest"),
        ("I", "a.tif", "one channel of integers", "divides its values by the largest"),
        ("F", "a.tif", "one channel of floating-point numbers", "divides its values by the largest"),
    ],
)
def test_says_what_the_file_has_and_what_is_made_of_it(mode, name, channels, conversion, tmp_path, capsys):
    Image.new(mode, (4, 3)).save(tmp_path / name)
    assert main(["demo", str(tmp_path / name), "--figure", str(tmp_path / "figure.png")]) == 0
    output = capsys.readouterr().out
    assert f"{name}, 4 × 3 pixels, {channels}" in output
    assert conversion in output
    assert output.count("three channels") == (mode in ("RGB", "YCbCr", "LAB"))


def test_every_mode_of_pillow_is_described():
    from PIL import ImageMode

    for mode in (
        "1",
        "L",
        "P",
        "I",
        "F",
        "LA",
        "La",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I;16B",
    ):
        channels, _ = steps._described(mode)
        words = {1: "one", 2: "two", 3: "three", 4: "four"}
        bands = 3 if mode == "RGBX" else len(ImageMode.getmode(mode).bands)
        assert channels.startswith(f"{words[bands]} channel")


def damaged(content, random):
    """Change some bytes, of the head more often than of the rest, and cut some files short."""
    content = bytearray(content)
    for _ in range(random.integers(0, 8)):
        content[random.integers(min(len(content), random.choice([16, 200, 10**6])))] = random.integers(256)
    return bytes(content[: random.integers(len(content))] if random.random() < 0.4 else content)


def written(name):
    """Yield an image as a file of a format that Pillow can write, in each mode that it takes."""
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"):
        image = Image.fromarray(colours(20, 30))
        file = io.BytesIO()
        with suppress(OSError, ValueError, KeyError, AttributeError), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of formats
            (image.convert("L") if mode == "I;16" else image).convert(mode).save(file, name)
        if content := file.getvalue():
            yield content


Image.init()


@pytest.mark.parametrize("name", sorted(Image.SAVE))
def test_damaged_files_are_read_or_refused(name, tmp_path, capfd):
    random = np.random.default_rng(list(name.encode()))
    path = tmp_path / f"damaged.{name}"
    for content in written(name):
        for _ in range(25):
            path.write_bytes(damaged(content, random))
            if (refused := refusal_of(path)) is None:
                pixels = steps.load(path).pixels
                assert pixels.dtype == np.float32
                assert 0 <= pixels.min() <= pixels.max() <= 1
            else:
                assert (refused.status, str(refused).count("\n")) == (2, 0)
    assert capfd.readouterr() == ("", "")


def refusal_of(path):
    """Return the error with which an image is refused, or None."""
    try:
        steps.load(path)
    except CommandError as error:
        return error
    return None


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), KeyError("tag"), TypeError("two\nlines.")])
def test_whatever_pillow_raises_is_one_sentence(error, photograph, tmp_path, monkeypatch, capsys):
    def fails(self):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fails)
    said = refusal(capsys, str(photograph), "--figure", str(tmp_path / "figure.png"))
    assert said.count("\n") == 1
    assert (
        "takes more memory than there is" if isinstance(error, MemoryError) else "no image that can be read"
    ) in said


@pytest.mark.parametrize("limit", [1300, 2000, 2541])
def test_a_picture_over_the_limit_of_pillow_is_refused(limit, photograph, monkeypatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # it warns from there on, and raises from the double on
    assert "has too many pixels for a demo" in refusal(capsys, str(photograph))


def test_large_photographs_are_reduced(photograph, tmp_path, monkeypatch, capsys):
    for module in ("convmat.commands.demo", "convmat.commands.demo.photograph"):
        monkeypatch.setattr(f"{module}.MATRIX_LIMIT", 200_000)
    assert main(["demo", str(photograph), "--figure", str(tmp_path / "figure.png")]) == 0
    output = capsys.readouterr().out
    assert "Its W would have 86,742 nonzeros and take 701 kB." in output
    assert "To stay below 200 kB, the photograph is reduced to 33 × 21 pixels first." in output


@pytest.mark.parametrize("shape", [(3000, 4000), (2, 10**8), (10**5, 10**5), (600, 512)])
def test_the_size_that_fits_is_known_beforehand(shape):
    fitting = steps.fitting_size(shape)
    assert steps.geometry_of(fitting).matrix_nbytes(np.float32) <= steps.MATRIX_LIMIT
    assert fitting == (600, 512) or steps.geometry_of(fitting).matrix_nbytes(np.float32) > 0.6 * steps.MATRIX_LIMIT


def test_four_times_the_transpose_keeps_brightness_and_colour():
    x = np.ones((3, 12, 14), np.float32) * np.array([0.9, 0.5, 0.2], np.float32)[:, None, None]
    pictures = steps.halve_and_enlarge(x, lambda name: None)
    assert pictures.y.shape == (3, 6, 7)
    assert_allclose(4 * pictures.z[:, 3:-3, 3:-3], x[:, 3:-3, 3:-3], rtol=1e-5)
    assert_array_equal(pictures.W.T.toarray(), pictures.Wt.toarray())


def test_a_wrong_product_is_noticed():
    pictures = steps.halve_and_enlarge(colours(60, 70).transpose(2, 0, 1) / np.float32(255), lambda name: None)
    steps.check_against_loops(pictures)
    pictures.z[:, 30, 35] += 0.01
    with pytest.raises(CommandError, match="Wᵀ·y is not what it must be") as error:
        steps.check_against_loops(pictures)
    assert error.value.status == 1


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent.jpg", None, "there is no file '.*absent.jpg'"),
        ("text.jpg", b"no image", "text.jpg' is no image that can be read"),
        ("empty.png", b"", "empty.png' is no image that can be read"),
        ("cut.png", PNG, "cut.png' is no image that can be read"),
    ],
)
def test_no_image_gets_one_sentence(name, content, sentence, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["demo", str(tmp_path / name), "--figure", str(tmp_path / "figure.png")]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert re.search(sentence, errors)
    assert not (tmp_path / "figure.png").exists()


def refusal(capsys, *arguments):
    """Return the sentence with which the demo refuses to run."""
    assert main(["demo", *arguments]) == 2
    return capsys.readouterr().err


def test_other_refusals_get_one_sentence(photograph, tmp_path, monkeypatch, capsys):
    Image.new("RGB", (7, 1)).save(tmp_path / "line.png")
    assert "at least 2 × 2 pixels, got 7 × 1" in refusal(capsys, str(tmp_path / "line.png"))
    assert f"must be a file, got the folder '{tmp_path}'" in refusal(capsys, str(tmp_path))
    assert "must be a file, got the folder '.'" in refusal(capsys, "")
    assert "there is no folder" in refusal(capsys, "--figure", str(tmp_path / "no" / "figure.png"))
    assert "got the folder" in refusal(capsys, "--figure", str(tmp_path))
    assert "must end in one of" in refusal(capsys, "--figure", str(tmp_path / "figure.doc"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "too many pixels" in refusal(capsys, str(photograph))


def test_a_terminal_without_the_letters_gets_question_marks(photograph, tmp_path, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["demo", str(photograph), "--figure", str(tmp_path / "figure.png")]) == 0
    sys.stdout.flush()
    assert b"Y = W?x" in raw.getvalue()
