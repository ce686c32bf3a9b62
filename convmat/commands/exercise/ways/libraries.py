"""Libraries that choose among methods: convmat and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from convmat.commands.exercise.cases import Case
from convmat.commands.exercise.ways.base import Ready, Work, missing, vector_bytes
from convmat.geometry import Array
from convmat.operators import Convolution


class Auto:
    """The engine that convmat picks; counted as the arithmetic of the convolution, for any engine."""

    name = "auto"
    title = 'convmat, engine="auto"'

    def refuses(self, case: Case) -> str | None:
        """Refuse nothing."""
        return None

    def work(self, case: Case) -> Work:
        """Count the arithmetic, the input and output once, and the memory that the chosen engine keeps."""
        estimates = self._operator(case, None).explain().estimates
        state = next(e.cost.state for e in estimates if e.chosen and not e.transposed and e.cost is not None)
        return Work(case.geometry.flops, vector_bytes(case), state)

    def build(self, case: Case, workers: int) -> Ready:
        """Make the operator, and compute a first product, which prepares it."""
        A = self._operator(case, workers)
        A.apply(np.zeros(case.input_shape, case.dtype))
        transpose: Any = A.T
        return Ready(A.apply, transpose.apply)

    def _operator(self, case: Case, workers: int | None) -> Convolution:
        return Convolution(case.kernel, case.input_shape, **case.options, workers=workers)


class Torch:
    """PyTorch's convolution and transposed convolution."""

    name = "torch"
    title = "PyTorch"

    def refuses(self, case: Case) -> str | None:
        """Refuse if PyTorch is missing or lacks the padding."""
        if any(a != b for a, b in case.geometry.padding):
            return "PyTorch pads both sides alike"
        return missing("torch")

    def work(self, case: Case) -> Work:
        """Count the arithmetic, and the input and output once, because PyTorch's choice of method is not known."""
        return Work(case.geometry.flops, vector_bytes(case), 0)

    def build(self, case: Case, workers: int) -> Ready:
        """Import PyTorch, and bound its threads."""
        import torch

        torch.set_num_threads(workers)
        geometry = case.geometry
        options: dict[str, Any] = {
            "stride": geometry.stride,
            "padding": tuple(before for before, _ in geometry.padding),
            "dilation": geometry.dilation,
            "groups": geometry.groups,
        }
        rest = tuple(  # inputs that no window reads
            axis.before + axis.size + axis.after - (axis.outputs - 1) * axis.stride - axis.reach - 1
            for axis in geometry.axes
        )
        kernel = torch.from_numpy(case.kernel)

        def call(name: str, image: Array, **more: Any) -> Array:
            with torch.no_grad():
                function = getattr(torch.nn.functional, name)
                result: Array = function(torch.from_numpy(image)[None], kernel, **options, **more)[0].numpy()
            return result

        return Ready(
            lambda x: call("conv2d", x),
            lambda y: call("conv_transpose2d", y, output_padding=rest),
        )
