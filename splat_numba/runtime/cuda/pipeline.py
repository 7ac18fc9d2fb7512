"""As runtime/pipeline.py for Hopper kernels: the passes of numba-cuda that a generated text needs, and a typing context
that remembers. The LTO-IR is the same, byte for byte. All that leans on private parts of numba-cuda stands here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.cuda import compiler
from numba.cuda.core import typed_passes, untyped_passes
from numba.cuda.core.compiler_lock import global_compiler_lock
from numba.cuda.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.cuda.core.ir_utils import build_definitions
from numba.cuda.core.rewrites import rewrite_registry
from numba.cuda.core.ssa import reconstruct_ssa

from splat_numba.runtime.pipeline import section
from splat_numba.runtime.typing_memo import remembering


@contextmanager
def in_place() -> Iterator[None]:
    """Within, numba-cuda compiles by these passes: its public function takes no others, so the name that it looks up
    is changed, while nobody else can compile.
    """
    with section(), global_compiler_lock:
        compiler.CUDACompiler, before = _Compiler, compiler.CUDACompiler
        try:
            yield
        finally:
            compiler.CUDACompiler = before


@register_pass(mutates_CFG=True, analysis_only=False)
class _Rewrites(FunctionPass):  # type: ignore[misc]
    """See runtime/pipeline.py, here and below: these passes are numba-cuda's own copies."""

    _name = "splat_rewrites"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        blocks = state.func_ir.blocks
        for make in rewrite_registry.rewrites["before-inference"]:
            rewrite = make(state)
            waiting = list(blocks)
            while waiting:
                label = waiting.pop()
                if rewrite.match(state.func_ir, blocks[label], state.typemap, state.calltypes):
                    blocks[label] = rewrite.apply()
                    waiting.append(label)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Versions(FunctionPass):  # type: ignore[misc]
    _name = "splat_versions"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        state.func_ir = reconstruct_ssa(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)  # noqa: SLF001
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Joins(typed_passes.PreLowerStripPhis):  # type: ignore[misc]
    _name = "splat_joins"

    def run_pass(self, state: Any) -> bool:
        state.func_ir = self._strip_phi_nodes(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)  # noqa: SLF001
        return True


class _Compiler(compiler.CUDACompiler):  # type: ignore[misc]
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state.typingctx = remembering(self.state.typingctx)
        self.state.typingctx.forget()

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("splat")
        for one in (
            compiler.CUDATranslateBytecode,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.RewriteSemanticConstants,
            untyped_passes.DeadBranchPrune,
            _Rewrites,
            _Versions,
            untyped_passes.DeadBranchPrune,
            typed_passes.NopythonTypeInference,
            _Joins,
        ):
            passes.add_pass(one, one.__name__)
        passes.passes.extend(self.define_cuda_lowering_pipeline(self.state).passes)
        passes.finalize()
        return [passes]
