"""What texts of gradients share that read rows of arrays by address: parameters, a block's item, where levels are."""

from __future__ import annotations

from collections.abc import Iterable

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import ITEM, STEPS
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES
from splat_numba.gen.targets.gpu.items import emit_rank

TABLES = ("rows", "block", "piece", "bits", "views", "owners", "heads")
SIDES = ("left_1", "left_2", "right_1", "right_2")
COUNTS = (*ITEM, "heads_levels", "seq_left", "seq_right", "seq_q", "box_shift")


def addresses(written: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All that a kernel is given which writes these arrays; and the strides of its arrays, in bytes."""
    arrays = (*SIDES, *written)
    return (*TABLES, *arrays, "levels", "kv_lengths"), tuple(f"{name}_{step}" for name in arrays for step in STEPS)


def levels_of(head: str) -> str:
    """Where lse and delta of a head's queries begin."""
    return f"levels + u64({LEVEL_BYTES}) * (u64(entry) * u64(heads_levels) + u64({head})) * u64(seq_q)"


def emit_owner_of_block(out: SourceWriter) -> None:
    """The item of a block: `emit_rank` has the order."""
    text = "Row block, owner and batch entry of this block; longest row blocks first, wave by wave of owners."
    with device_function(out, "item_of_block", ITEM, text):
        out.line("item, items = ptx.block_index(), u32(blocks * heads_count * batch)")
        emit_rank(out)
        out.line("return rank, u32(pair - entry * heads_count), entry")
