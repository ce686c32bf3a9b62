"""The benchmarks: their modules import without doing anything, and what they compare with builds the same matrices."""

import json
import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks import cases, timing
from benchmarks.build import main
from benchmarks.builders import PEERS, afresh, coo_by_axes, coo_masked, filler, kron_sum
from benchmarks.cases import Case
from benchmarks.contest import QUICK, Contest, Single, foresee, geometric_mean, run_alone
from benchmarks.figure import draw
from benchmarks.libraries import LIBRARIES
from benchmarks.peers import FAST, _summarize, check_agreement
from benchmarks.peers import main as compare
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere, interleave, ratio
from benchmarks.workloads import WORKLOADS, Product, Workload, products
from convmat.matrices import _pattern as pattern

MODULES = sorted(module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."))

TINY = [
    Case((3,), (7,), {"padding": 1}),
    Case((4,), (9,), {"stride": 2, "padding": 1, "dilation": 2}, flip=True),
    Case((3, 2), (5, 6), {"padding": "full"}, flip=True),
    Case((3, 3), (6, 5), {"stride": (2, 1), "padding": "valid"}),
    Case((3, 2, 3), (2, 6), {"padding": 1}),
    Case((2, 3, 2, 3), (3, 4, 5), {"stride": 2, "padding": ((1, 0), (0, 2))}),
    Case((2, 3, 2), (3, 4, 5), {"padding": "same"}, dtype="float32"),
]

# At sizes that take no time: the cases that the packages cover.
FOR_PACKAGES = [
    Case((3, 5), (6, 7), {"padding": "full"}, flip=True),
    Case((3, 5), (6, 7), {"padding": "same"}, flip=True),
]

GROUPS = {name: group for name, group in vars(cases).items() if isinstance(group, tuple)}


def test_importing_every_module_does_nothing(tmp_path):
    code = f"import {', '.join(MODULES)}"
    root = str(Path(benchmarks.__file__).parents[1])
    script = f"import sys; sys.path.insert(0, {root!r}); {code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
@pytest.mark.parametrize("build", [coo_masked, coo_by_axes, kron_sum])
def test_scipy_constructions_build_the_same_matrix(build, case):
    matrix, other = case.builder()(), build(case)
    assert other.shape == matrix.shape
    assert other.dtype == matrix.dtype
    np.testing.assert_array_equal(other.toarray(), matrix.toarray())


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.package != "scipy"], ids=lambda peer: peer.name)
def test_packages_build_the_same_matrix(peer):
    if not peer.installed:
        pytest.skip(f"{peer.package} is not installed")
    (case,) = filter(peer.covers, FOR_PACKAGES)
    np.testing.assert_allclose(peer.build(case).toarray(), case.builder()().toarray(), rtol=1e-14)


def test_filling_writes_arrays_like_those_of_the_matrix():
    matrix = TINY[0].builder(transposed=True)()
    arrays = filler(matrix)()
    for array, like in zip(arrays, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        assert (array.size, array.dtype) == (like.size, like.dtype)
        assert (array == 1).all()


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_builders_build_a_matrix_and_its_transpose(case):
    np.testing.assert_array_equal(case.builder(transposed=True)().toarray(), case.builder()().toarray().T)


@pytest.mark.parametrize(
    ("name", "least", "most", "taps"),
    [
        ("LARGE", 64e6, 2.5e9, range(1, 6)),
        ("LARGE_LONG", 64e6, 2.5e9, range(6, 16)),
        ("MEDIUM", 12e6 * 0.6, 64e6, range(1, 16)),
        ("THREADED", 64e6, 2.5e9, range(1, 16)),
        ("MEMORY", 100e6, 2.5e9, range(1, 16)),
        ("PRODUCTS", 64e6, 2.5e9, range(1, 16)),
    ],
)
def test_cases_are_of_the_sizes_that_their_limits_are_for(name, least, most, taps):
    for case in GROUPS[name]:
        assert least <= case.nbytes < most, case.name
        assert max(case.geometry.spatial_kernel) in taps, case.name
        assert name != "MEDIUM" or case.geometry.nnz >= 1e6, case.name


def test_small_cases_have_about_ten_thousand_nonzeros():
    for case in GROUPS["SMALL"]:
        assert 8_000 <= case.geometry.nnz <= 21_000, case.name


@pytest.mark.parametrize("group", GROUPS)
def test_cases_have_names_of_their_own(group):
    names = [case.name for case in GROUPS[group]]
    assert len(set(names)) == len(names)
    assert any(case.quick for case in GROUPS[group])


def test_interleaved_candidates_run_equally_often():
    runs = []
    times = interleave({"a": lambda: runs.append("a"), "b": lambda: runs.append("b")}, budget=0, rounds=(2, 3))
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2}
    assert runs.count("a") == runs.count("b") > 2  # with the calls that warm up


