"""The engines `winograd` and `winograd4` against loops over the taps; and at the edges of what they may touch."""

import numpy as np
import pytest

pytest.importorskip("numba")

from convmat import Convolution
from convmat.engines import ENGINES as ALL
from convmat.engines._base import Machine
from convmat.engines._winograd import matrices, winograd
from convmat.geometry import ConvolutionGeometry
from tests.engines.compiled import LARGE, bound, forward, guarded, older_processor, operands, transpose
from tests.processes import python

ENGINES = {name: ALL[name] for name in ("winograd", "winograd4")}
DTYPES = ["float32", "float64"]
TAKEN = [(name, dtype) for name in ENGINES for dtype in DTYPES if (name, dtype) != ("winograd4", "float32")]
EPS = {"float32": 1e-5, "float64": 1e-12}


def geometry_of(outer, inner, height, width, padding=1, groups=1):
    kernel, shape = (outer * groups, inner, 3, 3), (inner * groups, height, width)
    return ConvolutionGeometry(kernel, shape, padding=padding, groups=groups)


def check(geometry, dtype, batch=1, workers=1):
    """Compare both directions of the engines for a dtype with the loops in double precision, and with each other."""
    for name, taken in TAKEN:
        if taken == dtype:
            check_engine(ENGINES[name], geometry, dtype, batch, workers)


def check_engine(engine, geometry, dtype, batch, workers):
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


a, b = 11 / 16, 3 / 2
# Bᵀ and Aᵀ as the transforms compute them; those of 2 × 2 are in the engine's docstring.
B_T = {
    2: np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    4: np.array(
        [
            [(a * b) ** 2, 0, -(a**2) - b**2, 0, 1, 0],
            [0, -a * b**2, -(b**2), a, 1, 0],
            [0, a * b**2, -(b**2), -a, 1, 0],
            [0, -(a**2) * b, -(a**2), b, 1, 0],
            [0, a**2 * b, -(a**2), -b, 1, 0],
            [0, (a * b) ** 2, 0, -(a**2) - b**2, 0, 1],
        ]
    ),
}
A_T = {
    2: np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
    4: np.array(
        [
            [1, 1, 1, 1, 1, 0],
            [0, a, -a, b, -b, 0],
            [0, a**2, a**2, b**2, b**2, 0],
            [0, a**3, -(a**3), b**3, -(b**3), 1],
        ]
    ),
}


