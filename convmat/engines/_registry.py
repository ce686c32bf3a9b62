"""The engines of the host, in the order in which ties are decided."""

from convmat.engines._base import Engine
from convmat.engines._csr.csr import engine as csr
from convmat.engines._fft.fft import engine as fft
from convmat.engines._gemm import engine as gemm
from convmat.engines._separable import engine as separable
from convmat.engines._taps.taps import engine as taps
from convmat.engines._torch import engine as torch
from convmat.engines._winograd.winograd import engine as winograd
from convmat.engines._winograd.winograd import engine4 as winograd4

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (taps, winograd, winograd4, separable, gemm, fft, csr, torch)
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
