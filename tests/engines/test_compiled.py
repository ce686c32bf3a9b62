"""What the compiled engines owe alike, besides the right numbers."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import convmat
from convmat.engines import ENGINES, Machine
from convmat.engines._compiled import loader
from convmat.geometry import ConvolutionGeometry
from tests.engines.compiled import LARGE, bound, forward, operands, transpose
from tests.processes import python

pytest.importorskip("numba")

DTYPES = {
    "taps": ["float32", "float64", "complex64", "complex128"],
    "winograd": ["float32", "float64"],
    "winograd4": ["float32", "float64"],
}
SMALL = {
    "taps": ConvolutionGeometry((3, 2, 4, 2), (2, 8, 9), padding=((3, 0), (0, 2)), stride=(1, 2)),
    **dict.fromkeys(("winograd", "winograd4"), ConvolutionGeometry((9, 8, 3, 3), (8, 7, 6), padding=1)),
}


@pytest.mark.parametrize("name", SMALL)
def test_no_product_of_an_empty_batch(name):
    kernel, x, y = operands(SMALL[name], "float32", batch=0)
    products = bound(ENGINES[name], SMALL[name], kernel)
    products.forward(x, y)
    products.transpose(y, x)


@pytest.mark.parametrize("name", SMALL)
def test_inputs_may_be_read_only_and_are_not_modified(name):
    arrays = operands(SMALL[name], "float32")
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    kernel, x, y = arrays
    out, back = np.empty_like(y), np.empty_like(x)
    products = bound(ENGINES[name], SMALL[name], kernel)
    products.forward(x, out)
    products.transpose(y, back)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_allclose(out, forward(SMALL[name], kernel, x), rtol=0, atol=1e-4)
    np.testing.assert_allclose(back, transpose(SMALL[name], kernel, y), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", LARGE)
def test_eight_threads_share_one_bound_object(name):
    kernel, *_ = operands(LARGE[name], "float32")
    products = bound(ENGINES[name], LARGE[name], kernel, workers=2)
    given = [operands(LARGE[name], "float32", seed=seed)[1:] for seed in range(8)]
    expected = [(forward(LARGE[name], kernel, x), transpose(LARGE[name], kernel, y)) for x, y in given]

    def work(number):
        x, y = given[number % 8]
        out, back = np.empty_like(y), np.empty_like(x)
        products.forward(x, out)
        products.transpose(y, back)
        return out, back

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, range(24)))
    for number, results in enumerate(together):
        for result, wanted in zip(results, expected[number % 8], strict=True):
            np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", LARGE)
def test_plan_is_shared_between_kernels(name):
    engine, geometry = ENGINES[name], LARGE[name]
    plan = engine.prepare(geometry, np.dtype("float64"), 1)
    for seed in range(2):
        kernel, x, y = operands(geometry, "float64", seed=seed)
        out = np.empty_like(y)
        engine.bind(plan, kernel).forward(x, out)
        np.testing.assert_allclose(out, forward(geometry, kernel, x), rtol=0, atol=1e-11)
    assert plan.direction(False) is plan.direction(False)


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name, dtypes in DTYPES.items() for dtype in dtypes])
@pytest.mark.parametrize("transposed", [False, True])
def test_estimate_grows_with_the_batch(name, dtype, transposed):
    estimate = ENGINES[name].estimate
    one, eight = (estimate(LARGE[name], np.dtype(dtype), batch, transposed, Machine()) for batch in (1, 8))
    assert 0 < one.seconds < eight.seconds
    assert 0 < one.flops < eight.flops
    assert 0 < one.bytes < eight.bytes
    assert one.state == eight.state > 0


@pytest.mark.parametrize("name", SMALL)
def test_names_the_extra_where_numba_is_missing(name):
    printed = python(f"""
        import sys
        sys.modules["numba"] = None
        import numpy, convmat
        from convmat.engines import ENGINES
        print(ENGINES[{name!r}].refuses(convmat.{SMALL[name]!r}, numpy.dtype("d")))
    """)
    assert 'pip install "convmat[fast]"' in " ".join(printed)


def test_numba_is_imported_late():
    assert python("import sys, convmat.engines\nprint('numba' in sys.modules)") == ["False"]


LOADED = """
import sys
sys.path.insert(0, {!r})
import numpy, convmat
from convmat.engines._compiled.loader import estimate_loading
print(convmat.__file__, estimate_loading([("taps.run_tasks", "float64")]).compiles)
A = convmat.Convolution(numpy.ones((2, 2)), (5, 5), engine="taps", workers=1)
print(A.apply(numpy.ones((5, 5))).sum())
"""


@pytest.mark.parametrize("place", ["beside", "user", "chosen"])
def test_code_that_is_cached_counts_as_compiled(place, tmp_path):
    package = tmp_path / "package" / "convmat"
    shutil.copytree(Path(convmat.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    if place == "user":  # as where the package is installed for all: nothing can be written beside it
        (package / "engines" / "__pycache__").touch()
    environment = {
        "NUMBA_CACHE_DIR": str(tmp_path / "chosen") if place == "chosen" else "",
        "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }  # fmt: skip
    for compiles in ("True", "False"):
        file, estimated, total = python(LOADED.format(str(package.parent)), **environment)
        assert Path(file).parent == package
        assert estimated == compiles
        assert float(total) == 64


def test_estimates_of_loading_count_each_piece(fresh, monkeypatch):
    kept = set()
    monkeypatch.setattr(loader.codecache, "has_variant", lambda *code: code in kept)
    loop, tile, module = ("taps.run_tasks", "float64"), ("simd.tile_product", "8x*"), ("import", "no.such.module")
    alone, both = loader.estimate_loading([loop]), loader.estimate_loading([loop, tile])
    assert alone.compiles
    assert both.seconds > alone.seconds
    assert both.threshold == both.seconds
    kept |= {loop, tile}
    cached = loader.estimate_loading([loop, tile])
    assert not cached.compiles
    assert cached.threshold < cached.seconds < both.seconds
    assert loader.estimate_loading([module]).threshold == loader.estimate_loading([module]).seconds > 0
    loader._loaded |= {loop: None, ("simd.tile_product", "8x4x2x0"): None}
    assert loader.estimate_loading([loop, tile, ("import", "sys")]).seconds == 0
    assert loader.estimate_loading([("simd.tile_product", "4x*")]).seconds > 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs mmap with protection")
@pytest.mark.parametrize("name", LARGE)
def test_nothing_outside_the_buffers_is_touched(name):
    """Every buffer begins or ends at a page that must not be touched; a violation kills the process."""
    check = f"compiled.check_guarded(ENGINES[{name!r}], t.guarded_cases(), t.guard_inner)"
    imports = f"from convmat.engines import ENGINES; from tests.engines import compiled, test_{name.rstrip('4')} as t"
    code = f"{imports}; {check}"
    assert python(code) == ["done"]
