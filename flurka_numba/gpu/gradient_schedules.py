"""A call with gradients as two schedules: forward, which keeps what the other needs, and from dout to gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flurka_numba.checks import ARRAYS
from flurka_numba.gpu.choice import HOPPER
from flurka_numba.gpu.composed.attention import Composed
from flurka_numba.gpu.gradients import Pull, SlotProduct, record_with_gradients
from flurka_numba.gpu.recorder import KEPT, GpuRecorder, Recording
from flurka_numba.problem import Problem
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Gradients:
    """Of calls that are alike. operands: their arrays, out last where one was given; axes: of results, by name; target:
    whose texts make them; views: whether the framework has views of its arrays.
    """

    problem: Problem
    gpu: Gpu
    operands: Mapping[str, Tensor]
    axes: Mapping[str, int]
    target: str
    views: bool

    def forward(self, copied: frozenset[str]) -> Recording:
        """The forward pass. copied: which operands it cannot take in place."""
        recorder = self._recorder(self.operands, copied)
        self._record(recorder)
        return recorder.finish()

    def backward(
        self, dout: Tensor, frozen: frozenset[str], copied: frozenset[str]
    ) -> tuple[Recording, dict[str, SlotProduct]]:
        """From dout to the gradients of what is not frozen, and products that are left to the arrays."""
        operands = self.operands_of_backward(dout)
        forward, backward = self._recorder(operands, frozenset()), self._recorder(operands, copied)
        backward.builder.argument(KEPT)
        pull = self._record(forward)
        products = pull(backward, dout, frozen)
        return backward.finish(), products

    def operands_of_backward(self, dout: Tensor) -> dict[str, Tensor]:
        """dout, and the arrays of the call."""
        return {"dout": dout} | {name: one for name, one in self.operands.items() if name != "out"}

    def _recorder(self, operands: Mapping[str, Tensor], copied: frozenset[str]) -> GpuRecorder:
        return GpuRecorder(self.problem, self.gpu, operands, copied, self.axes, target=self.target, views=self.views,
                           keeps=True)  # fmt: skip

    def _record(self, recorder: GpuRecorder) -> Pull:
        if self.target == HOPPER:
            return record_with_gradients(recorder)
        problem, composed = self.problem, Composed(recorder)
        composed.forward(recorder.result("out", (problem.batch, problem.heads, problem.seq_q, problem.value_dim)))

        def pull(backward: GpuRecorder, dout: Tensor, frozen: frozenset[str]) -> dict[str, SlotProduct]:
            composed.pull(backward, dout, frozen)
            return {}

        return pull


def result_axes(axes: Mapping[str, int]) -> dict[str, int]:
    """Of a call's results, by name, from those of its arrays."""
    return {"out": axes["q"]} | {f"d{name}": axes[name] for name in ARRAYS if name in axes}
