"""Operations of PyTorch that only move numbers: PyTorch runs each itself, on the places of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from convmat.geometry import Array, IntArray
from convmat.networks._builder import Operand
from convmat.networks._maps import Gather
from convmat.networks._stages import Value
from convmat.networks._torch_calls import Call, as_array, as_tensor, depends, load_torch, run, transformed

# Each operation, and the name of its stages.
MOVES = {
    **dict.fromkeys(["view", "reshape", "_unsafe_view", "_reshape_alias", "flatten", "unflatten"], "Reshape"),
    **dict.fromkeys(
        ["view_copy", "_reshape_copy", "squeeze", "unsqueeze", "squeeze_copy", "unsqueeze_copy"], "Reshape"
    ),
    **dict.fromkeys(["permute", "transpose", "t", "movedim", "permute_copy", "transpose_copy", "t_copy"], "Transpose"),
    **dict.fromkeys(["numpy_T", "swapaxes", "swapdims", "moveaxis"], "Transpose"),
    **dict.fromkeys(["expand", "expand_as", "broadcast_to", "expand_copy"], "Expand"),
    **dict.fromkeys(["slice", "slice_copy", "narrow", "narrow_copy"], "Slice"),
    **dict.fromkeys(["select", "select_copy", "index_select", "index", "_unsafe_index", "take"], "Gather"),
    **dict.fromkeys(["gather", "take_along_dim"], "GatherElements"),
    **dict.fromkeys(["split", "split_with_sizes", "chunk", "unbind", "tensor_split", "split_copy"], "Split"),
    **dict.fromkeys(["split_with_sizes_copy", "unbind_copy", "unsafe_split", "unsafe_chunk"], "Split"),
    **dict.fromkeys(["cat", "concat", "stack", "hstack", "vstack", "dstack"], "Concat"),
    **dict.fromkeys(["repeat", "tile", "repeat_interleave"], "Tile"),
    **dict.fromkeys(["flip", "roll", "rot90", "fliplr", "flipud"], "Gather"),
    **dict.fromkeys(["pad", "constant_pad_nd", "_pad_enum", "_pad_circular"], "Pad"),
    **dict.fromkeys([f"{kind}_pad{count}d" for kind in ("reflection", "replication") for count in (1, 2, 3)], "Pad"),
    "pixel_shuffle": "DepthToSpace",
    "pixel_unshuffle": "SpaceToDepth",
    **dict.fromkeys(["channel_shuffle", "native_channel_shuffle"], "ChannelShuffle"),
    **dict.fromkeys(["unfold", "unfold_copy", "im2col", "as_strided", "as_strided_copy"], "Gather"),
    **dict.fromkeys(["diagonal", "diagonal_copy"], "Gather"),
    **dict.fromkeys(["triu", "tril"], "Trilu"),
    **dict.fromkeys(["where", "masked_fill"], "Where"),
    **dict.fromkeys(["copy", "slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter"], "Scatter"),
    **dict.fromkeys(["index_put", "_unsafe_index_put", "scatter", "index_copy", "index_fill"], "Scatter"),
    **dict.fromkeys(["masked_scatter", "masked_select"], "Scatter"),
}
NEAREST = [f"{prefix}{count}d" for prefix in ("upsample_nearest", "_upsample_nearest_exact") for count in (1, 2, 3)]
_PLACES = {"index", "indices", "condition", "mask"}  # arguments that say where, and hold no numbers
_DIGIT = 1 << 20  # places below it are exact in single precision


def move(call: Call) -> Any:
    """Add the stages of an operation that moves numbers: one for each of its results that is used."""
    _check(call)
    torch = load_torch()
    arguments = dict(call.arguments)
    op = call.op
    if call.kind == "where":  # some overloads take numbers
        op = torch.ops.aten.where.self
        arguments |= {key: as_tensor(arguments[key]) for key in ("self", "other")}
    fill = arguments.get("value")
    if isinstance(fill, (int, float)):  # what is put where no number comes from
        arguments["value"] = 0
    operands: list[Operand] = []

    def place(each: Any) -> Any:
        if not isinstance(each, (Value, torch.Tensor)):
            return each
        operands.append(each if isinstance(each, Value) else as_array(each))
        return _Place(len(operands) - 1)

    tree = {key: each if key in _PLACES else transformed(each, place) for key, each in arguments.items()}

    def function(*places: IntArray) -> Any:
        # Zero is nothing's place, as operations put it where there is nothing.
        tensors = [torch.from_numpy(np.asarray(each + 1, np.float64)) for each in places]
        return run(op, transformed(tree, lambda each: tensors[each] if isinstance(each, _Place) else each))

    if not isinstance(fill, (int, float)):
        fill = 0.0
    word = MOVES[call.kind]
    if not str(call.op._schema.returns[0].type).startswith("List"):
        return without_change(
            call, call.builder.move(call.name, word, lambda *p: _sources(function(*p)), operands, fill)
        )
    return {
        number: without_change(
            call,
            call.builder.move(
                f"{call.name}/{number}", word, lambda *p, own=number: _sources(function(*p)[own]), operands, fill
            ),
        )
        for number in sorted(call.wanted)
    }


class _Place(int):
    """The number of an operand, in the place of it."""


def _sources(result: Any) -> Array:
    return np.asarray(result.numpy()).astype(np.int64) - 1


def _check(call: Call) -> None:
    """Refuse places that depend on the input, and sums."""
    for key in _PLACES & set(call.arguments):
        found = call.arguments[key]
        for each in found if isinstance(found, (list, tuple)) and not isinstance(found, Value) else [found]:
            if depends(each):
                raise ValueError(f"{call.kind} must have a constant {key!r}, got one that depends on the input")
    if call.kind == "view" and "dtype" in call.arguments:
        raise ValueError(f"{call.kind} must keep the dtype, got {call['dtype']}")
    if call.get("accumulate") or call.get("reduce") is not None:
        raise ValueError(f"{call.kind} must put numbers in place of others, got one that sums them")


def without_change(call: Call, x: Operand) -> Operand:
    """Return what a stage takes, and forget the stage, if it changes nothing."""
    stages = call.builder.stages
    if isinstance(x, Value) and x.number == len(stages) and stages:
        last = stages[-1]
        is_same = len(last.inputs) == 1 and last.offset is None and last.inputs[0].shape == last.output_shape
        if (
            is_same
            and isinstance(own := last.maps[0], Gather)
            and (own.sources.ravel() == np.arange(own.shape[1])).all()
        ):
            stages.pop()
            return last.inputs[0]
    return x


def resize_nearest(call: Call) -> Operand:
    """Repeat the nearest numbers; which these are depends on the precision, so that it is the module's."""
    torch = load_torch()

    def moved(places: Any) -> Array:
        return np.asarray(call.run({_input(call): places}).numpy()).astype(np.int64)

    def function(places: IntArray) -> Array:
        if call.dtype == np.float64:
            return moved(torch.from_numpy(places.astype(np.float64)))
        high, low = (torch.from_numpy(each.astype(np.float32)) for each in np.divmod(places, _DIGIT))
        return moved(high) * _DIGIT + moved(low)

    return call.builder.move(call.name, "Resize", function, [call.value(_input(call))])


def _input(call: Call) -> str:
    return "self" if "self" in call.arguments else "input"
