"""Jacobians of networks against PyTorch, row by row and whole, and models that the onnx package ships.

Run ``python -m benchmarks.networks``; ``--quick`` takes small images.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.timing import interleave, ratio
from convmat import networks
from convmat._messages import scaled

KINDS = ("pytorch-converted", "pytorch-operator", "simple")


def chain(widths: tuple[int, ...], taps: tuple[int, ...]) -> Any:
    """Return a PyTorch module of convolutions that keep the size, with ReLU between them, in double precision."""
    import torch

    torch.manual_seed(0)
    layers: list[Any] = []
    for inner, outer, size in zip(widths, widths[1:], taps, strict=False):
        layers += [torch.nn.Conv2d(inner, outer, size, padding=size // 2), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).double().eval()


def jacobians(name: str, widths: tuple[int, ...], taps: tuple[int, ...], size: int) -> None:
    """Print how long a Jacobian takes, how much memory, and how it differs from PyTorch's."""
    import torch

    module = chain(widths, taps)
    shape = widths[0], size, size
    net = networks.from_torch(module, shape)
    x = np.random.default_rng(0).standard_normal(shape)
    point = torch.from_numpy(x)

    def dense() -> Any:
        return torch.func.jacrev(lambda x: module(x[None])[0])(point).detach()

    def ours() -> Any:
        return net.at(x).matrix.tocsr()

    times = interleave({"convmat": ours, "jacrev": dense}, rounds=(3, 3), warm_up=False)
    found, expected = ours(), dense().reshape(net.at(x).matrix.shape).numpy()
    error = abs(found.toarray() - expected).max() / abs(expected).max()
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    nbytes = found.data.nbytes + found.indices.nbytes + found.indptr.nbytes
    print(f"\n{name}, {size} × {size}: {found.nnz:,} nonzeros of {found.shape[0]} × {found.shape[1]}")
    print(f"  jacrev takes {ratio(times, 'jacrev', 'convmat'):.3g} × as long as convmat; they differ by {error:.1e}")
    print(f"  peak {scaled(peak, 'B')}, {peak / nbytes:.2f} × the bytes of the matrix")
    for rows in (1, found.shape[0] // 100, found.shape[0] // 10):
        start = perf_counter()
        net.at(x).matrix.tocsr((0, rows))
        print(f"  {rows} rows: {scaled(perf_counter() - start, 's')}")


def shipped(is_quick: bool) -> None:
    """Read the models that onnx ships with inputs and outputs, print how they differ, and count the large ones."""
    import onnx

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for kind in KINDS:
        read, refused, worst = 0, 0, 0.0
        for model in sorted((folder / kind).glob("*/model.onnx")):
            arrays = [
                onnx.numpy_helper.to_array(onnx.load_tensor(model.parent / "test_data_set_0" / f"{name}_0.pb"))
                for name in ("input", "output")
                if (model.parent / "test_data_set_0" / f"{name}_0.pb").is_file()
            ]
            try:
                net = networks.from_onnx(model, dtype=np.float64)
                values = net(arrays[0].reshape(net.input_shape).astype(np.float64)).ravel()
            except ValueError:
                refused += 1
                continue
            read += 1
            size = max(1.0, float(abs(arrays[1]).max(initial=0)))
            worst = max(worst, float(abs(values - arrays[1].ravel()).max(initial=0)) / size)
        print(f"{kind}: {read} read, {refused} refused; the largest difference is {worst:.1e}")
    for model in [] if is_quick else sorted((folder / "light").glob("*.onnx")):
        start = perf_counter()
        try:
            report = networks.from_onnx(model).report()
        except ValueError as error:
            print(f"{model.name}: refused, {error}")
            continue
        count = f"{len(report.rows)} stages, {report.nonzeros:,} nonzeros"
        print(f"{model.name}: {count}, counted in {scaled(perf_counter() - start, 's')}")


# Published networks, by the package that carries them: part of the file's name, and the shape of one input.
SHAPES = {"cls": (3, 48, 192), "det": (3, 96, 128), "rec": (3, 48, 100)}


def published() -> None:
    """Compare the networks of rapidocr-onnxruntime with onnxruntime: outputs, and derivatives with differences."""
    import onnxruntime

    origin = find_spec("rapidocr_onnxruntime")
    assert origin is not None
    assert origin.origin is not None
    for path in sorted((Path(origin.origin).parent / "models").glob("*.onnx")):
        shape = next(shape for part, shape in SHAPES.items() if part in path.name)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        start = perf_counter()
        net = networks.from_onnx(path, shape)
        read = perf_counter() - start
        x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
        expected = session.run(None, {session.get_inputs()[0].name: x})[0]
        error = abs(net(x).reshape(expected.shape) - expected).max() / max(1.0, abs(expected).max())
        wide = net.astype(np.float64)
        near = wide.at(x[0])
        start = perf_counter()
        rows = near.matrix.tocsr((0, 2))
        took = perf_counter() - start
        step = 1e-7 * np.random.default_rng(1).standard_normal(shape)
        change = (wide(x[0] + step) - wide(x[0] - step)).ravel()[:2] / 2
        slope = abs(change - rows @ step.ravel()).max() / abs(change).max()
        print(f"{path.name}: {len(net.stages)} stages, read in {scaled(read, 's')}; outputs differ by {error:.1e}")
        print(
            f"  two rows of the Jacobian in {scaled(took, 's')}, by {near.explain().method}; they differ by {slope:.1e}"
        )


def main(argv: list[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images")
    options = parser.parse_args(argv)
    if find_spec("torch") is None:
        print("Without PyTorch: no Jacobians are compared.")
    else:
        size = 12 if options.quick else 48
        jacobians("3→8→8→3, 3 × 3", (3, 8, 8, 3), (3, 3, 3), size)
        jacobians("1→8→4→2, 5 × 5, 3 × 3, 3 × 3", (1, 8, 4, 2), (5, 3, 3), size)
    if find_spec("onnx") is None:
        print("Without onnx: no models are read.")
    else:
        print()
        shipped(options.quick)
    if find_spec("onnxruntime") is None or find_spec("rapidocr_onnxruntime") is None:
        print("Without onnxruntime and rapidocr-onnxruntime: no published networks are read.")
    else:
        print()
        published()
    return 0


if __name__ == "__main__":
    sys.exit(main())
