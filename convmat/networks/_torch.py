"""Networks of PyTorch: a module is exported as a graph of ATen operations, and each of these makes stages."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from itertools import pairwise
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from convmat.networks._builder import Builder
from convmat.networks._maps import Gather, Shape
from convmat.networks._network import Network, check_float, without_batch
from convmat.networks._stages import Value
from convmat.networks._torch_calls import as_array, load_torch, source_line


def from_torch(
    module: Any,
    input_shape: Sequence[int],
    *,
    output: int | str | None = None,
    dtype: npt.DTypeLike | None = None,
) -> Network:
    """Return the network that a PyTorch module is.

    The module is exported by ``torch.export`` for one input, in evaluation mode, so that functional code, skips and modules
    of one's own are understood. It is left as it is.

    Parameters
    ----------
    module : Module or ExportedProgram
        A `torch.nn.Module`, or what `torch.export` has made of one. It takes one array of shape `input_shape` behind an
        axis of size 1.
    input_shape : sequence of int
        Shape of one input, without the batch axis.
    output : int or str, optional
        Of several outputs, which one: its index, or its name in a dictionary.
    dtype : dtype, optional
        float32 or float64; by default that of the module, and float32 where that is another one. Constants are computed in
        double precision before they are rounded to it.

    Returns
    -------
    Network
        Its stages have the names of the modules that they are from.

    Raises
    ------
    ModuleNotFoundError
        If PyTorch is not installed.
    TypeError
        If `module` is no module, or `dtype` is another one.
    ValueError
        If the module does not fit the input, takes or returns several arrays, chooses what it computes by the values of its
        input, or has an operation that is not known; that is named, with its place.

    Notes
    -----
    Numbers of one batch must not meet: the network is what the module does with a batch of one.

    Where a derivative jumps it is PyTorch's: that of ReLU at 0 is 0, and the first of equal numbers is the largest of a
    window. ``detach`` and ``torch.no_grad`` change no derivative here.

    Examples
    --------
    >>> from torch import nn  # doctest: +SKIP
    >>> from convmat.networks import from_torch
    >>> from_torch(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (3, 6, 6))  # doctest: +SKIP
    <Network of 2 stages: (3, 6, 6) to (8, 4, 4), float32>
    """
    torch = load_torch()
    from convmat.networks._torch_reader import Reader

    shape = _check_shape(input_shape)
    own = _own_dtype(torch, module, dtype)
    wanted = check_float(dtype) if dtype is not None else np.dtype(np.float64 if own == torch.float64 else np.float32)
    builder = Builder((1, *shape), wanted)
    program = _export(torch, module, (1, *shape), own)
    inputs = _inputs(torch, program, builder.input)
    results = Reader(builder, own).read(program.graph_module, inputs)
    stages, target = builder.needed(_constant_stage(builder, _choose(torch, program, results, output)))
    return Network(stages, builder.input, target, wanted, (shape, without_batch(target.shape)))


def _check_shape(given: Any) -> Shape:
    try:
        shape = tuple(index(size) for size in given)
    except TypeError:
        shape = (-1,)
    if min(shape, default=0) < 0:
        raise ValueError(f"input_shape must be a sequence of sizes without the batch axis, got {given!r}")
    return shape


def _own_dtype(torch: Any, module: Any, dtype: Any) -> Any:
    """Return the dtype of a module's weights; of one that has none, the dtype that is wanted."""
    if isinstance(module, torch.export.ExportedProgram):
        values = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
        numbers = [each for each in values[::-1] if isinstance(each, torch.Tensor)]
    elif isinstance(module, torch.nn.Module):
        numbers = [*module.parameters(), *module.buffers()]
    else:
        raise TypeError(
            f"module must be a torch.nn.Module or a torch.export.ExportedProgram, got {type(module).__name__}"
        )
    own = next((each.dtype for each in numbers if each.is_floating_point()), None)
    if own is not None:
        return own
    return torch.float64 if dtype is not None and check_float(dtype) == np.float64 else torch.float32


def _export(torch: Any, module: Any, shape: Shape, dtype: Any) -> Any:
    """Return the graph of a module, in which operations that are known are whole."""
    from convmat.networks._torch_reader import WHOLE, is_readable

    is_program = isinstance(module, torch.export.ExportedProgram)
    if not is_program:
        _check_signature(module)
    with _quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of PyTorch about itself
        try:
            if not is_program:
                device = next((each.device for each in [*module.parameters(), *module.buffers()]), None)
                example = torch.zeros(shape, dtype=dtype, device=device)
                with _evaluating(module):
                    module = torch.export.export(module, (example,), strict=False)
            if is_readable(module):  # taking nothing to pieces takes a tenth of the time
                return module
            table = torch.export.default_decompositions()
            for op in list(table):
                if op._schema.name.removeprefix("aten::") in WHOLE:
                    table.pop(op)
            return module.run_decompositions(table)
        except Exception as error:
            raise ValueError(_explanation(error, shape)) from error


