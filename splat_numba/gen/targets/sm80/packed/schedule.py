"""A tiled packed operator's launch, by matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from splat_numba.gen.packed.columns import ColumnTiles
from splat_numba.gen.packed.problem import PackedProblem
from splat_numba.gen.packed.tiles import TileBlocks
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import ScheduleBuilder
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gpu.launches import arch_of
from splat_numba.gen.targets.gpu.packed_launch import launch_blocks
from splat_numba.gen.targets.sm80.packed.texts import PAGES, tiled_text
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits


def traits_of(problem: PackedProblem, tiles: TileBlocks) -> TiledTraits:
    """Of the text over these tiles."""
    traits = replace(TiledTraits.of(problem), rows=tiles.size)
    return replace(traits, family="columns") if isinstance(tiles, ColumnTiles) else traits


def record_tiles(
    builder: ScheduleBuilder, problem: PackedProblem, tiles: TileBlocks, arrays: Mapping[str, Tensor],
    gpu: Gpu,
) -> None:  # fmt: skip
    """The launch over all blocks. arrays: by name, the result last; packed values lie side by side."""
    traits = traits_of(problem, tiles)
    *_, names = PAGES[traits.family]
    named = dict(zip(names, arrays.values(), strict=True))
    others: dict[str, int | float] = {"scale": problem.scale}
    if traits.family != "sddmm":
        others["pairs"] = named["values"].sizes[2]
    launch_blocks(builder, tiled_text(traits, arch_of(gpu)), problem, tiles, named, others)
