"""A packed operator's launch, for any of a mask's rows."""

from __future__ import annotations

from collections.abc import Mapping

from splat_numba.gen.machine import Gpu
from splat_numba.gen.packed_lists import PackedLists, Words
from splat_numba.gen.packed_problem import PackedProblem
from splat_numba.gen.packed_tiles import TILE_PLACES, PackedTiles
from splat_numba.gen.schedule import Place, ScheduleBuilder
from splat_numba.gen.targets.gpu.launches import arch_of, strides_of
from splat_numba.gen.targets.gpu.packed_launch import launch_blocks
from splat_numba.gen.targets.simt.packed.texts import ARRAYS, fma_tiles_text, packed_text
from splat_numba.gen.targets.simt.packed.tile_traits import FmaTraits
from splat_numba.gen.targets.simt.packed.tiles import ARRAYS as TILE_ARRAYS
from splat_numba.gen.targets.simt.packed.tiles import STEPS as TILE_STEPS
from splat_numba.gen.targets.simt.packed.traits import WARPS, Family, PackedTraits
from splat_numba.gen.targets.simt.schedule import scale_of
from splat_numba.gen.tensor import Tensor

FAMILIES: dict[str, Family] = {
    "sddmm": "sddmm", "softmax": "softmax", "softmax_backward": "softmax_backward", "spmm": "spmm",
    "spmm_transposed": "spmm",
}  # fmt: skip
"""Of each operator that GPUs have, the text."""


def _traits(problem: PackedProblem, lists: PackedLists) -> PackedTraits:
    products = bool(problem.dim)  # softmax needs no columns
    return PackedTraits(
        FAMILIES[problem.operator], problem.dtype, problem.dim, products and lists.columns is not None,
        problem.transposed,
    )  # fmt: skip


def record_rows(
    builder: ScheduleBuilder, problem: PackedProblem, lists: PackedLists, rows: Words, arrays: Mapping[str, Tensor],
    gpu: Gpu,
) -> None:  # fmt: skip
    """A warp a row, of these of the lists' rows, of each head of the result. arrays: by name, the result last."""
    text = packed_text(_traits(problem, lists), arch_of(gpu))
    wanted = {name for name, _ in text.entry.parameters}
    tables = {"rows": rows, "runs": lists.runs, "columns": lists.columns, "places": lists.places}
    pointers: dict[str, Place | Tensor | None] = {
        name: builder.table(name, data) for name, data in tables.items() if name in wanted and data is not None
    }
    named = dict(zip(ARRAYS[text.entry.name], arrays.values(), strict=True))
    blocks = -(-len(rows) // WARPS)
    numbers: dict[str, int | float] = {
        **strides_of(dict(named)), "row_blocks": blocks, "rows_listed": len(rows), "heads": problem.heads,
    }  # fmt: skip
    if problem.dim:
        numbers |= scale_of(_traits(problem, lists).numbers, "scale", problem.scale)
    numbers |= _groups(problem, named)
    builder.launch(text, blocks * problem.batch * problem.heads, numbers, {**pointers, **named})


def record_fma_tiles(
    builder: ScheduleBuilder, problem: PackedProblem, tiles: PackedTiles, arrays: Mapping[str, Tensor], gpu: Gpu
) -> None:  # fmt: skip
    """The launch over all blocks of tiles. arrays: by name, the result last."""
    traits = FmaTraits.of(problem)
    named = dict(zip(TILE_ARRAYS[traits.family], arrays.values(), strict=True))
    depth = problem.dim if traits.family == "sddmm" else TILE_PLACES
    others = {
        **scale_of(traits.numbers, "scale", problem.scale),
        TILE_STEPS[traits.family]: traits.numbers.chunks(depth),
    }
    launch_blocks(builder, fma_tiles_text(traits, arch_of(gpu)), problem, tiles, named, others)


def _groups(problem: PackedProblem, arrays: Mapping[str, Tensor]) -> dict[str, int]:
    """Which heads belong together."""
    if problem.operator == "sddmm":
        return {"group": problem.heads // arrays["k"].sizes[1]}
    if not problem.dim:
        return {}
    return {"members": problem.group, "share": problem.heads * problem.group // arrays["v"].sizes[1]}
