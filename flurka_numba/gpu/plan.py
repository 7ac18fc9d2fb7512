"""A GPU's plan: the stages of a problem, with their texts' traits, grids and numbers. Nothing of arrays or devices.

FLuRKA: compress, slot_state, apply. Kernel attention: accumulate over the tokens, images, apply. Low-rank attention:
compress, collect, after which the slots are ordinary keys and values. A layer's queries are made by project_apply,
which takes apply's place. Where features are random, state makes the state, and for favor largest before it the largest
exponent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.gpu.stages import (
    LARGEST_SHARES,
    Stage,
    accumulate_stage,
    apply_stage,
    apply_traits,
    features_of,
    images_stage,
    project_stage,
    shares_of_sequence,
    shares_of_state,
    stage_text,
)
from flurka_numba.gpu.tilings import choose_tiling
from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.accumulate_shape import SHARE_NUMBERS, AccumulateTraits
from flurka_numba.targets.sm90.bounds import bounds_bytes
from flurka_numba.targets.sm90.collect import KEYS_DIVISOR, CollectTraits, collect_entry, render_collect
from flurka_numba.targets.sm90.compress import compress_entry, render_compress
from flurka_numba.targets.sm90.image_shape import turned_bytes
from flurka_numba.targets.sm90.largest import largest_entry, render_largest
from flurka_numba.targets.sm90.project_shape import TOKENS, ProjectTraits
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import SLOTS, STATE_NUMBERS, STEP, CompressTraits, RandomFeatures, StateTraits
from flurka_numba.targets.sm90.slot_state import render_slot_state, slot_state_entry
from flurka_numba.targets.sm90.slot_state_shape import ROWS, SHARE_BYTES, SlotStateTraits, state_depth
from flurka_numba.targets.sm90.state import render_state, state_entry
from splat_numba.gen.language.instructions import MATRIX_TYPE
from splat_numba.gen.targets.sm90.shape import spans

BETWEEN = ("parts", "bounds", "tops", "states", "turned", "shares")
SHARE_TOKENS = 128  # at least, in a share of a state: fewer would cost more to add up than they save


@dataclass(frozen=True, slots=True)
class ForwardPlan:
    """Stages of a problem. boxes: rows that one copy fetches, of each operand with a tensor map. Bytes of the arrays
    between stages: parts, bounds, tops, states, turned, shares; counters: words that must be 0, and are again after a
    launch.
    """

    problem: Problem
    stages: tuple[Stage, ...]
    boxes: Mapping[str, int] = field(default_factory=dict)
    parts: int = 0
    bounds: int = 0
    tops: int = 0
    states: int = 0
    turned: int = 0
    shares: int = 0
    counters: int = 0

    @property
    def between(self) -> dict[str, int]:
        """Bytes of the arrays that one stage leaves to the next, of those that there are."""
        return {name: size for name in BETWEEN if (size := getattr(self, name))}


def makes_queries(problem: Problem, model_dim: int) -> bool:
    """Whether a stage can make these queries from a layer's input, (batch, seq, model_dim): those of kernel attention
    of 16-bit arrays with an elementwise map, and heads that fill its tiles.
    """
    if problem.method != "kernel" or problem.dtype not in MATRIX_TYPE or model_dim % 8:
        return False
    traits = ProjectTraits(apply_traits(problem))
    return traits.fits and problem.heads % traits.heads == 0 and model_dim > 0


def taking_input(problem: Problem, model_dim: int) -> Problem:
    """The problem as one of a layer's input, where a stage makes the queries from it; else as it is."""
    return replace(problem, model_dim=model_dim) if makes_queries(problem, model_dim) else problem


def forward_plan(problem: Problem, multiprocessors: int, *, of_gradients: bool = False) -> ForwardPlan:
    """The plan for a GPU of so many multiprocessors. The problem must fit: see apply_traits. of_gradients: slots of
    low-rank attention are made for FLuRKA's gradients.
    """
    if problem.method == "kernel":
        phi = features_of(problem)
        if isinstance(phi, FeatureMap):
            return _of_tokens(problem, multiprocessors, phi)
        return _of_random_features(problem, multiprocessors, phi, None)
    first = _compress(problem, multiprocessors)
    if problem.method == "low_rank":
        return _low_rank(problem, of_gradients, *first)
    phi = features_of(problem)
    if isinstance(phi, FeatureMap):
        return _of_slots(problem, multiprocessors, phi, *first)
    return _of_random_features(problem, multiprocessors, phi, first)


def _of_tokens(problem: Problem, multiprocessors: int, phi: FeatureMap) -> ForwardPlan:
    dims = problem.head_dim, problem.value_dim, problem.dtype
    traits = AccumulateTraits("keys", *dims, phi, ragged=problem.ragged)
    pairs = problem.batch * problem.heads
    states = pairs * traits.blocks[0] * traits.blocks[1]
    shares = shares_of_sequence(states, problem.seq_kv, multiprocessors)
    apply = apply_traits(problem)
    if problem.model_dim:
        last, boxes = project_stage(problem, ProjectTraits(apply), multiprocessors), {"x": TOKENS, "w_q": STEP}
    else:
        last, boxes = apply_stage(problem, apply, multiprocessors), {}
    return ForwardPlan(
        problem,
        (
            accumulate_stage(problem, traits, problem.seq_kv, shares),
            images_stage(problem, states, shares, natural_features=problem.model_dim > 0),
            last,
        ),
        boxes,
        states=pairs * apply.state_bytes,
        turned=pairs * turned_bytes(problem.head_dim, problem.value_dim),
        shares=4 * SHARE_NUMBERS * states * shares,
    )


