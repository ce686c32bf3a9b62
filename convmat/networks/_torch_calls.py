"""A call of an ATen operation in a graph: its arguments by name, as readers of all kinds of operations take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeGuard

import numpy as np

from convmat.geometry import Array
from convmat.networks._builder import Builder, Operand
from convmat.networks._maps import Shape
from convmat.networks._stages import Value


def load_torch() -> Any:
    """Import PyTorch, which nothing else needs.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("from_torch needs PyTorch; pip install torch", name=error.name) from error
    return torch


def source_line(line: str) -> str:
    """Return the file and the number of a line of a stack trace, without the path."""
    file, number, *_ = line.strip().removeprefix("File ").split(", ")
    return f"{PurePath(file.strip(chr(34))).name}, {number}"


def depends(found: Any) -> TypeGuard[Value]:
    """Return whether something depends on the input of the network."""
    return isinstance(found, Value)


def transformed(tree: Any, function: Callable[[Any], Any]) -> Any:
    """Return nested lists, tuples and dicts with each item replaced."""
    if isinstance(tree, Value):  # which is a tuple, too
        return function(tree)
    if isinstance(tree, (list, tuple)):
        return [transformed(each, function) for each in tree]
    if isinstance(tree, dict):
        return {key: transformed(each, function) for key, each in tree.items()}
    return function(tree)


def contains(tree: Any, kind: type) -> bool:
    """Return whether nested lists, tuples and dicts have an item of a type."""
    if isinstance(tree, kind):
        return True
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return any(contains(each, kind) for each in items)


@dataclass(frozen=True)
class Call:
    """A call of an ATen operation.

    Attributes
    ----------
    builder : Builder
        What makes the stages.
    name : str
        Name for the stage.
    op : OpOverload
        The operation.
    arguments : dict
        Its arguments by the names in the schema, with defaults: values of the network, tensors of PyTorch for constants, and
        what else there is.
    wanted : frozenset of int
        Which of several results are used.
    dtype : dtype
        That of the module, which may differ from the network's.
    """

    builder: Builder
    name: str
    op: Any
    arguments: Mapping[str, Any]
    wanted: frozenset[int]
    dtype: np.dtype[Any]

    @property
    def kind(self) -> str:
        """Name of the operation without its overload, as ``conv2d``."""
        return str(self.op._schema.name).split("::")[-1]

    def __getitem__(self, key: str) -> Any:
        return self.arguments[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return an argument that some overloads do not have."""
        return self.arguments.get(key, default)

    def value(self, key: str) -> Value:
        """Return an argument that depends on the input of the network."""
        found = self.arguments[key]
        if not depends(found):
            raise ValueError(f"{self.kind} must have a constant for all but {key!r}, got a constant for that")
        return found

    def array(self, key: str) -> Array | None:
        """Return a constant argument in double precision; None if there is none."""
        found = self.arguments.get(key)
        if depends(found):
            raise ValueError(f"{self.kind} must have a constant {key!r}, got one that depends on the input")
        return None if found is None else as_array(found)

    def operand(self, key: str) -> Operand:
        """Return an argument, in double precision if it is constant."""
        found = self.arguments[key]
        return found if isinstance(found, Value) else as_array(found)

    def number(self, key: str, default: float = 1.0) -> float:
        """Return an argument that is a number; `default` if there is none."""
        found = self.arguments.get(key)
        return default if found is None else float(found)

    def run(self, changed: Mapping[str, Any]) -> Any:
        """Let PyTorch run the operation, with some arguments replaced."""
        return run(self.op, {**self.arguments, **changed})

    def result_shape(self) -> Shape:
        """Return the shape of the (first) result, which PyTorch computes from shapes alone."""
        torch = load_torch()

        def bare(each: Any) -> Any:
            if isinstance(each, (Value, torch.Tensor)):
                return torch.empty(tuple(each.shape), dtype=torch.float64, device="meta")
            return each

        result = run(self.op, transformed(dict(self.arguments), bare))
        return tuple((result[0] if isinstance(result, (list, tuple)) else result).shape)

    def reshaped(self, x: Operand, shape: Shape) -> Operand:
        """Add a stage that gives an array another shape."""
        return self.moved(x, "Reshape", lambda places: places.reshape(shape))

    def moved(self, x: Operand, op: str, function: Callable[[Any], Any]) -> Operand:
        """Add a stage that moves the numbers of one array."""
        return self.builder.move(f"{self.name}/{op.lower()}", op, function, [x])


def as_array(constant: Any) -> Array:
    """Return a tensor of PyTorch, or a number, as an array in double precision."""
    torch = load_torch()
    if isinstance(constant, torch.Tensor):
        if constant.is_complex():
            raise ValueError(f"constants must be real, got dtype {constant.dtype}")
        constant = constant.detach().to("cpu", torch.float64).numpy()
    return np.asarray(constant, np.float64)


def as_tensor(found: Any) -> Any:
    """Return a number as a tensor of PyTorch, and all else as it is."""
    return load_torch().tensor(found) if isinstance(found, (int, float)) else found


def run(op: Any, arguments: Mapping[str, Any]) -> Any:
    """Let PyTorch run an operation with arguments by the names in its schema."""
    positional, named = [], {}
    for each in op._schema.arguments:
        if each.name not in arguments:
            continue
        if each.kwarg_only:
            named[each.name] = arguments[each.name]
        else:
            positional.append(arguments[each.name])
    return op(*positional, **named)
