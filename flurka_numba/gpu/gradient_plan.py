"""A GPU's plan of kernel attention with its gradients: stages, grids and numbers. Nothing of arrays or devices.

Forward: accumulate the state over keys and values, make its images, apply them. Backward: gradients of the queries, and
dS and dz summed up over the queries, in one pass where heads are of the usual size, else in two, of which the first
leaves two numbers a row to the second; images of those; gradients of the slots. FLuRKA: then of its projections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.gpu.stages import (
    Stage,
    accumulate_stage,
    apply_stage,
    apply_traits,
    blocks_of_heads,
    images_stage,
    shares_of_sequence,
    stage_text,
)
from flurka_numba.gpu.tilings import slot_groups, sum_registers
from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.accumulate_shape import SHARE_NUMBERS, AccumulateTraits
from flurka_numba.targets.sm90.gradient_scales import TOP_BYTES
from flurka_numba.targets.sm90.gradient_shape import LARGEST_CHUNKS, GradientTraits
from flurka_numba.targets.sm90.gradients import gradient_entry, render_gradients
from flurka_numba.targets.sm90.image_shape import turned_bytes
from flurka_numba.targets.sm90.lanes import CHUNK
from flurka_numba.targets.sm90.projection_gradients import projection_entry, render_projection_gradients
from flurka_numba.targets.sm90.projection_shape import ProjectionTraits
from flurka_numba.targets.sm90.query_gradients import has_one_pass, query_entry, render_query_gradients
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import LARGEST_PRODUCT, chunks, state_bytes
from flurka_numba.targets.sm90.token_gradients import render_token_gradients, token_entry
from flurka_numba.targets.sm90.token_shape import LARGEST_STEPS, STEP, TOKENS, TokenTraits, pairs_of_spans
from splat_numba.runtime.recent import REMEMBERED

Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class GradientPlan:
    """queries: one stage or two, of which the first makes dq, and the last the shares of dS and dz. Bytes: states,
    turned, of the images of all heads; key_shares, query_shares, of what makes them; row_weights, of what the first of
    two stages leaves to the second. spread: the last stage writes its gradients a second time, for token_stage();
    internal: the shapes of both by name, which stages alone read then. measure: comes before the last stage where
    gradients of slots have a scale; tops: bytes that it leaves.
    """

    problem: Problem
    keys: Stage
    images_of_keys: Stage
    apply: Stage
    queries: tuple[Stage, ...]
    images_of_queries: Stage
    measure: Stage | None
    of_slots: Stage
    states: int
    turned: int
    key_shares: int
    query_shares: int
    row_weights: int
    spread: bool
    internal: dict[str, Shape]
    tops: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In their order."""
        forward = self.keys, self.images_of_keys, self.apply
        backward = *self.queries, self.images_of_queries, *([self.measure] if self.measure else []), self.of_slots
        return (*forward, *backward)


def takes_gradients(problem: Problem) -> bool:
    """Whether the gradients of heads of these sizes fit the registers of the tensor cores' texts."""
    return chunks(problem.head_dim) + chunks(problem.value_dim) <= LARGEST_CHUNKS


@lru_cache(maxsize=REMEMBERED)
def gradient_plan(problem: Problem, multiprocessors: int, outer: Problem | None = None) -> GradientPlan:
    """The plan for method "kernel" and an elementwise feature map, of which takes_gradients() is true. outer: FLuRKA's
    problem, where keys and values are its slots.
    """
    phi = problem.feature_map
    if not isinstance(phi, FeatureMap) or not takes_gradients(problem):
        raise TypeError(problem)  # executors compose the others: see composed/plan.py
    dims = problem.head_dim, problem.value_dim, problem.dtype
    compressed = outer is not None and outer.rank > 0  # without slots nothing has a scale, nor leaves one
    spread = outer is not None and has_token_stage(outer)
    keys = AccumulateTraits("keys", *dims, phi, problem.ragged, compressed)
    pairs = problem.batch * problem.heads
    states = pairs * keys.blocks[0] * keys.blocks[1]
    of_keys = shares_of_sequence(states, problem.seq_kv, multiprocessors)
    gradients = partial(
        GradientTraits, head_dim=dims[0], value_dim=dims[1], dtype=dims[2], feature_map=phi, compressed=compressed,
        shared=outer is not None and outer.shared_proj,
    )  # fmt: skip
    of_rows = gradients(of="queries", denominator=problem.denominator, eps=problem.eps, ragged=False, spread=False)
    of_slots = gradients(of="slots", denominator="plain", eps=0.0, ragged=problem.ragged, spread=spread)
    measure = None
    if of_slots.gradients_scaled:
        measure = _gradients(problem, replace(of_slots, spread=False, measure=True), problem.seq_kv, multiprocessors)
    one_pass = has_one_pass(*dims[:2]) and problem.seq_q > 0
    if one_pass:
        queries, shares = _one_pass(problem, of_rows, multiprocessors)
    else:
        second = AccumulateTraits("queries", *dims, phi, ragged=False)
        shares = shares_of_sequence(states, problem.seq_q, multiprocessors)
        first = _gradients(problem, of_rows, problem.seq_q, multiprocessors)
        queries = first, accumulate_stage(problem, second, problem.seq_q, shares)
    return GradientPlan(
        problem,
        keys=accumulate_stage(problem, keys, problem.seq_kv, of_keys),
        images_of_keys=images_stage(problem, states, of_keys, natural_values=one_pass, compressed=compressed),
        apply=apply_stage(problem, replace(apply_traits(problem), of_slots=compressed), multiprocessors),
        queries=queries,
        images_of_queries=images_stage(problem, states, shares, of="queries"),
        measure=measure,
        of_slots=_gradients(problem, of_slots, problem.seq_kv, multiprocessors),
        states=pairs * state_bytes(*dims[:2]),
        turned=pairs * turned_bytes(*dims[:2]),
        key_shares=4 * SHARE_NUMBERS * states * of_keys,
        query_shares=4 * SHARE_NUMBERS * states * shares,
        row_weights=0 if one_pass else max(8 * pairs * problem.seq_q, 8),
        spread=spread,
        internal=_internal(problem) if spread else {},
        tops=TOP_BYTES * measure.grid if measure else 0,
    )


