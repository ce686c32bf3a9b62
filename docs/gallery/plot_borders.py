"""
Deblurring, border by border
============================

Beyond the border of a photograph the world goes on, and the border of a blurred photograph has seen some of it. So do not
pad: let ``deconvolve`` find the margin as well. If the size must stay, repeat or mirror the edge; zeros and wrapping around
ring through the whole picture.
"""

# %%
# The data must not come from the operator that is then inverted, or any border looks right. Here a larger scene is out of
# focus, and the camera records a part of it: the frame. What lies beyond the frame has been there, and is not known.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from skimage import data

from convmat import Convolution, inverse

scene = data.camera()[40:, 80:] / 255
scene = scene[:288, :288].reshape(144, 2, 144, 2).mean(axis=(1, 3))
r = 5  # the blur's reach
disc = (np.hypot(*np.mgrid[-r : r + 1, -r : r + 1]) < r + 0.5).astype(float)
disc /= disc.sum()

lens = Convolution(disc, scene.shape)  # no padding: every output has seen all of its inputs
y = lens.apply(scene)
y += 0.005 * np.random.default_rng(0).standard_normal(y.shape)
inside = slice(r, -r)
x = scene[inside, inside]  # what is behind y, pixel by pixel

fig, axes = plt.subplots(1, 2, figsize=(5.4, 2.9), layout="constrained")
axes[0].imshow(scene, vmin=0, vmax=1)
axes[0].add_patch(Rectangle((r - 0.5, r - 0.5), *x.shape, fill=False, edgecolor="#ffd23f"))
axes[0].set_title("the scene, and the frame")
axes[1].imshow(y, vmin=0, vmax=1)
axes[1].set_title("recorded")
for ax in axes:
    ax.set_axis_off()
plt.show()

# %%
# Six answers to what lies beyond. Five pad, so that the restored picture has the size of y. The sixth pads nothing: its
# input is larger than its output, as the scene is larger than the photograph. The penalty on differences of neighbours
# then decides what the margin looks like, as far as y does not.

modes = ("zeros", "circular", "reflect", "symmetric", "replicate")
operators = {"no padding": lens}
operators |= {mode: Convolution(disc, y.shape, padding="same", padding_mode=mode) for mode in modes}


def restore(A, weight):
    """The restored picture, without the margin if there is one."""
    solution = inverse.deconvolve(A, y, regularization=weight, penalty="gradient", rtol=1e-4).x
    return solution if solution.shape == y.shape else solution[inside, inside]


restored = {name: restore(A, 0.003) for name, A in operators.items()}
fig, axes = plt.subplots(2, 3, figsize=(5.4, 4.0), layout="constrained")
for ax, (name, image) in zip(axes.flat, restored.items(), strict=True):
    ax.imshow(image, vmin=0, vmax=1)
    ax.set_title(name)
    ax.set_axis_off()
plt.show()

# %%
# The waves are *ringing*. The assumption is wrong in a strip as wide as the blur, by an amount that no blurred picture could
# show. The solver fits it nevertheless, with what the blur hardly passes: fine waves, whose amplitude the fit multiplies.
# They are strongest at the border and fade inwards. A dark surround (zeros) and the opposite side of the picture (circular)
# are wrong by a jump; a mirror image or a repeated edge at least begin with the right brightness.

height, width = np.indices(y.shape)
depth = np.minimum(np.minimum(height, y.shape[0] - 1 - height), np.minimum(width, y.shape[1] - 1 - width))


def error(image, where):
    """Root mean square of the error in a part of the picture."""
    return np.sqrt(np.mean((image - x)[where] ** 2))


styles = ("-", "--", "--", ":", "-.", ":")
fig, ax = plt.subplots(figsize=(5.4, 3.8), layout="constrained")
for style, (name, image) in zip(styles, restored.items(), strict=True):
    ax.semilogy([error(image, depth == d) for d in range(50)], style, label=name)
ax.semilogy([error(y, depth == d) for d in range(50)], color="gray", linewidth=1, label="as recorded")
ax.set(xlabel="pixels from the border", ylabel="error", title="Error of the restored pictures")
ax.legend(ncols=2)
plt.show()

# %%
# A larger λ damps the waves and the details with them. So here are the errors with each border's own best λ, of five, once
# for the border as wide as the blur and once for the rest.

weights = np.geomspace(1e-3, 0.1, 5)
border, rest = depth < 2 * r, depth >= 2 * r
table = {"as recorded": (error(y, border), error(y, rest))}
for name, A in operators.items():
    images = [restore(A, weight) for weight in weights]
    table[name] = (min(error(image, border) for image in images), min(error(image, rest) for image in images))
at_border, elsewhere = ({name: numbers[part] for name, numbers in table.items()} for part in (0, 1))
print("              border    rest")
for name in table:
    print(f"{name:12} {at_border[name]:7.3f} {elsewhere[name]:7.3f}")

assert at_border["no padding"] < 1.02 * min(at_border.values())
assert max(at_border[mode] for mode in modes[2:]) < at_border["as recorded"]
assert min(at_border["zeros"], at_border["circular"]) > 1.3 * at_border["as recorded"]  # worse than doing nothing
assert min(elsewhere["zeros"], elsewhere["circular"]) > 1.25 * elsewhere["no padding"]  # and not at the border alone

# %%
# Speed points the other way. ``circular`` is solved exactly by Fourier transforms, and ``symmetric``, for this even kernel,
# by cosine transforms. The others take some iterations.

for name, A in operators.items():
    print(f"{name:12} {inverse.explain(A, regularization=0.003, penalty='gradient').plans[0].method}")
assert inverse.explain(operators["symmetric"], penalty="gradient").plans[0].method == "cosine"
