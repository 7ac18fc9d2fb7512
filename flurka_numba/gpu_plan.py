"""A GPU's plan: the stages of a problem, with their texts' traits, grids and numbers. Nothing of arrays or devices.

FLuRKA: compress, state, apply. Kernel attention: state from the tokens themselves, apply. Low-rank attention: compress,
collect, after which the slots are ordinary keys and values. Before the state of favor: largest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flurka_numba.feature_maps import RANDOM_MAPS, FeatureMap
from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.apply import apply_entry, render_apply
from flurka_numba.targets.sm90.apply_shape import ApplyTraits
from flurka_numba.targets.sm90.collect import THREADS as COLLECT_THREADS
from flurka_numba.targets.sm90.collect import CollectTraits, collect_entry, eighths, render_collect
from flurka_numba.targets.sm90.compress import compress_entry, render_compress
from flurka_numba.targets.sm90.largest import largest_entry, render_largest
from flurka_numba.targets.sm90.shape import (
    SLOTS,
    STATE_NUMBERS,
    STEP,
    CompressTraits,
    RandomFeatures,
    StateTraits,
)
from flurka_numba.targets.sm90.state import render_state, state_entry
from splat_numba.gen.entry import Entry
from splat_numba.gen.targets.sm90.shape import spans

LARGEST_SPLIT = 16
FILLING = 4  # steps' time that a block of stage 1 needs before its first product
LARGEST_SHARES = 64
SHARE_TOKENS = 128  # at least, in a share of a state: fewer would cost more to add up than they save
REGISTERS = 65536  # of a multiprocessor
OTHER_REGISTERS = 40  # of a thread of stage 1, beside the sums


@dataclass(frozen=True, slots=True)
class Stage:
    """One launch: its name, entry, the maker of its text, blocks, and the numbers among its parameters."""

    name: str
    entry: Entry
    render: Callable[[], str]
    grid: int
    numbers: dict[str, int]


@dataclass(frozen=True, slots=True)
class ForwardPlan:
    """Stages of a problem. proj_rows: slots that one copy fetches. Bytes of the arrays between stages: parts, tops,
    states, shares; counters: words that must be 0, and are again after a launch.
    """

    problem: Problem
    stages: tuple[Stage, ...]
    proj_rows: int
    parts: int
    tops: int
    states: int
    shares: int
    counters: int


def forward_plan(problem: Problem, multiprocessors: int) -> ForwardPlan:
    """The plan for a GPU of so many multiprocessors. The problem must fit: see apply_traits."""
    if problem.method == "kernel":
        return _with_state(problem, multiprocessors, None)
    first = _compress(problem, multiprocessors)
    if problem.method == "low_rank":
        return _low_rank(problem, *first)
    return _with_state(problem, multiprocessors, first)


def _low_rank(problem: Problem, compress: CompressTraits, numbers: dict[str, int], stage_1: Stage) -> ForwardPlan:
    traits = CollectTraits(compress, numbers["splits"])
    rows = problem.batch * problem.heads * problem.rank
    threads = rows * (eighths(problem.head_dim) + eighths(problem.value_dim))
    stage_2 = Stage(
        stage_name("collect", problem),
        collect_entry(traits),
        partial(render_collect, traits),
        -(-threads // COLLECT_THREADS),
        {**_tiling(numbers), "heads": problem.heads, "slots": problem.rank, "batch": problem.batch},
    )
    return ForwardPlan(problem, (stage_1, stage_2), compress.rows, _parts(compress, numbers), 0, 0, 0, 0)


def _parts(compress: CompressTraits, numbers: dict[str, int]) -> int:
    return 4 * numbers["tiles"] * numbers["splits"] * compress.rows * compress.columns


def _tiling(numbers: dict[str, int]) -> dict[str, int]:
    """Where the slots stand among the parts."""
    return {name: number for name, number in numbers.items() if name not in ("splits", "seq_kv")}


def _with_state(
    problem: Problem, multiprocessors: int, first: tuple[CompressTraits, dict[str, int], Stage] | None
) -> ForwardPlan:
    phi = features_of(problem)
    compress, numbers = (first[0], first[1]) if first else (None, {})
    splits = numbers.get("splits", 1)
    traits = StateTraits(
        problem.head_dim, problem.value_dim, problem.dtype, phi, compress, splits, problem.ragged and not compress
    )
    slots = {**_tiling(numbers), "heads": problem.heads, "slots": problem.slots}
    pairs = problem.batch * problem.heads
    states = pairs * traits.blocks[0] * traits.blocks[1]
    shares = _shares(states, problem, multiprocessors)
    stages, tops = [first[2]] if first else [], 0
    if isinstance(phi, RandomFeatures) and phi.name == "favor":
        stages.append(_largest(problem, multiprocessors, traits, phi, slots))
        tops = stages[-1].grid
    numbers_2 = {**slots, "shares_of_state": shares, "tops_of_head": tops // max(pairs, 1)}
    stages.append(
        Stage(
            stage_name("state", problem), state_entry(traits), partial(render_state, traits), states * shares, numbers_2
        )
    )
    apply = apply_traits(problem)
    stages.append(apply_stage(problem, apply, multiprocessors))
    return ForwardPlan(
        problem,
        tuple(stages),
        proj_rows=compress.rows if compress else 0,
        parts=_parts(compress, numbers) if compress else 0,
        tops=4 * tops,
        states=pairs * apply.state_bytes,
        shares=4 * STATE_NUMBERS * states * shares if shares > 1 else 0,
        counters=states,
    )


def _largest(
    problem: Problem, multiprocessors: int, traits: StateTraits, phi: RandomFeatures, slots: dict[str, int]
) -> Stage:
    blocks = problem.batch * problem.heads * traits.blocks[0]
    shares = _shares(blocks, problem, multiprocessors)
    render = partial(render_largest, traits, phi)
    numbers = {**slots, "shares_of_state": shares}
    return Stage(stage_name("largest", problem), largest_entry(traits), render, blocks * shares, numbers)


def _shares(blocks: int, problem: Problem, multiprocessors: int) -> int:
    least = SHARE_TOKENS if problem.method == "kernel" else SLOTS
    return shares_of_state(blocks, problem.slots, least, multiprocessors)


def features_of(problem: Problem) -> FeatureMap | RandomFeatures:
    """What the texts know of the feature map."""
    phi = problem.feature_map
    if isinstance(phi, FeatureMap):
        return phi
    if phi not in RANDOM_MAPS:
        raise TypeError(phi)  # low-rank attention has none
    return RandomFeatures(phi, problem.features // RANDOM_MAPS[phi].per_row, problem.eps if phi == "favor" else 0.0)


def apply_traits(problem: Problem) -> ApplyTraits:
    """Of stage 3, which alone holds a whole head's state, so that not every problem fits."""
    phi = features_of(problem)
    return ApplyTraits(problem.head_dim, problem.value_dim, problem.dtype, phi, problem.denominator, problem.eps)


