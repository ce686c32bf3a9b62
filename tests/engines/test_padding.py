"""P and its transpose, against numpy.pad."""

import numpy as np
from hypothesis import given

from convmat import ConvolutionGeometry
from convmat.engines._padding import fold, pad
from tests.cases import cases, values
from tests.reference import NUMPY_MODE


@given(cases())
def test_pad_and_fold(case):
    geometry = ConvolutionGeometry(case.kernel_shape, case.input_shape, **case.options)
    spatial = geometry.spatial_input
    x = values((2, 3, *spatial), "int64")
    expected = np.pad(x, [(0, 0), (0, 0), *case.padding], mode=NUMPY_MODE[case.padding_mode])
    padded = np.full((2, 3, *geometry.padded.spatial_input), -1)
    pad(x, geometry, padded)
    np.testing.assert_array_equal(padded, expected)
    y, folded = values(padded.shape, "int64", 1), np.full(x.shape, -1)
    before = np.vdot(padded, y)
    fold(y.copy(), geometry, folded)
    assert np.vdot(x, folded) == before
