"""SIMD that feature maps need beside splat_numba.runtime's: square roots, exponents, and register tiles from memory."""

# ruff: noqa: ARG001, ARG005 - Numba calls intrinsics and their code generators with a fixed signature
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from splat_numba.runtime.simd import INT64, vector_type
from splat_numba.runtime.tiles import VECTORS
from splat_numba.runtime.vectors import call_llvm


@intrinsic
def square_root(typingctx: Any, a: Any) -> Any:
    """The square roots of a vector; NaN below 0."""
    return a(a), lambda context, builder, sig, args: call_llvm(builder, "sqrt", a, list(args))


@intrinsic
def exponent(typingctx: Any, a: Any) -> Any:
    """The whole e with 2**e <= a < 2**(e + 1), as a vector of floats; for positive normal numbers."""
    mantissa_bits, bias = (23, 127) if a.scalar.bitwidth == 32 else (52, 1023)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        integers = ir.VectorType(ir.IntType(a.scalar.bitwidth), a.width)
        shifted = builder.lshr(builder.bitcast(args[0], integers), ir.Constant(integers, [mantissa_bits] * a.width))
        return builder.sitofp(builder.sub(shifted, ir.Constant(integers, [bias] * a.width)), vector_type(a))

    return a(a), codegen


@intrinsic
def load_tile(typingctx: Any, like: Any, source: Any, step: Any) -> Any:
    """The register tile at ``source``, rows ``step`` apart; ``like`` gives its type."""
    vector, count = like.dtype, like.count

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = []
        for at in range(count):
            row, lanes = divmod(at, VECTORS)
            place = builder.add(builder.mul(args[2], INT64(row)), INT64(lanes * vector.width))
            pointer = builder.bitcast(builder.gep(args[1], [place]), vector_type(vector).as_pointer())
            part = builder.load(pointer)
            part.align = vector.scalar.bitwidth // 8
            parts.append(part)
        return context.make_tuple(builder, sig.return_type, parts)

    return like(like, types.CPointer(vector.scalar), types.int64), codegen
