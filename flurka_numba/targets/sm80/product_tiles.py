"""The tiles of a tensor-core product on their way: eight numbers at a time from memory to registers, and from there in
pieces to shared memory, in the order in which memory has them.
"""

from __future__ import annotations

from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu.lanes import OCTET, QUAD, QUAD_BYTES, quad_of
from flurka_numba.targets.sm80.direct_shape import DirectProductShape
from flurka_numba.targets.sm80.product_shape import Operand, WarpProductShape
from flurka_numba.targets.sm80.rows_shape import RowsProductShape
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.parts import KernelWriter

AnyShape = WarpProductShape | DirectProductShape | RowsProductShape
WORDS = OCTET // 2  # of a chunk of 16-bit numbers
ONE = {"bfloat16": 0x3F80, "float16": 0x3C00}  # 1 in 16 bits


def sides_of(operand: Operand) -> tuple[str, str, str, str]:
    """Where a tile's lines begin and end in the matrix, and where their numbers do."""
    side = ("first_row", "a_end") if operand.name == "a" else ("first_column", "b_end")
    deep = "from_depth", f"{operand.name}_deep_end"
    lines_are_deep = operand.turned if operand.name == "a" else not operand.turned
    return (*deep, *side) if lines_are_deep else (*side, *deep)


def emit_got(out: KernelWriter, traits: AnyShape, operand: Operand) -> None:
    """Registers for what is fetched."""
    held = "float32" if operand.dtype == "float32" else "uint32"
    count = traits.groups(operand) * operand.words
    out.line(f"got_{operand.name} = cuda.local.array({count}, dtype=np.{held})")


def emit_chunk(out: KernelWriter, traits: AnyShape, operand: Operand) -> None:
    """Which chunk is a thread's next: ``line``, ``place`` along it, and ``count`` of its numbers that are there."""
    line_first, line_end, along_first, along_end = sides_of(operand)
    out.lines(
        f"""
        number = u32(thread + u32({traits.threads}) * u32(group))
        line = u32(number // u32({operand.chunks}))
        place = u32(u32(number - line * u32({operand.chunks})) * u32({OCTET}))
        count = count_in_chunk(u32({line_first} + line), {line_end}, u32({along_first} + place), {along_end})
        """
    )
    if operand.lines * operand.chunks % traits.threads:
        out.line(f"count = count if line < u32({operand.lines}) else u32(0)")
    out.needs("count_in_chunk", emit_count)


def emit_count(out: SourceWriter) -> None:
    """The function that all ways have."""
    text = "How many numbers of a line there are from a place on."
    with device_function(out, "count_in_chunk", ("line", "line_end", "place", "end"), text):
        out.lines(
            """
            left = u32(end - place) if place < end else u32(0)
            return left if line < line_end else u32(0)
            """
        )


def emit_fetch(out: KernelWriter, traits: AnyShape, operand: Operand) -> None:
    """The next tile's numbers into registers; nothing is done with them here, which would wait for memory."""
    name, size = operand.name, ITEMSIZE[operand.dtype]
    line_first, _, along_first, _ = sides_of(operand)
    with out.part(f"fetch_{name}", "The next tile's numbers into registers."):
        out.line(f"{name}_from = {name} + batch_entry * {name}_batch + batch_head * {name}_head")
        out.line(f"{name}_from = {name}_from + u64({line_first}) * {name}_line + u64({size}) * u64({along_first})")
        with out.block(f"for group in range({traits.groups(operand)})"):
            emit_chunk(out, traits, operand)
            out.line(f"at = {name}_from + u64(line) * {name}_line + u64({size}) * u64(place)")
            first = f"{operand.words} * group + "
            if size == 2:
                out.line("when = u32(1) if count != u32(0) else u32(0)")
                out.line(f"{quad_of(f'got_{name}', 0, first)} = ptx.load_words4_when(at, when)")
                return
            for half in (0, 1):
                out.line(f"there = at + u64({QUAD_BYTES * half}) if count > u32({QUAD * half}) else {name}")
                out.line(f"{quad_of(f'got_{name}', QUAD * half, first)} = ptx.load_reals4(there)")


