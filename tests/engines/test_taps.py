"""The engine `taps` against loops over the taps; and its compiled loops at the edges of what they may touch."""

import multiprocessing
import warnings

import numpy as np
import pytest

from convmat import convolution_matrix
from convmat.geometry import ConvolutionGeometry
from tests.engines.compiled import LARGE, bound, forward, guarded, older_processor, operands, transpose
from tests.processes import python

pytest.importorskip("numba")

from convmat.engines._taps import sweeps, tables
from convmat.engines._taps.loops import SIGNATURES
from convmat.engines._taps.taps import engine

DTYPES = ["float32", "float64", "complex64", "complex128"]
STRIDED = {
    "one output": ConvolutionGeometry((2,), (3,), stride=10**6),
    "one output of two axes": ConvolutionGeometry((3, 2, 2, 2), (2, 3, 4), stride=10**6),
    "outputs of padding": ConvolutionGeometry(
        (2, 2, 3, 2), (2, 3, 4), stride=(10**6, 10**5), padding=(10**6, 10**5), dilation=(3, 10**5)
    ),
    "more inputs than taps": ConvolutionGeometry((2,), (3 * 10**5,), stride=10**5),
}
LANES = {"float32": 16, "float64": 8}  # of the widest vectors; for narrower ones these sizes are edges too


def check(geometry, dtype, batch=1, workers=1):
    """Compare both directions with the loops in double precision, and with each other."""
    kernel, x, y = operands(geometry, dtype, batch)
    products = bound(engine, geometry, kernel, workers)
    out, back = np.full_like(y, np.nan), np.full_like(x, np.nan)
    products.forward(x, out)
    products.transpose(y, back)
    exact = np.result_type(dtype, np.float64)
    eps = (1e-5 if np.finfo(dtype).eps > 1e-10 else 1e-13) * np.abs(kernel).sum()
    np.testing.assert_allclose(out, forward(geometry, kernel.astype(exact), x), rtol=0, atol=eps * np.abs(x).max())
    np.testing.assert_allclose(back, transpose(geometry, kernel.astype(exact), y), rtol=0, atol=eps * np.abs(y).max())
    left, right = np.sum(out * y, dtype=exact), np.sum(x * back, dtype=exact)
    assert abs(left - right) <= eps * np.linalg.norm(x) * np.linalg.norm(y)


def random_geometry(rng):
    while True:
        n = int(rng.integers(1, 5))
        groups = int(rng.choice([1, 1, 2, 3]))
        inner, outer = (1, 1) if rng.random() < 0.3 else (int(rng.integers(1, 5)), int(rng.integers(1, 12)))
        kernel, stride, dilation = (tuple(map(int, rng.integers(1, 5 - (which > 0), n))) for which in range(3))
        pads = tuple(tuple(map(int, pair)) for pair in rng.integers(0, 4, (n, 2)))
        sizes = tuple(
            int(rng.integers(1, 2 + (d * (k - 1) + 40 if n < 3 else 8))) for k, d in zip(kernel, dilation, strict=True)
        )
        try:
            return ConvolutionGeometry(
                (outer * groups, inner, *kernel), (inner * groups, *sizes), stride=stride, padding=pads,
                dilation=dilation, groups=groups,
            )  # fmt: skip
        except ValueError:  # the kernel does not fit
            continue


@pytest.mark.parametrize("seed", range(300))
def test_random_geometries(seed, monkeypatch):
    if seed % 3 == 0:  # many strips, ranges of the rows, and segments of planes
        monkeypatch.setattr("convmat.engines._taps.sweeps.PACKED", 1000)
    rng = np.random.default_rng(seed)
    check(random_geometry(rng), DTYPES[seed % 4], batch=int(rng.choice([1, 2, 3])), workers=int(rng.choice([1, 2])))


