"""Vector instructions for compiled loops: numba intrinsics that emit LLVM vector code, and what the processor has.

numba vectorises simple loops by itself, but keeps the accumulators of a matrix product in memory. The intrinsics here put
them into registers. Each is specialised by literal integers and captures nothing, so that functions which call it can be
cached on the disk. Addresses are plain integers, in bytes: nothing here checks them.

This module imports numba; import it late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, cast

import numba
from llvmlite import ir
from numba.core.registry import cpu_target

from convmat.engines._sums import DOUBLE, SINGLE

# numba's own annotations describe functions before they are compiled, not what they are to those who call them.
types: Any = numba.types
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
intrinsic: Decorator = cast(Any, numba.extending).intrinsic
literal_intrinsic: Decorator = cast(Any, numba.extending).intrinsic(prefer_literal=True)
literally: Any = cast(Any, numba).literally
compiled: Decorator = cast(Any, numba).njit(nogil=True, error_model="numpy")
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _vector_unit() -> tuple[int, int]:
    """Return the bytes of a vector register and the number of them, for the processor that numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    enabled = set(features.split(","))
    if "+avx512f" in enabled:
        return 64, 32
    if "+avx2" in enabled and "+fma" in enabled:
        return 32, 16
    return 16, 32 if triple.startswith(("aarch64", "arm64")) else 16


# Constants, also in compiled code: numba keeps what it compiled by processor and features.
VECTOR_BYTES, REGISTERS = _vector_unit()


class Code:
    """Emits LLVM code for vectors of float32 or float64 elements, by their size in bytes."""

    def __init__(self, builder: Any, itemsize: int) -> None:
        self.builder, self.itemsize, self.lanes = builder, itemsize, VECTOR_BYTES // itemsize
        self.element = ir.FloatType() if itemsize == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.element, self.lanes)

    def at(self, address: Any, offset: Any, kind: Any) -> Any:
        """Return the pointer to `offset` bytes after an address."""
        offset = ir.Constant(_I64, offset) if isinstance(offset, int) else offset
        return self.builder.inttoptr(self.builder.add(address, offset), kind.as_pointer())

    def load(self, address: Any, offset: Any = 0) -> Any:
        """Load a vector; no alignment beyond that of its elements is assumed."""
        return self.builder.load(self.at(address, offset, self.vector), align=self.itemsize)

    def store(self, value: Any, address: Any, offset: Any = 0) -> None:
        """Store a vector."""
        self.builder.store(value, self.at(address, offset, self.vector), align=self.itemsize)

    def mask(self, low: Any, high: Any) -> Any:
        """Return which lanes are at least `low` and below `high`, which are int32."""
        splat = ir.Constant(ir.VectorType(_I32, self.lanes), ir.Undefined)
        lanes = ir.Constant(splat.type, list(range(self.lanes)))
        low, high = (
            self.shuffle(self.builder.insert_element(splat, n, ir.Constant(_I32, 0)), splat, [0] * self.lanes)
            for n in (low, high)
        )
        return self.builder.and_(self.builder.icmp_signed("<=", low, lanes), self.builder.icmp_signed("<", lanes, high))

    def load_masked(self, mask: Any, address: Any, offset: Any = 0) -> Any:
        """Load the lanes of a mask, and zeros in the others, whose memory is not touched."""
        pointer = self.at(address, offset, self.vector)
        kind = ir.FunctionType(self.vector, (pointer.type, _I32, mask.type, self.vector))
        return self.builder.call(
            self._masked("load", kind), (pointer, ir.Constant(_I32, self.itemsize), mask, self.zero())
        )

    def store_masked(self, mask: Any, value: Any, address: Any, offset: Any = 0) -> None:
        """Store the lanes of a mask; the memory of the others is not touched."""
        pointer = self.at(address, offset, self.vector)
        kind = ir.FunctionType(ir.VoidType(), (self.vector, pointer.type, _I32, mask.type))
        self.builder.call(self._masked("store", kind), (value, pointer, ir.Constant(_I32, self.itemsize), mask))

    def prefetch(self, address: Any, offset: Any = 0, write: bool = False) -> None:
        """Begin to load what will be read or written soon; any address will do."""
        pointer = self.at(address, offset, ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), (pointer.type, _I32, _I32, _I32))
        function = cast(Any, numba).core.cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(function, (pointer, *(ir.Constant(_I32, n) for n in (int(write), 3, 1))))

    def _masked(self, verb: str, kind: Any) -> Any:
        """Return LLVM's own function."""
        name = f"llvm.masked.{verb}.v{self.lanes}f{8 * self.itemsize}.p0"
        return cast(Any, numba).core.cgutils.get_or_insert_function(self.builder.module, kind, name)

    def zero(self) -> Any:
        """Return a vector of zeros."""
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def broadcast(self, address: Any, offset: Any = 0) -> Any:
        """Load one element into all lanes."""
        value = self.builder.load(self.at(address, offset, self.element), align=self.itemsize)
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(_I32, 0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def shuffle(self, a: Any, b: Any, lanes: Iterable[int]) -> Any:
        """Return a vector of the given lanes of a, then b."""
        lanes = list(lanes)
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))

    def add_product(self, total: Any, a: Any, b: Any) -> Any:
        """Return total + a·b, fused where the processor can."""
        return self.builder.fadd(total, self.builder.fmul(a, b, flags=("contract",)), flags=("contract",))

    def multiple(self, factor: float, a: Any) -> Any:
        """Return a vector times a number."""
        return self.builder.fmul(ir.Constant(self.vector, [factor] * self.lanes), a)

    def add_multiple(self, total: Any, factor: float, a: Any) -> Any:
        """Return total + factor·a, fused where the processor can."""
        return self.add_product(total, ir.Constant(self.vector, [factor] * self.lanes), a)

    def phis(self, tile: Any) -> Any:
        """Return a tile of vectors of which each depends on where control comes from."""
        return [[self.builder.phi(self.vector) for _ in row] for row in tile]

    def join(self, phis: Any, *incoming: tuple[Any, Any]) -> None:
        """Say which tile it is, for each block that control comes from."""
        for tile, block in incoming:
            for row, values in zip(phis, tile, strict=True):
                for phi, value in zip(row, values, strict=True):
                    phi.add_incoming(value, block)


