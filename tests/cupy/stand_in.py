"""CuPy's names on NumPy's arrays, for a machine without a device: the kernels are compiled by g++ and looped over threads.

What it shows is that the code is right as far as it is ours: the kernels' arithmetic of indices, and what calls them.
Only what convmat.cupy uses is here. Memory comes filled with NaN, and host arrays are another type, as on a device.
"""

import ctypes
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from time import perf_counter
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
from scipy import sparse

COMPILER = shutil.which("g++")

# Grids, blocks and threads in a loop: kernels here share no memory and wait for nobody.
PRELUDE = """
#include <utility>
struct Dimensions { unsigned x, y, z; };
static thread_local Dimensions blockIdx, threadIdx, blockDim, gridDim;
#define __device__
#define __host__
#define __global__
"""
LOOPS = """
template <typename... P, std::size_t... I>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) { kernel((P)arguments[I]...); }

template <typename... P>
void run(void (*kernel)(P...), const unsigned* grid, const unsigned* block, void** arguments) {
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
    for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
    for (threadIdx.z = 0; threadIdx.z < block[2]; threadIdx.z++)
    for (threadIdx.y = 0; threadIdx.y < block[1]; threadIdx.y++)
    for (threadIdx.x = 0; threadIdx.x < block[0]; threadIdx.x++)
        call(kernel, arguments, std::index_sequence_for<P...>());
}
"""


class ndarray(np.ndarray):
    device = SimpleNamespace(id=0)

    def get(self):
        return np.array(self)

    def __reduce__(self):
        return asarray, (self.get(),)

    def __repr__(self):
        return repr(self.get())


ndarray.__module__ = "cupy"


def asarray(value, dtype=None):
    return value if isinstance(value, ndarray) and dtype is None else np.array(value, dtype).view(ndarray)


def empty(shape, dtype=float):
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = 255  # NaN, or −1
    return array.view(ndarray)


def ascontiguousarray(array, dtype=None):
    return np.ascontiguousarray(array, dtype).view(ndarray)


def compile_library(code, options=()):
    """Return C++ code as a loaded library."""
    folder = Path(tempfile.mkdtemp(prefix="convmat-kernels-"))
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(code, encoding="utf-8")
    command = [COMPILER, "-O1", "-shared", "-fPIC", "-std=c++17", "-w", *options, str(source), "-o", str(library)]
    subprocess.run(command, check=True, timeout=120)
    loaded = ctypes.CDLL(str(library))
    shutil.rmtree(folder)
    return loaded


@cache
def _library(code, options, name):
    launcher = f'extern "C" void launch(unsigned* g, unsigned* b, void** a) {{ run({name}, g, b, a); }}\n'
    return compile_library(PRELUDE + code + LOOPS + launcher, options)


class RawModule:
    def __init__(self, *, code, options):
        self._code, self._options = code, options

    def get_function(self, name):
        def launch(grid, block, arguments):
            assert all(isinstance(array, ndarray) for array in arguments), "a kernel takes arrays of the device"
            sizes = [(ctypes.c_uint * 3)(*(int(n) for n in (*size, 1, 1)[:3])) for size in (grid, block)]
            pointers = (ctypes.c_void_p * len(arguments))(*(array.ctypes.data for array in arguments))
            _library(self._code, self._options, name).launch(*sizes, pointers)

        return launch


class Device:
    attributes: ClassVar = {"MultiProcessorCount": 132, "ClockRate": 1_980_000, "SingleToDoublePrecisionPerfRatio": 2}
    mem_info = (140 * 10**9, 150 * 10**9)

    def __init__(self, number=0):
        self.id = number

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Pool:
    """CuPy's own reserve of memory."""

    reserve = 0

    def malloc(self, nbytes):
        raise NotImplementedError("arrays here are NumPy's")

    def free_bytes(self):
        return self.reserve


class Event:
    def record(self):
        self.time = perf_counter()

    def synchronize(self):
        pass


