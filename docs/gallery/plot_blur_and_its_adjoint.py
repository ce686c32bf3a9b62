"""
A blur and its adjoint
======================

The transpose of a blur is a blur with the flipped kernel, but not always with the same padding. With an even kernel under
``padding="same"`` the two borders differ, and hand-written adjoints go wrong there.
"""

# %%
# The kernel is a streak of eight taps, as from a camera that moved. ``"same"`` keeps the size of the picture: eight taps
# need seven more positions on each axis, three before and four behind. ``A.T`` is the transpose of exactly this map.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data

from convmat import Convolution

photograph = plt.imread(get_sample_data("grace_hopper.jpg", asfileobj=False))
x = photograph[20:340:2, 110:430:2].mean(axis=-1) / 255
streak = np.eye(8) / 8
A = Convolution(streak, x.shape, padding="same")
y = A.apply(x)

fig, axes = plt.subplots(1, 3, figsize=(5.4, 2.2), layout="constrained")
for ax, image, title in zip(axes, (x, y, A.T.apply(y)), ("x", "A x", "Aᵀ A x"), strict=True):
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()

# %%
# One equation defines the adjoint: ⟨A x, y⟩ = ⟨x, Aᴴ y⟩ for all x and y. Random vectors find all but contrived mistakes,
# and only rounding differs.


def mismatch(forward, backward):
    """|⟨A x, y⟩ − ⟨x, Aᴴ y⟩|, relative to the norms."""
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal(forward.shape[1]), rng.standard_normal(forward.shape[0])
    Au, Av = forward @ u, backward @ v
    return abs(np.vdot(Au, v) - np.vdot(u, Av)) / (np.linalg.norm(Au) * np.linalg.norm(v))


# %%
# The usual shortcut is to blur once more with the flipped kernel. For an odd kernel that is the adjoint. For an even one
# it pads three before and four behind again, where the transpose needs four and three: the result is off by one pixel
# on each axis.

shortcut = Convolution(streak, x.shape, padding="same", flip=True)
mirrored = Convolution(streak, x.shape, padding=((4, 3), (4, 3)), flip=True)
for name, B in (("A.H", A.H), ("flipped, same", shortcut), ("flipped, (4, 3)", mirrored)):
    print(f"{name:16} {mismatch(A, B):.0e}")
assert mismatch(A, A.H) < 1e-14
assert mismatch(A, shortcut) > 1e-4
assert np.allclose(mirrored.apply(y), A.T.apply(y))
assert np.allclose(shortcut.apply(y)[:-1, :-1], A.T.apply(y)[1:, 1:])

fig, axes = plt.subplots(1, 2, figsize=(5.4, 3.0), layout="constrained")
for ax, B, title in zip(axes, (A.T, shortcut), ("A.T", "flipped kernel, same"), strict=True):
    point = np.zeros(x.shape)
    point[80, 80] = 1
    ax.imshow(B.apply(A.apply(point))[70:91, 70:91], cmap="magma", extent=(69.5, 90.5, 90.5, 69.5))
    ax.plot(80, 80, "+", color="cyan", markersize=14)
    ax.set(title=title + "\nafter A, of the marked point", xlabel="column")
axes[0].set_ylabel("row")
plt.show()

# %%
# With a complex kernel the adjoint conjugates and the transpose does not: ``A.H`` and ``A.T`` are then two maps.

C = Convolution(streak * np.exp(1j * np.arange(8)), x.shape, padding="same")
assert mismatch(C, C.H) < 1e-14
assert mismatch(C, C.T) > 1e-4
