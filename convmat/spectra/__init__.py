"""Singular values of W, its norm, bounds of the norm that are proven, and what small singular values decide."""

from convmat.spectra._blocks import Torus as Torus
from convmat.spectra._blocks import cosine_blocks as cosine_blocks
from convmat.spectra._blocks import in_pieces as in_pieces
from convmat.spectra._blocks import periodic_blocks as periodic_blocks
from convmat.spectra._bounds import NormBounds, norm_bounds
from convmat.spectra._explain import SpectralExplanation, explain
from convmat.spectra._parts import Part as Part
from convmat.spectra._parts import part_of as part_of
from convmat.spectra._rank import Gap, NullSpace, Rank, condition_number, null_space, rank
from convmat.spectra._values import norm, singular_values

# What other wings stand on has no place in `__all__`: it is no part of the public API.
__all__ = [
    "Gap",
    "NormBounds",
    "NullSpace",
    "Rank",
    "SpectralExplanation",
    "condition_number",
    "explain",
    "norm",
    "norm_bounds",
    "null_space",
    "rank",
    "singular_values",
]
