"""The ways agree with the textbook and with each other, and the answer says what the numbers say."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks import exercise as suite
from benchmarks import recorded, winners
from benchmarks.workloads import WORKLOADS
from convmat import ConvolutionGeometry, convolution_matrix, textbook
from convmat._messages import scaled
from convmat.commands import main
from convmat.commands.exercise import answer, run
from convmat.commands.exercise.cases import CASES, Case, square
from convmat.commands.exercise.measure import Ceilings, Comparison, Timing, compare, measure
from convmat.commands.exercise.tables import two_digits
from convmat.commands.exercise.ways import WAYS, Ready, Work
from convmat.commands.exercise.ways import base as module
from tests import reference

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = (
    square("plain", 9, 3),
    square("channels", 7, 3, 4),
    Case("even", (2, 3, 2, 4), (3, 8, 9), {}),
    Case("stride", (3, 2, 3, 5), (2, 12, 11), {"stride": (2, 3), "padding": (1, 2)}),
    Case("dilation", (2, 2, 3, 3), (2, 11, 10), {"dilation": (2, 3), "padding": 2}),
    Case("groups", (6, 2, 3, 3), (4, 8, 7), {"groups": 2, "padding": "same"}),
    Case("depthwise", (3, 1, 5, 3), (3, 9, 9), {"groups": 3, "stride": 2, "padding": 1}),
    square("point", 6, 1, 3),
    replace(square("single", 10, 3, 2), dtype="float32"),
)
BEYOND_THE_BOOK = ("dilation", "groups", "depthwise")


def ready(way, case, workers=2):
    pytest.importorskip({"compiled": "numba", "torch": "torch"}.get(way, "numpy"))
    assert WAYS[way].refuses(case) is None
    return WAYS[way].build(case, workers)


PAIRS = [(way, case) for way in WAYS for case in SMALL if way != "loops" or case.name not in BEYOND_THE_BOOK]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(("way", "case"), PAIRS, ids=lambda value: str(getattr(value, "name", value)))
def test_all_ways_compute_the_same(way, case, workers, monkeypatch):
    monkeypatch.setattr(module, "_SERIAL", 1)  # so that small cases are shared among threads
    built, W = ready(way, case, workers), matrix(case)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if case.dtype == "float64" else {"rtol": 1e-4, "atol": 1e-5}
    for _ in range(2):  # nothing that a product leaves behind changes the next
        y, z = built.product(case.x), built.transposed(case.y)
        assert (y.shape, z.shape) == (case.geometry.output_shape, case.input_shape)
        assert y.dtype == z.dtype == case.dtype
        assert_allclose(y.ravel(), W @ case.x.ravel(), **tolerance)
        assert_allclose(z.ravel(), W.T @ case.y.ravel(), **tolerance)


def matrix(case):
    """W from the tests' own loop."""
    g = case.geometry
    options = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "groups": g.groups}
    return reference.matrix(case.kernel, case.input_shape, **options)


def test_loops_are_the_textbooks():
    case = square("plain", 9, 3)
    built = ready("loops", case)
    assert_allclose(built.product(case.x)[0], textbook.corr2d(case.x[0], case.kernel[0, 0], padding=1), rtol=1e-12)
    assert_allclose(
        built.transposed(case.y)[0], textbook.trans_conv(case.y[0], case.kernel[0, 0], padding=1), rtol=1e-12
    )


def test_the_cases_are_twelve_and_agree_with_those_of_the_engines():
    assert len({case.name for case in CASES}) == len(CASES) == 12
    named = {case.name: case for case in CASES}
    for workload in WORKLOADS:
        if workload.name in named:
            assert named[workload.name].geometry == workload.geometry
    assert named["size-1024"].geometry.nnz == ConvolutionGeometry((3, 3), (1024, 1024), padding="same").nnz


