"""What convmat.cupy imports and refuses, its examples, and its benchmark."""

import doctest
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

import convmat
import convmat.cupy as device
from benchmarks import gpu
from benchmarks.workloads import Workload
from convmat.cupy import Convolution, TransposedConvolution
from tests.cupy.device import DEVICE, cupy, importable

K, N = cupy.ones((3, 3)), np.ones((3, 3))
A33 = Convolution(K, (5, 5))


@pytest.mark.parametrize("call", [convmat.Convolution, convmat.convolution_matrix, convmat.TransposedConvolution])
def test_the_host_says_who_takes_arrays_of_the_device(call):
    class Array:  # NumPy cannot have it, as it cannot have one of CuPy
        __module__ = "cupy"

        def __array__(self, dtype=None, copy=None):
            raise TypeError("Implicit conversion to a NumPy array is not allowed")

    sentence = r"must be a numpy\.ndarray, got a cupy\..*convmat\.cupy\.Convolution"
    for there in [Array(), *([K] if DEVICE else [])]:
        with pytest.raises(TypeError, match=f"kernel {sentence}"):
            call(there, (5, 5))
        with pytest.raises(TypeError, match=f"x {sentence}"):
            convmat.Convolution(N, (5, 5)).apply(there)
        with pytest.raises(TypeError, match=f"out {sentence}"):
            convmat.Convolution(N, (5, 5)).apply(np.ones((5, 5)), out=there)


