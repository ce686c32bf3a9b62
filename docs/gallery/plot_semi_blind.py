"""
When the kernel is known roughly
================================

Picture and kernel can be found in turns, each with the other fixed: ``deconvolve``, then ``estimate_kernel``. But the turns
alone make both worse; something must be known about the picture too, here that it is a silhouette, black on white.
"""

# %%
# The kernel is the trace of a camera that shook. What is known is its size, at most: a round bell. The scene is larger than
# the picture, so nothing is padded.

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from convmat import Convolution, inverse

scene = data.horse()[20:292, 40:312].astype(float).reshape(136, 2, 136, 2).mean(axis=(1, 3))
r = 5
i, j = np.mgrid[-r : r + 1, -r : r + 1]
kernel = np.exp(-((i - 0.6 * j - 0.05 * j**2) ** 2) / 1.5) * (abs(j) < r) * (1 + 0.1 * j)
kernel /= kernel.sum()
bell = np.exp(-(i**2 + j**2) / 8)
bell /= bell.sum()

A = Convolution(bell, scene.shape)
y = A.with_kernel(kernel).apply(scene) + 0.01 * np.random.default_rng(0).standard_normal(A.output_shape)
x = scene[r:-r, r:-r]

# %%
# The scale is not determined: a kernel twice as bright and a picture half as bright make the same y. So the kernel's sum is
# fixed to 1, as a blur loses no light, and negative taps are cut off. λ gets less from turn to turn: first the coarse shape,
# then the details.


def solve(kernel, weight):
    """The picture, if this is the kernel."""
    options = {"penalty": "gradient", "preconditioner": "transform", "rtol": 1e-3}
    return inverse.deconvolve(A.with_kernel(kernel), y, regularization=weight, **options).x


def shrink(picture):
    """What a silhouette would look like: contrasts around grey are tripled, and cut off at black and white."""
    return np.clip(3 * picture - 1, 0, 1)


def alternate(known, kernel, turns=8):
    """Return the pictures and the kernels of each turn; `known` brings in what is known about the picture."""
    pictures, kernels = [], [kernel]
    for weight in np.geomspace(0.1, 0.01, turns):
        pictures.append(solve(kernels[-1], weight))
        taps = inverse.estimate_kernel(A, known(pictures[-1]), y, regularization=3).kernel.clip(0)
        kernels.append(taps / taps.sum())
    return pictures, kernels[:-1]


alone = alternate(lambda picture: picture, bell)
shaped = alternate(shrink, bell)
best = solve(kernel, 0.01)


def picture_error(picture):
    """The error, relative to that of y."""
    return np.linalg.norm(picture[r:-r, r:-r] - x) / np.linalg.norm(y - x)


def kernel_error(estimate):
    """The error, relative to the kernel."""
    return np.linalg.norm(estimate - kernel) / np.linalg.norm(kernel)


fig, axes = plt.subplots(2, 4, figsize=(6.0, 3.4), layout="constrained")
columns = {
    "recorded": (y, None),
    "alone": (alone[0][-1][r:-r, r:-r], alone[1][-1]),
    "silhouette": (shaped[0][-1][r:-r, r:-r], shaped[1][-1]),
    "kernel known": (best[r:-r, r:-r], kernel),
}
for (top, bottom), (title, (picture, taps)) in zip(axes.T, columns.items(), strict=True):
    top.imshow(picture, vmin=0, vmax=1)
    bottom.imshow(bell if taps is None else taps, cmap="magma", vmin=0, vmax=kernel.max())
    top.set_title(title)
    bottom.set_title("first kernel" if taps is None else "its kernel")
    top.set_axis_off()
    bottom.set_axis_off()
plt.show()

# %%
# Turns alone go wrong at once. ``deconvolve`` shrinks fine details, because λ does. The kernel that fits such a picture to
# y must make up for that with fine details of its own; in the end a sharp point and a blurred picture fit as well as
# anything. Pulled towards a silhouette in each turn, the picture has edges as sharp as true ones, and the kernel has to be
# what blurs them.

fig, axes = plt.subplots(2, 1, figsize=(5.4, 5.4), layout="constrained", sharex=True)
turns = np.arange(1, 9)
for (pictures, kernels), label, marker in ((alone, "in turns alone", "o"), (shaped, "silhouette", "s")):
    axes[0].plot(turns, [picture_error(picture) for picture in pictures], marker + "-", label=label)
    axes[1].plot(turns, [kernel_error(taps) for taps in kernels], marker + "-", label=label)
axes[0].axhline(picture_error(best), color="gray", linestyle=":", label="kernel known")
axes[0].set(title="error of the picture (1: as recorded)", ylim=0)
axes[1].set(title="error of the kernel", xlabel="turn", ylim=0, xticks=turns)
axes[0].legend()
axes[1].legend()
plt.show()

print("          picture       kernel")
for name, (pictures, kernels) in {"alone": alone, "shaped": shaped}.items():
    first, last = (picture_error(pictures[turn]) for turn in (0, -1))
    print(f"{name:8} {first:.2f} → {last:.2f}  {kernel_error(kernels[0]):.2f} → {kernel_error(kernels[-1]):.2f}")

assert picture_error(alone[0][-1]) > 0.95  # nothing is gained
assert kernel_error(alone[1][-1]) > 1.3 * kernel_error(bell)
assert picture_error(best) < picture_error(shaped[0][-1]) < 0.75
assert kernel_error(shaped[1][-1]) < 0.6 * kernel_error(bell)

# %%
# What no data determine
# ----------------------
#
# The scale, which the sum of the kernel fixes here. And the place: a kernel that is moved by a pixel, and a picture that is
# moved by a pixel, make the same y. The place comes from the first kernel. If the kernel runs into the edge of its window,
# move it back and go on.

moved = A.with_kernel(np.roll(kernel, 1, axis=1)).apply(np.roll(scene, 1, axis=1))
assert np.allclose(moved, A.with_kernel(kernel).apply(scene))

# %%
# And for one picture, which part of its softness is blur: a soft shadow seen sharply is the same as a sharp one seen
# softly. ``estimate_kernel`` reports how well a picture determines each tap, as if that picture were the truth. Its
# deviations do not say that the picture is wrong: from the turns alone they are the smaller ones, and the taps are far off.

for name, (pictures, _) in {"alone": alone, "shaped": (list(map(shrink, shaped[0])), None)}.items():
    found = inverse.estimate_kernel(A, pictures[-1], y)
    deviation = np.sqrt(np.diag(found.covariance).mean())
    distance = np.sqrt(np.mean((found.kernel - kernel) ** 2))
    print(f"{name:8} rank {found.rank} of {kernel.size}; taps off by {distance:.4f}, deviation {deviation:.4f}")
    if name == "alone":
        assert distance > 20 * deviation
