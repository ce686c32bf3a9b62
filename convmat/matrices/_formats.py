"""The formats of SciPy's sparse arrays, and the memory that a conversion from CSR takes, counted before it is made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
KNOWN_AS = dict.fromkeys(("dense", "array", "ndarray", "numpy"), "for a dense array call .toarray() on the sparse one")

# What CPython allocates: in steps of 16 bytes, and 16 bytes more in front of a container.
_LIST, _TUPLE, _NUMBER, _POINTER = 80, 80, 32, 8
_DICT = 90  # for each item, where a dict has just grown and its smaller self is still there
_BLOCKS = 0.7  # of a BSR array's entries at least are nonzeros of W: SciPy takes blocks of one otherwise


def conversion_nbytes(
    format: str,
    shape: tuple[int, int],
    nnz: int,
    itemsize: int,
    index: int,
    diagonals: Callable[[], tuple[int, int]],
) -> int:
    """Return the bytes that SciPy takes to convert a CSR array, besides those of the array itself.

    Parameters
    ----------
    format : str
        One of ``FORMATS``.
    shape, nnz, itemsize, index
        Of the array: its shape, number of nonzeros, and the bytes of a value and of an index.
    diagonals : callable
        Returns the number of diagonals and that of columns up to the last one used; called where these matter.
    """
    rows, columns = shape
    pairs = nnz * index  # the rows of the nonzeros, beside the columns that there are
    match format:
        case "csr":
            return 0
        case "csc":
            return nnz * (itemsize + index) + (columns + 1) * index
        case "coo":
            narrow = index > 4 and max(shape) <= np.iinfo(np.int32).max
            return pairs + (nnz * 8 if narrow else 0)
        case "bsr":
            marks = (columns // 2 + 1) * index if not (rows % 2 or columns % 2) else 0
            marks = max(marks, (columns // 3 + 1) * index if not (rows % 3 or columns % 3) else 0)
            return int(nnz * itemsize / _BLOCKS) + pairs + (rows + 1) * index + marks
        case "lil":
            value = max(_NUMBER, itemsize + 16)
            return nnz * (2 * _POINTER + _NUMBER + value) + rows * 2 * (_POINTER + _LIST)
        case "dok":
            value = max(_NUMBER, itemsize + 24)
            return pairs + nnz * (_TUPLE + 2 * _NUMBER + value + _DICT)
        case "dia":
            count, width = diagonals()
            sorting = 2 * pairs + nnz * (25 + index)  # the diagonal of each nonzero is found by sorting all
            return pairs + max(sorting, pairs + nnz * 8 + count * width * itemsize)
    raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
