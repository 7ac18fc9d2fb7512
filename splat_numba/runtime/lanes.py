"""SIMD for kernels whose lanes run along a row of an array: reads of stored numbers, and sums across lanes.

``runtime.simd`` serves kernels whose lanes are queries; here lanes are numbers of one key, value or packed row, in
whatever type and at whatever stride the array has them. A read never touches memory outside the lanes it was asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from splat_numba.runtime.simd import INT32, Vector, float_type

STORED = {"float16": types.uint16, "bfloat16": types.uint16, "float32": types.float32, "float64": types.float64}


@cache
def reader(dtype: str, width: int, count: int, contiguous: bool) -> Any:
    """``read(pointer, offset, stride)``: a vector of the compute type with ``count`` stored numbers, then zeros.

    The numbers are pointer[(offset + lane) * stride] for lane < count <= width; ``contiguous`` promises stride 1.
    dtype: of the numbers; float16 and bfloat16 are uint16 to Numba, and become float32.
    """
    stored = STORED[dtype]
    scalar = types.float64 if dtype == "float64" else types.float32
    item = ir.IntType(16) if stored is types.uint16 else float_type(scalar)
    some = ir.VectorType(item, count)

    @intrinsic
    def read(typingctx: Any, pointer: Any, offset: Any, stride: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            if contiguous:
                place = builder.gep(args[0], [args[1]])
                raw = builder.load(builder.bitcast(place, some.as_pointer()))
                raw.align = stored.bitwidth // 8
            else:
                raw = ir.Constant(some, ir.Undefined)
                for lane in range(count):
                    shift = builder.mul(builder.add(args[1], ir.Constant(args[1].type, lane)), args[2])
                    raw = builder.insert_element(raw, builder.load(builder.gep(args[0], [shift])), INT32(lane))
            return _converted(builder, _padded(builder, raw, width), dtype)

        return Vector(scalar, width)(types.CPointer(stored), types.int64, types.int64), codegen

    return read


@cache
def part_writer(dtype: str, width: int, first: int, count: int) -> Any:
    """``write(pointer, offset, a)``: lanes first, ..., first + count - 1 of a vector to pointer[offset ...]; of any
    alignment. dtype: float32 or float64.
    """
    scalar = from_dtype(np.dtype(dtype))
    part = ir.VectorType(float_type(scalar), count)

    @intrinsic
    def write(typingctx: Any, pointer: Any, offset: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = builder.bitcast(builder.gep(args[0], [args[1]]), part.as_pointer())
            stored = builder.store(_shuffle(builder, args[2], args[2], list(range(first, first + count))), place)
            stored.align = scalar.bitwidth // 8
            return context.get_dummy_value()

        return types.void(types.CPointer(scalar), types.int64, Vector(scalar, width)), codegen

    return write


@cache
def reductions(dtype: str, width: int) -> tuple[Any, Any, Any]:
    """``(add_lanes, largest_lane, add_each)`` for vectors of ``width`` (a power of two) ``dtype``.

    add_lanes(a): the sum of all lanes. largest_lane(a): the largest; NaN lanes may be passed over.
    add_each((a, b, ...)): for ``width`` vectors, the vector of their sums, with 3 instructions a vector where add_lanes
    takes 2 log2(width).
    """
    scalar = from_dtype(np.dtype(dtype))
    vector = Vector(scalar, width)

    @intrinsic
    def add_lanes(typingctx: Any, a: Any) -> Any:
        return scalar(vector), lambda context, builder, sig, args: _fold(builder, args[0], width, _add)

    @intrinsic
    def largest_lane(typingctx: Any, a: Any) -> Any:
        return scalar(vector), lambda context, builder, sig, args: _fold(builder, args[0], width, _larger)

    @intrinsic
    def add_each(typingctx: Any, vectors: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _add_each(builder, [builder.extract_value(args[0], place) for place in range(width)])

        return vector(types.UniTuple(vector, width)), codegen

    return add_lanes, largest_lane, add_each


def _add(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, len(lanes)), lanes))


def _padded(builder: Any, raw: Any, width: int) -> Any:
    """``raw`` with zeros behind, up to ``width`` lanes."""
    count = raw.type.count
    if count == width:
        return raw
    zeros = ir.Constant(raw.type, None)
    return _shuffle(builder, raw, zeros, [min(lane, count) for lane in range(width)])


def _fold(builder: Any, a: Any, width: int, combine: Any) -> Any:
    """All lanes combined, halves first."""
    while width > 1:
        width //= 2
        low, high = (_shuffle(builder, a, a, list(range(at, at + width))) for at in (0, width))
        a = combine(builder, low, high)
    return builder.extract_element(a, INT32(0))


def _add_each(builder: Any, vectors: list[Any]) -> Any:
    """Sums of as many vectors as each has lanes, in order.

    Halves, quarters, ... of two vectors are exchanged and added, so that each step halves the vectors; what owns a lane
    in the end depends on the order they are taken in, which is worked out first, on numbers.
    """
    width = len(vectors)
    order = list(range(width))
    tree = [[place] for place in order]
    length = width
    while length > 1:
        tree = [
            [owner for pair in zip(a, b, strict=True) for owner in pair] for a, b in zip(*_halves(tree), strict=True)
        ]
        length //= 2
    taken = [vectors[tree[0].index(place)] for place in order]
    length = width
    while length > 1:
        taken = [_exchange_add(builder, a, b, width, length) for a, b in zip(*_halves(taken), strict=True)]
        length //= 2
    return taken[0]


def _halves(items: list[Any]) -> tuple[list[Any], list[Any]]:
    return items[: len(items) // 2], items[len(items) // 2 :]


def _exchange_add(builder: Any, a: Any, b: Any, width: int, length: int) -> Any:
    """Segments of ``length`` lanes become segments of half the length, those of a and of b in turn."""
    half = length // 2
    low = [
        lane
        for start in range(0, width, length)
        for first in (start, width + start)
        for lane in range(first, first + half)
    ]
    high = [lane + half for lane in low]
    return builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high))


def _converted(builder: Any, raw: Any, dtype: str) -> Any:
    """Stored bits as numbers of the compute type, exactly."""
    if dtype not in {"float16", "bfloat16"}:
        return raw
    width = raw.type.count
    words, floats = ir.VectorType(INT32, width), ir.VectorType(ir.FloatType(), width)
    if dtype == "float16" and _converts_float16():
        return builder.fpext(builder.bitcast(raw, ir.VectorType(ir.HalfType(), width)), floats)

    def every(word: int) -> ir.Constant:
        return ir.Constant(words, [word] * width)

    word = builder.zext(raw, words)
    if dtype == "bfloat16":
        return builder.bitcast(builder.shl(word, every(16)), floats)
    # As halves.from_float16: the fields shifted into place and scaled by 2**112; exponent 31 becomes 255.
    shifted = builder.shl(builder.and_(word, every(0x7FFF)), every(13))
    scaled = builder.fmul(builder.bitcast(shifted, floats), ir.Constant(floats, [2.0**112] * width))
    special = builder.icmp_unsigned("==", builder.and_(word, every(0x7C00)), every(0x7C00))
    magnitude = builder.select(special, builder.or_(shifted, every(0x7F800000)), builder.bitcast(scaled, words))
    sign = builder.shl(builder.and_(word, every(0x8000)), every(16))
    return builder.bitcast(builder.or_(magnitude, sign), floats)


@cache
def _converts_float16() -> bool:
    """Whether Numba compiles for an x86 that has F16C; elsewhere LLVM would call a function that may be missing."""
    from llvmlite import binding

    ours = config.CPU_NAME in (None, "host") and not config.CPU_FEATURES
    return bool(ours and dict(binding.get_host_cpu_features()).get("f16c"))
