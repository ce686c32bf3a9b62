"""
Two exposures of one scene, with PyLops
=======================================

What one motion blur hides, another shows: two exposures, stacked into one PyLops problem, give less than half the error of
either. convmat's operators enter it as they are, with their shapes, and combine with PyLops' own.
"""

# %%
# A brick wall, taken twice: the camera moved down in the first exposure and sideways in the second. In the second, three
# pixels of ten are dead. The wall goes on beyond the pictures, so the convolutions pad nothing.

import matplotlib.pyplot as plt
import numpy as np
import pylops
from skimage import data

from convmat import Convolution

scene = data.brick()[:384, :384].reshape(128, 3, 128, 3).mean(axis=(1, 3)) / 255
r = 4
down = np.zeros((2 * r + 1, 2 * r + 1))
down[:, r] = 1 / len(down)
moved = [pylops.aslinearoperator(Convolution(kernel, scene.shape)) for kernel in (down, down.T.copy())]

# %%
# A PyLops operator knows the shapes of what goes in and out. So arrays need no ravel, and other operators can be made to
# fit. Dead pixels are PyLops' ``Restriction`` to those alive, after the motion.

assert moved[0].dims == (128, 128)
assert moved[0].dimsd == (120, 120)
rng = np.random.default_rng(0)
alive = np.flatnonzero(rng.random(moved[1].shape[0]) > 0.3)
camera = [moved[0], pylops.Restriction(moved[1].shape[0], alive) @ moved[1]]
assert all(pylops.utils.dottest(Op, *Op.shape) for Op in camera)

y = [(Op @ scene).ravel() for Op in camera]
y = [values + 0.005 * rng.standard_normal(values.shape) for values in y]

# %%
# ``VStack`` puts them on top of each other, and ``regularized_inversion`` adds a penalty on differences of neighbours.


def restore(Op, values):
    """Least squares with PyLops, without the margin."""
    penalty = pylops.Gradient(scene.shape, kind="forward")
    solution, *_ = pylops.optimization.leastsquares.regularized_inversion(
        Op, values, [penalty], epsRs=[0.1], iter_lim=60
    )
    return solution.reshape(scene.shape)[r:-r, r:-r]


x = scene[r:-r, r:-r]
second = np.full(x.size, np.nan)
second[alive] = y[1]
pictures = {
    "moved down": y[0].reshape(x.shape),
    "moved sideways": second.reshape(x.shape),
    "the wall": x,
    "from the first": restore(camera[0], y[0]),
    "from the second": restore(camera[1], y[1]),
    "from both": restore(pylops.VStack(camera), np.concatenate(y)),
}
error = {name: np.sqrt(np.nanmean((picture - x) ** 2)) for name, picture in pictures.items()}

fig, axes = plt.subplots(2, 3, figsize=(5.4, 4.2), layout="constrained")
for ax, (name, picture) in zip(axes.flat, pictures.items(), strict=True):
    ax.imshow(picture, vmin=0.3, vmax=0.8)
    ax.set_title(name if picture is x else f"{name}\n{error[name]:.3f}")
    ax.set_axis_off()
plt.show()

# %%
# The numbers are root mean squares of the error. A motion over nine pixels removes waves of nine, four and a half, … pixels
# in its own direction, and no solver brings them back from that exposure alone. The other motion lets them pass.

frequency = np.fft.rfftfreq(360)
gain = np.abs(np.fft.rfft(down[:, r], 360))
fig, ax = plt.subplots(figsize=(5.4, 3.0), layout="constrained")
ax.plot(frequency, gain, label="along the motion")
ax.plot(frequency, np.ones_like(frequency), "--", label="across it")
ax.set(xlabel="cycles per pixel", ylabel="what is left of a wave", ylim=(0, 1.3), title="What a motion blur passes")
ax.legend(loc="upper right", ncols=2)
plt.show()

assert gain[40] < 1e-12  # 360 / 40 = nine pixels
assert error["from both"] < 0.6 * error["from the first"] < 0.6 * error["from the second"]
assert error["from the first"] < error["moved down"]

# %%
# For one exposure, or several with one kernel each on output channels, ``inverse.deconvolve`` is shorter: see
# :ref:`sphx_glr_auto_examples_plot_super_resolution.py`. PyLops is for what else there may be in a problem.