def row_spans(rows: int, banded: int) -> list[tuple[int, int]]:
    """Return the ranges of a tile's rows that take part in its products, one after the other."""
    if not banded:
        return [(0, rows)]
    return [(0, i) for i in range(1, rows + 1)] + [(i, rows) for i in range(1, rows)]


@literal_intrinsic
def tile_product(
    typing: Any, itemsize: Any, rows: Any, vectors: Any, banded: Any,
    a: Any, b: Any, offsets: Any, counts: Any, c: Any, row_bytes: Any,
) -> Any:  # fmt: skip
    """Compute a tile of a matrix product in registers: c[i] = Σ_k a[k, i] · b[offsets[k] :].

    A tile has `rows` rows of `vectors` vectors. Where it is `banded`, a row takes part in some of the products only: those
    of the first count are with row 0, of the second with rows 0 and 1, …, then with all rows, then with all but row 0,
    …, and at last with the last row.

    A sum of many terms is a sum of sums of as many terms as `most_terms` says, and one more for each further span of rows
    at most: its rounding error then grows far slower than their number. What is emitted is, with `sums` in registers::

        many = the counts together exceed most
        if many: c[:] = 0
        sums[:] = 0; k = 0; limit = most
        for each span of rows, and its count:
            end = k + count
            while k < end:
                do:
                    sums[i] += a[k, i] · b[offsets[k] :] for each row i of the span
                    k += 1
                while k < min(limit, end)
                if k < end:
                    c[:] += sums; sums[:] = 0; limit = k + most
        if many: c[:] += sums, else: c[:] = sums

    Parameters
    ----------
    itemsize, rows, vectors, banded : literal int
        Bytes of an element; size of the tile; 0 or 1.
    a : int
        Address of the factors, `rows` for each k.
    b : int
        Address to which `offsets` are relative.
    offsets : int
        Address of the int64 offsets, in bytes.
    counts : int
        Address of the int64 numbers of products: 2·rows − 1 where banded, else one.
    c : int
        Address of the result, which is overwritten. No other thread may write to it where the
        counts together exceed the terms of a sum.
    row_bytes : int
        Distance of its rows in bytes.
    """
    itemsize_, rows_, vectors_, banded_ = (n.literal_value for n in (itemsize, rows, vectors, banded))
    spans = row_spans(rows_, banded_)
    terms = ir.Constant(_I64, SINGLE if itemsize_ == 4 else DOUBLE)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(builder, itemsize_)
        a, b, offsets, counts, c, row_bytes = arguments[4:]
        zeros = [[code.zero()] * vectors_ for _ in range(rows_)]

        def write(tile: Any, add: bool) -> None:
            for i, row in enumerate(tile):
                start = builder.add(c, builder.mul(row_bytes, ir.Constant(_I64, i)))
                for j, value in enumerate(row):
                    total = builder.fadd(code.load(start, j * VECTOR_BYTES), value) if add else value
                    code.store(total, start, j * VECTOR_BYTES)

        numbers = [builder.load(code.at(counts, 8 * n, _I64)) for n in range(len(spans))]
        many = builder.icmp_signed(">", reduce(builder.add, numbers), terms)
        with builder.if_then(many, likely=False):
            write(zeros, add=False)
        tile, k, limit = zeros, ir.Constant(_I64, 0), terms
        for (first, last), number in zip(spans, numbers, strict=True):
            end = builder.add(k, number)
            before = builder.basic_block
            block, loop, done, flush, after = (builder.append_basic_block() for _ in range(5))
            builder.cbranch(builder.icmp_signed("<", k, end), block, after)

            builder.position_at_end(block)
            begin, most, sums = builder.phi(_I64), builder.phi(_I64), code.phis(tile)
            stop = builder.select(builder.icmp_signed("<", most, end), most, end)
            builder.branch(loop)

            builder.position_at_end(loop)
            step, entry = builder.phi(_I64), code.phis(tile)
            source = builder.add(b, builder.load(code.at(offsets, builder.shl(step, ir.Constant(_I64, 3)), _I64)))
            values = [code.load(source, j * VECTOR_BYTES) for j in range(vectors_)]
            factors = builder.add(a, builder.mul(step, ir.Constant(_I64, rows_ * code.itemsize)))
            result = [list(row) for row in entry]
            for i in range(first, last):
                factor = code.broadcast(factors, i * code.itemsize)
                result[i] = [code.add_product(result[i][j], factor, values[j]) for j in range(vectors_)]
            following = builder.add(step, ir.Constant(_I64, 1))
            builder.cbranch(builder.icmp_signed("<", following, stop), loop, done)
            step.add_incoming(begin, block)
            step.add_incoming(following, loop)
            code.join(entry, (sums, block), (result, loop))

            builder.position_at_end(done)
            builder.cbranch(builder.icmp_signed("<", following, end), flush, after)
            builder.position_at_end(flush)
            write(result, add=True)
            further = builder.add(following, terms)
            builder.branch(block)
            begin.add_incoming(k, before)
            begin.add_incoming(following, flush)
            most.add_incoming(limit, before)
            most.add_incoming(further, flush)
            code.join(sums, (tile, before), (zeros, flush))

            builder.position_at_end(after)
            joined, left = code.phis(tile), builder.phi(_I64)
            code.join(joined, (tile, before), (result, done))
            left.add_incoming(limit, before)
            left.add_incoming(most, done)
            tile, k, limit = joined, end, left
        with builder.if_else(many, likely=False) as (then, otherwise):
            with then:
                write(tile, add=True)
            with otherwise:
                write(tile, add=False)
        return context.get_dummy_value()

    return types.void(itemsize, rows, vectors, banded, *(types.intp,) * 6), generate


