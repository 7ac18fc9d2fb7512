"""Slots, which are projections of tokens, made and taken back: E k and F v, and gradients of tokens and projections."""

from __future__ import annotations

from collections.abc import Mapping

from flurka_numba.gpu.composed.launches import Launches
from flurka_numba.gpu.composed.matrix import Extent, Limit
from flurka_numba.gpu.composed.operands import Operands
from splat_numba.executors.gpu_parts import record_dense_attention
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.target import AttentionCall


def make_slots(operands: Operands) -> tuple[Tensor, Tensor]:
    """E k and F v in float32; without projections the tokens themselves."""
    problem = operands.problem
    if problem.method == "kernel":
        return operands.array("k"), operands.array("v")
    k, v = (operands.kept(operands.slots, dim) for dim in (problem.head_dim, problem.value_dim))
    for name, slots in (("k", k), ("v", v)):
        _project(operands, name, slots)
    return k, v


def attend_to_slots(operands: Operands, out: Tensor) -> None:
    """Low-rank attention as attention in which every query has every slot, of the arrays' dtype."""
    problem, recorder = operands.problem, operands.recorder
    leading, gpu = (*operands.sides, problem.rank), recorder.gpu
    k, v = (recorder.scratch_rows((*leading, dim)) for dim in (problem.head_dim, problem.value_dim))
    for name, slots in (("k", k), ("v", v)):
        _project(operands, name, slots)
    call = AttentionCall(operands.array("q"), k, v, out, problem.scale, gpu.multiprocessors)
    record_dense_attention(recorder.builder, call, gpu, recorder.target)


def _project(operands: Operands, name: str, slots: Tensor) -> None:
    """Slots of k or v from their projection and the tokens within the key lengths."""
    sizes, limit = (slots.sizes[2], operands.problem.seq_kv, slots.sizes[3]), Limit(operands.recorder.lengths)
    proj, tokens, launches = operands.array(f"proj_{name}"), operands.array(name), Launches(operands.recorder)
    launches.product(proj, tokens, slots, operands.sides, sizes, limited="depth", limit=limit)


def pull_projections(
    operands: Operands, launches: Launches, slots: Mapping[str, Tensor | None], frozen: frozenset[str]
) -> None:
    """Gradients of tokens and projections from those of the slots."""
    problem, limit = operands.problem, Limit(operands.recorder.lengths)
    earlier: Tensor | None = None  # of a shared projection: what the keys' side gave
    for name, dim in (("k", problem.head_dim), ("v", problem.value_dim)):
        gradient, proj = slots[name], "proj_k" if problem.shared_proj else f"proj_{name}"
        if gradient is None:
            continue
        if name not in frozen:
            result = operands.recorder.result(f"d{name}", (*operands.sides, problem.seq_kv, dim))
            sizes = (problem.seq_kv, problem.rank, dim)
            turned = operands.array(f"proj_{name}").turned
            launches.product(turned, gradient, result, operands.sides, sizes, limited="rows", limit=limit)
        if proj not in frozen:
            heads = problem.heads if problem.per_head_proj else 1
            outer = (problem.batch, 1 if problem.per_head_proj else problem.heads)
            earlier = _pull_projection(
                operands, launches, gradient, operands.array(name), (heads, outer, dim), proj, earlier, limit,
                first=problem.shared_proj and name == "k",
            )  # fmt: skip


def _pull_projection(
    operands: Operands, launches: Launches, slots: Tensor, tokens: Tensor, sides: tuple[int, tuple[int, int], int],
    proj: str, earlier: Tensor | None, limit: Limit, *, first: bool,
) -> Tensor | None:  # fmt: skip
    """The sum of dk' k^T, onto an earlier one. first: another follows for this projection, so it stays float32."""
    (heads, outer, dim), problem = sides, operands.problem
    if first:
        result = launches.scratch(Extent(1, heads, problem.rank), problem.seq_kv)
    else:
        result = operands.recorder.result(f"d{proj}", (1, heads, problem.rank, problem.seq_kv))
    launches.product(
        slots, tokens.turned, result, (1, heads), (problem.rank, dim, problem.seq_kv), outer=outer,
        addend=earlier, limited="columns", limit=limit,
    )  # fmt: skip
    return result if first else None
