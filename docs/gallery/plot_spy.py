"""
What each option does to W
==========================

Every option of a convolution is a pattern in its matrix. One small example, one option at a time.
"""

# %%
# A 3 × 3 kernel on a picture of 6 × 6 pixels: W has a row for each output pixel and a column for each input pixel, both
# counted row after row. The colours are the nine taps, from dark for the first to bright for the last.

import matplotlib.pyplot as plt
import numpy as np

from convmat import Convolution, convolution_matrix

taps = np.arange(1, 10).reshape(3, 3)


def show(ax, W, title):
    """Draw the nonzeros of W, coloured by value."""
    ax.imshow(np.ma.masked_equal(W.toarray(), 0), cmap="plasma", vmin=0, vmax=10, interpolation="none")
    ax.set(title=f"{title}\n{W.shape[0]} × {W.shape[1]}, {W.nnz} nonzeros", xticks=[], yticks=[])
    ax.spines[:].set_visible(True)


W = convolution_matrix(taps, (6, 6))
fig, ax = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
show(ax, W, "convolution_matrix(taps, (6, 6))")
ax.set(xlabel="input pixel", ylabel="output pixel")
plt.show()

# %%
# A stride leaves out rows. Padding adds rows, and those at the borders have fewer entries. A dilation moves the diagonals
# apart. ``flip=True`` reverses the order of the taps and moves nothing.

options = [{"stride": 2}, {"dilation": 2}, {"padding": 1}, {"flip": True}]
fig, axes = plt.subplots(2, 2, figsize=(5.4, 4.2), layout="constrained", height_ratios=(1, 4))
for ax, option in zip(axes.flat, options, strict=True):
    ((name, value),) = option.items()
    show(ax, convolution_matrix(taps, (6, 6), **option), f"{name}={value}")
inner = [6 * row + column for row in range(1, 5) for column in range(1, 5)]
assert np.array_equal(convolution_matrix(taps, (6, 6), stride=2).toarray(), W.toarray()[[0, 2, 8, 10]])
assert np.array_equal(convolution_matrix(taps, (6, 6), padding=1).toarray()[inner], W.toarray())
plt.show()

# %%
# Channels are blocks: two channels out and four in make 2 × 4 copies of the pattern, each with its own kernel. With two
# groups the blocks between channels of different groups are gone.

kernel = np.stack([np.roll(taps, n) for n in range(8)]).reshape(2, 4, 3, 3)
fig, axes = plt.subplots(2, 1, figsize=(5.4, 4.2), layout="constrained")
show(axes[0], convolution_matrix(kernel, (4, 6, 6)), "kernel (2, 4, 3, 3)")
show(axes[1], convolution_matrix(kernel[:, :2], (4, 6, 6), groups=2), "kernel (2, 2, 3, 3), groups=2")
plt.show()

# %%
# The padding modes differ only in the rows at the borders, where they map positions outside to pixels inside. This is one
# axis of twelve positions, with a kernel of five taps and ``padding=2``.

modes = ("zeros", "circular", "reflect", "symmetric", "replicate")
fig, axes = plt.subplots(2, 3, figsize=(5.4, 4.0), layout="constrained")
axes[1, 2].set_axis_off()
for ax, mode in zip(axes.flat, modes, strict=False):
    A = Convolution(np.array([1, 3, 5, 3, 1]), 12, padding=2, padding_mode=mode)
    show(ax, A.tocsr(), mode)
    assert mode == "zeros" or (A.toarray().sum(axis=1) == 13).all()
plt.show()
