"""
Bounds for verification
=======================

Which outputs can a network have if its input is known only up to ±r? Interval bounds answer with ``|W|``, and the matrix W
makes them sharper.
"""

# %%
# For inputs c ± r, the outputs of a layer lie within ``W c ± |W| r``, and no narrower bound is right: the corner of the box
# that takes the sign of each entry of a row reaches it. Under zeros padding no two taps meet in one entry of W, so ``|W|``
# is the same convolution with the kernel's absolute values, and ``with_kernel`` gives it.

import matplotlib.pyplot as plt
import numpy as np

from convmat import Convolution

rng = np.random.default_rng(0)
n = 12
c, r = rng.standard_normal((1, n, n)), 0.1
first = Convolution(rng.standard_normal((4, 1, 3, 3)) / 3, (1, n, n), padding=1)
second = Convolution(rng.standard_normal((2, 4, 3, 3)) / 6, first.output_shape, padding=1, stride=2)


def interval(A, low, high):
    """Least and largest outputs of A for inputs between low and high."""
    centre, radius = A.apply((low + high) / 2), A.with_kernel(np.abs(A.kernel)).apply((high - low) / 2)
    return centre - radius, centre + radius


low, high = interval(first, c - r, c + r)
row = first.tocsr()[[100]].toarray()
corner = c + r * np.sign(row).reshape(c.shape)
assert np.isclose(first.apply(corner).ravel()[100], high.ravel()[100])

# %%
# For two layers with a ReLU between them, intervals can go from layer to layer. The result is correct but wide, because it
# ignores that neighbours depend on the same inputs.

wide = interval(second, np.maximum(low, 0), np.maximum(high, 0))

# %%
# Where the sign before the ReLU is known for the whole box, the ReLU multiplies by one or by zero. Where it is open,
# between l < 0 and u > 0, the ReLU lies between two lines of slope u/(u − l), one through zero and one through (u, u): it
# is the line halfway between them, up to a gap. With these slopes in a diagonal matrix D, both layers together are one
# matrix, W₂ D W₁, and what is uncertain about the inputs is counted once.

l, u = low.ravel(), high.ravel()
slope = np.where(l >= 0, 1.0, np.where(u <= 0, 0.0, u / (u - l)))
gap = np.where((l < 0) & (u > 0), -slope * l / 2, 0)
W1, W2 = first.tocsr(), second.tocsr()
product = W2 @ (W1 * slope[:, None])
centre = product @ c.ravel() + W2 @ gap
radius = abs(product) @ np.full(c.size, r) + abs(W2) @ gap
sharp = centre - radius, centre + radius

# %%
# Both bounds hold for a thousand inputs, corners of the box drawn at random. By the product they are narrower on average.

inputs = c + r * rng.choice([-1, 1], (1000, *c.shape))
outputs = second.apply(np.maximum(first.apply(inputs), 0)).reshape(1000, -1)
for lower, upper in (wide, sharp):
    assert (lower.ravel() <= outputs.min(axis=0)).all()
    assert (outputs.max(axis=0) <= upper.ravel()).all()
widths = [np.mean(upper - lower) for lower, upper in (wide, sharp)]
assert widths[1] < 0.8 * widths[0]

fig, ax = plt.subplots(figsize=(5.4, 3.7), layout="constrained")
order, place = np.argsort(centre), np.arange(centre.size)
for bounds, colour, label in (wide, "#c9d6e3", "layer by layer"), (sharp, "#5b8db8", "by the product"):
    lower, upper = (bound.ravel()[order] for bound in bounds)
    ax.fill_between(place, lower, upper, step="mid", color=colour, label=label)
least, most = outputs.min(axis=0)[order], outputs.max(axis=0)[order]
ax.vlines(place, least, most, color="black", label="1000 inputs")
ax.set(xlabel="output, sorted", ylabel="value", title="Bounds of each output")
ax.legend()
plt.show()
