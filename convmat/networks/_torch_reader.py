"""The graph of an exported PyTorch program, operation by operation: what stages it has, and what is constant."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convmat.networks._builder import Builder
from convmat.networks._stages import Value
from convmat.networks._torch_arithmetic import ARITHMETIC
from convmat.networks._torch_calls import Call, contains, load_torch, run, source_line, transformed
from convmat.networks._torch_choices import CHOICES, step
from convmat.networks._torch_layers import LAYERS
from convmat.networks._torch_moves import MOVES, NEAREST, move, resize_nearest
from convmat.networks._torch_products import PRODUCTS

_SAME = {"alias", "alias_copy", "clone", "contiguous", "detach", "detach_copy", "lift", "lift_fresh", "lift_fresh_copy"}
_CASTS = {"_to_copy", "to", "type_as", "positive"}
_DROPS = {"dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout"}
_SHAPED = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}
_SHAPED |= {"new_empty_strided", "sym_size", "sym_numel", "sym_stride"}
_CHECKS = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size"}
_HANDLERS: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(MOVES, move),
    **dict.fromkeys(NEAREST, resize_nearest),
    **LAYERS,
    **PRODUCTS,
    **ARITHMETIC,
    **CHOICES,
}
_KNOWN = {*_HANDLERS, *_SAME, *_CASTS, *_DROPS, *_SHAPED, *_CHECKS}
# Operations that PyTorch would take to pieces, and that are known as a whole.
WHOLE = {*_HANDLERS}


def is_readable(program: Any) -> bool:
    """Return whether a program has known operations alone, and none that writes to an array."""
    own = load_torch()._ops.OpOverload
    found = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        depends = node.name in found or any(each.name in found for each in node.all_input_nodes)
        if node.op == "call_function" and node.target is not operator.getitem:
            if not isinstance(node.target, own) or node.target._schema.is_mutable:
                return False
            if depends and _kind(node.target) not in _KNOWN:
                return False
        if depends:
            found.add(node.name)
    return True


def _kind(op: Any) -> str:
    """Return the name of an operation without its overload, as ``conv2d``."""
    return str(op._schema.name).split("::")[-1]


class Reader:
    """Makes stages of a graph.

    Parameters
    ----------
    builder : Builder
        What makes the stages.
    dtype : dtype
        That of the module. Constants in it are computed in double precision.
    """

    def __init__(self, builder: Builder, dtype: Any) -> None:
        self.builder = builder
        self._torch = load_torch()
        self._dtype = dtype

    def read(self, graph_module: Any, inputs: Sequence[Any]) -> Any:
        """Return what a graph returns for values and constants."""
        graph = graph_module.graph
        known: dict[Any, Any] = {}
        given = iter(inputs)
        paths = Counter(_path(node) for node in graph.nodes if _is_operation(node))
        for node in graph.nodes:
            if node.op == "placeholder":
                known[node] = self.widened(next(given))
            elif node.op == "get_attr":
                known[node] = self.widened(operator.attrgetter(node.target)(graph_module))
            else:
                args, kwargs = (self._arguments(each, known) for each in (node.args, node.kwargs))
                if node.op == "output":
                    return args[0]
                path = _path(node)
                name = path if path and paths[path] == 1 else f"{path}/{node.name}".lstrip("/")
                try:
                    known[node] = self._call(node, name, args, kwargs)
                except ValueError as error:
                    raise ValueError(f"{error}, at {_place(node)}") from error
        raise ValueError("the graph of a module must return something, got one that does not")

    def widened(self, constant: Any) -> Any:
        """Return constants with floating numbers in double precision."""
        torch = self._torch

        def widen(each: Any) -> Any:
            if not isinstance(each, torch.Tensor):
                return each
            own = each.detach().cpu()
            return own.double() if own.is_floating_point() else own

        return transformed(constant, widen)

    def _arguments(self, tree: Any, known: Mapping[Any, Any]) -> Any:
        node = self._torch.fx.Node
        return transformed(tree, lambda each: known[each] if isinstance(each, node) else each)

    def _call(self, node: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target = node.target
        if target is operator.getitem:
            if not node.users:
                return None
            try:
                return args[0][args[1]]
            except KeyError:
                raise ValueError(f"the results of an operation must be its first, got number {args[1]}") from None
        if not isinstance(target, self._torch._ops.OpOverload):
            return self._call_other(target, args, kwargs)
        names = [each.name for each in target._schema.arguments]
        arguments = {each.name: each.default_value for each in target._schema.arguments if each.has_default_value()}
        arguments |= dict(zip(names, args, strict=False)) | kwargs
        kind = _kind(target)
        if kind in _CHECKS:
            return None
        if kind in _SHAPED:
            arguments = transformed(arguments, self._stand_in)
        if not contains(arguments, Value):
            return self._constant(target, arguments)
        return self._step(node, name, kind, arguments)

    def _call_other(self, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Compute sizes of arrays; what contains other graphs is unknown."""
        numbers = (bool, int, float)
        if kwargs or not all(isinstance(each, numbers) for each in args) or not callable(target):
            raise ValueError(f"a module must consist of operations that from_torch knows, got {target}")
        return target(*args)

    def _stand_in(self, each: Any) -> Any:
        return self._torch.zeros(each.shape, dtype=self._torch.float64) if isinstance(each, Value) else each

    def _constant(self, op: Any, arguments: dict[str, Any]) -> Any:
        """Let PyTorch run an operation on constants."""
        torch = self._torch
        if torch.Tag.nondeterministic_seeded in op.tags:
            raise ValueError(f"a module must compute the same each time, got {op}, which is random")
        if arguments.get("dtype") == self._dtype:
            arguments = arguments | {"dtype": torch.float64}
        if arguments.get("device") is not None:
            arguments = arguments | {"device": "cpu"}
        with torch.no_grad():
            result = run(op, arguments)
            own = getattr(result, "dtype", None)
            if own == self._dtype != torch.float64 and arguments.get("dtype", own) is None:
                result = run(op, arguments | {"dtype": torch.float64})
            return self.widened(result)

    def _step(self, node: Any, name: str, kind: str, arguments: dict[str, Any]) -> Any:
        """Make the stages of an operation."""
        op = node.target
        if kind in _SAME | _CASTS:
            dtype = arguments.get("dtype")
            if dtype is not None and not (dtype.is_floating_point or dtype == self._torch.bool):
                raise ValueError(f"the numbers of a network must stay real, got a cast to {dtype}")
            x = next(each for each in arguments.values() if isinstance(each, Value))
            return self.builder.elementwise(name, x, step("ne")) if dtype == self._torch.bool else x
        if kind in _DROPS:
            if arguments.get("train"):
                raise ValueError(f"{kind} must be in evaluation mode, got one that is training")
            x = arguments["input"]
            return {0: x} if kind == "native_dropout" else x
        if kind.startswith("as_strided") and not node.args[0].meta["val"].is_contiguous():
            raise ValueError(f"{kind} must have an array in the order of its axes, got another order in memory")
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise ValueError(
                f"a module must consist of operations that from_torch knows, got {op}; export what comes before it"
            )
        wanted = frozenset(user.args[1] for user in node.users if user.target is operator.getitem)
        numpy_dtype = np.dtype(np.float64 if self._dtype == self._torch.float64 else np.float32)
        result = handler(Call(self.builder, name, op, arguments, wanted, numpy_dtype))
        is_array = np.ndarray, np.generic
        return transformed(result, lambda each: self._torch.as_tensor(each) if isinstance(each, is_array) else each)


def _is_operation(node: Any) -> bool:
    return node.op == "call_function" and node.target is not operator.getitem


def _path(node: Any) -> str:
    """Return the path of the module that a node is of, as ``layers.0``."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = list(stack.values())
    return str(entries[-1][0]) if entries else ""


def _place(node: Any) -> str:
    """Return where a node is, in words."""
    words = f"node {node.name!r}"
    if path := _path(node):
        words += f" of module {path!r}"
    lines = [line for line in (node.meta.get("stack_trace") or "").splitlines() if line.lstrip().startswith("File")]
    own = [line for line in lines if "/torch/nn/" not in line] or lines
    if own:
        words += f" ({source_line(own[-1])})"
    return words
