"""An item's tiles in two stages: one is fetched while the other is computed, with one barrier a tile."""

from __future__ import annotations

from contextlib import nullcontext

from splat_numba.gen.boxes import Traits
from splat_numba.gen.lane_layout import ATOM, LANE_COLUMNS, MATRIX, ROW_LANES, log2
from splat_numba.gen.machine import WARP
from splat_numba.gen.targets.gpu.addresses import TILE
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.shape import (
    CHUNK,
    atoms_of,
    row_bytes,
    threads_of,
)
from splat_numba.gen.targets.sm80.softmax import emit_masks, knows_status, skips, some_kept
from splat_numba.gen.targets.sm80.tiles import (
    OPAQUE_THREAD,
    of_atoms,
)
from splat_numba.gen.writer import SourceWriter


def emit_stages(out: SourceWriter, traits: Traits) -> None:
    """The loop ``attend``, and what it calls between copies and products."""
    _emit_tiles(out, traits)
    _emit_advance(out, traits)
    _emit_tile(out, traits)
    _emit_places_of_lane(out, traits)
    _emit_notes(out)


def _state(traits: Traits) -> tuple[str, ...]:
    return (*of_atoms("score total peak added", traits), "rescale")


def arguments(traits: Traits) -> tuple[str, ...]:
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
    with device_function(out, "attend", arguments(traits), text):
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
    # Of the four matrices that ldmatrix moves at once, the pair that this lane gives a row of, and its row of the pair.
    two, of_two = f"u32(lane >> u32({log2(ATOM)}))", f"u32(lane & u32({ATOM - 1}))"
    text = "Where a lane's rows of the first matrices of queries, keys and values begin; its row and column of scores."
    with device_function(out, "places", ("base", "tile"), text):
        out.lines(
            f"""
            thread = {OPAQUE_THREAD}
            lane, first_row = u32(thread & u32({WARP - 1})), u32(u32(thread >> u32({log2(WARP)})) * u32({rows}))
            row, column = place_in_warp(thread)
            upper = u32({two} * u32({CHUNK}))
            queries = u32(base + QUERIES + u32(first_row + {of_two}) * u32({pitch}) + upper)
            key_row = u32(u32({two} * u32({MATRIX})) + u32(lane & u32({MATRIX - 1})))
            keys = u32(tile + key_row * u32({pitch}) + u32(u32(lane >> u32({log2(MATRIX)})) & u32(1)) * u32({CHUNK}))
            values = u32(tile + VALUES + {of_two} * u32({value_pitch}) + upper)
            return queries, keys, values, row, column
            """
        )
    text, in_row = "A thread's first row of the block's, and its first column of each eight.", f"u32({log2(ROW_LANES)})"
    with device_function(out, "place_in_warp", ("thread",), text):
        out.lines(
            f"""
            row = u32(u32(thread >> u32({log2(WARP)})) * u32({rows}) + u32(u32(thread & u32({WARP - 1})) >> {in_row}))
            return row, u32(u32(thread & u32({ROW_LANES - 1})) * u32({LANE_COLUMNS}))
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
