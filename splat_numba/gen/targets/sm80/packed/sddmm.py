"""Sampled products in tiles: a dense product of a warp's queries with 64 keys, of which what is kept is stored.

Scores wait in shared memory, each row at its own ``shift``, until they fill chunks: up to sixteen values of a tile are
stored with the next one, so that all but a row's ends goes by whole sectors of 32 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.language.dtypes import IEEE
from splat_numba.gen.language.lane_layout import ATOM, MATRIX, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.packed_walk import COUNTS, LISTED, PLACES, TABLES
from splat_numba.gen.targets.sm80.packed.stored import OF_TILE, WAITING, emit_stored
from splat_numba.gen.targets.sm80.packed.traits import HALF, TiledTraits
from splat_numba.gen.targets.sm80.packed.walk import emit_begin, emit_bring, emit_head, load_of, queries_of
from splat_numba.gen.targets.sm80.real_products import emit_real_helpers, emit_real_row_product
from splat_numba.gen.targets.sm80.repair import emit_repair
from splat_numba.gen.targets.sm80.shape import CHUNK, STAGES, row_bytes
from splat_numba.gen.targets.sm80.tiles import (
    ZEROS,
    RowProduct,
    emit_add,
    emit_load,
    emit_padding,
    emit_row_product,
    of_atoms,
    of_stages,
    padded,
)

ARRAYS = ("q", "k", "values")


def parameter_names() -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts. share: heads of queries that have one of keys."""
    return (*TABLES, *ARRAYS), ("scale",), COUNTS


