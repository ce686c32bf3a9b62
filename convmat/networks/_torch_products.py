"""Products of matrices in PyTorch, and attention, which is two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from convmat.geometry import Array
from convmat.networks._builder import Operand
from convmat.networks._stages import Value
from convmat.networks._torch_calls import Call

_MASKED = -1e9  # of a score whose share is zero: finite, so that a derivative of zero times it is zero


def linear(call: Call) -> Value:
    """Multiply along the last axis."""
    return call.builder.along(call.name, "Gemm", call.value("input"), {-1: call.array("weight")}, call.array("bias"))


def matmul(call: Call) -> Operand:
    """Multiply by a constant matrix, or by one for each of a batch."""
    first = call.operand("self")
    second = call.operand(next(key for key in ("other", "mat2", "vec", "tensor") if key in call.arguments))
    return _product(call, first, second)


def addmm(call: Call) -> Operand:
    """Multiply matrices, and add an array."""
    first, second = call.operand("mat1" if "mat1" in call.arguments else "batch1"), None
    second = call.operand("mat2" if "mat2" in call.arguments else "batch2")
    product = call.builder.scale(f"{call.name}/alpha", _product(call, first, second), np.asarray(call.number("alpha")))
    return call.builder.add(call.name, product, call.operand("self"), call.number("beta"))


def _product(call: Call, first: Operand, second: Operand) -> Operand:
    if isinstance(first, Value) and isinstance(second, Value):
        return call.builder.matmul(call.name, first, second)
    if not isinstance(first, Value) and not isinstance(second, Value):
        return np.asarray(np.matmul(first, second))
    if isinstance(first, Value):
        return _times(call, first, second)  # type: ignore[arg-type]
    if first.ndim == 1:
        first = first[None]
        result = _product(call, first, second)
        shape = (*result.shape[:-2], result.shape[-1]) if len(second.shape) > 1 else result.shape[1:]
        return call.reshaped(result, shape)
    if len(second.shape) == 1:
        product = _times(call, second, first.reshape(-1, first.shape[-1]).T)  # type: ignore[arg-type]
        return call.reshaped(product, first.shape[:-1])
    if first.ndim == 2:
        return call.builder.along(call.name, "MatMul", second, {-2: first})  # type: ignore[arg-type]
    turned = call.moved(second, "Transpose", lambda places: places.swapaxes(-1, -2))
    product = _times(call, turned, first.swapaxes(-1, -2))  # type: ignore[arg-type]
    return call.moved(product, "Transpose", lambda places: places.swapaxes(-1, -2))


def _times(call: Call, x: Value, matrix: Array) -> Operand:
    """Multiply an array by a constant behind it."""
    if matrix.ndim == 1:
        product = call.builder.along(call.name, "MatMul", x, {-1: matrix[None]})
        return call.reshaped(product, product.shape[:-1])
    if matrix.ndim == 2:
        return call.builder.along(call.name, "MatMul", x, {-1: matrix.T})
    if len(x.shape) == 1:
        product = _times(call, call.reshaped(x, (1, *x.shape)), matrix)  # type: ignore[arg-type,assignment]
        return call.reshaped(product, (*product.shape[:-2], product.shape[-1]))
    batch = np.broadcast_shapes(x.shape[:-2], matrix.shape[:-2])
    rows, inner, columns = x.shape[-2], *matrix.shape[-2:]
    wide = call.builder.broadcast(call.name, x, (*batch, rows, inner))
    if all(size == 1 for size in matrix.shape[:-2]):
        return call.builder.along(call.name, "MatMul", wide, {-1: matrix.reshape(inner, columns).T})  # type: ignore[arg-type]
    # A matrix for each of the batch is a convolution with as many groups, of one position.
    kernels = np.broadcast_to(matrix, (*batch, inner, columns)).swapaxes(-1, -2).reshape(-1, inner, 1)
    groups = len(kernels) // columns
    lines = call.moved(
        wide, "Transpose", lambda places: places.reshape(groups, rows, inner).swapaxes(0, 1).reshape(rows, -1, 1)
    )
    result = call.builder.convolve(call.name, lines, kernels, groups=groups)  # type: ignore[arg-type]
    return call.moved(
        result,
        "Transpose",
        lambda places: places.reshape(rows, groups, columns).swapaxes(0, 1).reshape(*batch, rows, columns),
    )


def attention(call: Call) -> Operand:
    """Return softmax(scale·Q·Kᵀ + mask)·V."""
    if call.number("dropout_p", 0.0) or call.get("enable_gqa"):
        raise ValueError(f"{call.kind} must have no dropout and as many keys as queries have heads, got others")
    query, key, value = (call.operand(name) for name in ("query", "key", "value"))
    turned = call.moved(key, "Transpose", lambda places: places.swapaxes(-1, -2))
    scale = call.number("scale", 1 / np.sqrt(query.shape[-1]))
    scores = call.builder.scale(f"{call.name}/scale", query, np.asarray(scale))
    scores = _product(replace(call, name=f"{call.name}/scores"), scores, turned)
    mask = _mask(call, scores.shape[-2:])
    if mask is not None:
        scores = call.builder.shift(f"{call.name}/mask", scores, mask)
    if isinstance(scores, Value):
        shares: Operand = call.builder.softmax(f"{call.name}/softmax", scores, -1)
    else:
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
    return _product(call, shares, value)


def _mask(call: Call, shape: tuple[int, ...]) -> Array | None:
    """Return what is added to scores."""
    if call.get("is_causal"):
        return np.where(np.tri(shape[0], shape[1]) > 0, 0.0, _MASKED)
    given: Any = call.arguments.get("attn_mask")
    mask = call.array("attn_mask")
    if mask is not None and str(given.dtype) == "torch.bool":
        return np.where(mask != 0, 0.0, _MASKED)
    return None if mask is None else np.maximum(mask, _MASKED)


PRODUCTS: dict[str, Callable[[Call], Any]] = {
    "linear": linear,
    **dict.fromkeys(["matmul", "mm", "bmm", "mv", "dot"], matmul),
    **dict.fromkeys(["addmm", "baddbmm"], addmm),
    "scaled_dot_product_attention": attention,
}
