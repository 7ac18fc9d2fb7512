"""As runtime/pipeline.py for GPU kernels: the passes of numba-cuda that a generated text needs, and a typing context
that remembers, from one function of a text to the next. The LTO-IR is the same, byte for byte. All that leans on
private parts of numba-cuda stands here and in numba_cuda_capability.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.cuda import compiler
from numba.cuda.core import compiler_machinery, ir_utils, rewrites, ssa, typed_passes, untyped_passes
from numba.cuda.core.compiler_lock import global_compiler_lock
from numba.cuda.core.compiler_machinery import PassManager
from numba.cuda.descriptor import cuda_target

from splat_numba.runtime.lean_passes import Parts, lean_passes
from splat_numba.runtime.pipeline import section
from splat_numba.runtime.typing_memo import remembering

LEAN = lean_passes(Parts(compiler_machinery, typed_passes, rewrites, ssa, ir_utils))


@contextmanager
def in_place() -> Iterator[None]:
    """Within, numba-cuda compiles by these passes: its public function takes no others, so the name that it looks up
    is changed, while nobody else can compile.
    """
    with section(), global_compiler_lock:
        compiler.CUDACompiler, before = _Compiler, compiler.CUDACompiler
        memory = remembering(cuda_target.typing_context)
        memory.forget()
        try:
            yield
        finally:
            compiler.CUDACompiler = before
            memory.forget()


class _Compiler(compiler.CUDACompiler):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state.typingctx = remembering(self.state.typingctx)

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("splat")
        translate, infer = compiler.CUDATranslateBytecode, typed_passes.NopythonTypeInference
        for one in LEAN.before_lowering(untyped_passes, translate, infer):
            passes.add_pass(one, one.__name__)
        passes.passes.extend(self.define_cuda_lowering_pipeline(self.state).passes)
        passes.finalize()
        return [passes]