def _check_signature(module: Any) -> None:
    """Refuse a module that takes several arrays."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return
    names = [each.name for each in parameters if each.kind in kinds and each.default is each.empty]
    if len(names) > 1:
        raise ValueError(f"module must take one array, got one that takes {len(names)}: {', '.join(names)}")


def _explanation(error: Exception, shape: Shape) -> str:
    """Return why PyTorch cannot export a module, in a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if "data-dependent" in str(error) or "DataDependent" in type(error).__name__:
        reason = lines[0].rstrip(".")
        for line, code in pairwise(lines):  # where the module asks for a value
            if line.startswith("File "):
                reason = f"{code} ({source_line(line)})"
        return f"module must compute the same whatever the values of its input are, got control flow: {reason}"
    return f"module must be one that torch.export can trace for an input of shape {shape}, got: {lines[0].rstrip('.')}"


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Set a module to evaluation, and set it back; methods that it may have for that are not called."""
    flags = [(each, each.training) for each in module.modules()]
    try:
        for each, _ in flags:
            each.training = False
        yield
    finally:
        for each, flag in flags:
            each.training = flag


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch from printing what the error says."""
    names = "torch.fx.experimental.symbolic_shapes", "torch._export", "torch.export", "torch._dynamo"
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.CRITICAL + 1)
        with redirect_stderr(StringIO()):  # to which it prints graphs
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _inputs(torch: Any, program: Any, source: Value) -> list[Any]:
    """Return what the placeholders of a graph stand for: the input of the network, and constants."""
    kinds = torch.export.graph_signature.InputKind
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    found: list[Any] = []
    arrays = 0
    for node, spec in zip(nodes, program.graph_signature.input_specs, strict=True):
        if spec.kind == kinds.USER_INPUT:
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor):
                found.append(value)
                continue
            arrays += 1
            sizes = tuple(value.shape)
            fits = len(sizes) == len(source.shape) and all(
                not isinstance(size, int) or size == own for size, own in zip(sizes, source.shape, strict=True)
            )
            if not fits:
                raise ValueError(f"input_shape must be {sizes[1:]}, for which the program is, got {source.shape[1:]}")
            found.append(source)
        else:
            found.append(_stored(program, spec.target))
    if arrays != 1:
        raise ValueError(f"module must take one array, got one that takes {arrays}")
    return found


def _stored(program: Any, name: str | None) -> Any:
    """Return a parameter, buffer or constant of a program."""
    for table in (program.state_dict, program.constants):
        if name in table:
            return table[name]
    return None


def _choose(torch: Any, program: Any, results: Sequence[Any], output: int | str | None) -> Any:
    """Return the output that is asked for."""
    kinds = torch.export.graph_signature.OutputKind
    specs = program.graph_signature.output_specs
    own = [result for result, spec in zip(results, specs, strict=True) if spec.kind == kinds.USER_OUTPUT]
    tree = torch.utils._pytree.tree_unflatten(own, program.call_spec.out_spec)
    leaves = [each for each in own if isinstance(each, (Value, torch.Tensor))]
    if isinstance(tree, (Value, torch.Tensor)) and output in (None, 0):
        return tree
    if output is not None:
        tree = _item(tree, output, len(leaves))
        leaves = [each for each in _leaves(tree) if isinstance(each, (Value, torch.Tensor))]
    if len(leaves) != 1:
        raise ValueError(f"module must return one array, got {len(leaves)}; choose one by output")
    return leaves[0]


def _item(tree: Any, output: int | str, count: int) -> Any:
    """Return an item of what a module returns, by its index or its name."""
    if isinstance(tree, Value):  # which is a tuple, too
        tree = [tree]
    try:
        if isinstance(tree, Mapping):
            return tree[output] if isinstance(output, str) else list(tree.values())[output]
        return getattr(tree, output) if isinstance(output, str) else tree[output]
    except (LookupError, AttributeError, TypeError):
        names = f": {', '.join(map(str, tree))}" if isinstance(tree, Mapping) else ""
        raise ValueError(f"output must be one of the module's {count}{names}, got {output!r}") from None


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)) and not isinstance(tree, Value):
        for each in tree:
            yield from _leaves(each)
    else:
        yield tree


def _constant_stage(builder: Builder, result: Any) -> Value:
    """Return an output as a value of the network, also where it does not depend on the input."""
    if isinstance(result, Value):
        return result
    offset = as_array(result)
    nothing = Gather(np.full(offset.shape, -1, np.int64), builder.input.shape, builder.dtype)
    return builder.affine("constant", "Constant", [builder.input], [nothing], offset)
