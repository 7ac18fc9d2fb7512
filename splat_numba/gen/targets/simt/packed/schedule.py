"""A packed operator's call as a schedule: one launch."""

from __future__ import annotations

from collections.abc import Mapping

from splat_numba.gen.machine import Gpu
from splat_numba.gen.packed_lists import PackedLists
from splat_numba.gen.packed_problem import PackedProblem
from splat_numba.gen.schedule import InPlace, Place, Schedule, ScheduleBuilder, Text
from splat_numba.gen.targets.gpu.launches import arch_of, in_chunks, strides_of
from splat_numba.gen.targets.simt.packed.texts import ARRAYS, packed_text
from splat_numba.gen.targets.simt.packed.traits import WARPS, Family, PackedTraits
from splat_numba.gen.targets.simt.schedule import scale_of
from splat_numba.gen.targets.simt.shape import CHUNK
from splat_numba.gen.tensor import Tensor

FAMILIES: dict[str, Family] = {
    "sddmm": "sddmm", "softmax": "softmax", "softmax_backward": "softmax_backward", "spmm": "spmm",
    "spmm_transposed": "spmm",
}  # fmt: skip
"""Of each operator that GPUs have, the text."""
IN_CHUNKS = frozenset({"q", "k", "v", "out"})  # whose rows are read and written 16 bytes at a time


def in_place(tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
    """Rows of tokens must be whole chunks; packed values may stand anywhere."""
    return {
        name: InPlace(in_chunks(one), CHUNK) if name in IN_CHUNKS else InPlace(True, 1) for name, one in tensors.items()
    }


def packed_schedule(
    problem: PackedProblem, lists: PackedLists, tensors: Mapping[str, Tensor], gpu: Gpu,
    copied: frozenset[str] = frozenset(),
) -> Schedule:  # fmt: skip
    """The launches of one call. tensors: the operator's arrays by name, the result last: tokens as (batch, heads, seq,
    dim), packed values as (batch, heads, pairs, 1); copied: which are copied to padded rows first, the result after.
    """
    *given, result = tensors
    builder, text = ScheduleBuilder(*tensors), packed_text(_traits(problem, lists), arch_of(gpu))
    read = {name: builder.readable(tensors[name], copied=name in copied) for name in given}
    whole = tensors[result]
    if 0 in whole.sizes:
        return builder.finish()
    written = builder.tensor(whole.sizes, whole.dtype) if result in copied else whole
    _launch(builder, text, problem, lists, {**read, result: written})
    if written is not whole:
        builder.copy(written, whole)
    return builder.finish()


def _traits(problem: PackedProblem, lists: PackedLists) -> PackedTraits:
    products = bool(problem.dim)  # softmax needs no columns
    return PackedTraits(
        FAMILIES[problem.operator], problem.dtype, problem.dim, products and lists.columns is not None,
        problem.transposed,
    )  # fmt: skip


def _launch(
    builder: ScheduleBuilder, text: Text, problem: PackedProblem, lists: PackedLists, arrays: Mapping[str, Tensor]
) -> None:  # fmt: skip
    """A warp a row of each head of the result."""
    wanted = {name for name, _ in text.entry.parameters}
    tables = {"rows": lists.rows, "runs": lists.runs, "columns": lists.columns, "places": lists.places}
    pointers: dict[str, Place | Tensor | None] = {
        name: builder.table(name, data) for name, data in tables.items() if name in wanted and data is not None
    }
    named = dict(zip(ARRAYS[text.entry.name], arrays.values(), strict=True))
    blocks = -(-len(lists.rows) // WARPS)
    numbers: dict[str, int | float] = {
        **strides_of(dict(named)), "row_blocks": blocks, "rows_listed": len(lists.rows), "heads": problem.heads,
    }  # fmt: skip
    if problem.dim:
        numbers |= scale_of(_traits(problem, lists).numbers, "scale", problem.scale)
    numbers |= _groups(problem, named)
    builder.launch(text, blocks * problem.batch * problem.heads, numbers, {**pointers, **named})


def _groups(problem: PackedProblem, arrays: Mapping[str, Tensor]) -> dict[str, int]:
    """Which heads belong together."""
    if problem.operator == "sddmm":
        return {"group": problem.heads // arrays["k"].sizes[1]}
    if not problem.dim:
        return {}
    return {"members": problem.group, "share": problem.heads * problem.group // arrays["v"].sizes[1]}
