"""Networks from ONNX compute what ONNX's own test cases say, and what is no such network is refused with a sentence."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from convmat.networks import from_onnx

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
READ = re.compile(
    "test_(abs|add|averagepool|basic_conv|batchnorm|celu|clip|concat|constant_pad|conv|convtranspose|depthtospace|div|dropout"
    "|edge_pad|elu|erf|exp|expand|flatten|gather|gelu|gemm|globalaveragepool|globalmaxpool|group_normalization|hardsigmoid"
    "|hardswish|identity|instancenorm|layer_normalization|leakyrelu|log|logsoftmax|matmul|max|maxpool|mean|min|mish|mul|neg"
    "|pow|prelu|reciprocal|reduce_mean|reduce_sum|reflect_pad|relu|reshape|resize|scatter|selu|sigmoid|slice|softmax|softplus"
    "|softsign|spacetodepth|split|sqrt|squeeze|sub|sum|tanh|tile|transpose|trilu|unsqueeze|where|wrap_pad)(_|$)"
)
# What no network of stages is: training, other types, other outputs than values, reductions into places, no numbers at all.
OUTSIDE = re.compile(
    "training|sequence|_opt$|with_argmax|split_to_|expanded|zero_size|empty_set|out_of_bounds|reduction"
    "|duplicate|scatternd_(add|multiply|max|min)|scatter_with|allowzero|float8|bfloat16|uint|_int|zipmap|string"
    "|nchw_nhwc|mask"
)
REAL = (np.float32, np.float64)


def node_cases():
    """Yield names and ONNX's cases: a model whose other inputs are constants, the input and the output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in cases:
        if not READ.match(case.name) or OUTSIDE.search(case.name) or case.model is None:
            continue
        inputs, outputs = ([np.asarray(each) for each in side] for side in case.data_sets[0])
        for number, x in enumerate(inputs):
            if x.dtype in REAL and outputs[0].dtype in REAL:
                model = onnx.ModelProto()
                model.CopyFrom(case.model)
                graph = model.graph
                names = [each.name for each in graph.input]
                kept = [graph.input[number]]
                graph.ClearField("input")
                graph.input.extend(kept)
                others = zip(names, inputs, strict=True)
                graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in others if n != names[number])
                yield f"{case.name[5:]}-{number}", model, number, x, outputs[0]


def refusal(source, shape):
    """Return a network, or why there is none."""
    try:
        return from_onnx(source, shape, output=0), ""
    except ValueError as error:
        return None, str(error)


def difference(model, number, x, expected):
    """Return what is wrong with the network of a case, or nothing."""
    net, why = refusal(model, x.shape)
    if net is None:  # only what stands for a weight may be refused: its map is not known
        return "" if number > 0 or "exponent" in why else why
    found = net(x.reshape(net.input_shape))
    size = max(1.0, float(abs(expected).max(initial=0.0)))
    precise = 1e-4 if "starts_on_pad" in model.graph.name else 2e-5  # that case is written down with few digits
    if found.size != expected.size or abs(found.ravel() - expected.ravel()).max(initial=0.0) > precise * size:
        return "another result"
    wide, point = net.astype(np.float64), x.reshape(net.input_shape).astype(np.float64)
    near = wide.at(point)
    if abs(near.apply(point) - wide(point)).max(initial=0.0) > 1e-9 * size:
        return "another map"
    if any(op in model.graph.name for op in ("relu", "max", "min", "clip", "hard", "abs", "elu", "pow")):
        return ""  # at kinks, and at 0 of powers, there are no differences to compare with
    step = np.random.default_rng(0).standard_normal(point.shape)
    change = (wide(point + 1e-7 * step) - wide(point - 1e-7 * step)) / 2e-7
    slope = near.matrix.apply(step)
    size = max(size, float(abs(slope).max(initial=0.0)))
    return "" if np.allclose(slope, change, rtol=1e-3, atol=1e-4 * size) else "another slope"