SPECIAL = {
    "one of everything": ConvolutionGeometry((1,), (1,)),
    "one output": ConvolutionGeometry((3, 2, 5, 6), (2, 5, 6)),
    "one output of many taps": ConvolutionGeometry((40, 40), (40, 40), stride=40),
    "kernel as large as the padded input": ConvolutionGeometry((9, 7), (5, 4), padding=((2, 2), (0, 3))),
    "kernel larger than the input": ConvolutionGeometry((4, 2, 9), (2, 3), padding=20),
    "empty phases": ConvolutionGeometry((3, 2, 2, 1), (2, 17, 19), stride=(5, 3), padding=1),
    "outputs in the padding only": ConvolutionGeometry((3,), (2,), padding=9, stride=4),
    "huge dilation": ConvolutionGeometry((2, 2, 3), (2, 7), dilation=1_000_000, padding=1_000_000),
    "huge dilation of both axes": ConvolutionGeometry((2, 2, 3, 3), (2, 6, 7), dilation=300, padding=300),
    "huge dilation of another axis": ConvolutionGeometry((2, 2, 3, 3), (2, 900, 7), dilation=(400, 1), padding=(0, 1)),
    "huge stride": ConvolutionGeometry((1, 1, 6), (1, 100_000), stride=30_000),
    "stride as long as the kernel": ConvolutionGeometry((6, 3, 4, 4), (3, 16, 20), stride=4),
    "long kernel and stride": ConvolutionGeometry((10, 1, 32), (1, 500), stride=16),
    "asymmetric": ConvolutionGeometry((3, 2, 4, 2), (2, 8, 9), padding=((3, 0), (0, 2)), stride=(1, 2)),
    "depthwise": ConvolutionGeometry((5, 1, 5, 5), (5, 20, 32), padding=2, groups=5),
    "depthwise with stride": ConvolutionGeometry((5, 1, 4, 4), (5, 21, 33), padding=1, stride=2, groups=5),
    "depthwise with dilation": ConvolutionGeometry((5, 1, 3, 3), (5, 20, 33), padding=2, dilation=2, groups=5),
    "many groups": ConvolutionGeometry((6, 3, 3), (9, 50), groups=3),
    "pointwise": ConvolutionGeometry((17, 9, 1, 1), (9, 11, 13)),
    "pointwise with stride": ConvolutionGeometry((17, 9, 1, 1), (9, 11, 13), stride=2),
    "many channels": ConvolutionGeometry((96, 96, 3, 3), (96, 7, 7), padding=1),
    "five axes": ConvolutionGeometry((2, 2, 2, 1, 2, 2, 3), (2, 3, 2, 4, 3, 5), padding=1, stride=(1, 2, 1, 1, 2)),
    "axes of one": ConvolutionGeometry((3, 2, 3, 1, 1), (2, 30, 1, 1), padding=(1, 0, 0)),
    "kernel along one axis": ConvolutionGeometry((3, 2, 3, 1), (2, 12, 31), padding=(1, 0)),
    "transposed, outputs left out": ConvolutionGeometry.of_transposed(
        (3, 4, 3, 3), (3, 6, 7), stride=2, padding=1, dilation=3, output_padding=2
    ),
    "reads as many as there are, after padding": ConvolutionGeometry((2,), (300,), padding="same", dilation=599),
    "the same of the last of two axes": ConvolutionGeometry(
        (8, 8, 1, 3), (8, 12, 256), padding=((0, 0), (20, 120)), dilation=(1, 140)
    ),
    "transposed, as many as there are, after padding": ConvolutionGeometry.of_transposed(
        (3,), (32,), dilation=3, padding=1, output_padding=2
    ),
    "transposed, some read by nothing": ConvolutionGeometry.of_transposed(
        (2, 3, 2), (2, 9), stride=4, output_padding=3
    ),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_special_geometries(name, dtype):
    check(SPECIAL[name], dtype, batch=2)


@pytest.mark.parametrize("name", STRIDED)
def test_strides_beyond_all_else_need_no_tables_as_long(name):
    geometry = STRIDED[name]
    kernel, x, y = operands(geometry, "float64", batch=2)
    plan = engine.prepare(geometry, kernel.dtype, 2)
    for transposed in (False, True):
        assert sum(table.size for sweep in plan.direction(transposed).sweeps for table in sweep.tables) < 1000
    products = engine.bind(plan, kernel)
    out, back = np.full_like(y, np.nan), np.full_like(x, np.nan)
    products.forward(x, out)
    products.transpose(y, back)
    W = convolution_matrix(
        kernel if geometry.has_channels else kernel[0, 0], geometry.input_shape,
        stride=geometry.stride, padding=geometry.padding, dilation=geometry.dilation,
    )  # fmt: skip
    np.testing.assert_allclose(out.reshape(2, -1), (W @ x.reshape(2, -1).T).T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(back.reshape(2, -1), (W.T @ y.reshape(2, -1).T).T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", LANES)
def test_sizes_around_vectors_and_tiles(dtype):
    lanes = LANES[dtype]
    widths = {n + off for n in (lanes // 2, lanes, 3 * lanes, 4 * lanes, 12 * lanes) for off in (-1, 0, 1)} | {1, 2}
    for width in sorted(widths):
        check(ConvolutionGeometry((3,), (width,), padding=1), dtype)
        check(ConvolutionGeometry((3, 2, 1), (2, width)), dtype)
        check(ConvolutionGeometry((3, 3), (5, width), padding=1), dtype)


@pytest.mark.parametrize("channels", [*range(1, 10), 15, 16, 17, 23, 24, 25])
def test_rows_around_tiles(channels):
    check(ConvolutionGeometry((channels, 2, 3, 3), (2, 9, 21), padding=1), "float64")
    check(ConvolutionGeometry((channels, 2, 2, 3), (2, 9, 21), stride=2), "float32")


@pytest.mark.parametrize("channels", [64, 67, 100, 150])
def test_ranges_of_blocks_are_of_any_length(channels, monkeypatch):
    monkeypatch.setattr("convmat.engines._taps.sweeps.PACKED", 1000)
    geometry = ConvolutionGeometry((channels, 2, 3), (2, 40))
    (sweep,) = engine.prepare(geometry, np.dtype("float64"), 2).direction(False).sweeps
    assert sweep.tables.sizes["ranges"] == 8 <= sweep.blocks
    check(geometry, "float64", batch=2, workers=2)


@pytest.mark.parametrize("rows", range(1, 10))
@pytest.mark.parametrize("taps", range(1, 7))
def test_neighbouring_rows_of_single_channels(rows, taps):
    check(ConvolutionGeometry((taps, 3), (rows + taps - 1, 19)), "float32")
    check(ConvolutionGeometry((2, taps, 2), (3, rows + taps - 1, 8), stride=(1, 2, 1), padding=(1, 0, 0)), "float64")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", range(30))
def test_not_finite_values_reach_what_reads_them(seed, value):
    rng = np.random.default_rng(1000 + seed)
    geometry = random_geometry(rng)
    kernel, x, y = operands(geometry, "float64" if seed % 2 else "float32", batch=2)
    kernel = np.abs(kernel) + kernel.dtype.type(0.1)
    products = bound(engine, geometry, kernel)
    for product, oracle, source, out in (
        (products.forward, forward, x, np.empty_like(y)),
        (products.transpose, transpose, y, np.empty_like(x)),
    ):
        where = tuple(int(rng.integers(n)) for n in source.shape)
        source[where] = value
        marked = np.zeros_like(source)
        marked[where] = 1
        product(source, out)
        reached = oracle(geometry, np.ones_like(kernel), marked) > 0
        np.testing.assert_array_equal(out[reached], np.full(reached.sum(), value))
        assert np.isfinite(out[~reached]).all()
        product(marked, out)  # nothing is left of it in the memory that is used again
        assert np.isfinite(out).all()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_child():
    check(LARGE["taps"], "float32", workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
        child = multiprocessing.get_context("fork").Process(target=check, args=(LARGE["taps"], "float32", 1, 2))
        child.start()
    child.join(30)
    assert child.exitcode == 0


def test_refuses_what_is_no_float():
    assert "int32" in engine.refuses(LARGE["taps"], np.dtype("int32"))
    assert all(engine.refuses(LARGE["taps"], np.dtype(dtype)) is None for dtype in DTYPES)


def test_records_are_the_same_on_both_sides_of_the_compiled_call():
    """In numbers, names, order and offsets: the compiled call checks nothing of an array but the size of its elements."""
    from numba import types
    from numba.np.numpy_support import as_dtype

    *_, weights, scratch, sizes, offsets, counts, segments, source_lines, tiles, target_lines, classes = eval(
        SIGNATURES["run_tasks"].format("float32").removeprefix("void"), vars(types)
    )
    assert weights.dtype == scratch.dtype == types.float32
    assert {array.dtype for array in (offsets, counts, source_lines, target_lines)} == {types.int64}
    pairs = (sizes, tables.SIZES), (segments, tables.SEGMENT), (tiles, tables.TILE), (classes, tables.CLASS)
    for compiled, record in pairs:
        assert as_dtype(compiled.dtype).fields == record.fields
        assert as_dtype(compiled.dtype).itemsize == record.itemsize


PRODUCT = """
import numpy as np
from tests.engines import test_taps as t
from convmat.engines._compiled import simd
from convmat.engines._taps import loops as taploops
t.check(t.SPECIAL["asymmetric"], "float32")
t.check(t.SPECIAL["depthwise"], "float32")
stats = taploops.run_tasks.stats
print(simd.VECTOR_BYTES, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_code_is_cached_for_the_processor_it_was_compiled_for(tmp_path):
    """Narrower vectors are tested at the same time."""
    import platform

    here = {"NUMBA_CACHE_DIR": str(tmp_path)}
    width, *counts = map(int, python(PRODUCT, **here))
    assert counts == [0, 1]
    assert list(map(int, python(PRODUCT, **here))) == [width, 1, 0]
    if platform.machine() in {"x86_64", "AMD64"} and width >= 32:
        narrow, *counts = map(int, python(PRODUCT, **here, **older_processor(width)))
        assert narrow < width
        assert counts == [0, 1]


def guarded_cases():
    rng = np.random.default_rng(0)
    edges = [
        geometry
        for width in (1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 64, 97)
        for geometry in (
            ConvolutionGeometry((3,), (width,), padding=1),
            ConvolutionGeometry((5, 2, 1), (2, width)),
            ConvolutionGeometry((9, 2, 2), (2, width + 1), stride=2),
            ConvolutionGeometry((3, 3), (6, width), padding=1),
            ConvolutionGeometry((2, 2, 3, 2), (2, 6, width + 1)),
            ConvolutionGeometry((4, 1, 3, 3), (2, 5, width + 2), groups=2),
        )
    ]
    for number, geometry in enumerate([*edges, *(random_geometry(rng) for _ in range(100)), *SPECIAL.values()]):
        sweeps.PACKED = 1000 if number % 3 == 0 else 1 << 19
        yield geometry, DTYPES[number % 4], 1 + number % 2, number // 4 % 2 == 0


def guard_inner(direction, products, transposed, at_end):
    direction._scratch.give_back(guarded(np.full(direction._size, np.nan, direction.number), at_end))
    for sweep in direction.sweeps:
        object.__setattr__(sweep, "tables", tables.Tables(*(guarded(t, at_end) if t.size else t for t in sweep.tables)))
    products._weights._made[transposed] = [guarded(w, at_end) for w in products._packed(transposed)]
