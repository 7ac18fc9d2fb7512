"""Every instruction of gen.language.instructions as a function that numba-cuda-mlir compiles to inline assembly:
``ptx`` in the texts. Assembly and constraints are as numba_cuda_ptx has them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba_cuda_mlir import types
from numba_cuda_mlir._mlir import ir
from numba_cuda_mlir._mlir.dialects import arith, llvm, memref
from numba_cuda_mlir.extending import intrinsic

from splat_numba.gen.language.instructions import INSTRUCTIONS, Instruction, MatrixProduct, set_registers, wait_groups

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


def _call(kinds: str, constraints: list[str], assembly: str, values: list[Any], *, ordered: bool) -> list[Any]:
    """Inline assembly; ``kinds`` are those of the results, which come back as a list."""
    parts = [_type(kind) for kind in kinds]
    result = None if not parts else parts[0] if len(parts) == 1 else llvm.StructType.get_literal(parts)
    value = llvm.inline_asm(result, values, assembly, ",".join(constraints), has_side_effects=ordered)
    if len(parts) > 1:
        return [llvm.extractvalue(part, value, [i]) for i, part in enumerate(parts)]
    return [value] if parts else []


def _plain(instruction: Instruction) -> Any:
    """The function of an instruction on scalars."""
    kinds, operands, ordered = instruction.results, instruction.operands, instruction.ordered
    results = [_NUMBA[kind] for kind in kinds]
    returned: Any = types.void if not results else results[0] if len(results) == 1 else types.Tuple(results)
    constraints = [f"={kind}" for kind in kinds] + list(operands) + (["~{memory}"] if ordered else [])

    def lower(builder: Any, target: Any, arguments: Any, keywords: Any) -> None:
        values = _operands(builder, arguments, operands)
        got = _call(kinds, constraints, instruction.assembly, values, ordered=ordered)
        builder.store_var(target, tuple(got) if len(got) > 1 else got[0] if got else None)

    def typer(*given: Any) -> Any:
        return returned(*[_NUMBA[kind] for kind in operands]), lower

    return _intrinsic(instruction.name, len(operands), typer)


def _intrinsic(name: str, operands: int, typer: Callable[..., Any]) -> Any:
    """Numba wants a function with as many named arguments as the call has."""
    names = ", ".join(f"operand_{i}" for i in range(operands))
    namespace = {"typer": typer}
    exec(f"def {name}(typingctx, {names}):\n    return typer({names})\n", namespace)  # noqa: S102 - its own text
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
    constraints = ["=f"] * count + [str(i) for i in range(tied)] + list(kinds)

    def lower(builder: Any, target: Any, arguments: Any, keywords: Any) -> None:
        array, values = builder.load_var(arguments[0]), _operands(builder, arguments[1:], kinds)
        places = [arith.constant(ir.IndexType.get(), i) for i in range(count)]
        read = [memref.load(array, [place]) for place in places[:tied]]
        sums = _call("f" * count, constraints, product.assembly, [*read, *values], ordered=True)
        for place, value in zip(places, sums, strict=True):
            memref.store(value, array, [place])
        builder.store_var(target, None)

    def typer(accumulator: Any, *given: Any) -> Any:
        return types.void(accumulator, *[_NUMBA[kind] for kind in kinds]), lower

    return _intrinsic("matrix_product", 1 + len(kinds), typer)


@intrinsic
def shared_address(typingctx: Any, array: Any) -> Any:
    """The 32-bit address of a shared-memory array; memory that is known to be shared has no other here."""

    def lower(builder: Any, target: Any, arguments: Any, keywords: Any) -> None:
        address = memref.extract_aligned_pointer_as_index(builder.load_var(arguments[0]))
        builder.store_var(target, arith.index_cast(_type("r"), address))

    return types.uint32(array), lower
