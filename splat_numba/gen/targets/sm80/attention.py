"""The forward text: parameters, an item, and its tiles in two stages; what they call stands in the other files."""

from __future__ import annotations

from contextlib import nullcontext

from splat_numba.gen.boxes import Traits
from splat_numba.gen.entry import Entry
from splat_numba.gen.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import ITEM, POINTERS, STRIDES, TILE, emit_header, emit_item, emit_token
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, wrapped
from splat_numba.gen.targets.gpu.results import RESUMED, STORED, emit_epilogue
from splat_numba.gen.targets.sm80.shape import (
    ATOM,
    CHUNK,
    NOTE_BYTES,
    REGISTERS,
    atoms_of,
    resident_blocks,
    row_bytes,
    score_registers,
    shared_bytes,
    shared_layout,
    threads_of,
    total_registers,
)
from splat_numba.gen.targets.sm80.softmax import emit_masks, emit_softmax, knows_status, skips, some_kept
from splat_numba.gen.targets.sm80.tiles import (
    OPAQUE_THREAD,
    emit_load,
    emit_padding,
    emit_products,
    loads_of,
    of_atoms,
    padded,
)
from splat_numba.gen.writer import SourceWriter

ENTRY = "attention"
COUNTS = (*ITEM, "heads_q", "group", "seq_q", "seq_kv", "box_shift")
PARAMETERS = (
    *((name, "l") for name in (*POINTERS, *STRIDES)), ("scale_log2", "f"), *((name, "r") for name in COUNTS),
)  # fmt: skip


def attention_text(traits: Traits, arch: str) -> EmittedText:
    """The text of the kernel with these traits for an architecture, named after shape and type."""
    name = f"attention_sm80_{arch}_d{traits.head_dim}_{traits.dtype}_{traits.tile_q}x{traits.tile_kv}"
    blocks = max(min(traits.blocks_per_multiprocessor, resident_blocks(traits, REGISTERS)), 1)
    entry = Entry(ENTRY, PARAMETERS, threads_of(traits), blocks, shared_bytes(traits), arch=arch)
    return EmittedText(name, entry, render_attention, (traits,))


def render_attention(traits: Traits) -> str:
    """Python source of the kernel ``attention`` that serves every mask of these traits. Pure and deterministic."""
    out = SourceWriter()
    _emit_head(out, traits)
    _emit_entry(out, traits)
    _emit_tiles(out, traits)
    _emit_advance(out, traits)
    _emit_tile(out, traits)
    _emit_places_of_lane(out, traits)
    _emit_notes(out)
    emit_token(out)
    for load in loads_of(traits):
        emit_load(out, load)
    if padded(traits):
        emit_padding(out, traits)
    emit_products(out, traits)
    emit_softmax(out, traits)
    emit_epilogue(out, traits)
    emit_item(out)
    return out.text()


def _emit_head(out: SourceWriter, traits: Traits) -> None:
    """Docstring, imports, places in shared memory."""
    layout, atoms = shared_layout(traits), atoms_of(traits)
    quotes, tile = '"' * 3, f"{traits.tile_q} queries x {traits.tile_kv} keys"
    out.lines(
        f"""
        {quotes}Sparse attention by a warp's matrix products, generated for every mask that tables of boxes describe.

        head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; {tile} a tile, by
        {threads_of(traits)} threads: each warp has {ATOM * atoms} rows. A tile is fetched while one is computed.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        NONE_KEPT = f32(-np.inf)
        {DEVICE}
        wait_for_copies = ptx.async_wait(0)

        # Shared memory, in bytes from its aligned start: queries, stages, a note a warp; in a stage: keys, values.
        QUERIES, TILES, NOTES = u32({layout.queries}), u32({layout.stages}), u32({layout.notes})
        VALUES, STAGE_BYTES = u32({layout.values}), u32({layout.stage_bytes})
        """
    )


