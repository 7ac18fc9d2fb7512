"""Low-rank attention on tensor cores: its slots are made as keys and values, to which every query attends."""

from __future__ import annotations

from flurka_numba.gpu.forward_stages import record_forward
from flurka_numba.gpu.plan import forward_plan, scale_of_scores
from flurka_numba.gpu.recorder import GpuRecorder, Operand
from flurka_numba.gpu.stages import restore_stage
from flurka_numba.targets.sm90.scales import SLOT_SCALE_BYTES, is_scaled
from splat_numba.executors.gpu.parts import record_dense_attention
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.target import AttentionCall


def attend_to_slots(recorder: GpuRecorder, out: Tensor) -> None:
    """Add stages for E k and F v, splat_numba's attention to them, and what undoes float16's scales of F v."""
    problem, gpu = recorder.problem, recorder.gpu
    leading = problem.batch, problem.heads, problem.rank
    k, v = (recorder.scratch_rows((*leading, dim)) for dim in (problem.head_dim, problem.value_dim))
    results: dict[str, Operand] = {"k_slots": k, "v_slots": v}
    if is_scaled(problem.dtype):
        (results["slot_scales"],) = recorder.scratch(SLOT_SCALE_BYTES * problem.batch * problem.heads)
    record_forward(forward_plan(problem, gpu.multiprocessors), recorder, results)
    q = recorder.readable(recorder.operand("q"))
    call = AttentionCall(q, k, v, out, scale_of_scores(problem), gpu.multiprocessors)
    record_dense_attention(recorder.builder, call, gpu, recorder.target)
    if is_scaled(problem.dtype) and problem.rank:
        recorder.launch(restore_stage(problem), {"out": out, "slot_scales": results["slot_scales"]})
