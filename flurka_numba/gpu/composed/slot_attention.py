"""Low-rank attention in bfloat16 as splat_numba's attention, forward and back: every query has every slot.

Slots are rounded, as keys and values are; out is made anew on the way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flurka_numba.gpu.composed.launches import Launches
from flurka_numba.gpu.composed.operands import Operands
from flurka_numba.gpu.composed.plan import query_shares
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

    def forward(self, operands: Operands, out: Tensor) -> None:
        """Write out."""
        self._attend(operands, operands.array("q"), self._k, self._v, out)

    @staticmethod
    def _attend(operands: Operands, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Place | None = None) -> None:
        """Write out, and at ``lse`` each row's logarithm of its sum."""
        recorder = operands.recorder
        call = AttentionCall(q, k, v, out, operands.problem.scale, recorder.gpu.multiprocessors, lse)
        record_dense_attention(recorder.builder, call, recorder.gpu, recorder.target)

    def pull(self, operands: Operands, dout: Tensor, results: Mapping[str, Tensor]) -> None:
        """Write gradients, of the queries and the slots, as far as there are results: "dq", "dk", "dv"."""
        if not results:
            return
        problem = operands.problem
        shares = query_shares(problem, operands.recorder.gpu.multiprocessors)
        if shares == 1:
            self._pull(operands, operands.array("q"), self._k, self._v, dout, results)
            return
        for entry in range(problem.batch):
            of_entry = {name: _entry(one, entry) for name, one in results.items()}
            with operands.recorder.builder.apart(f"entry_{entry}"):
                self._pull_in_shares(operands, _entry(dout, entry), of_entry, entry, shares)

    def _pull_in_shares(
        self, operands: Operands, dout: Tensor, results: Mapping[str, Tensor], entry: int, shares: int
    ) -> None:
        """Of one batch entry. Queries know nothing of each other: shares of them are batch entries with the same slots.
        Gradients of these are rounded in every share, and added up in float32.
        """
        launches, recorder = Launches(operands.recorder), operands.recorder
        q, slots = _entry(operands.array("q"), entry), [_entry(one, entry) for one in (self._k, self._v)]
        parts = {
            name: recorder.scratch_rows((shares, *one.sizes[1:])) if name != "dq" else _in_shares(one, shares)
            for name, one in results.items()
        }
        k, v = (replace(one, sizes=(shares, *one.sizes[1:]), strides=(0, *one.strides[1:])) for one in slots)
        self._pull(operands, _in_shares(q, shares), k, v, _in_shares(dout, shares), parts)
        for name, one in results.items():
            if name != "dq":
                launches.add_up(parts[name], one)
                recorder.builder.release(place_of(parts[name]))

    def _pull(
        self, operands: Operands, q: Tensor, k: Tensor, v: Tensor, dout: Tensor, results: Mapping[str, Tensor]
    ) -> None:
        """By a forward pass whose out and lse are lost."""
        recorder, problem = operands.recorder, operands.problem
        rows = (*q.sizes[:3], 1)
        out = recorder.scratch_rows((*rows[:3], problem.value_dim))
        (place,) = recorder.scratch(4 * rows[0] * rows[1] * rows[2])
        lse = Tensor(rows, contiguous(rows, 1, 4), "float32", *place)
        self._attend(operands, q, k, v, out, place_of(lse))
        wanted = Wanted(*(f"d{name}" in results for name in "qkv"))
        call = GradientCall(
            q, k, v, out, dout, lse, None, None, results, wanted, problem.scale, recorder.gpu.multiprocessors
        )
        record_dense_gradients(recorder.builder, call, recorder.gpu, recorder.target)
        recorder.builder.release(place_of(out))
        recorder.builder.release(place)


def _entry(tensor: Tensor, number: int) -> Tensor:
    """One batch entry alone."""
    return replace(tensor.part(number, 0), sizes=(1, *tensor.sizes[1:]))


def _in_shares(tensor: Tensor, shares: int) -> Tensor:
    """Rows of the one batch entry as those of so many."""
    _, heads, rows, dim = tensor.sizes
    _, to_head, to_row, step = tensor.strides
    of_share = rows // shares
    return replace(tensor, sizes=(shares, heads, of_share, dim), strides=(of_share * to_row, to_head, to_row, step))
