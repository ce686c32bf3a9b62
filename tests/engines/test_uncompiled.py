"""Where there is no compiled code: engines refuse with the reason, and products go on."""

import re
import sys

import numpy as np
import pytest

from convmat import Convolution
from convmat.engines import NO_LOADING, Machine
from convmat.engines._compiled import loader as compiled
from convmat.operators._host import HostProducts
from tests.processes import python

pytestmark = pytest.mark.choice

UNABLE = """
import numpy as np, convmat
from convmat.engines import NO_LOADING, Machine
from convmat.operators._host import HostProducts
HostProducts._loading = lambda *_: NO_LOADING  # so that auto tries them, whatever is cached
HostProducts._describe_machine = lambda _: Machine(workers=2, measured=True)
A = convmat.Convolution(np.ones((64, 64, 3, 3)), (64, 40, 40), padding=1)
y = A.apply(np.ones((64, 40, 40)))
print(y[0, 20, 20].round(9), y[0, 0, 0].round(9))
reasons = {e.engine: e.reason for e in A.explain().estimates}
print(reasons["taps"], ".", reasons["winograd"], sep="")
try:
    convmat.Convolution(np.ones((3, 3)), (8, 8), engine="taps").apply(np.ones((8, 8)))
except (RuntimeError, ValueError) as error:
    print("|", type(error).__name__, "|", error)
try:
    convmat.Convolution(np.ones((3, 3)), (8, 8), engine="taps")
except ValueError as error:
    print("|", error)
"""


def unable(before="", **environment):
    # What is left of memory is another number each time that it is asked for.
    printed = re.sub(r"it has [\d.]+ .?B left", "it has little left", " ".join(python(before + UNABLE, **environment)))
    values, kind, first, then = (part.strip() for part in printed.split("|"))
    assert values.startswith("576.0 256.0 ")
    reason = then.removeprefix("engine='taps' cannot do this convolution: ")
    assert values == f"576.0 256.0 {reason}.{reason}"
    assert first.startswith("engine='taps' cannot do this ")
    assert first.endswith(reason)
    return kind, reason


@pytest.mark.parametrize("setting", ["1", " 2"])
def test_numba_that_is_disabled(setting, tmp_path):
    pytest.importorskip("numba")
    for before in ("", "import numba\n"):
        assert unable(before, NUMBA_DISABLE_JIT=setting) == ("ValueError", "NUMBA_DISABLE_JIT is set")


