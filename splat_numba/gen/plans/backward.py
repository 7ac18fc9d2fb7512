"""What a backward pass is to make, and how: passes over queries, and perhaps others over keys for dk and dv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from splat_numba.gen.plans import explain
from splat_numba.gen.plans.machine import Gpu, Machine
from splat_numba.gen.plans.problem import Conditions, Problem

if TYPE_CHECKING:
    from splat_numba.gen.plans.plan import Choice, Pass


INPUTS = ("q", "k", "v")
GRADIENTS = ("dq", "dk", "dv")
QUERIES, KEYS = "queries", "keys"  # whose gradients a kernel makes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which gradients are made; at least one."""

    q: bool = True
    k: bool = True
    v: bool = True

    @property
    def slopes(self) -> bool:
        """Whether gradients of the scores are made."""
        return self.q or self.k

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays written."""
        return tuple(f"d{name}" for name in INPUTS if getattr(self, name))

    @property
    def sums(self) -> tuple[str, ...]:
        """Those that are sums over rows."""
        return tuple(name for name in self.names if name != "dq")


@dataclass(frozen=True, slots=True)
class Sums:
    """Where dk and dv are summed up on a CPU. shares: of a key head's queries, each with sums of its own, which are
    added in the end; widths: numbers of a row, padding among them, by name. The order of sums follows from both.
    """

    shares: int
    widths: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BackwardPlan:
    """The decisions for the gradients of one mask and problem.

    queries: passes whose row blocks are queries; keys: passes on the transposed mask, whose row blocks are keys, for dk
    and dv, none where the first ones make all gradients. empty_rows: some query keeps nothing; ragged, negate: as in
    Conditions. seconds: predicted, None where nothing predicts them. keys_first: the pass over keys keeps slopes
    (dS) in memory, and the one over queries reads them; heads_at_once: key heads whose slopes are kept at a time.
    """

    problem: Problem
    target: str
    machine: Machine | Gpu
    queries: tuple[Pass, ...]
    keys: tuple[Pass, ...]
    choices: tuple[Choice, ...]
    conditions: Conditions
    empty_rows: bool = False
    seconds: float | None = None
    keys_first: bool = False
    heads_at_once: int = 0

    @property
    def gpu(self) -> Gpu:
        """The GPU of a plan for one. Raises TypeError for a CPU's."""
        if isinstance(self.machine, Gpu):
            return self.machine
        raise TypeError(f"plan of gradients wanted for a GPU, got one for {self.target}.")

    def __repr__(self) -> str:
        return f"<BackwardPlan {self.target}: {self.choices[0].chosen}>"

    def explain(self) -> str:
        """The plan in words: see gen.plans.explain."""
        return explain.explain_backward(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; tables are given by their sizes."""
        return explain.backward_as_dict(self)