def _of_slots(
    problem: Problem, multiprocessors: int, phi: FeatureMap, compress: CompressTraits, numbers: dict[str, int],
    stage_1: Stage,
) -> ForwardPlan:  # fmt: skip
    pairs, splits = problem.batch * problem.heads, numbers["splits"]
    states = pairs * spans(problem.head_dim) * spans(problem.value_dim)
    shares = slot_shares(states, problem.rank, splits, multiprocessors)
    slots = -(-problem.rank // shares)
    traits = SlotStateTraits(compress, splits, phi, state_depth(problem.dtype, slots))
    stage_2 = Stage(
        stage_text("slot_state", problem, slot_state_entry(traits), render_slot_state, traits),
        states * shares,
        {**_tiling(numbers), "heads": problem.heads, "slots": problem.rank, "shares_of_state": shares},
    )
    apply = apply_traits(problem)
    return ForwardPlan(
        problem,
        (stage_1, stage_2, apply_stage(problem, apply, multiprocessors)),
        _boxes(compress),
        **_between(compress, numbers),
        states=pairs * apply.state_bytes,
        shares=SHARE_BYTES * states * shares if shares > 1 else 0,
        counters=states,
    )


def slot_shares(states: int, slots: int, splits: int, multiprocessors: int) -> int:
    """Blocks that share a state's slots: those that end first. A slot's parts are 512 bytes each, of which a
    multiprocessor reads about 100 KB a microsecond; adding up shares takes 2.5.
    """

    def microseconds(shares: int) -> float:
        waves = -(-states * shares // multiprocessors)
        return waves * -(-slots // shares) * splits * 512 / 1e5 + (2.5 if shares > 1 else 0.0)

    return min(range(1, max(min(LARGEST_SHARES, slots // ROWS), 1) + 1), key=microseconds)


def _low_rank(
    problem: Problem, of_gradients: bool, compress: CompressTraits, numbers: dict[str, int], stage_1: Stage
) -> ForwardPlan:
    traits = CollectTraits(compress, numbers["splits"], of_gradients)
    stage_2 = Stage(
        stage_text("collect", problem, collect_entry(traits), render_collect, traits),
        traits.blocks(problem.batch * problem.heads, problem.rank),
        {**_tiling(numbers), "heads": problem.heads, "slots": problem.rank, "batch": problem.batch},
    )
    return ForwardPlan(problem, (stage_1, stage_2), _boxes(compress), **_between(compress, numbers))


def scale_of_scores(problem: Problem) -> float:
    """The factor of low-rank attention's scores with the slots that its plan makes."""
    return problem.scale * KEYS_DIVISOR[problem.dtype]


def _boxes(compress: CompressTraits) -> dict[str, int]:
    """Of stage 1: steps of tokens, and row blocks of projections."""
    return {"k": STEP, "v": STEP, "proj_k": compress.rows, "proj_v": compress.rows}


def _between(compress: CompressTraits, numbers: dict[str, int]) -> dict[str, int]:
    """Bytes of what stage 1 leaves."""
    blocks = numbers["tiles"] * numbers["splits"]
    bounds = bounds_bytes(compress, blocks) if is_scaled(compress.dtype) else 0
    return {"parts": 4 * blocks * compress.rows * compress.columns, "bounds": bounds}


def _tiling(numbers: dict[str, int]) -> dict[str, int]:
    """Where the slots stand among the parts."""
    return {name: number for name, number in numbers.items() if name not in ("splits", "seq_kv")}


def _of_random_features(
    problem: Problem, multiprocessors: int, phi: RandomFeatures,
    first: tuple[CompressTraits, dict[str, int], Stage] | None,
) -> ForwardPlan:  # fmt: skip
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
    if phi.name == "favor":
        stages.append(_largest(problem, multiprocessors, traits, phi, slots))
        tops = stages[-1].grid
    numbers_2 = {**slots, "shares_of_state": shares, "tops_of_head": tops // max(pairs, 1)}
    text = stage_text("state", problem, state_entry(traits), render_state, traits)
    stages.append(Stage(text, states * shares, numbers_2))
    apply = apply_traits(problem)
    stages.append(apply_stage(problem, apply, multiprocessors))
    return ForwardPlan(
        problem,
        tuple(stages),
        _boxes(compress) if compress else {},
        **(_between(compress, numbers) if compress else {}),
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
    numbers = {**slots, "shares_of_state": shares}
    text = stage_text("largest", problem, largest_entry(traits), render_largest, traits, phi)
    return Stage(text, blocks * shares, numbers)


def _shares(blocks: int, problem: Problem, multiprocessors: int) -> int:
    least = SHARE_TOKENS if problem.method == "kernel" else SLOTS
    return shares_of_state(blocks, problem.slots, least, multiprocessors)


def _compress(problem: Problem, multiprocessors: int) -> tuple[CompressTraits, dict[str, int], Stage]:
    tiling = choose_tiling(problem, multiprocessors)
    dims = problem.head_dim, problem.value_dim, problem.dtype
    traits = CompressTraits(*dims, tiling.groups, tiling.tile_spans, problem.ragged, problem.per_head_proj)
    numbers = {
        "tiles_k": tiling.tiles_k, "tiles": tiling.tiles, "row_blocks": tiling.row_blocks, "pairs_k": tiling.pairs_k,
        "pairs_v": tiling.pairs_v, "splits": tiling.splits, "seq_kv": problem.seq_kv,
    }  # fmt: skip
    text = stage_text("compress", problem, compress_entry(traits), render_compress, traits)
    return traits, numbers, Stage(text, tiling.tiles * tiling.splits, numbers)