WRONG = [
    (Convolution, (N, (5, 5)), {}, TypeError, r"kernel must be a cupy\.ndarray, got numpy\.ndarray.*cupy\.asarray.*convmat\.Convolution"),
    (TransposedConvolution, (N, (5, 5)), {}, TypeError, r"got numpy\.ndarray.*convmat\.TransposedConvolution"),
    (device.convolution_matrix, (N, (5, 5)), {}, TypeError, r"got numpy\.ndarray.*convmat\.convolution_matrix"),
    (device.transposed_convolution_matrix, (N, 5), {}, TypeError, r"got numpy\.ndarray.*convmat\.transposed_convolution_matrix"),
    (Convolution, (None, (5, 5)), {}, TypeError, "kernel must be an array of numbers, got None"),
    (Convolution, (device.convolution_matrix(K, (3, 3)), (5, 5)), {}, TypeError, r"kernel must be an array of numbers, got a \w+; use its \.toarray"),
    (Convolution, ([], (5, 5)), {}, ValueError, r"kernel must have at least 1 dimension and 1 element, got shape \(0,\)"),
    (device.convolution_matrix, (3.0, 5), {}, ValueError, r"kernel must have at least 1 dimension and 1 element, got shape \(\)"),
    (Convolution, (cupy.asarray([1, 2]), 5), {}, TypeError, "no integers, got int64; cast it, for example to float64"),
    (Convolution, ([[1.0], [2.0, 3.0]], (5, 5)), {}, TypeError, "kernel must be an array of numbers, got list"),
    (Convolution, (cupy.asarray([True]), 5), {}, TypeError, "got bool"),
    (Convolution, (cupy.ones(3, "e"), 5), {}, TypeError, "got float16; cast it, for example to float32"),
    (Convolution, (K, (5, 5)), {"engine": "fast"}, ValueError, "engine must be one of auto, direct, gemm, csr, torch on the device, got 'fast'"),
    (Convolution, (K, (5, 5)), {"engine": 1}, TypeError, "engine must be a str, got 1"),
    (Convolution, (K, (5, 5)), {"flip": 1}, TypeError, "flip must be a bool, got 1"),
    (Convolution, (K, (5, 5)), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    (Convolution, (cupy.ones((2,) * 6), (2,) * 5), {"engine": "torch"}, ValueError, "PyTorch convolves over 1 to 3 axes, got 4"),
    (device.convolution_matrix, (K, (5, 5)), {"format": "dia"}, ValueError, "format must be one of coo, csc, csr on the device, got 'dia'"),
    (device.convolution_matrix, (K, (5, 5)), {"format": 1}, TypeError, "format must be a str"),
    (device.convolution_matrix, (K, (5, 5)), {"rows": (0, 10)}, ValueError, "0 <= start <= stop <= 9"),
    (device.convolution_matrix, (K, (5, 5)), {"rows": range(2)}, TypeError, r"rows must be a pair .* got range\(0, 2\)"),
    (device.convolution_matrix, (K, (2**40, 2**40)), {}, ValueError, r"fewer than 2\*\*63 each.* got shape .* and \d+ nonzeros"),
    (device.transposed_convolution_matrix, (K, (2**40, 2**40)), {"rows": (2**50, 2**50 + 1)}, ValueError, r"fewer than 2\*\*63 each"),
    (device.convolution_matrix, (K, (5, 5)), {"dtype": "int64"}, TypeError, "no integers, got int64"),
    (device.convolution_matrix, (cupy.ones(3, "F"), 5), {"dtype": "float32"}, TypeError, "same_kind cast of the kernel's, complex64, got float32"),
    (device.convolution_matrix, (K, (5, 5)), {"dtype": "nonsense"}, TypeError, "dtype must be a NumPy dtype"),
    (A33.apply, (np.ones((5, 5)),), {}, TypeError, r"x must be a cupy\.ndarray, got numpy\.ndarray.*\.to\('numpy'\)"),
    (A33.dot, (np.ones(25),), {}, TypeError, r"x must be a cupy\.ndarray, got numpy\.ndarray"),
    (A33.__matmul__, (cupy.ones((5, 5)),), {}, ValueError, r"x must be a vector of 25 numbers, .*got an array of shape \(5, 5\); .*use A\.apply\(x\), or A @ x\.ravel\(\)"),
    (A33.T.dot, (cupy.ones((7, 3, 3)),), {}, ValueError, r"x must be a vector of 9 numbers, .*got an array of shape \(7, 3, 3\); for arrays of shape \(\.\.\., 3, 3\) use A\.apply\(x\)$"),
    (A33.dot, (cupy.ones((4, 5)),), {}, ValueError, "dimension mismatch"),
    (A33.apply, (cupy.ones((4, 5)),), {}, ValueError, r"x must have shape \(\.\.\., 5, 5\), got \(4, 5\)"),
    (A33.apply, (cupy.ones((5, 5), bool),), {}, TypeError, "x must be of an integer.*bool"),
    (A33.apply, (cupy.ones((5, 5)), np.ones((3, 3))), {}, TypeError, r"out must be a cupy\.ndarray or None, got numpy\.ndarray"),
    (A33.apply, (cupy.ones((5, 5)), cupy.ones((3, 3), "f")), {}, TypeError, "out must have dtype float64, got float32"),
    (A33.apply, (cupy.ones((5, 5)), cupy.ones((5, 5))), {}, ValueError, r"out must have shape \(3, 3\), got \(5, 5\)"),
    (A33.apply, (cupy.ones((5, 5)), cupy.lib.stride_tricks.as_strided(cupy.ones(3), (3, 3), (8, 0))), {}, ValueError, r"out must have memory for each of its elements, got shape \(3, 3\) and strides \(8, 0\)"),
    (A33.explain, (2.5,), {}, TypeError, "batch must be an int, got 2.5"),
    (A33.explain, (1, "float16"), {}, TypeError, "got float16"),
    (Convolution(K, (30_000, 30_000)).toarray, (), {}, MemoryError, "dense 899880004 × 900000000 matrix.* takes .*B .*, more than the available .*B of memory on the device; .*tocsr"),
    (A33.with_kernel, (cupy.ones((3, 4)),), {}, ValueError, r"kernel must have shape \(3, 3\), got \(3, 4\)"),
    (A33.with_kernel, (N,), {}, TypeError, r"got numpy\.ndarray"),
    (A33.to, ("jax",), {}, ValueError, "library must be one of numpy, cupy, got 'jax'"),
    (A33.to, (1,), {}, TypeError, "library must be a str, got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "arguments", "options", "error", "sentence"), WRONG)
def test_wrong_arguments(call, arguments, options, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_lists_of_numbers_are_taken():
    np.testing.assert_array_equal(Convolution([[1.0, 2.0]], (1, 3)).apply([[1.0, 1.0, 2.0]]).get(), [[3.0, 5.0]])


@pytest.mark.parametrize("name", ["_assembly", "_operators", "_segments", "_tables"])
def test_examples(name):
    with importable():
        results = doctest.testmod(importlib.import_module(f"convmat.cupy.{name}"), optionflags=doctest.ELLIPSIS)
    assert results.attempted
    assert results.failed == 0


def test_the_benchmark_says_what_it_needs(capsys):
    sentence = gpu.missing()
    assert sentence is None if DEVICE else "needs" in sentence
    if not DEVICE:
        assert gpu.main([]) == 1
        assert capsys.readouterr().err.strip() == sentence


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_benchmark_runs(monkeypatch, tmp_path, capsys):
    small = (
        Workload("rgb", (3, 3, 3, 3), (3, 6, 5), {"padding": "same"}),
        Workload("up", (2, 3, 4, 4), (2, 3, 4), {"stride": 2, "padding": 1}, transposed=True),
    )
    for name in ("STORED", "SINGLE", "LAYERS"):
        monkeypatch.setattr(gpu, name, small)
    monkeypatch.setattr(gpu, "_BLOCK", 1000)
    monkeypatch.setattr(gpu, "_TURN", 1e-6)
    monkeypatch.setattr(gpu, "missing", lambda: None)
    file = tmp_path / "new" / "device.json"
    with importable():
        assert gpu.main(["--quick", "--json", str(file)]) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert {name: len(found) for name, found in rows.items()} == {
        "memory": 2, "build": 8, "stored": 16, "matrix-free": 8, "layers": 16,
    }  # fmt: skip
    assert all(row["seconds"] for found in rows.values() for row in found)
    assert "limits met" in capsys.readouterr().out


def test_convmat_imports_no_cupy():
    code = "import sys, convmat; print([m for m in sys.modules if m.partition('.')[0] in ('cupy', 'cupyx')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_without_cupy_the_import_says_what_to_install():
    code = "import sys; sys.modules['cupy'] = None\nimport convmat.cupy"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "convmat.cupy needs CuPy" in run.stderr
    assert "convmat[cupy]" in run.stderr