def _emit_entry(out: SourceWriter, traits: Traits) -> None:
    emit_header(out, ENTRY, (POINTERS, STRIDES, ("scale_log2",), COUNTS))
    with out.suite():
        out.lines(
            f"""
            start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
            base = u32((start + u32({CHUNK - 1})) & u32({2**32 - CHUNK}))
            """
        )
        _emit_state(out, traits)
        wrapped(out, "rank, head, entry = item_of_block", ("heads", *ITEM))
        out.lines(
            f"""
            rows_at = rows + u64({4 * traits.tile_q}) * u64(rank)
            q_at = q + u64(entry) * q_batch + u64(head) * q_head
            k_at = k + u64(entry) * k_batch + u64(head // group) * k_head
            v_at = v + u64(entry) * v_batch + u64(head // group) * v_head
            note = u32(base + NOTES + u32({NOTE_BYTES}) * u32(ptx.thread_index() >> u32(5)))
            keep_notes(note, rank, head, entry, k_at, v_at)
            copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
            """
        )
        if padded(traits):
            out.line("clear_padding(base)")
        if traits.resumes:
            _emit_places(out, traits)
            _emit_for_rows(out, traits, "resume_row", RESUMED)
        out.line("limit = seq_kv")
        if traits.ragged:
            out.line("limit = ptx.load_word(kv_lengths + u64(4) * u64(entry))")
        wrapped(out, "attend", ("block + u64(32) * u64(rank)", *_arguments(traits)[1:]))
        out.line("rank, head, entry, _ = ptx.load_shared_words4(note)")
        _emit_places(out, traits)
        _emit_for_rows(out, traits, "store_row", STORED)


def _emit_places(out: SourceWriter, traits: Traits) -> None:
    """Where a thread's rows are listed, and results of its head go: registers that the tiles are not to find taken."""
    out.lines(
        f"""
        row, column = place_in_warp({OPAQUE_THREAD})
        row_at = rows + u64({4 * traits.tile_q}) * u64(rank) + u64(4) * u64(row)
        out_at = out + u64(entry) * out_batch + u64(head) * out_head
        lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
        """
    )


def _emit_state(out: SourceWriter, traits: Traits) -> None:
    """Each atom's scores, results, peaks and sums: an empty softmax."""
    for name, size in (
        ("score", score_registers(traits)),
        ("total", total_registers(traits)),
        ("peak", 2),
        ("added", 2),
    ):
        for one in of_atoms(name, traits):
            out.line(f"{one} = cuda.local.array({size}, dtype=np.float32)")
    out.line("rescale = cuda.local.array(2, dtype=np.float32)")
    for atom in range(atoms_of(traits)):
        out.lines(
            f"""
            for i in range(2):
                peak_{atom}[i], added_{atom}[i] = NONE_KEPT, f32(0.0)
            for i in range({total_registers(traits)}):
                total_{atom}[i] = f32(0.0)
            """
        )


def _emit_for_rows(out: SourceWriter, traits: Traits, function: str, parameters: tuple[str, ...]) -> None:
    """A call for each of a thread's rows; of each atom's arrays its own."""
    for atom in range(atoms_of(traits)):
        own = {name: f"{name}_{atom}" for name in ("total", "peak", "added")}
        for row in (0, 1):
            out.line(f"q_idx = ptx.load_word(row_at + u64({4 * (ATOM * atom + 8 * row)}))")
            wrapped(out, function, (str(row), *(own.get(name, name) for name in parameters[1:])))


def _state(traits: Traits) -> tuple[str, ...]:
    return (*of_atoms("score total peak added", traits), "rescale")


def _arguments(traits: Traits) -> tuple[str, ...]:
    """Of ``attend``, which goes through the tiles of a row block."""
    bits = ("bits",) * traits.partial
    return ("block_at", "piece", "views", *bits, "k_row", "v_row", "base", "note", "scale_log2",
            *_state(traits), "box_shift", "limit")  # fmt: skip


def _next(traits: Traits) -> tuple[str, ...]:
    """What is known of the tile that is fetched next."""
    masks = ("mask",) * knows_status(traits)
    return ("place", "count", "corner", "inner_step", "outer_step", *masks)


