"""What a kernel of keys does more where its slopes are kept: it stores them as images, in the order of their reader.

An image is the slopes of 64 queries x 64 keys, two queries a word. Of 16 keys x 32 queries a lane has eight words, four
of each of its two rows, which it stores side by side: so 16 bytes are a key's slopes of queries 8 i + 2 t and the next,
i below 4, where t is the lane's place in its row. Eight such rows of 16 bytes, of eight keys and one t, are a matrix
that `ldmatrix` transposes on its way to the reader, whose rows then are queries in that order: it needs no instruction
but this one. Bytes of an image: 2048 for each 16 keys, of these 1024 for each 32 queries, of these 512 for each eight
keys, in which lane l has chunk l ^ (l / 8): eight keys of one t lie in different banks then.
"""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, LEFT_WORDS, MATRIX, SUMS, WARP, log2
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.sm80.backward.shape import (
    NOTE_BYTES,
    PRESENT_BYTES,
    atoms_of,
    columns_at_once,
    row_threads,
)
from splat_numba.gen.targets.sm80.backward.slopes import part_of
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.shape import CHUNK
from splat_numba.gen.targets.sm80.tiles import OPAQUE_THREAD

PART_QUERIES = LEFT_WORDS * MATRIX  # whose slopes a lane stores at once
KEYS_BYTES = CHUNK * WARP  # of eight keys and so many queries
PART_BYTES = KEYS_BYTES * LANE_ROWS  # of sixteen
ATOM_BYTES = IMAGE_BYTES * ATOM // 64  # of sixteen keys and all queries


def emit_present(out: SourceWriter, traits: GradientTraits) -> None:
    """At the entry: all bits of a word for each row that is no padding."""
    out.lines(
        f"""
        place = ptx.thread_index()
        mine = u32(1) if place < u32({traits.boxes.tile_q}) else u32(0)
        token = ptx.load_word(rows_at + u64(4) * u64(place if mine != u32(0) else u32(0)))
        present = u32({2**32 - 1}) if token < seq_left else u32(0)
        ptx.store_shared_word(u32(base + PRESENT + u32({PRESENT_BYTES}) * place), present, mine)
        """
    )


def emit_first_image(out: SourceWriter, traits: GradientTraits) -> None:
    """At the entry: where images of this row block and head begin."""
    first = f"u64({traits.boxes.groups}) * u64(ptx.load_word(block + u64(32) * u64(rank) + u64(24)))"
    out.line(f"first_image = {first}")
    out.line(f"slopes_at = slopes + u64({IMAGE_BYTES}) * (u64(entry * listed + first) * u64(images) + first_image)")


def emit_keep(out: SourceWriter, traits: GradientTraits, slopes: Sequence[str]) -> None:
    """In a tile, when slopes are made; a store waits for nobody. slopes: names of every atom's."""
    part = part_of(traits)
    out.line(f"thread = {OPAQUE_THREAD}")
    parts = f" + u64({PART_BYTES * columns_at_once(traits) // PART_QUERIES}) * u64({part})" * bool(part)
    out.line(f"image = images_of_tile({_note('thread')})")
    if traits.paired:
        out.line(f"thread = u32(thread & u32({row_threads(traits) - 1}))")
    out.line(f"image = image + u64(place_in_image(thread)){parts}")
    for atom, name in enumerate(slopes):
        to = f"image + u64({ATOM_BYTES * atom})" if atom else "image"
        if traits.padded:
            for row in range(LANE_ROWS):
                at = f"base + PRESENT + u32({PRESENT_BYTES}) * u32(row + u32({ATOM * atom + MATRIX * row}))"
                out.line(f"keep_{row} = ptx.load_shared_word(u32({at}))")
        kept = ", keep_0, keep_1" * traits.padded
        out.line(f"keep_slopes({name}, {to}{kept})")


def emit_next_images(out: SourceWriter) -> None:
    """At a tile's end: the next one's images follow."""
    out.line(f"to_next_images({_note(OPAQUE_THREAD)})")


def _note(thread: str) -> str:
    """Of the thread's warp."""
    return f"u32(base + NOTES + u32({NOTE_BYTES}) * u32({thread} >> u32({log2(WARP)})))"


def emit_keeping(out: SourceWriter, traits: GradientTraits) -> None:
    """The functions that these call."""
    _emit_images(out, traits)
    rows = f"u32({log2(WARP)})) * u32({ATOM_BYTES * atoms_of(traits)})"
    text = "Where in a row block's images this thread's words of its first rows are."
    with device_function(out, "place_in_image", ("thread",), text):
        out.line(f"lane = u32(thread & u32({WARP - 1}))")
        out.line(f"return u32(u32(thread >> {rows} + u32({CHUNK}) * u32(lane ^ u32(lane >> u32({log2(MATRIX)}))))")
    kept = tuple(f"keep_{row}" for row in range(LANE_ROWS)) * traits.padded
    text = "Slopes of sixteen keys, in the arrays' dtype, to memory."
    with device_function(out, "keep_slopes", ("slope", "image", *kept), text):
        for first in range(0, columns_at_once(traits) // MATRIX, LEFT_WORDS):
            for row in range(LANE_ROWS):
                to = PART_BYTES * (first // LEFT_WORDS) + KEYS_BYTES * row
                mask = f", {kept[row]}" if kept else ""
                out.line(f"keep_words({SUMS * first + LANE_COLUMNS * row}, slope, image + u64({to}){mask})")
    with device_function(out, "keep_words", ("at", "slope", "to", *("keep",) * traits.padded), "Four of a row."):
        for i in range(LEFT_WORDS):
            pair = ", ".join(f"slope[at + {SUMS * i + x}]" for x in range(LANE_COLUMNS))
            word = f"ptx.pack_{traits.boxes.dtype}({pair})"
            out.line(f"word_{i} = u32({word} & keep)" if traits.padded else f"word_{i} = {word}")
        out.line(f"ptx.store_words4(to, {', '.join(f'word_{i}' for i in range(LEFT_WORDS))}, u32(1))")


def _emit_images(out: SourceWriter, traits: GradientTraits) -> None:
    """Kept in the warp's note, behind where levels are: a tile leaves no register for it."""
    note = f"ptx.load_shared_words4(u32(note + u32({2 * CHUNK})))"
    with device_function(out, "images_of_tile", ("note",), "Where the tile's images go."):
        out.line(f"_, _, low, high = {note}")
        out.line("return u64(u64(low) | (u64(high) << u64(32)))")
    with device_function(out, "to_next_images", ("note",), "Where the next tile's images go."):
        out.lines(
            f"""
            levels_low, levels_high, low, high = {note}
            ptx.warp_barrier()  # every lane has read it
            image = u64(u64(low) | (u64(high) << u64(32))) + u64({IMAGE_BYTES * traits.boxes.groups})
            low, high = u32(image & u64({2**32 - 1})), u32(image >> u64(32))
            first = u32(1) if u32(ptx.thread_index() & u32({WARP - 1})) == u32(0) else u32(0)
            ptx.store_shared_words4(u32(note + u32({2 * CHUNK})), levels_low, levels_high, low, high, first)
            ptx.warp_barrier()
            """
        )
