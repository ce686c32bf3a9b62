"""
Padding modes, and their transposes
===================================

Padding is a linear map too. Its matrix copies pixels to where the border needs them, and its transpose brings back what
came from there.
"""

# %%
# A 1 × 1 kernel that holds the number one leaves a picture as it is, so a convolution with it and with padding is the
# padding alone: a matrix P with one nonzero in each row, or none where zeros are.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from skimage import data

from convmat import Convolution

photograph = data.cat()[:, 40:340].mean(axis=-1)[::2, ::2] / 255
p = 30
x = photograph[p:-p, p:-p]
one = np.ones((1, 1))
modes = ("zeros", "circular", "reflect", "symmetric", "replicate")
pads = {mode: Convolution(one, x.shape, padding=p, padding_mode=mode) for mode in modes}


def panels(images, **options):
    """Draw the padded pictures, the original marked by a frame."""
    _, axes = plt.subplots(2, 3, figsize=(5.4, 4.0), layout="constrained")
    for ax, (title, image) in zip(axes.flat, images.items(), strict=True):
        ax.imshow(image, **options)
        ax.set_title(title)
        ax.set_axis_off()
        if image.shape != x.shape:
            ax.add_patch(Rectangle((p - 0.5, p - 0.5), *x.shape, fill=False, edgecolor="#ffd23f"))


panels({"x": x} | {mode: P.apply(x) for mode, P in pads.items()}, cmap="gray", vmin=0, vmax=1)
plt.show()

# %%
# They are the modes of ``numpy.pad``, some under other names.

names = ("constant", "wrap", "reflect", "symmetric", "edge")
for P, name in zip(pads.values(), names, strict=True):
    assert np.array_equal(P.apply(x), np.pad(x, p, name))

# %%
# The transpose takes a padded picture and adds to each pixel what its copies hold. For zeros the border is cut off. For the
# other modes it is folded: added back to the pixels that it was read from. Here the photograph around the frame is folded.

z = photograph
folded = {mode: P.T.apply(z) for mode, P in pads.items()}
pictures = {"z": z} | {f"Pᵀ z, {mode}": image for mode, image in folded.items()}
panels(pictures, cmap="gray", vmin=0, vmax=2.5)
plt.show()

# %%
# Except for zeros, the sum of all pixels stays the same. Applied to ones, the transpose counts how often a pixel is read: up
# to four times where two mirrored borders meet, and very often at a corner that ``replicate`` repeats.

counts = {mode: P.T.apply(np.ones(z.shape)) for mode, P in pads.items()}
assert all(np.isclose(folded[mode].sum(), z.sum()) for mode in modes[1:])
assert np.array_equal(folded["zeros"], z[p:-p, p:-p])
assert [int(counts[mode].max()) for mode in modes] == [1, 4, 4, 4, (p + 1) ** 2]

# %%
# Any convolution is P, then the same convolution without padding: W = V·P, whatever the kernel. Its transpose is Pᵀ·Vᵀ:
# first the spreading, then the folding.

kernel = np.random.default_rng(0).standard_normal((5, 5))
W = Convolution(kernel, x.shape, padding=2, padding_mode="reflect")
P = Convolution(one, x.shape, padding=2, padding_mode="reflect")
V = Convolution(kernel, P.output_shape)
assert abs(W.tocsr() - V.tocsr() @ P.tocsr()).max() < 1e-14
