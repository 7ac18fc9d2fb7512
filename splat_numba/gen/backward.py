"""What a backward pass is to make, and how a GPU makes it: passes over queries for dq, over keys for dk and dv."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice, Pass
from splat_numba.gen.problem import Conditions, Problem


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
        return tuple(f"d{name}" for name in ("q", "k", "v") if getattr(self, name))

    @property
    def sums(self) -> tuple[str, ...]:
        """Those that are sums over rows."""
        return tuple(name for name in self.names if name != "dq")


@dataclass(frozen=True, slots=True, repr=False)
class BackwardPlan:
    """The decisions for the gradients of one mask and problem on a GPU.

    queries: passes whose row blocks are queries, for dq; keys: passes on the transposed mask, whose row blocks are
    keys, for dk and dv. empty_rows: some query keeps nothing. seconds: predicted for both.
    """

    problem: Problem
    target: str
    machine: Gpu
    mask: str
    queries: tuple[Pass, ...]
    keys: tuple[Pass, ...]
    empty_rows: bool
    seconds: float
    choices: tuple[Choice, ...]
    conditions: Conditions
