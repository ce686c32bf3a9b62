"""The transforms of the engines `winograd`, as vector instructions: a vector has one element of each of some tiles.

A tile has `edge` rows and columns of results, and two more of sources; the module `matrices` has the numbers. Imports numba;
import it late.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from convmat.engines._compiled.simd import VECTOR_BYTES, Code, literal_intrinsic, types
from convmat.engines._winograd.matrices import POINTS

_I32 = ir.IntType(32)


@literal_intrinsic
def transform_source(
    typing: Any, like: Any, edge: Any, masked: Any, source: Any, row_bytes: Any, top: Any, bottom: Any, left: Any,
    right: Any, target: Any, distance: Any, ahead: Any,
) -> Any:  # fmt: skip
    """Transform one vector of neighbouring tiles, each `edge` columns after the one before: Bᵀ d B.

    Parameters
    ----------
    like : array
        Of the dtype.
    edge : literal int
        Rows and columns of results of a tile; of sources it has two more.
    masked : literal int
        1 where some of what the tiles cover is padding.
    source : int
        Address of the first tile's first element, wherever that is.
    row_bytes : int
        Distance of rows.
    top, bottom, left, right : int
        Which rows and columns, counted from there, are no padding; the rest is not touched. Only if `masked`.
    target, distance : int
        Address of the first of the vectors, and the bytes from one to the next.
    ahead : int
        How many bytes later what is needed soon begins.
    """
    m, is_masked = edge.literal_value, masked.literal_value == 1

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(builder, like.dtype.bitwidth // 8)
        source, row_bytes, *inside, target, distance, ahead = arguments[3:]
        for i in range(1, m + 1):  # the others are of tiles above and below too
            row = builder.add(ahead, builder.add(source, builder.mul(row_bytes, ir.Constant(row_bytes.type, i))))
            for j in range(m * VECTOR_BYTES // 64):
                code.prefetch(row, 64 * j)
        top, bottom, left, right = (builder.trunc(n, _I32) for n in inside)
        # The last vector ends with the last tile's last two columns.
        starts = [*range(0, m * code.lanes, code.lanes), (m - 1) * code.lanes + 2]
        columns = [
            code.mask(*(builder.sub(n, ir.Constant(_I32, start)) for n in (left, right)))
            for start in (starts if is_masked else ())
        ]
        tile = []
        for i in range(m + 2):
            row = builder.add(source, builder.mul(row_bytes, ir.Constant(row_bytes.type, i)))
            if is_masked:
                number = ir.Constant(_I32, i)
                used = builder.and_(builder.icmp_signed("<=", top, number), builder.icmp_signed("<", number, bottom))
                none = ir.Constant(columns[0].type, [0] * code.lanes)
                *values, end = [
                    code.load_masked(builder.select(used, mask, none), row, start * code.itemsize)
                    for mask, start in zip(columns, starts, strict=True)
                ]
            else:
                *values, end = [code.load(row, start * code.itemsize) for start in starts]
            of_tiles = _part(code, values)
            # A tile's last two columns are the first two of the next one.
            for j in (0, 1):
                next_ones = [*range(1, code.lanes), 2 * code.lanes - 2 + j]
                of_tiles.append(code.shuffle(of_tiles[j], end, next_ones))
            tile.append(_source_step(code, of_tiles))
        for j in range(m + 2):
            for i, value in enumerate(_source_step(code, [row[j] for row in tile])):
                code.store(value, target, builder.mul(distance, ir.Constant(distance.type, (m + 2) * i + j)))
        return context.get_dummy_value()

    return types.void(like, edge, masked, *(types.intp,) * 9), generate


@literal_intrinsic
def transform_result(
    typing: Any, like: Any, edge: Any, masked: Any, source: Any, distance: Any, target: Any, row_bytes: Any,
    rows: Any, columns: Any, ahead: Any,
) -> Any:  # fmt: skip
    """Transform one vector of tiles back into rows of neighbouring results: Aᵀ m A.

    Parameters
    ----------
    like : array
        Of the dtype.
    edge : literal int
        Rows and columns of results of a tile.
    masked : literal int
        1 where some of the results do not exist.
    source, distance : int
        Address of the first of the vectors, and the bytes from one to the next.
    target : int
        Address of the first result.
    row_bytes : int
        Distance of rows.
    rows, columns : int
        How many there are; the rest is not touched. Only if `masked`.
    ahead : int
        How many bytes later what is written soon begins.
    """
    m, is_masked = edge.literal_value, masked.literal_value == 1

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(builder, like.dtype.bitwidth // 8)
        source, distance, target, row_bytes, rows, columns, ahead = arguments[3:]
        half = []
        for j in range(m + 2):
            places = [builder.mul(distance, ir.Constant(distance.type, (m + 2) * i + j)) for i in range(m + 2)]
            half.append(_result_step(code, [code.load(source, place) for place in places]))
        rows, columns = (builder.trunc(n, _I32) for n in (rows, columns))
        for i in range(m):
            row = builder.add(target, builder.mul(row_bytes, ir.Constant(row_bytes.type, i)))
            last = builder.select(builder.icmp_signed("<", ir.Constant(_I32, i), rows), columns, ir.Constant(_I32, 0))
            for j in range(m * VECTOR_BYTES // 64):
                code.prefetch(builder.add(row, ahead), 64 * j, write=True)
            of_tiles = _result_step(code, [column[i] for column in half])
            for start, value in zip(range(0, m * code.lanes, code.lanes), _join(code, of_tiles), strict=True):
                if is_masked:
                    mask = code.mask(ir.Constant(_I32, 0), builder.sub(last, ir.Constant(_I32, start)))
                    code.store_masked(mask, value, row, start * code.itemsize)
                else:
                    code.store(value, row, start * code.itemsize)
        return context.get_dummy_value()

    return types.void(like, edge, masked, *(types.intp,) * 7), generate


def _part(code: Code, values: list[Any]) -> list[Any]:
    """Return vectors of every n-th element of n vectors that follow one another: from the first on, the second, …."""
    if len(values) == 1:
        return values
    pairs = list(zip(values[::2], values[1::2], strict=True))
    even, odd = (
        _part(code, [code.shuffle(a, b, range(first, 2 * code.lanes, 2)) for a, b in pairs]) for first in (0, 1)
    )
    return [value for pair in zip(even, odd, strict=True) for value in pair]


def _join(code: Code, values: list[Any]) -> list[Any]:
    """Undo `_part`."""
    if len(values) == 1:
        return values
    mixed = [lane for pair in zip(range(code.lanes), range(code.lanes, 2 * code.lanes), strict=True) for lane in pair]
    joined = []
    for even, odd in zip(_join(code, values[::2]), _join(code, values[1::2]), strict=True):
        joined += [code.shuffle(even, odd, lanes) for lanes in (mixed[: code.lanes], mixed[code.lanes :])]
    return joined


def _source_step(code: Code, d: list[Any]) -> list[Any]:
    """Return Bᵀ d of four or six vectors."""
    add, subtract = code.builder.fadd, code.builder.fsub
    if len(d) == 4:
        return [subtract(d[0], d[2]), add(d[1], d[2]), subtract(d[2], d[1]), subtract(d[1], d[3])]
    a, b = POINTS
    product, total = (a * b) ** 2, a**2 + b**2

    def pair(point: float, other: float) -> tuple[Any, Any]:
        even = code.add_multiple(d[4], -(other**2), d[2])
        odd = code.add_multiple(d[3], -(other**2), d[1])
        return code.add_multiple(even, point, odd), code.add_multiple(even, -point, odd)

    return [
        code.add_multiple(code.add_multiple(d[4], -total, d[2]), product, d[0]),
        *pair(a, b),
        *pair(b, a),
        code.add_multiple(code.add_multiple(d[5], -total, d[3]), product, d[1]),
    ]


def _result_step(code: Code, m: list[Any]) -> list[Any]:
    """Return Aᵀ m of four or six vectors."""
    add, subtract = code.builder.fadd, code.builder.fsub
    if len(m) == 4:
        return [add(add(m[0], m[1]), m[2]), subtract(subtract(m[1], m[2]), m[3])]
    a, b = POINTS
    even_a, odd_a, even_b, odd_b = add(m[1], m[2]), subtract(m[1], m[2]), add(m[3], m[4]), subtract(m[3], m[4])

    def both(power: int, of_a: Any, of_b: Any) -> Any:
        return code.add_multiple(code.multiple(a**power, of_a), b**power, of_b)

    return [
        add(m[0], add(even_a, even_b)),
        both(1, odd_a, odd_b),
        both(2, even_a, even_b),
        add(both(3, odd_a, odd_b), m[5]),
    ]
