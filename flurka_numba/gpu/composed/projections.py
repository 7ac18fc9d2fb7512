"""Slots, which are projections of tokens, made and taken back: E k and F v, and gradients of tokens and projections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flurka_numba.gpu.composed.launches import Launches
from flurka_numba.gpu.composed.matrix import Extent, Limit
from flurka_numba.gpu.composed.operands import Operands
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.schedules.tensor import Tensor, side_by_side
from splat_numba.gen.targets.gpu.launches import in_chunks


def make_slots(operands: Operands) -> tuple[Tensor, Tensor]:
    """E k and F v in float32; without projections the tokens themselves."""
    problem = operands.problem
    if problem.method == "kernel":
        return operands.array("k"), operands.array("v")
    k, v = (operands.kept(operands.slots, dim) for dim in (problem.head_dim, problem.value_dim))
    return project(operands, "k", k), project(operands, "v", v)


def project(operands: Operands, name: str, slots: Tensor) -> Tensor:
    """Slots of k or v from their projection and the tokens within the key lengths, in the memory of ``slots``.

    Tensor cores' tiles are wider than a head. So where heads stand side by side in a token, as layers make them, and
    share a projection, they are one product's columns, and slots stand side by side as well. A copy of the tokens that
    is not so changes the product, but not where slots are: the way back is recorded without copies.
    """
    problem, recorder, launches = operands.problem, operands.recorder, Launches(operands.recorder)
    proj, tokens, limit = operands.array(f"proj_{name}"), operands.array(name), Limit(recorder.lengths)
    dim, grid = slots.sizes[3], operands.sides
    if launches.fuses and not problem.per_head_proj and _are_side_by_side(recorder.operand(name)):
        slots = replace(slots, strides=side_by_side(slots.sizes, ITEMSIZE[slots.dtype]))
        if _are_side_by_side(tokens):
            sizes = (problem.rank, problem.seq_kv, problem.heads * dim)
            whole = _as_one_row(tokens), _as_one_row(slots)
            launches.product(proj, *whole, (problem.batch, 1), sizes, limited="depth", limit=limit)
            return slots
    sizes = (problem.rank, problem.seq_kv, dim)
    launches.product(proj, tokens, slots, grid, sizes, limited="depth", limit=limit)
    return slots


def _are_side_by_side(tokens: Tensor) -> bool:
    """Whether a token's heads follow each other in memory, in whole chunks."""
    _, heads, _, dim = tokens.sizes
    return heads > 1 and tokens.strides[1] == dim * ITEMSIZE[tokens.dtype] and in_chunks(tokens)


def _as_one_row(tokens: Tensor) -> Tensor:
    """All heads of a token as one, that are side by side."""
    batch, heads, rows, dim = tokens.sizes
    to_batch, _, to_row, step = tokens.strides
    return replace(tokens, sizes=(batch, 1, rows, heads * dim), strides=(to_batch, 0, to_row, step))


def slot_gradients(operands: Operands, dim: int) -> Tensor:
    """Where gradients of slots are rounded to, which are to be multiplied: side by side where products want that."""
    problem, recorder = operands.problem, operands.recorder
    rows = recorder.scratch_rows((*operands.sides, problem.rank, dim))
    beside = replace(rows, strides=side_by_side(rows.sizes, ITEMSIZE[rows.dtype]))
    return beside if not problem.per_head_proj and _are_side_by_side(beside) else rows


def pull_projections(
    operands: Operands, launches: Launches, slots: Mapping[str, Tensor | None], frozen: frozenset[str]
) -> None:
    """Gradients of tokens and projections from those of the slots. Heads are one product's columns as in project()."""
    problem = operands.problem
    earlier: Tensor | None = None  # of a shared projection: what the keys' side gave
    for name in ("k", "v"):
        gradient, proj = slots[name], "proj_k" if problem.shared_proj else f"proj_{name}"
        if gradient is None:
            continue
        if name not in frozen:
            _pull_tokens(operands, launches, gradient, name)
        if proj not in frozen:
            first = problem.shared_proj and name == "k"
            earlier = _pull_projection(operands, launches, gradient, name, proj, earlier, first=first)


def _pull_tokens(operands: Operands, launches: Launches, slots: Tensor, name: str) -> None:
    """E^T dk' for every head."""
    problem, limit, grid = operands.problem, Limit(operands.recorder.lengths), operands.sides
    together, shape = _are_side_by_side(slots), (*operands.sides, problem.seq_kv, slots.sizes[3])
    result = operands.recorder.result(f"d{name}", shape, side_by_side=together)
    if together and _are_side_by_side(result):
        slots, result, grid = _as_one_row(slots), _as_one_row(result), (problem.batch, 1)
    sizes, turned = (problem.seq_kv, problem.rank, result.sizes[3]), operands.array(f"proj_{name}").turned
    launches.product(turned, slots, result, grid, sizes, limited="rows", limit=limit)


def _pull_projection(
    operands: Operands, launches: Launches, slots: Tensor, name: str, proj: str, earlier: Tensor | None, *, first: bool
) -> Tensor | None:
    """The sum of dk' k^T, onto an earlier one. first: another follows for this projection, so it stays float32."""
    problem, limit, tokens = operands.problem, Limit(operands.recorder.lengths), operands.array(name)
    heads = problem.heads if problem.per_head_proj else 1
    if first:
        result = launches.scratch(Extent(1, heads, problem.rank), problem.seq_kv)
    else:
        result = operands.recorder.result(f"d{proj}", (1, heads, problem.rank, problem.seq_kv))
    outer = (problem.batch, 1 if problem.per_head_proj else problem.heads)
    if _are_side_by_side(slots) and _are_side_by_side(tokens):  # then the sum over heads is one over columns
        slots, tokens, outer = _as_one_row(slots), _as_one_row(tokens), (problem.batch, 1)
    launches.product(
        slots, tokens.turned, result, (1, heads), (problem.rank, slots.sizes[3], problem.seq_kv), outer=outer,
        addend=earlier, limited="columns", limit=limit,
    )  # fmt: skip
    return result if first else None
