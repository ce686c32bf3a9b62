"""
A network as a chain of matrices
================================

An encoder and a decoder, read from an ONNX model, are matrices one after the other. Red is what one output depends on.
"""

# %%
# Two convolutions with stride 2 halve an image twice, and their transposes bring it back to size. Between them are ReLUs.
# PyTorch, TensorFlow and others write such models; here onnx itself makes one, with random weights.

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from convmat import networks

rng = np.random.default_rng(0)
layers = [("Conv", (4, 1)), ("Conv", (6, 4)), ("ConvTranspose", (6, 4)), ("ConvTranspose", (4, 1))]
weights = [
    numpy_helper.from_array(rng.standard_normal((*channels, 4, 4)).astype(np.float32) / 4, f"w{number}")
    for number, (_, channels) in enumerate(layers)
]
nodes, name = [], "x"
for number, (op, _) in enumerate(layers):
    last = f"{op.lower()} {number}" if number < 3 else "y"
    nodes.append(helper.make_node(op, [name, f"w{number}"], [last], last, strides=[2, 2], pads=[1, 1, 1, 1]))
    if number < 3:
        nodes.append(helper.make_node("Relu", [last], [f"relu {number}"], f"relu {number}"))
    name = f"relu {number}"
ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["N", 1, 16, 16]) for end in ("x", "y")]
graph = helper.make_graph(nodes, "autoencoder", ends[:1], ends[1:], weights)
net = networks.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
print(net.report())

# %%
# The figure has the matrices of the affine stages. A transposed convolution is a transposed matrix, taller than it is wide.
# The red entries are traced back from one output: a few columns in the last matrix, more in each one before.

import matplotlib.pyplot as plt

figure = net.draw(output=16 * 8 + 8, figure=plt.figure(figsize=(7.2, 3.4), layout="constrained"))
plt.show()

# %%
# Near a point all ReLUs are fixed, and the network is one matrix: the Jacobian there. Where a ReLU is off, nothing passes.

x = rng.standard_normal((1, 16, 16))
jacobian = net.at(x).matrix.tocsr()
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained")
axes[0].imshow(jacobian.toarray() != 0, cmap="Greys", interpolation="nearest")
axes[0].set_title(f"The Jacobian: {np.count_nonzero(jacobian.data):,} of {jacobian.nnz:,} are not zero", fontsize=9)
largest = abs(jacobian).max()
axes[1].imshow(jacobian[[16 * 8 + 8]].toarray().reshape(16, 16), cmap="RdBu", vmin=-largest / 2, vmax=largest / 2)
axes[1].set_title("One of its rows, as an image", fontsize=9)
for ax in axes:
    ax.set(xticks=[], yticks=[])
plt.show()

step = 1e-3 * rng.standard_normal(x.shape)
change = net.astype(np.float64)(x + step) - net.astype(np.float64)(x)
assert np.allclose(change.ravel(), jacobian @ step.ravel(), atol=1e-2)
