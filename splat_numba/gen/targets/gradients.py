"""A backward call as a target sees it, and its schedule but for the target's own launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from splat_numba.gen.plans.backward import GRADIENTS, BackwardPlan, Wanted
from splat_numba.gen.schedules.schedule import Place, Schedule, ScheduleBuilder
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gpu.copying import Copying

OPERANDS = ("q", "k", "v", "out", "dout")
LEVELS = ("lse", "dlse")
BACKWARD_ARGUMENTS = (*OPERANDS, *GRADIENTS, *LEVELS, "kv_lengths")
"""Of a schedule: gradients that are not wanted, dlse and kv_lengths may be nowhere, at address 0."""


@dataclass(frozen=True, slots=True)
class HeadsPlan:
    """A plan of gradients, and the query heads that take it."""

    planned: BackwardPlan
    heads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GradientCall:
    """What one call's launches read and write, and for which GPU. All tensors have four axes; lse, dlse: one number a
    row, in the dtype that is computed in; results: of the gradients that are wanted, by name.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    dout: Tensor
    lse: Tensor
    dlse: Tensor | None
    kv_lengths: Place | None
    results: Mapping[str, Tensor]
    wanted: Wanted
    scale: float
    multiprocessors: int

    @property
    def group(self) -> int:
        """Query heads of a key head."""
        return self.q.sizes[1] // max(self.k.sizes[1], 1) or 1


class RecordsBackward(Protocol):
    """Of a target: what a schedule of gradients asks of it."""

    def record_backward(self, builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
        """Add the launches of one backward call."""


def backward_schedule(
    target: RecordsBackward, plans: Sequence[HeadsPlan], tensors: Mapping[str, Tensor], wanted: Wanted, scale: float,
    multiprocessors: int, copied: frozenset[str] = frozenset(),
) -> Schedule:  # fmt: skip
    """The launches of one call over BACKWARD_ARGUMENTS. tensors: all but dlse, which may be missing, and the gradients
    that are not wanted; copied: which of them are copied to padded rows first, and gradients from there at the end.
    """
    arch = next((one.planned.gpu.arch for one in plans), "")
    builder = ScheduleBuilder(*BACKWARD_ARGUMENTS, copying=Copying(arch))
    q, k, v, out, dout = (builder.readable(tensors[name], copied=name in copied) for name in OPERANDS)
    results = {
        name: builder.tensor(tensors[name].sizes, tensors[name].dtype) if name in copied else tensors[name]
        for name in wanted.names
    }
    call = GradientCall(
        q, k, v, out, dout, tensors["lse"], tensors.get("dlse"), Place("kv_lengths"), results, wanted, scale,
        multiprocessors,
    )  # fmt: skip
    target.record_backward(builder, plans, call)
    for name, one in results.items():
        if name in copied:
            builder.copy(one, tensors[name])
    return builder.finish()