def emit_store_tile(out: KernelWriter, traits: AnyShape, operand: Operand) -> None:
    """What was fetched to shared memory, 0 for what is not there, ones where they stand in for a place."""
    name = operand.name
    with (
        out.part(f"store_{name}", "What was fetched into shared memory, in pieces."),
        out.block(f"for group in range({traits.groups(operand)})"),
    ):
        emit_chunk(out, traits, operand)
        if operand.ones:
            out.line(f"one = u32({name}_ones - u32({sides_of(operand)[2]} + place))  # its place in the chunk")
        whole = operand.lines * operand.chunks % traits.threads == 0
        out.line("mine = u32(1)" if whole else f"mine = u32(1) if line < u32({operand.lines}) else u32(0)")
        out.line(f"to = u32({name}_tile + buffer + u32({operand.pitch}) * line + u32(2) * place)")
        (_emit_pieces if operand.widened else _emit_words)(out, operand)


def _emit_words(out: KernelWriter, operand: Operand) -> None:
    """16-bit numbers as they are."""
    out.needs("kept_words", emit_kept_words)
    for i in range(WORDS):
        out.line(f"word_{i} = kept_words(got_{operand.name}[{WORDS} * group + {i}], count, u32({2 * i}))")
        if operand.ones:
            for x in (0, 1):
                one = f"u32({ONE[operand.kind] << 16 * x})"
                out.line(f"word_{i} = u32(word_{i} | {one}) if one == u32({2 * i + x}) else word_{i}")
    out.line("ptx.store_shared_words4(to, word_0, word_1, word_2, word_3, mine)")


def emit_kept_words(out: SourceWriter) -> None:
    """The function that both ways have."""
    text = "Two numbers of a chunk, 0 for those beyond its count."
    with device_function(out, "kept_words", ("word", "count", "first"), text):
        out.lines(
            """
            word = ptx.select(word, u32(0), u32(1) if count > first else u32(0))
            return ptx.select(word, u32(word & u32(65535)), u32(1) if count > u32(first + u32(1)) else u32(0))
            """
        )


def _emit_pieces(out: KernelWriter, operand: Operand) -> None:
    """Numbers as float32, through the feature map, and as pieces."""
    emit_piece_words(out, operand)
    out.line("ptx.store_shared_words4(to, word_0, word_1, word_2, word_3, mine)")
    out.line(f"to = u32(to + u32({operand.piece_bytes}))")
    out.line("ptx.store_shared_words4(to, rest_0, rest_1, rest_2, rest_3, mine)")


def emit_piece_words(out: KernelWriter, operand: Operand) -> None:
    """``word_i`` and ``rest_i``: the pieces of a chunk's numbers."""
    name = operand.name
    out.needs("pieces_of", emit_pieces_of)
    for i in range(WORDS):
        if operand.dtype == "float32":
            names = [f"got_{name}[{OCTET} * group + {2 * i + x}]" for x in (0, 1)]
        else:
            out.line(f"x_0, x_1 = ptx.unpack_{operand.dtype}(got_{name}[{WORDS} * group + {i}])")
            names = ["x_0", "x_1"]
        for x in (0, 1):
            value = names[x]
            if operand.feature_map is not None:
                out.line(f"x = {value}")
                value = gpu_text(operand.feature_map.source, "x")
            when = f"u32(1) if count > u32({2 * i + x}) else u32(0)"
            out.line(f"y_{x} = ptx.select_real({value}, f32(0.0), {when})")
            if operand.ones:
                out.line(f"y_{x} = ptx.select_real(f32(1.0), y_{x}, u32(1) if one == u32({2 * i + x}) else u32(0))")
        out.line(f"word_{i}, rest_{i} = pieces_of(y_0, y_1)")


def emit_pieces_of(out: SourceWriter) -> None:
    """The first piece is cut, not rounded: rounded, numbers near the largest would become infinite."""
    text = "Two numbers as bfloat16, cut, and what that leaves, rounded; of what is infinite nothing."
    with device_function(out, "pieces_of", ("x_0", "x_1"), text):
        out.lines(
            """
            word = u32(u32(ptx.real_bits(x_0) >> u32(16)) | u32(ptx.real_bits(x_1) & u32(4294901760)))
            cut_0, cut_1 = ptx.unpack_bfloat16(word)
            x_0, x_1 = x_0 - cut_0, x_1 - cut_1
            x_0 = ptx.select_real(x_0, f32(0.0), u32(1) if x_0 == x_0 else u32(0))
            x_1 = ptx.select_real(x_1, f32(0.0), u32(1) if x_1 == x_1 else u32(0))
            return word, ptx.pack_bfloat16(x_0, x_1)
            """
        )
