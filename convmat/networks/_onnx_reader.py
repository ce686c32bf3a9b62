"""ONNX's graphs: which input and output a network has, and its nodes, each as stages or as constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from convmat.geometry import Array
from convmat.networks._builder import Builder, Operand, check_shape
from convmat.networks._maps import Shape
from convmat.networks._network import Network, check_float
from convmat.networks._onnx_arithmetic import ARITHMETIC
from convmat.networks._onnx_files import array_of, load, opsets
from convmat.networks._onnx_layers import LAYERS
from convmat.networks._onnx_moves import MOVES
from convmat.networks._onnx_nodes import FAILURES, Node, Rule, evaluate
from convmat.networks._onnx_pools import POOLS
from convmat.networks._onnx_resize import RESIZES
from convmat.networks._stages import Value

RULES: dict[str, Rule] = {**ARITHMETIC, **LAYERS, **MOVES, **POOLS, **RESIZES}
_TYPES = {"FLOAT": np.float32, "DOUBLE": np.float64, "FLOAT16": np.float32, "BFLOAT16": np.float32}
_MOST_CONSTANT = 1 << 28  # numbers that a model's arithmetic of constants may make, all together
# What a model may do with constants alone. The result is never much larger than what goes in, or its shape is known before.
FOLDED = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike",
    "Ceil", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape", "Cos", "Cosh", "CumSum",
    "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Elu", "Equal", "Exp", "Expand", "EyeLike",
    "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "OneHot", "Or",
    "PRelu", "Pad", "Pow", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape",
    "ReverseSequence", "Round", "ScatterElements", "ScatterND", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Sinh",
    "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum",
    "Tan", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
})  # fmt: skip


def read(
    model: Any, input_shape: Sequence[int] | None, output: str | int | None, dtype: npt.DTypeLike | None
) -> Network:
    """Return the network of a model; see `from_onnx`."""
    wanted = None if dtype is None else check_float(dtype)
    proto = load(model)
    graph = proto.graph
    target = _chosen_output(graph, output)
    nodes = _needed(graph, target)
    names = [name for node, _ in nodes for name in (*node.input, *_outer_names(node))]
    given = _single_input(graph, [*names, target])
    kind = onnx.TensorProto.DataType.Name(given.type.tensor_type.elem_type)
    if kind not in _TYPES:
        raise ValueError(f"the model's input {given.name!r} must be of real numbers, {', '.join(_TYPES)}, got {kind}")
    full, is_batched = _input_shape(given, input_shape)
    if 0 in full:
        raise ValueError(f"the model's input {given.name!r} must have numbers, got shape {full}")
    builder = Builder(full, wanted or _TYPES[kind])
    found = _Walk(proto, builder, given.name).operand_of(target, nodes)
    if not isinstance(found, Value):
        raise ValueError(f"output {target!r} must depend on the model's input {given.name!r}, got a constant")
    shapes = tuple(each[1:] if is_batched and each[:1] == (1,) else each for each in (full, found.shape))
    stages, found = builder.needed(found)
    return Network(stages, builder.input, found, builder.dtype, shapes)  # type: ignore[arg-type]


def _chosen_output(graph: Any, output: str | int | None) -> str:
    names = [str(each.name) for each in graph.output]
    if output is None and len(names) == 1:
        return names[0]
    if isinstance(output, str) and output in names:
        return output
    if isinstance(output, int) and -len(names) <= output < len(names):
        return names[output]
    if output is not None and not isinstance(output, str | int):
        raise TypeError(f"output must be a name or a number, got {type(output).__name__}")
    raise ValueError(f"output must be one of the model's outputs, {', '.join(map(repr, names))}, got {output!r}")


def _needed(graph: Any, target: str) -> list[tuple[Any, int]]:
    """Return the nodes that an output needs, and the place of each in the graph, from 1."""
    needed, nodes = {target}, []
    for place, node in reversed(list(enumerate(graph.node, 1))):
        if needed.intersection(filter(None, node.output)):
            nodes.append((node, place))
            needed.update(node.input)
            needed.update(_outer_names(node))
    return nodes[::-1]


def _outer_names(node: Any) -> Iterator[str]:
    """Yield the names that graphs inside a node may read."""
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for inner in graph.node:
                yield from inner.input


def _single_input(graph: Any, names: Sequence[str]) -> Any:
    constants = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    read_ = set(names)
    real = [each for each in graph.input if each.name not in constants]
    found = [each for each in real if each.name in read_]
    if len(found) > 1:
        raise ValueError(
            f"a model must have one input, got {len(found)}: {', '.join(repr(each.name) for each in found)}"
        )
    if not found:
        raise ValueError(f"the output {names[-1]!r} must depend on an input, got one that depends on none")
    if not found[0].type.HasField("tensor_type"):
        raise ValueError(
            f"the model's input {found[0].name!r} must be a tensor, got a {found[0].type.WhichOneof('value')}"
        )
    return found[0]


def _input_shape(given: Any, wanted: Sequence[int] | None) -> tuple[Shape, bool]:
    """Return the shape of the model's input, with its batch axis, and whether there is one to be left out."""
    kind = given.type.tensor_type
    if not kind.HasField("shape"):
        if wanted is None:
            raise ValueError(
                f"the model's input {given.name!r} has no declared shape: input_shape must be given, got None"
            )
        full = check_shape(wanted)
        return full, full[:1] == (1,)
    sizes = [each.dim_value if each.HasField("dim_value") and each.dim_value > 0 else None for each in kind.shape.dim]
    text = ", ".join(
        each.dim_param or (str(each.dim_value) if each.HasField("dim_value") else "?") for each in kind.shape.dim
    )
    is_batched = bool(sizes) and sizes[0] in (1, None)
    if wanted is None:
        full_sizes = [1 if is_batched and not axis else size for axis, size in enumerate(sizes)]
        if None in full_sizes:
            raise ValueError(
                f"the model's input {given.name!r} has open sizes ({text}): input_shape must be given, got None"
            )
        return check_shape(full_sizes), is_batched  # type: ignore[arg-type]
    full = check_shape(wanted)
    if is_batched and len(full) == len(sizes) - 1:
        full = (1, *full)
    if len(full) != len(sizes) or any(size not in (None, own) for size, own in zip(sizes, full, strict=True)):
        raise ValueError(
            f"input_shape must fit the model's input {given.name!r} of shape ({text}), got {tuple(wanted)}"
        )
    return full, is_batched and full[0] == 1


