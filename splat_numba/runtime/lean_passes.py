"""Passes of Numba's without what generated texts do not need; numba-cuda has copies of its own of their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Parts:
    """Modules of Numba's or numba-cuda's that passes are made from."""

    machinery: Any
    typed_passes: Any
    rewrites: Any
    ssa: Any
    ir_utils: Any


@dataclass(frozen=True, slots=True)
class LeanPasses:
    """rewrites: before typing, constant indices above all. versions: static single assignment; Numba's pass also works
    out lifetimes, which the last pass does once more. joins: assignments in the place of phi nodes, likewise.
    """

    rewrites: Any
    versions: Any
    joins: Any

    def before_lowering(self, untyped_passes: Any, translate: Any, infer: Any) -> tuple[Any, ...]:
        """The passes of a GPU's compiler up to its lowering. translate, infer: its own from bytecode, and to types."""
        return (
            translate,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.RewriteSemanticConstants,
            untyped_passes.DeadBranchPrune,
            self.rewrites,
            self.versions,
            untyped_passes.DeadBranchPrune,
            infer,
            self.joins,
        )


def lean_passes(parts: Parts) -> LeanPasses:
    """The passes, registered with the machinery that they are for."""
    register = parts.machinery.register_pass(mutates_CFG=True, analysis_only=False)
    function_pass: Any = parts.machinery.FunctionPass
    strip_phis: Any = parts.typed_passes.PreLowerStripPhis

    def defined(ir: Any) -> Any:
        ir._definitions = parts.ir_utils.build_definitions(ir.blocks)  # noqa: SLF001
        return ir

    @register
    class Rewrites(function_pass):
        _name = "splat_rewrites"

        def __init__(self) -> None:
            super().__init__()

        def run_pass(self, state: Any) -> bool:
            blocks = state.func_ir.blocks
            for make in parts.rewrites.rewrite_registry.rewrites["before-inference"]:
                rewrite = make(state)
                waiting = list(blocks)
                while waiting:
                    label = waiting.pop()
                    if rewrite.match(state.func_ir, blocks[label], state.typemap, state.calltypes):
                        blocks[label] = rewrite.apply()
                        waiting.append(label)
            return True

    @register
    class Versions(function_pass):
        _name = "splat_versions"

        def __init__(self) -> None:
            super().__init__()

        def run_pass(self, state: Any) -> bool:
            state.func_ir = defined(parts.ssa.reconstruct_ssa(state.func_ir))
            return True

    @register
    class Joins(strip_phis):
        _name = "splat_joins"

        def run_pass(self, state: Any) -> bool:
            state.func_ir = defined(self._strip_phi_nodes(state.func_ir))
            return True

    return LeanPasses(Rewrites, Versions, Joins)
