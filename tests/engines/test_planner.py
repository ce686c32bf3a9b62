"""The planner as a table: which engine for which product, on a machine of given figures."""

import numpy as np
import pytest

from convmat import Convolution, ConvolutionGeometry
from convmat.engines import (
    ENGINES,
    NO_LOADING,
    Cost,
    Explanation,
    Loading,
    Machine,
    Observations,
    next_trial,
    own_geometry,
    plan,
)
from convmat.engines._separable import SeparableEngine
from tests.operators.simulation import SlowEngine

MACHINE = Machine(workers=2)
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
    prepared = Observations(prepared=frozenset(ENGINES))
    choice = chosen(geometry, np.dtype(dtype), batch, transposed, MACHINE, ENGINES, lambda _: "no", False, prepared)
    kept = engine == "fft" or size == (8, 8) or dtype == "int64"
    assert choice == engine if kept else choice in ("taps", "winograd", "winograd4")


def is_compiled(code):
    return any(name != "import" for name, _ in code)


def test_one_product_compiles_nothing():
    pytest.importorskip("numba")
    cold = Observations(loading=lambda code: Loading(3.0, 3.0, True) if is_compiled(code) else NO_LOADING)
    for kernel, size, options, dtype, batch, _ in TABLE:
        geometry = ConvolutionGeometry(kernel, size, **options)
        estimates = plan(geometry, np.dtype(dtype), batch, False, MACHINE, seen=cold)
        (best,) = (estimate for estimate in estimates if estimate.chosen)
        assert not best.loading.seconds
        assert next_trial(estimates, cold) is None


def candidates(*rows, **seen):
    """Return estimates of seconds, setup and seconds to compile, and what is observed."""
    loading = {f"{name}.loop": seconds for name, _, _, seconds in rows}
    engines = {name: SlowEngine(name, seconds, setup, code) for name, seconds, setup, code in rows}
    observations = Observations(
        loading=lambda code: Loading(*(loading[code[0][0]],) * 2, True) if code else NO_LOADING, **seen
    )
    geometry = ConvolutionGeometry(1, 4)
    return plan(geometry, np.dtype(float), 1, False, MACHINE, engines, seen=observations), observations


def choice_and_trial(*rows, **seen):
    estimates, observations = candidates(*rows, **seen)
    (best,) = (estimate.engine for estimate in estimates if estimate.chosen)
    return best, next_trial(estimates, observations)


CODE = "fast.loop", ""
SLOW, FAST, MIDDLE = ("slow", 0.02, 0.0, 0.0), ("fast", 0.001, 0.01, 3.0), ("middle", 0.015, 0.1, 0.0)


def test_an_engine_is_tried_once_it_would_have_saved_what_it_costs():
    rows, seen = (SLOW, FAST), {"current": "slow", "spent": 2.0}
    assert choice_and_trial(*rows) == ("slow", None)
    assert choice_and_trial(*rows, **seen, saved={"fast": 1.0}, saved_by_code={CODE: 2.9}) == ("slow", None)
    assert choice_and_trial(*rows, **seen, saved={"fast": 0.009}, saved_by_code={CODE: 3.0}) == ("slow", None)
    assert choice_and_trial(*rows, **seen, saved={"fast": 0.01}, saved_by_code={CODE: 3.0}) == ("slow", "fast")
    measured = {"slow": 0.02, "fast": 0.001}
    assert choice_and_trial(*rows, **seen, measured=measured, rival="fast") == ("fast", None)
    assert choice_and_trial(*rows, **seen, measured=measured) == ("slow", None)  # that may have been at another time


def test_what_other_operators_have_saved_pays_for_code_at_once():
    assert choice_and_trial(SLOW, FAST, saved_by_code={CODE: 3.0})[0] == "fast"
    assert choice_and_trial(SLOW, FAST, saved_by_code={CODE: 2.9})[0] == "slow"


def test_a_choice_stays_unless_another_engine_is_clearly_faster():
    for time, expected in ((0.0199, "slow"), (0.0175, "slow"), (0.0173, "middle")):
        seen = {"current": "slow", "measured": {"slow": 0.02, "middle": time}, "rival": "middle"}
        assert choice_and_trial(SLOW, MIDDLE, **seen)[0] == expected


def test_trials_take_a_small_part_of_the_time():
    similar = ("similar", 0.03, 0.1, 0.0)  # if its estimate is wrong, it may be faster
    for spent, tried, expected in ((2.0, 0.0, None), (2.7, 0.0, "similar"), (2.7, 0.1, None)):
        seen = {"current": "slow", "spent": spent, "tried": tried}
        assert choice_and_trial(SLOW, similar, **seen) == ("slow", expected)
    far = ("far", 0.07, 0.1, 0.0)
    assert choice_and_trial(SLOW, far, current="slow", spent=1e9) == ("slow", None)


def test_a_trial_is_repeated_much_later_where_times_were_near():
    for time, spent, expected in ((0.022, 79.0, None), (0.022, 80.0, "middle"), (0.031, 80.0, None)):
        seen = {"current": "slow", "spent": spent, "trials": {"middle": 10.0}, "prepared": frozenset(["middle"])}
        assert choice_and_trial(SLOW, MIDDLE, **seen, measured={"slow": 0.02, "middle": time}) == ("slow", expected)


def test_what_was_measured_of_others_corrects_estimates():
    assert choice_and_trial(("a", 1.0, 0.0, 0.0), ("b", 2.0, 0.0, 0.0))[0] == "a"
    assert choice_and_trial(("a", 1.0, 0.0, 0.0), ("b", 2.0, 0.0, 0.0), factors={"a": 3.0})[0] == "b"


def test_reasons_say_what_an_engine_waits_for():
    seen = {"current": "slow", "measured": {"slow": 0.02}, "saved": {"middle": 0.04}, "saved_by_code": {CODE: 0.3}}
    estimates, _ = candidates(SLOW, FAST, MIDDLE, **seen)
    table = str(Explanation(estimates))
    assert "; compiled after 3 s lost (so far 300 ms)" in table
    assert "0.75 × the time of slow; tried after 100 ms lost (so far 40 ms)" in table
    assert "~1 ms" in table
    assert " 20 ms " in table


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


def test_refusals_say_why():
    A = Convolution(np.ones((3, 3), int), (5, 5))
    reasons = {estimate.engine: estimate.reason for estimate in A.explain().estimates}
    assert "exact" in reasons["fft"]
    assert reasons["torch"] == "PyTorch's convolutions need a float or complex dtype, got int64"
    with pytest.raises(ValueError, match=r"engine='fft'.*not exact for integers, got int64"):
        Convolution(np.ones((3, 3), int), (5, 5), engine="fft").apply(np.ones((5, 5), int))


def test_auto_keeps_no_matrix_that_fills_the_memory():
    geometry = ConvolutionGeometry((3, 3), (64, 64), padding=1)
    roomy, tight = Machine(workers=2), Machine(workers=2, memory=geometry.matrix_nbytes("int64"))
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