def define_tile(itemsize: int, rows: int, vectors: int, banded: int) -> Callable[..., None]:
    """Return `tile_product` of one shape, to be compiled; only integers are captured, or it could not be cached."""

    def tile(a: int, b: int, offsets: int, counts: int, c: int, row_bytes: int) -> None:
        tile_product(itemsize, rows, vectors, banded, a, b, offsets, counts, c, row_bytes)

    return tile


@intrinsic
def call_tile(typing: Any, tile: Any, a: Any, b: Any, offsets: Any, counts: Any, c: Any, row_bytes: Any) -> Any:
    """Call a compiled tile by its address, so that loops over tiles need not be compiled for each shape."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), (_I64,) * 6)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 7), generate


@intrinsic
def copy(typing: Any, target: Any, source: Any, size: Any) -> Any:
    """Copy `size` bytes between addresses that do not overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        target, source, size = arguments
        cast(Any, numba).core.cgutils.raw_memcpy(
            builder, builder.inttoptr(target, byte), builder.inttoptr(source, byte), size, 1
        )
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def move(typing: Any, like: Any, target: Any, source: Any) -> Any:
    """Copy one vector between addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, (_, target, source) = Code(builder, like.dtype.bitwidth // 8), arguments
        code.store(code.load(source), target)
        return context.get_dummy_value()

    return types.void(like, types.intp, types.intp), generate


@intrinsic
def move_alternate(typing: Any, like: Any, target: Any, source: Any) -> Any:
    """Copy one vector of every other element from `source`, and read nothing after the last of them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, (_, target, source) = Code(builder, like.dtype.bitwidth // 8), arguments
        low, high = code.load(source), code.load(source, (code.lanes - 1) * code.itemsize)
        lanes = [*range(0, code.lanes, 2), *range(code.lanes + 1, 2 * code.lanes, 2)]
        code.store(code.shuffle(low, high, lanes), target)
        return context.get_dummy_value()

    return types.void(like, types.intp, types.intp), generate


@intrinsic
def clear(typing: Any, like: Any, target: Any) -> Any:
    """Set one vector to zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(builder, like.dtype.bitwidth // 8)
        code.store(code.zero(), arguments[1])
        return context.get_dummy_value()

    return types.void(like, types.intp), generate


@intrinsic
def itemsize(typing: Any, like: Any) -> Any:
    """Return the bytes of an element as a constant, so that divisions by it become shifts."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(_I64, like.dtype.bitwidth // 8)

    return types.intp(like), generate


@intrinsic
def pointer(typing: Any, address: Any, like: Any) -> Any:
    """Return an address as a pointer, for `numba.carray`, to elements of the dtype of the array `like`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.intp, like), generate


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Begin to load an element of an array that will be read soon; any index will do."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        Code(builder, 8).prefetch(builder.ptrtoint(builder.gep(view.data, [arguments[1]]), _I64))
        return context.get_dummy_value()

    return types.void(array, index), generate
