"""
Singular values of a layer
==========================

How much can a layer amplify its input? The answer is the largest singular value of W. Two ways give it exactly, and a
number that is often used in its place does not.
"""

# %%
# A layer of 3 × 3 taps with eight channels in and eight out, random and smooth. Under circular padding W is diagonal in
# the Fourier basis but for the channels: each frequency has a matrix of 8 × 8, the transform of the kernel, and the
# singular values of W are those of all these small matrices together.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import svds

from convmat import Convolution

rng = np.random.default_rng(0)
smooth = np.outer([1, 2, 1], [1, 2, 1]) / 16
kernel = rng.standard_normal((8, 8, 1, 1)) * smooth + 0.02 * rng.standard_normal((8, 8, 3, 3))
n = 10
circular = Convolution(kernel, (8, n, n), padding=1, padding_mode="circular")
zeros = Convolution(kernel, (8, n, n), padding=1)

symbol = np.fft.fft2(kernel, (n, n)).transpose(2, 3, 0, 1)
by_fourier = np.sort(np.linalg.svd(symbol, compute_uv=False).ravel())[::-1]
by_matrix = np.linalg.svd(circular.toarray(), compute_uv=False)
assert np.allclose(by_fourier, by_matrix)

# %%
# With zeros at the border there is no such shortcut. But ``svds`` takes the operator, and finds the largest singular values
# from products alone. W for zeros is a part of the W of a larger circular picture, so no singular
# value can exceed the largest of the symbol taken on a fine grid.

largest = svds(zeros, k=6, return_singular_vectors=False)[::-1]
with_zeros = np.linalg.svd(zeros.toarray(), compute_uv=False)
bound = np.linalg.svd(np.fft.fft2(kernel, (96, 96)).transpose(2, 3, 0, 1), compute_uv=False).max()
assert np.allclose(largest, with_zeros[:6])
assert largest[0] < bound

# %%
# A common substitute reshapes the kernel to a matrix of 8 × 72 and takes the norm of that. It is the norm of the map from
# one window to one pixel, and as windows overlap, the layer's norm can be larger by a factor up to √(3·3) = 3. A network
# that is "normalised" by it can still amplify at each layer.

reshaped = np.linalg.norm(kernel.reshape(8, -1), 2)
assert reshaped < largest[0] < 3 * reshaped

fig, ax = plt.subplots(figsize=(5.4, 3.7), layout="constrained")
ax.plot(by_fourier, label="circular padding")
ax.plot(with_zeros, "--", label="zeros")
ax.axhline(reshaped, color="gray", linestyle=":")
ax.annotate("norm of the reshaped kernel", (790, reshaped), va="bottom", ha="right", color="dimgray")
ax.annotate(f"true norm: {largest[0] / reshaped:.2f} times as large", (20, largest[0]), va="center")
ax.set(xlabel="number of the singular value", ylabel="singular value", title="Spectrum of the layer")
ax.set(xlim=(0, 800), ylim=0)
ax.legend()
plt.show()

# %%
# The first singular vectors show which input is amplified most: here the lowest frequency, fading at the border.

u, s, vt = svds(zeros, k=1)
fig, axes = plt.subplots(2, 4, figsize=(5.4, 2.9), layout="constrained")
limit = np.abs(vt).max()
for channel, ax in enumerate(axes.flat):
    ax.imshow(vt.reshape(8, n, n)[channel], cmap="RdBu", vmin=-limit, vmax=limit)
    ax.set_title(f"channel {channel}")
    ax.set_axis_off()
plt.show()
