"""Deconvolution: iterations, time and error with every border, on data that no operator here has made.

Run ``python -m benchmarks.inverse``; ``--quick`` takes small images. The blurs are those of PRblur in IR Tools (Gazzola,
Hansen & Nagy 2019): gauss, defocus, motion and speckle, and an asymmetric one. A photograph is blurred without borders and
cropped, so that what lies beyond the crop is there, and no border is the right one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.timing import interleave, ratio
from convmat import Convolution, inverse
from convmat.geometry import PADDING_MODES

TAPS, WEIGHT, NOISE = 15, 2e-3, 0.01


def blurs(taps: int) -> dict[str, Any]:
    """Return kernels (taps, taps) with the sum 1."""
    i, j = np.mgrid[:taps, :taps] - taps // 2
    rng = np.random.default_rng(0)
    phase = np.exp(2j * np.pi * rng.random((taps, taps))) * (np.hypot(i, j) < taps / 3)
    kernels = {
        "gauss": np.exp(-(i**2 + j**2) / 8),
        "defocus": (np.hypot(i, j) <= taps / 3).astype(float),
        "motion": np.maximum(np.exp(-((i - 0.6 * j - 0.05 * j**2) ** 2) / 1.5) * (j > -6) * (1 + 0.1 * j), 0),
        "speckle": abs(np.fft.fftshift(np.fft.fft2(phase))) ** 2,
        "skew": np.exp(-((0.8 * i + 0.5 * j) ** 2) / 8 - (j - 0.4 * i) ** 2 / 18) * (1 + 0.6 * np.tanh(i / 3)),
    }
    return {name: kernel / kernel.sum() for name, kernel in kernels.items()}


def scene(size: int) -> Any:
    """Return a part of matplotlib's portrait, (size, size), between 0 and 1."""
    import matplotlib.pyplot as plt
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        photograph = plt.imread(file, "jpg")
    return photograph[60 : 60 + size, 100 : 100 + size].mean(axis=2) / 255


def blurred(kernel: Any, size: int) -> tuple[Any, Any, float]:
    """Return the photograph, what a camera sees of it, and the norm of the noise."""
    margin = len(kernel) // 2
    whole = scene(size + 2 * margin)
    seen = Convolution(kernel, whole.shape).apply(whole)
    noise = np.random.default_rng(1).standard_normal(seen.shape)
    noise *= NOISE * np.linalg.norm(seen) / np.linalg.norm(noise)
    return whole[margin:-margin, margin:-margin], seen + noise, float(np.linalg.norm(noise))


def solve(A: Convolution, y: Any, **options: Any) -> tuple[inverse.Deconvolution, float]:
    """Return a solution, and the least of three times in seconds."""
    times = []
    for _ in range(3):
        start = perf_counter()
        found = inverse.deconvolve(A, y, regularization=WEIGHT, **options)
        times.append(perf_counter() - start)
    return found, min(times)


def iterations(size: int, taps: int) -> None:
    """Print iterations and milliseconds of each preconditioner, and what `auto` takes, for a given λ."""
    print(f"\nλ = {WEIGHT:g}, {size} × {size}, {taps} × {taps}: iterations and milliseconds")
    print(f"{'blur':10}{'border':12}{'plain':>12}{'transform':>14}{'schwarz':>14}{'auto':>10}  plain / auto")
    for name, kernel in blurs(taps).items():
        _, y, _ = blurred(kernel, size)
        for mode in PADDING_MODES:
            A = Convolution(kernel, y.shape, padding="same", padding_mode=mode)
            cells, plain = [], 1.0
            for preconditioner in ("none", "transform", "schwarz"):
                if preconditioner == "schwarz" and mode == "circular":
                    cells.append("-")
                    continue
                found, seconds = solve(A, y, method="cg", preconditioner=preconditioner)
                plain = seconds if preconditioner == "none" else plain
                cells.append(f"{found.iterations} {1e3 * seconds:.0f}")
            found, seconds = solve(A, y)
            own = f"{cells[0]:>12}{cells[1]:>14}{cells[2]:>14}{1e3 * seconds:10.0f}"
            print(f"{name:10}{mode:12}{own}  {plain / seconds:.1f}, {found.method}", flush=True)


