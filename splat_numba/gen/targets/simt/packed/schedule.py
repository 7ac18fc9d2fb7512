"""A packed operator's launch, for any of a mask's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.packed.lists import PackedLists, Words
from splat_numba.gen.packed.parts import PackedParts
from splat_numba.gen.packed.problem import PackedProblem
from splat_numba.gen.packed.tiles import TILE_PLACES, TileBlocks
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import Place, ScheduleBuilder, place_of
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gpu.launches import arch_of, strides_of
from splat_numba.gen.targets.gpu.packed_launch import launch_blocks
from splat_numba.gen.targets.simt.packed.gathering import pairs_of_block
from splat_numba.gen.targets.simt.packed.texts import ARRAYS, fma_tiles_text, packed_text
from splat_numba.gen.targets.simt.packed.tile_traits import FmaTraits
from splat_numba.gen.targets.simt.packed.tiles import ARRAYS as TILE_ARRAYS
from splat_numba.gen.targets.simt.packed.tiles import STEPS as TILE_STEPS
from splat_numba.gen.targets.simt.packed.traits import HELD, Family, PackedTraits
from splat_numba.gen.targets.simt.schedule import scale_of
from splat_numba.gen.targets.simt.shape import CHUNK

FAMILIES: dict[str, Family] = {
    "sddmm": "sddmm", "softmax": "softmax", "softmax_backward": "softmax_backward", "spmm": "spmm",
    "spmm_transposed": "spmm",
}  # fmt: skip
"""Of each operator that GPUs have, the text."""
ROWS_BY_THEMSELVES = 256  # of a multiprocessor: fewer would not gain the 3 us that another launch takes


def _traits(problem: PackedProblem, lists: PackedLists) -> PackedTraits:
    products = bool(problem.dim)  # softmax needs no columns
    return PackedTraits(
        FAMILIES[problem.operator], problem.dtype, problem.dim, products and lists.columns is not None,
        problem.transposed,
    )  # fmt: skip


def _in_chunks(problem: PackedProblem, arrays: Mapping[str, Tensor]) -> bool:
    """Whether rows are read and written 16 bytes at a time."""
    side_by_side = all(one.strides[2] == ITEMSIZE[one.dtype] for one in arrays.values())
    return problem.operator == "softmax" and ITEMSIZE[problem.dtype] <= ITEMSIZE["float32"] and side_by_side


def by_length(rows: Words, of_chunk: int, least: int) -> list[tuple[tuple[int, int], Words]]:
    """Of the rows, by the fewest lanes that hold one, wherever it begins, those of HELD: a row costs each of its lanes
    some instructions. Fewer rows than ``least`` go with longer ones, or the longest ones, with shorter: by the lanes of
    the longest. What nothing holds is in the last.
    """
    chunks = (rows[:, 2].astype(np.int64) + 2 * (of_chunk - 1)) // of_chunk
    rooms = np.array([sharing * held for sharing, held in HELD])
    wanted = np.minimum(np.searchsorted(rooms, chunks), len(HELD) - 1)
    found: list[tuple[int, int]] = []  # of HELD the first and the last one that go together
    first = 0
    for last in range(len(HELD)):
        if ((wanted >= first) & (wanted <= last)).sum() >= max(least, 1):
            found.append((first, last))
            first = last + 1
    longest = int(wanted.max(initial=0))
    if not found or (wanted >= first).any():
        begin = found.pop()[0] if found else 0
        found.append((begin, longest))
    return [(HELD[min(last, longest)], rows[(wanted >= first) & (wanted <= last)]) for first, last in found]


def record_rows(
    builder: ScheduleBuilder, problem: PackedProblem, lists: PackedLists, rows: Words, arrays: Mapping[str, Tensor],
    gpu: Gpu,
) -> None:  # fmt: skip
    """A warp a row, of these of the lists' rows, of each head of the result; products of a long row by parts. arrays:
    by name, the result last.
    """
    traits = _traits(problem, lists)
    listed = lists.columns is not None
    parts = PackedParts.of(rows, lists.runs, lists.run_ptr, listed=listed) if problem.dim else None
    tables = {"rows": rows, "runs": lists.runs, "columns": lists.columns, "places": lists.places}
    if parts is None and _in_chunks(problem, arrays):
        least = ROWS_BY_THEMSELVES * gpu.multiprocessors // max(problem.batch * problem.heads, 1)
        for (sharing, held), some in by_length(rows, CHUNK // ITEMSIZE[problem.dtype], least):
            kind = replace(traits, held=held, sharing=sharing)
            _launch(builder, kind, problem, {**tables, "rows": some}, arrays, gpu, f"{sharing}x{held}_")
        return
    if parts is None:
        _launch(builder, traits, problem, tables, arrays, gpu)
        return
    _launch(builder, traits, problem, {**tables, "rows": parts.whole}, arrays, gpu)
    cut = {**tables, "rows": parts.parts, "runs": lists.runs if listed else parts.runs}
    if traits.family == "sddmm":
        _launch(builder, traits, problem, cut, arrays, gpu, "part_")
        return
    *given, result = arrays
    numbers = traits.loads * traits.numbers.loaded  # whole chunks of the result
    sums = builder.tensor((problem.batch, problem.heads, len(parts.parts), numbers), problem.compute_dtype)
    numbered = {**cut, "rows": parts.numbered}
    to_sums = {name: arrays[name] for name in given} | {result: sums}
    _launch(builder, replace(traits, partial=True), replace(problem, scale=1.0), numbered, to_sums, gpu, "part_")
    adding = PackedTraits("adding", problem.dtype, problem.dim)
    _launch(builder, adding, problem, {"rows": parts.long}, {"parts": sums, result: arrays[result]}, gpu, "long_")
    builder.release(place_of(sums))


def _launch(
    builder: ScheduleBuilder, traits: PackedTraits, problem: PackedProblem, tables: Mapping[str, Words | None],
    arrays: Mapping[str, Tensor], gpu: Gpu, prefix: str = "",
) -> None:  # fmt: skip
    """One launch, a warp for each of the table's rows. prefix: of tables of other rows than the mask's."""
    text, rows = packed_text(traits, arch_of(gpu)), tables["rows"]
    many = 0 if rows is None else len(rows)
    wanted = {name for name, _ in text.entry.parameters}
    pointers: dict[str, Place | Tensor | None] = {
        name: builder.table((prefix if name in ("rows", "runs") else "") + name, data)
        for name, data in tables.items() if name in wanted and data is not None
    }  # fmt: skip
    named = dict(zip(ARRAYS[text.entry.name], arrays.values(), strict=True))
    blocks = -(-many // traits.rows)
    numbers: dict[str, int | float] = {
        **strides_of(dict(named)), "row_blocks": blocks, "rows_listed": many, "heads": problem.heads,
    }  # fmt: skip
    if problem.dim:
        numbers |= scale_of(traits.numbers, "scale", problem.scale)
    if traits.held:
        numbers["pairs"] = named["values"].sizes[2]
    if traits.family != "adding":
        numbers |= _groups(problem, named)
    builder.launch(text, blocks * problem.batch * problem.heads, numbers, {**pointers, **named})


def gathering_blocks(dtype: str, lists: PackedLists) -> int:
    """Thread blocks that copy one head's packed values."""
    return -(-lists.pairs // pairs_of_block(PackedTraits("gathering", dtype)))


def record_gathering(
    builder: ScheduleBuilder, problem: PackedProblem, lists: PackedLists, values: Tensor, gpu: Gpu
) -> Tensor:  # fmt: skip
    """A copy of all heads' packed values, in scratch memory, in the order of the mask that has ``places``."""
    traits, itemsize = PackedTraits("gathering", problem.dtype), ITEMSIZE[problem.dtype]
    of_head = -(-lists.pairs * itemsize // CHUNK) * CHUNK
    strides = (of_head * problem.heads, of_head, itemsize, itemsize)
    place = builder.scratch(problem.batch * strides[0])
    turned = Tensor((problem.batch, problem.heads, lists.pairs, 1), strides, problem.dtype, *place)
    named = {"values": values, "turned": turned}
    blocks = gathering_blocks(problem.dtype, lists)
    numbers: dict[str, int | float] = {
        **strides_of(dict(named)), "blocks_listed": blocks, "pairs": lists.pairs, "heads": problem.heads,
    }  # fmt: skip
    pointers: dict[str, Place | Tensor | None] = {**named}
    if lists.places is not None:
        pointers["places"] = builder.table("places", lists.places)
    builder.launch(packed_text(traits, arch_of(gpu)), blocks * problem.batch * problem.heads, numbers, pointers)
    return turned


def record_fma_tiles(
    builder: ScheduleBuilder, problem: PackedProblem, tiles: TileBlocks, arrays: Mapping[str, Tensor], gpu: Gpu
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
