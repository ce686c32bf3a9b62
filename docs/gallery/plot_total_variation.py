"""
Total variation, with PyProximal
================================

A penalty on the squares of differences softens edges; one on their sizes, *total variation*, keeps them, and leaves a fifth
less error in these coins. PyProximal minimises it, with convmat's operator for the blur.
"""

# %%
# Coins out of focus, in noise. What is beyond the picture has been seen as well, so the convolution pads nothing.

import matplotlib.pyplot as plt
import numpy as np
import pylops
import pyproximal
from skimage import data

from convmat import Convolution, inverse

scene = data.coins()[20:276, 40:296].reshape(128, 2, 128, 2).mean(axis=(1, 3)) / 255
r = 4
disc = (np.hypot(*np.mgrid[-r : r + 1, -r : r + 1]) < r).astype(float)
A = Convolution(disc / disc.sum(), scene.shape)
y = A.apply(scene) + 0.02 * np.random.default_rng(0).standard_normal(A.output_shape)
x = scene[r:-r, r:-r]


def error(picture):
    """The error, relative to that of y."""
    return np.linalg.norm(picture[r:-r, r:-r] - x) / np.linalg.norm(y - x)


# %%
# Squares first: ``deconvolve`` with the best λ of five.

weights = (0.005, 0.01, 0.02, 0.04, 0.08)
solutions = [inverse.deconvolve(A, y, regularization=weight, penalty="gradient", rtol=1e-3).x for weight in weights]
squares = min(solutions, key=error)

# %%
# Total variation is not a square, so there is no linear system to solve. PyProximal's primal-dual method takes three parts:
# the misfit ½‖A x − y‖², with the operator as PyLops sees it; the sum of the lengths of a vector field, ``L21``; and the
# ``Gradient`` that makes that field of x. The product of its two steps, τ for x and μ for the field, must be less than
# 1/‖∇‖², and ‖∇‖² is less than 8. It begins where the squares have ended.

blur = pylops.aslinearoperator(A)
gradient = pylops.Gradient(scene.shape, kind="forward")
misfit = pyproximal.L2(Op=blur, b=y.ravel(), niter=10, warm=True)
lengths = pyproximal.L21(ndim=2, sigma=0.004)
tau = 3.0
objective = []


def objective_of(flat):
    """½‖A x − y‖² + σ·TV(x)."""
    return misfit(flat) + lengths(gradient @ flat)


solution = pyproximal.optimization.primaldual.PrimalDual(
    misfit,
    lengths,
    gradient,
    x0=squares.ravel(),
    tau=tau,
    mu=0.99 / 8 / tau,
    niter=40,
    callback=lambda flat: objective.append(objective_of(flat)),
)
varied = solution.reshape(scene.shape)

fig, axes = plt.subplots(2, 2, figsize=(5.4, 5.8), layout="constrained")
pictures = {
    "coins": x,
    "recorded": y,
    f"squares, error {error(squares):.2f}": squares[r:-r, r:-r],
    f"total variation, {error(varied):.2f}": varied[r:-r, r:-r],
}
for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
    ax.imshow(picture, vmin=0, vmax=1)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()

# %%
# Errors are relative to that of the recorded picture. Flat parts are flat now, and edges are steps. But total variation also
# flattens what is not flat: the portraits on the coins turn into patches, and more so with a larger σ.

print(f"squares {error(squares):.3f}, total variation {error(varied):.3f}")
assert error(varied) < 0.83 * error(squares)

row, across = 47, slice(15, 75)
fig, ax = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
columns = np.arange(120)[across]
ax.plot(columns, x[row, across], color="gray", label="coins")
ax.plot(columns, squares[r:-r, r:-r][row, across], label="squares")
ax.plot(columns, varied[r:-r, r:-r][row, across], "--", label="total variation")
ax.set(xlabel="column", ylabel="brightness", title="A row through the coins", ylim=(0, 1.15))
ax.legend(ncols=3)
plt.show()

# %%
# After 40 steps the objective hardly falls any more. Each step solves a least-squares problem by ten products with A and Aᵀ.

flatness = np.hypot(*np.gradient(varied)) < 0.01
print(f"objective {objective_of(squares.ravel()):.3f} before, {objective[-1]:.3f} after {len(objective)} steps")
print(f"flat pixels: {np.mean(flatness):.0%}, {np.mean(np.hypot(*np.gradient(squares)) < 0.01):.0%} with squares")
assert objective[-1] < 0.95 * objective_of(squares.ravel())
assert abs(objective[-1] / objective[-10] - 1) < 0.02
