"""The functions that are ``ptx`` in the texts, whichever compiler makes them: one for every instruction of
gen.language.instructions, and the families that are made for their constants. A compiler says how one is lowered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from splat_numba.gen.language.instructions import INSTRUCTIONS, Instruction, MatrixProduct, set_registers, wait_groups


@dataclass(frozen=True, slots=True)
class Maker:
    """What a compiler brings. types: its module of Numba's types; intrinsic: its decorator; plain, product: how it
    lowers an instruction on scalars, and a matrix product.
    """

    types: Any
    intrinsic: Callable[[Callable[..., Any]], Any]
    plain: Callable[[Instruction], Any]
    product: Callable[[MatrixProduct], Any]

    def functions(self) -> dict[str, Any]:
        """All that a text calls, by name, but for ``shared_address``, which is the compiler's own."""

        @cache
        def claim_registers(count: int) -> Any:
            """More registers for each thread of the calling warpgroup."""
            return self.scalar(set_registers(count, claim=True))

        @cache
        def release_registers(count: int) -> Any:
            """Fewer registers for each thread of the calling warpgroup."""
            return self.scalar(set_registers(count, claim=False))

        @cache
        def async_wait(left: int) -> Any:
            """Wait for groups of copies but for the last ``left``."""
            return self.scalar(wait_groups(left))

        @cache
        def matrix_product(
            columns: int, dtype: str, *, from_registers: bool, transposed: bool, a_transposed: bool = False,
            fresh: bool = False,
        ) -> Any:  # fmt: skip
            """See gen.language.instructions.MatrixProduct: f(accumulator array, *A, descriptor of B[, add])."""
            return self._matrix(MatrixProduct(columns, dtype, from_registers, transposed, a_transposed, fresh))

        families = (claim_registers, release_registers, async_wait, matrix_product)
        made = {one.name: self.scalar(one) for one in INSTRUCTIONS}
        return made | {one.__name__: one for one in families}

    def scalar(self, instruction: Instruction) -> Any:
        """The function of an instruction on scalars."""
        types, results = self.types, self._kinds(instruction.results)
        returned = types.void if not results else results[0] if len(results) == 1 else types.Tuple(results)
        signature, lowered = returned(*self._kinds(instruction.operands)), self.plain(instruction)

        def typer(*given: Any) -> Any:  # noqa: ARG001 - whatever is given is cast to the instruction's own
            return signature, lowered

        return self._named(instruction.name, len(instruction.operands), typer)

    def _matrix(self, product: MatrixProduct) -> Any:
        kinds, lowered = self._kinds(product.operands), self.product(product)

        def typer(accumulator: Any, *given: Any) -> Any:  # noqa: ARG001 - likewise
            return self.types.void(accumulator, *kinds), lowered

        return self._named("matrix_product", 1 + len(kinds), typer)

    def _kinds(self, kinds: str) -> list[Any]:
        types = self.types
        known = {"r": types.uint32, "l": types.uint64, "f": types.float32, "d": types.float64}
        return [known[kind] for kind in kinds]

    def _named(self, name: str, operands: int, typer: Callable[..., Any]) -> Any:
        """Numba wants a function with as many named arguments as the call has."""
        names = ", ".join(f"operand_{i}" for i in range(operands))
        namespace = {"typer": typer}
        text = f"def {name}(typingctx, {names}):\n    return typer({names})\n"
        exec(text, namespace)  # noqa: S102 - the text is this function's own
        return self.intrinsic(namespace[name])


def constraints_of(instruction: Instruction) -> str:
    """What inline assembly is told of results, operands and memory."""
    clobbers = ["~{memory}"] if instruction.ordered else []
    return ",".join([*(f"={kind}" for kind in instruction.results), *instruction.operands, *clobbers])


def constraints_of_product(product: MatrixProduct) -> str:
    """The same of a matrix product: accumulators are results, and the first operands tied to them, unless fresh."""
    count = product.registers
    tied = [] if product.fresh else [str(i) for i in range(count)]
    return ",".join(["=f"] * count + tied + list(product.operands))
