"""A padding mode is a row of a table: nothing else knows its name, and a new sort of border is an error everywhere."""

import re
from pathlib import Path

import numpy as np
import pytest

import convmat
from convmat.engines import fold, pad
from convmat.geometry import MODES, PADDING_MODES, Axis
from tests.reference import NUMPY_MODE


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_images_are_what_numpy_pads(mode, size):
    limit, images = MODES[mode].limit(size), MODES[mode].images(size)
    assert {image.end - image.first for image in images} == ({limit} if images else set())
    width = 3 if limit is None else limit
    axis = Axis(size, 1, 1, width, width, 1, size + 2 * width, mode)
    padded = np.pad(np.arange(1, size + 1), width, NUMPY_MODE[mode])
    np.testing.assert_array_equal(axis.source_at(np.arange(-width, size + width)) + 1, padded)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_a_row_is_all_that_a_mode_needs(mode, monkeypatch):
    another = f"another {mode}"  # one name for each, as tables are kept by it
    monkeypatch.setitem(MODES, another, MODES[mode])
    rng = np.random.default_rng(0)
    kernel, x, y = (rng.standard_normal(shape) for shape in ((3, 2), (7, 6), (4, 7)))
    one, other = (
        convmat.Convolution(kernel, (7, 6), stride=(2, 1), padding=((1, 2), (1, 1)), padding_mode=name)
        for name in (mode, another)
    )
    np.testing.assert_array_equal(other.tocsr().toarray(), one.tocsr().toarray())
    np.testing.assert_array_equal(other.T.tocsr().toarray(), one.T.tocsr().toarray())
    for engine in ("gemm", "csr"):
        products = convmat.Convolution(kernel, (7, 6), padding=1, padding_mode=another, engine=engine)
        expected = convmat.Convolution(kernel, (7, 6), padding=1, padding_mode=mode, engine=engine)
        np.testing.assert_allclose(products.apply(x), expected.apply(x), atol=1e-14)
    np.testing.assert_allclose(other.T.apply(y), one.T.apply(y), atol=1e-14)
    assert other.geometry.nnz == one.geometry.nnz


def test_names_of_modes_stand_in_the_table_alone():
    package = Path(convmat.__file__).parent
    for file in package.rglob("*.py"):
        if "commands" not in file.parts:  # where a mode may also be that of a file
            code = file.read_text("utf-8")
            assert not [mode for mode in PADDING_MODES if re.search(f'mode [!=]= "{mode}"|case "{mode}"', code)], file


def test_a_sort_of_border_that_nothing_knows_raises(monkeypatch):
    monkeypatch.setitem(MODES, "strange", MODES["reflect"]._replace(border=None))
    axis = Axis(6, 3, 1, 1, 1, 1, 6, "strange")
    rows, x = np.arange(6), np.ones((1, 1, 6))
    geometry = convmat.ConvolutionGeometry(3, 6, padding=1)
    object.__setattr__(geometry, "axes", (axis,))
    for call in (
        lambda: axis.source_at(rows), lambda: axis.images, lambda: axis.strands(True, rows), lambda: axis.runs(),
        lambda: axis.runs(True), lambda: axis.entries, lambda: axis.table(False, rows), lambda: axis.table(True, rows),
        lambda: pad(x, geometry, np.ones((1, 1, 8))), lambda: fold(np.ones((1, 1, 8)), geometry, x),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match="unreachable"):
            call()
