"""As numba_cuda_passes for numba-cuda-mlir 0.6: the passes that a generated text needs, and device functions that
are compiled once.

By its own way each is compiled twice, to type a call and again under the name that the call is lowered to; and a small
one is copied into its callers before typing, every copy to be typed anew, though MLIR's inliner would do it. Left out,
that is half of a kernel's time and more (benchmarks/results/compilers.md). Private parts of numba_cuda_mlir are used
here and in mlir_passes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba_cuda_mlir import mlir_compiler
from numba_cuda_mlir.descriptor import MLIRDispatcher
from numba_cuda_mlir.numba_cuda.core import compiler_machinery, ir_utils, rewrites, ssa, typed_passes, untyped_passes
from numba_cuda_mlir.numba_cuda.core.compiler_lock import global_compiler_lock
from numba_cuda_mlir.tools import generate_mangled_name

from splat_numba.runtime.lean_passes import Parts, lean_passes
from splat_numba.runtime.pipeline import section

LEAN = lean_passes(Parts(compiler_machinery, typed_passes, rewrites, ssa, ir_utils))
_compile_callee = MLIRDispatcher._compile_as_device_callee  # noqa: SLF001 - see the module's docstring, here and below
_compiler_class = mlir_compiler.get_compiler_class


@contextmanager
def in_place() -> Iterator[None]:
    """Within, numba-cuda-mlir compiles by these passes: its functions take no others, so the names that they look up
    are changed, while nobody else can compile.
    """
    with section(), global_compiler_lock:
        mlir_compiler.get_compiler_class = _lean_class
        MLIRDispatcher._compile_as_device_callee = _named_at_once  # noqa: SLF001
        try:
            yield
        finally:
            mlir_compiler.get_compiler_class = _compiler_class
            MLIRDispatcher._compile_as_device_callee = _compile_callee  # noqa: SLF001


def _named_at_once(dispatcher: Any, signature: Any, abi_name: str | None = None) -> Any:
    """A device function for a call that is typed, under the name that the call's lowering asks for: a function that is
    known by another name is compiled again.
    """
    if abi_name is None:
        abi_name = generate_mangled_name(f"{dispatcher.py_func.__qualname__}_{id(dispatcher)}", signature)
    return _compile_callee(dispatcher, signature, abi_name=abi_name)


def _lean_class(*given: Any) -> Any:
    """numba-cuda-mlir's class of compilers for these options, with our passes before its lowering."""
    own: Callable[..., Any] = _compiler_class(*given)

    class Lean(own):  # type: ignore[misc, valid-type]  # whatever class is there
        def define_pipelines(self) -> list[Any]:
            passes = compiler_machinery.PassManager("splat")
            translate, infer = untyped_passes.TranslateByteCode, mlir_compiler.MLIRTypeInference
            for one in LEAN.before_lowering(untyped_passes, translate, infer):
                passes.add_pass(one, one.__name__)
            passes.passes.extend(self.define_mlir_lowering_pipeline(self.state).passes)
            passes.finalize()
            return [passes]

    return Lean
