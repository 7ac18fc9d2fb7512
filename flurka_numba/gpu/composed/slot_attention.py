"""Low-rank attention in bfloat16 as splat_numba's attention, forward and back: every query has every slot.

Slots are rounded, as keys and values are; out is made anew on the way back.
"""

from __future__ import annotations

from collections.abc import Mapping

from flurka_numba.gpu.composed.operands import Operands
from flurka_numba.gpu.composed.projections import project
from splat_numba.executors.gpu.parts import record_dense_attention, record_dense_gradients
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.schedules.schedule import Place, place_of
from splat_numba.gen.schedules.tensor import Tensor, contiguous, padded_bytes
from splat_numba.gen.targets.gradients import GradientCall
from splat_numba.gen.targets.target import AttentionCall


class SlotAttention:
    """The slots of one call, kept for the way back."""

    def __init__(self, operands: Operands) -> None:
        problem, recorder = operands.problem, operands.recorder
        shapes = [(*operands.sides, problem.rank, dim) for dim in (problem.head_dim, problem.value_dim)]
        k, v = (recorder.rows(recorder.kept(padded_bytes(shape)), shape) for shape in shapes)
        self._k, self._v = project(operands, "k", k), project(operands, "v", v)

    def forward(self, operands: Operands, out: Tensor, lse: Place | None = None) -> None:
        """Write out, and at ``lse`` each row's logarithm of its sum."""
        recorder = operands.recorder
        q, scale, multiprocessors = operands.array("q"), operands.problem.scale, recorder.gpu.multiprocessors
        call = AttentionCall(q, self._k, self._v, out, scale, multiprocessors, lse)
        record_dense_attention(recorder.builder, call, recorder.gpu, recorder.target)

    def pull(self, operands: Operands, dout: Tensor, results: Mapping[str, Tensor]) -> None:
        """Write gradients, of the queries and the slots, as far as there are results: "dq", "dk", "dv"."""
        if not results:
            return
        recorder, problem = operands.recorder, operands.problem
        rows = (*operands.sides, problem.seq_q, 1)
        out = recorder.scratch_rows((*rows[:3], problem.value_dim))
        (place,) = recorder.scratch(4 * rows[0] * rows[1] * rows[2])
        lse = Tensor(rows, contiguous(rows, 1, 4), "float32", *place)
        self.forward(operands, out, place_of(lse))
        wanted = Wanted(*(f"d{name}" in results for name in "qkv"))
        call = GradientCall(
            operands.array("q"), self._k, self._v, out, dout, lse, None, None, results, wanted, problem.scale,
            recorder.gpu.multiprocessors,
        )  # fmt: skip
        record_dense_gradients(recorder.builder, call, recorder.gpu, recorder.target)
