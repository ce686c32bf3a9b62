"""How fast the device is: building W, products with it stored, and products without, beside what its memory does and cuDNN.

Run ``python -m benchmarks.gpu --json FILE`` on a machine with CuPy and a CUDA device; PyTorch is compared where it is
installed. Figures that the site shows are kept in ``benchmarks/gpu_results``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.libraries import torch_convolution
from benchmarks.report import Check, Report
from benchmarks.timing import Times, ratio
from benchmarks.workloads import DIRECTIONS, DTYPES, WORKLOADS, Product, Workload, products

RESULTS = Path(__file__).parent / "gpu_results"

_SAME = {"padding": "same"}
_KNOWN = {workload.name: workload for workload in WORKLOADS}

# Matrices of 10⁷ nonzeros and more.
STORED = (
    Workload("signal-9", (9,), (16_000_000,), _SAME),
    Workload("image-3", (3, 3), (4096, 4096), _SAME),
    Workload("image-7", (7, 7), (2048, 2048), _SAME),
    Workload("image-3-reflect", (3, 3), (4096, 4096), {"padding": 1, "padding_mode": "reflect"}),
    Workload("rgb-5", (3, 3, 5, 5), (3, 1024, 1024), _SAME),
    _KNOWN["stem"],
    _KNOWN["mid"],
    _KNOWN["up"],
    Workload("volume-3", (3, 3, 3), (256, 256, 256), _SAME),
)
SINGLE = (
    Workload("signal-9", (9,), (64_000_000,), _SAME),
    Workload("image-3", (3, 3), (8192, 8192), _SAME),
    Workload("image-7", (7, 7), (8192, 8192), _SAME),
    Workload("image-3-stride-2", (3, 3), (8192, 8192), {"stride": 2, "padding": 1}),
    Workload("volume-3", (3, 3, 3), (400, 400, 400), _SAME),
)
LAYERS = (
    _KNOWN["stem"],
    _KNOWN["mid"],
    _KNOWN["deep"],
    Workload("pointwise", (256, 256, 1, 1), (256, 56, 56)),
    _KNOWN["up"],
    Workload("volume-c", (32, 32, 3, 3, 3), (32, 48, 48, 48), _SAME),
)
LIMITS = {"build": 0.5, "stored": 0.6, "matrix-free": 0.5, "layers": 1.2}
TOLERANCES = {"float64": 1e-11, "float32": 1e-4}  # of the largest value
_BLOCK = 1 << 28  # numbers of the arrays whose copy is measured: 1 or 2 GB, far beyond any cache
_TURN = 2e-3  # seconds of a turn at least


class Clock:
    """Times calls by events of the device, in turn, so that whatever its clocks do hits all of them alike."""

    def __init__(self, cupy: Any, rounds: int) -> None:
        self._cupy, self._rounds = cupy, rounds

    def interleave(self, candidates: Mapping[str, Callable[[], object]]) -> Times:
        """Return the seconds of a call of each candidate, one number for each round."""
        calls = {name: self._calls(run) for name, run in candidates.items()}
        times: Times = {name: [] for name in candidates}
        for _ in range(self._rounds):
            for name, run in candidates.items():
                times[name].append(self._seconds(run, calls[name]))
        return times

    def _calls(self, run: Callable[[], object]) -> int:
        """Return how many calls make a turn, after a first call that compiles."""
        self._seconds(run, 1)
        return min(1000, max(1, int(_TURN / max(self._seconds(run, 2), 1e-7))))

    def _seconds(self, run: Callable[[], object], calls: int) -> float:
        start, stop = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        start.record()
        for _ in range(calls):
            run()
        stop.record()
        stop.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(start, stop)) * 1e-3 / calls


class Device:
    """The device, and what its memory does."""

    def __init__(self, quick: bool) -> None:
        import cupy

        import convmat.cupy

        self.cupy, self.namespace = cupy, convmat.cupy
        self.clock = Clock(cupy, 5 if quick else 15)
        source, target = cupy.ones(_BLOCK, np.float32), cupy.empty(_BLOCK, np.float32)
        self.memory: dict[str, Callable[[], object]] = {
            "copy": partial(cupy.copyto, target, source),
            "write": partial(target.fill, 1),
        }
        self.moved = {"copy": 2 * target.nbytes, "write": target.nbytes}
        if self.torch is not None:  # with TensorFloat-32 neither speed nor accuracy compares
            self.torch.backends.cudnn.allow_tf32, self.torch.backends.cudnn.benchmark = False, True

    @property
    def torch(self) -> Any:
        """PyTorch, if it has the device."""
        if find_spec("torch") is None:
            return None
        import torch

        return torch if torch.cuda.is_available() else None

    def describe(self) -> dict[str, Any]:
        """Return its name and the versions of what runs on it."""
        runtime = self.cupy.cuda.runtime
        facts = {
            "device": runtime.getDeviceProperties(0)["name"].decode(),
            "cupy": self.cupy.__version__,
            "cuda": runtime.runtimeGetVersion(),
            "driver": runtime.driverGetVersion(),
        }
        if self.torch is not None:
            facts |= {"torch": version("torch"), "cudnn": self.torch.backends.cudnn.version()}
        return facts

    def shares(self, times: Times, name: str, nbytes: float, kind: str) -> float:
        """Return the share of a measured bandwidth at which a candidate moves its bytes."""
        return nbytes / self.moved[kind] / ratio(times, name, kind)

    def operator(self, product: Product, engine: str) -> Any:
        """Return the operator of a product on the device."""
        workload = product.workload
        kind = self.namespace.TransposedConvolution if workload.transposed else self.namespace.Convolution
        kernel = self.cupy.asarray(workload.kernel(product.dtype))
        operator = kind(kernel, workload.input_shape, **workload.options, engine=engine)
        return operator.T if product.adjoint else operator


def bandwidths(report: Report, device: Device) -> None:
    """Measure what copying and writing large arrays does."""
    report.table("memory", "Bandwidth of the device's memory", ("what", "GB", "TB/s"), list(device.memory))
    times = device.clock.interleave(device.memory)
    for name, moved in device.moved.items():
        report.row((name, moved / 1e9, moved / median(times[name]) / 1e12), seconds=times)


def build(report: Report, device: Device) -> None:
    """Compare writing a matrix with writing constants."""
    from convmat.cupy._assembly import assemble, prepare

    limit = LIMITS["build"]
    title = f"Bytes of W / time of the kernel that writes it, as a share of the bandwidth of writing; limit ≥ {limit}"
    headings = ("matrix", "nnz/10⁶", "GB", "kernel ms", "call ms", "share", "met")
    report.table("build", title, headings, [f"{workload.name} float64 Wᵀ" for workload in STORED])
    for workload in STORED:
        for dtype in DTYPES:
            kernel = device.cupy.asarray(workload.kernel(dtype))
            for transposed in (False, True):
                geometry = workload.geometry
                parts, _, write = prepare(geometry, kernel, transposed, None)
                nbytes = sum(part.nbytes for part in parts)
                candidates = {"kernel": write, "write": device.memory["write"]}
                times = device.clock.interleave(candidates)
                del parts, write, candidates
                whole = device.clock.interleave({"call": partial(assemble, geometry, kernel, transposed)})
                share = device.shares(times, "kernel", nbytes, "write")
                label = f"{workload.name} {dtype} {'Wᵀ' if transposed else 'W'}"
                milliseconds = (median(times["kernel"]) * 1e3, median(whole["call"]) * 1e3)
                cells = (label, geometry.nnz / 1e6, nbytes / 1e9, *milliseconds, share)
                check = Check("build", label, share, limit, at_least=True)
                report.row(cells, [check], seconds=times, case=workload.name, dtype=dtype, transposed=transposed)


def stored(report: Report, device: Device) -> None:
    """Compare products with a stored matrix, of either direction, with copying, and with cuSPARSE's own transpose."""
    from cupyx import cusparse

    limit = LIMITS["stored"]
    title = (
        f"Bytes of the stored matrix, input and output / time, as a share of the bandwidth of copying; limit ≥ {limit} for "
        "one array.\nscattered: cuSPARSE's product with the transpose of the other direction's matrix"
    )
    headings = ("product", "GB", "ms", "scattered ms", "share", "met")
    report.table("stored", title, headings, [f"{workload.name} adjoint float64 ×8" for workload in STORED])
    for product in products(STORED):
        operator = device.operator(product, "csr")
        x = device.cupy.asarray(product.x)
        out = operator.apply(x)
        check_agreement(device, product, out)
        candidates = {"product": partial(operator.apply, x, out=out), "copy": device.memory["copy"]}
        if product.batch == 1:
            other = operator.T.tocsr()
            candidates["scattered"] = partial(cusparse.spmv, other, x.reshape(-1), out.reshape(-1), 1, 0, True)
        times = device.clock.interleave(candidates)
        nbytes = product.geometry.matrix_nbytes(product.dtype) + x.nbytes + out.nbytes
        share = device.shares(times, "product", nbytes, "copy")
        scattered = median(times["scattered"]) * 1e3 if "scattered" in times else "–"
        checks = [Check("stored", str(product), share, limit, at_least=True)] if product.batch == 1 else []
        cells = (str(product), nbytes / 1e9, median(times["product"]) * 1e3, scattered, share)
        report.row(cells, checks, seconds=times, **_names(product))


