"""A direct product's tiles on their way: chunks of eight numbers, copied in the background in the order of memory."""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import OCTET
from flurka_numba.targets.sm80.direct_shape import DirectProductShape
from flurka_numba.targets.sm80.product_shape import Operand
from flurka_numba.targets.sm80.product_tiles import WORDS, emit_chunk, emit_kept_words, sides_of
from splat_numba.gen.targets.gpu.parts import KernelWriter


def emit_copy(out: KernelWriter, traits: DirectProductShape, operand: Operand) -> None:
    """The next tile of an operand to ``buffer``, 0 for what is not there."""
    name = operand.name
    line_first, line_end, along_first, along_end = sides_of(operand)
    with out.part(f"copy_{name}", "Begin to copy the next tile of an operand, 0 for what is not there."):
        out.line(f"{name}_from = {name} + batch_entry * {name}_batch + batch_head * {name}_head")
        out.line(f"{name}_from = {name}_from + u64({line_first}) * {name}_line + u64(2) * u64({along_first})")
        out.line(f"in_lines = u32(1) if u32({line_first} + u32({operand.lines})) <= {line_end} else u32(0)")
        out.line(f"whole = in_lines if u32({along_first} + u32({operand.along})) <= {along_end} else u32(0)")
        with out.block("if whole != u32(0)"):
            _emit_whole(out, traits, operand)
        with out.block("if whole == u32(0)"):
            _emit_parts(out, traits, operand)


def _emit_whole(out: KernelWriter, traits: DirectProductShape, operand: Operand) -> None:
    """A thread has one chunk of every so many lines."""
    apart, name = traits.threads // operand.chunks, operand.name
    out.lines(
        f"""
        line = u32(thread // u32({operand.chunks}))
        place = u32(u32(thread % u32({operand.chunks})) * u32({OCTET}))
        at = {name}_from + u64(line) * {name}_line + u64(2) * u64(place)
        to = u32({name}_tile + buffer + u32({operand.pitch}) * line + u32(2) * place)
        """
    )
    with out.block(f"for group in range({traits.groups(operand)})"):
        out.line("ptx.async_copy(to, at, u32(1))")
        out.line(f"at = at + u64({apart}) * {name}_line")
        out.line(f"to = u32(to + u32({apart * operand.pitch}))")


def _emit_parts(out: KernelWriter, traits: DirectProductShape, operand: Operand) -> None:
    """At the matrix' edges, or at a key length. What is not whole goes through registers."""
    name = operand.name
    out.needs("kept_words", emit_kept_words)
    with out.block(f"for group in range({traits.groups(operand)})"):
        emit_chunk(out, traits, operand)
        out.lines(
            f"""
            at = {name}_from + u64(line) * {name}_line + u64(2) * u64(place)
            to = u32({name}_tile + buffer + u32({operand.pitch}) * line + u32(2) * place)
            full = u32(1) if count >= u32({OCTET}) else u32(0)
            ptx.async_copy(to, at, full)
            some = u32(1) if count != u32(0) else u32(0)
            word_0, word_1, word_2, word_3 = ptx.load_words4_when(at, u32(some - full))
            """
        )
        for i in range(WORDS):
            out.line(f"word_{i} = kept_words(word_{i}, count, u32({2 * i}))")
        out.line("ptx.store_shared_words4(to, word_0, word_1, word_2, word_3, u32(u32(1) - full))")
