"""The launches of gradients on a CPU: from ``dout`` through each head's state back to tokens and projections."""

from __future__ import annotations

from functools import partial

from flurka_numba.problem import Problem
from flurka_numba.targets.cpu import host
from flurka_numba.targets.cpu.forward import kept_of
from flurka_numba.targets.cpu.plan import SOFTMAX, CpuPlan
from flurka_numba.targets.cpu.recorder import CpuRecorder, split_count
from splat_numba.gen.schedules.array_schedule import ArraySchedule


def wanted(problem: Problem, frozen: frozenset[str]) -> tuple[str, ...]:
    """What a plan must find gradients of: "q", and the "keys" and "values" that a head's state is made of."""
    sources = {"q": {"q"}, "keys": {"k"}, "values": {"v"}}
    if problem.method != "kernel":
        sources["keys"].add("proj_k")
        sources["values"].add("proj_k" if problem.shared_proj else "proj_v")
    return tuple(name for name, names in sources.items() if not names <= frozen)


def gradient_schedule(plan: CpuPlan, problem: Problem, frozen: frozenset[str]) -> ArraySchedule:
    """Its results are d<name> of every argument that is not frozen, in compute dtype."""
    to = CpuRecorder(plan, problem, *problem.differentiated, "kv_lengths", "dout", *kept_of(problem))
    slots = _through_queries(to)
    results = ["dq"] if "q" in plan.wants else []
    sides = [name for name in ("keys", "values") if name in plan.wants]
    if plan.feature_map != SOFTMAX and sides:
        slots = _through_keys(to)
    for side in sides:
        source, proj = ("k", "proj_k") if side == "keys" else ("v", "proj_v")
        if problem.method == "kernel":
            results.append(f"d{source}")
        else:
            results += _through_projection(to, slots[side], source, proj, frozen)
    if problem.shared_proj and "dproj_v" in results:
        results.remove("dproj_v")
        to.builder.change(host.add, "dproj_k", "dproj_v")
    return to.builder.finish(*results)


def _through_queries(to: CpuRecorder) -> dict[str, str]:
    """dq and, summed over queries, whole_dstate, whole_dsums and the gradient of softmax's weights; returns gradients
    of slots, of low-rank attention. Arrays of what is not wanted are empty.
    """
    problem, plan, features = to.problem, to.plan, to.features
    splits = split_count(to.heads, problem.seq_q)
    blocks = {
        "dstate": (features if plan.absorbs else 0, plan.padded(problem.value_dim)),
        "dsums": (1, features),
        "dw_t": (features if plan.weighs else 0, plan.padded(problem.head_dim)),
    }
    to.empty("dq", problem.seq_q if "q" in plan.wants else 0, problem.head_dim)
    for name, block in blocks.items():
        to.empty(name, splits, *block)
    to.builder.compute("state_t", host.transposed, "state")
    to.launch("query_gradient", to.heads * splits, {})
    if problem.method == "kernel":
        to.builder.change(host.clear_without_keys, "dq", "kv_lengths")
    whole = {name: to.fold(name, splits, *block) for name, block in blocks.items()}
    if plan.feature_map != SOFTMAX:
        for name in ("dstate", "dsums"):
            to.builder.compute(f"scaled_{name}", host.scaled_by_head, whole[name], "scales")
        return {}
    return {
        "keys": to.builder.compute("dslots_k", partial(host.scaled, problem.scale), whole["dw_t"]),
        "values": whole["dstate"],
    }


def _through_keys(to: CpuRecorder) -> dict[str, str]:
    """Gradients of the rows that were absorbed: of tokens, or of slots, whose arrays are padded."""
    problem, plan = to.problem, to.plan
    arrays = {"dstate": "scaled_dstate", "dsums": "scaled_dsums"}
    arrays["dstate_t"] = to.builder.compute("dstate_t", host.transposed, "scaled_dstate")
    if problem.method == "kernel":
        found = {"keys": to.zeros("dk", problem.seq_kv, problem.head_dim)}
        found["values"] = to.zeros("dv", problem.seq_kv, problem.value_dim)
        arrays |= {"lengths": "kv_lengths"}
    else:
        rows = plan.padded(problem.rank)
        found = {"keys": to.zeros("dslots_k", rows, plan.padded(problem.head_dim))}
        found["values"] = to.zeros("dslots_v", rows, plan.padded(problem.value_dim))
        arrays |= {"k": "keys", "v": "values", "lengths": "slot_lengths"}
    arrays |= {"dk": found["keys"], "dv": found["values"]}
    to.launch("key_gradient", to.heads * -(-problem.slots // plan.tile_rows), arrays)
    return found


def _through_projection(to: CpuRecorder, dslots: str, source: str, proj: str, frozen: frozenset[str]) -> list[str]:
    """Gradients of k and proj_k, or of v and proj_v, from those of the slots."""
    problem, plan = to.problem, to.plan
    dim = problem.head_dim if source == "k" else problem.value_dim
    used = "proj_k" if problem.shared_proj else proj
    projections = problem.heads if problem.per_head_proj else 1
    tiles = projections * -(-problem.seq_kv // plan.tile_tokens)
    found = []
    if source not in frozen:
        found.append(to.zeros(f"d{source}", problem.seq_kv, dim))
        arrays = {"proj": used, "dslots": dslots, "lengths": "kv_lengths", "dsource": found[-1]}
        to.launch("expand", tiles, arrays)
    if used not in frozen:
        shape = projections, problem.rank, problem.seq_kv
        found.append(to.builder.fresh(f"d{proj}", plan.compute_dtype, *shape, zeroed=True))
        rows = to.builder.compute(f"rows_of_{proj}", partial(host.cut, None, dim), dslots)
        turned = to.builder.compute(f"turned_{proj}", host.transposed, rows)
        arrays = {"source": source, "dslots_t": turned, "lengths": "kv_lengths", "dproj": found[-1]}
        to.launch("project_gradient", tiles, arrays)
    return found
