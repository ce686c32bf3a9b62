"""What `auto` chooses while time goes by, on a virtual clock."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convmat import Convolution
from convmat.engines import Machine
from convmat.operators._host import HostProducts
from convmat.operators._products import _TRIAL
from tests.operators.simulation import INPUT, SlowEngine, SlowProducts, apply, operator_of, products_of

FLOAT = np.dtype(float)

pytestmark = pytest.mark.choice


def engine_of(operator):
    return operator._products._choices[False, FLOAT, 1].name


def times(low, high):
    return st.floats(np.log10(low), np.log10(high)).map(lambda exponent: 10**exponent)


@settings(max_examples=100, deadline=None)
@given(
    slow=times(1e-3, 1e-1),
    gain=times(1.3, 50),
    setup=st.one_of(st.just(0.0), times(1e-4, 1e-1)),
    loading=st.one_of(st.just(0.0), times(0.1, 5)),
)
def test_all_products_take_little_more_than_twice_the_best_in_hindsight(slow, gain, setup, loading):
    fast = slow / gain
    A = operator_of(products_of(SlowEngine("slow", slow), SlowEngine("fast", fast, setup, loading)))
    total, done = 0.0, 0
    for products in (1, 2, 3, 5, 10, 30, 100, 300, 1000):
        total += apply(A, products - done)
        done = products
        best = min(products * slow, setup + loading + products * fast)
        # One product comes before anything is known. A review may come a half too late, and a trial of engines that are
        # about as fast goes on for some milliseconds.
        assert total <= 2.3 * best + 3 * slow + 2 * fast + 2 * _TRIAL
    if gain > 2 and 1000 * (slow - fast) > 3 * (setup + loading):
        assert engine_of(A) == "fast"


def test_one_product_prepares_nothing_that_it_does_not_need():
    A = operator_of(products_of(SlowEngine("slow", 0.02), SlowEngine("fast", 0.001, 0.0, 3.0)))
    assert apply(A, 1) == pytest.approx(0.02)


def test_compiled_code_on_the_disk_is_loaded_early():
    for compiles, soon in ((True, False), (False, True)):
        A = operator_of(products_of(SlowEngine("slow", 0.02), SlowEngine("fast", 0.001, 0.0, 0.8, compiles)))
        apply(A, 10)
        assert (engine_of(A) == "fast") == soon


def test_operators_save_up_together():
    kind = products_of(SlowEngine("slow", 0.02), SlowEngine("fast", 0.001, 0.0, 1.0))
    seconds = [apply(operator_of(kind), 1) for _ in range(60)]
    assert seconds[:50] == pytest.approx([0.02] * 50)
    assert seconds[55:] == pytest.approx([0.001] * 5)
    assert sum(seconds) < 2.1 * 1.06


def test_kernels_share_what_was_measured_but_each_pays_its_setup():
    kind = products_of(SlowEngine("slow", 0.02), SlowEngine("fast", 0.001, 0.1))
    A = operator_of(kind)
    apply(A, 20)
    assert engine_of(A) == "fast"
    B = A.with_kernel(np.zeros(1))
    assert apply(B, 1) == pytest.approx(0.02)
    apply(B, 20)
    assert engine_of(B) == "fast"


def test_what_would_have_been_saved_beside_a_slow_engine_is_not_saved_beside_a_fast_one():
    """The third engine is a little faster than the second, and its code costs as much again."""
    slow, fast = SlowEngine("slow", 0.02), SlowEngine("fast", 0.001, 0.0, 3.0)
    A = operator_of(products_of(slow, fast, SlowEngine("faster", 0.0007, 0.0, 5.0)))
    apply(A, 1000)
    assert engine_of(A) == "fast"
    B = operator_of(type(A._products))
    apply(B, 1)
    assert engine_of(B) == "fast"


@pytest.mark.parametrize("wrong", [0.3, 2.5])
def test_wrong_estimates_are_found_out(wrong):
    engines = SlowEngine("first", 0.01), SlowEngine("second", 0.008, 0.05, wrong=wrong), SlowEngine("third", 0.02)
    A = operator_of(products_of(*engines))
    total = apply(A, 3000)
    assert engine_of(A) == "second"
    assert total < 1.1 * 3000 * 0.008


def test_an_engine_that_only_seems_faster_is_left_after_one_trial():
    A = operator_of(products_of(SlowEngine("right", 0.01), SlowEngine("wrong", 0.1, 0.02, wrong=0.02)))
    apply(A, 2)
    seen = set()
    for _ in range(200):
        apply(A, 1)
        seen.add(engine_of(A))
    assert seen == {"right"}


@pytest.mark.parametrize("wrong", [0.5, 3.0])
def test_the_result_of_a_trial_is_not_returned(wrong):
    kind = products_of(SlowEngine("first", 0.01, mark=1.0), SlowEngine("second", 0.0099, 0.01, wrong=wrong, mark=2.0))
    A, x = operator_of(kind), np.ones(INPUT)
    results = {float(A.apply(x)[0]) for _ in range(200)}
    assert ("second", FLOAT) in A._products._bound  # it has been tried, and is not faster by enough
    assert results == {1.0}


def test_a_trial_that_fails_changes_nothing(monkeypatch):
    kind = products_of(SlowEngine("right", 0.01, mark=1.0), SlowEngine("failing", 0.001, 0.01))
    A, x = operator_of(kind), np.ones(INPUT)

    def fail(self, x, out):
        out[...] = -1
        if self.engine.name == "failing":
            raise MemoryError
        return forward(self, x, out)

    forward = SlowProducts.forward
    monkeypatch.setattr(SlowProducts, "forward", fail)
    assert all(A.apply(x)[0] == 1.0 for _ in range(100))
    assert "its trial failed" in str(A.explain())


def test_engines_that_all_become_slower_are_not_exchanged():
    """Another process takes the cores for a while: what was measured before is no reason to change."""
    engines = SlowEngine("first", 0.02), SlowEngine("second", 0.01, 0.005), SlowEngine("third", 0.0105, 0.005)
    A = operator_of(products_of(*engines))
    apply(A, 300)
    seen = {engine_of(A)}
    for factor in (3.0, 1 / 3, 3.0, 1 / 3):
        for engine in engines:
            engine.seconds *= factor
        for _ in range(300):
            apply(A, 1)
            seen.add(engine_of(A))
    assert seen == {"second"}


def test_an_engine_that_was_left_is_tried_again():
    first, second = SlowEngine("first", 0.01), SlowEngine("second", 0.006, 0.005)
    A = operator_of(products_of(first, second))
    apply(A, 20)
    assert engine_of(A) == "second"
    first.seconds, second.seconds = 0.006, 0.009
    apply(A, 2000)
    assert engine_of(A) == "first"


def test_what_one_batch_has_prepared_is_prepared_for_others():
    kind = products_of(SlowEngine("slow", 0.02), SlowEngine("fast", 0.001, 0.1))
    A = operator_of(kind)
    apply(A, 20)
    A.apply(np.ones((3, INPUT)))
    assert A._products._choices[False, FLOAT, 3].name == "fast"


def test_a_large_first_product_counts_once():
    kind = products_of(SlowEngine("only", 2.0))
    kind._describe_machine = lambda self: Machine()
    kind._measure_machine = lambda self: Machine(measured=True)
    apply(operator_of(kind), 1)
    assert kind.ledger.spent == pytest.approx(2.0)


def test_explain_measures_no_machine():
    kind = products_of(SlowEngine("only", 2.0))
    kind._describe_machine = lambda self: Machine()
    kind.ledger.spent = 100.0
    kind._measure_machine = None
    operator_of(kind).explain()


def test_each_direction_dtype_and_batch_is_chosen_for():
    A = operator_of(products_of(SlowEngine("only", 0.01)))
    x = np.ones((2, INPUT))
    A.apply(x[0])
    A.apply(x)
    A.T.apply(x[0])
    A.apply(x[0].astype(complex))  # real and imaginary part, a batch of two
    assert set(A._products._choices) == {(False, FLOAT, 1), (False, FLOAT, 2), (True, FLOAT, 1)}


def test_explain_tells_what_auto_does_and_changes_nothing():
    A = operator_of(products_of(SlowEngine("slow", 0.02), SlowEngine("fast", 0.001, 0.0, 3.0)))
    before = str(A.explain())
    assert before == str(A.explain())
    assert "~20 ms" in before
    assert not A._products._choices
    apply(A, 3)
    assert " 20 ms" in str(A.explain())
    apply(A, 400)
    chosen = [estimate.engine for estimate in A.explain().estimates if estimate.chosen and not estimate.transposed]
    assert chosen == ["fast"] == [engine_of(A)]


def test_the_machine_is_measured_when_that_is_worth_it(monkeypatch):
    calls = []

    def measure(self):
        calls.append(self.ledger.spent)
        return Machine(measured=True)

    kind = products_of(SlowEngine("only", 0.01))
    monkeypatch.setattr(kind, "_describe_machine", lambda self: Machine())
    monkeypatch.setattr(kind, "_measure_machine", measure)
    A = operator_of(kind)
    apply(A, 30)
    assert not calls
    apply(A, 300)
    assert len(calls) == 1
    assert calls[0] >= 0.5


def test_threads_may_share_an_operator_that_is_under_review():
    A = Convolution(np.ones((3, 3)), (20, 20))
    x, expected = np.ones((20, 20)), np.full((18, 18), 9.0)
    wrong = []

    def multiply():
        for _ in range(300):
            wrong.extend([None] * (not np.array_equal(A.apply(x), expected)))

    threads = [threading.Thread(target=multiply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_interrupted_review_leaves_the_operator_usable(monkeypatch):
    A = operator_of(products_of(SlowEngine("slow", 0.02), SlowEngine("fast", 0.001)))
    monkeypatch.setattr(HostProducts, "_try", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(type(A._products).engines["fast"], "wrong", 40.0)
    apply(A, 1)
    monkeypatch.setattr(type(A._products).engines["fast"], "wrong", 1.0)
    with pytest.raises(KeyboardInterrupt):
        apply(A, 100)
    monkeypatch.undo()
    apply(A, 100)
    assert engine_of(A) == "fast"
