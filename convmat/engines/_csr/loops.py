"""The compiled loops of the engine `csr`. Imports numba; import it late.

They are compiled once for each dtype, and for each index dtype, in about a second, and cached on the disk.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numba.np.numpy_support import carray

from convmat.engines._compiled.simd import compiled, pointer, prefetch

SIGNATURES = {  # of what is called from Python, for a dtype, and an index dtype
    "interleave": "void(intp, intp, {0}[::1], intp, intp, intp, intp)",
    "multiply_rows": "void(intp, intp, {1}[::1], {1}[::1], {0}[::1], intp, intp, intp, intp, UniTuple(intp, 2))",
}
GROUP = 4  # vectors that are multiplied at once
_AHEAD = 256  # elements: near enough to be in the first-level cache still, far enough to be there in time
# Unsigned, as all indices here: those that may be negative would be checked for it.
_0, _1, _2, _3, _4 = (cast(Any, np.uint64(number)) for number in range(5))


@compiled
def interleave(first, last, like, x, grouped, columns, groups):  # type: ignore[no-untyped-def]
    """Copy the columns `first` to `last` of vectors (groups, GROUP, columns) to (groups, columns, GROUP).

    The product then reads neighbours: vectors whose length is a power of two would compete for the same places in a cache.

    Parameters
    ----------
    first, last : int
        A range of columns.
    like : array
        Stands for the dtype.
    x, grouped : int
        Addresses of the vectors, and of where to copy them.
    columns, groups : int
        Their sizes.
    """
    size = groups * GROUP * columns
    source, target = carray(pointer(x, like), size), carray(pointer(grouped, like), size)
    length = np.uint64(columns)
    for group in range(np.uint64(groups)):
        start = group * _4 * length
        for i in range(np.uint64(first), np.uint64(last)):
            at, place = start + i, start + i * _4
            target[place] = source[at]
            target[place + _1] = source[at + length]
            target[place + _2] = source[at + _2 * length]
            target[place + _3] = source[at + _3 * length]


@compiled
def multiply_rows(first, last, indptr, indices, data, x, grouped, out, batch, shape):  # type: ignore[no-untyped-def]
    """Multiply the rows `first` to `last` of a CSR matrix by vectors.

    There are four sums at a time, since each addition has to wait for the one before it: of four vectors, which also share
    what is read of the matrix; or, for each vector that is left, of every fourth entry of a row.

    Parameters
    ----------
    first, last : int
        A range of rows.
    indptr, indices : unsigned integer array
        Of the matrix.
    data : array
        Of the matrix; its dtype is that of everything.
    x, grouped, out : int
        Addresses of the vectors (batch, columns), of their copy by `interleave`, and of the results (batch, rows).
    batch : int
        Number of vectors.
    shape : (int, int)
        Rows and columns of the matrix.
    """
    rows, columns, many = np.uint64(shape[0]), np.uint64(shape[1]), np.uint64(batch)
    vectors, results = carray(pointer(x, data), batch * shape[1]), carray(pointer(out, data), batch * shape[0])
    neighbours = carray(pointer(grouped, data), batch * shape[1])
    zero = data.dtype.type(0)
    stop = np.uint64(indptr[first])
    for row in range(np.uint64(first), np.uint64(last)):
        start, stop = stop, np.uint64(indptr[row + _1])
        vector = _0
        while vector + _3 < many:
            at = vector * columns
            a, b, c, d = zero, zero, zero, zero
            for entry in range(start, stop):
                value, i = data[entry], at + _4 * indices[entry]
                a += value * neighbours[i]
                b += value * neighbours[i + _1]
                c += value * neighbours[i + _2]
                d += value * neighbours[i + _3]
            place = vector * rows + row
            results[place], results[place + rows] = a, b
            results[place + _2 * rows], results[place + _3 * rows] = c, d
            vector += _4
        while vector < many:
            at = vector * columns
            a, b, c, d = zero, zero, zero, zero
            j = start
            while j + _3 < stop:
                prefetch(data, j + np.uint64(_AHEAD))
                prefetch(indices, j + np.uint64(_AHEAD))
                a += data[j] * vectors[at + indices[j]]
                b += data[j + _1] * vectors[at + indices[j + _1]]
                c += data[j + _2] * vectors[at + indices[j + _2]]
                d += data[j + _3] * vectors[at + indices[j + _3]]
                j += _4
            while j < stop:
                a += data[j] * vectors[at + indices[j]]
                j += _1
            results[vector * rows + row] = (a + b) + (c + d)
            vector += _1
