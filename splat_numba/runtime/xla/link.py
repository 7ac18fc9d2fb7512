"""Compiled functions called in C's way, by XLA's rules or by `runtime.xla.handler`; and the handler itself, compiled.

Numba's functions take arrays as several arguments, and return a status beside their result. A *bridge* of a few lines
of LLVM's language stands before such a function. Bridges have addresses of this process, so they are made in each: a
millisecond or two a bridge. The code behind them comes from the disk cache.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target

from splat_numba.runtime import pipeline
from splat_numba.runtime.compile import compile_file
from splat_numba.runtime.words import WORD
from splat_numba.runtime.xla import gpu_handler, handler
from splat_numba.settings import Settings

HANDLE, ASSIST = types.int64(types.int64, types.int64), types.int64(types.int64)
_numbers = itertools.count()
_libraries: list[Any] = []  # XLA may call what it has for as long as the process lives


def handler_functions(settings: Settings) -> tuple[int, int]:
    """Entry addresses of the CPU's handle() and assist(), in Numba's way of calling."""
    compiled = compile_file(handler, (("handle", HANDLE), ("assist", ASSIST)), settings)
    _libraries.append(compiled)
    return entry_address(compiled.functions["handle"]), entry_address(compiled.functions["assist"])


def gpu_handler_function(settings: Settings) -> int:
    """The same of a GPU's handle()."""
    compiled = compile_file(gpu_handler, (("handle", HANDLE),), settings)
    _libraries.append(compiled)
    return entry_address(compiled.functions["handle"])


def handle_bridge(entry: int, program: int) -> int:
    """The address of a C function of a call frame: the handler for one program."""
    return _words_bridge(HANDLE, entry, (program,))


def assist_bridge(entry: int) -> int:
    """The address of a C function of a job."""
    return _words_bridge(ASSIST, entry, ())


def entry_address(function: Any) -> int:
    """Where the machine code of a compiled function with one signature begins, in Numba's way of calling."""
    (found,) = function.overloads.values()
    return int(found.library.get_pointer_to_function(found.fndesc.llvm_func_name))


def range_bridge(signature: Any) -> int:
    """The address of a C function (first, last, block) that calls a function of this signature: the block's first word
    is its address, and the others are its arguments but the first two, flattened; it returns the function's status.
    """
    native = _native_type(signature)

    def body(builder: ir.IRBuilder, given: list[Any], result: Any, error: Any) -> Any:
        first, last, block = given
        words = builder.inttoptr(block, WORD.as_pointer())
        entry = builder.inttoptr(builder.load(words), native.as_pointer())
        arguments = [result, error, first, last]
        for number, kind in enumerate(native.args[4:], 1):
            place = builder.gep(words, [ir.Constant(WORD, number)])
            arguments.append(builder.load(builder.bitcast(place, kind.as_pointer())))
        return builder.sext(builder.call(entry, arguments), WORD)

    return _link(native, 3, body)


def block_words(signature: Any) -> int:
    """Words of the block that a function of this signature wants."""
    return len(_native_type(signature).args) - 3


def _words_bridge(signature: Any, entry: int, bound: tuple[int, ...]) -> int:
    """A C function of words over a function of words, whose last arguments are fixed."""
    native = _native_type(signature)

    def body(builder: ir.IRBuilder, given: list[Any], result: Any, error: Any) -> Any:
        function = builder.inttoptr(ir.Constant(WORD, entry), native.as_pointer())
        builder.call(function, [result, error, *given, *(ir.Constant(WORD, one) for one in bound)])
        return builder.load(result)

    return _link(native, len(signature.args) - len(bound), body)


def _native_type(signature: Any) -> Any:
    return cpu_target.target_context.call_conv.get_function_type(signature.return_type, signature.args)


def _link(native: Any, words: int, body: Any) -> int:
    """Machine code of a C function of so many words."""
    name = f"splat_bridge_{next(_numbers)}"
    with pipeline.section():
        library = cpu_target.target_context.codegen().create_library(name)
        module = library.create_ir_module(name)
        function = ir.Function(module, ir.FunctionType(WORD, [WORD] * words), name)
        builder = ir.IRBuilder(function.append_basic_block())
        result, error = (builder.alloca(one.pointee) for one in native.args[:2])
        builder.ret(body(builder, list(function.args), result, error))
        library.add_ir_module(module)
        library.finalize()
    _libraries.append(library)
    return int(library.get_pointer_to_function(name))
