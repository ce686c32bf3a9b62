"""The engine `winograd` against loops over the taps; and its compiled loops at the edges of what they may touch."""

import numpy as np
import pytest

pytest.importorskip("numba")

from convmat.engines._base import Machine
from convmat.engines._winograd import winograd
from convmat.engines._winograd.winograd import engine
from convmat.geometry import ConvolutionGeometry
from tests.engines.compiled import LARGE, bound, forward, guarded, operands, transpose
from tests.processes import python

DTYPES = ["float32", "float64"]
EPS = {"float32": 1e-5, "float64": 1e-12}


def geometry_of(outer, inner, height, width, padding=1, groups=1):
    kernel, shape = (outer * groups, inner, 3, 3), (inner * groups, height, width)
    return ConvolutionGeometry(kernel, shape, padding=padding, groups=groups)


def check(geometry, dtype, batch=1, workers=1):
    """Compare both directions with the loops in double precision, and with each other."""
    kernel, x, y = operands(geometry, dtype, batch)
    assert engine.refuses(geometry, kernel.dtype) is None
    products = bound(engine, geometry, kernel, workers)
    out, back = np.full_like(y, np.nan), np.full_like(x, np.nan)
    products.forward(x, out)
    products.transpose(y, back)
    exact = kernel.astype(np.float64)
    split = np.abs(exact).reshape(geometry.groups, -1, *kernel.shape[1:])
    rows, columns = split.sum((2, 3, 4)).max(), split.sum((1, 3, 4)).max()
    eps = EPS[dtype]
    np.testing.assert_allclose(out, forward(geometry, exact, x), rtol=0, atol=eps * rows * np.abs(x).max())
    np.testing.assert_allclose(back, transpose(geometry, exact, y), rtol=0, atol=eps * columns * np.abs(y).max())
    left, right = np.sum(out * y, dtype=np.float64), np.sum(x * back, dtype=np.float64)
    norms = np.linalg.norm(out) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(back)
    assert abs(left - right) <= eps * norms


# As the engine's docstring has them.
B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def test_transforms_give_four_results():
    d, k = (np.random.default_rng(seed).integers(-9, 9, shape) for seed, shape in enumerate([(4, 4), (3, 3)]))
    results = A_T @ ((G @ k @ G.T) * (B_T @ d @ B_T.T)) @ A_T.T
    expected = [[np.sum(d[i : i + 3, j : j + 3] * k) for j in range(2)] for i in range(2)]
    np.testing.assert_array_equal(results, expected)