def choices(size: int, taps: int) -> None:
    """Print how near the best error a λ comes that is chosen from the data."""
    print(f"\nλ from the data, {size} × {size}: relative error, over that of the best λ; residual over noise")
    print(f"{'blur':10}{'border':12}{'best':>8}{'discrepancy':>13}{'gcv':>8}{'residual':>10}{'seconds':>9}")
    ratios = []
    for name, kernel in blurs(taps).items():
        truth, y, noise = blurred(kernel, size)
        for mode in ("reflect", "symmetric", "replicate"):
            A = Convolution(kernel, y.shape, padding="same", padding_mode=mode)

            def error(found: inverse.Deconvolution, truth: Any = truth) -> float:
                return float(np.linalg.norm(found.x - truth) / np.linalg.norm(truth))

            best = min(
                error(inverse.deconvolve(A, y, regularization=weight, rtol=1e-4))
                for weight in 10.0 ** np.arange(-4, 0, 0.5)
            )
            by_noise = inverse.deconvolve(A, y, regularization="discrepancy", noise_norm=noise)
            by_data = inverse.deconvolve(A, y, regularization="gcv")
            ratios.append(error(by_data) / best)
            print(
                f"{name:10}{mode:12}{best:8.4f}{error(by_noise) / best:13.3f}{ratios[-1]:8.3f}"
                f"{by_noise.residual_norm / noise:10.3f}{by_noise.seconds + by_data.seconds:9.1f}",
                flush=True,
            )
    print(f"gcv: {np.median(ratios):.3f} times the best error, median")


def others(size: int, taps: int) -> None:
    """Print how many times longer other packages take, in turn with convmat and up to the same residual."""
    print(f"\nother packages, {size} × {size}, {taps} × {taps}: median seconds of convmat, and times as long as that")
    kernel = blurs(taps)["skew"]
    _, y, _ = blurred(kernel, size)
    for name, contest in (("pylops", _pylops), ("skimage.restoration", _scikit_image)):
        if find_spec(name.partition(".")[0]) is None:
            print(f"{name.partition('.')[0]} is not installed")
            continue
        for label, own, other in contest(kernel, y):
            times = interleave({"own": own, "other": other})
            print(f"{label:64}{np.median(times['own']):8.3f}{ratio(times, 'other', 'own'):8.1f}", flush=True)


Contest = Iterator[tuple[str, Callable[[], Any], Callable[[], Any]]]


def _pylops(kernel: Any, y: Any) -> Contest:
    """Yield conjugate gradients through PyLops' own convolution, which has zeros outside, and through convmat's."""
    import pylops

    A = Convolution(kernel, y.shape, padding="same")
    centre = tuple(size // 2 for size in kernel.shape)
    theirs = pylops.signalprocessing.Convolve2D(y.shape, np.flip(kernel), offset=centre)
    right = A.H @ y.ravel()

    def solve(operator: Any, steps: int) -> Any:
        return pylops.cgls(operator, y.ravel(), niter=steps, damp=np.sqrt(WEIGHT), tol=0)[0]

    def residual(x: Any) -> float:
        flat = np.ravel(x)
        return float(np.linalg.norm(A.H @ (A @ flat) + WEIGHT * flat - right) / np.linalg.norm(right))

    steps = next(steps for steps in itertools.count(20, 10) if residual(solve(A, steps)) <= 1e-6)

    def own() -> Any:
        return inverse.deconvolve(A, y, regularization=WEIGHT)

    assert residual(own().x) <= 2e-6
    assert residual(solve(theirs, steps)) <= 2e-6
    yield f"PyLops' Convolve2D, {steps} iterations of its cgls, zeros", own, lambda: solve(theirs, steps)
    yield (
        f"convmat's operator, {steps} iterations of PyLops' cgls, zeros",
        own,
        lambda: solve(pylops.aslinearoperator(A), steps),
    )


def _scikit_image(kernel: Any, y: Any) -> Contest:
    """Yield Wiener's filter, which is "laplacian" on circles, and Richardson–Lucy of as many iterations."""
    from skimage import restoration

    circular = Convolution(kernel, y.shape, padding="same", padding_mode="circular")
    around = np.flip(kernel)
    yield (
        "scikit-image's wiener, circular",
        lambda: inverse.deconvolve(circular, y, regularization=WEIGHT, penalty="laplacian"),
        lambda: restoration.wiener(y, around, WEIGHT, clip=False),
    )
    A, data = Convolution(kernel, y.shape, padding="same"), np.maximum(y, 0)
    yield (
        "scikit-image's richardson_lucy, 30 iterations, zeros",
        lambda: inverse.richardson_lucy(A, data, iterations=30),
        lambda: restoration.richardson_lucy(data, around, num_iter=30, clip=False),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inverse", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images and kernels")
    quick = parser.parse_args(arguments).quick
    size, taps = (40, 5) if quick else (256, TAPS)
    iterations(size, taps)
    choices(size, taps)
    others(*((40, 5) if quick else (512, 9)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
