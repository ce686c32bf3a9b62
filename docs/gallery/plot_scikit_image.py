"""
Next to scikit-image, at the border
===================================

scikit-image's ``wiener`` is ``deconvolve`` with circular padding, and rings as that does. Its ``richardson_lucy`` takes the
surround for black and leaves out a division, so that the border of a bright picture is lost; with a convolution that pads
nothing, and with the division, the border is as good as the rest.
"""

# %%
# Tissue under a microscope that blurs: counts of light, about a thousand in each pixel. As in
# :ref:`sphx_glr_auto_examples_plot_borders.py`, the camera has seen more than the picture shows.

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, restoration

from convmat import Convolution, inverse

scene = data.immunohistochemistry()[150:494, 150:494, 1] / 255
scene = scene.reshape(172, 2, 172, 2).mean(axis=(1, 3))
r = 6
bell = np.exp(-(np.arange(-r, r + 1) ** 2) / (2 * 2.0**2))
bell /= bell.sum()
kernel = np.outer(bell, bell)
microscope = Convolution(kernel, scene.shape)
counts = 2000  # of white
y = np.random.default_rng(0).poisson(counts * microscope.apply(scene)) / counts
inside = slice(r, -r)
x = scene[inside, inside]

border = np.ones(x.shape, bool)
border[inside, inside] = False


def errors(image):
    """Root mean square of the error: at the border, as wide as the blur's reach, and in the rest."""
    return [np.sqrt(np.mean((image - x)[where] ** 2)) for where in (border, ~border)]


# %%
# Wiener's filter
# ---------------
#
# scikit-image's filter divides spectra, with a penalty on second differences that ``balance`` weighs. That is the solution
# of a least-squares problem on a circle, and the same to rounding. A border that mirrors costs no more: it is solved by
# cosine transforms.

weight = 0.1
theirs = restoration.wiener(y, kernel, weight, clip=False)
circular = Convolution(kernel, y.shape, padding="same", padding_mode="circular")
ours = inverse.deconvolve(circular, y, regularization=weight, penalty="laplacian").x
assert np.allclose(ours, theirs, atol=1e-9)

symmetric = Convolution(kernel, y.shape, padding="same", padding_mode="symmetric")
mirrored = inverse.deconvolve(symmetric, y, regularization=weight, penalty="laplacian")
assert mirrored.method == "cosine"

print("                       border    rest")
for name, image in {"as recorded": y, "wiener": theirs, "deconvolve, symmetric": mirrored.x}.items():
    print("{:21}  {:.4f}  {:.4f}".format(name, *errors(image)))
assert errors(mirrored.x)[0] < 0.8 * errors(theirs)[0]

# %%
# Richardson and Lucy
# -------------------
#
# One iteration multiplies x by Wᵀ(y / Wx) / Wᵀ1. A column of W sums to 1 where all of a pixel's light reaches the picture.
# Near the border some of it leaves, Wᵀ1 is less than 1, and to leave the division out is to darken those pixels in each
# iteration. scikit-image leaves it out, and takes black for what is outside (its issue 3859). Each matters, so there are
# two more curves: ours with the black surround, and ours without padding but without the division.


def undivided(A, y, iterations):
    """Richardson and Lucy's iteration with 1 in place of Wᵀ1."""
    image = np.full(A.input_shape, y.mean())
    for _ in range(iterations):
        image *= A.T.apply(y / A.apply(image))
    return image


black = Convolution(kernel, y.shape, padding="same")
solvers = {
    "scikit-image": lambda n: restoration.richardson_lucy(y, kernel, num_iter=n, clip=False),
    "convmat, zeros": lambda n: inverse.richardson_lucy(black, y, iterations=n).x,
    "no padding, undivided": lambda n: undivided(microscope, y, n)[inside, inside],
    "convmat, no padding": lambda n: inverse.richardson_lucy(microscope, y, iterations=n).x[inside, inside],
}
steps = (2, 5, 10, 20, 40)
images = {name: [solve(n) for n in steps] for name, solve in solvers.items()}
curves = {name: np.transpose([errors(image) for image in pictures]) for name, pictures in images.items()}

fig, axes = plt.subplots(2, 2, figsize=(5.4, 5.8), layout="constrained")
shown = {"recorded": y} | {name: images[name][2] for name in solvers if "undivided" not in name}
for ax, (title, image) in zip(axes.flat, shown.items(), strict=True):
    ax.imshow(image, vmin=0, vmax=1)
    ax.set_title(title if image is y else f"{title}, 10 steps")
    ax.set_axis_off()
plt.show()

# %%
# What is counted near the border came from the surround in part. Where that is black by assumption, all of this light must
# come from pixels inside, and no division makes up for that: they ring. Without padding there are pixels outside that it can
# come from, with a Wᵀ1 near zero. Without the division they fade from step to step, and the border is as wrong as before.

fig, axes = plt.subplots(2, 1, figsize=(5.4, 5.6), layout="constrained", sharex=True)
for name, marker in zip(solvers, "osv^", strict=True):
    for ax, curve in zip(axes, curves[name], strict=True):
        ax.semilogx(steps, curve, marker + "-", label=name)
for ax, title, recorded in zip(axes, ("error at the border", "error in the rest"), errors(y), strict=True):
    ax.axhline(recorded, color="gray", linestyle=":", label="as recorded")
    ax.set(title=title, xticks=steps, xticklabels=steps, ylabel="error", ylim=0)
    ax.minorticks_off()
axes[1].set(xlabel="iterations", ylim=(0, 0.08))
axes[0].legend()
plt.show()

best = {name: curve.min(axis=1) for name, curve in curves.items()}
assert best["convmat, no padding"][0] < 0.9 * errors(y)[0]
assert best["convmat, no padding"][0] < 1.1 * best["convmat, no padding"][1]  # as good as the rest
for name in ("scikit-image", "convmat, zeros", "no padding, undivided"):
    assert best[name][0] > 2 * errors(y)[0]
    assert curves[name][0][-1] > 5 * errors(y)[0]  # and it gets worse with every step

# %%
# To pad the picture by hand, by its mirror image, and to crop afterwards, helps scikit-image as well. Then the false border
# lies in the pad. How wide it must be depends on the number of iterations, as each carries the fault inwards.

by_hand = {}
for width in (r, 4 * r):
    padded = restoration.richardson_lucy(np.pad(y, width, "symmetric"), kernel, num_iter=40, clip=False)
    by_hand[width] = errors(padded[width:-width, width:-width])[0]
    print(f"pad {width:2}: {by_hand[width]:.4f} at the border after 40 iterations")
print(f"convmat: {curves['convmat, no padding'][0][-1]:.4f}")
assert by_hand[r] > 2 * by_hand[4 * r] > 2 * curves["convmat, no padding"][0][-1]