@pytest.mark.parametrize("rows", [4, 8])
def test_weights_are_transformed_kernels_in_blocks_of_rows(rows):
    groups, results, sources = 2, 11, 3
    kernel = np.random.default_rng(0).standard_normal((groups, results, sources, 3, 3))
    blocks = -(-results // rows)
    packed = winograd._pack(kernel, rows).reshape(groups, 16, blocks, sources, rows)
    unpacked = packed.swapaxes(3, 4).reshape(groups, 4, 4, blocks * rows, sources)
    expected = np.einsum("ia,grsab,jb->gijrs", G, kernel, G)
    np.testing.assert_allclose(unpacked[:, :, :, :results], expected, atol=1e-15)
    assert not unpacked[:, :, :, results:].any()


@pytest.mark.parametrize("n", range(1, 21))
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_around_tiles(n, dtype):
    for height, width in ((n, n), (1, n), (n, 21 - n)):
        check(geometry_of(9, 8, height, width), dtype, batch=1 + n % 3)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize(("dtype", "lanes"), [("float32", 16), ("float64", 8)])
def test_sizes_around_vectors(vectors, dtype, lanes):
    for off in range(-3, 4):
        check(geometry_of(8, 8, 5, 2 * vectors * lanes + off), dtype)
        check(geometry_of(8, 8, vectors * lanes + off, 3, padding=0), dtype, batch=2)


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("dtype", DTYPES)
def test_asymmetric_padding(before, after, dtype):
    for height, width in ((5, 6), (3, 17)):
        padding = ((before, after), (after, 3 - before))
        check(geometry_of(8, 10, height, width, padding), dtype, batch=3)


def test_padding_larger_than_the_input():
    check(geometry_of(8, 8, 1, 2, padding=((9, 0), (7, 40))), "float32")
    check(geometry_of(8, 8, 2, 1, padding=((0, 11), (50, 3))), "float64", batch=2)


@pytest.mark.parametrize("channels", [8, 9, 15, 16, 17, 23, 25, 63, 64, 65, 130])
def test_channels_around_tiles(channels):
    check(geometry_of(channels, 8, 5, 7), "float32")
    check(geometry_of(11, channels, 4, 9), "float64")


@pytest.mark.parametrize("seed", range(60))
def test_random_geometries(seed, monkeypatch):
    if seed % 2:  # tasks that begin and end anywhere in a row
        monkeypatch.setattr(winograd, "_CACHE", 1000)
        monkeypatch.setattr(winograd, "_SERIAL", 0)
    rng = np.random.default_rng(seed)
    pads = tuple(tuple(map(int, pair)) for pair in rng.integers(0, 5, (2, 2)))
    height, width, outer, inner = map(int, (*rng.integers(3, 60, 2), *rng.integers(8, 30, 2)))
    geometry = geometry_of(outer, inner, height, width, pads, int(rng.integers(1, 4)))
    check(geometry, DTYPES[seed // 2 % 2], batch=1 + seed % 3, workers=1 + seed % 2)


@pytest.mark.parametrize("workers", [2, 3, 8, 64])
def test_more_threads_than_vectors_of_tiles(workers, monkeypatch):
    monkeypatch.setattr(winograd, "_SERIAL", 0)
    check(geometry_of(70, 9, 3, 5), "float32", workers=workers)
    check(geometry_of(9, 17, 6, 7, groups=2), "float64", batch=2, workers=workers)


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_are_those_of_a_direct_sum(dtype):
    geometry = geometry_of(64, 64, 20, 20)
    kernel, x, y = operands(geometry, dtype)
    products = bound(engine, geometry, kernel)
    wide = np.longdouble if dtype == "float64" else np.float64
    for product, oracle, source, out in ((products.forward, forward, x, y), (products.transpose, transpose, y, x)):
        product(source, out := np.empty_like(out))
        exact = oracle(geometry, kernel.astype(wide), source)
        assert np.linalg.norm((out - exact).ravel()) < 4 * np.finfo(dtype).eps * np.linalg.norm(exact.ravel())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", range(12))
def test_not_finite_values_reach_what_reads_them(seed, value):
    rng = np.random.default_rng(seed)
    pads = tuple(tuple(map(int, pair)) for pair in rng.integers(0, 4, (2, 2)))
    geometry = geometry_of(9, 8, *map(int, rng.integers(3, 40, 2)), pads, groups=2)
    kernel, x, y = operands(geometry, DTYPES[seed % 2], batch=2)
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
        np.testing.assert_array_equal(~np.isfinite(out), reached)
        if np.isnan(value):
            assert np.isnan(out[reached]).all()
        product(marked, out)  # nothing is left of it in the memory that is used again
        assert np.isfinite(out).all()


@pytest.mark.parametrize("workers", [1, 2, 64])
@pytest.mark.parametrize("channels", [8, 64, 256, 1024, 32768])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scratch_memory_is_bounded(channels, workers, dtype):
    plan = engine.prepare(geometry_of(8, channels, 14, 14), np.dtype(dtype), workers)
    for transposed in (False, True):
        direction = plan.direction(transposed)
        assert direction.workers * direction.scratch * direction.dtype.itemsize <= 48 << 20
        assert direction.workers >= min(2, workers) or channels > 8192


@pytest.mark.parametrize("cache", [1000, 30_000, 700 << 10])
@pytest.mark.parametrize("channels", [8, 16, 24, 64, 100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scratch_memory_has_room_for_all_vectors_wherever_it_begins(channels, cache, dtype, monkeypatch):
    """A vector of the last row of results may begin at its last tile, and the first may begin after a part of a vector."""
    monkeypatch.setattr(winograd, "_CACHE", cache)
    plan = engine.prepare(geometry_of(channels, 8, 14, 14), np.dtype(dtype), 1)
    for transposed in (False, True):
        direction = plan.direction(transposed)
        _, sources, _, rows, _, most_blocks, length, source_distance, result_distance = direction.tables[0][:9].tolist()
        lanes, tiles = direction.lanes, direction.vectors * direction.lanes
        sources_end = (sources - 1) * length + tiles + lanes - 1
        results_end = (most_blocks * rows - 1) * length + tiles + lanes - 1
        assert sources_end <= source_distance
        assert results_end <= result_distance
        assert lanes - 1 + 16 * source_distance + 15 * result_distance + results_end <= direction.scratch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_estimate_is_below_a_direct_sum(dtype, transposed):
    geometry = LARGE["winograd"]
    assert engine.estimate(geometry, np.dtype(dtype), 8, transposed, Machine()).flops < 8 * geometry.flops


@pytest.mark.parametrize(
    ("geometry", "dtype", "word"),
    [
        (LARGE["winograd"], "complex64", "complex64"),
        (LARGE["winograd"], "int32", "int32"),
        (ConvolutionGeometry((8, 8, 3), (8, 9)), "float32", "got 3"),
        (ConvolutionGeometry((8, 8, 5, 3), (8, 9, 9)), "float32", "5 × 3"),
        (ConvolutionGeometry((8, 8, 3, 3), (8, 9, 9), stride=2), "float32", "(2, 2)"),
        (ConvolutionGeometry((8, 8, 3, 3), (8, 9, 9), dilation=(1, 2)), "float32", "(1, 2)"),
        (ConvolutionGeometry((3, 3), (9, 9)), "float32", "(1, 1)"),
        (ConvolutionGeometry((16, 4, 3, 3), (8, 9, 9), groups=2), "float32", "(4, 8)"),
        (ConvolutionGeometry((14, 8, 3, 3), (16, 9, 9), groups=2), "float64", "(8, 7)"),
    ],
)
def test_refuses(geometry, dtype, word):
    assert word in engine.refuses(geometry, np.dtype(dtype))


PRODUCT = """
import numpy as np
from tests.engines import test_winograd as t
from convmat.engines._compiled import simd
from convmat.engines._winograd import loops as winoloops
for size in range(1, 40, 3):
    t.check(t.geometry_of(19, 8, 5, size, ((1, 2), (3, 0))), "float32", batch=2)
stats = winoloops.run_tasks.stats
print(simd.VECTOR_BYTES, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_code_is_cached_for_the_processor_it_was_compiled_for(tmp_path):
    """Narrower vectors are tested at the same time."""
    import platform

    here = {"NUMBA_CACHE_DIR": str(tmp_path)}
    width, *counts = map(int, python(PRODUCT, **here))
    assert counts == [0, 1]
    assert list(map(int, python(PRODUCT, **here))) == [width, 1, 0]
    if platform.machine() in {"x86_64", "AMD64"}:
        features = {"haswell": "+avx,+avx2,+fma", "x86-64": "+sse2"}
        for processor, least in (("haswell", 64), ("x86-64", 32)):
            if width >= least:
                older = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features[processor]}
                narrow, *counts = map(int, python(PRODUCT, **here, **older))
                assert narrow < width
                assert counts == [0, 1]


def guarded_cases():
    rng = np.random.default_rng(0)
    cases = []
    for width in (1, 2, 3, 5, 7, 8, 14, 15, 16, 17, 18, 28, 31, 32, 33, 34, 47, 49, 64, 65):
        height, channels = int(rng.integers(1, 20)), 8 + width % 9
        pads = tuple(tuple(map(int, pair)) for pair in rng.integers(0, 4, (2, 2)))
        cases += [
            geometry_of(channels, 8, height, width),
            geometry_of(8, channels, height + 2, width + 2, 0, 2),
            geometry_of(8, 9, height + 2, width + 2, pads),
        ]
    for number, geometry in enumerate(cases):
        winograd._CACHE = 1000 if number % 2 else 1 << 19
        yield geometry, DTYPES[number // 2 % 2], 1 + number % 2, number // 4 % 2 == 0


def guard_inner(direction, products, transposed, at_end):
    direction._scratch.give_back(guarded(np.full(direction.scratch, np.nan, direction.dtype), at_end))
    direction.tables = tuple(guarded(table, at_end) for table in direction.tables)
    products._weights._made[transposed] = guarded(products._transformed(transposed), at_end)