def test_counts_are_those_of_the_arrays():
    case = square("plain", 9, 3, 4)
    W = case.geometry
    vectors = case.x.nbytes + case.y.nbytes + case.kernel.nbytes
    work = {way: WAYS[way].work(case) for way in WAYS}
    stored = convolution_matrix(case.kernel, case.input_shape, padding="same")
    nbytes = stored.data.nbytes + stored.indices.nbytes + stored.indptr.nbytes
    assert work["csr"] == Work(2 * stored.nnz, nbytes + vectors, nbytes)
    assert work["csr anew"].bytes == 2 * nbytes + vectors
    assert work["dense"] == Work(2 * stored.toarray().size, stored.toarray().nbytes + vectors, stored.toarray().nbytes)
    columns = 4 * 9 * 81
    assert work["im2col"] == Work(2 * columns * 4, 16 * columns + vectors, 8 * columns)
    assert work["loops"].flops == work["compiled"].flops == work["auto"].flops == W.flops
    single = replace(case, dtype="float32")
    assert WAYS["csr"].work(single).memory == nbytes - 4 * stored.nnz


def test_the_counted_spectra_are_those_that_are_transformed():
    case = square("plain", 13, 3, 2)  # 15 × 15 with its padding, a fast length
    n, planes, pairs = 15 * 15, 4, 4
    expected = 2.5 * n * np.log2(n) * planes + 4 * n * pairs
    assert WAYS["fft"].work(case).flops == pytest.approx(expected)


@pytest.mark.parametrize(
    ("way", "case", "reason"),
    [
        ("loops", square("large", 65, 3), "4,096 windows"),
        ("loops", square("channels", 33, 3, 2), "4,096 windows"),
        ("loops", SMALL[5], "neither groups nor dilation"),
        ("dense", square("large", 256, 3), "34.4 GB"),
        ("csr", square("large", 224, 3, 512), "GB"),
        ("torch", Case("uneven", (1, 1, 2, 2), (1, 9, 9)), "both sides alike"),
    ],
)
def test_what_is_refused_says_why(way, case, reason):
    assert reason in WAYS[way].refuses(case)


@pytest.mark.parametrize(("way", "package"), [("compiled", "numba"), ("torch", "torch")])
def test_a_missing_package_is_named(way, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert WAYS[way].refuses(SMALL[0]) == f"{package} is not installed"


def test_loops_that_would_not_be_compiled_are_left_out(monkeypatch):
    config = pytest.importorskip("numba").config
    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    assert "NUMBA_DISABLE_JIT" in WAYS["compiled"].refuses(SMALL[0])


def test_a_package_that_does_not_import_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "broken_peer.py").write_text("raise AttributeError('made for another NumPy')")
    monkeypatch.syspath_prepend(tmp_path)
    assert module.missing("broken_peer") == "broken_peer cannot be imported (made for another NumPy)"


def test_a_way_that_is_wrong_is_noticed():
    class Wrong:
        name, title = "wrong", "wrong"

        def build(self, case, workers):
            return Ready(lambda x: np.full(case.geometry.output_shape, np.nan), lambda y: case.x)

    with pytest.raises(RuntimeError, match="plain: im2col and wrong differ by nan"):
        measure(SMALL[0], [WAYS["im2col"], Wrong()], 1, 0.0)


def test_comparison_holds_every_way_or_its_refusal():
    steps = []
    cases = (square("small", 8, 3), square("large", 65, 3))
    comparison = compare(cases, 0.01, 2, steps.append)
    assert steps == ["ceilings", "small", "large"]
    assert min(comparison.ceilings.copy, comparison.ceilings.cached, comparison.ceilings.gemm) > 0
    for case in cases:
        found = comparison.of(case)
        assert set(found) | {way for name, way in comparison.refusals if name == case.name} == set(WAYS)
        for timing in found.values():
            assert min(timing.build, timing.product, timing.transposed) > 0
    assert ("large", "loops") in comparison.refusals
    assert ("large", "dense") not in comparison.refusals


def test_the_roofline_is_the_slower_of_the_two():
    ceilings = Ceilings(copy=10.0, cached=50.0, gemm=100.0)
    assert ceilings.bound(Work(flops=100, bytes=100, memory=0)) == 10
    assert ceilings.bound(Work(flops=1e4, bytes=100, memory=0)) == 100


# The answer, from numbers made up: machines that nobody has seen.

TOP = Ceilings(copy=20e9, cached=100e9, gemm=80e9)


