"""Queries of float32 as numbers of TF32 and their rests, made once for an item: else every tile makes them anew."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_layout import ATOM, LEFT_WORDS, WARP, log2
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.sm80.shape import CHUNK, atoms_of, row_bytes, row_chunks, shared_layout
from splat_numba.gen.targets.sm80.tiles import OPAQUE_THREAD

INFINITE = "u32(0x7F800000)"  # without its sign
CALL = """
ptx.async_commit()
wait_for_copies()
ptx.block_barrier()
keep_rests(u32(base + QUERIES))
"""


def emit_rests(out: SourceWriter, traits: Traits) -> None:
    """``keep_rests``: a warp's own rows, of which no other warp reads any. An infinite number stays what it is, and its
    rest is not 0: what scores of that are is what `repair` finds.
    """
    size = ITEMSIZE[traits.dtype]
    pitch, chunks, rows = row_bytes(traits.head_dim, size), row_chunks(traits.head_dim, size), ATOM * atoms_of(traits)
    words, numbers, rests = ([f"{name}_{i}" for i in range(LEFT_WORDS)] for name in "war")
    text = "A warp's queries become numbers of TF32, and their rests stand apart."
    with device_function(out, "keep_rests", ("queries",), text):
        out.line(f"thread = {OPAQUE_THREAD}")
        out.line(f"first_row = u32(u32(thread >> u32({log2(WARP)})) * u32({rows}))")
        out.line(f"number = u32(thread & u32({WARP - 1}))")
        with out.block(f"while number < u32({rows * chunks})"):
            out.line(f"row = u32(number // u32({chunks}))")
            out.line(f"chunk = u32(number - row * u32({chunks}))")
            out.line(f"at = u32(queries + u32(first_row + row) * u32({pitch}) + chunk * u32({CHUNK}))")
            out.line(f"{', '.join(words)} = ptx.load_shared_words4(at)")
            out.line(f"{', '.join((*numbers, *rests))} = split_left({', '.join(words)})")
            for word, number, rest in zip(words, numbers, rests, strict=True):
                out.line(f"infinite = u32(1) if u32({rest} & u32(0x7FFFFFFF)) == {INFINITE} else u32(0)")
                out.line(f"{number} = ptx.select({word}, {number}, infinite)")
            out.line(f"ptx.store_shared_words4(at, {', '.join(numbers)}, u32(1))")
            out.line(
                f"ptx.store_shared_words4(u32(at + u32({shared_layout(traits).rests})), {', '.join(rests)}, u32(1))"
            )
            out.line(f"number = u32(number + u32({WARP}))")
        out.line("ptx.warp_barrier()  # all lanes read them")
