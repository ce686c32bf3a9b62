"""Products of rows with the matrices of stages, as windows where they stay windows, or else as sparse matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import sparse

from convmat.geometry import Array, IntArray
from convmat.networks._maps import Diagonal, LinearMap, csr
from convmat.networks._windows import Windows, sum_of


def factors_of(whole: Windows | sparse.csr_array, each: LinearMap) -> Any:
    """Return windows, or two matrices whose product is that with a map; the second is None if it is the first one alone."""
    if isinstance(whole, Windows):
        windows = whole.times(each)
        if windows is not None:
            return windows
        whole = whole.tocsr()
    if isinstance(each, Diagonal):
        data = whole.data * each.factors.ravel()[whole.indices]
        return _like(whole, data), None
    if each.pattern.keeps:  # the same numbers in another shape
        return whole, None
    columns = np.unique(whole.indices)
    numbers = np.searchsorted(columns, whole.indices).astype(whole.indices.dtype)
    narrow = sparse.csr_array((whole.data, numbers, whole.indptr), shape=(whole.shape[0], len(columns)))
    return narrow, each.take(columns.astype(np.int64))


def added(factors: list[Any]) -> Windows | sparse.csr_array:
    """Return a sum of windows, or of products: one product of matrices side by side, in which what cancels stays."""
    if all(isinstance(each, Windows) for each in factors):
        total = sum_of(factors)
        if total is not None:
            return total
    factors = [(each.tocsr(), None) if isinstance(each, Windows) else each for each in factors]
    if len(factors) == 1 and factors[0][1] is None:
        whole: sparse.csr_array = factors[0][0]
        return whole
    lefts, rights = [], []
    for left, right in factors:
        if right is None:
            columns = np.unique(left.indices)
            numbers = np.searchsorted(columns, left.indices).astype(left.indices.dtype)
            ones = np.ones(len(columns), left.dtype)
            right = csr(np.ones(len(columns), np.int64), columns, ones, left.shape[1])
            left = sparse.csr_array((left.data, numbers, left.indptr), shape=(left.shape[0], len(columns)))
        lefts.append(left)
        rights.append(right)
    if len(factors) > 1:
        left, right = sparse.hstack(lefts, format="csr"), sparse.vstack(rights, format="csr")
    return _product(left, right)


def _product(left: sparse.csr_array, right: sparse.csr_array) -> sparse.csr_array:
    """Return a product in which entries that cancel stay; SciPy's leaves them out."""
    product, pattern = (
        sparse.csr_array(first @ second) for first, second in ((left, right), (_ones(left), _ones(right)))
    )
    for each in (product, pattern):
        each.sort_indices()
    if product.nnz == pattern.nnz:
        product.has_canonical_format = True
        return product
    width = pattern.shape[1]
    places = [
        np.repeat(np.arange(each.shape[0]), np.diff(each.indptr)) * width + each.indices for each in (product, pattern)
    ]
    data = np.zeros(pattern.nnz, product.dtype)
    data[np.searchsorted(places[1], places[0])] = product.data
    return _like(pattern, data)


def _ones(matrix: sparse.csr_array) -> sparse.csr_array:
    return _like(matrix, np.ones(matrix.nnz, bool))


def _like(matrix: sparse.csr_array, data: Array) -> sparse.csr_array:
    result = sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    result.has_canonical_format = True
    return result


def stacked(blocks: list[sparse.csr_array], width: int, dtype: Any) -> sparse.csr_array:
    """Return blocks of rows as one matrix."""
    if not blocks:
        return sparse.csr_array((0, width), dtype=dtype)
    counts = np.concatenate([np.diff(block.indptr) for block in blocks])
    columns = np.concatenate([block.indices for block in blocks])
    return csr(counts, columns, np.concatenate([block.data for block in blocks]), width)


def filled(blocks: Iterable[sparse.csr_array], counts: IntArray, width: int, dtype: Any) -> sparse.csr_array:
    """Return blocks of rows as one matrix, whose rows have so many nonzeros."""
    nnz = int(counts.sum())
    index = sparse.get_index_dtype(maxval=max(nnz, width, len(counts)))
    data, indices, start = np.empty(nnz, dtype), np.empty(nnz, index), 0
    for block in blocks:
        stop = start + block.nnz
        data[start:stop], indices[start:stop] = block.data, block.indices
        start = stop
    if start != nnz:
        raise AssertionError(f"{nnz} nonzeros were counted, and {start} were made")
    return csr(counts, indices, data, width)
