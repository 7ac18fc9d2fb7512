"""Gradients on a GPU, composed: kernel attention's stages, and for FLuRKA products with the projections around them.

FLuRKA is kernel attention over the slots E k and F v, so its gradients are those of the slots, carried on by four
products of matrices: dk = E^T dk', dE = sum over batch and heads of dk' k^T, and the same for values. Those are stages,
too, as tokens have no layout in which each is one product without a copy; the rare ones are the arrays' own ``@``,
after the launches. Everything is written down by a Recorder, and nothing is run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from flurka_numba.gpu.forward_stages import record_forward
from flurka_numba.gpu.gradient_plan import (
    GradientPlan,
    gradient_plan,
    over_slots,
    projection_stage,
    token_stage,
)
from flurka_numba.gpu.plan import forward_plan
from flurka_numba.gpu.recorder import GpuRecorder, Operand
from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.gradient_scales import SCALE_BYTES
from flurka_numba.targets.sm90.scales import SLOT_SCALE_BYTES
from splat_numba.gen.schedules.schedule import Place
from splat_numba.gen.schedules.tensor import Tensor, padded_bytes


@dataclass(frozen=True, slots=True)
class SlotProduct:
    """A gradient of tokens, E^T dk', left to the arrays' own product: of a projection and the slots' gradient."""

    proj: str
    slots: str


Pull = Callable[[GpuRecorder, Tensor, frozenset[str]], dict[str, SlotProduct]]


def record_with_gradients(recorder: GpuRecorder) -> Pull:
    """Write down a forward pass that leaves what gradients need. Returns what writes those down in another recorder,
    from dout and the names of frozen arguments: results are d<name>, but for SlotProducts, which it returns by name.
    """
    problem = recorder.problem
    if problem.method == "kernel":
        pull = _of_kernel(problem, recorder, recorder.operand("k"), recorder.operand("v"), {})

        def alone(backward: GpuRecorder, dout: Tensor, frozen: frozenset[str]) -> dict[str, SlotProduct]:
            pull(backward, dout, frozen)
            return {}

        return alone
    k, v, scales = _make_slots(recorder)
    pull = _of_kernel(over_slots(problem), recorder, k, v, {"slot_scales": scales}, problem)

    def through(backward: GpuRecorder, dout: Tensor, frozen: frozenset[str]) -> dict[str, SlotProduct]:
        kept = {"q"} if "q" in frozen else set()
        for name, proj in (("k", "proj_k"), ("v", "proj_v")):
            if name in frozen and ("proj_k" if problem.shared_proj else proj) in frozen:
                kept.add(name)  # neither the tokens nor the projection want the slots' gradient
        return _through_projections(problem, pull(backward, dout, frozenset(kept)), backward, frozen)

    return through


def _make_slots(recorder: GpuRecorder) -> tuple[Tensor, Tensor, Place]:
    """E k and F v, and of float16 what undoes the scales that each head has; kept for the way back."""
    problem = replace(recorder.problem, method="low_rank")
    leading = problem.batch, problem.heads, problem.rank
    shapes = (*leading, problem.head_dim), (*leading, problem.value_dim)
    k, v = (recorder.rows(recorder.kept(padded_bytes(shape)), shape) for shape in shapes)
    scales = recorder.kept(SLOT_SCALE_BYTES * problem.batch * problem.heads)
    plan = forward_plan(problem, recorder.gpu.multiprocessors, of_gradients=True)
    record_forward(plan, recorder, {"k_slots": k, "v_slots": v, "slot_scales": scales})
    return k, v, scales


def _of_kernel(
    problem: Problem,
    recorder: GpuRecorder,
    k: Tensor,
    v: Tensor,
    known: Mapping[str, Place],
    outer: Problem | None = None,
) -> Callable[[GpuRecorder, Tensor, frozenset[str]], dict[str, Operand]]:
    """Kernel attention over these keys and values. known: what else stages know of keys, by their parameters' names;
    outer: see gradient_plan().
    """
    plan = gradient_plan(problem, recorder.gpu.multiprocessors, outer)
    of_keys: dict[str, Operand] = {**known, "kv_lengths": recorder.lengths if problem.ragged else None}
    states, turned = recorder.kept(plan.states), recorder.kept(plan.turned)
    (shares,) = recorder.scratch(plan.key_shares)
    read = {"k": recorder.readable(k), "v": recorder.readable(v), "q": recorder.readable(recorder.operand("q"))}
    recorder.launch(plan.keys, {**read, **of_keys, "shares": shares})
    recorder.launch(plan.images_of_keys, {**of_keys, "shares": shares, "states": states, "turned": turned})
    out = recorder.result("out", (problem.batch, problem.heads, problem.seq_q, problem.value_dim))
    recorder.launch(plan.apply, {"q": read["q"], "states": states, "out": out})

    return partial(_pull_kernel, _Forward(problem, plan, k, v, of_keys, states, turned, inner=outer is not None))


@dataclass(frozen=True, slots=True)
class _Forward:
    """What kernel attention's forward pass left. of_keys: what else stages know of keys; inner: whether these are the
    slots of a larger call, whose gradients no caller sees.
    """

    problem: Problem
    plan: GradientPlan
    k: Tensor
    v: Tensor
    of_keys: Mapping[str, Operand]
    states: Place
    turned: Place
    inner: bool