def matrix_free(report: Report, device: Device) -> None:
    """Compare products of one channel, without a matrix, with copying."""
    limit = LIMITS["matrix-free"]
    title = f"Bytes of input and output / time of engine direct, as a share of copying; limit ≥ {limit}"
    headings = ("product", "GB", "ms", "share", "met")
    report.table("matrix-free", title, headings, [f"{workload.name} adjoint float64 ×1" for workload in SINGLE])
    for product in products(SINGLE, batches=(1,)):
        operator = device.operator(product, "direct")
        x = device.cupy.asarray(product.x)
        out = operator.apply(x)
        check_agreement(device, product, out)
        times = device.clock.interleave({"product": partial(operator.apply, x, out=out), "copy": device.memory["copy"]})
        share = device.shares(times, "product", x.nbytes + out.nbytes, "copy")
        checks = [Check("matrix-free", str(product), share, limit, at_least=True)]
        cells = (str(product), (x.nbytes + out.nbytes) / 1e9, median(times["product"]) * 1e3, share)
        report.row(cells, checks, seconds=times, **_names(product))


def layers(report: Report, device: Device) -> None:
    """Compare the engines with each other and with cuDNN, called as PyTorch's users call it."""
    limit = LIMITS["layers"]
    engines = ("direct", "gemm", "csr", *(["torch"] if device.torch is not None else []))
    title = (
        f"Time of each engine / that of cuDNN through PyTorch, TF32 off; limit ≤ {limit} for the best other, float32, ×32\n"
        "torch: cuDNN itself, called by convmat, so this is the overhead of the call\n"
        "auto: what engine='auto' picks"
    )
    headings = ("product", "cuDNN ms", "TFLOP/s", *engines, "auto", "best", "met")
    names = [f"{workload.name} adjoint float64 ×32" for workload in LAYERS]
    report.table("layers", title, headings, names)
    for product in products(LAYERS, batches=(1, 32)):
        x = device.cupy.asarray(product.x)
        candidates: dict[str, Callable[[], object]] = {}
        for engine in engines:
            operator = device.operator(product, engine)
            if engine == "csr" and product.geometry.matrix_nbytes(product.dtype) > 2e10:
                continue
            out = operator.apply(x)
            check_agreement(device, product, out, "gemm" if engine == "direct" else "direct")
            candidates[engine] = partial(operator.apply, x, out=device.cupy.empty_like(out))
        auto = device.operator(product, "auto")
        explanation = auto.explain(product.batch)
        picked = next(e.engine for e in explanation.estimates if e.chosen)
        if device.torch is not None:
            cudnn = _cudnn(device.torch, product)
            candidates |= {} if cudnn is None else {"cuDNN": cudnn}
        times = device.clock.interleave(candidates)
        reference = "cuDNN" if "cuDNN" in times else min(times, key=lambda name: median(times[name]))
        ratios = {name: ratio(times, name, reference) for name in engines if name in times}
        best = min(value for name, value in ratios.items() if name != "torch")  # which is cuDNN
        seconds = median(times[reference])
        cells = [str(product), seconds * 1e3 if reference == "cuDNN" else "–"]
        cells += [product.batch * product.geometry.flops / seconds / 1e12]
        cells += [ratios.get(name, "–") for name in engines]
        checks = []
        if product.dtype == "float32" and product.batch > 1 and reference == "cuDNN":  # one array is calls, not work
            checks = [Check("layers", str(product), best, limit)]
        report.row([*cells, picked, best], checks, seconds=times, **_names(product))


