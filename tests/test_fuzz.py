"""The fuzzer finds faults that are put in, repeats itself and reaches what it should; its oracle is the plain one."""

import importlib
import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from convmat.engines import ENGINES
from convmat.engines import _gemm as gemm
from convmat.engines._compiled.loader import refusal
from tests import reference
from tests.fuzz import __main__ as fuzz
from tests.fuzz.checking import ALL_ENGINES, Counts, check, kernel_of, patched
from tests.fuzz.drawing import THRESHOLDS, draw
from tests.fuzz.reporting import reproduction, smallest

# What is no size from which another way is taken: names, markers, bits, and the sizes of tables in other units.
NO_THRESHOLDS = {"_NONE", "_EXTENT", "_MOST_AXES", "_MOST_CHANNELS", "_MOST_SINGLE", "_RESIDUAL"}
NO_THRESHOLDS |= {"_ARRAYS", "_GROUP", "_PRODUCTS", "_VECTOR"}  # numbers of what there is, not of what is worth it


def is_small(case):
    return case.geometry().nnz < 200 and np.prod(case.geometry().shape) < 20_000


def test_the_fast_oracle_is_the_plain_one():
    modes = set()
    drawn = (draw(0, number) for number in itertools.count())
    for case in itertools.islice(filter(is_small, drawn), 800):
        kernel = kernel_of(case)
        options = {**case.options, "outputs": case.outputs}
        W = reference.sparse_matrix(kernel, case.input_shape, **options)
        plain = reference.matrix(kernel, case.input_shape, **options)
        assert W.dtype == plain.dtype
        assert W.has_canonical_format
        np.testing.assert_allclose(W.toarray(), plain, rtol=1e-5, atol=1e-5 * abs(kernel).max())
        modes.add((case.padding_mode, case.truncated, case.has_channels))
    assert len(modes) == 20  # each padding mode, with all outputs and with the first ones, with channels and without


def test_all_outputs_is_the_default_of_the_oracles():
    kernel, options = (
        np.arange(1, 7.0).reshape(2, 3),
        {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2)},
    )
    plain = reference.matrix(kernel, (4, 5), **options)
    np.testing.assert_array_equal(reference.sparse_matrix(kernel, (4, 5), **options).toarray(), plain)


def test_a_case_depends_on_its_seed_and_number_alone():
    assert draw(3, 17) == draw(3, 17)
    assert draw(3, 17) != draw(3, 18)
    assert draw(3, 17) != draw(4, 17)


def test_cases_are_of_all_kinds():
    cases = [draw(1, number) for number in range(2000)]
    assert {len(case.stride) for case in cases} == {1, 2, 3, 4, 5}
    assert max(max(case.input_shape[-len(case.stride) :]) for case in cases) > 1000
    pairs = [pair for case in cases for pair in zip(case.input_shape[-len(case.stride) :], case.dilation, strict=True)]
    assert sum(dilation > size > 100 for size, dilation in pairs) > 10
    assert sum(case.truncated for case in cases) > 50
    assert sum(case.groups > 1 for case in cases) > 200
    assert sum(max(map(max, case.padding)) > max(case.input_shape) for case in cases) > 50
    assert {case.padding_mode for case in cases} == {"zeros", "circular", "reflect", "symmetric", "replicate"}


def test_every_threshold_is_drawn():
    """A new module-level number is drawn, too, or is said to be none."""
    for name, drawn in THRESHOLDS.items():
        numbers = {
            key
            for key, value in vars(importlib.import_module(name)).items()
            if re.fullmatch("_?[A-Z][A-Z_]*", key) and isinstance(value, int | float)
        }
        imported = {"PACKED"} if name == "convmat.engines._taps.taps" else set()  # which is of the module sweeps
        assert numbers - NO_THRESHOLDS - imported == set(drawn)


def test_thresholds_are_set_for_a_while():
    seen = [gemm.BLOCK]
    with patched({"convmat.engines._gemm.BLOCK": 7}):
        seen.append(gemm.BLOCK)
    seen.append(gemm.BLOCK)
    assert seen == [1 << 19, 7, 1 << 19]
    with pytest.raises(AttributeError, match="_NO_SUCH"):
        patched({"convmat.engines._gemm._NO_SUCH": 7}).__enter__()


def test_every_engine_is_reached_and_nothing_differs(capsys):
    assert fuzz.main(["--seed", "7", "--cases", "150", "--minutes", "10"]) == 0
    printed = capsys.readouterr().out
    assert "150 cases" in printed
    for name in ALL_ENGINES:
        there = "(" in re.search(f"{name}: .*", printed)[0] or f"{name}: 0 cases" not in printed
        assert there, printed


@pytest.fixture
def faulty(monkeypatch):
    """Products of the engine `gemm` that are wrong where there are several taps and outputs."""
    usual = gemm._Blocks.gather

    def gather(self, x, out):
        usual(self, x, out)
        if self.matrix.shape[2] > 1 and out.shape[-1] > 2:
            out[..., -1] += 1

    monkeypatch.setattr(gemm._Blocks, "gather", gather)


@pytest.mark.usefixtures("faulty")
def test_a_fault_is_found_made_small_and_shown(capsys):
    assert fuzz.main(["--seed", "1", "--minutes", "10", "--engines", "gemm", "--failures", "2"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("--seed 1 --case") == 2
    assert "2 differences" in printed
    number = int(re.search(r"--case (\d+)", printed)[1])
    case = smallest(draw(1, number), "gemm")
    assert (case.thresholds, case.batch, case.workers, case.flip) == ({}, (), 1, False)
    assert np.prod(case.kernel_shape) <= 2
    lines = reproduction(case, "gemm")
    assert lines.replace("\n", "") in printed.replace("\n", "")
    exec(lines, {})  # noqa: S102
    shown = [float(line) for line in capsys.readouterr().out.split()]
    assert max(shown) == pytest.approx(1)
    assert fuzz.main(["--seed", "1", "--case", str(number), "--engines", "gemm"]) == 1


@pytest.mark.parametrize("number", range(40))
@pytest.mark.parametrize("name", ["fft" if refusal() else "taps", "matrices"])
def test_reproductions_run(number, name, capsys):
    case = replace(draw(2, number), thresholds={})
    if name != "matrices" and np.dtype(case.dtype).kind in "iu":
        case = replace(case, dtype="float32")
    exec(reproduction(case, name), {})  # noqa: S102
    shown = [float(line) for line in capsys.readouterr().out.split()]
    scale = abs(kernel_of(case)).sum()
    assert len(shown) == 2
    assert max(shown) <= 1e-4 * scale


def test_what_an_engine_should_take_is_not_refused(monkeypatch):
    case = next(case for number in itertools.count() if (case := draw(1, number)).dtype == case.x_dtype == "float64")
    monkeypatch.setattr(type(ENGINES["gemm"]), "refuses", lambda *arguments: "it is tired")
    found = dict(check(case, ("gemm",), Counts()))
    assert "it is tired" in str(found["gemm"])


def test_an_interrupt_prints_the_counts(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fuzz, "draw", interrupted)
    assert fuzz.main(["--seed", "1"]) == 130
    assert "0 cases, 0 products, 0 matrices" in capsys.readouterr().out


def test_an_engine_that_is_never_reached_is_a_failure():
    counts = Counts()
    counts.reached["gemm"] = 1
    counts.absent["torch"] = "PyTorch is not installed"
    assert counts.unreached(("gemm", "torch", "fft")) == ["fft"]
