"""Plans of gradients by two searches: on the mask for dq, on the transposed mask for dk and dv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.boxes.search import BoxCandidate, Search, search
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.plans.backward import KEYS, QUERIES, BackwardPlan
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.plain import duration

MADE_TWICE = "two kernels that both make the weights again"
WHY_TWICE = "seven products a tile, nothing of the mask's size stored, each gradient with one owner"


def plan_twice(
    target: str, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions,
    tiles: Callable[[Problem, Gpu, str], Tiles],
) -> BackwardPlan:  # fmt: skip
    """The plan of the least predicted time of two kernels that make weights and gradients of scores each for itself.

    tiles: of a problem on a GPU, for the gradients of queries or keys. Raises PlanError where no tile fits the dims.
    """
    queries, why_queries = _least(geometry, problem, tiles(problem, gpu, QUERIES), QUERIES, conditions)
    turned = problem.transposed()
    # A key's queries may come in any order: lengths are of keys.
    unordered = replace(conditions, ragged=False)
    keys, why_keys = _least(geometry.transposed(), turned, tiles(turned, gpu, KEYS), KEYS, unordered)
    seconds = queries.seconds + keys.seconds
    choice = Choice("gradients", MADE_TWICE, f"{WHY_TWICE}; predicted {duration(seconds)}")
    return BackwardPlan(
        problem, target, gpu, queries.passes(), keys.passes(), (choice, *why_queries, *why_keys), conditions,
        bool((np.diff(geometry.runs.row_ptr) == 0).any()), seconds,
    )  # fmt: skip


def gradient_dims(of: str, depth: int = 1) -> Callable[[Traits], int]:
    """Multiply-adds for a pair of a tile of what makes dq, or dk and dv: of a number's products of ``depth``."""

    def dims(traits: Traits) -> int:
        key, value = (-(-dim // depth) * depth for dim in (traits.head_dim, traits.value_dim))
        return 2 * key + value if of == QUERIES else 2 * key + 2 * value

    return dims


def _least(
    geometry: Geometry, problem: Problem, tiles: Tiles, of: str, conditions: Conditions
) -> tuple[BoxCandidate, tuple[Choice, ...]]:
    found = search(geometry.table, problem, tiles, ragged=conditions.ragged, negate=conditions.negate)
    (least,) = found.best(1)
    return least, reasons_of(found, least, of)


def reasons_of(found: Search, chosen: BoxCandidate, of: str) -> tuple[Choice, ...]:
    """Those of the search, which calls rows queries whatever they are, in the words of gradients of ``of``."""
    return tuple(_named(one, of) for one in found.reasons(chosen))


def _named(choice: Choice, of: str) -> Choice:
    what, chosen, refused = f"{choice.what}, gradients of {of}", choice.chosen, choice.refused
    if of == KEYS:
        chosen, refused = _turned(chosen), tuple((_turned(name), why) for name, why in refused)
    return replace(choice, what=what, chosen=chosen, refused=refused)


def _turned(words: str) -> str:
    return words.replace(QUERIES, "\0").replace(KEYS, QUERIES).replace("\0", KEYS)