def check_agreement(device: Device, product: Product, result: Any, engine: str = "gemm") -> None:
    """Raise if the first array of a result is not that of another engine."""
    few = device.cupy.asarray(product.x[:1])
    expected = device.operator(product, engine).apply(few)
    difference = float(abs(result[:1] - expected).max() / abs(expected).max())
    if not difference <= TOLERANCES[product.dtype]:
        raise RuntimeError(f"{product}: engines differ by {difference:.2g} of the largest value")


def _cudnn(torch: Any, product: Product) -> Callable[[], object] | None:
    """Return PyTorch's own convolution of arrays that are on the device, or None where PyTorch pads otherwise."""
    function = torch_convolution(product)
    if function is None:
        return None
    x, kernel = (torch.from_numpy(array).cuda() for array in (product.images, product.kernel))

    def run() -> Any:
        with torch.no_grad():
            return function(x, kernel)

    return run


def _names(product: Product) -> dict[str, Any]:
    names = {"case": product.workload.name, "direction": DIRECTIONS[product.adjoint], "dtype": product.dtype}
    return {**names, "batch": product.batch}


SECTIONS = {"memory": bandwidths, "build": build, "stored": stored, "matrix-free": matrix_free, "layers": layers}


def missing() -> str | None:
    """Return the sentence that says why nothing can be measured, or None."""
    if find_spec("cupy") is None:
        return (
            "benchmarks.gpu needs CuPy and a CUDA device, got no CuPy; pip install 'convmat[cupy]' takes it for CUDA 13"
        )
    import cupy

    if not cupy.is_available():
        return f"benchmarks.gpu needs a CUDA device, which CuPy {cupy.__version__} does not find on this machine"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="TABLE", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    sentence = missing()
    if sentence is not None:
        print(sentence, file=sys.stderr)
        return 1
    start = perf_counter()
    report, device = Report(), Device(options.quick)
    report.machine |= device.describe()
    print(", ".join(f"{key} {value}" for key, value in report.machine.items()))
    for name in options.only or SECTIONS:
        SECTIONS[name](report, device)
        if options.json:  # after each table: whatever stops a later one
            report.save(options.json)
    print(f"\n{perf_counter() - start:.0f} s. {report.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