def test_single_nodes():
    wrong, count = {}, 0
    for name, *case in node_cases():
        count += 1
        if found := difference(*case):
            wrong[name] = found
    assert not wrong
    assert count > 400


def shipped(kind):
    return sorted((DATA / kind).glob("*/model.onnx"))


def load(path):
    tensor = TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


@pytest.mark.parametrize(
    "path", [*shipped("pytorch-converted"), *shipped("pytorch-operator")], ids=lambda p: p.parent.name
)
def test_models_that_pytorch_exported(path):
    data = path.parent / "test_data_set_0"
    if len(list(data.glob("input_*.pb"))) != 1:
        return
    x, expected = load(data / "input_0.pb"), load(data / "output_0.pb")
    net, why = refusal(path, x.shape)
    if net is None:
        assert "must " in why
        assert not re.match("test_(Conv|AvgPool|MaxPool|BatchNorm|Linear|ReLU)", path.parent.name), why
        return
    size = max(1.0, float(abs(expected).max()))
    np.testing.assert_allclose(net(x.reshape(net.input_shape)).ravel(), expected.ravel(), atol=2e-5 * size, rtol=0)


def test_most_shipped_models_are_read():
    paths = [*shipped("pytorch-converted"), *shipped("pytorch-operator")]
    if not paths:
        return
    shapes = [load(path.parent / "test_data_set_0" / "input_0.pb").shape for path in paths]
    count = sum(refusal(path, shape)[0] is not None for path, shape in zip(paths, shapes, strict=True))
    assert count >= 0.8 * len(paths)


# Models of our own


def model(nodes, weights=(), shape=("N", 2, 6, 6), outputs=("y",)):
    """Return a model with the input x."""
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [out], out, **options) for op, inputs, out, options in nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


KERNEL = ("w", np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype(np.float32))
CONV = ("Conv", ["x", "w"], "y", {})


def test_shapes_that_are_computed_are_constants():
    nodes = [
        ("Shape", ["x"], "shape", {}),
        ("Gather", ["shape", "first"], "batch", {}),
        ("Concat", ["batch", "rest"], "wanted", {"axis": 0}),
        ("Reshape", ["x", "wanted"], "y", {}),
    ]
    net = from_onnx(model(nodes, [("first", np.array([0])), ("rest", np.array([-1]))]))
    assert net.input_shape == (2, 6, 6)
    assert net.output_shape == (72,)
    assert [stage.op for stage in net.stages] == ["Reshape"]
    x = np.random.default_rng(1).standard_normal((4, 2, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(net(x), x.reshape(4, 72))


def test_the_batch_axis_is_left_out_where_it_is_open_or_one():
    assert from_onnx(model([CONV], [KERNEL])).input_shape == (2, 6, 6)
    assert from_onnx(model([CONV], [KERNEL], (1, 2, 6, 6))).output_shape == (3, 4, 4)
    assert from_onnx(model([CONV], [KERNEL], (5, 2, 6, 6))).input_shape == (5, 2, 6, 6)
    open_sizes = model([CONV], [KERNEL], ("N", 2, "H", "W"))
    assert from_onnx(open_sizes, (2, 7, 8)).output_shape == (3, 5, 6)
    assert from_onnx(open_sizes, (3, 2, 7, 8)).input_shape == (3, 2, 7, 8)
    with pytest.raises(ValueError, match=r"open sizes \(N, 2, H, W\): input_shape must be given"):
        from_onnx(open_sizes)
    with pytest.raises(ValueError, match=r"(input_shape|shape)"):
        from_onnx(open_sizes, (4, 7, 8))


def test_the_dtype_is_the_models_or_another():
    assert from_onnx(model([CONV], [KERNEL])).dtype == np.float32
    assert from_onnx(model([CONV], [KERNEL]), dtype=np.float64).dtype == np.float64
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        from_onnx(model([CONV], [KERNEL]), dtype="int32")


def test_an_output_is_chosen():
    both = model([("Relu", ["x"], "y", {}), ("Sigmoid", ["x"], "z", {})], outputs=("y", "z"))
    with pytest.raises(ValueError, match=r"'y'.*'z'"):
        from_onnx(both)
    assert [stage.op for stage in from_onnx(both, output="z").stages] == ["Sigmoid"]
    assert [stage.op for stage in from_onnx(both, output=0).stages] == ["Relu"]


def test_files_and_bytes(tmp_path):
    own = model([CONV], [KERNEL])
    onnx.save(own, tmp_path / "own.onnx")
    x = np.ones((2, 6, 6), np.float32)
    for source in (tmp_path / "own.onnx", str(tmp_path / "own.onnx"), own.SerializeToString(), own):
        np.testing.assert_array_equal(from_onnx(source)(x), from_onnx(own)(x))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x00" * 100])
def test_what_is_no_model_is_said(content, tmp_path):
    path = tmp_path / "file.onnx"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ValueError, match=r"(model|graph)"):
            from_onnx(source)


def test_a_truncated_model_is_refused():
    whole = model([CONV], [KERNEL]).SerializeToString()
    for size in (10, 50, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ValueError, match=r"\w+ must|model"):
            from_onnx(whole[:size])


def test_external_data_that_are_missing_are_said(tmp_path):
    big = model([CONV], [KERNEL])
    onnx.save_model(
        big,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="d",
        size_threshold=0,
    )
    assert from_onnx(tmp_path / "m.onnx").output_shape == (3, 4, 4)
    (tmp_path / "d").unlink()
    with pytest.raises(ValueError, match=r"external|data"):
        from_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("nodes", "weights", "words"),
    [
        ([("NonMaxSuppression", ["x", "x"], "y", {})], [], "NonMaxSuppression"),
        ([("Relu", ["x"], "r", {}), ("ArgMax", ["r"], "y", {})], [], "node 2 of 2, ArgMax"),
        ([("RandomNormalLike", ["x"], "y", {})], [], "RandomNormalLike"),
    ],
)
def test_operators_that_no_stage_has_are_named_with_their_place(nodes, weights, words):
    with pytest.raises(ValueError, match=words):
        from_onnx(model(nodes, weights))


