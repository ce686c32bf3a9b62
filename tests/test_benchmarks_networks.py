"""The benchmark of networks prints what it compares, or says what is not installed."""

from importlib.util import find_spec

from benchmarks import networks


def test_a_quick_run_prints_its_figures(capsys):
    assert networks.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("times as long") + printed.count("× as long as convmat") == 2 * (
        find_spec("torch") is not None
    )
    assert ("Without PyTorch" in printed) == (find_spec("torch") is None)
    assert ("Without onnx:" in printed) == (find_spec("onnx") is None)
