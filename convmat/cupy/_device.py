"""What the cost of a product depends on, read off the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cupy
import numpy as np

from convmat.engines import Machine

_LANES = 128  # single-precision multiply-adds that a multiprocessor begins in a cycle, from compute capability 8.6 on


@dataclass(frozen=True, slots=True)
class Device(Machine):
    """A device, as `Machine` describes a processor; `bandwidth` is that of its memory.

    Attributes
    ----------
    single : float
        Floating-point operations per second in single precision; `gemm` are those in double precision.
    """

    bandwidth: float = 3e12
    gemm: float = 30e12
    call: float = 5e-6  # CuPy takes about this long to launch a kernel
    single: float = 60e12


def arithmetic(machine: Machine, dtype: np.dtype[Any]) -> float:
    """Return the multiplications and additions per second in a dtype; complex ones count as one, and take four."""
    single = machine.single if isinstance(machine, Device) else 2 * machine.gemm
    return (single if dtype.char in "fF" else machine.gemm) / (4 if dtype.kind == "c" else 1)


@cache
def describe(number: int) -> Device:
    """Return the figures of a device: its data sheet's, from the attributes that the driver tells."""
    device = cupy.cuda.Device(number)
    attributes = device.attributes
    clock = 1e3 * attributes.get("ClockRate", 1_500_000)
    lanes = attributes["MultiProcessorCount"] * _LANES
    memory = 1e3 * attributes.get("MemoryClockRate", 0) * 2 * attributes.get("GlobalMemoryBusWidth", 0) / 8
    single = 2 * lanes * clock
    return Device(
        bandwidth=memory or Device().bandwidth,
        gemm=single / attributes.get("SingleToDoublePrecisionPerfRatio", 2),
        single=single,
        measured=True,
        memory=float(device.mem_info[1]),
    )


def available_memory(number: int) -> int:
    """Return the bytes that arrays may take on a device now: what is free, and what CuPy's pool holds and does not use.

    Where arrays come from another allocator, whose reserve CuPy does not know, it is all of the device's memory.
    """
    pool = cupy.get_default_memory_pool()
    with cupy.cuda.Device(number):
        free, total = cupy.cuda.runtime.memGetInfo()
        return int(free + pool.free_bytes() if cupy.cuda.get_allocator() == pool.malloc else total)
