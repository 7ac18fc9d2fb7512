"""Which pairs of a tile are kept: a group's mask, read from its table; the rest of the softmax is Hopper's.

A thread holds two rows of each atom, in the same order as a thread of a warpgroup (targets/sm90/softmax.py).
"""

from __future__ import annotations

from splat_numba.gen.boxes import GROUP_ROWS, NONE, SOME, Traits
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.softmax import (
    each_pair,
    emit_limit,
    emit_negate,
    emit_rescaling,
    emit_valid,
    emit_weights,
)
from splat_numba.gen.targets.sm80.shape import ATOM, atoms_of, mask_bytes, words_per_row
from splat_numba.gen.writer import SourceWriter


def emit_softmax(out: SourceWriter, traits: Traits) -> None:
    """All functions between the two products of a tile."""
    if traits.negate:
        emit_negate(out, traits)
    if traits.partial:
        _emit_mask(out, traits)
    if traits.ragged:
        emit_valid(out, traits)
        emit_limit(out, traits)
    emit_weights(out, traits)
    emit_rescaling(out, traits)


def skips(traits: Traits) -> bool:
    """Whether a group may keep nothing of a tile that another one wants."""
    return traits.skips and traits.groups > 1


def knows_status(traits: Traits) -> bool:
    """Whether the text reads what a group keeps of a tile."""
    return traits.partial or skips(traits)


def any_status(status: int) -> str:
    """A test that all lanes of a warp answer alike: their rows are of one group."""
    return f"ptx.any_lane(u32(1) if u32(mask & u32(3)) == u32({status}) else u32(0)) != u32(0)"


def some_kept() -> str:
    """Likewise: whether the group keeps anything of the tile."""
    return f"ptx.any_lane(u32(1) if u32(mask & u32(3)) != u32({NONE}) else u32(0)) != u32(0)"


def emit_masks(out: SourceWriter, traits: Traits) -> None:
    """Scores of pairs that are not kept, of all atoms of a tile, become -inf."""
    words = words_per_row(traits)
    if traits.partial:
        with out.block(f"if {any_status(SOME)}"):
            start = f"bits + u64({mask_bytes(traits)}) * u64(mask >> u32(2))"
            out.line(f"mask_at = {start} + u64({4 * words}) * u64(row & u32({GROUP_ROWS - 1}))")
            for atom in range(atoms_of(traits)):
                out.line(f"mask_scores(score_{atom}, mask_at + u64({4 * words * ATOM * atom}), column)")
    if traits.ragged:
        out.line("valid = valid_keys(corner, inner_step, limit)")
        for atom in range(atoms_of(traits)):
            out.line(f"limit_scores(score_{atom}, valid, column)")


def _emit_mask(out: SourceWriter, traits: Traits) -> None:
    """A row's words are shifted so that bit 0 is this thread's first column; heads share them in the cache."""
    words = words_per_row(traits)
    text = "Scores of pairs that are not kept become -inf, of a thread's two rows."
    with device_function(out, "mask_scores", ("score", "mask_at", "column"), text):
        out.line("mask_row(score, 0, mask_at, column)")
        out.line(f"mask_row(score, 1, mask_at + u64({8 * 4 * words}), column)")
    with device_function(out, "mask_row", ("score", "row", "mask_at", "column"), "The same of one row."):
        out.line(f"mask = cuda.local.array({words}, dtype=np.uint32)")
        with out.block(f"for i in range({words})"):
            out.line("mask[i] = ptx.load_word(mask_at + u64(4 * i)) >> column")
        with each_pair(out, traits.tile_kv):
            at = "score[4 * j + 2 * row + x]"
            out.line(f"{at} = {at} if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT")
