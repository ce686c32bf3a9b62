"""W and Wᵀ as sparse arrays of SciPy, from a geometry and a kernel."""

from convmat.matrices._assembly import (
    assemble,
    assemble_as,
    check_format,
    check_rows,
    convolution_matrix,
    transposed_convolution_matrix,
)

__all__ = [
    "assemble",
    "assemble_as",
    "check_format",
    "check_rows",
    "convolution_matrix",
    "transposed_convolution_matrix",
]
