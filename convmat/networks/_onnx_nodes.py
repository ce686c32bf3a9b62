"""Nodes of an ONNX graph: what they are given, how errors name them, and their evaluation as ONNX defines it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx.checker
from onnx.reference import ReferenceEvaluator

from convmat.geometry import Array
from convmat.networks._builder import Builder, Operand, check_shape
from convmat.networks._onnx_files import array_of
from convmat.networks._onnx_indexing import DIRECT
from convmat.networks._stages import Value

_LITTLE = 1 << 10  # numbers of an array that may say what shape comes out
FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    Attributes
    ----------
    proto : onnx.NodeProto
        What the file says.
    place, count : int
        The node's number in the graph, from 1, and how many there are.
    opsets : dict of str to int
        The version of each set of operators.
    inputs : tuple of Value, array or None
        What it is given; None for what is left out.
    wanted : tuple of bool
        Which of its outputs something reads.
    """

    proto: Any
    place: int
    count: int
    opsets: Mapping[str, int]
    inputs: tuple[Operand | None, ...]
    wanted: tuple[bool, ...]

    def __str__(self) -> str:
        domain = f" of domain {self.domain!r}" if self.domain else ""
        op = self.op if self.op.isidentifier() else repr(self.op)
        return f"node {self.place} of {self.count}, {op}{domain} {self.name!r},"

    @property
    def op(self) -> str:
        """Name of the operator."""
        return str(self.proto.op_type)

    @property
    def domain(self) -> str:
        """Where the operator is from; ONNX's own have no name."""
        return "" if self.proto.domain == "ai.onnx" else str(self.proto.domain)

    @property
    def name(self) -> str:
        """Its name, or that of its first output."""
        return str(self.proto.name or next(iter(self.proto.output), ""))

    @cached_property
    def schema(self) -> Any:
        """The operator's definition in the version that the model imports."""
        try:
            return onnx.defs.get_schema(self.op, self.opsets[self.domain], self.domain)
        except (KeyError, onnx.defs.SchemaError):
            raise ValueError(f"{self} must be an operator that the model imports, got none of this name") from None

    @property
    def version(self) -> int:
        """The version of the operator's definition."""
        return int(self.schema.since_version)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes, with their defaults; texts are str."""
        given = {name: each.default_value for name, each in self.schema.attributes.items() if each.default_value.name}
        given |= {each.name: each for each in self.proto.attribute}
        values = {name: onnx.helper.get_attribute_value(each) for name, each in given.items()}
        return {
            name: each.decode("utf-8", "replace") if isinstance(each, bytes) else each for name, each in values.items()
        }

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def input(self, index: int) -> Operand | None:
        """Return what it is given at a place, or None."""
        return self.inputs[index] if index < len(self.inputs) else None

    def operand(self, index: int = 0) -> Operand:
        """Return what it must be given at a place."""
        if (found := self.input(index)) is None:
            raise ValueError(f"{self} must have input {index + 1}, got {len(self.inputs)} inputs")
        return found

    def value(self, index: int = 0) -> Value:
        """Return what must depend on the network's input."""
        if not isinstance(found := self.operand(index), Value):
            raise ValueError(f"{self} must have an input {index + 1} that is no constant, got one")
        return found

    def constant(self, index: int) -> Array | None:
        """Return what must be constant, or None."""
        if isinstance(found := self.input(index), Value):
            raise ValueError(
                f"{self} must have a constant input {index + 1}, got one that depends on the network's input"
            )
        return found

    def weights(self, index: int) -> Array:
        """Return what must be constant and there."""
        if (found := self.constant(index)) is None:
            raise ValueError(f"{self} must have input {index + 1}, got {len(self.inputs)} inputs")
        return found

    def integers(self, name: str, index: int) -> list[int] | None:
        """Return integers that are an attribute or, in newer versions, an input; None if they are left out."""
        given = self.get(name)
        if given is None and (found := self.constant(index)) is not None:
            given = np.ravel(found)
        return None if given is None else [int(each) for each in given]

    def refuse_outputs(self, first: int = 1) -> None:
        """Raise if something reads an output that is not computed, from the given one on."""
        if any(self.wanted[first:]):
            raise ValueError(f"{self} must have no output read but the first, got one that is")


def evaluate(
    node: Node,
    arrays: Sequence[Array | None],
    exchanged: Mapping[str, Any] | None = None,
    places: Collection[int] = (),
) -> list[Any]:
    """Return what a node gives for arrays, as ONNX's reference implementation computes it.

    Parameters
    ----------
    node : Node
        The node.
    arrays : sequence of array or None
        What it is given.
    exchanged : dict, optional
        Attributes that have other values.
    places : collection of int
        Which arrays hold places of numbers: integers, but of real numbers' type for the operator.
    """
    names = ["" if each is None else f"x{place}" for place, each in enumerate(arrays)]
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    proto.ClearField("input")
    proto.input.extend(names)
    for name, value in (exchanged or {}).items():
        kept = [each for each in proto.attribute if each.name != name]
        proto.ClearField("attribute")
        proto.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    feeds = {name: np.asarray(each) for name, each in zip(names, arrays, strict=True) if each is not None}
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in node.opsets.items()]
    _check_outputs(node, proto, feeds, imports, {names[place] for place in places})
    if node.op in DIRECT:
        if node.get("reduction", "none") != "none":
            raise ValueError(f"{node} must put numbers in places without reduction, got {node.get('reduction')!r}")
        return [DIRECT[node.op](node.attributes, *feeds.values())]
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_empty_tensor_value_info(name) for name in feeds],
        [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name],
    )
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports)).run(None, feeds)
    results = iter(found)
    return [next(results) if name else None for name in proto.output]


_BOUNDED = {"NonZero", "Compress", "Unique", "Squeeze", "Identity", "Shape", "Size"}  # never much more than goes in


def _check_outputs(
    node: Node, proto: Any, feeds: Mapping[str, Array], imports: list[Any], places: Collection[str]
) -> None:
    """Raise if a node makes arrays that are absurdly large, or does not say of what shape, before it does."""
    for attribute in proto.attribute:
        if attribute.HasField("t"):
            array_of(attribute.t)
        elif attribute.HasField("sparse_tensor"):
            raise ValueError(f"{node} must have dense tensors, got a sparse one")
    if node.op == "Constant":
        return
    types = {
        name: onnx.helper.make_tensor_type_proto(
            onnx.TensorProto.FLOAT if name in places else onnx.helper.np_dtype_to_tensor_dtype(each.dtype), each.shape
        )
        for name, each in feeds.items()
    }
    known = {
        name: onnx.numpy_helper.from_array(np.ascontiguousarray(each).reshape(each.shape))
        for name, each in feeds.items()
        if each.size <= _LITTLE and name not in places
    }
    try:
        found = onnx.shape_inference.infer_node_outputs(
            node.schema, proto, types, known, opset_imports=imports, ir_version=onnx.IR_VERSION
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{node} must have inputs that fit together, got: {' '.join(str(error).split())}") from error
    for name in filter(None, proto.output):
        own = found[name].tensor_type if name in found else onnx.TypeProto.Tensor()
        dims = own.shape.dim
        if own.HasField("shape") and all(each.HasField("dim_value") for each in dims):
            check_shape([each.dim_value for each in dims])
        elif node.op not in _BOUNDED:
            raise ValueError(f"{node} must have a shape that its inputs tell, got one that is open")


Rule = Callable[[Builder, Node], "Operand | tuple[Operand | None, ...]"]  # makes the stages of a node
