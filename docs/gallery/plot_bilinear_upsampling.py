"""
Upsampling with a bilinear kernel
=================================

A network for segmentation ends in a coarse map of scores, one channel for each class. A transposed convolution with a
bilinear kernel brings it back to the size of the picture.
"""

# %%
# Three classes on 9 × 9 cells: sky, hill and sun. Each score is how far a cell's centre lies inside its class.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from convmat import TransposedConvolution

row, column = np.mgrid[:9, :9]
sun = 2.2 - np.hypot(row - 2.3, column - 6)
hill = row - 6 + 1.5 * np.sin(column / 1.5)
scores = np.stack([np.zeros((9, 9)), hill, sun])

# %%
# For a factor s the kernel is a triangle over 2s outputs, and padding s/2 crops the border so that 9 cells become 9s
# pixels. The channels do not mix, so each is its own group.

s = 8
distance = np.abs(np.arange(2 * s) + 0.5 - s) / s
triangle = np.outer(1 - distance, 1 - distance)
kernel = np.broadcast_to(triangle, (3, 1, 2 * s, 2 * s))
up = TransposedConvolution(kernel, scores.shape, stride=s, padding=s // 2, groups=3)
fine = up.apply(scores)
assert fine.shape == (3, 9 * s, 9 * s)

colours = ListedColormap(["#8ec9f0", "#5b8c5a", "#ffd23f"])
fig, axes = plt.subplots(1, 2, figsize=(5.4, 3.0), layout="constrained")
titles = ("scores of 9 × 9 cells", "upsampled to 72 × 72")
for ax, image, title in zip(axes, (scores, fine), titles, strict=True):
    ax.imshow(image.argmax(axis=0), cmap=colours, vmin=0, vmax=2)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()

# %%
# Away from the border this is bilinear interpolation between the centres of the cells. At the border the last half cell
# has no neighbour to interpolate with, and the scores fade towards zero. Dividing by what the same map makes of ones
# holds them constant there instead, as ``numpy.interp`` does.

weight = up.apply(np.ones(scores.shape))
centres, pixels = np.arange(9) * s + (s - 1) / 2, np.arange(9 * s)
half = np.apply_along_axis(lambda line: np.interp(pixels, centres, line), 1, scores)
wanted = np.apply_along_axis(lambda line: np.interp(pixels, centres, line), 2, half)
inside = slice(s // 2, -(s // 2))
assert np.allclose(fine[:, inside, inside], wanted[:, inside, inside])
assert np.allclose(fine / weight, wanted)

fig, ax = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
ax.plot(pixels, fine[1, -1], label="transposed convolution")
ax.plot(pixels, (fine / weight)[1, -1], "--", label="divided by the weights")
ax.plot(centres, scores[1, -1], "o", color="gray", label="cells")
ax.set(xlabel="pixel", ylabel="score of the hill", title="The last row")
ax.legend()
plt.show()
