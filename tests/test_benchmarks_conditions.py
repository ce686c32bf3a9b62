"""The comparisons under other conditions: first products of fresh processes, a busy core, and auto after some use."""

import itertools
import os
import shutil
import signal

import pytest

from benchmarks.busy import Spinner, in_turn
from benchmarks.cold import Verdict, compare_cold, contenders, middle
from benchmarks.fresh import Run, Total, compute, is_pause, run_fresh, steady_rate
from benchmarks.regret import Settled
from benchmarks.report import Report
from benchmarks.workloads import WORKLOADS, Product, Workload
from convmat.engines import ENGINES, Cost, Estimate

SIGNAL = [Workload("signal", (3,), (9,), {"padding": "same"})]
IMAGE = Workload("image", (3, 5), (9, 8), {"padding": "same"})


@pytest.mark.parametrize(
    ("ends", "rate"),
    [
        ([0.5], 0.5),
        ([5.0, 5.1, 5.2], 0.1),
        ([3.0, 3.5, 4.0, 8.0, 8.2, 8.4, 8.6, 8.8, 9.0], 0.2),  # another engine in the last second
        ([2.0, 4.0, 7.0], 3.0),
    ],
)
def test_rate_is_that_of_the_last_products(ends, rate):
    assert steady_rate(ends) == pytest.approx(rate)


def test_totals_are_extrapolated_beyond_the_last_product():
    run = Run((1.0, 1.5, 2.0), {1: "gemm", 3: "taps"})
    assert [run.total(products) for products in (1, 3)] == [Total(1.0), Total(2.0)]
    assert run.total(13) == Total(7.0, "~")
    assert [run.engine(products) for products in (1, 3, 13)] == ["gemm", "taps", "taps"]
    assert Run.parse('{"ends": [1, 1.5, 2], "engines": {"1": "gemm", "3": "taps"}}') == run


def test_a_product_that_compiles_is_told_from_a_slow_one():
    assert is_pause(0.01, 2.0)
    assert not is_pause(0.01, 0.1)  # an interruption
    assert not is_pause(1.0, 2.0)


def test_middle_of_what_was_measured_counts():
    assert middle([Total(9.0, "~"), Total(1.0), Total(2.0), Total(3.0)]) == Total(2.0)
    assert middle([Total(1.0, "~"), Total(2.0, "~"), Total(9.0, "~")]) == Total(2.0, "~")


def test_verdict_compares_with_the_least():
    totals = {"auto": {10: [Total(3.0)]}, "gemm": {10: [Total(5.0)]}, "taps": {10: [Total(1.5, "~")]}}
    verdict = Verdict.of(totals, 10)
    assert (verdict.auto, verdict.best, verdict.least) == (Total(3.0), "taps", Total(1.5, "~"))
    assert verdict.ratio == 2.0


def test_engines_that_cannot_be_best_take_no_part():
    def estimate(engine, seconds, setup=0.0, state=0.0, code=()):
        return Estimate(engine, False, Cost(0, 0, seconds, setup, state, code), seconds)

    known = [
        estimate("taps", 1e-3, setup=5.0, code=(("taps.run_tasks", "a"),)),  # late, but fast
        estimate("gemm", 1e-2),
        estimate("fft", 2e-2, code=(("import", "scipy.fft"),)),
        estimate("csr", 1.0, setup=1.0),  # late and slow
        estimate("separable", 1e-4, state=1e12),
        estimate("torch", 1e-4),  # by name only
        Estimate("winograd", False, None, float("inf"), reason="no"),
    ]
    assert contenders(known) == ["taps", "gemm", "fft"]
    assert contenders([estimate("gemm", 1e-3, setup=1.0), estimate("csr", 1e-1)]) == ["gemm", "csr"]  # best for one
    assert contenders([estimate("gemm", 1.0), estimate("fft", 1e-1, setup=9.0)]) == ["gemm", "fft"]  # best for many


@pytest.fixture
def fresh(monkeypatch):
    """Replace fresh processes: "auto" compiles in its third product, and "taps" in its first, unless the cache has code."""
    runs = []
    monkeypatch.setattr("benchmarks.cold.perf_counter", lambda: len(runs))  # a second for each process

    def run(product, engine, cache, seconds, marks, copies=None):
        found, code = sorted(path.name for path in cache.iterdir()), cache / "taps.code"
        runs.append((engine, found, max(marks)))
        ends, engines = [], {}
        for number in range(1, marks[-1] + 1):
            compiles = not found and number == {"auto": 3, "taps": 1}.get(engine)
            if compiles:
                code.write_bytes(b"")
            fast = engine != "gemm" and (code.exists() or engine == "taps")
            ends.append((ends or [0])[-1] + (4.0 if compiles else 1.0 if fast else 2.0))
            if number in marks:
                engines[number] = "taps" if fast else "gemm"
                if copies:
                    shutil.copytree(cache, copies / str(number))
        return Run(tuple(ends), engines)

    monkeypatch.setattr("benchmarks.cold.run_fresh", run)
    monkeypatch.setattr("benchmarks.cold.contenders", lambda known: ["taps", "gemm"])
    return runs


