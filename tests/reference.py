"""The oracle: numpy.pad and a loop over outputs and taps, nothing else."""

from itertools import product

import numpy as np

NUMPY_MODE = {
    "zeros": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
}


def matrix(kernel, input_shape, *, stride, padding, dilation, groups=1, padding_mode="zeros"):
    """Return W as a dense array; `stride`, `padding` (pairs) and `dilation` one for each axis."""
    n, channels = len(stride), kernel.ndim > len(stride)
    spatial = tuple(input_shape[-n:])
    kernel = kernel if channels else kernel[None, None]
    number = np.arange(1, kernel.shape[1] * groups * np.prod(spatial) + 1).reshape(-1, *spatial)
    number = np.pad(number, [(0, 0), *padding], mode=NUMPY_MODE[padding_mode])  # 0 reads nothing
    reaches = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
    outputs = [(m - r - 1) // s + 1 for m, r, s in zip(number.shape[1:], reaches, stride, strict=True)]
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
