"""An item's tiles in the producer's text: pieces of the tables, and boxes of keys, masks and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from splat_numba.gen.boxes.passes import SOME, Traits
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.tensor_map import MAP_BYTES, SPAN
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.softmax import emit_valid
from splat_numba.gen.targets.sm90.lengths import emit_clearing
from splat_numba.gen.targets.sm90.shape import INFO_BYTES, SPAN_BYTES, group_mask_bytes, spans

TILE = ("base", "stage", "tensor_map", "c1", "c2", "kv_head", "entry")


@dataclass(frozen=True, slots=True)
class Passing:
    """The tiles of an item that pass by, as the producer's text reads and fetches them. side: what the text calls them,
    whose tensor maps are ``SIDE_maps``; arrays: maps of a view; clears: tokens beyond the key length become 0.
    """

    boxes: Traits
    side: str
    arrays: int
    clears: bool

    @property
    def state(self) -> str:
        """Where the ring of stages is, from one item's tiles to the next one's."""
        return "stage, free, cleared_phase" if self.clears else "stage, free"


def passing_of(traits: Traits) -> Passing:
    """Keys and values."""
    return Passing(traits, "kv", 2, traits.ragged)


def emit_loads(out: SourceWriter, traits: Traits) -> None:
    """The loop over an item's tiles, and what it calls."""
    parameters = ["base", "kv_maps", "piece", "bits", "words", "kv_head", "entry", "stage", "free"]
    if traits.ragged:
        parameters += ["views", "length", "cleared_phase"]
    with tile_loop(out, passing_of(traits), parameters, "The tiles of an item's pieces, as stages become free."):
        _emit_tile(out, traits)
    _emit_load_keys(out, traits)
    _emit_load_values(out, traits)
    if traits.ragged:
        emit_valid(out, traits)
        emit_clearing(out, traits.tile_kv, traits.value_dim)


@contextmanager
def tile_loop(out: SourceWriter, passing: Passing, parameters: Sequence[str], text: str) -> Iterator[None]:
    """``load_tiles``: all tiles of an item's pieces; inside: one, which begins at c1, c2 of the view of ``SIDE_map``.

    It is one loop over pieces and tiles: nested, it is unrolled.
    """
    side, tile = passing.side, passing.boxes.tile_kv
    with device_function(out, "load_tiles", parameters, text):
        out.lines(
            f"""
            c1 = c2 = count = status = bits_0 = bits_1 = bits_2 = u32(0)
            {side}_map = u64(0)
            place = ptx.word_of_lane(words, u32(3))
            end_of_pieces = ptx.word_of_lane(words, u32(4))
            """
        )
        if passing.clears:
            out.line("token = inner_step = kept_status = u32(0)")
        with out.block("while place < end_of_pieces"):
            with out.block("if count == u32(0)"):
                _emit_piece(out, passing)
            if passing.clears:
                out.lines(
                    f"""
                    valid = valid_keys(token, inner_step, length)
                    status = u32(kept_status | (valid << u32(8))) if valid != u32(0) else u32(0)
                    token = u32(token + inner_step * u32({tile}))
                    """
                )
            yield
            out.lines(
                f"""
                c1 = u32(c1 + u32({tile}))
                stage, free = advance(stage, free, STAGES)
                count = u32(count - u32(1))
                if count == u32(0):
                    place = u32(place + u32(1))
                """
            )
        out.line(f"return {passing.state}")


def _emit_piece(out: SourceWriter, passing: Passing) -> None:
    """Read the next piece of the list."""
    side, status = passing.side, "kept_status" if passing.clears else "status"
    out.lines(
        f"""
        view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
        {status}, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
        {side}_map = {side}_maps + u64({MAP_BYTES * passing.arrays}) * u64(view)
        """
    )
    if passing.clears:
        out.lines(
            """
            offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
            token = u32(offset + inner_step * c1 + outer_step * c2)
            """
        )


def _emit_tile(out: SourceWriter, traits: Traits) -> None:
    """One tile: its keys and what goes with them, then its values."""
    out.lines(
        f"""
        ptx.mbarrier_wait(base + K_EMPTY + stage * u32(8), free)
        info = base + TILE_INFO + stage * u32({INFO_BYTES})
        ptx.store_shared_words4(info, status, bits_0, bits_1, bits_2, leader())
        """
    )
    masks = ("status", "bits", "bits_0", "bits_1", "bits_2")[: 2 + traits.groups] if traits.partial else ()
    keys = ("base", "stage", "kv_map", *TILE[3:])
    wrapped(out, "load_keys", (*keys, *masks))
    out.line("ptx.mbarrier_wait(base + V_EMPTY + stage * u32(8), free)")
    values = ("base", "stage", f"kv_map + u64({MAP_BYTES})", *TILE[3:])
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
    masks = ("status", "bits", *(f"bits_{group}" for group in range(traits.groups))) if traits.partial else ()
    text = "A tile of keys, and its masks if any group keeps some pairs only." if masks else "A tile of keys."
    with device_function(out, "load_keys", (*TILE, *masks), text):
        out.line("full = base + K_FULL + stage * u32(8)")
        if masks:
            emit_masks(out, traits, "K_BYTES")
        else:
            out.line("ptx.mbarrier_expect(full, K_BYTES, leader())")
        emit_copies(out, "K", traits.tile_kv, traits.head_dim)


def emit_masks(out: SourceWriter, traits: Traits, beside: str) -> None:
    """A tile's masks, of all groups or of none, so that the barrier expects one of two numbers of bytes; beside: those
    of what comes with them.
    """
    size = group_mask_bytes(traits)
    some = sum(SOME << 2 * group for group in range(traits.groups))
    out.line(f"masked = u32(1) if (status & u32({some})) != u32(0) else u32(0)")
    out.line(f"ptx.mbarrier_expect(full, {beside} + masked * MASK_BYTES, leader())")
    out.line("to = base + MASK_TILE + stage * MASK_BYTES")
    for group in range(traits.groups):
        copied = f"bits + u64({size}) * u64(bits_{group}), u32({size}), full, leader() & masked"
        out.line(f"ptx.bulk_copy(to + u32({group * size}), {copied})")


def _emit_load_values(out: SourceWriter, traits: Traits) -> None:
    with device_function(out, "load_values", (*TILE, "full"), "A tile of values."):
        out.line("ptx.mbarrier_expect(full, V_BYTES, leader())")
        emit_copies(out, "V", traits.tile_kv, traits.value_dim)


def emit_copies(out: SourceWriter, name: str, tokens: int, dim: int, box: str = "c1, c2, kv_head, entry") -> None:
    """The boxes of a tile of so many tokens, each 64 numbers wide; box: where it starts, in the text's words."""
    out.line(f"to = base + {name}_TILE + stage * {name}_BYTES")
    for span in range(spans(dim)):
        at = f"to + u32({span * tokens * SPAN_BYTES}), tensor_map, full"
        out.line(f"ptx.tensor_copy({at}, u32({span * SPAN}), {box}, leader())")
