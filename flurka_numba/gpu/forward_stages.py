"""A forward plan's stages written down: what each reads and writes, and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping

from flurka_numba.gpu.plan import ForwardPlan
from flurka_numba.gpu.recorder import GpuRecorder, Operand


def record_forward(plan: ForwardPlan, recorder: GpuRecorder, results: Mapping[str, Operand]) -> None:
    """Add the stages. results: by the names of their parameters."""
    builder, problem = recorder.builder, plan.problem
    read: dict[str, Operand] = {name: recorder.readable(recorder.operand(of)) for name, of in arrays_read(plan).items()}
    sizes = plan.between
    between = dict(zip(sizes, recorder.scratch(*sizes.values()), strict=True))
    given: dict[str, Operand] = {**read, **results, **between}
    if plan.counters:
        given["counters"] = builder.counters(plan.counters)
    if problem.ragged:
        given["kv_lengths"] = recorder.lengths
    if problem.random:
        given["omega"] = recorder.omega
    for number, stage in enumerate(plan.stages):
        boxes = {name: rows for name, rows in plan.boxes.items() if f"{name}_map" in stage.parameters}
        recorder.launch(stage, given, boxes, overlaps=number > 0 and stage.text.entry.overlaps)


def arrays_read(plan: ForwardPlan) -> dict[str, str]:
    """What the stages read of a call, by the names of their parameters: of a shared projection both are one."""
    problem = plan.problem
    found = {name: name for name in ("k", "v")}
    if problem.model_dim:
        found |= {"x": "q", "w_q": "w_q"}
    elif problem.method != "low_rank":
        found["q"] = "q"
    if problem.method != "kernel":
        found |= {"proj_k": "proj_k", "proj_v": "proj_k" if problem.shared_proj else "proj_v"}
    return found