def stage_name(stage: str, problem: Problem) -> str:
    """Of a text: readable in a profile and in the cache's folder."""
    return f"flurka_{stage}_sm_90a_d{problem.head_dim}_{problem.dtype}"


def _compress(problem: Problem, multiprocessors: int) -> tuple[CompressTraits, dict[str, int], Stage]:
    groups = slot_groups(problem.rank)
    traits = CompressTraits(
        problem.head_dim, problem.value_dim, problem.dtype, groups, spans_of_tile(problem, groups),
        problem.ragged, problem.per_head_proj,
    )  # fmt: skip
    row_blocks = -(-problem.rank // traits.rows)
    pairs_k, pairs_v = (
        -(-problem.heads * spans(dim) // traits.tile_spans) for dim in (problem.head_dim, problem.value_dim)
    )
    tiles_k = problem.batch * pairs_k * row_blocks
    tiles = tiles_k + problem.batch * pairs_v * row_blocks
    splits = token_splits(tiles, -(-problem.seq_kv // STEP), multiprocessors)
    numbers = {
        "tiles_k": tiles_k, "tiles": tiles, "row_blocks": row_blocks, "pairs_k": pairs_k, "pairs_v": pairs_v,
        "splits": splits, "seq_kv": problem.seq_kv,
    }  # fmt: skip
    name = stage_name("compress", problem)
    stage = Stage(name, compress_entry(traits), partial(render_compress, traits), tiles * splits, numbers)
    return traits, numbers, stage


def apply_stage(problem: Problem, traits: ApplyTraits, multiprocessors: int) -> Stage:
    """One wave of blocks, each with neighbouring rows of one head: a block then reads its state once."""
    pairs = problem.batch * problem.heads
    tiles = -(-problem.seq_q // 64)
    blocks = max(multiprocessors * traits.resident // max(pairs, 1), 1)
    tiles_of_block = max(-(-tiles // blocks), 1)
    blocks = -(-tiles // tiles_of_block)
    numbers = {"heads": problem.heads, "seq_q": problem.seq_q, "blocks": blocks, "tiles_of_block": tiles_of_block}
    return Stage(
        stage_name("apply", problem), apply_entry(traits), partial(render_apply, traits), pairs * blocks, numbers
    )


def slot_groups(rank: int) -> int:
    """Warpgroups of 64 slots in a row block: few slots in vain, and few row blocks, which fetch the tokens each."""
    return min(range(4, 0, -1), key=lambda groups: -(-rank // (64 * groups)) * (groups + 1))


def spans_of_tile(problem: Problem, groups: int) -> int:
    """Spans that a block multiplies at once: as many as its registers hold. With projections of their own for each
    head they are all of one head.
    """
    per_head = spans(problem.head_dim), spans(problem.value_dim)
    registers = min(REGISTERS // (128 * groups + 32), 255) - OTHER_REGISTERS
    for count in (4, 2):
        fits = 32 * count <= registers
        if problem.per_head_proj:
            fits = fits and not any(one % count for one in per_head)
        else:
            fits = fits and count <= problem.heads * max(per_head)
        if fits:
            return count
    return 1


def token_splits(tiles: int, steps: int, multiprocessors: int) -> int:
    """Blocks that share the steps of a tile: those that end first, and of such the fewest."""

    def time(splits: int) -> int:
        waves = -(-tiles * splits // multiprocessors)
        return waves * (-(-steps // splits) + FILLING)

    return min(range(1, max(min(LARGEST_SPLIT, steps), 1) + 1), key=time)


def shares_of_state(states: int, slots: int, least: int, multiprocessors: int) -> int:
    """Blocks that share the slots of a state: two a multiprocessor, where each has ``least`` slots."""
    wanted = 2 * multiprocessors // max(states, 1)
    return max(1, min(wanted, LARGEST_SHARES, slots // least))
