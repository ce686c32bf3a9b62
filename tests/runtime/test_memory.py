"""What is available, and what a matrix is counted to need, against files that say so and against what is really taken."""

import resource
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convmat import Convolution, ConvolutionGeometry, convolution_matrix, transposed_convolution_matrix
from convmat._runtime import groups, memory
from convmat.matrices._assembly import assemble
from convmat.matrices._diagonals import Diagonals
from convmat.matrices._formats import FORMATS
from convmat.matrices._writer import MatrixRows
from tests.cases import cases


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Let a folder tell what is available, and check small requests, too."""
    for module, name, file in (
        (memory, "_MACHINE", "meminfo"),
        (memory, "_STATUS", "statm"),
        (groups, "_OWN", "own"),
        (groups, "_ROOT", "fs"),
    ):
        monkeypatch.setattr(module, name, tmp_path / file)
    monkeypatch.setattr(memory, "_UNCHECKED", 0)
    monkeypatch.setattr(memory, "_last", [(0.0, 0)])
    monkeypatch.setattr(memory, "_address_space", lambda: ())
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable:    800 kB\nHugePages_Total: 0\n")
    return tmp_path


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


V1 = {"memory__limit_in_bytes": "10000\n", "memory__usage_in_bytes": "7000\n"}
V2 = {"memory__max": "10000\n", "memory__current": "7000\n"}


@pytest.mark.parametrize(
    ("groups", "folder", "files", "available"),
    [
        ("0::/\n", "", V2, 3000),
        ("0::/a/b\n", "a/b", V2, 3000),
        ("0::/a/b\n", "a", V2 | {"memory__stat": "anon 1\ninactive_file 2500\nactive_file 7\n"}, 5500),
        ("0::/a\n", "a", V2 | {"memory__current": "12000\n"}, 0),
        ("0::/a\n", "a", {"memory__max": "max\n", "memory__current": "7000\n"}, 800 << 10),
        ("0::/a\n", "a", {"memory__max": "4000\n"}, 4000),
        ("5:cpu:/x\n4:hugetlb,memory:/a:b/c\n0::/y\n", "memory/a:b/c", V1, 3000),
        ("4:memory:/elsewhere\n", "memory", V1 | {"memory__stat": "inactive_file 9\ntotal_inactive_file 500\n"}, 3500),
        ("4:memory:/\n", "memory", V1 | {"memory__limit_in_bytes": "9223372036854771712\n"}, 800 << 10),
        ("4:cpu:/\n", "memory", V1, 800 << 10),
    ],
)
def test_what_control_groups_leave(groups, folder, files, available, machine):
    (machine / "own").write_text(groups)
    write(machine / "fs" / folder, **files)
    assert memory.available_memory() == available
    (machine / "own").unlink()  # not Linux
    assert memory.available_memory() == 800 << 10


def test_it_is_read_anew(machine):
    (machine / "own").write_text("0::/\n")
    write(machine / "fs", **V2)
    with pytest.raises(
        MemoryError, match=r"294 nonzeros and needs 3.92 kB \(3924 bytes\), more than the available 3 kB"
    ):
        convolution_matrix(np.ones(3), 100)
    (machine / "fs" / "memory.current").write_text("1000\n")
    assert convolution_matrix(np.ones(3), 100).nnz == 294
    with pytest.raises(MemoryError, match=r"dense 98 × 100 matrix.* takes 82.3 kB .*available 9 kB of memory; store"):
        Convolution(np.ones(3), 100).toarray()


def test_little_is_not_looked_at_again_for_a_moment(machine, monkeypatch):
    looks, now = [], [100.0]
    monkeypatch.setattr(memory, "monotonic", lambda: now[0])
    monkeypatch.setattr(memory, "available_memory", lambda: looks.append(now[0]) or 1_000_000)
    for size, time, looked in ((100, 100.0, 1), (100, 100.4, 1), (1000, 100.4, 2), (100, 101.0, 3)):
        now[0] = time
        convolution_matrix(np.ones(3), size)
        assert len(looks) == looked


def test_small_matrices_ask_for_nothing(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", None)  # it would fail
    for format in FORMATS:
        convolution_matrix(np.ones((3, 3)), (20, 20), format=format)
    Convolution(np.ones((3, 3)), (20, 20)).toarray()


def test_the_address_space_is_a_limit():
    code = (
        "import resource; import numpy as np\n"
        "from convmat import convolution_matrix; from convmat._runtime.memory import available_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, resource.RLIM_INFINITY))\n"
        "assert 0 < available_memory() < 3 << 30\n"
        "try:\n    convolution_matrix(np.ones((3, 3)), (6000, 6000), workers=1)\n"
        "except MemoryError as error:\n    print(error)"
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[0] in (
        resource.RLIM_INFINITY,
        resource.getrlimit(resource.RLIMIT_AS)[1],
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nonzeros and needs 4.03 GB" in result.stdout
    assert "of memory; apply it" in result.stdout


@given(case=cases(), transposed=st.booleans(), data=st.data())
def test_diagonals_are_counted(case, transposed, data):
    geometry = ConvolutionGeometry(case.kernel_shape, case.input_shape, **case.options)
    matrix = MatrixRows(geometry, np.ones(case.kernel_shape), transposed)
    rows = sorted(data.draw(st.tuples(*[st.integers(0, matrix.shape[0])] * 2)))
    W = assemble(geometry, np.ones(case.kernel_shape), transposed, tuple(rows)).tocoo()
    assert matrix.count_diagonals(*rows) == (np.unique(W.col - W.row).size, W.col.max(initial=-1) + 1)


@given(case=cases(), transposed=st.booleans())
def test_diagonals_that_are_too_many_to_list_are_bounded(case, transposed):
    geometry = ConvolutionGeometry(case.kernel_shape, case.input_shape, **case.options)
    matrix = MatrixRows(geometry, np.ones(case.kernel_shape), transposed)
    count, width = matrix.count_diagonals(0, matrix.shape[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convmat.matrices._diagonals._LISTED", 2)
        most, same = matrix.count_diagonals(0, matrix.shape[0])
    assert count <= most <= sum(matrix.shape)
    assert same == width


def test_the_diagonals_of_immense_matrices_are_counted_at_once():
    for mode in ("zeros", "circular", "reflect", "replicate"):
        geometry = ConvolutionGeometry((5, 5), (30_000, 30_000), padding=2, padding_mode=mode)
        count, width = MatrixRows(geometry, np.ones((5, 5)), False).count_diagonals(0, 30_000**2)
        assert width == 30_000**2
        assert 25 <= count <= (5 + 8) ** 2
    assert Diagonals.of(*np.ones((3, 1), np.int64) * 2**40, 7).size == 2**40


def needed(format, case, transposed, rows=None):
    """Return what is counted for a build, and what it takes at most."""
    kernel, shape, options = case
    geometry = ConvolutionGeometry(kernel.shape, shape, **options)
    build = transposed_convolution_matrix if transposed else convolution_matrix
    if transposed:
        options, shape = options | {"output_shape": geometry.input_shape}, geometry.output_shape
    asked = []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr("convmat.matrices._assembly.check_memory", lambda what, nbytes, instead: asked.append(nbytes))
        build(kernel, shape, format=format, rows=rows, workers=1, **options)
        tracemalloc.start()
        build(kernel, shape, format=format, rows=rows, workers=1, **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return asked[0], peak


CASES = {
    "image": (np.ones((3, 3)), (120, 120), {"padding": 1}),
    "valid": (np.ones((3, 3), np.int16), (150, 151), {}),
    "strided": (np.ones((3, 3), np.complex128), (60, 60), {"stride": 2}),
    "signal": (np.ones(41), 6000, {"padding_mode": "reflect", "padding": 20}),
    "layer": (np.ones((4, 2, 3, 3), np.float32), (2, 50, 50), {"padding": 1, "padding_mode": "circular"}),
}


# Formats of Python's own objects take seconds to fill: their cases are few.
@pytest.mark.parametrize(
    ("case", "format"),
    [(case, format) for case in CASES for format in FORMATS if case == "strided" or format not in {"dok", "lil"}],
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("some", [False, True])
def test_a_format_is_counted_as_what_it_takes(format, case, transposed, some):
    geometry = ConvolutionGeometry(CASES[case][0].shape, CASES[case][1], **CASES[case][2])
    rows = (0, geometry.shape[int(transposed)] // 2) if some else None
    counted, taken = needed(format, CASES[case], transposed, rows)
    # tracemalloc does not see what malloc rounds up, nor small numbers that Python shares.
    most = {"bsr": 2.2, "lil": 2, "dok": 2}.get(format, 1.15)
    assert 0.8 * (taken - (1 << 19)) <= counted <= most * taken + (1 << 16)


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"csr"}))
def test_formats_are_refused_before_anything_is_built(format, machine, monkeypatch):
    kernel, shape, rows = np.ones((3, 3)), (40, 40), (0, 1000)
    counted, _ = needed(format, (kernel, shape, {}), False, rows)
    (machine / "meminfo").write_text(f"MemAvailable: {(counted >> 10) + 1} kB\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert convolution_matrix(kernel, shape, format=format, rows=rows).shape == (1000, 1600)
    monkeypatch.setattr("convmat.matrices._assembly.MatrixRows.write", None)  # it would fail
    (machine / "meminfo").write_text(f"MemAvailable: {(counted >> 10) - 1} kB\n")
    with pytest.raises(MemoryError, match=f"9000 nonzeros and needs as {format} .*B .*, more than the available"):
        convolution_matrix(kernel, shape, format=format, rows=rows)
