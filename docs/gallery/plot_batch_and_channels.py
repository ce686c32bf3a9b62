"""
Batches and channels
====================

The channels of a picture belong to the convolution, and a kernel mixes them. A batch is several pictures, on any leading
axes.
"""

# %%
# The photograph has three channels, and the channels come first. The bank has four filters, and each is a pattern in space
# times a direction in colour: vertical and horizontal edges of brightness, and the contrasts of red to green and of blue to
# yellow, blurred. A kernel is (C_out, C_in, height, width), here (4, 3, 11, 11).

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from convmat import Convolution

x = np.ascontiguousarray(data.astronaut()[:300, 70:390].transpose(2, 0, 1) / 255)

offset = np.arange(-5, 6)
bell = np.exp(-(offset**2) / 8)
bell /= bell.sum()
slope = -offset * bell
spaces = [np.outer(bell, slope), np.outer(slope, bell), np.outer(bell, bell), np.outer(bell, bell)]
colours = np.array([[1, 1, 1], [1, 1, 1], [1, -1, 0], [-0.5, -0.5, 1]])
bank = np.einsum("oc, oij -> ocij", colours, spaces)
A = Convolution(bank, x.shape, padding="same", padding_mode="replicate")
y = A.apply(x)
assert y.shape == (4, 300, 320)

fig, axes = plt.subplots(2, 3, figsize=(5.4, 3.9), layout="constrained")
axes[0, 0].imshow(x.transpose(1, 2, 0))
axes[0, 0].set_title("photograph")
axes[1, 0].imshow(np.linalg.norm(y[:2], axis=0), cmap="gray_r")
axes[1, 0].set_title("both edges")
titles = ("vertical edges", "horizontal edges", "red − green", "blue − yellow")
for ax, image, title in zip(axes[:, 1:].flat, y, titles, strict=True):
    limit = np.quantile(np.abs(image), 0.995)
    ax.imshow(image, cmap="RdBu_r" if "−" not in title else "PuOr_r", vmin=-limit, vmax=limit)
    ax.set_title(title)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# A batch is an array with more axes in front: here a 2 × 3 arrangement of pictures, turned upside down and darkened. No
# option says so, and the result has the same arrangement.

dark = np.array([1, 0.6, 0.3])[:, None, None, None]
batch = np.stack([dark * x, dark * x[:, ::-1]])
assert batch.shape == (2, 3, 3, 300, 320)
responses = A.apply(batch)
assert responses.shape == (2, 3, 4, 300, 320)
assert np.allclose(responses[0, 1], 0.6 * y)

# %%
# ``A @ X`` is SciPy's way to write the same: flat pictures, one in each column.

columns = batch.reshape(6, -1).T
assert np.allclose((A @ columns).T, responses.reshape(6, -1))

# %%
# A filter that treats each channel by itself has as many ``groups`` as channels, and a kernel with one input channel. This
# blur has 121 numbers for each colour; the bank above has 363 for each output.

blur = np.broadcast_to(np.outer(bell, bell), (3, 1, 11, 11))
B = Convolution(blur, x.shape, padding="same", padding_mode="replicate", groups=3)
diagonal = np.eye(3)[:, :, None, None] * blur
mixing = Convolution(diagonal, x.shape, padding="same", padding_mode="replicate")
assert np.allclose(B.apply(x), mixing.apply(x))
assert B.geometry.nnz * 3 == mixing.geometry.nnz
print(f"nonzeros of W: {B.geometry.nnz} with groups, {mixing.geometry.nnz} without")