def render_sddmm(traits: TiledTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    emit_head(out, traits, "Sampled products of queries and keys")
    out.line(f"PACKED, NOTES, QUERIES = u32({traits.packed_at}), u32({traits.notes_at}), u32({traits.queries_at})")
    emit_begin(out, traits, groups)
    with out.suite():
        _emit_entry(out, traits)
    _emit_places(out, traits)
    _emit_put(out, traits)
    emit_stored(out, traits)
    keys = load_of("keys", traits, multiplied=True)
    emit_load(out, queries_of(traits))
    emit_bring(out, keys)
    if padded((traits.dim,), traits.itemsize):
        emit_padding(
            out, [(queries_of(traits), ["base + QUERIES"]), (keys, of_stages("base", traits.stage_bytes, STAGES))]
        )
    texts = ("Scores of a warp's rows with a tile's keys.", "Sixteen numbers of each row and key.")
    product = RowProduct(
        "multiply_keys", of_atoms("score", traits.atoms), "queries", "keys", TILE_PLACES, traits.dim, texts
    )
    if traits.itemsize == HALF:
        emit_row_product(out, product)
        emit_add(out, traits.dtype)
    else:
        emit_real_row_product(out, product, IEEE)
        emit_repair(out, product)
        emit_real_helpers(out, IEEE)
    return out.text()


def _emit_entry(out: SourceWriter, traits: TiledTraits) -> None:
    where, of_tile, rows = ", ".join(PLACES), ", ".join(OF_TILE), ATOM * traits.atoms
    halves = traits.itemsize == HALF
    scores = of_atoms("score", traits.atoms)
    out.lines(
        f"""
        notes = u32(base + NOTES + u32({CHUNK * rows}) * warp)
        packed = u32(base + PACKED + u32({rows * traits.packed_row}) * warp)
        q_at = q + u64(entry) * q_batch + u64(head) * q_head
        k_at = k + u64(entry) * k_batch + u64(head // share) * k_head
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        keep_notes(rows_at, u32(base + NOTES), thread, values_at, corner)
        copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
        bring_keys(k_at, k_row, base, {where})
        ptx.async_commit()
        """
    )
    if padded((traits.dim,), traits.itemsize):
        out.line("clear_padding(base)")
    out.lines(
        f"""
        clear_packed(packed, lane)
        queries, keys = places(base, lane, warp)
        rows_of_warp = rows_at + u64({LISTED * rows}) * u64(warp)
        """
    )
    for score in scores:
        out.line(f"{score} = cuda.local.array({TILE_PLACES // 2}, dtype=np.float32)")
    for i in range(rows // MATRIX):
        which = f"u32(u32(lane >> u32(2)) + u32({MATRIX * i}))"
        names = f"to_{i}, odd_{i}" if halves else f"to_{i}"
        out.line(f"{names} = place_of_row(rows_of_warp, packed, values_at, corner, lane, {which})")
    _emit_tiles(out, traits, scores)
    out.line("ptx.warp_barrier()")
    out.line("part = u32(0)")
    with out.block(f"for i in range({traits.atoms})"):
        which = f"u32(u32({ATOM} * i) + u32(lane // u32({WAITING})))"
        name = "store_odd" if halves else "store_whole"
        out.line(f"part = part | {name}({which}, u32(lane & u32({WAITING - 1})), {of_tile})")
    with out.block("if ptx.any_lane(part) != u32(0)"):
        out.line(f"store_parts(lane, u32({WAITING}), {of_tile})")


def _emit_tiles(out: SourceWriter, traits: TiledTraits, scores: Sequence[str]) -> None:
    """A warp leaves out a tile of which none of its rows keeps anything, nor anything that waits for it."""
    rows, halves = ATOM * traits.atoms, traits.itemsize == HALF
    some_odd = " | ".join(f"odd_{i}" for i in range(rows // MATRIX))
    out.lines(
        f"""
        _, _, first, reach = ptx.load_words4(rows_of_warp + u64({LISTED}) * u64(lane & u32({rows - 1})))
        reach = u32(reach + u32({TILE_PLACES + traits.of_sector - 1})) if reach > u32(0) else u32(0)
        {f"some_odd = ptx.any_lane({some_odd})" if halves else ""}
        while tiles > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            here, now = corner, u32(keys + stage)
            tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES})), u32(STAGE_BYTES - stage)
            if tiles > u32(0):
                bring_keys(k_at, k_row, u32(base + stage), {", ".join(PLACES)})
            ptx.async_commit()
            mine = u32(1) if u32(corner - u32(first + u32(1))) < reach else u32(0)
            if ptx.any_lane(mine) != u32(0):
                multiply_keys({", ".join(scores)}, queries, now)
        """
    )
    with out.suite(), out.suite():
        if not halves:
            out.line(f"repair_scores({', '.join(scores)}, queries, now)")
        for i in range(rows // MATRIX):
            out.line(f"put_scores({scores[i // 2]}, scale, to_{i}, {i % 2})")
        out.lines(
            f"""
            ptx.warp_barrier()
            store_tile(lane, {"some_odd, " * halves}notes, packed, values_at, here)
            ptx.warp_barrier()
            keep_waiting(packed, lane)
            """
        )


def _emit_places(out: SourceWriter, traits: TiledTraits) -> None:
    pitch, halves = row_bytes(traits.dim, traits.itemsize), traits.itemsize == HALF
    text = "Where a lane's rows of the first matrices of queries and keys begin."
    with device_function(out, "places", ("base", "lane", "warp"), text):
        out.lines(
            f"""
            upper = u32(u32(lane >> u32(4)) * u32({CHUNK}))
            row = u32(u32(warp * u32({ATOM * traits.atoms})) + u32(lane & u32(15)))
            queries = u32(base + QUERIES + row * u32({pitch}) + upper)
            key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
            keys = u32(base + key_row * u32({pitch}) + u32(u32(lane >> u32(3)) & u32(1)) * u32({CHUNK}))
            return queries, keys
            """
        )
    text = (
        "Of one of a warp's rows, where a lane's first word of scores goes, and whether it is a half too early there."
    )
    parameters = ("rows_of_warp", "packed", "values_at", "corner", "lane", "which")
    with device_function(out, "place_of_row", parameters, text):
        out.lines(
            f"""
            slot = ptx.load_word(rows_of_warp + u64({LISTED}) * u64(which) + u64(4))
            shift = shift_of(values_at, slot, corner)
            to = u32(packed + u32({traits.packed_row}) * which + u32({CHUNK}))
            """
        )
        word = (
            "u32(u32(shift >> u32(1)) + u32(lane & u32(3)))"
            if halves
            else "u32(shift + u32(u32(2) * u32(lane & u32(3))))"
        )
        out.line(f"return u32(to + u32(4) * {word}){', u32(shift & u32(1))' if halves else ''}")
    text = "Values of the sector of a tile's first value that stand before it: of a row always as many."
    with device_function(out, "shift_of", ("values_at", "slot", "corner"), text):
        first = f"u32(values_at >> u64({traits.itemsize // 2}))"
        out.line(f"return u32(u32({first} + slot + corner) & u32({traits.of_sector - 1}))")


def _emit_put(out: SourceWriter, traits: TiledTraits) -> None:
    with device_function(out, "clear_packed", ("packed", "lane"), "What no tile has written yet is read all the same."):
        chunks = ATOM * traits.atoms * traits.packed_row // CHUNK
        turns = -(-chunks // WARP)
        with out.block(f"for i in range({turns})"):
            out.line(f"chunk = u32(lane + u32({WARP} * i))")
            out.line(f"mine = u32(1) if chunk < u32({chunks}) else u32(0)")
            out.line(f"ptx.store_shared_words4(u32(packed + u32({CHUNK}) * chunk), {ZEROS}, mine)")
    two = [f"score[4 * j + 2 * half + {x}] * scale" for x in (0, 1)]
    text = f"Scores of one of a lane's rows{', two a word' if traits.itemsize == HALF else ''}."
    function = device_function(out, "put_scores", ("score", "scale", "to", "half"), text)
    with function, out.block(f"for j in range({TILE_PLACES // 8})"):
        if traits.itemsize == HALF:
            pair = f"ptx.pack_{traits.dtype}({', '.join(two)})"
            out.line(f"ptx.store_shared_word(u32(to + u32({CHUNK} * j)), {pair}, u32(1))")
            return
        for x, number in enumerate(two):
            at = f"u32(to + u32({2 * CHUNK} * j + {4 * x}))"
            out.line(f"ptx.store_shared_word({at}, ptx.real_bits({number}), u32(1))")
