"""Compiling of generated texts by a shorter way than Numba's own: all that leans on private parts of it stands here.

Numba takes every function for one that Python may call and others may inline: it makes a wrapper, machine code and an
optimised module of each, a dozen of which are then optimised again inside their callers; and it looks for closures,
parallel loops and array expressions, which no text of ours has. Here the functions that an entry calls are only linked
into it, and the whole is optimised once, so that a kernel takes half the time (benchmarks/results/compile_time.md) and
nothing of LLVM's stays but the machine code.

Tried with the Numba that pyproject.toml admits. Where a part of it is missing, or a text (a hand-edited one) needs what
is left out, ``compile_entry`` raises, and the caller compiles in Numba's own way.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from llvmlite import binding
from numba import _dynfunc
from numba.core import compiler_machinery, ir_utils, rewrites, sigutils, ssa, typed_passes, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from splat_numba.runtime.lean_passes import Parts, lean_passes
from splat_numba.runtime.typing_memo import remembering

LEAN = lean_passes(Parts(compiler_machinery, typed_passes, rewrites, ssa, ir_utils))

# A kernel leaves 200,000 objects, most of them for as long as it is compiled: looking through them, and all of Numba's,
# every 700th takes 0.2 of 3 s.
YOUNG_OBJECTS = 20_000


@contextmanager
def section() -> Iterator[None]:
    """One thread at a time compiles, with fewer garbage collections; nests."""
    with global_compiler_lock:
        before = gc.get_threshold()
        if 0 < before[0] < YOUNG_OBJECTS:
            gc.set_threshold(YOUNG_OBJECTS, *before[1:])
        try:
            yield
        finally:
            gc.set_threshold(*before)


def dispatchers(module: ModuleType) -> list[Any]:
    """The functions of a text that Numba compiles, without those that it imports: others use these too."""
    return [
        one for one in vars(module).values() if isinstance(one, Dispatcher) and one.py_func.__globals__ is vars(module)
    ]


def compile_entry(module: ModuleType, name: str, signature: Any) -> bytes:
    """Machine code of a text's function, as ``machine_code.load_function`` takes it. The module's functions cannot be
    called afterwards. Raises whatever Numba does, and where the code holds addresses of this process.
    """
    for one in dispatchers(module):
        one._compiler.pipeline_class = _InnerCompiler  # noqa: SLF001 - see the module's docstring, here and below
    entry = getattr(module, name)._compiler  # noqa: SLF001
    entry.pipeline_class = _EntryCompiler
    remembering(cpu_target.typing_context).forget()
    result = entry.compile(*sigutils.normalize_signature(signature))
    remembering(cpu_target.typing_context).forget()
    entry.pipeline_class = _InnerCompiler
    return bytes(dumps(result._reduce()))  # noqa: SLF001


class _Library(JITCodeLibrary):
    def _optimize_functions(self, ll_module: Any) -> None:
        """Nothing, where Numba optimises each function by itself: the whole is optimised by the entry."""
        ll_module.data_layout = self._codegen._data_layout  # noqa: SLF001


class _InnerLibrary(_Library):
    """A function that others of the text call: a module to be linked into the entry's, never machine code."""

    def finalize(self) -> None:
        """Nothing: what it calls is linked into the entry too."""
        self._finalized = True


class _EntryLibrary(_Library):
    """An entry with all that it calls: optimised once, made into machine code, and not loaded."""

    def finalize(self) -> None:
        """Link, optimise, and make machine code as bytes."""
        for library in _callers_first(self)[1:]:
            self._reload_init.update(library._reload_init)  # noqa: SLF001
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)  # noqa: SLF001
        self._optimize_final_module()
        self._final_module.verify()
        self._verify_declare_only_symbols()
        self._finalize_dynamic_globals()
        if self._dynamic_globals or any(one.name.startswith(".numba.unresolved$") for one in self._variables()):
            raise NotImplementedError(f"{self.name} has addresses of this process")
        self._compiled_object = self._codegen._tm.emit_object(self._final_module)  # noqa: SLF001
        self._finalized = True

    def serialize_using_object_code(self) -> Any:
        """As Numba's, but instead of the module only the names that it defines: nobody links it any more."""
        names = [one.name for one in self.get_defined_functions() if one.linkage == binding.Linkage.external]
        stubs = binding.parse_assembly("\n".join(f'define void @"{name}"() {{ ret void }}' for name in names))
        return self.name, "object", (self._compiled_object, stubs.as_bitcode())

    def _variables(self) -> Any:
        return self._final_module.global_variables


def _callers_first(library: Any) -> list[Any]:
    """A library and all that it needs: LLVM links what was called already. Numba's own have theirs inside."""
    done: list[Any] = []

    def visit(one: Any) -> None:
        if one not in done:
            for other in one._linking_libraries if isinstance(one, _Library) else ():  # noqa: SLF001
                visit(other)
            done.append(one)

    visit(library)
    return done[::-1]


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):
    """To LLVM's language, into a library of ours."""

    _name = "splat_lowering"

    def run_pass(self, state: Any) -> bool:
        kind = state.pipeline.library
        state.library = kind(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        state.flags.no_compile = True  # get_executable would load it
        super().run_pass(state)
        lowered = state.cr
        if kind is _InnerLibrary:  # callers find it by a function object, which Numba makes without code as well
            where = lowered.fndesc.lookup_module()
            function = _dynfunc.make_function(where, state.func_id.func_name, "", 0, lowered.env, (state.library,))
            state.targetctx.insert_user_function(function, lowered.fndesc, [state.library])
            state["cr"] = lowered._replace(cfunc=function)
        else:
            state.library.finalize()
        return True


class _InnerCompiler(CompilerBase):
    """The passes that a generated text needs."""

    library = _InnerLibrary

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state.typingctx = remembering(self.state.typingctx)
        self.state.flags.no_cfunc_wrapper = True
        self.state.flags.no_cpython_wrapper = self.library is _InnerLibrary

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("splat")
        for one in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.RewriteSemanticConstants,
            untyped_passes.DeadBranchPrune,
            LEAN.rewrites,
            LEAN.versions,
            typed_passes.NopythonTypeInference,
            LEAN.joins,
            typed_passes.NoPythonSupportedFeatureValidation,
            typed_passes.IRLegalization,
            typed_passes.AnnotateTypes,
            _Lowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(one, one.__name__)
        passes.finalize()
        return [passes]


class _EntryCompiler(_InnerCompiler):
    library = _EntryLibrary
