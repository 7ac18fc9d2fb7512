"""A plan in words, and as plain values for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from splat_numba.gen.language.dtypes import IEEE
from splat_numba.plain import counted, duration

if TYPE_CHECKING:
    from splat_numba.gen.plans.backward import BackwardPlan
    from splat_numba.gen.plans.plan import Choice, Pass, Plan

REFUSED_SHOWN = 3


def explain(plan: Plan) -> str:
    """What was chosen and why, what was refused, counted work and predicted time; about twenty lines."""
    problem, cost = plan.problem, plan.cost
    density = cost.kept / max(problem.seq_q * problem.seq_kv, 1)
    about = "" if cost.exact else "about "
    rounded = "" if problem.precision == IEEE else f", precision {problem.precision}"
    lines = [
        f"mask        {plan.mask}",
        f"problem     batch {problem.batch}, heads {problem.heads_q}/{problem.heads_kv}, {problem.seq_q} x "
        f"{problem.seq_kv}, head_dim {problem.head_dim}, value_dim {problem.value_dim}, {problem.dtype}{rounded}",
        f"target      {plan.target}, {plan.machine.describe()}",
        f"geometry    {counted(plan.bands, 'band')}, {'closed form' if plan.closed else 'tables'}; the kernel "
        f"{_serves(plan)}",
        f"kept        {about}{cost.kept:,} pairs a head, density {density:.2%}",
        f"computed    {about}{cost.area:,} pairs, fill {cost.fill:.0%}; {cost.tiles:,} tiles of which "
        f"{cost.full:,} full, in {cost.blocks:,} row blocks",
        f"predicted   {duration(cost.seconds)}; dense {duration(cost.dense_seconds)}",
    ]
    for number, one in enumerate(plan.passes):
        lines.append(f"pass {number}      {_describe(one)}")
    if not plan.covered:
        lines.append("fill        out = 0 and lse = -inf first, because no pass is known to visit every row")
    for choice in plan.choices:
        lines.extend(explain_choice(choice))
    if plan.backward is not None:
        lines.append(explain_backward(plan.backward))
    return "\n".join(lines)


def explain_backward(plan: BackwardPlan) -> str:
    """How gradients are made, what it costs, and what was refused."""
    lines = []
    if plan.seconds is not None:
        lines.append(f"gradients   predicted {duration(plan.seconds)}")
    for of, passes in (("queries", plan.queries), ("keys", plan.keys)):
        lines += [f"pass {number}      gradients of {of}: {one.describe()}" for number, one in enumerate(passes)]
    for choice in plan.choices:
        lines.extend(explain_choice(choice))
    return "\n".join(lines)


def backward_as_dict(plan: BackwardPlan) -> dict[str, Any]:
    """Plain values; tables are given by their sizes."""
    return {
        "queries": [_pass_dict(one) for one in plan.queries],
        "keys": [_pass_dict(one) for one in plan.keys],
        "seconds": plan.seconds,
        "choices": [asdict(choice) for choice in plan.choices],
    }


def _serves(plan: Plan) -> str:
    if plan.passes and all(one.shared for one in plan.passes):
        return "serves every mask and length, with tables made for these"
    return "serves every length" if plan.closed else "made for these lengths"


def _describe(one: Pass) -> str:
    return one.describe() + ("; resumes the softmax of an earlier pass" if one.resumes else "")


def explain_choice(choice: Choice) -> list[str]:
    """One decision, a line for what was chosen and one for each that was refused."""
    lines = [f"chosen      {choice.what}: {choice.chosen} ({choice.reason})"]
    lines.extend(f"  refused   {name}: {reason}" for name, reason in choice.refused[:REFUSED_SHOWN])
    if len(choice.refused) > REFUSED_SHOWN:
        lines.append(f"  refused   {len(choice.refused) - REFUSED_SHOWN} more, all slower")
    return lines


def as_dict(plan: Plan) -> dict[str, Any]:
    """Plain values; tables are given by their sizes."""
    found = {
        "problem": asdict(plan.problem),
        "target": plan.target,
        "machine": asdict(plan.machine),
        "mask": plan.mask,
        "bands": plan.bands,
        "covered": plan.covered,
        "passes": [_pass_dict(one) for one in plan.passes],
        "cost": asdict(plan.cost),
        "choices": [asdict(choice) for choice in plan.choices],
        "fused": plan.fused,
    }
    return found if plan.backward is None else {**found, "backward": backward_as_dict(plan.backward)}


def _pass_dict(one: Pass) -> dict[str, Any]:
    return {"tile_q": one.tile_q, "tile_kv": one.tile_kv, "resumes": one.resumes, **one.as_dict()}