class _Walk:
    """One pass through a graph: what each name stands for."""

    def __init__(self, model: Any, builder: Builder, input_name: str) -> None:
        self.builder = builder
        self.opsets = opsets(model)
        self.count = len(model.graph.node)
        self.tensors = {each.name: each for each in model.graph.initializer}
        self.values: dict[str, Operand] = {input_name: builder.input}
        self.made = 0  # numbers of constants

    def operand_of(self, target: str, nodes: Sequence[tuple[Any, int]]) -> Operand:
        """Return what a name stands for, once the nodes have been read."""
        wanted = {target}.union(*(node.input for node, _ in nodes))
        for proto, place in nodes:
            inputs = tuple(self._operand(name, proto, place) if name else None for name in proto.input)
            node = Node(
                proto,
                place,
                self.count,
                self.opsets,
                inputs,
                tuple(bool(name) and name in wanted for name in proto.output),
            )
            for name, found in zip(proto.output, self._outputs(node), strict=False):
                if name and found is not None:
                    self.values[name] = found
        return self._operand(target, None, 0)

    def _operand(self, name: str, proto: Any, place: int) -> Operand:
        if name not in self.values and name in self.tensors:
            self.values[name] = array_of(self.tensors[name])
        if name not in self.values:
            where = f"node {place} of {self.count}, {proto.op_type}, reads" if proto else "the model returns"
            raise ValueError(f"a model must make each value before it is read, got {name!r}, which {where}")
        return self.values[name]

    def _outputs(self, node: Node) -> Sequence[Operand | None]:
        """Return what a node makes."""
        is_constant = not any(isinstance(each, Value) for each in node.inputs)
        known = FOLDED if is_constant else RULES
        if node.domain or node.op not in known:
            kind = "that a network can apply to constants" if is_constant else "that a network of stages can have"
            raise ValueError(f"{node} must be an operator {kind}, got one that is not; see convmat.networks.from_onnx")
        try:
            node.schema  # noqa: B018 - raises for operators newer than the version that the model imports
            if is_constant:
                return self._constants(node)
            found = RULES[node.op](self.builder, node)
        except FAILURES as error:
            if isinstance(error, ValueError) and str(error).startswith(str(node)):
                raise
            why = " ".join(str(error).split())
            raise ValueError(f"{node} must be one that a network can have, got: {why}") from error
        return found if isinstance(found, tuple) and not isinstance(found, Value) else (found,)

    def _constants(self, node: Node) -> Sequence[Operand | None]:
        if node.op == "ConstantOfShape":  # whose number is stored once
            shape = check_shape(node.weights(0).tolist())
            value = node.get("value")
            number: Any = np.float32(0) if value is None else array_of(value).reshape(-1)[0]
            return (np.broadcast_to(number, shape),)
        found: list[Array] = evaluate(node, node.inputs)  # type: ignore[arg-type]
        self.made += sum(np.size(each) for each in found)
        if self.made > _MOST_CONSTANT:
            raise ValueError(
                f"{node} must leave constants with at most {_MOST_CONSTANT} numbers in all, got {self.made}"
            )
        return found
