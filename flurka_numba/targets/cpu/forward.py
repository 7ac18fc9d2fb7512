"""The launches of a call on a CPU: compress, absorb, attend."""

from __future__ import annotations

from functools import partial

import numpy as np

from flurka_numba.problem import Problem
from flurka_numba.targets.cpu import host
from flurka_numba.targets.cpu.plan import SOFTMAX, CpuPlan
from flurka_numba.targets.cpu.recorder import CpuRecorder, split_count
from splat_numba.gen.schedules.array_schedule import ArraySchedule

GROUP = 4  # heads that use a staged tile of a shared projection: staging it is then a few percent; 8 are as fast

# What gradients want of the forward pass. keys, values: the rows that were absorbed, of slots; slot_lengths: how many
# of them. w, w_t: of the feature map. stabs: (batch, heads), of favor. state: (batch, heads, features, value_dims);
# sums: (batch, heads, 1, features); both times their head's power of two, scales: (batch, heads). In low-rank attention
# these two have none, and scales are what q w is multiplied with to be scores.
HEADS = ("w", "w_t", "stabs", "state", "sums", "scales")
SLOTS = ("keys", "values", "slot_lengths")


def kept_of(problem: Problem) -> tuple[str, ...]:
    """What the forward schedule of a problem leaves for gradients."""
    return (*HEADS, *SLOTS) if problem.method == "flurka" else HEADS


def forward_schedule(plan: CpuPlan, problem: Problem) -> ArraySchedule:
    """Writes ``out``, and leaves what kept_of() says."""
    omega = ("omega",) if problem.random else ()
    to = CpuRecorder(plan, problem, *problem.differentiated, "kv_lengths", *omega, "out")
    if plan.feature_map == SOFTMAX:
        _absorb_softmax(to)
    else:
        _absorb(to)
    to.launch("attend", to.heads * -(-problem.seq_q // plan.tile_rows), {})
    if problem.method == "kernel":
        to.builder.change(host.clear_without_keys, "out", "kv_lengths")
    return to.builder.finish(*kept_of(problem))


def _absorb(to: CpuRecorder) -> None:
    """Keys and values through the feature map."""
    problem, plan, rows = to.problem, to.plan, {"k": "k", "v": "v", "lengths": "kv_lengths"}
    if problem.method == "flurka":
        for name, source, proj, dim in _sides(problem):
            to.builder.compute(name, partial(host.cut, problem.rank, dim), _slots(to, source, proj, dim))
        to.builder.table("slot_lengths", np.full(problem.batch, problem.rank, np.int64))
        rows = {"k": "keys", "v": "values", "lengths": "slot_lengths"}
    _weights(to)
    splits = split_count(to.heads, problem.slots)
    items, value_dims = to.heads * splits, plan.padded(problem.value_dim)
    if plan.feature_map == "favor":
        to.zeros("largest", splits)
        to.launch("largest_key", items, rows)
        to.builder.compute("stabs", host.largest_of, "largest")
    else:
        to.builder.table("stabs", np.zeros(to.of_heads, plan.compute_dtype))
    made = {"state": to.empty("split_state", splits, to.features, value_dims)}
    made["sums"] = to.empty("split_sums", splits, 1, to.features)
    to.launch("absorb", items, rows | made)
    state = to.fold("split_state", splits, to.features, value_dims)
    sums = to.fold("split_sums", splits, 1, to.features)
    to.builder.compute(("state", "sums", "scales"), host.scaled_state, state, sums)


def _absorb_softmax(to: CpuRecorder) -> None:
    """Low-rank attention: the slots of a head are its feature map, its values the state."""
    problem, plan = to.problem, to.plan
    keys, values = _sides(problem)
    make = partial(host.slot_weights, plan, problem.rank, problem.head_dim, problem.scale)
    to.builder.compute(("w", "w_t", "scales"), make, _slots(to, *keys[1:]))
    to.builder.compute("state", np.asarray, _slots(to, *values[1:]))
    sums = np.zeros((*to.of_heads, 1, to.features), plan.compute_dtype)
    sums[..., : problem.rank] = 1
    to.builder.table("sums", sums)
    to.builder.table("stabs", np.zeros((0, 0), plan.compute_dtype))


def _sides(problem: Problem) -> tuple[tuple[str, str, str, int], tuple[str, str, str, int]]:
    """(what the slots are called, of which tokens, by which projection, their dim)."""
    proj_v = "proj_k" if problem.shared_proj else "proj_v"
    return ("keys", "k", "proj_k", problem.head_dim), ("values", "v", proj_v, problem.value_dim)


def _slots(to: CpuRecorder, source: str, proj: str, dim: int) -> str:
    """The slots of keys or values, E k or F v, padded."""
    problem, plan = to.problem, to.plan
    group = 1 if problem.per_head_proj else GROUP
    units = problem.batch * -(-problem.heads // group)
    splits = split_count(units, problem.seq_kv)
    block = plan.padded(problem.rank), plan.padded(dim)
    made = to.empty(f"slots_{source}", splits, *block)
    arrays = {"source": source, "proj": proj, "lengths": "kv_lengths", "partial": made}
    to.launch("compress", units * splits, arrays, group=group)
    return to.fold(made, splits, *block)


def _weights(to: CpuRecorder) -> None:
    """Of random features, for all heads; without numbers for elementwise maps."""
    if not to.problem.random:
        for name in ("w", "w_t"):
            to.builder.table(name, np.zeros((1, 1, 0, 0), to.plan.compute_dtype))
        return
    factor = to.problem.head_dim**-0.25 if to.plan.feature_map == "favor" else 1
    to.builder.compute(("w", "w_t"), partial(host.random_weights, to.plan, factor), "omega")
