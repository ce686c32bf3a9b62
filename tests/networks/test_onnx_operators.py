"""Operators of ONNX with options that its own cases do not have, against its reference implementation."""

import itertools

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from convmat.networks import from_onnx

RNG = np.random.default_rng(0)


def single(op, shape, *others, place=0, version=21, **options):
    """Return a model of one node, whose data input is `x` and whose others are constants."""
    names = [f"c{index}" for index in range(len(others))]
    weights = [numpy_helper.from_array(np.asarray(v), n) for n, v in zip(names, others, strict=True) if v is not None]
    inputs = ["" if v is None else n for n, v in zip(names, others, strict=True)]
    inputs.insert(place, "x")
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"], **options)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)],
        [helper.make_empty_tensor_value_info("y")],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])


def check(model, x, expected=None, tolerance=1e-11):
    """Compare a network with the reference, and its map with the network."""
    net = from_onnx(model)
    if expected is None:
        (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    given = x.reshape(net.input_shape)
    np.testing.assert_allclose(net(given), expected.reshape(net.output_shape), rtol=tolerance, atol=tolerance)
    near = net.at(given)
    np.testing.assert_allclose(near.apply(given), net(given), rtol=1e-9, atol=1e-9)
    step = RNG.standard_normal(given.shape)
    slope = (net(given + 1e-6 * step) - net(given - 1e-6 * step)) / 2e-6
    np.testing.assert_allclose(near.matrix.apply(step), slope, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        near.matrix.tocsr() @ step.ravel(), near.matrix.apply(step).ravel(), rtol=1e-9, atol=1e-9
    )


COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
KINDS = [
    {"mode": "nearest", "nearest_mode": mode} for mode in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
]
KINDS += [
    {"mode": mode, "antialias": antialias, "exclude_outside": excludes}
    for mode, antialias, excludes in itertools.product(("linear", "cubic"), (0, 1), (0, 1))
]


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_resize(coordinates):
    region = np.array([0, 0, 0.13, -0.2, 1, 1, 0.87, 1.09], np.float32)
    for kind, sizes in itertools.product(KINDS, ([1.37, 0.61], [0.73, 2.29], (4, 9), (11, 3))):
        given = np.array([1, 2, *sizes]) if isinstance(sizes, tuple) else np.array([1, 1, *sizes], np.float32)
        constants = (region, None, given) if isinstance(sizes, tuple) else (region, given)
        model = single(
            "Resize",
            (1, 2, 7, 8),
            *constants,
            coordinate_transformation_mode=coordinates,
            extrapolation_value=3.5,
            **kind,
        )
        check(model, RNG.standard_normal((1, 2, 7, 8)), tolerance=1e-5)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_keeps_the_ratio_of_sides(policy):
    options = {"axes": [3, 2], "keep_aspect_ratio_policy": policy, "mode": "linear"}
    model = single("Resize", (1, 2, 5, 7), None, None, np.array([8, 11]), **options)
    check(model, RNG.standard_normal((1, 2, 5, 7)), tolerance=1e-5)


@pytest.mark.parametrize(
    ("shape", "matrix", "place"),
    [
        ((3, 4), (4, 5), 0),
        ((3, 4), (5, 3), 1),
        ((4,), (4, 5), 0),
        ((4,), (5, 4), 1),
        ((4,), (4,), 0),
        ((2, 3, 4), (4,), 0),
        ((2, 3, 4), (3,), 1),
        ((2, 3, 4), (4, 5), 0),
        ((2, 3, 4), (5, 3), 1),
        ((3, 4), (1, 1, 4, 5), 0),
        ((2, 3, 4), (2, 4, 5), 0),
        ((2, 3, 4), (2, 5, 3), 1),
        ((2, 1, 3, 4), (3, 4, 5), 0),
        ((2, 1, 3, 4), (3, 5, 3), 1),
        ((3, 4), (2, 4, 5), 0),
        ((4,), (2, 4, 5), 0),
        ((4,), (2, 5, 4), 1),
    ],
)
def test_products_with_matrices(shape, matrix, place):
    weights = RNG.standard_normal(matrix)
    check(single("MatMul", shape, weights, place=place), RNG.standard_normal(shape))


@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("place", [0, 1])
def test_gemm(flags, place):
    options = {"transA": flags[0], "transB": flags[1], "alpha": 0.5, "beta": 2.0}
    shapes = [(4, 3) if flags[0] else (3, 4), (5, 4) if flags[1] else (4, 5)]
    weights = RNG.standard_normal(shapes[1 - place])
    check(
        single("Gemm", shapes[place], weights, RNG.standard_normal(5), place=place, **options),
        RNG.standard_normal(shapes[place]),
    )


# (size, taps, options of ConvTranspose), and the size that comes out
TRANSPOSED = [
    (4, 3, {"strides": [2], "output_padding": [1]}, 10),
    (4, 3, {"strides": [2], "pads": [1, 0], "output_padding": [1]}, 9),
    (4, 2, {"strides": [3], "output_padding": [2]}, 13),
    (4, 2, {"strides": [2], "dilations": [4], "output_padding": [3]}, 14),
    (4, 3, {"strides": [2], "output_shape": [7]}, 7),
    (4, 3, {"strides": [2], "output_shape": [7], "auto_pad": "SAME_UPPER"}, 7),
    (4, 3, {"strides": [2], "output_shape": [13]}, 13),
    (4, 3, {"strides": [2], "auto_pad": "SAME_LOWER"}, 8),
    (4, 3, {"strides": [2], "auto_pad": "VALID"}, 9),
]


def transposed(x, kernel, bias, size, begin, stride, dilation):
    """Return what each number adds to an output of the given size; `begin` numbers are cut off before it."""
    whole = np.zeros((kernel.shape[1], size + 99))
    for channel, place, tap in np.ndindex(*x.shape, kernel.shape[2]):
        whole[:, place * stride + tap * dilation] += x[channel, place] * kernel[channel, :, tap]
    return whole[:, begin : begin + size] + bias[:, None]


@pytest.mark.parametrize(("size", "taps", "options", "outputs"), TRANSPOSED)
def test_transposed_convolutions(size, taps, options, outputs):
    kernel, bias, x = RNG.standard_normal((2, 3, taps)), RNG.standard_normal(3), RNG.standard_normal((1, 2, size))
    stride, dilation = options["strides"][0], options.get("dilations", [1])[0]
    cut = max(0, (size - 1) * stride + (taps - 1) * dilation + 1 - outputs)
    is_upper = options.get("auto_pad") == "SAME_UPPER"
    begin = options["pads"][0] if "pads" in options else cut // 2 if is_upper else cut - cut // 2
    expected = transposed(x[0], kernel, bias, outputs, begin, stride, dilation)
    check(single("ConvTranspose", x.shape, kernel, bias, **options), x, expected)


@pytest.mark.parametrize(
    ("pads", "mode", "expected"),
    [
        ([1, -2], "constant", [7, 0, 1, 2]),
        ([-1, 2], "constant", [1, 2, 3, 4, 7, 7]),
        ([2, 2], "reflect", [2, 1, 0, 1, 2, 3, 4, 3, 2]),
        ([2, 1], "edge", [0, 0, 0, 1, 2, 3, 4, 4]),
        ([2, 1], "wrap", [3, 4, 0, 1, 2, 3, 4, 0]),
    ],
)
def test_pads(pads, mode, expected):
    model = single("Pad", (2, 5), np.array(pads), np.float64(7), np.array([-1]), mode=mode)
    check(model, np.stack([np.arange(5.0)] * 2), np.array([expected] * 2, float))


@pytest.mark.parametrize(
    ("op", "shape", "others", "options"),
    [
        ("ReduceMax", (2, 3, 4), [np.array([0, 2])], {"keepdims": 0}),
        ("ReduceMin", (2, 3, 4), [np.array([-2])], {"keepdims": 1}),
        ("ReduceL1", (2, 3, 4), [np.array([1])], {}),
        ("ReduceL2", (2, 3, 4), [np.array([1, 2])], {"keepdims": 0}),
        ("ReduceSum", (2, 3, 4), [np.zeros(0, np.int64)], {"noop_with_empty_axes": 1}),
        ("ReduceSum", (2, 3, 4), [], {"keepdims": 0}),
        ("Gather", (4, 3), [np.array([[0, -1], [2, 2]])], {"axis": 0}),
        ("GatherElements", (4, 3), [np.array([[0, -1, 2], [2, 2, 1]])], {"axis": 0}),
        ("GatherElements", (2, 3), [np.array([[0, -1], [2, 2]])], {"axis": 1}),
        ("GatherND", (3, 4, 5), [np.array([[1], [-1], [2]])], {"batch_dims": 1}),
        ("ReverseSequence", (4, 3), [np.array([2, 4, 1])], {"time_axis": 0, "batch_axis": 1}),
        ("ReverseSequence", (3, 4, 2), [np.array([2, 4, 1])], {"time_axis": 1, "batch_axis": 0}),
        ("ScatterElements", (4, 3), [np.array([[1, -1]]), np.array([[0.5, 0.25]])], {"axis": 1}),
        ("ScatterND", (4, 3), [np.array([[1], [3]]), np.ones((2, 3))], {}),
        ("Trilu", (4, 5), [np.array(1)], {"upper": 0}),
        ("Expand", (3, 1), [np.array([2, 1, 4])], {}),
        ("Max", (3, 1), [np.zeros(4), np.full(1, 0.5)], {}),
        ("Mean", (3, 4), [np.arange(4.0), np.full(1, 0.5)], {}),
        ("Sub", (3,), [np.arange(6.0).reshape(2, 3)], {"place": 1}),
        ("Div", (3, 1), [np.arange(1.0, 5)], {"place": 1}),
        ("Softmax", (3, 4), [], {"axis": 0}),
        ("LogSoftmax", (3, 4), [], {"axis": -2}),
        ("Celu", (3, 4), [], {"alpha": 2.0, "version": 12}),
        ("Clip", (3, 4), [None, np.float64(0.3)], {}),
        ("AveragePool", (1, 2, 9), [], {"kernel_shape": [3], "strides": [2], "dilations": [2], "pads": [1, 2]}),
        ("MaxPool", (1, 2, 9), [], {"kernel_shape": [2], "strides": [3], "ceil_mode": 1, "dilations": [2]}),
        ("Conv", (1, 2, 9), [np.ones((4, 1, 3))], {"auto_pad": "SAME_LOWER", "group": 2, "dilations": [2]}),
    ],
)  # fmt: skip
def test_other_operators(op, shape, others, options):
    check(single(op, shape, *others, **options), RNG.standard_normal(shape), tolerance=1e-7)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_responses_are_divided_by_those_of_neighbours(size):
    x = RNG.standard_normal((1, 5, 2, 2))
    sums = np.zeros_like(x)
    for channel in range(5):
        sums[:, channel] = (x[:, max(0, channel - (size - 1) // 2) : channel + size // 2 + 1] ** 2).sum(axis=1)
    expected = x / (1.5 + 0.5 / size * sums) ** np.float64(0.75)
    check(single("LRN", x.shape, size=size, alpha=0.5, beta=0.75, bias=1.5), x, expected)


def test_normalised_over_some_axes():
    x = RNG.standard_normal((2, 3, 4, 5))
    expected = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True)
    check(single("MeanVarianceNormalization", x.shape, axes=[0, 2, 3]), x, expected, 1e-7)


def test_old_softmax_takes_all_axes_from_one_on():
    x = RNG.standard_normal((2, 3, 4))
    shares = np.exp(x) / np.exp(x).sum(axis=(1, 2), keepdims=True)
    check(single("Softmax", x.shape, version=11, axis=1), x, shares)
    check(single("LogSoftmax", x.shape, version=11), x, np.log(shares))


def test_fewer_elements_may_be_gathered():
    x = RNG.standard_normal((4, 3))
    check(single("GatherElements", x.shape, np.array([[0, -1]]), axis=0), x, np.array([[x[0, 0], x[-1, 1]]]))


def test_powers():
    x = RNG.standard_normal((2, 3))
    check(single("Pow", (2, 3), np.array([0.0, 1, 3])), x)
    check(single("Pow", (2, 3), np.array([0.5, -2, 3])), abs(x) + 0.1)
    check(single("Pow", (2, 3), np.array([0.5, 2, 3]), place=1), x)
    with pytest.raises(ValueError, match="constant base or exponent"):
        from_onnx(both("Pow"))
    with pytest.raises(ValueError, match="base that is positive"):
        from_onnx(single("Pow", (2, 3), np.array(-1.0), place=1))


def both(op):
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_empty_tensor_value_info("y")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_old_versions_say_which_axes_are_repeated():
    model = single("Add", (2, 3, 4), np.arange(3.0), version=6, broadcast=1, axis=1)
    x = RNG.standard_normal((2, 3, 4))
    check(model, x, x + np.arange(3.0)[:, None])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (single("Mish", (2, 3), version=13), "Mish .* must be an operator that the model imports"),
        (single("Cast", (2, 3), to=TensorProto.INT64), "must cast to real numbers .* got INT64"),
        (single("Dropout", (2, 3), np.float32(0.5), np.array(True)), "training mode"),
        (single("ScatterND", (4, 3), np.array([[1]]), np.ones((1, 3)), reduction="add"), "without reduction, got 'add'"),
        (single("Resize", (1, 1, 4, 4), None, np.array([1, 1, 2], np.float32)), "sizes or scales for 4 axes"),
        (single("Gather", (4, 3), np.array([7])), "Gather"),
        (single("ReduceSum", (4, 3), np.array([2])), "must have axes of 2, got"),
        (single("MatMul", (4, 3), np.ones((4, 4))), "fit together"),
        (single("AveragePool", (1, 2, 3), kernel_shape=[5]), "window that fits"),
        (single("Pad", (2, 5), np.array([1, 2])), "two pads for each of 2 axes, got 2"),
        (single("Reshape", (2, 5), np.array([3, -1])), "Reshape"),
        (single("Reshape", (2, 5), np.array([2, 5]), place=1), "constant input 2|fit together"),
    ],
)  # fmt: skip
def test_what_is_refused(model, words):
    with pytest.raises(ValueError, match=words) as caught:
        from_onnx(model)
    assert str(caught.value).startswith("node 1 of 1, ")
