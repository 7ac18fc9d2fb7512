"""An item's tiles in the producer's text: pieces of the tables, and boxes of keys, masks and values."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import SOME, Traits
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.softmax import emit_valid
from splat_numba.gen.targets.sm90.lengths import emit_clearing
from splat_numba.gen.targets.sm90.shape import INFO_BYTES, SPAN_BYTES, group_mask_bytes, spans

TILE = ("base", "stage", "tensor_map", "k1", "k2", "kv_head", "entry")


def emit_loads(out: SourceWriter, traits: Traits) -> None:
    """The loop over an item's tiles, and what it calls."""
    _emit_tiles(out, traits)
    _emit_load_keys(out, traits)
    _emit_load_values(out, traits)
    if traits.ragged:
        emit_valid(out, traits)
        emit_clearing(out, traits.tile_kv, traits.value_dim)


def _emit_tiles(out: SourceWriter, traits: Traits) -> None:
    """One loop over pieces and tiles: nested, it is unrolled."""
    parameters = ["base", "kv_maps", "piece", "bits", "words", "kv_head", "entry", "stage", "free"]
    if traits.ragged:
        parameters += ["views", "length", "cleared_phase"]
    with device_function(out, "load_tiles", parameters, "The tiles of an item's pieces, as stages become free."):
        out.lines(
            """
            k1 = k2 = count = status = bits_0 = bits_1 = bits_2 = u32(0)
            k_map = u64(0)
            place = ptx.word_of_lane(words, u32(3))
            end_of_pieces = ptx.word_of_lane(words, u32(4))
            """
        )
        if traits.ragged:
            out.line("token = inner_step = kept_status = u32(0)")
        with out.block("while place < end_of_pieces"):
            with out.block("if count == u32(0)"):
                _emit_piece(out, traits)
            _emit_tile(out, traits)
            out.lines(
                f"""
                k1 = u32(k1 + u32({traits.tile_kv}))
                stage, free = advance(stage, free, STAGES)
                count = u32(count - u32(1))
                if count == u32(0):
                    place = u32(place + u32(1))
                """
            )
        out.line("return stage, free, cleared_phase" if traits.ragged else "return stage, free")


def _emit_piece(out: SourceWriter, traits: Traits) -> None:
    """Read the next piece of the list."""
    status = "kept_status" if traits.ragged else "status"
    out.lines(
        f"""
        kv_view, k1, k2, count = ptx.load_words4(piece + u64(32) * u64(place))
        {status}, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
        k_map = kv_maps + u64(256) * u64(kv_view)
        """
    )
    if traits.ragged:
        out.lines(
            """
            offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(kv_view))
            token = u32(offset + inner_step * k1 + outer_step * k2)
            """
        )


def _emit_tile(out: SourceWriter, traits: Traits) -> None:
    """One tile: its keys and what goes with them, then its values."""
    if traits.ragged:
        out.lines(
            f"""
            valid = valid_keys(token, inner_step, length)
            status = u32(kept_status | (valid << u32(8))) if valid != u32(0) else u32(0)
            token = u32(token + inner_step * u32({traits.tile_kv}))
            """
        )
    out.lines(
        f"""
        ptx.mbarrier_wait(base + K_EMPTY + stage * u32(8), free)
        info = base + TILE_INFO + stage * u32({INFO_BYTES})
        ptx.store_shared_words4(info, status, bits_0, bits_1, bits_2, leader())
        """
    )
    masks = ("status", "bits", "bits_0", "bits_1", "bits_2")[: 2 + traits.groups] if traits.partial else ()
    keys = ("base", "stage", "k_map", *TILE[3:])
    wrapped(out, "load_keys", (*keys, *masks))
    out.line("ptx.mbarrier_wait(base + V_EMPTY + stage * u32(8), free)")
    values = ("base", "stage", "k_map + u64(128)", *TILE[3:])
    if not traits.ragged:
        wrapped(out, "load_values", (*values, "base + V_FULL + stage * u32(8)"))
        return
    with out.block(f"if valid == u32({traits.tile_kv})"):
        wrapped(out, "load_values", (*values, "base + V_FULL + stage * u32(8)"))
    with out.block("else"):
        wrapped(out, "load_values", (*values, "base + CLEARED"))
        out.line("clear_values(base, stage, valid, cleared_phase)")
        out.line("cleared_phase = u32(cleared_phase ^ u32(1))")


def _emit_load_keys(out: SourceWriter, traits: Traits) -> None:
    """With masks of all groups or of none, so that the barrier expects one of two numbers of bytes."""
    masks = ("status", "bits", *(f"bits_{group}" for group in range(traits.groups))) if traits.partial else ()
    text = "A tile of keys, and its masks if any group keeps some pairs only." if masks else "A tile of keys."
    with device_function(out, "load_keys", (*TILE, *masks), text):
        out.line("full = base + K_FULL + stage * u32(8)")
        if masks:
            size = group_mask_bytes(traits)
            some = sum(SOME << 2 * group for group in range(traits.groups))
            out.line(f"masked = u32(1) if (status & u32({some})) != u32(0) else u32(0)")
            out.line("ptx.mbarrier_expect(full, K_BYTES + masked * MASK_BYTES, leader())")
            out.line("to = base + MASK_TILE + stage * MASK_BYTES")
            for group in range(traits.groups):
                copied = f"bits + u64({size}) * u64(bits_{group}), u32({size}), full, leader() & masked"
                out.line(f"ptx.bulk_copy(to + u32({group * size}), {copied})")
        else:
            out.line("ptx.mbarrier_expect(full, K_BYTES, leader())")
        emit_copies(out, "K", traits.tile_kv, traits.head_dim)


def _emit_load_values(out: SourceWriter, traits: Traits) -> None:
    with device_function(out, "load_values", (*TILE, "full"), "A tile of values."):
        out.line("ptx.mbarrier_expect(full, V_BYTES, leader())")
        emit_copies(out, "V", traits.tile_kv, traits.value_dim)


def emit_copies(out: SourceWriter, name: str, tokens: int, dim: int, box: str = "k1, k2, kv_head, entry") -> None:
    """The boxes of a tile of so many tokens, each 64 numbers wide; box: where it starts, in the text's words."""
    out.line(f"to = base + {name}_TILE + stage * {name}_BYTES")
    for span in range(spans(dim)):
        at = f"to + u32({span * tokens * SPAN_BYTES}), tensor_map, full"
        out.line(f"ptx.tensor_copy({at}, u32({span * SPAN}), {box}, leader())")
