"""
Factor once, solve for many
===========================

An operator is enough for iterative solvers. A matrix can also be factored. Then each further right-hand side costs two
triangular solves.
"""

# %%
# A film of a spinning bar, blurred and noisy: 60 frames, all through the same lens.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from scipy.sparse import eye_array
from scipy.sparse.linalg import splu

from convmat import Convolution

n, frames = 64, 60
row, column = np.mgrid[:n, :n] - (n - 1) / 2
angle = np.linspace(0, np.pi, frames, endpoint=False)[:, None, None]
along = row * np.cos(angle) + column * np.sin(angle)
across = column * np.cos(angle) - row * np.sin(angle)
film = ((np.abs(along) < 26) & (np.abs(across) < 3) | (np.hypot(row, column) < 9)).astype(float)

A = Convolution(np.ones((7, 7)) / 49, (n, n), padding=3, padding_mode="symmetric")
rng = np.random.default_rng(0)
blurred = A.apply(film) + 0.005 * rng.standard_normal(film.shape)

# %%
# Each frame is restored by least squares with a penalty, (WᵀW + λI) x = Wᵀ y. The matrix on the left has 169 diagonals and
# is the same for all frames. SuperLU orders its rows such that the factors stay sparse.

W = A.tocsr()
strength = 0.003
M = (W.T @ W + strength * eye_array(n * n)).tocsc()
factors = splu(M, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
right = A.T.apply(blurred).reshape(frames, -1).T
restored = factors.solve(right).T.reshape(film.shape)

assert np.abs(M @ restored.reshape(frames, -1).T - right).max() < 1e-10
assert np.linalg.norm(restored - film) < 0.7 * np.linalg.norm(blurred - film)

chosen = (4, 24, 44)
fig, axes = plt.subplots(2, 3, figsize=(5.4, 3.9), layout="constrained")
for (i, j), ax in np.ndenumerate(axes):
    ax.imshow((blurred, restored)[i][chosen[j]], cmap="gray", vmin=-0.1, vmax=1.1)
    ax.set_title(f"{('blurred', 'restored')[i]}, {chosen[j]}")
    ax.set_axis_off()
plt.show()

# %%
# What a factorisation costs is its fill: entries of the factors where M has none. They grow faster than the picture, so
# for large pictures an iterative solver is the better tool.

print(f"nonzeros: W {W.nnz}, M {M.nnz}, factors {factors.L.nnz + factors.U.nnz}")
assert M.nnz < factors.L.nnz + factors.U.nnz < 0.2 * n**4

order = np.argsort(factors.perm_c)
matrices = {"M": M, "M, reordered": M[order][:, order], "factor L": factors.L}
fig, axes = plt.subplots(1, 3, figsize=(5.4, 2.1), layout="constrained")
for ax, (title, matrix) in zip(axes, matrices.items(), strict=True):
    row, column = matrix.nonzero()
    ax.hist2d(column, row, bins=64, cmap="Blues", norm=LogNorm(1, 64**2), cmin=1)
    ax.set(title=title, xticks=[], yticks=[], aspect="equal", ylim=(n * n, 0))
    ax.spines[:].set_visible(True)
plt.show()
