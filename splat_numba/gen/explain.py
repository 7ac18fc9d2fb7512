"""A plan in words, and as plain values for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice, ClosedPass, Pass, Plan

REFUSED_SHOWN = 3


def explain(plan: Plan) -> str:
    """What was chosen and why, what was refused, counted work and predicted time; about twenty lines."""
    problem, cost = plan.problem, plan.cost
    density = cost.kept / max(problem.seq_q * problem.seq_kv, 1)
    about = "" if cost.exact else "about "
    lines = [
        f"mask        {plan.mask}",
        f"problem     batch {problem.batch}, heads {problem.heads_q}/{problem.heads_kv}, {problem.seq_q} x "
        f"{problem.seq_kv}, head_dim {problem.head_dim}, value_dim {problem.value_dim}, {problem.dtype}",
        f"target      {plan.target}, {describe_machine(plan)}",
        f"geometry    {plan.bands} bands, {'closed form' if plan.closed else 'tables'}; the kernel {_serves(plan)}",
        f"kept        {about}{cost.kept:,} pairs a head, density {density:.2%}",
        f"computed    {about}{cost.area:,} pairs, fill {cost.fill:.0%}; {cost.tiles:,} tiles of which "
        f"{cost.full:,} full, in {cost.blocks:,} row blocks",
        f"predicted   {cost.seconds * 1e3:.3g} ms; dense {cost.dense_seconds * 1e3:.3g} ms",
    ]
    for number, one in enumerate(plan.passes):
        lines.append(f"pass {number}      {_describe(one)}")
    if not plan.covered:
        lines.append("fill        out = 0 and lse = -inf first, because no pass is known to visit every row")
    for choice in plan.choices:
        lines.extend(_explain_choice(choice))
    return "\n".join(lines)


def describe_machine(plan: Plan) -> str:
    """What the plan reckons with, in words."""
    machine = plan.machine
    if isinstance(machine, Gpu):
        return f"{machine.multiprocessors} multiprocessors, {machine.shared_bytes >> 10} KiB of shared memory a block"
    return f"{machine.cores} cores, {machine.vector_bytes}-byte vectors"


def _serves(plan: Plan) -> str:
    if plan.passes and all(isinstance(one, BoxPass) for one in plan.passes):
        return "serves every mask and length, with tables made for these"
    return "serves every length" if plan.closed else "made for these lengths"


def _describe(one: Pass) -> str:
    resumes = "; resumes the softmax of an earlier pass" if one.resumes else ""
    if isinstance(one, ClosedPass):
        classes = f"in {one.row_step} residue classes" if one.row_step > 1 else "in order"
        bands = f"{len(one.segments)} interval{'s' if len(one.segments) > 1 else ''} a row"
        return f"{one.tile_q} x {one.tile_kv} tiles, rows {classes}, {bands}{resumes}"
    if isinstance(one, BoxPass):
        shape = f"{one.tile_q} x {one.tile_kv} tiles"
        if one.kv_box.outer > 1:
            shape += f" (boxes {one.q_box.inner} x {one.q_box.outer} and {one.kv_box.inner} x {one.kv_box.outer})"
        resident = one.traits.blocks_per_multiprocessor
        return (
            f"{shape}, rows {one.order}, {len(one.table.piece):,} pieces and {len(one.table.bits):,} masks listed, "
            f"{resident} block{'s' if resident > 1 else ''} a multiprocessor{resumes}"
        )
    gathered = "; short ranges gathered" if (one.table.piece[:, 1] == 0).any() else ""
    return f"{one.tile_q} x {one.tile_kv} tiles, {len(one.table.piece):,} pieces listed{gathered}{resumes}"


def _explain_choice(choice: Choice) -> list[str]:
    lines = [f"chosen      {choice.what}: {choice.chosen} ({choice.reason})"]
    lines.extend(f"  refused   {name}: {reason}" for name, reason in choice.refused[:REFUSED_SHOWN])
    if len(choice.refused) > REFUSED_SHOWN:
        lines.append(f"  refused   {len(choice.refused) - REFUSED_SHOWN} more, all slower")
    return lines


def as_dict(plan: Plan) -> dict[str, Any]:
    """Plain values; tables are given by their sizes."""
    return {
        "problem": asdict(plan.problem),
        "target": plan.target,
        "machine": asdict(plan.machine),
        "mask": plan.mask,
        "bands": plan.bands,
        "covered": plan.covered,
        "passes": [_pass_dict(one) for one in plan.passes],
        "cost": asdict(plan.cost),
        "choices": [asdict(choice) for choice in plan.choices],
    }


def _pass_dict(one: Pass) -> dict[str, Any]:
    values: dict[str, Any] = {"tile_q": one.tile_q, "tile_kv": one.tile_kv, "resumes": one.resumes}
    if isinstance(one, ClosedPass):
        segments = [{"lattice": asdict(s.lattice), "lo": repr(s.lo), "hi": repr(s.hi)} for s in one.segments]
        return values | {
            "row_lo": repr(one.row_lo),
            "row_hi": repr(one.row_hi),
            "row_step": one.row_step,
            "segments": segments,
        }
    if isinstance(one, BoxPass):
        return values | {
            "order": one.order,
            "traits": asdict(one.traits),
            "q_box": asdict(one.q_box),
            "kv_box": asdict(one.kv_box),
            "pieces": len(one.table.piece),
            "masks": len(one.table.bits),
            "blocks": len(one.table.block),
            "bytes": one.table.nbytes,
        }
    return values | {"pieces": len(one.table.piece), "blocks": len(one.table.block_ptr) - 1, "bytes": one.table.nbytes}
