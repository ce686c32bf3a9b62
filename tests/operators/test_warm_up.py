"""Compiling before the first product."""

import numpy as np
import pytest

from convmat import Convolution, ConvolutionGeometry, TransposedConvolution, warm_up
from convmat.engines import ENGINES, is_compiled
from convmat.engines._compiled import loader
from convmat.operators import _warm_up
from tests.processes import python

COUNT = """
import numpy as np, convmat
from convmat.engines._compiled import jit
compiled = []
for name in ("compile_loop", "compile_tile"):
    def count(*arguments, compile=getattr(jit, name)):
        compiled.append(arguments)
        return compile(*arguments)
    setattr(jit, name, count)
"""


def test_products_of_what_was_warmed_up_compile_nothing(tmp_path):
    pytest.importorskip("numba")
    printed = python(
        COUNT
        + """if True:
        rng = np.random.default_rng(0)
        kernel = rng.standard_normal((16, 16, 3, 3)).astype("f")
        A = convmat.Convolution(kernel, (16, 20, 20), padding=1, engine="winograd")
        B = convmat.TransposedConvolution(kernel, (16, 20, 20), stride=2, engine="taps")
        print(convmat.warm_up(A, B.geometry, dtype="float32"), len(compiled) > 0)
        compiled.clear()
        for operator in (A, A.T, B, B.T):
            operator.apply(np.ones(operator.input_shape, "f"))
        print(len(compiled))
    """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert printed == ["True", "True", "0"]


def test_everything_is_all_that_any_engine_names(monkeypatch):
    pytest.importorskip("numba")
    loaded = []
    monkeypatch.setattr(_warm_up, "load_code", loaded.append)
    warm_up()
    every = {code for name in ("f4", "f8") for engine in compiled_engines() for code in engine.all_code(np.dtype(name))}
    assert set(loaded) == every
    assert len(loaded) == len(every)
    loaded.clear()
    warm_up(dtype="complex64")
    assert set(loaded) == {code for engine in compiled_engines() for code in engine.all_code(np.dtype("f4"))}


def compiled_engines():
    return [engine for engine in ENGINES.values() if is_compiled(engine)]


def test_every_piece_that_products_load_is_among_all_code(monkeypatch):
    """Over many geometries, with whatever registers there are."""
    pytest.importorskip("numba")
    every = {code for engine in compiled_engines() for code in engine.all_code(np.dtype(float))}
    asked, load = set(), loader._load

    def note(name, variant, how):
        asked.add((name, variant))
        return load(name, variant, how)

    monkeypatch.setattr(loader, "_load", note)
    rng = np.random.default_rng(0)
    for size in range(5, 70, 4):
        for kernel, groups in (((3, 3), 1), ((8, 1, 3, 3), 8), ((6, 5, 2, 2), 1)):
            channels = () if len(kernel) == 2 else (kernel[1] * groups,)
            A = Convolution(rng.standard_normal(kernel), (*channels, size, size), groups=groups, engine="taps")
            A.T.apply(A.apply(np.ones(A.input_shape)))
    tiles = {code for code in asked if code[0] == "simd.tile_product"}
    assert tiles
    assert asked - {("simd", "registers")} <= every


def test_what_cannot_be_compiled_is_an_error(monkeypatch):
    monkeypatch.setattr(_warm_up, "refusal", lambda: "numba is not installed")
    with pytest.raises(RuntimeError, match=r"^no code can be compiled: numba is not installed$"):
        warm_up()


@pytest.mark.parametrize("what", ["taps", np.ones(3), None, (3, 3)])
def test_only_convolutions_are_warmed_up(what):
    with pytest.raises(TypeError, match="must be a ConvolutionGeometry or an operator, got"):
        warm_up(what)


def test_integers_need_no_code(monkeypatch):
    pytest.importorskip("numba")
    kinds = Convolution, TransposedConvolution
    assert all(warm_up(kind(np.ones((3, 3), int), (9, 9))) for kind in kinds)
    assert warm_up(ConvolutionGeometry((3, 3), (9, 9)), dtype=int)
