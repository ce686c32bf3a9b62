"""The planner as a table: which engine for which product, on a machine of given figures."""

import numpy as np
import pytest

from convmat import Convolution, ConvolutionGeometry
from convmat.engines import ENGINES, Cost, Machine, own_geometry
from convmat.engines._planner import plan
from convmat.engines._separable import SeparableEngine
from convmat.engines._taps import taps
from convmat.engines._winograd import winograd
from convmat.operators._operators import HostProducts

MACHINE = Machine(workers=2, loading=0)
PLAIN = {name: ENGINES[name] for name in ("gemm", "fft", "csr")}  # what NumPy and SciPy alone can do

# kernel, input, options, dtype, batch, engine without numba
TABLE = [
    ((3, 3), (8, 8), {"padding": 1}, "float64", 1, "csr"),
    ((3, 3), (64, 64), {"padding": 1}, "float64", 1, "csr"),
    ((63, 63), (1024, 1024), {"padding": "same"}, "float64", 1, "fft"),
    ((63, 63), (1024, 1024), {"padding": "same"}, "float32", 8, "fft"),
    ((64, 64, 3, 3), (64, 56, 56), {"padding": 1}, "float64", 1, "gemm"),
    ((64, 64, 3, 3), (64, 56, 56), {"padding": 1}, "float32", 8, "gemm"),
    ((256, 256, 3, 3), (256, 14, 14), {"padding": 1}, "float32", 1, "gemm"),
    ((96, 96, 1, 1), (96, 40, 40), {}, "complex128", 1, "gemm"),
    ((64, 64, 5), (64, 16000), {"padding": 2}, "float64", 1, "gemm"),
    ((1001,), (100_000,), {"padding": "same"}, "float64", 1, "fft"),
    ((3, 3), (64, 64), {"padding": 1}, "int64", 1, "csr"),
    ((64, 64, 3, 3), (64, 56, 56), {"padding": 1, "padding_mode": "circular"}, "float64", 1, "gemm"),
]


def chosen(*arguments):
    estimates = plan(*arguments)
    (one,) = (estimate.engine for estimate in estimates if estimate.chosen)
    return one


@pytest.mark.parametrize(("kernel", "size", "options", "dtype", "batch", "engine"), TABLE)
def test_choice_without_compiled_code(kernel, size, options, dtype, batch, engine):
    geometry = ConvolutionGeometry(kernel, size, **options)
    assert chosen(geometry, np.dtype(dtype), batch, False, MACHINE, PLAIN) == engine


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("kernel", "size", "options", "dtype", "batch", "engine"), TABLE)
def test_choice_with_compiled_code(kernel, size, options, dtype, batch, engine, transposed):
    pytest.importorskip("numba")
    geometry = ConvolutionGeometry(kernel, size, **options)
    choice = chosen(geometry, np.dtype(dtype), batch, transposed, MACHINE)
    kept = engine == "fft" or size == (8, 8) or dtype == "int64"
    assert choice == engine if kept else choice in ("taps", "winograd")


def test_compiling_counts_against_small_products():
    pytest.importorskip("numba")
    geometry = ConvolutionGeometry((4, 4, 3, 3), (4, 24, 24), padding=1)
    cold = Machine(workers=2, loading=3.0)
    assert chosen(geometry, np.dtype("float64"), 1, False, MACHINE) == "taps"
    assert chosen(geometry, np.dtype("float64"), 1, False, cold) == "gemm"
    large = ConvolutionGeometry((3, 3), (2048, 2048), padding=1)
    assert chosen(large, np.dtype("float64"), 1, False, cold) == "taps"


@pytest.mark.parametrize("name", list(ENGINES))
def test_estimates_grow_with_the_batch_and_are_pure(name):
    geometry = ConvolutionGeometry((16, 16, 3, 3), (16, 32, 32), padding=1)
    own = own_geometry(ENGINES[name], geometry)
    for dtype in map(np.dtype, ("float32", "float64", "complex64", "complex128")):
        if ENGINES[name].refuses(own, dtype):
            continue
        for transposed in (False, True):
            costs = [ENGINES[name].estimate(own, dtype, batch, transposed, MACHINE) for batch in (1, 8)]
            assert costs[0].flops * 8 == pytest.approx(costs[1].flops)
            assert costs[0].seconds < costs[1].seconds
            assert costs[0] == ENGINES[name].estimate(own, dtype, 1, transposed, MACHINE)
            assert all(isinstance(cost, Cost) and min(cost.flops, cost.bytes, cost.seconds) > 0 for cost in costs)


def test_auto_plans_each_direction_dtype_and_batch_once():
    A = Convolution(np.ones((64, 64, 3, 3), "float32"), (64, 20, 20), padding=1)
    x = np.ones((2, *A.input_shape), "float32")
    for _ in range(2):
        A.apply(x[0])
        A.apply(x)
        A.T.apply(A.apply(x))
        A.apply(x.astype("float64"))
    assert len(A._products._chosen) == 4


