"""
What a layer cannot see
=======================

The null space of W holds the pictures that a layer maps to zero. For a smoothing layer these are checkerboards, and which
of them there are depends on the padding and on the size of the picture.
"""

# %%
# The binomial kernel 1 2 1, along both axes, averages neighbours. A picture that alternates between 1 and −1 averages
# to nothing: its frequency is the one where the kernel's transform is zero. With circular padding and an even size,
# that is exact.

import warnings

import matplotlib.pyplot as plt
import numpy as np

from convmat import Convolution, TransposedConvolution, spectra

binomial = np.outer([1.0, 2, 1], [1, 2, 1]) / 16
n = 12
circular = Convolution(binomial, (n, n), padding=1, padding_mode="circular")
space = spectra.null_space(circular)
assert len(space.basis) == 2 * n - 1  # a picture that alternates along one axis, whatever it does along the other
assert np.allclose(circular.apply(space.basis), 0)

# %%
# The gap tells how sure that is: the smallest singular value that is kept, and the largest one that counts as zero.

print(f"kept {space.gap.kept:.1e}, dropped {space.gap.dropped:.1e}")

# %%
# With zeros at the border no picture of this size is lost altogether, but the last singular values are small. Their
# vectors are checkerboards still, which fade out towards the border.

zeros = Convolution(binomial, (n, n), padding=1)
assert spectra.rank(zeros).rank == n * n
_, values, rows = np.linalg.svd(zeros.toarray())
assert np.allclose(values, spectra.singular_values(zeros))

fig, axes = plt.subplots(1, 3, figsize=(5.4, 2.3), layout="constrained")
signs = (-1.0) ** np.add.outer(np.arange(n), np.arange(n))
pictures = {
    "circular: 0": signs / n,
    f"zeros: {values[-1]:.4f}": rows[-1].reshape(n, n),
    f"zeros: {values[-2]:.4f}": rows[-2].reshape(n, n),
}
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture, cmap="gray")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
plt.show()
assert np.allclose(circular.apply(signs), 0)

# %%
# The spectra of both. Under circular padding the values of many frequencies are the same in pairs, and the last ones
# are zero. Zeros padding splits the pairs, and lifts the end of the curve a little. There is no gap in it: how many
# of these pictures count as invisible is a matter of the threshold.

fig, ax = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
ax.semilogy(np.maximum(spectra.singular_values(circular), 1e-6), label="circular padding, zeros drawn at 10⁻⁶")
ax.semilogy(spectra.singular_values(zeros), "--", label="zeros")
ax.set(xlabel="number of the singular value", ylabel="singular value", title="Spectra of the smoothing layer")
ax.legend()
plt.show()

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = spectra.rank(zeros, rtol=1e-2)
assert not found.gap.is_clear
assert "no gap" in str(caught[0].message)

# %%
# The same layer backwards, as in a network that makes pictures: a transposed convolution with stride 2 cannot make
# every picture. What it cannot make is the null space of its transpose. A kernel of 2 × 2 ones makes each pixel four
# times, so that pictures which change within a block of four never come out of it. Three of four dimensions are
# missing.

upsampling = TransposedConvolution(np.ones((2, 2)), (n // 2, n // 2), stride=2)
missing = spectra.null_space(upsampling.T).basis
assert len(missing) == 3 * n * n // 4
parts = np.tensordot(missing, signs, 2)
assert np.allclose(np.tensordot(parts, missing, 1), signs)

# %%
# The checkerboard lies in that space: it is the sum of its parts there. This layer never draws one. Layers whose
# kernels do not fit their stride do draw them: see :ref:`sphx_glr_auto_examples_plot_checkerboard.py`.
