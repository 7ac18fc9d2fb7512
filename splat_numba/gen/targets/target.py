"""Target: what planner, machines and executors know of a kind of processor, as a value. targets.registry lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.language.cpu_entry import CpuText
from splat_numba.gen.plans.backward import BackwardPlan, Sums, Wanted
from splat_numba.gen.plans.machine import Gpu, Machine
from splat_numba.gen.plans.plan import Choice, Pass, Plan
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.rows.passes import CpuCandidate
from splat_numba.gen.schedules.array_schedule import ArraySchedule
from splat_numba.gen.schedules.schedule import InPlace, Place, Schedule, ScheduleBuilder, Text
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gpu.copying import Copying
from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan

ARGUMENTS = ("q", "k", "v", "out", "lse", "kv_lengths")  # of attention; the last two may be nowhere, at address 0


@dataclass(frozen=True, slots=True)
class HeadsPass:
    """A pass, its text, and the query heads that take it."""

    planned: Pass
    text: Text
    heads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What one call's launches read and write, and for which GPU. q, k, v, out: with four axes; lse and kv_lengths:
    where they are, if anywhere; rest: of what rounding takes off out between two passes, in rows of whole chunks.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    scale: float
    multiprocessors: int
    lse: Place | None = None
    kv_lengths: Place | None = None
    rest: Place | None = None


def attention_schedule(
    target: GpuTarget, passes: Sequence[HeadsPass], tensors: Mapping[str, Tensor], scale: float, multiprocessors: int,
    copied: frozenset[str] = frozenset(),
) -> Schedule:  # fmt: skip
    """The launches of one call over ARGUMENTS. tensors: q, k, v and out; copied: which of them are copied to padded
    rows first, and out from there at the end.
    """
    arch = next((one.text.entry.arch for one in passes), "")
    builder, seen = ScheduleBuilder(*ARGUMENTS, copying=Copying(arch)), with_shared_heads(tensors)
    q, k, v = (builder.readable(seen[name], copied=name in copied) for name in ("q", "k", "v"))
    out = seen["out"]
    written = builder.tensor(out.sizes, out.dtype) if "out" in copied else out
    places = Place("lse"), Place("kv_lengths")
    target.record(builder, passes, AttentionCall(q, k, v, written, scale, multiprocessors, *places))
    if "out" in copied:
        builder.copy(written, out)
    return builder.finish()


def copy_schedule(source: Tensor, target: Tensor, gpu: Gpu) -> Schedule:
    """The launch of target[...] = source[...] over their two buffers, source first. Raises PlanError."""
    builder = ScheduleBuilder(source.buffer, target.buffer, copying=Copying(gpu.arch))
    builder.copy(source, target)
    return builder.finish()


def with_shared_heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of a call, with key heads that are broadcast as one: kernels group query heads anyway, so nothing
    need be copied.
    """
    if not (tensors["k"].heads_are_one and tensors["v"].heads_are_one):
        return dict(tensors)
    return {name: one.head(0) if name in ("k", "v") else one for name, one in tensors.items()}


M_contra = TypeVar("M_contra", Machine, Gpu, contravariant=True)


class Candidate(Protocol):
    """One of several ways to run a problem, not yet a plan."""

    @property
    def name(self) -> str:
        """In words, which no other candidate of the problem has."""

    @property
    def seconds(self) -> float:
        """Predicted, for the whole problem."""


class Target(Protocol[M_contra]):
    """A kind of processor: which machines it runs on, what it takes, and how a mask becomes a plan."""

    @property
    def name(self) -> str:
        """As in the argument ``target``, and in file names."""

    @property
    def kind(self) -> str:
        """gen.plans.machine's CPU or GPU, as the machines it runs on."""

    @property
    def generation(self) -> str:
        """For people."""

    @property
    def capabilities(self) -> frozenset[tuple[int, int]]:
        """Compute capabilities of the GPUs that run its machine code; none for CPUs."""

    def runs_on(self, problem: Problem) -> frozenset[tuple[int, int]]:
        """Those of them whose GPUs have all that a problem's dtype needs."""

    def refusal(self, problem: Problem) -> str | None:
        """Why it does not take a problem's dtype and dims, to follow "got"; None if it does."""

    def gives_way(self, problem: Problem, machine: M_contra, /) -> str | None:
        """Why a call that names no target goes to one that is asked later, though this one takes it; None if not."""

    def plan(
        self, geometry: Geometry, problem: Problem, machine: M_contra, mask: str, conditions: Conditions, /
    ) -> Plan:
        """The plan of a problem for a mask of this geometry. mask: its description, in words for people.

        Raises PlanError where no tiles suit the machine.
        """


class CpuTarget(Target[Machine], Protocol):
    """A kind of CPU: its texts take arrays, and its schedules are over them."""

    def text(self, plan: Plan) -> CpuText:
        """The text of a plan, with an entry function a pass."""

    def schedule(self, plan: Plan, problem: Problem, heads: tuple[int, ...] | None, scale: float) -> ArraySchedule:
        """The steps of a call of these sizes; heads: that take the plan, None for all."""

    def candidates(self, geometry: Geometry, problem: Problem, machine: Machine, most: int) -> tuple[CpuCandidate, ...]:
        """The ways that are predicted to be fastest, fastest first, at most so many."""

    def plan_of(self, candidate: CpuCandidate, predicted: Plan, reasons: Sequence[Choice]) -> Plan:
        """The plan that a candidate stands for. predicted: the one of the same problem; reasons: why it was chosen."""

    def plan_backward(self, forward: Plan, *, measured: bool = False) -> BackwardPlan:
        """The plan of gradients, from that of the forward pass; measured: whose passes were chosen for gradients."""

    def backward_text(self, plan: Plan, wanted: Wanted) -> CpuText:
        """The text of a plan's gradients, of these arrays."""

    def sums_of(self, problem: Problem, machine: Machine, wanted: Wanted) -> Sums:
        """Of a backward call, whatever its masks: where dk and dv are summed up."""

    def backward_schedule(
        self, plan: Plan, problem: Problem, heads: tuple[int, ...] | None, scale: float, wanted: Wanted, shares: int
    ) -> ArraySchedule:
        """The steps of a backward call of these sizes, likewise; shares: of its sums."""


class GpuTarget(Target[Gpu], Protocol):
    """A kind of GPU: its texts take addresses, and its schedules are over buffers."""

    def candidates(
        self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, most: int
    ) -> tuple[Candidate, ...]:
        """The ways that are predicted to be fastest, fastest first, at most so many."""

    def plan_of(
        self, candidate: Candidate, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions,
        reasons: Sequence[Choice],
    ) -> Plan:  # fmt: skip
        """The plan that a candidate stands for. reasons: why it was chosen."""

    def texts(self, plan: Plan) -> tuple[Text, ...]:
        """The texts of a plan's passes, in their order; equal ones are one text."""

    def in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """Which arrays of a call, q, k, v and out, its texts read and write where they are."""

    def plan_backward(self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
        """The plan of gradients. Raises PlanError where no tiles suit the GPU."""

    def backward_in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """Which of q, k, v, out, dout and the gradients, in this order, its texts read and write where they are.
        tensors: of those that a call has.
        """

    def record_backward(self, builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
        """Add the launches of one backward call. plans: of a mask a head, each of other heads."""

    def record(self, builder: ScheduleBuilder, passes: Sequence[HeadsPass], call: AttentionCall) -> None:
        """Add the launches of one call. The first of a mask's passes writes every row of its heads."""
