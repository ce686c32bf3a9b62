"""Ways to compute products with V and Vᵀ: one protocol, in the order in which ties are decided."""

from convmat.engines import csr, fft, gemm, separable, taps, torch, winograd
from convmat.engines.base import Bound, Cost, Engine, Machine, SelectiveEngine

ENGINES: dict[str, Engine] = {
    module.engine.name: module.engine for module in (taps, winograd, separable, gemm, fft, csr, torch)
}

# Other names of the above, or of what does the same elsewhere; or what to say of them.
KNOWN_AS = {
    **dict.fromkeys(("numba", "direct", "jit", "compiled"), "taps"),
    **dict.fromkeys(("im2col", "im2row", "unfold", "numpy", "blas", "matmul"), "gemm"),
    **dict.fromkeys(("sparse", "scipy", "matrix"), "csr"),
    **dict.fromkeys(("fftconvolve", "oaconvolve", "overlap-add", "overlap-save"), "fft"),
    **dict.fromkeys(("pytorch", "mkldnn", "onednn"), "torch"),
    **dict.fromkeys(("cupy", "cuda", "gpu", "cudnn"), "for the device take .to('cupy') or convmat.cupy"),
}

__all__ = ["ENGINES", "KNOWN_AS", "Bound", "Cost", "Engine", "Machine", "SelectiveEngine"]
