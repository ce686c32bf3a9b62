"""The benchmark of inverse problems prints its tables."""

import numpy as np
import pytest

from benchmarks import inverse


def test_a_quick_run_prints_its_tables(capsys):
    pytest.importorskip("matplotlib")
    assert inverse.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\nspeckle") == 8
    assert "times the best error, median" in printed


def test_blurs_keep_the_brightness():
    for kernel in inverse.blurs(9).values():
        assert kernel.sum() == pytest.approx(1)
        assert np.all(kernel >= 0)