@pytest.mark.parametrize("setting", ["0", "", "no"])
def test_numba_that_is_not_disabled(monkeypatch, setting):
    pytest.importorskip("numba")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", setting)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    assert compiled.refusal() is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "raise ImportError('Numba needs NumPy 2.3 or less. Got NumPy 2.4.')",
            "numba fails: ImportError: Numba needs NumPy 2.3 or less. Got NumPy 2.4",
        ),
        ("raise OSError(28, 'No space left on device')", "numba fails: OSError: [Errno 28] No space left on device"),
        ("x = 1", "numba fails: "),
    ],
)
def test_numba_that_cannot_be_imported(tmp_path, code, reason):
    (tmp_path / "numba.py").write_text(code)
    kind, said = unable(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n")
    assert said.startswith(reason)
    assert kind == "ValueError"


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits as on Linux")
@pytest.mark.parametrize(("limit", "name"), [("AS", "address space"), ("DATA", "data segment")])
@pytest.mark.parametrize("before", ["", "import numba\n"])
def test_little_memory(limit, name, before):
    pytest.importorskip("numba")
    field = {"AS": 0, "DATA": 5}[limit]
    before += (
        "import resource, numpy, scipy.sparse, convmat\n"
        f"used = int(open('/proc/self/statm').read().split()[{field}]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_{limit}, (used + (150 << 20),) * 2)\n"
    )
    kind, reason = unable(before, OPENBLAS_NUM_THREADS="1")
    assert kind == "ValueError"
    assert reason.startswith(f"the {name} is limited: it has ")


@pytest.fixture
def failing(fresh, monkeypatch):
    """A compiler that raises what is put into a list."""
    from convmat.engines._compiled import jit

    errors = []

    def fail(*_):
        raise errors[0]

    monkeypatch.setattr(jit, "compile_tile", fail)
    return errors


@pytest.fixture
def eager(monkeypatch):
    """A planner that counts no time to compile, on any machine."""
    monkeypatch.setattr(HostProducts, "_loading", lambda *_: NO_LOADING)
    monkeypatch.setattr(HostProducts, "_describe_machine", lambda _: Machine(workers=2, measured=True))


def chosen(operator):
    """Return the engine of the next product."""
    return next(estimate.engine for estimate in operator.explain().estimates if estimate.chosen)


def few_channels(engine="auto"):
    return Convolution(np.ones((64, 64, 3, 3)), (64, 40, 40), padding=1, engine=engine)


@pytest.mark.parametrize("error", [MemoryError(), OSError("no room."), RuntimeError("two\nlines"), AssertionError()])
def test_products_go_on_after_a_failure(failing, eager, error):
    failing.append(error)
    A, x = few_channels(), np.ones((64, 40, 40))
    assert chosen(A) in ("taps", "winograd", "winograd4")
    out = A.apply(x)
    assert out[0, 20, 20] == pytest.approx(576)
    assert not {name for name, _ in A._products._bound} <= {"taps", "winograd", "winograd4"}
    first = (str(error).splitlines() or [""])[0].rstrip(".")
    reason = f"numba fails: {type(error).__name__}: {first}".rstrip(": ")
    assert {e.engine: e.reason for e in A.explain().estimates}["taps"] == reason
    with pytest.raises(ValueError, match="engine='taps' cannot do this convolution: numba fails"):
        few_channels("taps")


@pytest.mark.parametrize("engine", ["taps", "winograd", "winograd4"])
def test_an_engine_by_name_says_why_it_fails(failing, engine):
    failing.append(MemoryError())
    A = few_channels(engine)
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=rf"^engine='{engine}' cannot do this product: numba fails: MemoryError$"
        ):
            A.apply(np.ones((64, 40, 40)))


def test_separable_goes_on_too(failing, eager):
    failing.append(OSError("full"))
    A = Convolution(np.ones((15, 15)), (300, 300))
    assert chosen(A) == "separable"
    assert A.apply(np.ones((300, 300)))[0, 0] == pytest.approx(225)
    assert chosen(A) in ("gemm", "fft", "csr")


def test_csr_goes_on_with_another_product(fresh, monkeypatch):
    from convmat.engines._compiled import jit
    from convmat.engines._csr import csr

    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr(jit, "compile_loop", fail)
    monkeypatch.setattr(csr, "_COMPILED", 0)
    A = Convolution(np.ones((3, 3)), (9, 9), engine="csr")
    for _ in range(2):
        np.testing.assert_array_equal(A.apply(np.ones((5, 9, 9))), np.full((5, 7, 7), 9))
    assert compiled.refusal() == "numba fails: OSError: full"


def test_an_engine_that_refuses_since_it_was_chosen_is_chosen_no_more(fresh, eager):
    A, x = few_channels(), np.ones((64, 40, 40))
    assert chosen(A) in ("taps", "winograd", "winograd4")
    compiled._failures.append("something else failed meanwhile")
    assert A.apply(x)[0, 20, 20] == pytest.approx(576)


def test_an_interrupt_is_no_failure(failing, monkeypatch):
    failing.append(KeyboardInterrupt())
    A, x = few_channels("taps"), np.ones((64, 40, 40))
    with pytest.raises(KeyboardInterrupt):
        A.apply(x)
    assert compiled.refusal() is None
    monkeypatch.undo()
    assert A.apply(x)[0, 20, 20] == pytest.approx(576)
