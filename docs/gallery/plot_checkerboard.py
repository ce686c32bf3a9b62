"""
Checkerboard artefacts
======================

Pictures made by transposed convolutions often have a fine grid. The kernel of a layer shows whether it draws one, before
anything is trained.
"""

# %%
# Let a transposed convolution upsample a constant. If kernels of size k and steps of size s do not fit each other, some
# outputs receive more contributions than their neighbours. With a kernel of ones the result, Wᵀ·1, counts them.
# The explorer shows it copy by copy, for
# `three taps <../explorer.html#axes=2&size=4&stride=2&padding=0,0&weights=ones&values=ones&transposed>`__ and for
# `four <../explorer.html#axes=2&size=4&kernel=4&stride=2&padding=0,0&weights=ones&values=ones&transposed>`__.

import matplotlib.pyplot as plt
import numpy as np

from convmat import TransposedConvolution


def upsampled_constant(kernel, stride):
    """Wᵀ·1 far from the borders."""
    return TransposedConvolution(kernel, (16, 16), stride=stride).apply(np.ones((16, 16)))[6:22, 6:22]


sizes, strides = (2, 3, 4, 5, 6), (2, 3)
fig, axes = plt.subplots(2, 5, figsize=(5.4, 2.9), layout="constrained")
for (i, j), ax in np.ndenumerate(axes):
    k, s = sizes[j], strides[i]
    count = upsampled_constant(np.ones((k, k)), s)
    assert (np.ptp(count) == 0) == (k % s == 0)
    ax.imshow(count, cmap="viridis", vmin=0, vmax=9)
    found = "uniform" if k % s == 0 else f"{count.min():.0f} to {count.max():.0f}"
    ax.set_title(f"k={k}, s={s}\n{found}", fontsize=10)
    ax.set_axis_off()
plt.show()

# %%
# That is the well-known rule: choose k divisible by s. But it speaks of kernels of ones. The general rule looks at the
# phases of the kernel: output o receives the taps t with t ≡ o modulo s, so a constant stays a constant exactly when the
# taps of every phase have the same sum.


def phase_sums(kernel, stride):
    """Sum of the taps of each phase, (stride, stride)."""
    steps = range(stride)
    return np.array([[kernel[a::stride, b::stride].sum() for b in steps] for a in steps])


rng = np.random.default_rng(0)
drawn = rng.random((4, 4))
balanced = drawn / np.tile(phase_sums(drawn, 2), (2, 2))
kernels = {
    "ones, k = 3": np.ones((3, 3)),
    "bilinear, k = 3": np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]),
    "random, k = 4": drawn,
    "the same, phases scaled": balanced,
}
fig, axes = plt.subplots(2, 2, figsize=(5.4, 5.0), layout="constrained")
for ax, (name, kernel) in zip(axes.flat, kernels.items(), strict=True):
    image = upsampled_constant(kernel, 2)
    assert np.isclose(np.ptp(image), np.ptp(phase_sums(kernel, 2)))
    ax.imshow(image / image.mean(), cmap="gray", vmin=0.4, vmax=1.6)
    ax.set_title(f"{name}\nphases {np.round(phase_sums(kernel, 2).ravel(), 2)}", fontsize=10)
    ax.set_axis_off()
plt.show()

# %%
# So a 3 × 3 kernel can be free of the grid at stride 2 (a bilinear one is), and a 4 × 4 kernel usually is not: divisible
# sizes only make it *possible* with equal weights. Scaling the phases repairs any kernel.

assert np.allclose(upsampled_constant(balanced, 2), 1)
