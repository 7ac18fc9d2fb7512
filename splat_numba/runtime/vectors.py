"""The few operations on vectors that generated attention kernels use; lanes are queries.

Operations on vectors take their type from their operands; ``shaped(dtype, width)`` gives those that make a vector or a
mask from something else. Offsets count elements.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from splat_numba.runtime.simd import INT32, Mask, Vector, vector_type


def _lanes_pointer(builder: Any, pointer: Any, offset: Any, vector: ir.VectorType) -> Any:
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def splat_scalar(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    """Emit a vector whose lanes all hold ``scalar``."""
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, INT32(0))
    lanes = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, undefined, lanes)


def call_llvm(builder: Any, name: str, vector: Vector, args: list[Any]) -> Any:
    """Emit a call of LLVM's intrinsic ``name`` on vectors."""
    lanes = vector_type(vector)
    full_name = f"llvm.{name}.v{vector.width}f{vector.scalar.bitwidth}"
    function_type = ir.FunctionType(lanes, [lanes] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, full_name), args)


@intrinsic
def store(typingctx: Any, pointer: Any, offset: Any, value: Any) -> Any:
    """Write ``value`` to ``pointer[offset : offset + width]``, of any alignment."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        instruction = builder.store(args[2], _lanes_pointer(builder, args[0], args[1], vector_type(value)))
        instruction.align = value.scalar.bitwidth // 8
        return context.get_dummy_value()

    return types.void(types.CPointer(value.scalar), types.int64, value), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, fused where the machine can."""
    return a(a, a, a), lambda context, builder, sig, args: call_llvm(builder, "fmuladd", a, list(args))


@intrinsic
def floor(typingctx: Any, a: Any) -> Any:
    """The largest whole numbers not above ``a``."""
    return a(a), lambda context, builder, sig, args: call_llvm(builder, "floor", a, list(args))


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """``a if a > b else b``: b where either is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, a), codegen


@intrinsic
def select(typingctx: Any, where: Any, a: Any, b: Any) -> Any:
    """``a`` where the mask is set, else ``b``."""
    return a(Mask(a.width), a, a), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def power_of_two(typingctx: Any, exponent: Any) -> Any:
    """2 ** exponent for whole exponents of normal numbers: the bits of the exponent, shifted into place."""
    mantissa_bits, bias = (23, 127) if exponent.scalar.bitwidth == 32 else (52, 1023)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        integers = ir.VectorType(ir.IntType(exponent.scalar.bitwidth), exponent.width)
        whole = builder.fptosi(args[0], integers)
        biased = builder.add(whole, ir.Constant(integers, [bias] * exponent.width))
        shifted = builder.shl(biased, ir.Constant(integers, [mantissa_bits] * exponent.width))
        return builder.bitcast(shifted, vector_type(exponent))

    return exponent(exponent), codegen


@intrinsic
def transpose(typingctx: Any, rows: Any) -> Any:
    """A tuple of as many vectors as each has lanes: rows[i][j] becomes result[j][i].

    log2(width) rounds of shuffles; each swaps the off-diagonal quarters of every square of twice its size.
    """
    width = rows.dtype.width

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [builder.extract_value(args[0], i) for i in range(width)]
        half = width // 2
        while half:
            for i in range(width):
                if not i & half:
                    values[i], values[i + half] = _swap_quarters(builder, values[i], values[i + half], half)
            half //= 2
        return context.make_tuple(builder, sig.return_type, values)

    return rows(rows), codegen


def _swap_quarters(builder: Any, upper: Any, lower: Any, half: int) -> tuple[Any, Any]:
    """Exchange the right part of ``upper`` with the left part of ``lower``, in squares of 2 * half lanes."""
    width = upper.type.count
    words = ir.VectorType(INT32, width)
    left = [lane if not lane & half else width + lane - half for lane in range(width)]
    right = [lane + half if not lane & half else width + lane for lane in range(width)]
    return (
        builder.shuffle_vector(upper, lower, ir.Constant(words, left)),
        builder.shuffle_vector(upper, lower, ir.Constant(words, right)),
    )


@cache
def shaped(dtype: str, width: int) -> tuple[Any, Any, Any, Any]:
    """``(load, splat, inside, bits)`` for vectors of ``width`` ``dtype``, "float32" or "float64"."""
    vector = Vector(from_dtype(np.dtype(dtype)), width)
    return _load(vector), _splat_of(vector), _inside(width), _bits(vector)


def _load(vector: Vector) -> Any:
    @intrinsic
    def load(typingctx: Any, pointer: Any, offset: Any) -> Any:
        """The vector at ``pointer[offset : offset + width]``, of any alignment."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = builder.load(_lanes_pointer(builder, args[0], args[1], vector_type(vector)))
            value.align = vector.scalar.bitwidth // 8
            return value

        return vector(types.CPointer(vector.scalar), types.int64), codegen

    return load


def _splat_of(vector: Vector) -> Any:
    @intrinsic
    def splat(typingctx: Any, value: Any) -> Any:
        """A vector whose lanes all hold the scalar ``value``."""
        return vector(vector.scalar), lambda context, builder, sig, args: splat_scalar(
            builder, args[0], vector_type(vector)
        )

    return splat


def _inside(width: int) -> Any:
    @intrinsic
    def inside(typingctx: Any, low: Any, high: Any, offset: Any, value: Any) -> Any:
        """Mask of the lanes with ``low[offset + lane] <= value < high[offset + lane]`` (int32)."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            words = ir.VectorType(INT32, width)
            low_value, high_value = (builder.load(_lanes_pointer(builder, p, args[2], words)) for p in args[:2])
            low_value.align = high_value.align = 4
            here = splat_scalar(builder, builder.trunc(args[3], INT32), words)
            above = builder.icmp_signed("<=", low_value, here)
            return builder.and_(above, builder.icmp_signed("<", here, high_value))

        pointer = types.CPointer(types.int32)
        return Mask(width)(pointer, pointer, types.int64, types.int64), codegen

    return inside


def _bits(vector: Vector) -> Any:
    @intrinsic
    def bits(typingctx: Any, word: Any, offset: Any) -> Any:
        """Mask of the lanes whose bit ``offset + lane`` is set in the 64-bit ``word``."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            integers = ir.VectorType(ir.IntType(vector.scalar.bitwidth), vector.width)
            here = builder.lshr(args[0], args[1])
            if vector.scalar.bitwidth == 32:  # narrow lanes keep the shifts at the vectors' own width
                here = builder.trunc(here, INT32)
            shifted = builder.lshr(
                splat_scalar(builder, here, integers), ir.Constant(integers, list(range(vector.width)))
            )
            ones = ir.Constant(integers, [1] * vector.width)
            return builder.icmp_unsigned("==", builder.and_(shifted, ones), ones)

        return Mask(vector.width)(types.uint64, types.int64), codegen

    return bits
