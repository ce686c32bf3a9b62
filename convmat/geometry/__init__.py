"""The integers of a convolution: the relation of one axis, axes, options and their validation, shapes, and dtypes."""

from convmat.geometry._axis import Axis, Run, Table
from convmat.geometry._dtypes import (
    Array,
    as_array,
    as_dtype,
    as_kernel,
    binary_scale,
    cast_kernel,
    check_bool,
    check_dtype,
    check_host,
    check_kernel_shape,
    check_scalar,
    check_target,
    csr_nbytes,
    flip_spatial,
    index_dtype,
)
from convmat.geometry._equivalents import dual_kernel, merge_axes
from convmat.geometry._geometry import ConvolutionGeometry
from convmat.geometry._modes import MODES, PADDING_MODES, Border
from convmat.geometry._options import IntPerAxis, Padding, RowRange, Shape, integer, is_sequence
from convmat.geometry._relation import IntArray, Relation, Strands

__all__ = [
    "MODES",
    "PADDING_MODES",
    "Array",
    "Axis",
    "Border",
    "ConvolutionGeometry",
    "IntArray",
    "IntPerAxis",
    "Padding",
    "Relation",
    "RowRange",
    "Run",
    "Shape",
    "Strands",
    "Table",
    "as_array",
    "as_dtype",
    "as_kernel",
    "binary_scale",
    "cast_kernel",
    "check_bool",
    "check_dtype",
    "check_host",
    "check_kernel_shape",
    "check_scalar",
    "check_target",
    "csr_nbytes",
    "dual_kernel",
    "flip_spatial",
    "index_dtype",
    "integer",
    "is_sequence",
    "merge_axes",
]
