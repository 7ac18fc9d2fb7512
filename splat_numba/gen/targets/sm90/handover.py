"""How tiles change hands, as a consumer's text has it: waiting for keys, what of them counts, giving back."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import NONE, Traits
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.sm90.shape import INFO_BYTES


def emit_handover(out: SourceWriter, traits: Traits) -> None:
    """All functions of this file."""
    _emit_wait(out, traits)
    if may_skip(traits):
        _emit_skip(out)
    _emit_giving_back(out, traits)


def may_skip(traits: Traits) -> bool:
    """Whether a group may have to skip a tile: by the mask, or because key lengths leave it out."""
    return traits.skips or traits.ragged


def tile_info(traits: Traits) -> tuple[str, ...]:
    """What of a tile's keys this group keeps: the word for all groups, which has the length, and its own part."""
    return ("word",) * traits.ragged + ("status",) * (may_skip(traits) or traits.partial)


def _group(traits: Traits) -> tuple[str, ...]:
    """What tells which part is this group's."""
    return ("warpgroup",) * bool(tile_info(traits))


def emit_read(out: SourceWriter, traits: Traits) -> None:
    """The call that waits for a tile's keys; ``kept``: whether this group keeps any."""
    names = (*tile_info(traits), *("kept",) * may_skip(traits))
    assigned = f"{', '.join(names)} = " if names else ""
    out.line(f"{assigned}wait_keys({', '.join(('base', *_group(traits), 'stage', 'phase'))})")


def _emit_wait(out: SourceWriter, traits: Traits) -> None:
    info = tile_info(traits)
    text = "A tile's keys are there; and which of its pairs this group keeps." if info else "A tile's keys are there."
    with device_function(out, "wait_keys", ("base", *_group(traits), "stage", "phase"), text):
        out.line("ptx.mbarrier_wait(base + K_FULL + stage * u32(8), phase)")
        if not info:
            return
        out.line(f"word = ptx.load_shared_word(base + TILE_INFO + stage * u32({INFO_BYTES}))")
        emit_status(out, skips=may_skip(traits))
        out.line(f"return {', '.join((*info, *('kept',) * may_skip(traits)))}")


def emit_status(out: SourceWriter, *, skips: bool) -> None:
    """What this group keeps of a tile, from the tile's ``word``; and with ``skips``, whether that is anything.

    All lanes agree on ``kept``; the vote tells ptxas so, which then keeps the stage in uniform registers.
    """
    out.line("status = u32((word >> (u32(2) * warpgroup)) & u32(3))")
    if skips:
        out.line(f"kept = ptx.any_lane(u32(1) if status != u32({NONE}) else u32(0))")


def _emit_skip(out: SourceWriter) -> None:
    """No values may be pending here: another's wait needs them."""
    text = "Give a tile back of which this group keeps nothing."
    with device_function(out, "skip_tile", ("base", "stage", "phase"), text):
        out.lines(
            """
            ptx.warp_barrier()  # all lanes have read what the leader gives back
            ptx.mbarrier_arrive(base + K_EMPTY + stage * u32(8), leader())
            # Else a later wait could take the phase before for its own.
            ptx.mbarrier_wait(base + V_FULL + stage * u32(8), phase)
            ptx.mbarrier_arrive(base + V_EMPTY + stage * u32(8), leader())
            """
        )


def _emit_giving_back(out: SourceWriter, traits: Traits) -> None:
    with device_function(out, "give_keys_back", ("base", "stage"), "Keys and mask may be overwritten."):
        if tile_info(traits):
            out.line("ptx.warp_barrier()  # a leader's arrival alone orders its own reads only (racecheck)")
        out.line("ptx.mbarrier_arrive(base + K_EMPTY + stage * u32(8), leader())")
    text = "Queries may be overwritten, if no tile is left."
    with device_function(out, "give_queries_back", ("base", "tiles", "q_stage"), text):
        out.lines(
            """
            if tiles == u32(0):
                ptx.mbarrier_arrive(base + Q_EMPTY + q_stage * u32(8), leader())
            """
        )
