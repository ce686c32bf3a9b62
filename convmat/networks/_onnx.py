"""Networks from ONNX's files."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy.typing as npt

from convmat.networks._network import Network


def from_onnx(
    model: str | PathLike[str] | bytes | Any,
    input_shape: Sequence[int] | None = None,
    *,
    output: str | int | None = None,
    dtype: npt.DTypeLike | None = None,
) -> Network:
    """Return the network that an ONNX model describes.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        The model: its file, what a file has in it, or what the package onnx makes of it.
    input_shape : sequence of int, optional
        Shape of one input, with or without its batch axis; needed where the model leaves sizes open.
    output : str or int, optional
        Which of several outputs the network returns, by its name or number.
    dtype : dtype, optional
        float32 or float64; by default that of the model's input, and float32 for half precision.

    Returns
    -------
    Network
        With a stage for each step that computes something, in the order of the graph. What only depends on constants, as
        the arithmetic of shapes does, is done once, here.

    Raises
    ------
    ModuleNotFoundError
        If the package onnx is not installed.
    TypeError
        If `model` or another argument has the wrong type.
    ValueError
        If the model is none, uses what a network of stages cannot have (the error names the node and its place in the
        graph), leaves sizes open, or declares absurdly large arrays; or if `input_shape` or `output` contradict it.

    Notes
    -----
    The first axis of the model's input is a batch axis if its size is 1 or open: then `Network.input_shape` is without it,
    and `Network.output_shape` is without a first axis of size 1.

    Layers have constant weights. A model runs no code here, and external data are read from the model's own folder alone.

    Examples
    --------
    A layer that doubles three numbers and adds one (this needs the package onnx)::

        from onnx import TensorProto, parser
        from convmat.networks import from_onnx

        model = parser.parse_model('''
            <ir_version: 8, opset_import: ["": 17]>
            layer (float[N, 3] x) => (float[N, 3] z)
            <float two = {2}, float one = {1}> { y = Mul(x, two)  z = Add(y, one) }
        ''')
        net = from_onnx(model)
        net.affine().apply([0, 1, 2])  # array([1., 3., 5.], dtype=float32)
    """
    try:
        from convmat.networks._onnx_reader import read
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ModuleNotFoundError(
            'from_onnx needs onnx, which pip install "convmat[onnx]" installs', name="onnx"
        ) from error
    return read(model, input_shape, output, dtype)
