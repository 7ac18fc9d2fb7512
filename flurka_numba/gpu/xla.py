"""FLuRKA's schedules on a GPU, forward and back, as programs that XLA calls: those of any call there, over its buffers.

Gradients are two programs, since what the first keeps for the second is an array between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flurka_numba.gpu.checks import check_supported
from flurka_numba.gpu.choice import choose_target
from flurka_numba.gpu.forward import forward_recording, in_place
from flurka_numba.gpu.gradient_schedules import Gradients
from flurka_numba.gpu.gradients import SlotProduct
from flurka_numba.gpu.recorder import KEPT, Recording
from flurka_numba.problem import Problem
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import copied_of
from splat_numba.gen.schedules.tensor import ROW_ALIGNMENT, Axes, Tensor, contiguous
from splat_numba.runtime.xla.gpu_program import GpuProgram, program_over


@dataclass(frozen=True, slots=True)
class XlaPart:
    """A program, and the shapes of its results by name, four axes each; kept: bytes of a result behind them, for the
    next program, 0 for none; scratch: of the last result, likewise.
    """

    program: GpuProgram
    results: Mapping[str, Axes]
    kept: int
    scratch: int


def forward_part(problem: Problem, gpu: Gpu) -> XlaPart:
    """Over problem.inputs to out, all contiguous. kv_lengths: int32; omega: float32.

    Raises ArgumentTypeError for float64.
    """
    operands = _operands(problem)
    target = _target(problem, gpu, gradients=False)
    recording = forward_recording(problem, gpu, operands, copied_of(in_place(operands, target)), {}, target)
    return _part(recording, problem.inputs, keeps=False)


def gradient_parts(problem: Problem, gpu: Gpu) -> tuple[XlaPart, XlaPart, Mapping[str, SlotProduct]]:
    """Over problem.inputs to out and what is kept; over those, dout and what was kept to gradients; and which
    gradients are left to products of arrays, by the names of their arguments. Raises as forward_part().
    """
    operands, target = _operands(problem), _target(problem, gpu, gradients=True)
    dout = _tensor(problem, "dout")
    gradients = Gradients(problem, gpu, operands, {}, target, views=False)
    forward = gradients.forward(copied_of(in_place(operands, target)))
    copied = copied_of(in_place(gradients.operands_of_backward(dout), target))
    backward, products = gradients.backward(dout, frozenset(), copied)
    names = problem.inputs
    return (
        _part(forward, names, keeps=True),
        _part(backward, (*names, "dout", KEPT), keeps=False),
        products,
    )


def _part(recording: Recording, given: Sequence[str], *, keeps: bool) -> XlaPart:
    """A recording as a program over arrays of these names."""
    schedule = recording.schedule
    made = (*recording.outputs, *((KEPT,) if keeps else ()))
    shapes = {name: one.shape for name, one in recording.outputs.items()}
    program = program_over(schedule, given, made, ROW_ALIGNMENT)
    return XlaPart(program, shapes, max(recording.kept, 1) if keeps else 0, schedule.scratch)


def _target(problem: Problem, gpu: Gpu, *, gradients: bool) -> str:
    """The one that the rule gives: JAX's transforms know no request. Raises ArgumentTypeError, BackendError."""
    check_supported(problem)
    return choose_target(None, problem, gpu, gradients=gradients).chosen


def _operands(problem: Problem) -> dict[str, Tensor]:
    return {name.removeprefix("d"): _tensor(problem, name.removeprefix("d")) for name in problem.gradients}


def _tensor(problem: Problem, name: str) -> Tensor:
    """A contiguous array: tokens as (batch, heads, seq, dim), projections as (1, heads or 1, rank, seq_kv)."""
    if name.startswith("proj"):
        sizes: Axes = (1, problem.heads if problem.per_head_proj else 1, problem.rank, problem.seq_kv)
    else:
        seq = problem.seq_kv if name in ("k", "v") else problem.seq_q
        sizes = (problem.batch, problem.heads, seq, problem.head_dim if name in ("q", "k") else problem.value_dim)
    return Tensor(sizes, contiguous(sizes, sizes[3], problem.itemsize), problem.dtype, name)
