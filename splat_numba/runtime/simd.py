"""Explicit SIMD for Numba: vectors and masks as types of their own, their operators, and pointers into arrays.

Numba compiles scalars and leaves vectors to LLVM's loop vectoriser, which keeps no vector in a register across an
outer loop. Here a vector is a Numba type, lowered to LLVM's ``<width x float>``, so a kernel's accumulators are plain
Python variables that live in registers. On the two-core machine of ``benchmarks/results`` this took a 64 x 64 x 64
product from 67 to 97 GFLOP/s per core, and compiles faster. Any width is legal: LLVM splits what the machine lacks.
``runtime.vectors`` has the operations.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array

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


def float_type(scalar: types.Float) -> ir.Type:
    """LLVM's float or double."""
    return ir.FloatType() if scalar.bitwidth == 32 else ir.DoubleType()


def vector_type(vector: Vector) -> ir.VectorType:
    """LLVM's vector."""
    return ir.VectorType(float_type(vector.scalar), vector.width)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, vector_type(fe_type))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Mask) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.width))


def _register_operator(function: Any, method: str, operand: type, result: Any = None) -> None:
    """Let Numba type and lower ``function`` on two equal operands through one IRBuilder method."""

    class Template(AbstractTemplate):
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
