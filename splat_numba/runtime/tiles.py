"""Tiles of vectors held in registers, as tuples: one statement of generated text for a dozen instructions.

A *register tile* is a tuple of rows * 2 vectors, row after row: rows scalars by two vectors of lanes. A *square* is a
tuple of as many vectors as each has lanes. Fewer statements compile faster: Numba's front end costs about 5 ms each.
Arguments called ``like`` give a type only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from splat_numba.runtime.simd import INT64, Vector, vector_type
from splat_numba.runtime.vectors import call_llvm, splat_scalar

VECTORS = 2  # of a register tile's row


def _parts(builder: Any, value: Any, count: int) -> list[Any]:
    return [builder.extract_value(value, i) for i in range(count)]


def _load(builder: Any, pointer: Any, vector: Vector) -> Any:
    value = builder.load(builder.bitcast(pointer, vector_type(vector).as_pointer()))
    value.align = vector.scalar.bitwidth // 8
    return value


def _store(builder: Any, value: Any, pointer: Any, vector: Vector) -> None:
    instruction = builder.store(value, builder.bitcast(pointer, value.type.as_pointer()))
    instruction.align = vector.scalar.bitwidth // 8


def _behind(builder: Any, pointer: Any, step: Any, times: int, more: int = 0) -> Any:
    """Pointer + step * times + more."""
    place = builder.add(builder.mul(step, INT64(times)), INT64(more))
    return builder.gep(pointer, [place])


def _row(builder: Any, rows: Any, lane: Any, more: int) -> Any:
    return builder.load(builder.gep(rows, [builder.add(lane, INT64(more))]))


@intrinsic
def multiply_add(typingctx: Any, tile: Any, left: Any, left_step: Any, right: Any) -> Any:
    """Register tile plus the outer product of the scalars left[row * left_step] and the lanes at ``right``."""
    vector, count = tile.dtype, tile.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, left, left_step, right = args
        lanes = [_load(builder, builder.gep(right, [INT64(v * vector.width)]), vector) for v in range(VECTORS)]
        parts = _parts(builder, value, count)
        for row in range(count // VECTORS):
            scalar = splat_scalar(builder, builder.load(_behind(builder, left, left_step, row)), vector_type(vector))
            for v in range(VECTORS):
                at = row * VECTORS + v
                parts[at] = call_llvm(builder, "fmuladd", vector, [scalar, lanes[v], parts[at]])
        return context.make_tuple(builder, sig.return_type, parts)

    pointer = types.CPointer(vector.scalar)
    return tile(tile, pointer, types.int64, pointer), codegen


@intrinsic
def load_scaled(typingctx: Any, like: Any, source: Any, step: Any, factor: Any) -> Any:
    """The register tile at ``source``, rows ``step`` apart, every row times the lanes at ``factor``."""
    vector, count = like.dtype, like.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, source, step, factor = args
        factors = [_load(builder, builder.gep(factor, [INT64(v * vector.width)]), vector) for v in range(VECTORS)]
        places = [(row, v) for row in range(count // VECTORS) for v in range(VECTORS)]
        pointers = [_behind(builder, source, step, row, v * vector.width) for row, v in places]
        parts = [
            builder.fmul(_load(builder, pointer, vector), factors[v])
            for pointer, (_, v) in zip(pointers, places, strict=True)
        ]
        return context.make_tuple(builder, sig.return_type, parts)

    pointer = types.CPointer(vector.scalar)
    return like(like, pointer, types.int64, pointer), codegen


def _put_each(tile: Any, put: Callable[[Any, Any, Any, Vector], None]) -> tuple[Any, Callable[..., Any]]:
    """Of an intrinsic: every vector of a register tile is put to its place at ``target``, rows ``step`` apart."""
    vector, count = tile.dtype, tile.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        for at, part in enumerate(_parts(builder, args[0], count)):
            row, v = divmod(at, VECTORS)
            put(builder, part, _behind(builder, args[1], args[2], row, v * vector.width), vector)
        return context.get_dummy_value()

    return types.void(tile, types.CPointer(vector.scalar), types.int64), codegen


@intrinsic
def store_tile(typingctx: Any, tile: Any, target: Any, step: Any) -> Any:
    """Write a register tile to ``target``, rows ``step`` apart."""
    return _put_each(tile, _store)


def _add(builder: Any, part: Any, pointer: Any, vector: Vector) -> None:
    """Pointer's numbers += part."""
    _store(builder, builder.fadd(_load(builder, pointer, vector), part), pointer, vector)


