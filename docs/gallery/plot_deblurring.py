"""
Deblurring with a solver
========================

To undo a blur is to solve a linear system. SciPy's least-squares solvers take the operator, but they must also know when
to stop.
"""

# %%
# A page out of focus: a disc of nine pixels, mirrored borders, and a little noise.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import lsmr
from skimage import data

from convmat import Convolution

x = data.page()[:160, :160] / 255
disc = (np.hypot(*np.mgrid[-4:5, -4:5]) < 4.5).astype(float)
A = Convolution(disc / disc.sum(), x.shape, padding=4, padding_mode="symmetric")
b = A.apply(x) + 0.01 * np.random.default_rng(0).standard_normal(x.shape)

# %%
# ``lsmr`` minimises ‖A x − b‖² + damp²·‖x‖² with one product by A and one by Aᴴ in each step. The second term is
# Tikhonov's regularisation; b is taken relative to its mean, so that it pulls towards grey and not towards black.

steps = np.array([1, 2, 4, 8, 16, 32, 64, 128])


def deblur(damp):
    """The solutions after each number of steps."""
    start = b - b.mean()
    solutions = [lsmr(A, start.ravel(), damp=damp, maxiter=int(n), atol=0, btol=0)[0] for n in steps]
    return np.reshape(solutions, (len(steps), *x.shape)) + b.mean()


plain, damped = deblur(0), deblur(0.1)


def error(solutions):
    """Error of each solution, relative to that of the blurred picture."""
    return np.linalg.norm(solutions - x, axis=(1, 2)) / np.linalg.norm(b - x)


best = error(plain).argmin()
titles = ("blurred", f"plain, {steps[best]} steps", "plain, 128 steps", "damped, 128 steps")
fig, axes = plt.subplots(2, 2, figsize=(5.4, 5.6), layout="constrained")
for ax, title, image in zip(axes.flat, titles, (b, plain[best], plain[-1], damped[-1]), strict=True):
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()

# %%
# Without damping the picture gets better at first and then worse: the solver inverts small singular values of the blur last,
# and the noise with them. With damping the solver converges, and it does not matter when it stops.

assert error(plain)[best] < 0.8
assert error(plain)[-1] > 1
assert error(damped)[-1] < 0.8
assert np.isclose(error(damped)[-1], error(damped)[-2], rtol=1e-3)

fig, ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
ax.semilogx(steps, error(plain), "o-", label="plain", base=2)
ax.semilogx(steps, error(damped), "s-", label="damped")
ax.axhline(1, color="gray", linestyle=":")
ax.set(
    xlabel="steps", ylabel="error (1: as blurred)", xticks=steps, xticklabels=steps, ylim=0, title="Error against steps"
)
ax.legend()
plt.show()