def comparison(seconds, cases=CASES, ways=tuple(WAYS), transposed=None):
    """Make up a comparison in which a way takes `seconds(case, way)`; None leaves it out."""
    timings, refusals = [], {}
    for case in cases:
        for way in ways:
            time = seconds(case, way)
            unable = WAYS[way].refuses(case) is not None and way not in ("compiled", "torch")
            if unable or time is None:
                refusals[case.name, way] = "left out"
            else:
                timings.append(
                    Timing(case, way, WAYS[way].work(case), 5 * time, time, (transposed or seconds)(case, way))
                )
    return Comparison(tuple(timings), refusals, TOP, 2)


def text(made_up):
    return "\n".join(answer.paragraphs(made_up))


def test_a_slow_matrix_is_called_slow():
    said = text(comparison(lambda case, way: {"csr": 0.03, "auto": 0.01}.get(way, 0.05)))
    assert (
        "Multiplying by W, stored as a sparse matrix, is not efficient: in all 12 convolutions measured another way is "
        "faster, 3.0 times." in said
    )
    assert 'convmat with engine="auto" is the fastest, or within 10% of it, in all 12 convolutions measured.' in said
    assert "Building W, its pattern being known, takes as long as 5.0 products with it." in said
    assert "PyTorch takes 5.0 times as long as the fastest." in said
    assert "Transposed convolution, as a product with Wᵀ: in all 12 convolutions measured another way is faster" in said


def test_a_fast_matrix_is_called_fast():
    said = text(comparison(lambda case, way: {"csr": 0.01}.get(way, 0.05)))
    assert "is efficient here: in all 12 convolutions measured it is the fastest way, or within 10% of it." in said
    assert "not efficient" not in said
    assert "another way is faster" not in said
    assert "the fastest way, " not in answer.paragraphs(comparison(lambda case, way: {"csr": 0.01}.get(way, 0.05)))[1]


def test_a_mixed_matrix_names_where_it_is_fast():
    said = text(comparison(lambda case, way: 0.01 if way == "csr" and case.name in ("size-32", "mid") else 0.02))
    # Where W is not the fastest here, everything takes the same.
    assert "is efficient here" in said
    slow = text(comparison(lambda case, way: {"csr": 0.01 if case.name in ("size-32", "mid") else 0.08}.get(way, 0.02)))
    assert "for size-32 and mid; in the other 10 another way is faster, 4.0 times." in slow
    assert "in 10 of 12 another way is faster" in slow


@pytest.mark.parametrize(
    ("factor", "phrase"), [(1.2, "the bytes set the time"), (4.0, "the bytes account for 25% of it")]
)
def test_the_bytes_are_blamed_only_if_they_account_for_the_time(factor, phrase):
    made_up = comparison(lambda case, way: factor * TOP.bound(WAYS[way].work(case)))
    assert phrase in text(made_up)
    largest = max((t for t in made_up.timings if t.way == "csr"), key=lambda t: t.work.bytes)
    assert f"a product streams {scaled(largest.work.bytes, 'B')} for {scaled(largest.work.flops, 'FLOP')}" in text(
        made_up
    )


def test_where_arithmetic_is_slow_the_bytes_are_not_blamed():
    slow = replace(comparison(lambda case, way: 1.0), ceilings=Ceilings(20e9, 100e9, 1e9))
    assert "here the arithmetic counts for more than the bytes" in text(slow)
    assert "the bytes set the time" not in text(slow)


@pytest.mark.parametrize(
    ("wins", "phrase"), [(3, "from 3 × 3 on it is"), (15, "from 15 × 15 on it is"), (99, "at no kernel up")]
)
def test_spectra_win_from_the_size_that_was_measured(wins, phrase):
    made_up = comparison(lambda case, way: 0.01 if way != "fft" else 0.005 if case.kernel_shape[2] >= wins else 0.02)
    assert phrase in " ".join(answer.spectra(made_up))
    assert answer.crossover(made_up, "csr") == (wins if wins < 99 else None)


