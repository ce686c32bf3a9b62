"""The README's examples, commands and links, and what it says of other packages."""

import doctest
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")


def fences(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_examples():
    names = {}
    blocks = fences("python")
    assert blocks
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block, names, "README.md", str(README), 0)
        results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, clear_globs=False)
        assert results.attempted
        assert not results.failed
        names = test.globs


def test_the_first_two_commands_are_complete():
    first, second = (block.strip() for block in fences("sh")[:2])
    for command in (first, second):
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert "--group" not in command
        assert "torch" not in command
    assert first.endswith("&& .venv/bin/python -m convmat")
    assert second.endswith("&& .venv/bin/python -m pytest")


def test_links_and_commands_lead_somewhere():
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (README.parent / link).is_file(), link
    for command in re.findall(r"`python -m pytest ([\w/]+\.py)", TEXT):
        assert (README.parent / command).is_file(), command
    for module in re.findall(r"`python -m (benchmarks\.\w+)`", TEXT):
        assert (README.parent / f"{module.replace('.', '/')}.py").is_file(), module


def test_the_picture_is_small():
    assert (README.parent / "docs" / "images" / "demo.png").stat().st_size <= 400_000


def test_pylops_is_as_the_table_says():
    pylops = pytest.importorskip("pylops", minversion="2.8")
    kernel = np.arange(1.0, 13).reshape(3, 2, 2)
    assert set(inspect.signature(pylops.signalprocessing.ConvolveND).parameters) == {
        *("dims", "h", "offset", "axes", "method", "dtype", "name")
    }
    A = pylops.signalprocessing.ConvolveND((4, 3, 5), kernel, axes=(0, 1, 2), method="direct")
    assert A.dimsd == A.dims
    products = []
    matvec = A._matvec
    A._matvec = lambda x: products.append(x) or matvec(x)
    W = A.tosparse()
    assert len(products) == W.shape[1]


def test_sigpy_is_as_the_table_says():
    pytest.importorskip("sigpy")
    from sigpy.linop import ConvolveData, ConvolveFilter

    names = {"data_shape", "filt", "mode", "strides", "multi_channel"}
    assert set(inspect.signature(ConvolveData).parameters) == names
    with pytest.raises(ValueError, match="mode"):
        ConvolveData((5, 5), np.ones((3, 3)), mode="same")
    A = ConvolveData((2, 5, 4, 3, 4), np.ones((3, 2, 2, 2, 2, 2)), mode="valid", strides=(2,) * 4, multi_channel=True)
    assert A.oshape == [3, 2, 2, 1, 2]
    assert A.H.oshape == A.ishape
    assert not [name for name in dir(A) if "sparse" in name or "dense" in name]
    assert ConvolveFilter((3, 3), np.ones((5, 5))).oshape == [7, 7]


def test_pytorch_is_as_the_table_says():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    assert not hasattr(nn, "Conv4d")
    assert {"stride", "padding", "dilation", "groups"} <= set(inspect.signature(nn.Conv2d).parameters)
    for mode in ("zeros", "circular", "reflect", "replicate"):
        nn.Conv2d(1, 1, 3, padding=1, padding_mode=mode)
    with pytest.raises(ValueError, match="padding_mode"):
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="symmetric")
    with pytest.raises(ValueError, match="zeros"):
        nn.ConvTranspose2d(1, 1, 3, padding=1, padding_mode="circular")
    image = torch.ones(1, 1, 5, 5)
    assert nn.functional.conv2d(image, torch.ones(1, 1, 3, 3), padding="same").shape == image.shape
    for padding in ("full", ((1, 2), (0, 1))):
        with pytest.raises((TypeError, RuntimeError)):
            nn.functional.conv2d(image, torch.ones(1, 1, 3, 3), padding=padding)


def test_scipy_is_as_the_table_says():
    from scipy.linalg import convolution_matrix

    assert list(inspect.signature(convolution_matrix).parameters) == ["a", "n", "mode"]
    for mode in ("full", "same", "valid"):
        assert isinstance(convolution_matrix([1, 2, 3], 5, mode), np.ndarray)
