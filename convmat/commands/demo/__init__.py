"""The demo: the textbook's example as matrices, and a photograph halved by W and brought back to size by Wᵀ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convmat import textbook
from convmat.commands._console import CommandError, check_figure, progress, render, require, write
from convmat.commands.demo.figure import draw
from convmat.commands.demo.photograph import (
    DEGREES,
    MATRIX_LIMIT,
    RUNS,
    Photograph,
    Pictures,
    check,
    check_against_loops,
    check_apart,
    find,
    geometry_of,
    halve_and_enlarge,
    load,
)
from convmat.geometry import Array
from convmat.matrices import convolution_matrix

__all__ = ["run"]


def run(image: Path | None, figure: Path) -> None:
    """Print the textbook's example, send a photograph through W and Wᵀ, and draw it.

    Parameters
    ----------
    image : Path or None
        An image file; None is a portrait that matplotlib ships.
    figure : Path
        Where to write the figure.

    Raises
    ------
    CommandError
        If the image cannot be read, the figure cannot be written or would overwrite the image, or a package is missing. In
        the last case the example has been printed, because it needs only NumPy.
    """
    try:
        require("the demo", "PIL", "matplotlib")
    except CommandError:
        print_example()
        raise
    source = find(image)
    check_apart(source, figure)
    check_figure(figure)
    photograph = load(source)
    print_example()
    with progress(6) as step:
        pictures = halve_and_enlarge(photograph.pixels, step)
        step("loops")
        differences = check_against_loops(pictures)
        step("figure")
        drawn = render(draw(pictures), figure)
    print_photograph(photograph, pictures, differences)
    write(drawn, figure)
    print(f"\n(c) The figure is in {figure}")


# (a) The textbook's example


def print_example() -> None:
    """Print the textbook's example as matrices, and the answer to the first of its exercises."""
    X, K = np.arange(9).reshape(3, 3), np.array([[1, 2], [3, 4]])
    W = convolution_matrix(K, X.shape).toarray()
    Y = (W @ X.ravel()).reshape(2, 2)
    Z = (W.T @ Y.ravel()).reshape(X.shape)
    check("W", np.array_equal(W, textbook.kernel2matrix(K, X.shape)))
    check("W·x", np.array_equal(Y, textbook.corr2d(X, K)))
    check("Wᵀ·y", np.array_equal(Z, textbook.trans_conv(Y, K)))
    print("(a) The textbook's example\n")
    print(matrices({"X": X, "K": K}), matrices({"W": W}), sep="\n\n", end="\n\n")
    print("x and y are X and Y row after row, as vectors. Y = W·x is the convolution of X with K, and Z = Wᵀ·y is the")
    print("transposed convolution of Y:\n")
    print(matrices({"Y": Y, "Z": Z}), end="\n\n")
    print("The loops give the same: W is kernel2matrix(K), Y is corr2d(X, K), Z is trans_conv(Y, K).\n")
    print_exercise(X, W, Z)


def print_exercise(X: Array, W: Array, Z: Array) -> None:
    """Print why the transposed convolution of Y is not X."""
    rank = int(np.linalg.matrix_rank(W))
    V = np.array([[4, -2, 1], [0, 0, 0], [0, 0, 0]])
    check("W·v", not (W @ V.ravel()).any())
    outputs, inputs = W.shape
    print("The first exercise: Z has the shape of X; does it have the values of X?\n")
    print("No. Z = WᵀW·x, and WᵀW is not the identity:\n")
    print(matrices({"WᵀW": W.T @ W, "Z − X": Z - X}), end="\n\n")
    print(f"No other matrix brings X back from Y either. W is {outputs} × {inputs} and has rank {rank}: its null space")
    print(
        f"has {inputs} − {rank} = {inputs - rank} dimensions, and what X has in them is lost in Y. A null vector is\n"
    )
    print(matrices({"V": V, "W·v": (W @ V.ravel())[None], "W·(x + v)": (W @ (X + V).ravel())[None]}), end="\n\n")
    print("X and X + V have the same Y, so Y alone cannot tell them apart.")


