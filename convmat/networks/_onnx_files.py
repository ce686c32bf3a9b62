"""ONNX's files: what is read of them, and what is refused before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import onnx.external_data_helper
import onnx.inliner
from google.protobuf.message import DecodeError

from convmat.geometry import Array

_MOST_NODES = 1 << 17  # of a model whose functions are written out
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def load(model: Any) -> onnx.ModelProto:
    """Return a model whose format is known, with its functions written out and its external data read."""
    if isinstance(model, onnx.ModelProto):
        found, what, folder = model, "the model", None
    elif isinstance(model, bytes | bytearray | memoryview):
        found, what, folder = _parsed(bytes(model), f"{len(model)} bytes"), "the model", None
    elif isinstance(model, str | PathLike):
        path = Path(model)
        found, what, folder = _parsed(path.read_bytes(), f"file {str(path)!r}"), f"file {str(path)!r}", path.parent
    else:
        raise TypeError(f"model must be a path, bytes or an onnx.ModelProto, got {type(model).__name__}")
    _check(found, what)
    if found.functions:
        if (count := _written_out(found)) > _MOST_NODES:
            raise ValueError(f"a model must have at most {_MOST_NODES} nodes, got {count} in all calls of functions")
        found = _inlined(found)
    _read_external(found, folder)
    return found


def _parsed(content: bytes, what: str) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(content)
    except (DecodeError, *_FAILURES) as error:
        raise ValueError(f"model must be a whole ONNX model, got {what} that cannot be decoded: {error}") from error


def _check(model: onnx.ModelProto, what: str) -> None:
    if not model.HasField("graph") or not model.graph.output or not model.ir_version:
        raise ValueError(f"model must be a whole ONNX model, got {what} without a graph that has outputs")
    if model.ir_version > onnx.IR_VERSION:
        raise ValueError(
            f"{what} must have an IR version up to {onnx.IR_VERSION}, which onnx {onnx.__version__} knows, "
            f"got {model.ir_version}"
        )
    newest, version = onnx.defs.onnx_opset_version(), opsets(model).get("", 0)
    if not 1 <= version <= newest:
        raise ValueError(
            f"{what} must import ONNX's operators in a version from 1 to {newest}, which onnx {onnx.__version__} knows, "
            f"got {version or 'none'}"
        )


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Return the version of each set of operators that a model imports."""
    return {_domain(each.domain): each.version for each in model.opset_import}


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _written_out(model: onnx.ModelProto) -> int:
    """Return how many nodes there are once each call of a function is replaced by the function's nodes."""
    bodies = {(_domain(each.domain), each.name): each.node for each in model.functions}
    counts: dict[tuple[str, str], int] = {}
    open_: set[tuple[str, str]] = set()

    def count(nodes: Sequence[onnx.NodeProto]) -> int:
        return sum(count_node(node) for node in nodes)

    def count_node(node: onnx.NodeProto) -> int:
        own = 1 + sum(count(graph.node) for graph in _graphs(node))
        key = _domain(node.domain), node.op_type
        if key not in bodies:
            return own
        if key in open_:
            raise ValueError(f"a model's functions must not call themselves, got {node.op_type!r}, which does")
        if key not in counts:
            open_.add(key)
            counts[key] = count(bodies[key])
            open_.discard(key)
        return own + counts[key]

    try:
        return count(model.graph.node)
    except RecursionError:
        raise ValueError(f"a model's functions must be less deep, got {len(bodies)} that call each other") from None


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.inliner.inline_local_functions(model)
    except _FAILURES as error:
        raise ValueError(f"a model's functions must be such that onnx can write them out, got: {error}") from error


def _read_external(model: onnx.ModelProto, folder: Path | None) -> None:
    tensors = [each for each in model.graph.initializer if onnx.external_data_helper.uses_external_data(each)]
    if tensors and folder is None:
        raise ValueError(
            f"a model with external data must be given as a path, got tensor {tensors[0].name!r} in a file"
        )
    for tensor in tensors:
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (OSError, onnx.checker.ValidationError, *_FAILURES) as error:
            raise ValueError(
                f"the external data of tensor {tensor.name!r} must be in the model's folder {str(folder)!r}, got: {error}"
            ) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def array_of(tensor: onnx.TensorProto) -> Array:
    """Return the array of a tensor; its declared sizes must be those of its numbers."""
    dims = tuple(tensor.dims)
    try:
        if min(dims, default=0) < 0 or tensor.data_type == onnx.TensorProto.STRING:
            raise ValueError("it has a negative size or holds text")
        if onnx.external_data_helper.uses_external_data(tensor):
            raise ValueError("its data are in another file")
        if prod(dims) and not tensor.raw_data and not any(len(getattr(tensor, field)) for field in _FIELDS):
            raise ValueError("it holds no numbers")
        return onnx.numpy_helper.to_array(tensor)
    except _FAILURES as error:
        raise ValueError(f"tensor {tensor.name!r} must hold the numbers of its shape {dims}, got: {error}") from error


_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
