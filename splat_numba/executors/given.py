"""The recipe of a call that names its mask: what is planned and compiled for the arrays of that call."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.arguments.masks import Mask, split_heads
from splat_numba.executors.executor import Executor, HeadsMask, Part
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.plans.problem import Problem
from splat_numba.settings import Settings


@dataclass(frozen=True, slots=True)
class Given:
    """The recipe of one attention() call: its mask, planned and compiled for the arrays of the call."""

    mask: Mask
    executor: Executor
    layout: str
    scale: float | None
    fused: bool | None = None

    @property
    def identity(self) -> tuple[object, ...] | None:
        """The mask or masks, if none of them can change, and the executor."""
        mask = self.mask
        if isinstance(mask, (Pattern, ACSR)):  # nearly always, and asked at every call
            return mask, self.executor
        several = isinstance(mask, (list, tuple)) and all(isinstance(one, (Pattern, ACSR)) for one in mask)
        return (*mask, self.executor) if several else None

    def masks_for(self, problem: Problem) -> tuple[HeadsMask, ...]:
        """The distinct masks with their heads."""
        return split_masks(self.mask, problem)

    def parts_for(self, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> tuple[Part, ...]:
        """A part for every distinct mask."""
        return split_parts(self.executor, self.mask, problem, scale, settings, ragged=ragged)


def split_parts(
    executor: Executor, mask: Mask, problem: Problem, scale: float, settings: Settings, *, ragged: bool = False
) -> tuple[Part, ...]:
    """A part for every distinct mask."""
    return tuple(
        executor.part(one.mask, one.heads, one.problem, scale, settings, ragged=ragged)
        for one in split_masks(mask, problem)
    )


def split_masks(mask: Mask, problem: Problem) -> tuple[HeadsMask, ...]:
    """The distinct masks, each with the query heads that use it; None for all of them."""
    several = isinstance(mask, (list, tuple))
    found = split_heads(mask, problem.heads_q, problem.seq_q, problem.seq_kv)
    return tuple(HeadsMask(stored, heads if several else None, problem) for stored, heads in found)
