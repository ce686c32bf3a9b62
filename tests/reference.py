"""The oracles: numpy.pad, and a loop over outputs and taps, or one fancy index for each axis; nothing else."""

from itertools import product

import numpy as np
from scipy import sparse

NUMPY_MODE = {
    "zeros": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
}


def matrix(kernel, input_shape, *, stride, padding, dilation, groups=1, padding_mode="zeros", outputs=None):
    """Return W as a dense array; `stride`, `padding` (pairs) and `dilation` one for each axis.

    `outputs` says how many outputs there are on each axis, the first ones; by default all.
    """
    n, channels = len(stride), kernel.ndim > len(stride)
    spatial = tuple(input_shape[-n:])
    kernel = kernel if channels else kernel[None, None]
    number = np.arange(1, kernel.shape[1] * groups * np.prod(spatial) + 1).reshape(-1, *spatial)
    number = np.pad(number, [(0, 0), *padding], mode=NUMPY_MODE[padding_mode])  # 0 reads nothing
    reaches = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
    outputs = outputs or [(m - r - 1) // s + 1 for m, r, s in zip(number.shape[1:], reaches, stride, strict=True)]
    rows = []
    for c, *o in product(range(len(kernel)), *map(range, outputs)):
        row = np.zeros(kernel.shape[1] * groups * int(np.prod(spatial)), kernel.dtype)
        first = c // (len(kernel) // groups) * kernel.shape[1]
        for i, *t in product(*map(range, kernel.shape[1:])):
            at = tuple(p * s + q * d for p, s, q, d in zip(o, stride, t, dilation, strict=True))
            if source := number[(first + i, *at)]:
                row[source - 1] += kernel[(c, i, *t)]
        rows.append(row)
    return np.array(rows)


def sparse_matrix(kernel, input_shape, *, stride, padding, dilation, groups=1, padding_mode="zeros", outputs=None):
    """Return the same W as a canonical CSR array, in which zeros of the kernel are stored: fast, for large inputs."""
    n, channels = len(stride), kernel.ndim > len(stride)
    spatial = tuple(input_shape[-n:])
    kernel = kernel if channels else kernel[None, None]
    sources = np.zeros((1, 1), np.int64)  # (outputs, taps), of all axes so far; negative reads nothing
    for axis, (size, taps) in enumerate(zip(spatial, kernel.shape[2:], strict=True)):
        number = np.pad(np.arange(1, size + 1), padding[axis], mode=NUMPY_MODE[padding_mode]) - 1
        reach = dilation[axis] * (taps - 1)
        count = outputs[axis] if outputs else (len(number) - reach - 1) // stride[axis] + 1
        own = number[np.arange(count)[:, None] * stride[axis] + np.arange(taps) * dilation[axis]]
        together = sources[:, None, :, None] * size + own[:, None, :]
        together[(sources[:, None, :, None] < 0) | (own[:, None, :] < 0)] = -1
        sources = together.reshape(len(sources) * count, -1)
    outer, inner, rows, columns = len(kernel), kernel.shape[1], len(sources), int(np.prod(spatial))
    row, tap = np.nonzero(sources >= 0)
    channel = np.arange(outer)[:, None, None], np.arange(inner)[:, None]
    data = kernel.reshape(outer, inner, -1)[:, :, tap]
    row = np.broadcast_to(channel[0] * rows + row, data.shape)
    column = (channel[0] // (outer // groups) * inner + channel[1]) * columns + sources[sources >= 0]
    shape = outer * rows, groups * inner * columns
    entries = data.ravel(), (row.ravel(), column.ravel())
    return sparse.coo_array(entries, shape=shape).tocsr()  # which sums duplicates and sorts
