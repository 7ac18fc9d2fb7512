"""A packed operator's call as a schedule: a launch, and for packed values of 16 bits one that rounds them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from splat_numba.gen.machine import Gpu
from splat_numba.gen.packed_lists import PackedLists
from splat_numba.gen.packed_problem import PackedProblem
from splat_numba.gen.problem import ITEMSIZE
from splat_numba.gen.schedule import InPlace, Place, Schedule, ScheduleBuilder, Text
from splat_numba.gen.targets.gpu.launches import arch_of, in_chunks, strides_of
from splat_numba.gen.targets.simt.packed.narrowing import NUMBERS, narrowing_text
from splat_numba.gen.targets.simt.packed.texts import ARRAYS, packed_text
from splat_numba.gen.targets.simt.packed.traits import THREADS, WARPS, Family, PackedTraits
from splat_numba.gen.targets.simt.schedule import scale_of
from splat_numba.gen.targets.simt.shape import CHUNK
from splat_numba.gen.tensor import Tensor, contiguous

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
    builder = ScheduleBuilder(*tensors)
    arrays = {name: builder.readable(tensors[name], copied=name in copied) for name in given}
    arrays[result] = target = _written(builder, tensors[result], result, copied=result in copied)
    text = packed_text(_traits(problem, lists), arch_of(gpu))
    if 0 not in target.sizes:
        _launch(builder, text, problem, lists, arrays)
        if target is not tensors[result]:
            _finish(builder, target, tensors[result], arch_of(gpu))
    return builder.finish()


def _written(builder: ScheduleBuilder, result: Tensor, name: str, *, copied: bool) -> Tensor:
    """Where the launch writes: packed values of 16 bits to float32 ones first."""
    if name not in IN_CHUNKS and ITEMSIZE[result.dtype] == 2:
        place = builder.scratch(prod(result.sizes) * ITEMSIZE["float32"])
        return Tensor(result.sizes, contiguous(result.sizes, 1, ITEMSIZE["float32"]), "float32", *place)
    return builder.tensor(result.sizes, result.dtype) if copied else result


def _finish(builder: ScheduleBuilder, written: Tensor, result: Tensor, arch: str) -> None:
    """From there to the result."""
    if written.dtype == result.dtype:
        builder.copy(written, result)
        return
    numbers = prod(result.sizes)
    blocks = -(-numbers // (NUMBERS * THREADS))
    pointers = {"source": written, "result": result}
    builder.launch(narrowing_text(result.dtype, arch), blocks, {"numbers": numbers}, pointers)


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


def texts_of(problem: PackedProblem, lists: PackedLists, gpu: Gpu) -> tuple[Text, ...]:
    """What a call launches."""
    text = packed_text(_traits(problem, lists), arch_of(gpu))
    rounds = ITEMSIZE[problem.dtype] == 2 and ARRAYS[text.entry.name][-1] not in IN_CHUNKS
    return (text, narrowing_text(problem.dtype, arch_of(gpu))) if rounds else (text,)