def test_ratio_is_that_of_the_median_round():
    assert ratio({"a": [2.0, 30.0, 9.0], "b": [1.0, 10.0, 1.0]}, "a", "b") == 3.0


def test_other_processes_take_what_is_neither_idle_nor_our_own(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    monkeypatch.setattr(timing, "Path", lambda name: stat)
    assert Elsewhere().cores() is None  # where the system does not tell
    stat.write_text(
        "cpu 300 20 100 9000 900 1 2 3 0 0\ncpu0 7 7 7 7 7 7 7 7 0 0\n"
    )  # ticks; idle and waiting are fourth and fifth
    monkeypatch.setattr(timing.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(timing.os, "times", lambda: (0.5, 0.25, 0.125, 0.125, 99.0))
    assert Elsewhere._seconds() == pytest.approx(4.26 - 1)


def test_seconds_of_others_are_shared_by_the_time_that_passed(monkeypatch):
    clock, busy = iter([10.0, 14.0]), iter([100.0, 106.0])
    monkeypatch.setattr(timing, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(Elsewhere, "_seconds", staticmethod(lambda: next(busy)))
    assert Elsewhere().cores() == 1.5


def test_a_first_build_lists_the_pattern(monkeypatch):
    listed = []
    original = pattern._Lister.patterns
    monkeypatch.setattr(pattern._Lister, "patterns", lambda self: listed.append(self) or original(self))
    build = cases.SMALL[0].builder()
    for call, expected in ((afresh(build), 1), (build, 1), (afresh(build), 2)):
        call()
        assert len(listed) == expected


def test_summary_names_what_is_missed(capsys):
    report = Report()
    report.table("fill", "title", ["case", "ratio", "met"], ["first"])
    report.row(["first", 1.5], [Check("fill", "first", 1.5, 1.25), Check("fill", "first", 20.0, 10.0, at_least=True)])
    assert report.summary() == "1 of 2 limits met; missed in fill: first 1.50 (limit ≤ 1.25)"
    assert capsys.readouterr().out.splitlines()[-1].split() == ["first", "1.50", "NO"]


def test_unknown_table_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


# Products, at sizes that take no time: what the libraries are compared on, and what only some can do.
SMALL_WORKLOADS = (
    Workload("signal", (3,), (9,), {"padding": "same"}),
    Workload("image", (3, 5), (9, 8), {"padding": "same"}),
    Workload("channels", (4, 3, 3, 5), (3, 9, 8), {"padding": "same"}),
    Workload("groups", (4, 3, 3, 5), (6, 9, 8), {"padding": "same", "groups": 2}),
    Workload("depthwise", (4, 1, 3, 5), (4, 9, 8), {"padding": "same", "groups": 4}),
    Workload("volume", (2, 3, 3, 3, 3), (3, 5, 6, 7), {"padding": "same"}),
    Workload("stride", (4, 3, 7, 7), (3, 22, 22), {"stride": 2, "padding": 3}),
    Workload("point", (4, 3, 1, 1), (3, 5, 5)),
    Workload("transposed", (4, 3, 4, 4), (4, 7, 7), {"stride": 2, "padding": 1}, transposed=True),
    Workload("dilation", (4, 3, 3, 3), (3, 9, 9), {"padding": "same", "dilation": 2}),
    Workload("even", (4,), (9,), {"padding": "same"}),
)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
@pytest.mark.parametrize("workload", SMALL_WORKLOADS, ids=lambda workload: workload.name)
def test_libraries_compute_the_same_products(library, workload):
    if not library.installed:
        pytest.skip(f"{library.package} is not installed")
    for product in products([workload], batches=(1, 2)):
        call = library.prepare(product)
        if call is None:
            continue
        operator = workload.operator(product.dtype)
        ours = (operator.T if product.adjoint else operator).apply(product.x)
        assert ours.shape == product.output_shape
        check_agreement(product, library.name, call(), ours)


@pytest.mark.parametrize(
    ("name", "able"),
    [
        ("torch", "signal image channels groups depthwise volume stride point transposed dilation"),
        ("oaconvolve", "signal image channels groups depthwise volume point"),
        ("fftconvolve", "signal image channels groups depthwise volume point"),
        ("correlate", "signal image"),
        ("ndimage", "signal image channels groups depthwise volume point"),
        ("PyLops", "signal image"),
        ("SigPy", "signal image channels volume stride point transposed even"),
    ],
)
def test_libraries_are_asked_for_what_they_can_do(name, able):
    (library,) = (library for library in LIBRARIES if library.name == name)
    if not library.installed:
        pytest.skip(f"{library.package} is not installed")
    prepared = [w.name for w in SMALL_WORKLOADS if library.prepare(Product(w, "float64", False, 1)) is not None]
    assert prepared == able.split()


def test_a_result_that_differs_is_an_error():
    product = Product(SMALL_WORKLOADS[0], "float64", False, 1)
    ours = np.ones((1, 9))
    check_agreement(product, "other", ours + 1e-11, ours)
    with pytest.raises(RuntimeError, match="signal forward float64 ×1: other and convmat differ by 1e-09"):
        check_agreement(product, "other", ours + 1e-9, ours)
    with pytest.raises(RuntimeError, match="differ by nan"):
        check_agreement(product, "other", ours * np.nan, ours)
    with pytest.raises(RuntimeError, match=r"returns \(1, 9\) float32"):
        check_agreement(product, "other", ours.astype("float32"), ours)


@pytest.mark.parametrize(
    ("name", "input_shape", "output_shape"),
    [
        ("image-31", (1024, 1024), (1024, 1024)),
        ("stem", (3, 224, 224), (64, 112, 112)),
        ("pointwise", (96, 40, 40), (96, 40, 40)),
        ("up", (128, 32, 32), (64, 64, 64)),
        ("audio-stft", (1, 48_000), (258, 374)),
        ("volume-c", (8, 48, 48, 48), (8, 48, 48, 48)),
    ],
)
def test_workloads_have_their_shapes(name, input_shape, output_shape):
    (workload,) = (workload for workload in WORKLOADS if workload.name == name)
    forward, adjoint = (Product(workload, "float32", adjoint, 8) for adjoint in (False, True))
    assert (forward.x.shape, forward.output_shape) == ((8, *input_shape), (8, *output_shape))
    assert (adjoint.x.shape, adjoint.output_shape) == ((8, *output_shape), (8, *input_shape))


def test_workloads_have_names_of_their_own():
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)


def test_slow_calls_run_once():
    calls = []
    assert run_alone(lambda: calls.append(1), -1)[1].mark == "*"
    assert len(calls) == 1
    assert run_alone(lambda: calls.append(1), 1.0)[1].mark == ""
    assert len(calls) > 2


@pytest.mark.parametrize(
    ("alone", "batch", "expected"),
    [
        ({"a": 1.0, "b": 1.1}, 8, Single(8.0, "~")),  # too slow
        ({"a": 0.05, "b": 0.001}, 8, Single(0.4, "~")),  # not so slow, but far behind
        ({"a": 0.05, "b": 0.02}, 8, None),
        ({"a": 1.0, "b": 1.1}, 1, None),
        ({"b": 1.0}, 8, None),
    ],
)
def test_what_need_not_be_timed(alone, batch, expected):
    assert foresee(alone, "a", batch, patience=5.0) == expected


def test_contest_is_between_the_reference_and_those_near_the_front():
    contest = Contest("ours")
    for name, seconds, mark in [
        ("ours", 9.0, ""),
        ("a", 1.0, ""),
        ("b", 1.5, ""),
        ("far", 5.0, ""),
        ("slow", 7.0, "*"),
    ]:
        contest.add(name, lambda: None, Single(seconds, mark))
    contest.run(QUICK)
    assert set(contest.times) == {"ours", "a", "b"}
    assert contest.fastest() in {"a", "b"}
    assert contest.ratio("slow") == 7.0 / contest.seconds("ours")


def test_geometric_mean():
    assert geometric_mean([0.5, 8.0]) == pytest.approx(2.0)


@pytest.fixture
def small_workloads(monkeypatch):
    monkeypatch.setattr("benchmarks.peers.WORKLOADS", SMALL_WORKLOADS[:2])
    monkeypatch.setattr("benchmarks.peers.QUICK", replace(QUICK, budget=0.0, rounds=(1, 1), settling=0.0))
    monkeypatch.setattr("benchmarks.busy._TURN", 0.0)


@pytest.mark.parametrize(
    ("options", "section", "count"),
    [([], "float64", 4), (["--regret"], "regret", 8), (["--memory"], "memory", 8), (["--busy"], "busy", 8)],
)
def test_comparison_of_products_runs(small_workloads, options, section, count, tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert compare(["--quick", "--json", str(path), *options]) == 0
    assert "limits met" in capsys.readouterr().out.splitlines()[-1]
    assert len(json.loads(path.read_text(encoding="utf-8"))["rows"][section]) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "nothing"], "invalid choice: 'nothing'"),
        (["--engine", "nothing"], "invalid choice: 'nothing'"),
        (["--regret", "--memory"], "not allowed with"),
        (["--regret", "--figure", "a.png"], "leave out --regret, --memory, --busy and --cold"),
        (["--cold", "--figure", "a.png"], "leave out --regret, --memory, --busy and --cold"),
        (["--cold", "--plain"], "leave out one of them"),
        (["--cold", "--products", "0"], "must be at least 1, got 0"),
    ],
)
def test_unknown_comparisons_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        compare(arguments)
    assert message in capsys.readouterr().err