def _internal(problem: Problem) -> dict[str, Shape]:
    """Gradients of slots as they are, and spread."""
    dims = {"k": problem.head_dim, "v": problem.value_dim}
    columns = {f"d{name}": dim for name, dim in dims.items()}
    columns |= {f"d{name}_spread": CHUNK * chunks(dim) for name, dim in dims.items()}
    return {name: (problem.batch, problem.heads, problem.seq_kv, dim) for name, dim in columns.items()}


def _gradients(problem: Problem, traits: GradientTraits, rows: int, multiprocessors: int) -> Stage:
    """One wave of blocks, each with neighbouring rows of one head."""
    numbers = {"rows": rows, **blocks_of_heads(problem, rows, multiprocessors * traits.resident)}
    return Stage(
        stage_text(f"gradients_{traits.of}", problem, gradient_entry(traits), render_gradients, traits),
        problem.batch * problem.heads * numbers["blocks"],
        numbers,
    )


def _one_pass(problem: Problem, traits: GradientTraits, multiprocessors: int) -> tuple[tuple[Stage, ...], int]:
    """The stage, and the shares of a state that it leaves: one a block."""
    entry = query_entry(traits)
    numbers = {"rows": problem.seq_q, **blocks_of_heads(problem, problem.seq_q, multiprocessors * entry.blocks)}
    shares = numbers["blocks"]
    text = stage_text("query_gradients", problem, entry, render_query_gradients, traits)
    return (Stage(text, problem.batch * problem.heads * shares, numbers),), shares


@lru_cache(maxsize=REMEMBERED)
def projection_stage(problem: Problem, of: frozenset[str], multiprocessors: int) -> tuple[Stage, dict[str, int]]:
    """Gradients of FLuRKA's projections from those of its slots and from tokens; rows of the arrays that one copy
    fetches. of: "k", "v" or both, which both are one projection's if they share it.
    """
    groups = slot_groups(problem.rank)
    columns = LARGEST_PRODUCT if sum_registers(groups) >= LARGEST_PRODUCT // 2 else LARGEST_PRODUCT // 2
    shared = problem.shared_proj
    traits = ProjectionTraits(
        problem.head_dim, problem.value_dim, problem.dtype, groups, columns, shared, problem.per_head_proj,
        is_scaled(problem.dtype) and has_token_stage(problem),
    )  # fmt: skip
    row_blocks, token_tiles = -(-problem.rank // traits.rows), -(-problem.seq_kv // columns)
    tiles = row_blocks * token_tiles * (problem.heads if problem.per_head_proj else 1)
    tiles_k = tiles if shared or "k" in of else 0
    tiles = tiles_k if shared or "v" not in of else tiles_k + tiles
    numbers = {
        "tiles_k": tiles_k, "tiles": tiles, "row_blocks": row_blocks, "token_tiles": token_tiles,
        "batch": problem.batch, "heads": problem.heads, "slots": problem.rank, "seq_kv": problem.seq_kv,
    }  # fmt: skip
    text = stage_text("projection_gradients", problem, projection_entry(traits), render_projection_gradients, traits)
    stage = Stage(text, min(tiles, multiprocessors), numbers)
    return stage, {name: rows for one in of for name, rows in ((f"d{one}_slots", traits.rows), (one, columns))}


def has_token_stage(problem: Problem) -> bool:
    """Whether a problem has token_stage()."""
    return problem.method == "flurka" and not problem.per_head_proj and 0 < problem.rank <= STEP * LARGEST_STEPS


@lru_cache(maxsize=REMEMBERED)
def token_stage(problem: Problem, of: frozenset[str], multiprocessors: int) -> tuple[Stage, dict[str, int]] | None:
    """Gradients of tokens from those of FLuRKA's slots; rows of the arrays that one copy fetches. None for projections
    of each head's own and for too many slots. of: "k", "v" or both.
    """
    if not has_token_stage(problem):
        return None
    traits = TokenTraits(problem.head_dim, problem.value_dim, problem.dtype, -(-problem.rank // STEP))
    dims = {"k": problem.head_dim, "v": problem.value_dim}
    token_tiles = -(-problem.seq_kv // TOKENS)
    items = {
        name: token_tiles * problem.batch * pairs_of_spans(problem.heads, dim) if name in of else 0
        for name, dim in dims.items()
    }
    count = sum(items.values())
    items_of_block = max(-(-count // multiprocessors), 1)
    numbers = {
        "items_k": items["k"], "items": count, "items_of_block": items_of_block,
        "batch": problem.batch, "heads": problem.heads, "seq_kv": problem.seq_kv,
    }  # fmt: skip
    text = stage_text("token_gradients", problem, token_entry(traits), render_token_gradients, traits)
    stage = Stage(text, -(-count // items_of_block), numbers)
    return stage, {name: STEP for one in of for name in (f"d{one}_spread", f"proj_{one}")}


@lru_cache(maxsize=REMEMBERED)
def over_slots(problem: Problem) -> Problem:
    """The kernel attention over compressed keys and values that FLuRKA is, by its definition."""
    return replace(
        problem, method="kernel", seq_kv=problem.rank, rank=0, per_head_proj=False, shared_proj=False, ragged=False
    )
