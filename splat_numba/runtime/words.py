"""Memory by its address, and functions by theirs, for compiled code that reads what is not ours: XLA's call frames.

An address is an int64, and so is a word. `runtime.xla.handler` is written in these.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD = ir.IntType(64)
WORD_BYTES = 8


def _reader(bits: int) -> Any:
    """Of the integer of so many bits at an address."""
    kind = ir.IntType(bits)

    @intrinsic
    def read(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.sext(builder.load(builder.inttoptr(args[0], kind.as_pointer())), WORD)

        return types.int64(types.int64), codegen

    return read


def _writer(bits: int) -> Any:
    """The same, writing; the upper bits of a word are left out."""
    kind = ir.IntType(bits)

    @intrinsic
    def write(typingctx: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            number = builder.trunc(args[1], kind) if bits < WORD.width else args[1]
            builder.store(number, builder.inttoptr(args[0], kind.as_pointer()))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return write


load, load_int32, load_byte = _reader(64), _reader(32), _reader(8)
store, store_int32, store_byte = _writer(64), _writer(32), _writer(8)


@intrinsic
def fetch_add(typingctx: Any, address: Any, value: Any) -> Any:
    """Add to the word at an address, in one order for all threads; returns what was there. Reads and writes before it
    in the text are before it for others, too.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], WORD.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def call(typingctx: Any, function: Any, arguments: Any) -> Any:
    """What a C function of words, int64_t (int64_t, ...), returns for a tuple of them."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(WORD, [WORD] * len(sig.args[1]))
        words = [builder.extract_value(args[1], place) for place in range(len(sig.args[1]))]
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), words)

    return types.int64(types.int64, types.UniTuple(types.int64, len(arguments))), codegen


# Of a processor's floating-point mode: the bits that take subnormal numbers for 0, and how it is read and written.
_X86_FLUSHES, _ARM_FLUSHES = 0x8040, 1 << 24 | 1 << 19
_NOTHING, _BYTE_POINTER = ir.VoidType(), ir.IntType(8).as_pointer()


@intrinsic
def float_mode(typingctx: Any) -> Any:
    """The mode of this thread, as a word; 0 on processors that are not known here."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if binding.get_process_triple().startswith("x86_64"):
            room = builder.alloca(ir.IntType(32))
            store = ir.FunctionType(_NOTHING, [_BYTE_POINTER])
            read = cgutils.get_or_insert_function(builder.module, store, "llvm.x86.sse.stmxcsr")
            builder.call(read, [builder.bitcast(room, _BYTE_POINTER)])
            return builder.zext(builder.load(room), WORD)
        if binding.get_process_triple().startswith(("aarch64", "arm64")):
            read = cgutils.get_or_insert_function(builder.module, ir.FunctionType(WORD, []), "llvm.aarch64.get.fpcr")
            return builder.call(read, [])
        return ir.Constant(WORD, 0)

    return types.int64(), codegen


@intrinsic
def set_float_mode(typingctx: Any, mode: Any) -> Any:
    """Give this thread a mode that float_mode() gave."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if binding.get_process_triple().startswith("x86_64"):
            room = builder.alloca(ir.IntType(32))
            builder.store(builder.trunc(args[0], ir.IntType(32)), room)
            store = ir.FunctionType(_NOTHING, [_BYTE_POINTER])
            write = cgutils.get_or_insert_function(builder.module, store, "llvm.x86.sse.ldmxcsr")
            builder.call(write, [builder.bitcast(room, _BYTE_POINTER)])
        elif binding.get_process_triple().startswith(("aarch64", "arm64")):
            store = ir.FunctionType(_NOTHING, [WORD])
            write = cgutils.get_or_insert_function(builder.module, store, "llvm.aarch64.set.fpcr")
            builder.call(write, args)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def keeping_subnormals(typingctx: Any, mode: Any) -> Any:
    """The mode with subnormal numbers as they are."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x86 = binding.get_process_triple().startswith("x86_64")
        return builder.and_(args[0], ir.Constant(WORD, ~(_X86_FLUSHES if x86 else _ARM_FLUSHES)))

    return types.int64(types.int64), codegen
