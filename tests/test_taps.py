"""The engine `taps` against loops over the taps; and its compiled loops at the edges of what they may touch."""

import itertools
import multiprocessing
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_imports import python

from convmat.geometry import ConvolutionGeometry

pytest.importorskip("numba")

from convmat.engines import sweeps
from convmat.engines.taps import TapsPlan, engine

DTYPES = ["float32", "float64", "complex64", "complex128"]
LANES = {"float32": 16, "float64": 8}  # of the widest vectors; for narrower ones these sizes are edges too


def slices(geometry, taps):
    """What a tap reads in the padded input."""
    return tuple(
        slice(tap * axis.dilation, tap * axis.dilation + (axis.outputs - 1) * axis.stride + 1, axis.stride)
        for tap, axis in zip(taps, geometry.axes, strict=True)
    )


def padding(geometry):
    return [(0, 0), (0, 0), *((axis.before, max(axis.after, axis.overrun)) for axis in geometry.axes)]


def forward(geometry, kernel, x):
    padded = np.pad(x, padding(geometry))
    split = (len(x), geometry.groups, geometry.in_channels // geometry.groups, -1)
    out = np.zeros((len(x), geometry.out_channels, *geometry.spatial_output), np.result_type(x, kernel))
    for taps in itertools.product(*map(range, geometry.spatial_kernel)):
        read = padded[(..., *slices(geometry, taps))].reshape(split)
        weights = kernel[(slice(None), slice(None), *taps)].reshape(geometry.groups, -1, split[2])
        out += np.einsum("goc,bgcp->bgop", weights, read).reshape(out.shape)
    return out


def transpose(geometry, kernel, y):
    widths = padding(geometry)[2:]
    sizes = [axis.size + sum(pair) for axis, pair in zip(geometry.axes, widths, strict=True)]
    padded = np.zeros((len(y), geometry.in_channels, *sizes), np.result_type(y, kernel))
    split = (len(y), geometry.groups, geometry.out_channels // geometry.groups, -1)
    for taps in itertools.product(*map(range, geometry.spatial_kernel)):
        weights = kernel[(slice(None), slice(None), *taps)].reshape(geometry.groups, split[2], -1)
        written = padded[(..., *slices(geometry, taps))]
        written += np.einsum("goc,bgop->bgcp", weights, y.reshape(split)).reshape(written.shape)
    inner = tuple(slice(before, before + axis.size) for axis, (before, _) in zip(geometry.axes, widths, strict=True))
    return padded[(..., *inner)]


def random_array(rng, shape, dtype):
    value = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        value = value + 1j * rng.standard_normal(shape)
    return np.ascontiguousarray(value.astype(dtype))


def kernel_shape(geometry):
    return geometry.kernel_shape if geometry.has_channels else (1, 1, *geometry.kernel_shape)


def operands(geometry, dtype, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    return (
        random_array(rng, kernel_shape(geometry), dtype),
        random_array(rng, (batch, geometry.in_channels, *geometry.spatial_input), dtype),
        random_array(rng, (batch, geometry.out_channels, *geometry.spatial_output), dtype),
    )


def bound(geometry, kernel, workers=1):
    return engine.bind(engine.prepare(geometry, kernel.dtype, workers), kernel)


def check(geometry, dtype, batch=1, workers=1):
    """Compare both directions with the loops in double precision, and with each other."""
    kernel, x, y = operands(geometry, dtype, batch)
    products = bound(geometry, kernel, workers)
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
    if seed % 3 == 0:  # many strips, shares of the rows, and pieces of planes
        monkeypatch.setattr("convmat.engines.sweeps.PACKED", 1000)
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
    "transposed, some read by nothing": ConvolutionGeometry.of_transposed(
        (2, 3, 2), (2, 9), stride=4, output_padding=3
    ),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_special_geometries(name, dtype):
    check(SPECIAL[name], dtype, batch=2)


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


@pytest.mark.parametrize("rows", range(1, 10))
@pytest.mark.parametrize("taps", range(1, 7))
def test_neighbouring_rows_of_single_channels(rows, taps):
    check(ConvolutionGeometry((taps, 3), (rows + taps - 1, 19)), "float32")
    check(ConvolutionGeometry((2, taps, 2), (3, rows + taps - 1, 8), stride=(1, 2, 1), padding=(1, 0, 0)), "float64")


def test_no_product_of_an_empty_batch():
    geometry = SPECIAL["many groups"]
    kernel, x, y = operands(geometry, "float32", batch=0)
    products = bound(geometry, kernel)
    products.forward(x, y)
    products.transpose(y, x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", range(30))
def test_not_finite_values_reach_what_reads_them(seed, value):
    rng = np.random.default_rng(1000 + seed)
    geometry = random_geometry(rng)
    kernel, x, y = operands(geometry, "float64" if seed % 2 else "float32", batch=2)
    kernel = np.abs(kernel) + kernel.dtype.type(0.1)
    products = bound(geometry, kernel)
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


def test_inputs_may_be_read_only_and_are_not_modified():
    geometry = SPECIAL["asymmetric"]
    kernel, x, y = operands(geometry, "float32")
    copies = kernel.copy(), x.copy(), y.copy()
    for array in (kernel, x, y):
        array.flags.writeable = False
    products = bound(geometry, kernel)
    products.forward(x, np.empty_like(y))
    products.transpose(y, np.empty_like(x))
    for array, copy in zip((kernel, x, y), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


LARGE = ConvolutionGeometry((24, 24, 3, 3), (24, 60, 61), padding=1, stride=(1, 2))


def test_eight_threads_share_one_bound_object():
    kernel, *_ = operands(LARGE, "float32")
    products = bound(LARGE, kernel, workers=2)

    def work(seed):
        _, x, y = operands(LARGE, "float32", seed=seed)
        out, back = np.empty_like(y), np.empty_like(x)
        products.forward(x, out)
        products.transpose(y, back)
        return out, back

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, range(24)))
    for seed, results in enumerate(together):
        for result, expected in zip(results, work(seed), strict=True):
            np.testing.assert_array_equal(result, expected)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_child():
    check(LARGE, "float32", workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
        child = multiprocessing.get_context("fork").Process(target=check, args=(LARGE, "float32", 1, 2))
        child.start()
    child.join(30)
    assert child.exitcode == 0


def test_plan_is_shared_between_kernels():
    plan = engine.prepare(LARGE, np.dtype("float64"), 1)
    assert isinstance(plan, TapsPlan)
    for seed in range(2):
        kernel, x, y = operands(LARGE, "float64", seed=seed)
        out = np.empty_like(y)
        engine.bind(plan, kernel).forward(x, out)
        np.testing.assert_allclose(out, forward(LARGE, kernel, x), rtol=0, atol=1e-11)
    assert plan.direction(False) is plan.direction(False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_estimate_grows_with_the_batch(dtype, transposed):
    from convmat.engines.base import Machine

    one, eight = (engine.estimate(LARGE, np.dtype(dtype), batch, transposed, Machine()) for batch in (1, 8))
    assert 0 < one.seconds < eight.seconds
    assert 0 < one.flops < eight.flops
    assert 0 < one.bytes < eight.bytes
    assert one.state == eight.state > 0


def test_refuses_what_is_no_float():
    assert "int32" in engine.refuses(LARGE, np.dtype("int32"))
    assert all(engine.refuses(LARGE, np.dtype(dtype)) is None for dtype in DTYPES)


def test_names_the_extra_where_numba_is_missing():
    printed = python(
        "import sys; sys.modules['numba'] = None\n"
        "import numpy, convmat\nfrom convmat.engines.taps import engine\n"
        "print(engine.refuses(convmat.ConvolutionGeometry((3,), (4,)), numpy.dtype('d')))"
    )
    assert 'pip install "convmat[fast]"' in " ".join(printed)


def test_numba_is_imported_late():
    assert python("import sys, convmat, convmat.engines.taps\nprint('numba' in sys.modules)") == ["False"]


PRODUCT = """
import numpy as np, test_taps as t
from convmat.engines import simd, taploops
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
        older = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"} if width > 32 else {}
        older = older or {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
        narrow, *counts = map(int, python(PRODUCT, **here, **older))
        assert narrow < width
        assert counts == [0, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs mmap with protection")
def test_nothing_outside_the_buffers_is_touched():
    """Every buffer begins or ends at a page that must not be touched; a violation kills the process."""
    assert python("import test_taps; test_taps.check_guarded()") == ["done"]


def guarded(array, at_end):
    """Copy an array to memory that begins or ends at a page that cannot be read or written."""
    import ctypes
    import mmap

    page, size = mmap.PAGESIZE, array.nbytes
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    libc, start = ctypes.CDLL(None), ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for border in (start, start + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(border), page, 0) == 0
    offset = page + (pages * page - size if at_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


def check_guarded():
    """Compute products in guarded buffers: operands, results, packed kernels and scratch memory."""
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
    cases = [*edges, *(random_geometry(rng) for _ in range(100)), *SPECIAL.values()]
    for number, geometry in enumerate(cases):
        sweeps.PACKED = 1000 if number % 3 == 0 else 1 << 19
        dtype, at_end = DTYPES[number % 4], number // 4 % 2 == 0
        kernel, x, y = operands(geometry, dtype, batch=1 + number % 2)
        for transposed, source, result in ((False, x, y), (True, y, x)):
            plan = engine.prepare(geometry, kernel.dtype, 1)
            products = engine.bind(plan, kernel)
            direction = plan.direction(transposed)
            scratch = np.full(direction._size, np.nan, direction.number)
            direction._scratch.give_back(guarded(scratch, at_end))
            for sweep in direction.sweeps:
                object.__setattr__(sweep, "tables", tuple(guarded(t, at_end) if t.size else t for t in sweep.tables))
            products._weights._made[transposed] = [guarded(w, at_end) for w in products._packed(transposed)]
            out = guarded(np.full_like(result, np.nan), at_end)
            (products.transpose if transposed else products.forward)(guarded(source, at_end), out)
            assert not np.isnan(out).any(), (geometry, dtype, transposed)
    print("done")
