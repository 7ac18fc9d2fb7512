"""Plan: every decision about one attention kernel, as frozen values that can be printed, compared and tested alone.

A plan is a sequence of *passes* over the rows. A pass cuts its rows into *row blocks* of ``tile_q`` rows and walks, for
each, the key tiles that the block's rows need. A later pass that meets rows of an earlier one *resumes* their online
softmax from (out, lse). There are three kinds: a ClosedPass holds expressions in the row index and serves every length;
a TablePass holds tables made for one mask; a BoxPass holds tables of what a GPU's copy engine can fetch. Emitters see
plans only, never patterns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any, Protocol

from splat_numba.gen.plans import explain
from splat_numba.gen.plans.backward import BackwardPlan
from splat_numba.gen.plans.machine import Gpu, Machine
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.plain import duration

FUSED_OR_NOT = "fused or unfused"  # of a plan for a CPU: what the choice is about, and what it can be
FUSED = "fused: one kernel"
UNFUSED = "unfused: sddmm, softmax, spmm on packed values"


class Pass(Protocol):
    """What every kind of pass is to those who need not know which it is."""

    @property
    def tile_q(self) -> int:
        """Rows of a row block."""

    @property
    def tile_kv(self) -> int:
        """Keys of a tile."""

    @property
    def resumes(self) -> bool:
        """Whether it starts from the (out, lse) of an earlier pass."""

    @property
    def closed(self) -> bool:
        """Whether its bounds are expressions, so that one text serves every length."""

    @property
    def shared(self) -> bool:
        """Whether the mask is data to it, so that one text serves every mask."""

    def grid(self, seq_q: int, seq_kv: int) -> tuple[int, int]:
        """(residue classes, row blocks in each)."""

    def describe(self) -> str:
        """In words."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values; tables are given by their sizes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision: what was chosen and why, and what was refused and why."""

    what: str
    chosen: str
    reason: str
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """Counted work of one (batch, head) and the predicted time of the whole call.

    kept: pairs attended; area: pairs computed, padding of tiles included; blocks: row blocks; tiles: key tiles; full:
    tiles that need no predicate; seconds: predicted; dense_seconds: predicted for the same shapes without a mask.
    exact: whether all row blocks were counted; at great lengths the counts are scaled up from some thousands of them.
    """

    kept: int
    area: int
    blocks: int
    tiles: int
    full: int
    seconds: float
    dense_seconds: float
    exact: bool = True

    @property
    def fill(self) -> float:
        """Share of the computed pairs that were asked for."""
        return self.kept / self.area if self.area else 1.0


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """The decisions for one mask and problem on one target.

    target: its name; label: a short name of the mask for file names; covered: the passes visit every row, so nothing
    needs filling first; out_dtype: what the passes write, which may be wider than the problem's where later ones read
    it back. A plan of box passes is made for its lengths and so is not closed; its kernels nevertheless serve every
    mask and length of the same Traits. backward: how gradients are made, where that was asked for. fused: whether
    attention() runs the passes; else it runs the packed operators one after the other. A Kernel runs the passes.
    """

    problem: Problem
    target: str
    machine: Machine | Gpu
    label: str
    mask: str
    bands: int
    passes: tuple[Pass, ...]
    covered: bool
    cost: Cost
    choices: tuple[Choice, ...]
    out_dtype: str
    conditions: Conditions
    backward: BackwardPlan | None = None
    fused: bool = True

    @property
    def cpu(self) -> Machine:
        """The machine of a plan for CPUs. Raises TypeError for another target's."""
        if isinstance(self.machine, Machine):
            return self.machine
        raise TypeError(f"plan wanted for a CPU, got one for {self.target}.")

    @property
    def closed(self) -> bool:
        """Whether the kernel serves every length."""
        return all(one.closed for one in self.passes)

    def __repr__(self) -> str:
        passes = f"{len(self.passes)} pass{'es' if len(self.passes) != 1 else ''}"
        return f"<Plan {self.summary}, {passes}, predicted {duration(self.cost.seconds)}>"

    @property
    def summary(self) -> str:
        """Target, mask and sizes in a line; explain() has all of it."""
        one = self.problem
        mask = shorten(self.mask, 80, placeholder="...")
        return f"{self.target}: {mask}, {one.seq_q} x {one.seq_kv}, head_dim {one.head_dim}, {one.dtype}"

    def _repr_html_(self) -> str:
        from splat_numba.gen.shown.picture import plan_html  # which is above, and needed in notebooks alone

        return plan_html(self)

    def draw(self, ax: Any = None) -> Any:
        """Draw a corner of the mask with matplotlib: the pairs of full tiles and of partial ones, pass by pass, and the
        pairs that are computed and not kept. ax: axes of matplotlib, those of a new figure unless given.

        Returns the axes. Raises ArgumentTypeError for what are no axes, BackendError where matplotlib is missing.
        """
        from splat_numba.gen.shown.picture import draw_plan

        return draw_plan(self, ax)

    def explain(self) -> str:
        """The plan in words: see gen.plans.explain."""
        return explain.explain(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; tables are given by their sizes."""
        return explain.as_dict(self)


def dense_choice(cost: Cost) -> Choice:
    """Whether the mask is worth its while."""
    ratio = cost.dense_seconds / cost.seconds
    verdict = f"predicted {ratio:.2f}x as fast as dense attention of the same shapes"
    if ratio < 1.1:
        verdict += ": dense attention would be as fast"
    return Choice("sparse or dense", "sparse", verdict)


def with_fused(plan: Plan, *, fused: bool) -> Plan:
    """The plan as the caller wants it run, whatever is predicted."""
    asked = Choice(FUSED_OR_NOT, FUSED if fused else UNFUSED, f"asked for by fused={fused}")
    others = (one for one in plan.choices if one.what != FUSED_OR_NOT)
    return replace(plan, fused=fused, choices=(*others, asked))
