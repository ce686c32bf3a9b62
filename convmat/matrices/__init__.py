"""W and Wᵀ as sparse arrays of SciPy, from a geometry and a kernel."""

from convmat.matrices._assembly import (
    assemble,
    assemble_as,
    check_format,
    check_rows,
    convolution_matrix,
    transposed_convolution_matrix,
)
from convmat.matrices._blocks import matrix_blocks
from convmat.matrices._gram import assemble_gram_as, gram_size
from convmat.matrices._gram_convolution import gram_convolution
from convmat.matrices._gram_rows import GramRows

__all__ = [
    "GramRows",
    "assemble",
    "assemble_as",
    "assemble_gram_as",
    "check_format",
    "check_rows",
    "convolution_matrix",
    "gram_convolution",
    "gram_size",
    "matrix_blocks",
    "transposed_convolution_matrix",
]
