"""Every instruction of gen.language.instructions as a function that numba-cuda-mlir compiles to inline assembly:
``ptx`` in the texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba_cuda_mlir import types
from numba_cuda_mlir._mlir import ir
from numba_cuda_mlir._mlir.dialects import arith, llvm, memref
from numba_cuda_mlir.extending import intrinsic

from splat_numba.gen.language.instructions import Instruction, MatrixProduct
from splat_numba.runtime.cuda.compilers.instructions import Maker, constraints_of, constraints_of_product

_NUMBA = {"r": types.uint32, "l": types.uint64, "f": types.float32, "d": types.float64}


def _type(kind: str) -> Any:
    if kind in "fd":
        return ir.F32Type.get() if kind == "f" else ir.F64Type.get()
    return ir.IntegerType.get_signless({"r": 32, "l": 64}[kind])


def _operands(builder: Any, variables: Any, kinds: str) -> list[Any]:
    """Their values, as the signature has them: it is not applied to the arguments of an intrinsic, and of u32 + u32
    Numba makes 64 bits.
    """
    return [
        builder.lower_cast(builder.get_numba_type(one.name), _NUMBA[kind], builder.load_var(one))
        for one, kind in zip(variables, kinds, strict=True)
    ]


def _call(kinds: str, constraints: str, assembly: str, values: list[Any], *, ordered: bool) -> list[Any]:
    """Inline assembly; ``kinds`` are those of the results, which come back as a list."""
    parts = [_type(kind) for kind in kinds]
    result = None if not parts else parts[0] if len(parts) == 1 else llvm.StructType.get_literal(parts)
    value = llvm.inline_asm(result, values, assembly, constraints, has_side_effects=ordered)
    if len(parts) > 1:
        return [llvm.extractvalue(part, value, [i]) for i, part in enumerate(parts)]
    return [value] if parts else []


def _plain(instruction: Instruction) -> Callable[..., Any]:
    """An instruction on scalars."""
    kinds, constraints = instruction.results, constraints_of(instruction)

    def lower(builder: Any, target: Any, arguments: Any, keywords: Any) -> None:
        values = _operands(builder, arguments, instruction.operands)
        got = _call(kinds, constraints, instruction.assembly, values, ordered=instruction.ordered)
        builder.store_var(target, tuple(got) if len(got) > 1 else got[0] if got else None)

    return lower


def _product(product: MatrixProduct) -> Callable[..., Any]:
    """A matrix product, whose accumulators are an array's."""
    count, kinds, constraints = product.registers, product.operands, constraints_of_product(product)
    tied = 0 if product.fresh else count

    def lower(builder: Any, target: Any, arguments: Any, keywords: Any) -> None:
        array, values = builder.load_var(arguments[0]), _operands(builder, arguments[1:], kinds)
        places = [arith.constant(ir.IndexType.get(), i) for i in range(count)]
        read = [memref.load(array, [place]) for place in places[:tied]]
        sums = _call("f" * count, constraints, product.assembly, [*read, *values], ordered=True)
        for place, value in zip(places, sums, strict=True):
            memref.store(value, array, [place])
        builder.store_var(target, None)

    return lower


MAKER = Maker(types, intrinsic, _plain, _product)
globals().update(MAKER.functions())


@intrinsic
def shared_address(typingctx: Any, array: Any) -> Any:
    """The 32-bit address of a shared-memory array; memory that is known to be shared has no other here."""

    def lower(builder: Any, target: Any, arguments: Any, keywords: Any) -> None:
        address = memref.extract_aligned_pointer_as_index(builder.load_var(arguments[0]))
        builder.store_var(target, arith.index_cast(_type("r"), address))

    return types.uint32(array), lower