def test_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        {"case": p.workload.name, "direction": p.direction, "dtype": p.dtype, "batch": p.batch, "ratio": 0.7 + p.batch}
        for p in products(SMALL_WORKLOADS)
    ]
    draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_plain_products_are_computed_without_numba(small_workloads, tmp_path, capsys):
    before = sys.modules.get("numba")
    path = tmp_path / "figures.json"
    assert compare(["--quick", "--plain", "--json", str(path)]) == 0
    assert sys.modules.get("numba") is before
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert "numba" not in figures["machine"]
    rows = [row for dtype in ("float64", "float32") for row in figures["rows"][dtype]]
    assert {row["engine"] for row in rows} <= {"gemm", "fft", "csr"}
    checks = [(check["section"], check["name"], check["limit"]) for check in figures["checks"]]
    assert checks == [("float64", "geometric mean", 1.5), ("float32", "geometric mean", 0.8)]


def test_dense_rows_have_a_limit_of_their_own(capsys):
    report = Report()
    dense = [workload for workload in WORKLOADS if workload.name in ("mid", "deep", "stem", "up")]
    ratios = dict.fromkeys(products(dense, ("float32",), (1,)), 2.0)
    _summarize(report, ratios, FAST)
    assert report.checks == [Check("float32", "geometric mean of dense rows", pytest.approx(2.0), 1.3, at_least=True)]
    _summarize(report, {product: ratio for product, ratio in ratios.items() if product.workload is not dense[0]}, FAST)
    assert len(report.checks) == 1  # not of some of them