def _emit_tiles(out: SourceWriter, traits: Traits) -> None:
    """A step fetches a tile and computes the one before, whose numbers go by names of their own."""
    ahead = _next(traits)
    text = "All tiles of a row block: while one is computed the next is fetched."
    with device_function(out, "attend", _arguments(traits), text):
        out.lines(
            """
            fetched = u32(base + TILES)
            place = ptx.load_word(block_at + u64(12))
            left = ptx.load_word(block_at + u64(20))
            computing = u32(0)
            """
        )
        out.line(f"{' = '.join(('stage', *ahead[1:]))} = u32(0)")
        with out.block("while left + computing > u32(0)"):
            now = _now(traits)
            if now:
                out.line(f"{', '.join(f'{name}_now' for name in now)} = {', '.join(now)}")
            out.lines(
                """
                if computing > u32(0):
                    wait_for_copies()
                    ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
                """
            )
            with out.block("if left > u32(0)"):
                wrapped(out, f"{', '.join(ahead)} = next_tile", ("piece", "views", *ahead))
                _emit_fetch(out, traits)
            out.line("ptx.async_commit()")
            with out.block("if computing > u32(0)" + " and corner_now < limit" * traits.ragged):
                wrapped(out, "attend_tile", _tile_values(traits))
            out.line("stage = u32(STAGE_BYTES - stage)")
            out.lines(
                """
                computing = u32(1) if left > u32(0) else u32(0)
                left = u32(left - computing)
                """
            )


def _now(traits: Traits) -> tuple[str, ...]:
    """What is still wanted of a tile when it is computed."""
    return (*("corner", "inner_step") * traits.ragged, *("mask",) * knows_status(traits))


def _emit_fetch(out: SourceWriter, traits: Traits) -> None:
    """What is wholly beyond the length is not fetched."""
    where = ", ".join(TILE)
    with out.block("if corner < limit") if traits.ragged else nullcontext():
        out.line("k_at, v_at = keys_and_values(note)")
        out.line(f"copy_keys(k_at, k_row, u32(fetched + stage), {where})")
        out.line(f"copy_values(v_at, v_row, u32(fetched + VALUES + stage), {where})")


def _emit_advance(out: SourceWriter, traits: Traits) -> None:
    ahead = _next(traits)
    parameters = ("piece", "views", *ahead)
    text = "The next tile of the piece, or the first of the next piece."
    with device_function(out, "next_tile", parameters, text):
        out.lines(
            """
            if count == u32(0):
                view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
                offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
                corner = u32(offset + inner_step * c1 + outer_step * c2)
            """
        )
        with out.suite():
            if knows_status(traits):
                _emit_status(out, traits)
            out.line("place = u32(place + u32(1))")
        out.lines(
            f"""
            else:
                corner = u32(corner + u32({traits.tile_kv}) * inner_step)
            count = u32(count - u32(1))
            return {", ".join(ahead)}
            """
        )


def _emit_status(out: SourceWriter, traits: Traits) -> None:
    """Of the warp's group, in a word: what it keeps of the tile in two bits, above them which mask that is."""
    out.line("status, mask, other, _ = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))")
    if traits.groups == 1:
        out.line("mask = u32(u32(mask << u32(2)) | u32(status & u32(3)))")
        return
    out.line(
        f"second = u32(ptx.thread_index() // u32({threads_of(traits) // 2}))  # which group the warp's rows are of"
    )
    out.line("status = u32(u32(status >> u32(u32(2) * second)) & u32(3))")
    out.line("mask = u32(u32(ptx.select(other, mask, second) << u32(2)) | status)")


def _tile_parameters(traits: Traits) -> tuple[str, ...]:
    masks = ("mask",) * knows_status(traits)
    table = ("bits",) * traits.partial
    lengths = ("corner", "inner_step", "limit") * traits.ragged
    return (*masks, *table, *lengths, "base", "tile", "scale_log2", *_state(traits))