class LinearOperator:
    """As much of cupyx's as its solvers use, for where there is no CuPy at all."""

    ndim = 2

    def __init__(self, dtype, shape):
        self.dtype, self.shape = np.dtype(dtype), tuple(shape)

    def matvec(self, x):
        if x.shape not in ((self.shape[1],), (self.shape[1], 1)):
            raise ValueError("dimension mismatch")
        return self._matvec(x).reshape(self.shape[0], *x.shape[1:])

    def rmatvec(self, x):
        return self._rmatvec(x).reshape(self.shape[1], *x.shape[1:])

    def matmat(self, x):
        if x.shape[0] != self.shape[1]:
            raise ValueError("dimension mismatch")
        return self._matmat(x)

    def rmatmat(self, x):
        return self._rmatmat(x)

    def dot(self, x):
        return self.matvec(x) if x.ndim == 1 or x.shape[1] == 1 else self.matmat(x)

    def __matmul__(self, x):
        return self.dot(x)

    @property
    def T(self):
        return self._transpose()

    @property
    def H(self):
        return self._adjoint()


def _matrix(kind):
    class Matrix(kind):
        def __init__(self, parts, shape=None, **options):
            if not sparse.issparse(parts):
                assert all(isinstance(part, ndarray) for part in parts)
            super().__init__(parts, shape=shape, **options)
            for name in ("data", "indices", "indptr"):
                setattr(self, name, getattr(self, name).view(ndarray))

        def get(self):
            return self

        def toarray(self):
            return super().toarray().view(ndarray)

        def __matmul__(self, x):
            return np.asarray(super().__matmul__(np.asarray(x))).view(ndarray)

    return Matrix


def spmv(matrix, x, y, alpha=1, beta=0, transa=False):
    assert isinstance(x, ndarray)
    assert matrix.has_canonical_format
    y[...] = (matrix.T if transa else matrix) @ np.asarray(x)
    return y


def spmm(matrix, b, c):
    assert b.flags.f_contiguous
    assert c.flags.f_contiguous
    return spmv(matrix, b, c)


def _modules():
    """Return the modules that convmat.cupy imports, by name."""
    names = ("cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.sparse", "cupyx.scipy.sparse.linalg", "cupyx.cusparse")
    modules = {name: ModuleType(name) for name in names}
    for name, module in modules.items():
        module.__path__, module.__spec__ = [], ModuleSpec(name, None, is_package=True)
        if "." in name:
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, module)
    own = {"ndarray": ndarray, "asarray": asarray, "array": asarray, "empty": empty, "RawModule": RawModule}
    own |= {"ascontiguousarray": ascontiguousarray, "__version__": "0", "is_available": lambda: True}
    own["zeros"] = lambda shape, dtype=float: np.zeros(shape, dtype).view(ndarray)
    own["ones"] = lambda shape, dtype=float: np.ones(shape, dtype).view(ndarray)
    own["arange"] = lambda *arguments: np.arange(*arguments).view(ndarray)
    runtime = SimpleNamespace(
        getDeviceProperties=lambda number: {"name": b"none"},
        runtimeGetVersion=lambda: 0,
        driverGetVersion=lambda: 0,
        memGetInfo=lambda: Device.mem_info,
    )
    pool = Pool()
    own["get_default_memory_pool"] = lambda: pool
    elapsed = lambda start, stop: 1e3 * (stop.time - start.time)
    own["cuda"] = SimpleNamespace(
        Device=Device, Event=Event, get_elapsed_time=elapsed, runtime=runtime, get_allocator=lambda: pool.malloc
    )
    own["lib"] = SimpleNamespace(
        stride_tricks=SimpleNamespace(
            as_strided=lambda *arguments: np.lib.stride_tricks.as_strided(*arguments, subok=True)
        )
    )
    for name in ("copyto", "empty_like", "concatenate", "stack", "matmul", "conj", "may_share_memory", "isscalar"):
        own[name] = getattr(np, name)
    vars(modules["cupy"]).update(own)
    vars(modules["cupyx.cusparse"]).update(spmv=spmv, spmm=spmm)
    kinds = {"csr_array": _matrix(sparse.csr_array), "csc_array": _matrix(sparse.csc_array)}
    vars(modules["cupyx.scipy.sparse"]).update(kinds)
    try:
        from cupyx.scipy.sparse.linalg import LinearOperator as cupyx_operator
    except ImportError:
        cupyx_operator = LinearOperator
    vars(modules["cupyx.scipy.sparse.linalg"]).update(LinearOperator=cupyx_operator)
    return modules


MODULES = _modules()


@contextmanager
def installed():
    """Be CuPy for whatever is imported meanwhile, and leave no trace for what is imported later."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("cupy", "cupyx")}
    for name in before:
        del sys.modules[name]
    sys.modules.update(MODULES)
    try:
        yield MODULES["cupy"]
    finally:
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)
