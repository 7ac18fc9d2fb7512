"""The gradients of a call on CPU threads: from ``dout`` through each head's state back to tokens and projections."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.cpu.stages import Absorbed, Kernels, split_count
from flurka_numba.operands import Operands
from flurka_numba.problem import Problem
from flurka_numba.targets.cpu.plan import SOFTMAX


def wanted(problem: Problem, frozen: frozenset[str]) -> tuple[str, ...]:
    """What a plan must find gradients of: "q", and the "keys" and "values" that a head's state is made of."""
    sources = {"q": {"q"}, "keys": {"k"}, "values": {"v"}}
    if problem.method != "kernel":
        sources["keys"].add("proj_k")
        sources["values"].add("proj_k" if problem.shared_proj else "proj_v")
    return tuple(name for name, names in sources.items() if not names <= frozen)


def gradients(
    kernels: Kernels, operands: Operands, absorbed: Absorbed, dout: NDArray[Any], frozen: frozenset[str]
) -> dict[str, NDArray[Any]]:
    """Of every argument that is not frozen, by name, in compute dtype."""
    wants = kernels.plan.wants
    dq, dstate, dsums, dw_t = _through_queries(kernels, operands, absorbed, dout)
    found = {"q": dq} if "q" in wants else {}
    if kernels.plan.feature_map == SOFTMAX:
        slots = {"keys": dw_t * dw_t.dtype.type(operands.problem.scale), "values": dstate}
    else:
        slots = _through_keys(kernels, absorbed, dstate, dsums)
    if operands.problem.method == "kernel":
        return found | {name: slots[side] for side, name in (("keys", "k"), ("values", "v")) if side in wants}
    for side, source, proj in (("keys", "k", "proj_k"), ("values", "v", "proj_v")):
        if side in wants:
            found |= _through_projection(kernels, operands, slots[side], source, proj, frozen)
    if operands.problem.shared_proj and "proj_v" in found:
        found["proj_k"] += found.pop("proj_v")
    return found


def _through_queries(kernels: Kernels, operands: Operands, absorbed: Absorbed, dout: NDArray[Any]) -> tuple[Any, ...]:
    """dq and, summed over queries, dstate, dsums and the gradient of softmax's weights; empty what is not wanted."""
    problem, plan, weights = operands.problem, kernels.plan, absorbed.weights
    batch, heads, seq, head_dim = operands.q.shape
    splits = split_count(batch * heads, seq)
    sums_of = (batch, heads, splits)
    dq = kernels.empty(batch, heads, seq if "q" in plan.wants else 0, head_dim)
    dstate = kernels.empty(*sums_of, weights.features if plan.absorbs else 0, absorbed.state.shape[3])
    dsums = kernels.empty(*sums_of, 1, weights.features)
    dw_t = kernels.empty(*sums_of, weights.features if plan.weighs else 0, plan.padded(head_dim))
    state_t = np.ascontiguousarray(absorbed.state.swapaxes(2, 3))
    state = (weights.w, weights.w_t, weights.kept, state_t, absorbed.sums, absorbed.scales)
    arguments = (operands.q, dout, *state, dq, dstate, dsums, dw_t)
    kernels.run("query_gradient", batch * heads * splits, *arguments)
    if problem.method == "kernel":  # without keys, whatever the queries hold
        dq[operands.kv_lengths == 0] = 0
    scales = 1 if plan.feature_map == SOFTMAX else absorbed.scales[:, :, None, None]
    return dq, kernels.fold(dstate) * scales, kernels.fold(dsums) * scales, kernels.fold(dw_t)


def _through_keys(
    kernels: Kernels, absorbed: Absorbed, dstate: NDArray[Any], dsums: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Gradients of the rows that were absorbed: of tokens, or of slots, whose arrays are padded."""
    plan, weights = kernels.plan, absorbed.weights
    batch, heads, rows, head_dim = absorbed.keys.shape
    value_dim = absorbed.values.shape[3]
    if plan.method == "kernel":
        found = {"keys": kernels.zeros(batch, heads, rows, head_dim), "values": kernels.zeros(*absorbed.values.shape)}
    else:
        padded = (batch, heads, plan.padded(rows))
        found = {
            "keys": kernels.zeros(*padded, plan.padded(head_dim)),
            "values": kernels.zeros(*padded, plan.padded(value_dim)),
        }
    dstate_t = np.ascontiguousarray(dstate.swapaxes(2, 3))
    state = (weights.w, weights.w_t, absorbed.stabs, absorbed.lengths, weights.kept, dstate, dstate_t, dsums)
    items = batch * heads * -(-rows // plan.tile_rows)
    kernels.run("key_gradient", items, absorbed.keys, absorbed.values, *state, found["keys"], found["values"])
    return found


def _through_projection(
    kernels: Kernels, operands: Operands, dslots: NDArray[Any], source: str, proj: str, frozen: frozenset[str]
) -> dict[str, NDArray[Any]]:
    """Gradients of k and proj_k, or of v and proj_v, from those of the slots."""
    tokens: NDArray[Any] = getattr(operands, source)
    projection: NDArray[Any] = getattr(operands, "proj_k" if operands.problem.shared_proj else proj)
    tiles = projection.shape[0] * -(-tokens.shape[2] // kernels.plan.tile_tokens)
    found = {}
    if source not in frozen:
        found[source] = kernels.zeros(*tokens.shape)
        kernels.run("expand", tiles, projection, dslots, operands.kv_lengths, found[source])
    if ("proj_k" if operands.problem.shared_proj else proj) not in frozen:
        found[proj] = kernels.zeros(*projection.shape)
        dslots_t = np.ascontiguousarray(dslots[..., : tokens.shape[3]].swapaxes(2, 3))
        kernels.run("project_gradient", tiles, tokens, dslots_t, operands.kv_lengths, found[proj])
    return found