def matrices(named: Mapping[str, Array]) -> str:
    """Return integer matrices as text, side by side, with their names.

    Examples
    --------
    >>> print(matrices({"A": np.array([[1, -2], [30, 4]]), "B": np.array([[5]])}))
    A = [ 1 -2]    B = [5]
        [30  4]
    """
    blocks = []
    for name, matrix in named.items():
        width = max(len(str(value)) for value in matrix.flat)
        rows = ["[" + " ".join(f"{value:{width}}" for value in row) + "]" for row in matrix.tolist()]
        blocks.append([f"{name} = {rows[0]}", *(" " * (len(name) + 3) + row for row in rows[1:])])
    height = max(len(block) for block in blocks)
    padded = [block + [" " * len(block[0])] * (height - len(block)) for block in blocks]
    return "\n".join("    ".join(lines).rstrip() for lines in zip(*padded, strict=True))


def print_photograph(photograph: Photograph, pictures: Pictures, differences: tuple[float, float]) -> None:
    """Print what the demo did to the photograph, with sizes and times."""
    geometry, W, Wt, seconds = pictures.geometry, pictures.W, pictures.Wt, pictures.seconds
    check("the number of nonzeros", geometry.nnz == W.nnz == Wt.nnz)
    height, width = photograph.size
    print(f"\n(b) A photograph: {photograph.name}, {width} × {height} pixels, {photograph.channels}\n")
    transparent = "Some of its pixels are transparent. The demo takes their colours as if they were opaque."
    if notes := [note for note in (photograph.conversion, transparent * photograph.transparent) if note]:
        print(*notes, sep="\n", end="\n\n")
    if photograph.size != geometry.spatial_input:
        full, (height, width) = geometry_of(photograph.size), geometry.spatial_input
        print(f"Its W would have {full.nnz:,} nonzeros and take {_bytes(full.matrix_nbytes(W.dtype))}.")
        print(f"To stay below {_bytes(MATRIX_LIMIT)}, the photograph is reduced to {width} × {height} pixels first.\n")
    print(f"K is a 4 × 4 blur from each channel to each, weighted so that it turns the colours by {DEGREES}°.")
    print("With stride 2, y = W·x has half the size of x. Wᵀ, with the same K, brings y back to size and turns the")
    print("colours back.\n")
    rows = [
        ("", "W", "Wᵀ"),
        ("shape", *(" × ".join(f"{n:,}" for n in matrix.shape) for matrix in (W, Wt))),
        ("nonzeros, from the geometry alone", f"{geometry.nnz:,}", f"{geometry.nnz:,}"),
        ("nonzeros, as built", f"{W.nnz:,}", f"{Wt.nnz:,}"),
        (f"size in {W.dtype}, {W.indices.dtype}", _bytes(_nbytes(W)), _bytes(_nbytes(Wt))),
        (
            f"time to build, best of {RUNS}",
            *(f"{1e3 * seconds[name]:.1f} ms" for name in ("building W", "building Wᵀ")),
        ),
        (f"time of W·x, of Wᵀ·y, best of {RUNS}", *(f"{1e3 * seconds[name]:.1f} ms" for name in ("W·x", "Wᵀ·y"))),
        ("largest difference from the loops", *(f"{difference:.1e}" for difference in differences)),
    ]
    for name, *cells in rows:
        print(f"  {name:34}" + "".join(f"{cell:>22}" for cell in cells))
    print("\nThe pixels lie between 0 and 1. The loops ran on a crop, because they are slow. Away from the border, a")
    print("row of W sums to 1 and a column to 1/4, because there are four times as many columns. So the figure shows")
    print("4·Wᵀ·y, which is y interpolated linearly. The colours come back because their rotation is orthogonal. The")
    print("details that the blur removed do not come back.")


def _nbytes(matrix: Any) -> int:
    return int(matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes)


def _bytes(count: int) -> str:
    """Return a number of bytes in decimal units.

    Examples
    --------
    >>> _bytes(999), _bytes(88_500_000)
    ('999 B', '88.5 MB')
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
