"""The engine that multiplies blocks of columns: which convolution its transpose is."""

from math import prod

import numpy as np
from hypothesis import example, given

from convmat.engines import _gemm as gemm
from tests import reference
from tests.cases import Case, cases, values


def matrix(geometry, kernel):
    options = {name: getattr(geometry, name) for name in ("stride", "padding", "dilation", "groups")}
    return reference.matrix(kernel, geometry.input_shape, outputs=geometry.spatial_output, **options)


@given(case=cases(truncated=True, most=20_000))
@example(Case((8, 8), (12, 12), (1, 1), ((0, 0), (0, 0)), (1, 1)))  # 19² inputs of the dual, for 12² of the transpose
def test_the_matrix_of_the_dual_is_the_transpose(case):
    geometry = case.geometry.padded
    dual, axes = gemm._dual(geometry), geometry.axes
    crowded = prod(axis.size + axis.reach for axis in axes) > 2 * prod(axis.size for axis in axes)
    assert (dual is None) == (crowded or set(geometry.stride) != {1})
    if dual is None:
        return
    inner, outer = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    kernel = values((geometry.groups, outer, inner, *geometry.spatial_kernel), "int64")
    turned = np.flip(kernel, axis=tuple(range(3, kernel.ndim))).swapaxes(1, 2)
    V, of_dual = (
        matrix(one, array.reshape(-1, *array.shape[2:])) for one, array in ((geometry, kernel), (dual, turned))
    )
    np.testing.assert_array_equal(of_dual, V.T)
