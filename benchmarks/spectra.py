"""Singular values, norms and weight gradients of layers, beside what others publish, each as a ratio of times in one run.

Run ``python -m benchmarks.spectra``; ``--quick`` takes the smaller layers alone. PyTorch and SigPy take part where they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks import published
from benchmarks.report import Check, Report
from benchmarks.timing import Elsewhere, interleave, ratio
from convmat import Convolution, spectra


class Layer(NamedTuple):
    """A layer of a network, with padding that keeps the size and random weights."""

    outer: int
    inner: int
    taps: int
    size: int
    stride: int = 1

    @property
    def name(self) -> str:
        """The kernel's shape and the image's size."""
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return f"{self.outer} × {self.inner} × {self.taps} × {self.taps} at {self.size}²{stride}"

    def kernel(self) -> Any:
        """Return weights as a layer is initialised."""
        shape = self.outer, self.inner, self.taps, self.taps
        return np.random.default_rng(0).standard_normal(shape) / np.sqrt(self.inner * self.taps**2)

    def operator(self, mode: str = "zeros") -> Convolution:
        """Return the layer."""
        shape = (self.inner, self.size, self.size)
        return Convolution(self.kernel(), shape, padding=self.taps // 2, padding_mode=mode, stride=self.stride)


VALUES = (Layer(64, 64, 3, 32), Layer(16, 16, 3, 32), Layer(32, 64, 3, 16), Layer(128, 128, 3, 16))
NORMS = (
    Layer(64, 3, 7, 224, 2),
    Layer(64, 64, 3, 56),
    Layer(128, 128, 3, 28),
    Layer(64, 3, 7, 224),
    Layer(64, 64, 3, 224),
    Layer(128, 128, 3, 112),
    Layer(256, 256, 3, 56),
    Layer(512, 512, 3, 28),
)
GRADIENTS = (Layer(64, 64, 3, 56), Layer(64, 3, 7, 112, 2), Layer(16, 16, 3, 32), Layer(32, 32, 5, 48, 2))
_QUICK = 4e8  # flops of the Fourier blocks' norms, up to which a layer is one of the smaller ones


def values(report: Report, quick: bool) -> None:
    """Compare all singular values with circular padding with the published method."""
    layers = [layer for layer in VALUES if not quick or layer.size * layer.outer <= 2048]
    report.table(
        "values",
        "All singular values, circular padding, over the published method (Sedghi et al. 2019)",
        ("layer", "values", "convmat s", "ratio", "difference", "limit", "met"),
        [layer.name for layer in layers],
    )
    for layer in layers:
        A, kernel, size = layer.operator("circular"), layer.kernel(), (layer.size,) * 2
        own, other = partial(spectra.singular_values, A), partial(published.per_frequency, kernel, size)
        difference = abs(own() - np.sort(other().ravel())[::-1]).max() / own()[0]
        times = interleave({"convmat": own, "published": other}, budget=10, rounds=(3, 9), warm_up=False)
        check = Check("values", layer.name, ratio(times, "convmat", "published"), 0.7)
        cells = (layer.name, min(A.shape), sorted(times["convmat"])[len(times["convmat"]) // 2], check.value)
        report.row((*cells, f"{difference:.0e}", check.limit), [check])


def norms(report: Report, quick: bool) -> None:
    """Show the bounds of layers with zeros padding, and what others take for the norm, all over the proven lower bound."""
    layers = [layer for layer in NORMS if not quick or layer.size**2 * layer.outer * layer.inner**2 <= _QUICK * 3]
    report.table(
        "norms",
        "Norms with zeros padding: proven bounds, and others' numbers over the proven lower bound",
        ("layer", "lower", "width %", "s", "SVD", "s", "unfoldings", "s", "Gram", "s", "tensor", "s", "limit", "met"),
        [layer.name for layer in layers],
    )
    for layer in layers:
        A, kernel, size = layer.operator(), layer.kernel(), (layer.size,) * 2
        bounds, seconds = _timed(partial(spectra.norm_bounds, A))
        others: list[Callable[[], Any]] = [
            lambda kernel=kernel, size=size: float(published.per_frequency(kernel, size).max()),  # type: ignore[misc]
            partial(published.four_unfoldings, kernel),
            partial(published.gram_iteration, kernel, size),
            partial(published.tensor_norm, kernel),
        ]
        cells: list[Any] = []
        for other in others:
            if layer.stride > 1 and other is not others[1] and other is not others[3]:
                cells += ["stride 1", ""]  # these are for a stride of 1
                continue
            value, taken = _timed(other)
            cells += [value / bounds.lower, taken]
        width = 100 * (bounds.upper / bounds.lower - 1)
        checks = [Check("norms", f"{layer.name} width", width, 1.0), Check("norms", f"{layer.name} s", seconds, 20.0)]
        report.row((layer.name, bounds.lower, width, seconds, *cells, "1 %, 20 s"), checks)


def gradients(report: Report, quick: bool) -> None:
    """Compare weight gradients in float64 with PyTorch's, and with SigPy's operator for the kernel."""
    layers = GRADIENTS[2:] if quick else GRADIENTS
    report.table(
        "gradients",
        "Weight gradients in float64: times of others over convmat's",
        ("layer", "convmat ms", "torch.nn.grad", "SigPy", "limit", "met"),
        [layer.name for layer in layers],
    )
    for layer in layers:
        A = layer.operator()
        rng = np.random.default_rng(1)
        x, y = rng.standard_normal(A.input_shape), rng.standard_normal(A.output_shape)
        calls: dict[str, Callable[[], object]] = {"convmat": lambda A=A, x=x, y=y: A.kernel_operator(x).H.apply(y)}  # type: ignore[misc]
        calls.update(_peers(layer, x, y))
        times = interleave(calls, budget=4, rounds=(5, 25))
        cells = [1e3 * sorted(times["convmat"])[len(times["convmat"]) // 2]]
        checks = []
        for name in ("torch", "SigPy"):
            cells.append(ratio(times, name, "convmat") if name in times else "absent")  # type: ignore[arg-type]
            if name == "torch" and name in times:
                checks.append(Check("gradients", layer.name, ratio(times, name, "convmat"), 1.0, at_least=True))
        report.row((layer.name, *cells, 1.0), checks)


def _peers(layer: Layer, x: Any, y: Any) -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {}
    shape = layer.kernel().shape
    if find_spec("torch"):
        import torch

        inputs, outputs = torch.from_numpy(x[None]), torch.from_numpy(y[None])
        options = {"stride": layer.stride, "padding": layer.taps // 2}
        calls["torch"] = lambda: torch.nn.grad.conv2d_weight(inputs, shape, outputs, **options)
    if find_spec("sigpy"):
        from sigpy import linop

        pad = layer.taps // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        strides = (layer.stride,) * 2
        operator = linop.ConvolveFilter(shape, padded, mode="valid", strides=strides, multi_channel=True)
        adjoint = operator.H
        calls["SigPy"] = lambda: adjoint(y)
    return calls


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = perf_counter()
    result = call()
    return result, perf_counter() - start


SECTIONS: dict[str, Callable[[Report, bool], None]] = {"values": values, "norms": norms, "gradients": gradients}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tables asked for and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spectra", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smaller layers alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="NAME", help=f"of {', '.join(SECTIONS)}")
    options = parser.parse_args(arguments)
    start, report = perf_counter(), Report()
    print(", ".join(f"{key} {value}" for key, value in report.machine.items()))
    for name in options.only or SECTIONS:
        elsewhere = Elsewhere()
        SECTIONS[name](report, options.quick)
        report.close(elsewhere.cores())
    if options.json:
        report.save(options.json)
    print(f"\n{perf_counter() - start:.0f} s. {report.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
