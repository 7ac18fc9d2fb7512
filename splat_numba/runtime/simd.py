"""Explicit SIMD for Numba: vectors as values, and the few operations that generated CPU kernels use on them.

Numba compiles scalars and leaves vectors to LLVM's loop vectoriser, which keeps no vector in a register across an outer
loop. Here a vector is a Numba type of its own, lowered to LLVM's ``<width x float>``, so a kernel's accumulators are
plain Python variables that live in registers. On the two-core machine of ``benchmarks/results`` this took the 64 x 64 x 64
product from 67 to 90 GFLOP/s per core, and compiles faster. Any width is legal: LLVM splits what the machine lacks.

``functions(dtype, width)`` gives the operations of one vector type by name; pointers come from ``address``.
"""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array
from numba.np.numpy_support import from_dtype

INT32 = ir.IntType(32)
INT64 = ir.IntType(64)


class Vector(types.Type):
    """``width`` floats in one register (or in several, where the machine's are narrower)."""

    def __init__(self, scalar: types.Float, width: int) -> None:
        self.scalar = scalar
        self.width = width
        super().__init__(name=f"Vector({scalar}, {width})")


class Mask(types.Type):
    """``width`` booleans: the result of comparing vectors."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Mask({width})")


def _float_type(scalar: types.Float) -> ir.Type:
    return ir.FloatType() if scalar.bitwidth == 32 else ir.DoubleType()


def _vector_type(vector: Vector) -> ir.VectorType:
    return ir.VectorType(_float_type(vector.scalar), vector.width)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, _vector_type(fe_type))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Mask) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.width))


def _register_operator(function: Any, method: str, operand: type, result: Any = None) -> None:
    """Let Numba type and lower ``function`` on two equal operands through one IRBuilder method."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], operand) and args[0] == args[1]:
                return signature(result(args[0]) if result else args[0], *args)
            return None

    infer_global(function)(Template)

    @lower_builtin(function, operand, operand)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if method.startswith("fcmp"):
            return builder.fcmp_ordered(method.removeprefix("fcmp"), *args)
        return getattr(builder, method)(*args)


_register_operator(operator.add, "fadd", Vector)
_register_operator(operator.sub, "fsub", Vector)
_register_operator(operator.mul, "fmul", Vector)
_register_operator(operator.truediv, "fdiv", Vector)
_register_operator(operator.gt, "fcmp>", Vector, lambda vector: Mask(vector.width))
_register_operator(operator.eq, "fcmp==", Vector, lambda vector: Mask(vector.width))


