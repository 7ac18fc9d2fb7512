"""A GPU's plan of kernel attention with its gradients: stages, grids and numbers. Nothing of arrays or devices.

Forward: accumulate the state over keys and values, make its images, apply them. Backward: gradients of the queries,
with two numbers a row that accumulating dS and dz over the queries needs; images of those; gradients of the slots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.gpu_plan import Stage, apply_stage, apply_traits, shares_of_state, stage_name
from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.accumulate import (
    SHARE_NUMBERS,
    TILE,
    AccumulateTraits,
    accumulate_entry,
    render_accumulate,
)
from flurka_numba.targets.sm90.gradients import LARGEST_CHUNKS, GradientTraits, gradient_entry, render_gradients
from flurka_numba.targets.sm90.images import ImageTraits, images_entry, render_images, turned_bytes
from flurka_numba.targets.sm90.shape import chunks, state_bytes

LEAST_TILES = 4  # in a share of a state


@dataclass(frozen=True, slots=True)
class GradientPlan:
    """Bytes: states, turned, of the images of all heads; key_shares, query_shares, of what makes them."""

    problem: Problem
    keys: Stage
    images_of_keys: Stage
    apply: Stage
    of_queries: Stage
    queries: Stage
    images_of_queries: Stage
    of_slots: Stage
    states: int
    turned: int
    key_shares: int
    query_shares: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In their order."""
        forward = self.keys, self.images_of_keys, self.apply
        return (*forward, self.of_queries, self.queries, self.images_of_queries, self.of_slots)


def takes_gradients(problem: Problem) -> bool:
    """Whether the gradients of heads of these sizes fit the registers of the tensor cores' texts."""
    return chunks(problem.head_dim) + chunks(problem.value_dim) <= LARGEST_CHUNKS


@lru_cache(maxsize=256)
def gradient_plan(problem: Problem, multiprocessors: int) -> GradientPlan:
    """The plan for method "kernel" and an elementwise feature map, of which takes_gradients() is true."""
    phi = problem.feature_map
    if not isinstance(phi, FeatureMap) or not takes_gradients(problem):
        raise TypeError(problem)  # executors compose the others: see gpu_composed_plan.py
    dims = problem.head_dim, problem.value_dim, problem.dtype
    keys = AccumulateTraits("keys", *dims, phi, ragged=problem.ragged)
    queries = AccumulateTraits("queries", *dims, phi, ragged=False)
    pairs = problem.batch * problem.heads
    states = pairs * keys.blocks[0] * keys.blocks[1]
    of_keys, of_queries = (
        shares_of_state(states, rows, LEAST_TILES * TILE, 2 * multiprocessors)
        for rows in (problem.seq_kv, problem.seq_q)
    )
    gradients = partial(GradientTraits, *(), head_dim=dims[0], value_dim=dims[1], dtype=dims[2], feature_map=phi)
    of_rows = gradients(of="queries", denominator=problem.denominator, eps=problem.eps, ragged=False)
    of_slots = gradients(of="slots", denominator="plain", eps=0.0, ragged=problem.ragged)
    return GradientPlan(
        problem,
        keys=_accumulate(problem, keys, problem.seq_kv, of_keys),
        images_of_keys=_images(problem, states, of_keys),
        apply=apply_stage(problem, apply_traits(problem), multiprocessors),
        of_queries=_gradients(problem, of_rows, problem.seq_q, multiprocessors),
        queries=_accumulate(problem, queries, problem.seq_q, of_queries),
        images_of_queries=_images(problem, states, of_queries),
        of_slots=_gradients(problem, of_slots, problem.seq_kv, multiprocessors),
        states=pairs * state_bytes(*dims[:2]),
        turned=pairs * turned_bytes(*dims[:2]),
        key_shares=4 * SHARE_NUMBERS * states * of_keys,
        query_shares=4 * SHARE_NUMBERS * states * of_queries,
    )


def _accumulate(problem: Problem, traits: AccumulateTraits, rows: int, shares: int) -> Stage:
    states = problem.batch * problem.heads * traits.blocks[0] * traits.blocks[1]
    numbers = {"heads": problem.heads, "rows": rows, "shares_of_state": shares}
    return Stage(
        stage_name("accumulate", problem),
        accumulate_entry(traits),
        partial(render_accumulate, traits),
        states * shares,
        numbers,
    )


def _images(problem: Problem, states: int, shares: int) -> Stage:
    traits = ImageTraits(problem.head_dim, problem.value_dim, problem.dtype)
    return Stage(
        stage_name("images", problem),
        images_entry(traits),
        partial(render_images, traits),
        states,
        {"shares_of_state": shares},
    )


def _gradients(problem: Problem, traits: GradientTraits, rows: int, multiprocessors: int) -> Stage:
    """One wave of blocks, each with neighbouring rows of one head."""
    pairs, tiles = problem.batch * problem.heads, -(-rows // TILE)
    blocks = max(multiprocessors * traits.resident // max(pairs, 1), 1)
    tiles_of_block = max(-(-tiles // blocks), 1)
    blocks = -(-tiles // tiles_of_block)
    numbers = {"heads": problem.heads, "rows": rows, "blocks": blocks, "tiles_of_block": tiles_of_block}
    return Stage(
        stage_name(f"gradients_{traits.of}", problem),
        gradient_entry(traits),
        partial(render_gradients, traits),
        pairs * blocks,
        numbers,
    )


def over_slots(problem: Problem) -> Problem:
    """The kernel attention over compressed keys and values that FLuRKA is, by its definition."""
    return replace(
        problem, method="kernel", seq_kv=problem.rank, rank=0, per_head_proj=False, shared_proj=False, ragged=False
    )
