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
    limits, around = np.array(sizes), np.array(rows.around)
    for numbers, values in rows.of(places, chosen):
        seen[numbers] += 1
        groups, inner = values.shape[2:4]
        columns = places[numbers][:, None] + rows.offsets[chosen]
        columns = np.where(around, columns % limits, columns)
        inside = ((columns >= 0) & (columns < limits)).all(axis=2)
        columns = np.clip(columns, 0, limits - 1)
        for group in range(groups):
            own = np.arange(group * inner, (group + 1) * inner)
            row = own[:, None], *places[numbers].T[:, :, None, None, None]
            expected = gram[(*row, own, *np.moveaxis(columns, 2, 0)[..., None, None])]
            np.testing.assert_allclose(
                values[:, :, group], np.where(inside[..., None, None], expected, 0.0), atol=1e-12
            )
    assert (seen == 1).all()
