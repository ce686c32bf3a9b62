"""Some rows of a Gram matrix, by kinds, are those of the whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convmat.matrices import GramRows
from convmat.operators import correlation_kernel
from tests.cases import cases

RNG = np.random.default_rng(0)


@given(cases(), st.booleans())
def test_rows_are_those_of_the_gram_matrix(case, transposed):
    A = case.operator(RNG.standard_normal(case.kernel_shape), transposed)
    shape = A.input_shape if A.geometry.has_channels else (1, *A.input_shape)
    gram, sizes = A.gram().toarray().reshape(*shape, *shape), shape[1:]
    rows = GramRows(A.geometry, correlation_kernel(A), transposed)
    places = RNG.permutation(np.argwhere(np.ones(sizes, bool)))
    chosen = np.flatnonzero(RNG.random(len(rows.offsets)) < 0.7)
    seen = np.zeros(len(places), int)
    for numbers, values in rows.of(places, chosen):
        seen[numbers] += 1
        groups, inner = values.shape[2:4]
        for number, blocks in zip(numbers, values, strict=True):
            for offset, block in zip(rows.offsets[chosen], blocks, strict=True):
                column = [
                    (place + step) % size if around else place + step
                    for place, step, size, around in zip(places[number], offset, sizes, rows.around, strict=True)
                ]
                inside = all(0 <= c < size for c, size in zip(column, sizes, strict=True))
                for group in range(groups):
                    own = slice(group * inner, (group + 1) * inner)
                    expected = gram[(own, *places[number], own, *column)] if inside else 0.0
                    np.testing.assert_allclose(block[group], expected, atol=1e-12)
    assert (seen == 1).all()
