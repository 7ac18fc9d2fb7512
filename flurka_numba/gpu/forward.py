"""A forward call as a schedule: by tensor cores' stages, or composed in float32; which arrays it takes in place."""

from __future__ import annotations

from collections.abc import Mapping

from flurka_numba.gpu.choice import HOPPER, WARPS
from flurka_numba.gpu.composed.attention import Composed
from flurka_numba.gpu.forward_stages import record_forward
from flurka_numba.gpu.plan import forward_plan
from flurka_numba.gpu.recorder import GpuRecorder, Recording
from flurka_numba.gpu.slot_attention import attend_to_slots
from flurka_numba.problem import Problem
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import InPlace
from splat_numba.gen.schedules.tensor import ROW_ALIGNMENT, Tensor, padded
from splat_numba.gen.schedules.tensor_map import describable
from splat_numba.gen.targets.gpu.launches import in_chunks


def forward_recording(
    problem: Problem, gpu: Gpu, operands: Mapping[str, Tensor], copied: frozenset[str],
    axes: Mapping[str, int], target: str,
) -> Recording:  # fmt: skip
    """The launches of a call over its arrays, and key lengths and omega where there are any, by a target's texts.

    A result that was not given is an output.
    """
    recorder = GpuRecorder(problem, gpu, operands, copied, axes, target=target)
    out = recorder.result("out", (problem.batch, problem.heads, problem.seq_q, problem.value_dim))
    if target != HOPPER:
        Composed(recorder).forward(out)
    elif problem.method == "low_rank":
        attend_to_slots(recorder, out)
    elif out.sizes[0] * out.sizes[1] * out.sizes[2]:
        record_forward(forward_plan(problem, gpu.multiprocessors), recorder, {"out": out})
    return recorder.finish()


def in_place(operands: Mapping[str, Tensor], target: str) -> dict[str, InPlace]:
    """Which arrays of a call need no copy. simt's texts read numbers one by one, at any strides."""
    found = {}
    for name, one in operands.items():
        if name == "out":
            found[name] = InPlace(stores_whole_rows(one), ROW_ALIGNMENT)
        else:
            fits = {HOPPER: describable(0, one), WARPS: in_chunks(one)}
            found[name] = InPlace(fits[target], ROW_ALIGNMENT) if target in fits else InPlace(True, 1)
    return found


def stores_whole_rows(out: Tensor) -> bool:
    """Whether 16 bytes at a time can be stored, at an aligned address."""
    itemsize, dim = ITEMSIZE[out.dtype], out.sizes[3]
    *steps, unit = out.strides
    aligned = all(step % ROW_ALIGNMENT == 0 for step, size in zip(steps, out.sizes[:3], strict=True) if size > 1)
    return aligned and (unit == itemsize or dim == 1) and padded(dim, itemsize) == dim