@pytest.mark.parametrize("edge", [2, 4])
def test_transforms_give_a_tile_of_results(edge):
    rng = np.random.default_rng(0)
    d, k = (rng.integers(-9, 9, (side, side)) for side in (edge + 2, 3))
    G = matrices.KERNEL[edge]
    results = A_T[edge] @ ((G @ k @ G.T) * (B_T[edge] @ d @ B_T[edge].T)) @ A_T[edge].T
    expected = [[np.sum(d[i : i + 3, j : j + 3] * k) for j in range(edge)] for i in range(edge)]
    np.testing.assert_allclose(results, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_meet_data_are_exact(dtype):
    for matrix in (*B_T.values(), *A_T.values()):
        np.testing.assert_array_equal(matrix.astype(dtype), matrix)


@pytest.mark.parametrize("edge", [2, 4])
@pytest.mark.parametrize("rows", [4, 8])
def test_weights_are_transformed_kernels_in_blocks_of_rows(rows, edge):
    groups, results, sources, side, G = 2, 11, 3, edge + 2, matrices.KERNEL[edge]
    kernel = np.random.default_rng(0).standard_normal((groups, results, sources, 3, 3))
    blocks = -(-results // rows)
    packed = winograd._pack(kernel, rows, edge).reshape(groups, side**2, blocks, sources, rows)
    unpacked = packed.swapaxes(3, 4).reshape(groups, side, side, blocks * rows, sources)
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
        for edge in (2, 4):
            check(geometry_of(8, 8, 5, edge * vectors * lanes + off), dtype)
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


@pytest.mark.parametrize(("name", "dtype"), TAKEN)
def test_errors_are_few_times_those_of_a_direct_sum(name, dtype):
    most = {"winograd": 4, "winograd4": 16}[name]
    geometry = geometry_of(64, 64, 20, 20)
    kernel, x, y = operands(geometry, dtype)
    products = bound(ENGINES[name], geometry, kernel)
    wide = np.longdouble if dtype == "float64" else np.float64
    for multiply, oracle, source, out in ((products.forward, forward, x, y), (products.transpose, transpose, y, x)):
        multiply(source, out := np.empty_like(out))
        exact = oracle(geometry, kernel.astype(wide), source)
        assert np.linalg.norm((out - exact).ravel()) < most * np.finfo(dtype).eps * np.linalg.norm(exact.ravel())


def signs(row):
    return np.where(row < 0, -1.0, 1.0)


def aligned(edge, t, size):
    """Return a kernel and a source with the signs of a product's rows of G and Bᵀ, in each tile behind a padding of 1."""
    rows = divmod(t, edge + 2)
    kernel = np.multiply.outer(*(signs(matrices.KERNEL[edge][row]) for row in rows))
    lines = [signs(B_T[edge][row])[(np.arange(size) + 1) % edge] for row in rows]
    return kernel, np.multiply.outer(*lines)


def alike(edge, size):
    """Yield kernels and sources of one channel, which errors of sums add up for if all channels are the same."""
    rng = np.random.default_rng(0)
    for t in range((edge + 2) ** 2):
        for scales in ((1, 1), (0.7, 0.9), (1.3, 0.6)):
            yield tuple(scale * values for scale, values in zip(scales, aligned(edge, t, size), strict=True))
    for _ in range(20):
        yield rng.random((3, 3)), rng.random((size, size))


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "most"),
    [
        ("winograd", "float32", 64, 0.5),
        ("winograd", "float64", 1024, 0.5),
        ("winograd4", "float64", 64, 0.1),
        ("winograd4", "float64", 1024, 0.6),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_sums_of_terms_that_are_all_alike_are_within_the_contract(name, dtype, channels, most, transposed):
    """The contract is 1e-5 or 1e-12 of ‖W‖∞‖x‖∞."""
    size, few, engine = 12, 8, ENGINES[name]
    geometry = geometry_of(channels, few, size, size) if transposed else geometry_of(few, channels, size, size)
    assert engine.refuses(geometry, np.dtype(dtype)) is None
    for k, s in alike(engine.edge, size):
        k, s = k.astype(dtype), s.astype(dtype)
        kernel, source = np.empty(geometry.kernel_shape, dtype), np.empty((1, channels, size, size), dtype)
        kernel[...], source[...] = k, s
        products, out = bound(engine, geometry, kernel), np.empty((1, few, size, size), dtype)
        (products.transpose if transposed else products.forward)(source, out)
        one, wide = geometry_of(1, 1, size, size), k.astype(np.longdouble)[None, None]
        exact = channels * (transpose if transposed else forward)(one, wide, s.astype(np.longdouble)[None, None])
        norm = channels * np.abs(wide).sum() * np.abs(s).max()
        assert np.abs(out - exact).max() <= most * EPS[dtype] * norm


def test_four_by_four_tiles_are_refused_where_errors_of_sums_add_up():
    engine, narrow = ENGINES["winograd4"], geometry_of(8, 8, 14, 14)
    assert "float64, got float32" in engine.refuses(narrow, np.dtype("f"))
    assert engine.all_code(np.dtype("f")) == []
    for geometry in (geometry_of(8, 1025, 14, 14), geometry_of(1025, 8, 14, 14)):
        assert "to 1024 channels" in engine.refuses(geometry, np.dtype("d"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ENGINES)
def test_not_finite_values_reach_what_reads_them(name, seed, value):
    rng = np.random.default_rng(seed)
    pads = tuple(tuple(map(int, pair)) for pair in rng.integers(0, 4, (2, 2)))
    geometry = geometry_of(9, 8, *map(int, rng.integers(3, 40, 2)), pads, groups=2)
    kernel, x, y = operands(geometry, "float64" if name == "winograd4" else DTYPES[seed % 2], batch=2)
    kernel = np.abs(kernel) + kernel.dtype.type(0.1)
    products = bound(ENGINES[name], geometry, kernel)
    for multiply, oracle, source, out in (
        (products.forward, forward, x, np.empty_like(y)),
        (products.transpose, transpose, y, np.empty_like(x)),
    ):
        where = tuple(int(rng.integers(n)) for n in source.shape)
        source[where] = value
        marked = np.zeros_like(source)
        marked[where] = 1
        multiply(source, out)
        reached = oracle(geometry, np.ones_like(kernel), marked) > 0
        if ENGINES[name].local:
            np.testing.assert_array_equal(~np.isfinite(out), reached)
        assert not np.isfinite(out[reached]).any()
        if np.isnan(value):
            assert np.isnan(out[reached]).all()
        multiply(marked, out)  # nothing is left of it in the memory that is used again
        assert np.isfinite(out).all()


@pytest.mark.parametrize("workers", [1, 2, 64])
@pytest.mark.parametrize("channels", [8, 64, 256, 1024, 32768])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENGINES)
def test_scratch_memory_is_bounded(channels, workers, dtype, name):
    engine, geometry = ENGINES[name], geometry_of(8, channels, 14, 14)
    if engine.refuses(geometry, np.dtype(dtype)) is not None:
        assert name == "winograd4"
        assert dtype == "float32" or channels > 1024
        return
    plan = engine.prepare(geometry, np.dtype(dtype), workers)
    for transposed in (False, True):
        direction = plan.direction(transposed)
        assert direction.workers * direction.scratch * direction.dtype.itemsize <= 48 << 20
        assert direction.workers >= min(2, workers) or channels > 8192


@pytest.mark.parametrize("cache", [1000, 30_000, 700 << 10])
@pytest.mark.parametrize("channels", [8, 16, 24, 64, 100])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENGINES)
def test_scratch_memory_has_room_for_all_vectors_wherever_it_begins(channels, cache, dtype, name, monkeypatch):
    """A vector of the last row of results may begin at its last tile, and the first may begin after a part of a vector."""
    monkeypatch.setattr(winograd, "_CACHE", cache)
    plan = ENGINES[name].prepare(geometry_of(channels, 8, 14, 14), np.dtype(dtype), 1)
    count = (ENGINES[name].edge + 2) ** 2
    for transposed in (False, True):
        direction = plan.direction(transposed)
        _, sources, _, rows, _, most_blocks, length, source_distance, result_distance = direction.tables[0][:9].tolist()
        lanes, tiles = direction.lanes, direction.vectors * direction.lanes
        sources_end = (sources - 1) * length + tiles + lanes - 1
        results_end = (most_blocks * rows - 1) * length + tiles + lanes - 1
        assert sources_end <= source_distance
        assert results_end <= result_distance
        assert lanes - 1 + count * source_distance + (count - 1) * result_distance + results_end <= direction.scratch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_estimate_is_below_a_direct_sum(dtype, transposed):
    geometry = LARGE["winograd"]
    small, large = (
        engine.estimate(geometry, np.dtype(dtype), 8, transposed, Machine()).flops for engine in ENGINES.values()
    )
    assert large < small < 8 * geometry.flops


@pytest.mark.parametrize(
    ("geometry", "dtype", "word"),
    [
        (LARGE["winograd"], "complex64", "complex64"),
        (LARGE["winograd"], "int32", "int32"),
        (ConvolutionGeometry((8, 8, 3), (8, 9)), "float64", "got 3"),
        (ConvolutionGeometry((8, 8, 5, 3), (8, 9, 9)), "float64", "5 × 3"),
        (ConvolutionGeometry((8, 8, 3, 3), (8, 9, 9), stride=2), "float64", "(2, 2)"),
        (ConvolutionGeometry((8, 8, 3, 3), (8, 9, 9), dilation=(1, 2)), "float64", "(1, 2)"),
        (ConvolutionGeometry((3, 3), (9, 9)), "float64", "(1, 1)"),
        (ConvolutionGeometry((16, 4, 3, 3), (8, 9, 9), groups=2), "float64", "(4, 8)"),
        (ConvolutionGeometry((14, 8, 3, 3), (16, 9, 9), groups=2), "float64", "(8, 7)"),
    ],
)
def test_refuses(geometry, dtype, word):
    for engine in ENGINES.values():
        assert word in engine.refuses(geometry, np.dtype(dtype))


PRODUCT = """
import numpy as np
from tests.engines import test_winograd as t
from convmat.engines._compiled import simd
from convmat.engines._winograd import loops as winoloops
for size in (1, 5, 13, 16, 34):
    t.check(t.geometry_of(19, 8, 5, size, ((1, 2), (3, 0))), "float64", batch=2)
stats = [loop.stats for loop in (winoloops.run_tasks_of_2, winoloops.run_tasks_of_4)]
hits, misses = (sum(sum(counts.values()) for counts in each) for each in list(zip(*stats))[1:])
print(simd.VECTOR_BYTES, hits, misses)
"""


def test_code_is_cached_for_the_processor_it_was_compiled_for(tmp_path):
    """Narrower vectors are tested at the same time."""
    import platform

    here = {"NUMBA_CACHE_DIR": str(tmp_path)}
    width, *counts = map(int, python(PRODUCT, **here))
    assert counts == [0, 2]
    assert list(map(int, python(PRODUCT, **here))) == [width, 2, 0]
    if platform.machine() in {"x86_64", "AMD64"} and width >= 32:
        narrow, *counts = map(int, python(PRODUCT, **here, **older_processor(width)))
        assert narrow < width
        assert counts == [0, 2]


def guarded_cases():
    rng = np.random.default_rng(0)
    cases = []
    for width in (1, 2, 3, 5, 7, 8, 14, 15, 16, 17, 18, 28, 31, 32, 33, 34, 47, 49, 64, 65, 66, 67, 98, 130):
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


def test_a_kernel_in_single_precision_multiplies_arrays_in_double():
    kernel = np.random.default_rng(4).standard_normal((8, 8, 3, 3)).astype("float32")
    A, x = Convolution(kernel, (8, 9, 9), engine="winograd4"), np.random.default_rng(5).standard_normal((8, 9, 9))
    np.testing.assert_allclose(A.apply(x).ravel(), A.tocsr().astype("float64") @ x.ravel(), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="cannot do this product: it computes float64, got float32"):
        A.apply(x.astype("float32"))