@intrinsic
def address(typingctx: Any, array: Any, offset: Any) -> Any:
    """Pointer to ``array.data`` advanced by ``offset`` elements."""
    sig = types.CPointer(array.dtype)(array, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = make_array(sig.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return sig, codegen


@intrinsic
def element(typingctx: Any, pointer: Any, offset: Any) -> Any:
    """The scalar ``pointer[offset]``."""
    sig = pointer.dtype(pointer, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(builder.gep(args[0], [args[1]]))

    return sig, codegen


@intrinsic
def assign(typingctx: Any, pointer: Any, offset: Any, value: Any) -> Any:
    """Write the scalar ``value`` to ``pointer[offset]``."""
    sig = types.void(pointer, types.int64, pointer.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def advance(typingctx: Any, pointer: Any, offset: Any) -> Any:
    """``pointer + offset`` elements."""
    return pointer(pointer, types.int64), lambda context, builder, sig, args: builder.gep(args[0], [args[1]])


def _lanes_pointer(builder: Any, pointer: Any, offset: Any, vector: ir.VectorType) -> Any:
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def _splat(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, INT32(0))
    lanes = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, undefined, lanes)


def _llvm_call(builder: Any, name: str, vector: ir.VectorType, scalar: types.Float, args: list[Any]) -> Any:
    full_name = f"llvm.{name}.v{vector.count}f{scalar.bitwidth}"
    function_type = ir.FunctionType(vector, [vector] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, full_name), args)


@cache
def functions(dtype: str, width: int) -> tuple[Any, ...]:
    """``(load, store, splat, fma, floor, maximum, power_of_two, select, inside, bits)`` for vectors of ``width`` ``dtype``.

    dtype: "float32" or "float64". Offsets count elements. See each function's docstring.
    """
    scalar = from_dtype(np.dtype(dtype))
    vector, mask = Vector(scalar, width), Mask(width)
    lanes = _vector_type(vector)
    integers = ir.VectorType(ir.IntType(scalar.bitwidth), width)
    mantissa_bits, bias = (23, 127) if scalar.bitwidth == 32 else (52, 1023)

    @intrinsic
    def load(typingctx: Any, pointer: Any, offset: Any) -> Any:
        """The vector at ``pointer[offset : offset + width]``, of any alignment."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = builder.load(_lanes_pointer(builder, args[0], args[1], lanes))
            value.align = scalar.bitwidth // 8
            return value

        return vector(types.CPointer(scalar), types.int64), codegen

    @intrinsic
    def store(typingctx: Any, pointer: Any, offset: Any, value: Any) -> Any:
        """Write ``value`` to ``pointer[offset : offset + width]``, of any alignment."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            instruction = builder.store(args[2], _lanes_pointer(builder, args[0], args[1], lanes))
            instruction.align = scalar.bitwidth // 8
            return context.get_dummy_value()

        return types.void(types.CPointer(scalar), types.int64, vector), codegen

    @intrinsic
    def splat(typingctx: Any, value: Any) -> Any:
        """A vector whose lanes all hold the scalar ``value``."""
        return vector(scalar), lambda context, builder, sig, args: _splat(builder, args[0], lanes)

    @intrinsic
    def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, fused where the machine can."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _llvm_call(builder, "fmuladd", lanes, scalar, list(args))

        return vector(vector, vector, vector), codegen

    @intrinsic
    def floor(typingctx: Any, a: Any) -> Any:
        """The largest whole numbers not above ``a``."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _llvm_call(builder, "floor", lanes, scalar, list(args))

        return vector(vector), codegen

    @intrinsic
    def maximum(typingctx: Any, a: Any, b: Any) -> Any:
        """``a if a > b else b``: b where either is NaN."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", *args), *args)

        return vector(vector, vector), codegen

    @intrinsic
    def power_of_two(typingctx: Any, exponent: Any) -> Any:
        """2 ** exponent for whole exponents of normal numbers: the bits of the exponent, shifted into place."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            whole = builder.fptosi(args[0], integers)
            biased = builder.add(whole, ir.Constant(integers, [bias] * width))
            return builder.bitcast(builder.shl(biased, ir.Constant(integers, [mantissa_bits] * width)), lanes)

        return vector(vector), codegen

    @intrinsic
    def select(typingctx: Any, where: Any, a: Any, b: Any) -> Any:
        """``a`` where the mask is set, else ``b``."""
        return vector(mask, vector, vector), lambda context, builder, sig, args: builder.select(*args)

    @intrinsic
    def inside(typingctx: Any, low: Any, high: Any, offset: Any, value: Any) -> Any:
        """Mask of the lanes with ``low[offset + lane] <= value < high[offset + lane]`` (int32)."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            words = ir.VectorType(INT32, width)
            low_value, high_value = (builder.load(_lanes_pointer(builder, p, args[2], words)) for p in args[:2])
            low_value.align = high_value.align = 4
            here = _splat(builder, builder.trunc(args[3], INT32), words)
            above = builder.icmp_signed("<=", low_value, here)
            return builder.and_(above, builder.icmp_signed("<", here, high_value))

        words_pointer = types.CPointer(types.int32)
        return mask(words_pointer, words_pointer, types.int64, types.int64), codegen

    @intrinsic
    def bits(typingctx: Any, word: Any, offset: Any) -> Any:
        """Mask of the lanes whose bit ``offset + lane`` is set in the 64-bit ``word``."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            positions = ir.Constant(integers, list(range(width)))
            here = builder.lshr(args[0], args[1])
            if scalar.bitwidth == 32:  # narrow lanes keep the shifts at the vectors' own width
                here = builder.trunc(here, INT32)
            shifted = builder.lshr(_splat(builder, here, integers), positions)
            ones = ir.Constant(integers, [1] * width)
            return builder.icmp_unsigned("==", builder.and_(shifted, ones), ones)

        return mask(types.uint64, types.int64), codegen

    return load, store, splat, fma, floor, maximum, power_of_two, select, inside, bits


@cache
def transposition(dtype: str, width: int) -> Any:
    """``transpose``: ``width`` vectors of ``width`` ``dtype``, as a tuple, to the transposed tuple.

    log2(width) rounds of shuffles; each swaps the off-diagonal quarters of every square of twice its size.
    """
    vector = Vector(from_dtype(np.dtype(dtype)), width)

    @intrinsic
    def transpose(typingctx: Any, rows: Any) -> Any:
        """rows[i][j] becomes result[j][i]."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            values = [builder.extract_value(args[0], i) for i in range(width)]
            half = width // 2
            while half:
                for i in range(width):
                    if not i & half:
                        values[i], values[i + half] = _swap_quarters(builder, values[i], values[i + half], half)
                half //= 2
            return context.make_tuple(builder, sig.return_type, values)

        vectors = types.UniTuple(vector, width)
        return vectors(vectors), codegen

    return transpose


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