def test_a_win_that_does_not_last_is_none():
    made_up = comparison(lambda case, way: 0.01 if way != "fft" else 0.005 if case.kernel_shape[2] == 7 else 0.02)
    assert answer.crossover(made_up, "csr") is None


def test_what_was_not_measured_is_not_mentioned():
    made_up = comparison(lambda case, way: 0.01, ways=("im2col", "auto"))
    said = text(made_up)
    for word in ("stored", "Fourier", "PyTorch", "dense", "book's", "Building", "Wᵀ"):
        assert word not in said
    assert "im2col" in said
    assert text(comparison(lambda case, way: 0.01, ways=("csr",), cases=CASES[:1]))  # nothing to compare with


def test_left_out_is_grouped_by_reason():
    made_up = comparison(lambda case, way: None if way == "torch" else 0.01)
    lines = answer.left_out(made_up)
    assert "torch: left out" in lines
    assert any(line.startswith("dense, size-256, ") for line in lines)


# The command


def test_the_command_prints_tables_and_the_answer(capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "answer.png"
    cases = (square("size-8", 8, 3), square("size-70", 70, 3), square("kernel-5", 8, 5), square("layer", 8, 3, 16))
    monkeypatch.setattr("convmat.commands.exercise.BRIEF", cases)
    assert main(["exercise", "--seconds", "0.1", "--figure", str(figure)]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert figure.read_bytes().startswith(PNG)
    for part in (
        "size-8: 3 × 3 on 8 × 8, 1 channel\n",
        "layer: 3 × 3 on 8 × 8, 16 → 16 channels\n",
        "the book's loops",
        "CSR W, built once",
        "loops, size-70, layer: loops in Python are waited for up to 4,096 windows",
        answer.QUESTION,
        "Multiplying by W, stored as a sparse matrix, is ",
        f"The figure is in {figure}",
    ):
        assert part in output
    rows = [line.split() for line in output.partition("a product takes:")[2].splitlines() if line.startswith("  csr ")]
    assert all(float(cell.replace(",", "")) >= 1 for cell in rows[0][1:])


def test_the_command_works_without_numba_and_torch(capsys, monkeypatch):
    for package in ("numba", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    comparison = run(seconds=0.01, cases=(square("size-8", 8, 3),))
    assert {"compiled", "torch"}.isdisjoint(timing.way for timing in comparison.timings)
    output = capsys.readouterr().out
    assert "compiled: numba is not installed" in output
    assert "torch: torch is not installed" in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seconds", "0"], "the seconds to measure must be a positive number, got 0"),
        (["--seconds", "nan"], "got nan"),
        (["--figure", "nowhere/answer.png"], "there is no folder 'nowhere'"),
        (["--figure", "."], "got the folder '.'"),
        (["--figure", "answer.doc"], "must end in one of"),
    ],
)
def test_refusals_get_one_sentence(arguments, sentence, capsys):
    pytest.importorskip("matplotlib")
    assert main(["exercise", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert sentence in errors


def test_a_missing_package_is_named_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["exercise", "--figure", "answer.png"]) == 2
    assert capsys.readouterr() == (
        "",
        'convmat: this needs matplotlib, which pip install "convmat[demo]" installs\n',
    )


def test_fold_keeps_small_ratios():
    assert [two_digits(value) for value in (0.012, 0.5, 9.94, 9.96, 99.6, 123456)] == [
        "0.012",
        "0.5",
        "9.9",
        "10",
        "100",
        "120,000",
    ]


# The suite


def test_the_suite_covers_all_pairs_or_says_why_not():
    assert suite.Product.params == [[case.name for case in CASES], list(WAYS)]
    for benchmark in (suite.Product(), suite.Transposed(), suite.Counts(), suite.Build()):
        with pytest.raises(NotImplementedError, match=r"GB|nothing"):
            benchmark.setup("size-1024", "dense")
    with pytest.raises(NotImplementedError, match="nothing"):
        suite.Build().setup("size-32", "csr anew")


def test_the_suite_measures_what_it_names():
    product, transposed, build, memory = suite.Product(), suite.Transposed(), suite.Build(), suite.Memory()
    case = CASES[0]
    for benchmark in (product, transposed, build, memory):
        benchmark.setup(case.name, "csr") if benchmark is not memory else benchmark.setup("size-256", "nothing")
    W = reference.matrix(case.kernel, case.input_shape, stride=(1, 1), padding=[(1, 1)] * 2, dilation=(1, 1))
    assert_allclose(product.run().ravel(), W @ case.x.ravel(), rtol=1e-10, atol=1e-12)
    assert_allclose(transposed.run().ravel(), W.T @ case.y.ravel(), rtol=1e-10, atol=1e-12)
    build.time_build(case.name, "csr")
    memory.peakmem_product("size-256", "nothing")
    assert suite.Matrix().track_nnz(case.name) == np.count_nonzero(W)


def test_results_are_read_back(tmp_path):
    pytest.importorskip("asv")
    pair = [["'size-32'", "'size-64'"], ["'loops'", "'csr'"]]
    numbers = {
        "Product.time_product": (pair, [4.0, 1.0, float("nan"), 2.0]),
        "Transposed.time_transposed": (pair, [5.0, 1.5, float("nan"), 2.5]),
        "Build.time_build": (pair, [float("nan"), 0.5, float("nan"), None]),
        "Counts.track_flops": (pair, [10, 20, 30, 40]),
        "Counts.track_bytes": (pair, [1, 2, 3, 4]),
        "Counts.track_memory": (pair, [5, 6, 7, 8]),
        "Matrix.track_nnz": (pair[:1], [8836, 36100]),
        "Ceilings.track_copy": ([], [20.0]),
        "Ceilings.track_copy_in_cache": ([], [100.0]),
        "Ceilings.track_blas": ([], [80.0]),
        "Memory.peakmem_product": ([["'size-256'"], ["'nothing'", "'csr'"]], [100, 130]),
    }
    content = {
        "commit_hash": "0" * 40,
        "env_name": "existing",
        "date": 1795339368000,
        "params": {"machine": "made-up", "cpu": "a processor", "python": "3.11"},
        "python": "3.11",
        "requirements": {},
        "env_vars": {},
        "result_columns": ["result", "params", "version"],
        "results": {f"exercise.{name}": [values, params, "1"] for name, (params, values) in numbers.items()},
        "durations": {},
        "version": 2,
    }
    folder = tmp_path / "made-up"
    folder.mkdir()
    (folder / "machine.json").write_text('{"machine": "made-up", "version": 1}')
    (folder / "00000000-existing.json").write_text(json.dumps(content))
    newer = {**content, "date": content["date"] + 1, "results": {}}  # of a part of the suite
    (folder / "11111111-existing.json").write_text(json.dumps(newer))
    run = recorded.load(tmp_path)
    loops, stored = run.comparison.find("size-32", "loops"), run.comparison.find("size-64", "csr")
    assert (loops.build, loops.product, loops.transposed, loops.work) == (None, 4.0, 5.0, Work(10, 1, 5))
    assert (stored.build, stored.product, stored.transposed, stored.work) == (None, 2.0, 2.5, Work(40, 4, 8))
    assert run.comparison.find("size-64", "loops") is None
    assert ("size-64", "loops") in run.comparison.refusals
    assert run.comparison.ceilings == Ceilings(20e9, 100e9, 80e9)
    assert run.peaks == {("size-256", "csr"): 30}
    assert run.nnz == {"size-32": 8836, "size-64": 36100}
    assert (run.machine["cpu"], run.date.isoformat()) == ("a processor", "2026-11-22")


def test_no_results_say_what_to_do(tmp_path):
    pytest.importorskip("asv")
    with pytest.raises(FileNotFoundError, match="run asv"):
        recorded.load(tmp_path)


def test_winners_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(winners, "KERNELS", (1, 3))
    monkeypatch.setattr(winners, "CHANNELS", (1, 2))
    monkeypatch.setattr(winners, "SIZE", 6)
    file = tmp_path / "winners.json"
    assert winners.main(["--json", str(file), "--seconds", "0.01"]) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["channels"], row["kernel"]) for row in rows] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert all(set(row["seconds"]) <= set(winners.COMPARED) and min(row["seconds"].values()) > 0 for row in rows)
