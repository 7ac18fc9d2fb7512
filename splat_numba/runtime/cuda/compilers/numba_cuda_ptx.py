"""Every instruction of gen.language.instructions as a function that numba-cuda compiles to inline assembly: ``ptx``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

from splat_numba.gen.language.instructions import Instruction, MatrixProduct
from splat_numba.runtime.cuda.compilers.instructions import Maker, constraints_of, constraints_of_product

_LLVM = {"r": ir.IntType(32), "l": ir.IntType(64), "f": ir.FloatType(), "d": ir.DoubleType()}


def _plain(instruction: Instruction) -> Callable[..., Any]:
    """An instruction on scalars."""
    parts = [_LLVM[kind] for kind in instruction.results]
    result: Any = ir.VoidType() if not parts else parts[0] if len(parts) == 1 else ir.LiteralStructType(parts)
    function = ir.FunctionType(result, [_LLVM[kind] for kind in instruction.operands])
    constraints, ordered = constraints_of(instruction), instruction.ordered

    def codegen(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
        value = builder.call(ir.InlineAsm(function, instruction.assembly, constraints, side_effect=ordered), values)
        if len(parts) > 1:
            several = [builder.extract_value(value, i) for i in range(len(parts))]
            return context.make_tuple(builder, signature.return_type, several)
        return value if parts else context.get_dummy_value()

    return codegen


def _product(product: MatrixProduct) -> Callable[..., Any]:
    """A matrix product, whose accumulators are an array's."""
    count, constraints = product.registers, constraints_of_product(product)
    sums_of = ir.LiteralStructType([_LLVM["f"]] * count)
    tied = 0 if product.fresh else count
    function = ir.FunctionType(sums_of, [_LLVM["f"]] * tied + [_LLVM[kind] for kind in product.operands])

    def codegen(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        base = builder.bitcast(array.data, _LLVM["f"].as_pointer())
        places = [builder.gep(base, [ir.IntType(32)(i)], inbounds=True) for i in range(count)]
        assembled = ir.InlineAsm(function, product.assembly, constraints, side_effect=True)
        sums = builder.call(assembled, [builder.load(place) for place in places[:tied]] + list(values[1:]))
        for i, place in enumerate(places):
            builder.store(builder.extract_value(sums, i), place)
        return context.get_dummy_value()

    return codegen


MAKER = Maker(types, intrinsic, _plain, _product)
globals().update(MAKER.functions())


@intrinsic
def shared_address(typingctx: Any, array: Any) -> Any:
    """The 32-bit address of a shared-memory array."""

    def codegen(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        generic = builder.ptrtoint(data, _LLVM["l"])
        function = ir.FunctionType(_LLVM["l"], [_LLVM["l"]])
        assembled = ir.InlineAsm(function, "cvta.to.shared.u64 $0, $1;", "=l,l")
        return builder.trunc(builder.call(assembled, [generic]), _LLVM["r"])

    return types.uint32(array), codegen