def test_the_kernel_is_tested_for_an_outer_product_once(monkeypatch):
    pytest.importorskip("numba")
    tested, refuses_values = [], SeparableEngine.refuses_values

    def count(self, kernel):
        tested.append(kernel.dtype)
        return refuses_values(self, kernel)

    monkeypatch.setattr(SeparableEngine, "refuses_values", count)
    A = Convolution(np.ones((3, 3), "float32"), (20, 20), padding=1)
    for B in (A, A.T, A.conj().T):
        for batch in (1, 2, 8):
            B.apply(np.ones((batch, 20, 20), "float32"))
            B.explain(batch=batch)
    assert tested == [np.float32]
    A.apply(np.ones((20, 20)))
    assert tested == [np.float32, np.float64]
    A.with_kernel(np.eye(3)).explain()
    assert len(tested) == 3
    Convolution(np.ones((3, 3)), (20, 20), engine="separable").apply(np.ones((20, 20)))
    assert len(tested) == 4


def test_engines_that_depend_on_the_kernel_are_not_chosen_without_it():
    pytest.importorskip("numba")
    geometry = ConvolutionGeometry((31, 31), (1024, 1024), padding="same")
    arguments = geometry, np.dtype("float64"), 1, False, MACHINE
    assert chosen(*arguments) != "separable"
    (reason,) = (e.reason for e in plan(*arguments) if e.engine == "separable")
    assert reason == "it depends on the kernel's values, which are not given"
    assert chosen(*arguments, ENGINES, lambda engine: None) == "separable"
    assert chosen(*arguments, ENGINES, lambda engine: f"{engine.name} may not") != "separable"


def test_auto_chooses_anew_once_another_operator_has_loaded_compiled_code(monkeypatch):
    pytest.importorskip("numba")
    seconds = {"loading": 1e3}
    for module in (taps, winograd):
        monkeypatch.setattr(module, "seconds_to_load", lambda *_: seconds["loading"])
    monkeypatch.setattr(HostProducts, "used", set())

    def used_by(operator):
        before = set(operator._products._bound)
        operator.apply(x)
        return {name for name, _ in set(operator._products._bound) - before}

    def explained(operator):
        (name,) = (e.engine for e in operator.explain().estimates if e.chosen and not e.transposed)
        return {name}

    kernel, x = np.ones((16, 16, 3, 3)), np.ones((16, 40, 40))
    A, B = (Convolution(kernel, x.shape, padding=1) for _ in range(2))
    assert used_by(A) == explained(A) == {"gemm"}
    Convolution(kernel, x.shape, padding=1, engine="taps").apply(x)
    seconds["loading"] = 0.0
    assert used_by(A) == explained(A) == explained(B) == used_by(B)
    assert explained(A) <= {"taps", "winograd"}
    seconds["loading"] = 1e3  # nobody has seen it, but explain: what it says then holds
    assert explained(A) == {"gemm"}
    A._products._bound.clear()
    assert used_by(A) == {"gemm"}


def test_refusals_say_why():
    A = Convolution(np.ones((3, 3), int), (5, 5))
    reasons = {estimate.engine: estimate.reason for estimate in A.explain().estimates}
    assert "exact" in reasons["fft"]
    assert reasons["torch"] == "PyTorch's convolutions need a float or complex dtype, got int64"
    with pytest.raises(ValueError, match=r"engine='fft'.*not exact for integers, got int64"):
        Convolution(np.ones((3, 3), int), (5, 5), engine="fft").apply(np.ones((5, 5), int))


def test_auto_keeps_no_matrix_that_fills_the_memory():
    geometry = ConvolutionGeometry((3, 3), (64, 64), padding=1)
    roomy, tight = Machine(workers=2, loading=0), Machine(workers=2, loading=0, memory=geometry.matrix_nbytes("int64"))
    assert chosen(geometry, np.dtype("int64"), 1, False, roomy) == "csr"
    assert chosen(geometry, np.dtype("int64"), 1, False, tight) == "gemm"


def test_auto_applies_what_could_not_be_stored():
    A = Convolution(np.ones((3, 3), np.int64), (200_000, 200_000), padding=1)
    estimates = {estimate.engine: estimate for estimate in A.explain().estimates if not estimate.transposed}
    assert estimates["gemm"].chosen
    assert "memory" in estimates["csr"].reason
    assert repr(A.explain()) == str(A.explain())


def test_auto_explains_what_no_64_bits_count():
    A = Convolution(np.ones((3, 3)), (2**40, 2**40), padding=1)
    assert sum(estimate.chosen for estimate in A.explain(batch=3).estimates) == 2


@pytest.mark.parametrize("transposed", [False, True])
def test_the_table_says_which_product_each_row_is(transposed):
    A = Convolution(np.ones((3, 3)), (8, 8))
    explanation = (A.T if transposed else A).explain()
    rows = [line for line in str(explanation).splitlines() if line.startswith(("W x", "Wᵀ y"))]
    products = ["Wᵀ y" if estimate.transposed else "W x" for estimate in explanation.estimates]
    assert [row.split("  ")[0].strip() for row in rows] == products
    assert products[0] == ("Wᵀ y" if transposed else "W x")
