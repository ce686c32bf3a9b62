"""
Three axes: the gradient of a volume
====================================

A convolution along three axes is as easily written as one along two. Here its three outputs are the gradient of a volume,
and the gradient's own transpose makes a Laplacian, with which noise can be smoothed away.
"""

# %%
# The volume: a ring and a ball, with noise.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import eye_array
from scipy.sparse.linalg import LaplacianNd, LinearOperator, cg

from convmat import Convolution

n = 40
z, y, x = np.mgrid[:n, :n, :n] - (n - 1) / 2
ring = np.hypot(np.hypot(x, y) - 13, z) < 5
ball = np.sqrt(x**2 + y**2 + z**2) < 6
clean = np.where(ring, 1.0, np.where(ball, 0.6, 0.0))
noisy = clean + 0.3 * np.random.default_rng(0).standard_normal(clean.shape)

# %%
# The gradient takes differences to the next voxel along each axis: a kernel (C_out, C_in, 2, 2, 2) with one channel in and
# three out. Padding of one behind each axis, by repeating the last voxel, makes the difference at the border zero.

kernel = np.zeros((3, 1, 2, 2, 2))
kernel[:, 0, 0, 0, 0] = -1
kernel[0, 0, 1, 0, 0] = kernel[1, 0, 0, 1, 0] = kernel[2, 0, 0, 0, 1] = 1
G = Convolution(kernel, (1, n, n, n), padding=((0, 1),) * 3, padding_mode="replicate")
gradient = G.apply(clean[None])
assert np.array_equal(gradient[2, :, :, :-1], np.diff(clean, axis=2))

# %%
# Gᵀ is minus the divergence, and GᵀG minus the Laplacian. SciPy knows the latter by its own formula.

W = G.tocsr()
laplacian = LaplacianNd((n, n, n), boundary_conditions="neumann", dtype=np.float64)
assert abs(W.T @ W + laplacian.tosparse()).max() == 0

# %%
# The volume u that is close to the noisy one and has a small gradient minimises ‖u − noisy‖² + λ‖G u‖², so it solves
# (I + λ GᵀG) u = noisy. Conjugate gradients need the products alone, and no matrix. The
# pictures show the middle slice.

strength = 1.0
system = LinearOperator((n**3, n**3), lambda u: u + strength * (G.T @ (G @ u)), dtype=np.float64)
smooth, info = cg(system, noisy.ravel(), rtol=1e-8)
assert info == 0
assert np.allclose((eye_array(n**3) + strength * W.T @ W) @ smooth, noisy.ravel(), atol=1e-5)
smooth = smooth.reshape(clean.shape)
assert np.linalg.norm(smooth - clean) < 0.5 * np.linalg.norm(noisy - clean)

fig, axes = plt.subplots(2, 2, figsize=(5.4, 5.0), layout="constrained")
steepness = np.linalg.norm(gradient, axis=0)
pictures = {"clean": clean, "‖gradient‖": steepness, "noisy": noisy, "smoothed": smooth}
for ax, (title, volume) in zip(axes.flat, pictures.items(), strict=True):
    ax.imshow(volume[n // 2], cmap="magma", vmin=-0.3, vmax=1.4)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()
