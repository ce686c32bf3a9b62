"""How fast this machine is: figures that estimates count with, measured once and kept on disk by processor and versions.

Until they have been measured, estimates count with the figures of some machine, the defaults of `Machine`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from math import inf, isfinite, log2
from pathlib import Path

import numpy as np
import scipy

from convmat._messages import scaled
from convmat._runtime import call_single_threaded, new_lock, quietly, read_trusted, write_whole
from convmat.engines._compiled import codecache

MEASURING = 0.05  # seconds that it takes to measure, about
_OLD = 30 * 86_400  # seconds after which figures are measured anew
_MOST = 4096  # bytes of a file that is read
# Of the rate at which an operation is repeated on the same small arrays, what products reach that do other things between;
# and times that of a call. So the figures are those that the constants of the engines' estimates count with.
_SUSTAINED = {"gemm": 0.65, "fft": 0.35, "bandwidth": 0.35, "call": 2.2}  # on an Intel Xeon with AVX-512, 2026-11
_FACTOR = 100.0  # a measured figure is that of some machine, up to this factor


@dataclass(frozen=True, slots=True)
class Machine:
    """What the cost of a product depends on besides its geometry.

    Attributes
    ----------
    workers : int
        Number of threads.
    bandwidth : float
        Bytes per second that one thread reads and writes in arrays of 8 MB.
    gemm : float
        Multiplications and additions per second of one thread in double precision matrix products; single is twice that.
    fft : float
        Floating-point operations per second of one thread in double precision Fourier transforms.
    call : float
        Seconds that one NumPy call on a small array takes, with what Python does around it.
    memory : float
        Bytes that there are.
    cache : float
        Bytes that stay in a cache between products, where they move four times as fast.
    measured : bool
        Whether the figures have been measured on this machine.

    Examples
    --------
    >>> print(Machine(workers=2, memory=8e9))
    2 threads, each 40 GFLOP/s in matrix products, 4 GFLOP/s in Fourier transforms, 10 GB/s, 1.5 µs a call; 8 GB of memory
    """

    workers: int = 1
    bandwidth: float = 10e9
    gemm: float = 40e9
    fft: float = 4e9
    call: float = 1.5e-6
    memory: float = inf
    cache: float = 4e6
    measured: bool = False

    def moving(self, nbytes: float) -> float:
        """Return the seconds that one thread takes to move so many bytes."""
        return nbytes / self.bandwidth / (4 if nbytes < self.cache else 1)

    def __str__(self) -> str:
        memory = f"; {scaled(self.memory, 'B')} of memory" if isfinite(self.memory) else ""
        return (
            f"{self.workers} thread{'s' * (self.workers > 1)}, each {scaled(self.gemm, 'FLOP/s')} in matrix products, "
            f"{scaled(self.fft, 'FLOP/s')} in Fourier transforms, {scaled(self.bandwidth, 'B/s')}, "
            f"{scaled(self.call, 's')} a call{memory}"
        )


_MEASURED = ("bandwidth", "gemm", "fft", "call")
_USUAL: dict[str, float] = {name: getattr(Machine(), name) for name in _MEASURED}
_lock = new_lock()
_known: list[dict[str, float]] = []  # the figures of this machine, once they are known


def this_machine(workers: int, memory: float) -> Machine:
    """Return this machine with the figures that are known of it, in this process or on disk, else the usual ones."""
    if not _known and (figures := _read_once()):
        _known.append(figures)
    figures = {**(_known[0] if _known else _USUAL)}
    return Machine(workers, **figures, memory=memory, measured=bool(_known))


def measure_machine() -> None:
    """Measure what is not known yet, and keep it on disk where that is possible. If it fails, the usual figures stay."""
    with _lock:
        if _known:
            return
        if figures := _read():  # another process has measured meanwhile
            _known.append(figures)
            return
        try:
            figures = quietly(_measure)
        except Exception:  # noqa: BLE001 (a product goes on without, whatever it is)
            _known.append(dict(_USUAL))
            return
        _known.append(figures)
        kept = json.dumps({"key": _key(), "time": time.time(), **figures}, indent=1).encode()
        any(write_whole(folder / _file_name(), kept) for folder in codecache.folders())


def _measure() -> dict[str, float]:
    """Return all figures. The fastest of several times is what a machine can that does other things, too."""
    figures: dict[str, float] = {}
    # BLAS must have one thread, as it has in products.
    figures.update(gemm=call_single_threaded(_measure_gemm))
    figures |= {"fft": _measure_fft(), "bandwidth": _measure_bandwidth(), "call": _measure_call()}
    return {name: figure * _SUSTAINED[name] for name, figure in figures.items()}


def _measure_gemm() -> float:
    size = 192
    a, b, c = (np.ones((size, size)) for _ in range(3))
    return 2 * size**3 / _fastest(lambda: np.matmul(a, b, out=c))


def _measure_fft() -> float:
    from scipy import fft

    lines, length = 32, 1024
    x = np.ones((lines, length))
    return lines * 5 * length / 2 * log2(length) / _fastest(lambda: fft.rfft(x))


def _measure_bandwidth() -> float:
    source, target = (np.ones(1 << 20) for _ in range(2))
    return (source.nbytes + target.nbytes) / _fastest(lambda: np.copyto(target, source))


def _measure_call() -> float:
    """Return the time of a call among such as engines make: a view, a copy of it, a product, a sum in place."""
    x, out, repeats = np.ones((4, 4)), np.ones((2, 3)), 50

    def calls() -> None:
        for _ in range(repeats):
            view = x[1:3, 1:].reshape(2, 3)
            np.add(out, np.ascontiguousarray(view[:, ::-1]), out=out)
            np.multiply(out, np.empty((2, 3)), out=np.empty_like(out))
            out.fill(0)

    return _fastest(calls) / repeats / 4


def _fastest(run: Callable[[], object], seconds: float = 0.01) -> float:
    """Return the time of the fastest call of at least five, and of as many as take `seconds`."""
    times: list[float] = []
    while len(times) < 5 or (sum(times) < seconds and len(times) < 200):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _read() -> dict[str, float]:
    """Return the figures on disk; of a file that is missing, old, damaged or another user's, none."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        for folder in codecache.folders():
            kept = json.loads(read_trusted(folder / _file_name(), _MOST) or b"null")
            if kept and kept["key"] == _key() and 0 <= time.time() - kept["time"] < _OLD and _is_plausible(kept):
                return {name: float(kept[name]) for name in _MEASURED}
    return {}


_read_once = cache(_read)  # every operator asks


def _is_plausible(kept: Mapping[str, float]) -> bool:
    return all(_USUAL[name] / _FACTOR < kept[name] < _USUAL[name] * _FACTOR for name in _MEASURED)


def _file_name() -> str:
    return f"machine-{sha256(_key().encode()).hexdigest()[:16]}.json"


@cache
def _key() -> str:
    """Return what the figures depend on: processor, versions, and what OpenBLAS is told."""
    told = os.environ.get("OPENBLAS_CORETYPE", "")
    return "\n".join((_processor(), f"numpy {np.__version__}", f"scipy {scipy.__version__}", f"OpenBLAS {told}", "2"))


def _processor() -> str:
    """Return the processor's name and numbers; Python's own answer is empty on Linux."""
    with suppress(OSError):
        block = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "CPU part")
        lines = [" ".join(line.split()) for line in block.splitlines() if line.partition("\t")[0].strip() in wanted]
        if lines:
            return "; ".join(lines)
    return f"{platform.machine()} {platform.processor()}"
