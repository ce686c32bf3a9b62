"""
Receptive fields, and the paths through layers
==============================================

A matrix is a graph: W joins an output to the inputs that it reads. Layers after each other are a product of matrices,
whose entries count the paths.
"""

# %%
# Let all kernels be 3 × 3 ones, in integers. A row of the product of the layers' matrices then tells in how many ways each
# input reaches one output: zero outside the receptive field, and large where an input has much influence.

import matplotlib.pyplot as plt
import numpy as np

from convmat import convolution_matrix

n = 31
ones = np.ones((3, 3), dtype=np.int64)
middle = (n * n) // 2


def paths(dilations):
    """Number of paths from each input to the output in the middle."""
    product = convolution_matrix(ones, (n, n), padding="same", dilation=dilations[0])
    for d in dilations[1:]:
        product = convolution_matrix(ones, (n, n), padding="same", dilation=d) @ product
    return product[[middle]].toarray().reshape(n, n)


networks = [(1,), (1, 1), (1,) * 6, (2, 2, 2), (1, 2, 4), (1, 3, 9)]
fig, axes = plt.subplots(2, 3, figsize=(5.4, 4.2), layout="constrained")
for ax, dilations in zip(axes.flat, networks, strict=True):
    count = paths(dilations)
    ax.imshow(np.ma.masked_equal(count, 0) / count.max(), cmap="viridis", vmin=0, vmax=1)
    name = "6 × dilation 1" if len(dilations) == 6 else "dilation " + ", ".join(map(str, dilations))
    ax.set_title(name, fontsize=10)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    field = 1 + 2 * sum(dilations)
    width = np.flatnonzero(count.any(axis=0))
    assert np.ptp(width) + 1 == field
    assert count.sum() == 9 ** len(dilations)
plt.show()

# %%
# Plain layers grow slowly, by two pixels each, and most paths lead to the middle: the counts approach a bell. Three layers
# of dilation 2 leave holes: more than two thirds of the field are never read. Doubled dilations reach every pixel,
# and tripled ones reach every pixel exactly once.

assert (paths((2, 2, 2)) > 0).sum() == 7**2  # of 13 × 13 pixels
assert (paths((1, 2, 4)) > 0).sum() == 15**2
assert (paths((1, 3, 9)) == 1).sum() == 27**2

# %%
# With strides the same product shows which outputs share inputs. Two layers of stride 2, seen as matrices on one axis: the
# product is the matrix of a layer with stride 4 and kernel 3 + 2·2 = 7.

first = convolution_matrix(np.ones(3, int), 63, stride=2)
second = convolution_matrix(np.ones(3, int), first.shape[0], stride=2)
both = second @ first
combined = convolution_matrix(np.array([1, 1, 2, 1, 2, 1, 1]), 63, stride=4)
assert np.array_equal(both.toarray(), combined.toarray())

fig, axes = plt.subplots(3, 1, figsize=(5.4, 4.6), layout="constrained", height_ratios=(31, 15, 15))
layers = {"first layer": first, "second layer": second, "second @ first": both}
for ax, (title, W) in zip(axes, layers.items(), strict=True):
    ax.imshow(np.ma.masked_equal(W.toarray(), 0), cmap="viridis", vmin=0, vmax=2)
    ax.set(title=f"{title}, {W.shape[0]} × {W.shape[1]}", xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
plt.show()
