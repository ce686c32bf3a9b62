"""Which method each function of this package would use for an operator, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from convmat._messages import scaled
from convmat.spectra._certificates import band_of, is_affordable
from convmat.spectra._parts import Operator, Part, part_of
from convmat.spectra._ways import Way, cost_of, way_of


@dataclass(frozen=True, slots=True, repr=False)
class SpectralExplanation:
    """What is known of W before anything is computed, printed as a table.

    Attributes
    ----------
    rows : tuple of tuple of str
        For each factor and task: the factor, the task, the method, flops and bytes.
    """

    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        lines = [("part of W", "task", "method", "flops", "bytes"), *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    __repr__ = __str__


def explain(A: Operator) -> SpectralExplanation:
    """Return which method each function would use, and what it costs.

    Parameters
    ----------
    A : Convolution or TransposedConvolution
        The operator.

    Returns
    -------
    SpectralExplanation
        A table when printed. W is taken apart into groups of channels, and a group into factors of a Kronecker product
        where its kernel is an outer product. All groups but the first are left out, where they are like it. Of an
        iteration, the flops are those of one product.

    Raises
    ------
    TypeError
        If `A` is no operator of this package for NumPy arrays.
    ValueError
        If the kernel has values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from convmat import Convolution, spectra
    >>> A = Convolution(np.ones((8, 8, 3, 3)), (8, 16, 16), padding=1, padding_mode="circular")
    >>> print(spectra.explain(A))
    part of W                              task               method                            flops   bytes
    8 → 8 channels, 16 × 16, kernel 3 × 3  all values         one small SVD for each frequency  705 k   132 kB
    8 → 8 channels, 16 × 16, kernel 3 × 3  norm, some values  one small SVD for each frequency  705 k   132 kB
    8 → 8 channels, 16 × 16, kernel 3 × 3  norm_bounds        torus, then Cholesky              8.59 G  33.6 MB
    """
    part = part_of(A)
    return SpectralExplanation(tuple(row for factor in part.pieces()[0] for row in _rows(factor)))


def _rows(factor: Part) -> list[tuple[str, ...]]:
    name, few = _name(factor), way_of(factor)
    all_ways = Way.DENSE if few is Way.LANCZOS else few
    rows = [
        (name, task, way.value, *_cells(factor, way))
        for task, way in (("all values", all_ways), ("norm, some values", few))
    ]
    band = band_of(factor) if len(factor.kernel) == 1 else band_of(factor.groups()[0])
    dtype = factor.kernel.dtype
    method = "torus, then Cholesky" if is_affordable(factor.groups()[0]) else "torus; Cholesky takes too much"
    return [*rows, (name, "norm_bounds", method, scaled(band.flops(dtype)), scaled(band.nbytes(dtype), "B"))]


def _cells(factor: Part, way: Way) -> tuple[str, str]:
    cost = cost_of(factor, way)
    return scaled(cost.flops), scaled(cost.nbytes, "B")


def _name(factor: Part) -> str:
    groups, outer, inner = factor.kernel.shape[:3]
    words = [f"{inner} → {outer} channels" + (f" in each of {groups} groups" if groups > 1 else "")]
    if factor.axes:
        words.append(" × ".join(str(axis.size) for axis in factor.axes))
        words.append("kernel " + " × ".join(str(axis.taps) for axis in factor.axes))
    return ", ".join(words)
