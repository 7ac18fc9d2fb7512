"""The launch of a text over PackedTiles: a thread block for each block of rows, head and batch entry."""

from __future__ import annotations

from collections.abc import Mapping

from splat_numba.gen.packed.problem import PackedProblem
from splat_numba.gen.packed.tiles import TileBlocks
from splat_numba.gen.schedules.schedule import ScheduleBuilder, Text
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gpu.launches import strides_of


def launch_blocks(
    builder: ScheduleBuilder, text: Text, problem: PackedProblem, tiles: TileBlocks,
    arrays: Mapping[str, Tensor], others: Mapping[str, int | float],
) -> None:  # fmt: skip
    """arrays: by the text's names, the result last; others: parameters of its own."""
    left, right = ("q", "k") if problem.operator == "sddmm" else ("out", "v")
    tables = {"rows": builder.table("tile_rows", tiles.rows), "blocks": builder.table("tile_blocks", tiles.blocks)}
    numbers: dict[str, int | float] = {
        **strides_of(dict(arrays)), "blocks_listed": len(tiles.blocks), "heads": problem.heads,
        "share": problem.heads // arrays[right].sizes[1], "seq_q": arrays[left].sizes[2],
        "seq_kv": arrays[right].sizes[2], **others,
    }  # fmt: skip
    builder.launch(text, len(tiles.blocks) * problem.batch * problem.heads, numbers, {**tables, **arrays})