def _pull_kernel(forward: _Forward, recorder: GpuRecorder, dout: Tensor, frozen: frozenset[str]) -> dict[str, Operand]:
    """Kernel attention's gradients from dout; those of keys and values, by their stages' parameters' names."""
    problem, plan = forward.problem, forward.plan
    shares, dstates, dturned, weights = recorder.scratch(plan.query_shares, plan.states, plan.turned, plan.row_weights)
    given: dict[str, Operand] = {"q": recorder.readable(recorder.operand("q")), "dout": recorder.readable(dout)}
    shape = (problem.batch, problem.heads, problem.seq_q, problem.head_dim)
    # A stage writes dq whether it is wanted or not.
    dq = recorder.scratch_rows(shape) if "q" in frozen else None
    given["dq"] = dq or recorder.result("dq", shape, side_by_side=True)
    given |= {"states": forward.states, "turned": forward.turned, "shares": shares, "row_weights": weights}
    recorder.launch(plan.queries[0], given)
    if {"k", "v"} <= frozen:
        return {}
    for stage in plan.queries[1:]:
        recorder.launch(stage, given)
    recorder.launch(plan.images_of_queries, {"shares": shares, "states": dstates, "turned": dturned})
    made = _room_for_keys(forward, recorder, frozen)
    given = {"k": recorder.readable(forward.k), "v": recorder.readable(forward.v)}
    given |= {"states": dstates, "turned": dturned, **forward.of_keys, **made}
    if plan.measure:
        tops, scales = recorder.scratch(plan.tops, SCALE_BYTES)
        given |= {"gradient_tops": tops, "gradient_scales": scales}
        recorder.launch(plan.measure, given)
        made["gradient_scales"] = scales
    recorder.launch(plan.of_slots, given)
    return made


def _room_for_keys(forward: _Forward, recorder: GpuRecorder, frozen: frozenset[str]) -> dict[str, Operand]:
    """Where the gradients of keys and values go: to results, or to scratch memory where nobody wants them."""
    problem, plan = forward.problem, forward.plan
    made: dict[str, Operand] = {name: recorder.scratch_rows(shape) for name, shape in plan.internal.items()}
    for name, dim in (("k", problem.head_dim), ("v", problem.value_dim)):
        shape = (problem.batch, problem.heads, problem.seq_kv, dim)
        if f"d{name}" in made:
            continue
        if name in frozen:
            made[f"d{name}"] = recorder.scratch_rows(shape)
        else:
            result = f"d{name}_slots" if forward.inner else f"d{name}"
            made[f"d{name}"] = recorder.result(result, shape, side_by_side=True)
    return made


def _through_projections(
    problem: Problem, found: Mapping[str, Operand], recorder: GpuRecorder, frozen: frozenset[str]
) -> dict[str, SlotProduct]:
    """Gradients of tokens and projections from those of the slots."""
    projections = dict.fromkeys(("k", "v"), "proj_k") if problem.shared_proj else {"k": "proj_k", "v": "proj_v"}
    of = frozenset(name for name in projections if found and name not in frozen)
    products = _of_tokens(problem, projections, found, of, recorder) if of else {}
    of = frozenset(name for name, proj in projections.items() if found and proj not in frozen)
    if of:
        _of_projections(problem, found, of, recorder)
    return products


def _of_tokens(
    problem: Problem, projections: Mapping[str, str], found: Mapping[str, Operand], of: frozenset[str],
    recorder: GpuRecorder,
) -> dict[str, SlotProduct]:  # fmt: skip
    """E^T dk' and F^T dv', by a stage where there is one."""
    planned = token_stage(problem, of, recorder.gpu.multiprocessors)
    if planned is None:
        return {name: SlotProduct(projections[name], f"d{name}_slots") for name in of}
    dims = {"k": problem.head_dim, "v": problem.value_dim}
    given = _scales(found)
    for name in sorted(of):
        shape = (problem.batch, problem.heads, problem.seq_kv, dims[name])
        given[f"d{name}"] = recorder.result(f"d{name}", shape, side_by_side=True)
        given[f"proj_{name}"] = recorder.readable(recorder.operand(projections[name]))
        given[f"d{name}_spread"] = found[f"d{name}_spread"]
    recorder.launch(planned[0], given, planned[1])
    return {}


def _scales(found: Mapping[str, Operand]) -> dict[str, Operand]:
    """What undoes the scales of the slots' gradients, where they have some."""
    return {name: one for name, one in found.items() if name == "gradient_scales"}


def _of_projections(problem: Problem, found: Mapping[str, Operand], of: frozenset[str], recorder: GpuRecorder) -> None:
    """dE and dF."""
    stage, boxes = projection_stage(problem, of, recorder.gpu.multiprocessors)
    given: dict[str, Operand] = {name: recorder.readable(recorder.operand(name)) for name in of}
    given |= {f"d{name}_slots": found[f"d{name}"] for name in of} | _scales(found)
    heads = problem.heads if problem.per_head_proj else 1
    for name in ["proj_k"] if problem.shared_proj else [f"proj_{name}" for name in sorted(of)]:
        given[f"d{name}"] = recorder.result(f"d{name}", (1, heads, problem.rank, problem.seq_kv))
    recorder.launch(stage, given, boxes)
