"""Networks of PyTorch and ONNX as matrices: one sparse affine map, as a whole or near a point."""

from convmat.networks._affine import AffineExplanation, AffineMap, NetworkMatrix
from convmat.networks._network import Network
from convmat.networks._onnx import from_onnx
from convmat.networks._report import Report, ReportRow
from convmat.networks._stages import Stage
from convmat.networks._torch import from_torch

__all__ = [
    "AffineExplanation",
    "AffineMap",
    "Network",
    "NetworkMatrix",
    "Report",
    "ReportRow",
    "Stage",
    "from_onnx",
    "from_torch",
]