def _tile_values(traits: Traits) -> tuple[str, ...]:
    """What stands for the parameters: the tile was fetched to the other stage."""
    other = "u32(STAGE_BYTES - stage)"
    own = {
        "mask": "mask_now", "corner": "corner_now", "inner_step": "inner_step_now",
        "tile": f"u32(fetched + {other})",
    }  # fmt: skip
    return tuple(own.get(name, name) for name in _tile_parameters(traits))


def _emit_tile(out: SourceWriter, traits: Traits) -> None:
    parameters = _tile_parameters(traits)
    text = "One tile: scores, weights, and its values."
    with device_function(out, "attend_tile", parameters, text):
        out.line("queries, keys, values, row, column = places(base, tile)")
        if skips(traits):
            with out.block(f"if {some_kept()}"):
                _emit_steps(out, traits)
        else:
            _emit_steps(out, traits)


def _emit_places_of_lane(out: SourceWriter, traits: Traits) -> None:
    """Made anew for every tile: the registers that this leaves are those that 128 queries x 64 keys lack."""
    pitch, value_pitch = row_bytes(traits.head_dim), row_bytes(traits.value_dim)
    rows = ATOM * atoms_of(traits)
    text = "Where a lane's rows of the first matrices of queries, keys and values begin; its row and column of scores."
    with device_function(out, "places", ("base", "tile"), text):
        out.lines(
            f"""
            thread = {OPAQUE_THREAD}
            lane, first_row = u32(thread & u32(31)), u32(u32(thread >> u32(5)) * u32({rows}))
            row, column = place_in_warp(thread)
            upper = u32(u32(lane >> u32(4)) * u32({CHUNK}))
            queries = u32(base + QUERIES + u32(first_row + u32(lane & u32(15))) * u32({pitch}) + upper)
            key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
            keys = u32(tile + key_row * u32({pitch}) + u32(u32(lane >> u32(3)) & u32(1)) * u32({CHUNK}))
            values = u32(tile + VALUES + u32(lane & u32(15)) * u32({value_pitch}) + upper)
            return queries, keys, values, row, column
            """
        )
    text = "A thread's first row of the block's, and its first column of each eight."
    with device_function(out, "place_in_warp", ("thread",), text):
        out.lines(
            f"""
            row = u32(u32(thread >> u32(5)) * u32({rows}) + u32(u32(thread & u32(31)) >> u32(2)))
            return row, u32(u32(thread & u32(3)) * u32(2))
            """
        )


def _emit_notes(out: SourceWriter) -> None:
    """Which item it is, and where its keys and values are: known to a warp, but not in registers."""
    with device_function(out, "keep_notes", ("note", "rank", "head", "entry", "k_at", "v_at"), "For each warp."):
        halves = ", ".join(f"u32({one} & u64({2**32 - 1})), u32({one} >> u64(32))" for one in ("k_at", "v_at"))
        out.lines(
            f"""
            first = u32(1) if u32(ptx.thread_index() & u32(31)) == u32(0) else u32(0)
            ptx.store_shared_words4(note, rank, head, entry, u32(0), first)
            ptx.store_shared_words4(u32(note + u32({CHUNK})), {halves}, first)
            ptx.warp_barrier()
            """
        )
    with device_function(out, "keys_and_values", ("note",), "Where keys and values of the item's head are."):
        out.lines(
            f"""
            k_low, k_high, v_low, v_high = ptx.load_shared_words4(u32(note + u32({CHUNK})))
            return u64(u64(k_low) | (u64(k_high) << u64(32))), u64(u64(v_low) | (u64(v_high) << u64(32)))
            """
        )


def _emit_steps(out: SourceWriter, traits: Traits) -> None:
    scores, totals = of_atoms("score", traits), of_atoms("total", traits)
    wrapped(out, "multiply_keys", (*scores, "queries", "keys"))
    if traits.negate:
        for name in scores:
            out.line(f"negate({name})")
    emit_masks(out, traits)
    for atom in range(atoms_of(traits)):
        out.line(f"softmax(score_{atom}, scale_log2, peak_{atom}, added_{atom}, rescale)")
        out.line(f"bring_to_peak(total_{atom}, rescale)")
    wrapped(out, "multiply_values", (*totals, *scores, "values"))
