"""The benchmark of inverse problems prints its tables."""

from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks import inverse


def test_a_quick_run_prints_its_tables(capsys):
    pytest.importorskip("matplotlib")
    assert inverse.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\nspeckle") == 8
    assert "times the best error, median" in printed
    for name in ("pylops", "skimage"):
        assert (f"{name} is not installed" in printed) == (find_spec(name) is None)
    assert printed.count("PyLops") == 2 * (find_spec("pylops") is not None)


def test_blurs_keep_the_brightness():
    for kernel in inverse.blurs(9).values():
        assert kernel.sum() == pytest.approx(1)
        assert np.all(kernel >= 0)
