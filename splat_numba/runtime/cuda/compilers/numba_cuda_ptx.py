"""Every instruction of gen.language.instructions as a function that numba-cuda compiles to inline assembly: ``ptx``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

from splat_numba.gen.language.instructions import INSTRUCTIONS, Instruction, MatrixProduct, set_registers, wait_groups

_LLVM = {"r": ir.IntType(32), "l": ir.IntType(64), "f": ir.FloatType(), "d": ir.DoubleType()}
_NUMBA = {"r": types.uint32, "l": types.uint64, "f": types.float32, "d": types.float64}


def _call(builder: Any, kinds: str, operands: str, assembly: str, values: list[Any], *, ordered: bool) -> list[Any]:
    """Inline assembly; ``kinds`` are those of the results, which come back as a list."""
    parts = [_LLVM[kind] for kind in kinds]
    result: Any = ir.VoidType() if not parts else parts[0] if len(parts) == 1 else ir.LiteralStructType(parts)
    function = ir.FunctionType(result, [_LLVM[kind] for kind in operands])
    constraints = [f"={kind}" for kind in kinds] + list(operands) + (["~{memory}"] if ordered else [])
    assembled = ir.InlineAsm(function, assembly, ",".join(constraints), side_effect=ordered)
    value = builder.call(assembled, values)
    return [value] if len(parts) == 1 else [builder.extract_value(value, i) for i in range(len(parts))]


def _plain(instruction: Instruction) -> Any:
    """The Numba function of an instruction on scalars."""
    results = [_NUMBA[kind] for kind in instruction.results]
    returned: Any = types.void if not results else results[0] if len(results) == 1 else types.Tuple(results)

    def codegen(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
        text = instruction.assembly
        got = _call(builder, instruction.results, instruction.operands, text, values, ordered=instruction.ordered)
        if len(got) > 1:
            return context.make_tuple(builder, signature.return_type, got)
        return got[0] if got else context.get_dummy_value()

    def typer(*given: Any) -> Any:
        return returned(*[_NUMBA[kind] for kind in instruction.operands]), codegen

    return _intrinsic(instruction.name, len(instruction.operands), typer)


def _intrinsic(name: str, operands: int, typer: Callable[..., Any]) -> Any:
    """Numba wants a function with as many named arguments as the call has."""
    names = ", ".join(f"operand_{i}" for i in range(operands))
    text = f"def {name}(typingctx, {names}):\n    return typer({names})\n"
    namespace = {"typer": typer}
    exec(text, namespace)  # noqa: S102 - the text is this function's own
    return intrinsic(namespace[name])


for _instruction in INSTRUCTIONS:
    globals()[_instruction.name] = _plain(_instruction)


@cache
def claim_registers(count: int) -> Any:
    """More registers for each thread of the calling warpgroup."""
    return _plain(set_registers(count, claim=True))


@cache
def release_registers(count: int) -> Any:
    """Fewer registers for each thread of the calling warpgroup."""
    return _plain(set_registers(count, claim=False))


@cache
def async_wait(left: int) -> Any:
    """Wait for groups of copies but for the last ``left``."""
    return _plain(wait_groups(left))


@cache
def matrix_product(
    columns: int,
    dtype: str,
    *,
    from_registers: bool,
    transposed: bool,
    a_transposed: bool = False,
    fresh: bool = False,
) -> Any:
    """See gen.language.instructions.MatrixProduct: f(accumulator array, *A, descriptor of B[, add])."""
    product = MatrixProduct(columns, dtype, from_registers, transposed, a_transposed, fresh)
    count, kinds = product.registers, product.operands
    tied = 0 if fresh else count

    def codegen(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        base = builder.bitcast(array.data, _LLVM["f"].as_pointer())
        places = [builder.gep(base, [ir.IntType(32)(i)], inbounds=True) for i in range(count)]
        function = ir.FunctionType(
            ir.LiteralStructType([_LLVM["f"]] * count), [_LLVM["f"]] * tied + [_LLVM[k] for k in kinds]
        )
        constraints = ["=f"] * count + [str(i) for i in range(tied)] + list(kinds)
        assembled = ir.InlineAsm(function, product.assembly, ",".join(constraints), side_effect=True)
        sums = builder.call(assembled, [builder.load(place) for place in places[:tied]] + list(values[1:]))
        for i, place in enumerate(places):
            builder.store(builder.extract_value(sums, i), place)
        return context.get_dummy_value()

    def typer(accumulator: Any, *given: Any) -> Any:
        return types.void(accumulator, *[_NUMBA[kind] for kind in kinds]), codegen

    return _intrinsic("matrix_product", 1 + len(kinds), typer)


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