def test_cold_table_has_both_processes(fresh, capsys):
    report = Report()
    compare_cold(report, SIGNAL, (1, 10), minutes=0)
    # auto: 2 + 2 + 4 + 7 × 1 = 15; taps: 4 + 9; with the code 1 for each product, but none is left after the first
    first = {"auto": (2.0, 15.0), "taps": (4.0, 13.0), "gemm": (2.0, 20.0)}
    second = {"auto": (2.0, 10.0), "taps": (1.0, 10.0), "gemm": (2.0, 20.0)}
    rows = report.rows["cold float64"]
    for column, row in enumerate(rows):
        assert row["seconds"]["first"] == {way: [(totals[column], "")] for way, totals in first.items()}
        assert row["seconds"]["second"] == {way: [(totals[column], "")] for way, totals in second.items()}
    assert [row["engine"] for row in rows] == ["gemm", "taps"]
    assert [check.value for check in report.checks[:4]] == [1.0, 1.0, 15 / 13, 1.0]
    assert [check.limit for check in report.checks[:2]] == [2.2, 1.3]
    assert "signal, 10, first process" in report.checks[2].name
    assert "worst of the ratios: 1: 1.00, 1.00; 10: 1.15, 1.15" in capsys.readouterr().out
    processes = [*(("auto", []), ("taps", []), ("gemm", [])), *(("auto", ["taps.code"]), ("taps", ["taps.code"]))]
    assert [(way, found) for way, found, _ in fresh] == 2 * processes


def test_cold_processes_are_repeated_in_turn_while_there_is_time(fresh, capsys):
    compare_cold(Report(), SIGNAL, (2,), minutes=30 / 60)  # 15 processes for each dtype
    ways = [way for way, _, _ in fresh]
    assert ways[:12] == ["auto", "taps", "gemm", "taps", "taps", "gemm", "auto", "taps", "gemm", "auto", "taps", "taps"]
    assert ways[12:] == ways[:12]
    compare_cold(Report(), SIGNAL, (2,), minutes=12 / 60)  # for one and a half rounds
    assert [way for way, _, _ in fresh[24:]] == 2 * ways[:4]


def test_short_processes_are_repeated_in_any_case(fresh, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.cold._SHORT", 2.5)  # one product by auto or gemm
    compare_cold(Report(), SIGNAL, (1, 10), minutes=0)
    processes = [*(("auto", 10), ("taps", 10), ("gemm", 10), ("auto", 10), ("taps", 10))]
    processes += [("gemm", 1), ("auto", 1), ("auto", 1), ("gemm", 1)]
    assert [(way, most) for way, _, most in fresh] == 2 * processes


def test_products_are_computed_until_it_takes_too_long(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "code").write_bytes(b"")
    product = Product(IMAGE, "float64", True, 1)
    told = compute(product, "auto", 60.0, [1, 3], tmp_path / "copies")
    assert len(told["ends"]) == 3
    assert told["ends"] == sorted(told["ends"])
    assert told["engines"].keys() == {1, 3}
    assert set(told["engines"].values()) <= set(ENGINES)
    assert sorted(str(path.relative_to(tmp_path / "copies")) for path in tmp_path.glob("copies/*/*")) == [
        "1/code",
        "3/code",
    ]
    assert len(compute(product, "gemm", 0.0, [1, 3, 100], None)["ends"]) == 2


def test_fresh_processes_tell_or_fail(tmp_path):
    (workload,) = (workload for workload in WORKLOADS if workload.name == "pointwise")
    product = Product(workload, "float32", False, 1)
    run = run_fresh(product, "gemm", tmp_path, 60.0, [1, 2])
    assert (len(run.ends), run.engines) == (2, {1: "gemm", 2: "gemm"})
    with pytest.raises(
        RuntimeError, match=r"pointwise forward float32 ×1 by winograd .*\n(.*\n)*.*it is for kernels of 3"
    ):
        run_fresh(product, "winograd", tmp_path, 60.0, [1])


def test_spinner_stops_goes_on_and_ends():
    with Spinner() as spinner:
        process = spinner._process
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        spinner.resume()
        assert os.WIFCONTINUED(os.waitpid(process.pid, os.WCONTINUED)[1])
        spinner.pause()
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    assert process.returncode == -signal.SIGKILL


def test_quiet_and_busy_rounds_alternate(monkeypatch):
    spins, seen = [], []

    class Fake:
        resume = staticmethod(lambda: spins.append(True))
        pause = staticmethod(lambda: spins.append(False))

    monkeypatch.setattr("benchmarks.busy._seconds", lambda call: call())
    calls = {name: lambda name=name: seen.append((name, spins[-1])) or (5.0 if spins[-1] else 2.0) for name in "ab"}
    assert in_turn(calls, Fake(), 2) == ({"a": 2.0, "b": 2.0}, {"a": 5.0, "b": 5.0})
    assert spins[-1] is False
    assert sorted(seen) == [("a", False)] * 2 + [("a", True)] * 2 + [("b", False)] * 2 + [("b", True)] * 2


@pytest.mark.parametrize(("seconds", "count"), [(3.0, 8), (1.0, 4), (0.0, 1), (20.0, 20)])
def test_auto_is_used_before_it_is_asked(seconds, count, monkeypatch):
    clock, used = itertools.count(), []
    monkeypatch.setattr("benchmarks.regret.perf_counter", lambda: next(clock))  # a second for each product
    monkeypatch.setattr("benchmarks.regret.applied", lambda product, operator: lambda x, out: used.append(operator))
    settled = Settled(Product(SIGNAL[0], "float64", False, 1), seconds)
    assert len(used) == count
    assert settled.engine == next(e.engine for e in used[0].explain().estimates if e.chosen and not e.transposed)
