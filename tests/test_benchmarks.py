"""The benchmarks: their modules import without doing anything, and what they compare with builds the same matrices."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks import cases
from benchmarks.build import main
from benchmarks.cases import Case
from benchmarks.peers import PEERS, coo_assembly, filler, kron_sum
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere, interleave, ratio

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
@pytest.mark.parametrize("build", [coo_assembly, kron_sum])
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
    assert {"a", "b"} == set(runs)


def test_ratio_is_that_of_the_median_round():
    assert ratio({"a": [2.0, 30.0, 9.0], "b": [1.0, 10.0, 1.0]}, "a", "b") == 3.0


def test_other_processes_are_counted_or_unknown():
    cores = Elsewhere().cores()
    assert cores is None or cores >= 0


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
