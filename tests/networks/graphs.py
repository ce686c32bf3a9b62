"""Networks that are made stage by stage, one for each kind of step."""

import numpy as np

from convmat.geometry import Axis
from convmat.networks import Network
from convmat.networks import _elementary as elementary
from convmat.networks._builder import Builder

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((4, 2, 3, 3))


def layers(b):
    x = b.convolve("conv", b.input, KERNEL, RNG.standard_normal(4), padding=1)
    x = b.elementwise("relu", x, elementary.relu)
    x = b.max_pool("pool", x, [Axis(6, 2, 2, 0, 0, 1, 3), Axis(5, 3, 2, 1, 1, 1, 3)])
    x = b.normalise_channels("norm", x, RNG.standard_normal(4), RNG.standard_normal(4))
    x = b.move("flatten", "Flatten", lambda p: p.reshape(1, -1), [x])
    return b.along("linear", "Gemm", x, {1: RNG.standard_normal((5, x.shape[1]))}, RNG.standard_normal(5))


def skip(b):
    x = b.convolve("first", b.input, RNG.standard_normal((2, 2, 3, 3)), padding=1, padding_mode="reflect")
    x = b.elementwise("leaky", x, elementary.leaky_relu(0.1))
    x = b.add("skip", x, b.input)
    y = b.convolve("down", x, KERNEL, stride=2, padding=((1, 0), (0, 1)), dilation=1)
    y = b.convolve("up", y, KERNEL, is_transposed=True, stride=2, padding=((1, 0), (0, 1)), output_shape=(6, 5))
    z = b.move("cat", "Concat", lambda p, q: np.concatenate([p, q], 1), [x, y])
    return b.add("minus", z, RNG.standard_normal((1, 4, 1, 5)), -1.0)


def smooth(b):
    gate = b.reduce("squeeze", "ReduceMean", b.input, (2, 3), True, True)
    gate = b.elementwise("sigmoid", gate, elementary.sigmoid)
    x = b.multiply("excite", b.input, gate)
    x = b.softmax("softmax", x, 2)
    x = b.elementwise("log", x, elementary.log)
    x = b.log_softmax("shares", x, 1)
    x = b.normalise("layer", "LayerNormalization", x, (1, 3), 1e-5)
    y = b.elementwise("gelu", x, elementary.gelu())
    return b.divide("ratio", y, b.elementwise("exp", x, elementary.exp))


def moved(b):
    x = b.move("pad", "Pad", lambda p: np.pad(p, ((0, 0), (0, 0), (1, 2), (0, 1)), constant_values=-1), [b.input], 0.5)
    x = b.along("resize", "Resize", x, {2: RNG.standard_normal((4, 9)), 3: np.eye(6)[::2]})
    x = b.move("transpose", "Transpose", lambda p: p.transpose(0, 3, 1, 2), [x])
    x = b.move("tile", "Tile", lambda p: np.tile(p, (1, 2, 1, 1)), [x])
    first = b.move("split", "Split", lambda p: p[:, :3], [x])
    second = b.move("other", "Slice", lambda p: p[:, 3:], [x])
    return b.extremum("max", first, b.extremum("limit", second, np.asarray(0.25), False), True)


def deep(b):
    x = b.convolve("a", b.input, RNG.standard_normal((4, 1, 3, 2)), groups=2, padding=((2, 1), (1, 1)), dilation=(2, 1))
    x = b.elementwise("relu", x, elementary.relu)
    y = b.convolve("b", x, RNG.standard_normal((4, 4, 3, 3)), padding=1)
    y = b.elementwise("silu", y, elementary.silu)
    x = b.add("skip", x, y)
    return b.convolve(
        "c", x, RNG.standard_normal((3, 4, 3, 3)), RNG.standard_normal(3), stride=2, padding=((1, 0), (2, 1))
    )


def circular(b):
    x = b.convolve("a", b.input, KERNEL, padding=1, padding_mode="circular", stride=(1, 2))
    x = b.elementwise("relu", x, elementary.relu)
    return b.convolve("b", x, RNG.standard_normal((3, 4, 3, 1)), padding=((1, 1), (0, 0)))


def narrow(b):
    x = b.move("flatten", "Flatten", lambda p: p.reshape(1, -1), [b.input])
    x = b.along("in", "Gemm", x, {1: RNG.standard_normal((4, 60))})
    x = b.elementwise("tanh", x, elementary.tanh)
    x = b.along("out", "Gemm", x, {1: RNG.standard_normal((72, 4))})
    x = b.move("reshape", "Reshape", lambda p: p.reshape(1, 2, 6, 6), [x])
    x = b.convolve("a", x, KERNEL, padding=1)
    return b.convolve("b", x, RNG.standard_normal((3, 4, 3, 3)), padding=1)


def attention(b):
    x = b.move("tokens", "Reshape", lambda p: p.reshape(1, 2, 6, 5), [b.input])
    keys = b.along("keys", "MatMul", x, {3: RNG.standard_normal((3, 5))})
    values = b.along("values", "MatMul", x, {3: RNG.standard_normal((4, 5))})
    queries = b.move(
        "queries", "Transpose", lambda p: p.swapaxes(-1, -2), [b.along("q", "MatMul", x, {3: RNG.random((3, 5))})]
    )
    shares = b.softmax("shares", b.matmul("scores", keys, queries), 3)
    return b.matmul("attention", shares, values)


GRAPHS = {function.__name__: function for function in (layers, skip, smooth, moved, deep, circular, narrow, attention)}


def built(name, dtype=np.float64):
    """Return the network of a name, for inputs of shape (2, 6, 5)."""
    builder = Builder((1, 2, 6, 5), dtype)
    target = GRAPHS[name](builder)
    return Network(builder.stages, builder.input, target, dtype, ((2, 6, 5), target.shape[1:]))
