"""`python -m convmat network MODEL`: a table of stages, or a sentence."""

import numpy as np
import pytest

from convmat.commands._main import main

onnx = pytest.importorskip("onnx")


@pytest.fixture
def model(tmp_path):
    helper = onnx.helper
    kernel = onnx.numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"], "first"), helper.make_node("Relu", ["z"], ["y"], "second")]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1, "H", "W"]) for name in ("x", "y")]
    path = tmp_path / "model.onnx"
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [kernel])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_it_prints_the_report(model, capsys):
    assert main(["network", str(model), "--input-shape", "1", "8", "7", "--norms"]) == 0
    printed = capsys.readouterr().out
    assert "first" in printed
    assert f"{2 * 6 * 5 * 9}" in printed
    assert "2 stages, not affine, from 1 × 8 × 7 to 2 × 6 × 5, float32" in printed
    assert "‖f(x) − f(z)‖ ≤" in printed


def test_what_is_missing_is_said(model, tmp_path, capsys):
    assert main(["network", str(model)]) == 2
    assert "input_shape" in capsys.readouterr().err
    (tmp_path / "none.onnx").write_bytes(b"no model")
    assert main(["network", str(tmp_path / "none.onnx")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["network", str(tmp_path / "nowhere.onnx")]) != 0
    assert "nowhere.onnx" in capsys.readouterr().err
