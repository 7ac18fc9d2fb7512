"""A tiled packed operator's launch: a thread block for each block of rows, head and batch entry."""

from __future__ import annotations

from collections.abc import Mapping

from splat_numba.gen.machine import Gpu
from splat_numba.gen.packed_problem import PackedProblem
from splat_numba.gen.packed_tiles import PackedTiles
from splat_numba.gen.schedule import ScheduleBuilder
from splat_numba.gen.targets.gpu.launches import arch_of, strides_of
from splat_numba.gen.targets.sm80.packed.texts import PAGES, tiled_text
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits
from splat_numba.gen.tensor import Tensor


def record_tiles(
    builder: ScheduleBuilder, problem: PackedProblem, tiles: PackedTiles, arrays: Mapping[str, Tensor], gpu: Gpu
) -> None:  # fmt: skip
    """The launch over all blocks. arrays: by name, the result last; packed values lie side by side."""
    traits = TiledTraits.of(problem)
    *_, names = PAGES[traits.family]
    named = dict(zip(names, arrays.values(), strict=True))
    left, right = ("q", "k") if traits.family == "sddmm" else ("out", "v")
    tables = {"rows": builder.table("tile_rows", tiles.rows), "blocks": builder.table("tile_blocks", tiles.blocks)}
    numbers: dict[str, int | float] = {
        **strides_of(dict(named)), "scale": problem.scale, "blocks_listed": len(tiles.blocks), "heads": problem.heads,
        "share": problem.heads // named[right].sizes[1], "seq_q": named[left].sizes[2],
        "seq_kv": named[right].sizes[2],
    }  # fmt: skip
    items = len(tiles.blocks) * problem.batch * problem.heads
    builder.launch(tiled_text(traits, arch_of(gpu)), items, numbers, {**tables, **named})