@intrinsic
def add_tile(typingctx: Any, tile: Any, target: Any, step: Any) -> Any:
    """Add a register tile to what is at ``target``, rows ``step`` apart."""
    return _put_each(tile, _add)


@intrinsic
def add_listed(typingctx: Any, tile: Any, target: Any, step: Any, rows: Any) -> Any:
    """Add row i of a register tile to what is at ``target[rows[i] * step]``, one row after the other."""
    vector, count = tile.dtype, tile.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, target, step, rows = args
        for at, part in enumerate(_parts(builder, value, count)):
            row, v = divmod(at, VECTORS)
            place = builder.mul(_row(builder, rows, INT64(0), row), step)
            _add(builder, part, builder.gep(target, [builder.add(place, INT64(v * vector.width))]), vector)
        return context.get_dummy_value()

    return types.void(tile, types.CPointer(vector.scalar), types.int64, types.CPointer(types.int64)), codegen


@intrinsic
def gather_rows(typingctx: Any, like: Any, source: Any, row_stride: Any, rows: Any, lane: Any) -> Any:
    """Square whose vector i begins at source[rows[lane + i] * row_stride]; negative rows read as rows[0]."""
    vector, count = like.dtype, like.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, source, row_stride, rows, lane = args
        first = builder.load(rows)
        parts = []
        for i in range(count):
            row = _row(builder, rows, lane, i)
            row = builder.select(builder.icmp_signed("<", row, INT64(0)), first, row)
            parts.append(_load(builder, builder.gep(source, [builder.mul(row, row_stride)]), vector))
        return context.make_tuple(builder, sig.return_type, parts)

    pointer, integers = types.CPointer(vector.scalar), types.CPointer(types.int64)
    return like(like, pointer, types.int64, integers, types.int64), codegen


@intrinsic
def scatter_rows(typingctx: Any, square: Any, target: Any, row_stride: Any, rows: Any, lane: Any) -> Any:
    """Write vector i to target[rows[lane + i] * row_stride]; nothing where the row is negative."""
    vector, count = square.dtype, square.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, target, row_stride, rows, lane = args
        for i, part in enumerate(_parts(builder, value, count)):
            row = _row(builder, rows, lane, i)
            with builder.if_then(builder.icmp_signed(">=", row, INT64(0))):
                _store(builder, part, builder.gep(target, [builder.mul(row, row_stride)]), vector)
        return context.get_dummy_value()

    pointer, integers = types.CPointer(vector.scalar), types.CPointer(types.int64)
    return types.void(square, pointer, types.int64, integers, types.int64), codegen


@intrinsic
def load_each(typingctx: Any, like: Any, source: Any, step: Any) -> Any:
    """Square whose vectors lie at ``source``, ``step`` apart."""
    vector, count = like.dtype, like.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = [_load(builder, _behind(builder, args[1], args[2], i), vector) for i in range(count)]
        return context.make_tuple(builder, sig.return_type, parts)

    return like(like, types.CPointer(vector.scalar), types.int64), codegen


@intrinsic
def store_each(typingctx: Any, square: Any, target: Any, step: Any) -> Any:
    """Write the vectors of a square to ``target``, ``step`` apart."""
    vector, count = square.dtype, square.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        for i, part in enumerate(_parts(builder, args[0], count)):
            _store(builder, part, _behind(builder, args[1], args[2], i), vector)
        return context.get_dummy_value()

    return types.void(square, types.CPointer(vector.scalar), types.int64), codegen


@intrinsic
def times(typingctx: Any, square: Any, factor: Any) -> Any:
    """Every vector of a square times the vector ``factor``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = [builder.fmul(part, args[1]) for part in _parts(builder, args[0], square.count)]
        return context.make_tuple(builder, sig.return_type, parts)

    return square(square, square.dtype), codegen


@intrinsic
def times_or_zero(typingctx: Any, square: Any, factor: Any) -> Any:
    """As times, but exactly 0 in lanes where ``factor`` is 0, whatever the square holds (0 x NaN is NaN)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zero = ir.Constant(vector_type(square.dtype), [0.0] * square.dtype.width)
        nothing = builder.fcmp_ordered("==", args[1], zero)
        parts = _parts(builder, args[0], square.count)
        chosen = [builder.select(nothing, zero, builder.fmul(part, args[1])) for part in parts]
        return context.make_tuple(builder, sig.return_type, chosen)

    return square(square, square.dtype), codegen
