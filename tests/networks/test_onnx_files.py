"""ONNX files that say odd things: functions, other files, other versions, sizes that are not true."""

import os
import time

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser

from convmat.networks import from_onnx
from tests.networks.test_onnx import CONV, DATA, KERNEL, model

HEAD = '<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[N, 3] x) => (float[N, 3] y) '


def calling(body, *functions):
    """Return a model whose graph has a body, with functions of the domain `own`."""
    own = parser.parse_model(HEAD + body)
    head = '<opset_import: ["": 17, "own": 1], domain: "own"> '
    own.functions.extend(parser.parse_function(head + each) for each in functions)
    return own


def test_functions_are_written_out():
    net = from_onnx(
        calling(
            "{ y = own.twice(x) }",
            "twice (a) => (b) { c = own.root(a)  b = Add(c, c) }",
            "root (a) => (b) { b = Relu(a) }",
        )
    )
    assert [stage.op for stage in net.stages] == ["Relu", "Add"]
    np.testing.assert_array_equal(net(np.array([-1.0, 0.5, 2])), [0, 1, 4])


def test_functions_that_call_themselves_or_grow_without_end_are_refused():
    with pytest.raises(ValueError, match="must not call themselves, got 'again'"):
        from_onnx(calling("{ y = own.again(x) }", "again (a) => (b) { b = own.again(a) }"))
    doubling = [f"f{n} (a) => (b) {{ c = own.f{n + 1}(a)  b = own.f{n + 1}(c) }}" for n in range(60)]
    with pytest.raises(ValueError, match="at most 131072 nodes"):
        from_onnx(calling("{ y = own.f0(x) }", *doubling, "f60 (a) => (b) { b = Relu(a) }"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: setattr(m, "ir_version", 1000), "IR version up to"),
        (lambda m: setattr(m.opset_import[0], "version", 1000), "in a version from 1 to"),
        (lambda m: m.ClearField("opset_import"), "got none"),
        (lambda m: m.graph.ClearField("output"), "without a graph that has outputs"),
        (lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"), "Conv of domain 'com.microsoft' 'y'"),
        (lambda m: m.graph.node[0].input.__setitem__(1, "z"), "'z', which node 1 of 1, Conv, reads"),
        (lambda m: m.graph.initializer[0].ClearField("raw_data"), "must hold the numbers of its shape"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -1), "negative size"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT32), "real numbers.*INT32"),
        (
            lambda m: setattr(m.graph.node[0], "name", "first\nlayer") or setattr(m.graph.node[0], "op_type", "Loop"),
            "Loop",
        ),
        (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("pads", [1 << 40] * 4)), "at most"),
        (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("strides", [0, 1])), "positive"),
        (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("strides", [1])), "2 strides"),
    ],
)
def test_what_a_model_must_have(change, words):
    own = model([CONV], [KERNEL])
    change(own)
    with pytest.raises(ValueError, match=words) as caught:
        from_onnx(own)
    assert "\n" not in str(caught.value)


def test_several_inputs_are_named():
    own = model([("Add", ["x", "z"], "y", {})])
    own.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1,)))
    with pytest.raises(ValueError, match="one input, got 2: 'x', 'z'"):
        from_onnx(own)
    own.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "z"))
    assert from_onnx(own).is_affine


def test_outputs_that_are_constant_are_refused():
    with pytest.raises(ValueError, match="'y' must depend on the model's input 'x'"):
        from_onnx(model([("Shape", ["x"], "y", {})]))


def set_elsewhere(tensor, place):
    """Say that the numbers of a tensor are in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=place)


def test_external_data_are_read_from_the_models_own_folder(tmp_path):
    own = model([CONV], [KERNEL])
    (tmp_path / "outside").write_bytes(own.graph.initializer[0].raw_data)
    folder = tmp_path / "inside"
    folder.mkdir()
    for place in ("../outside", str(tmp_path / "outside")):
        set_elsewhere(own.graph.initializer[0], place)
        (folder / "m.onnx").write_bytes(own.SerializeToString())
        with pytest.raises(ValueError, match="external data of tensor 'w' must be in the model's folder"):
            from_onnx(folder / "m.onnx")
        with pytest.raises(ValueError, match="must be given as a path"):
            from_onnx(own.SerializeToString())


def test_constants_of_other_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(os.urandom(16))
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "t")
    set_elsewhere(tensor, "secret")
    nodes = [("Constant", [], "c", {"value": tensor}), ("Add", ["x", "c"], "y", {})]
    with pytest.raises(ValueError, match="in another file"):
        from_onnx(model(nodes, shape=("N", 4)))


def test_sparse_tensors_are_refused():
    own = model([("Add", ["x", "s"], "y", {})], shape=("N", 4))
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    own.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))
    with pytest.raises(ValueError, match="'s'"):
        from_onnx(own)


def test_what_only_a_shape_is_read_of_is_no_stage():
    nodes = [("Sigmoid", ["x"], "s", {}), ("Shape", ["s"], "n", {}), ("Reshape", ["x", "n"], "y", {})]
    net = from_onnx(model(nodes))
    assert [stage.op for stage in net.stages] == ["Reshape"]
    assert net.is_affine


def test_a_network_may_be_its_input():
    net = from_onnx(model([("Identity", ["x"], "y", {})], shape=(1, 4)))
    assert not net.stages
    np.testing.assert_array_equal(net(np.arange(4.0)), np.arange(4))
    np.testing.assert_array_equal(net.affine().matrix.tocsr().toarray(), np.eye(4))


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "shufflenet"])
def test_published_networks_are_read_soon(name):
    path = DATA / "light" / f"light_{name}.onnx"
    if not path.exists():
        return
    start = time.perf_counter()
    net = from_onnx(path)
    assert net.report()
    assert time.perf_counter() - start < 10
    assert net.input_shape == (3, 224, 224)
    assert net.output_shape[0] == 1000