def test_control_flow_is_refused():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "branch", [], [helper.make_empty_tensor_value_info("z")]
    )
    node = ("If", ["flag"], "y", {"then_branch": branch, "else_branch": branch})
    with pytest.raises(ValueError, match="If"):
        from_onnx(model([node], [("flag", np.array(True))]))


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([("ConstantOfShape", ["n"], "c", {}), ("Add", ["x", "c"], "y", {})], [("n", np.array([1 << 40]))]),
        ([("Expand", ["x", "n"], "y", {})], [("n", np.array([1 << 20, 1 << 10, 1, 2, 6, 6]))]),
        ([("Tile", ["x", "n"], "y", {})], [("n", np.array([1 << 30, 1, 1, 1]))]),
        ([("Range", ["a", "b", "c"], "r", {}), ("Gather", ["x", "r"], "y", {})],
         [("a", np.array(0)), ("b", np.array(1 << 40)), ("c", np.array(1))]),
        ([("Pad", ["x", "n"], "y", {})], [("n", np.array([0, 0, 0, 0, 0, 0, 1 << 20, 1 << 20]))]),
        ([("Resize", ["x", "", "n"], "y", {"mode": "linear"})], [("n", np.array([1, 1, 1e5, 1e5], np.float32))]),
    ],
)  # fmt: skip
def test_shapes_that_are_absurd_are_refused_before_memory_is_taken(nodes, weights):
    with pytest.raises((ValueError, MemoryError), match=r"must|needs"):
        from_onnx(model(nodes, weights))


def test_a_tensor_that_lies_about_its_shape_is_refused():
    own = model([CONV], [KERNEL])
    own.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(ValueError, match=r"\w"):
        from_onnx(own)
    with pytest.raises(ValueError, match="at most"):
        from_onnx(model([("Relu", ["x"], "y", {})], [], (1, 1 << 40)))
