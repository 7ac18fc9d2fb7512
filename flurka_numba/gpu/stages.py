"""A stage, and those that forward and gradient plans share: text, grid and numbers. Nothing of arrays or devices."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from flurka_numba.feature_maps import RANDOM_MAPS, FeatureMap
from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.accumulate import accumulate_entry, render_accumulate
from flurka_numba.targets.sm90.accumulate_shape import TILE, AccumulateTraits
from flurka_numba.targets.sm90.apply import apply_entry, render_apply
from flurka_numba.targets.sm90.apply_shape import ApplyTraits
from flurka_numba.targets.sm90.image_shape import ImageTraits
from flurka_numba.targets.sm90.images import PARTS, images_entry, render_images
from flurka_numba.targets.sm90.project_apply import project_entry, render_project_apply
from flurka_numba.targets.sm90.project_shape import TOKENS, ProjectTraits
from flurka_numba.targets.sm90.restore import THREADS as RESTORE_THREADS
from flurka_numba.targets.sm90.restore import RestoreTraits, render_restore, restore_entry
from flurka_numba.targets.sm90.shape import STEP, RandomFeatures
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.schedules.schedule import EmittedText, Text

LARGEST_SHARES = 64
LEAST_TILES = 4  # of 64 rows, in a share of a state over a sequence


@dataclass(frozen=True, slots=True)
class Stage:
    """One launch: its text, blocks, and the numbers among its parameters."""

    text: Text
    grid: int
    numbers: dict[str, int]

    @property
    def parameters(self) -> frozenset[str]:
        """Their names."""
        return frozenset(name for name, _ in self.text.entry.parameters)


def stage_text(stage: str, problem: Problem, entry: Entry, emit: Callable[..., str], *traits: Hashable) -> EmittedText:
    """The text that is emit(*traits), under a name that says what it is of."""
    return EmittedText(f"flurka_{stage}_sm_90a_d{problem.head_dim}_{problem.dtype}", entry, emit, traits)


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
    dims = problem.head_dim, problem.value_dim, problem.dtype
    return ApplyTraits(*dims, phi, problem.denominator, problem.eps, problem.method == "flurka")


def apply_stage(problem: Problem, traits: ApplyTraits, multiprocessors: int) -> Stage:
    """One wave of blocks, each with neighbouring rows of one head: a block then reads its state once."""
    numbers = {"seq_q": problem.seq_q, **blocks_of_heads(problem, problem.seq_q, multiprocessors * traits.resident)}
    grid = problem.batch * problem.heads * numbers["blocks"]
    return Stage(stage_text("apply", problem, apply_entry(traits), render_apply, traits), grid, numbers)


def project_stage(problem: Problem, traits: ProjectTraits, multiprocessors: int) -> Stage:
    """A block a multiprocessor, which goes from tile to tile."""
    row_tiles, column_tiles = -(-problem.seq_q // TOKENS), problem.heads // traits.heads
    tiles = problem.batch * row_tiles * column_tiles
    numbers = {
        "heads": problem.heads, "seq_q": problem.seq_q, "steps": -(-problem.model_dim // STEP), "tiles": tiles,
        "column_tiles": column_tiles, "row_tiles": row_tiles,
    }  # fmt: skip
    text = stage_text("project_apply", problem, project_entry(traits), render_project_apply, traits)
    return Stage(text, min(tiles, multiprocessors), numbers)


def restore_stage(problem: Problem) -> Stage:
    """What undoes the scales of low-rank attention's values in out: a thread two numbers of a row."""
    traits, words = RestoreTraits(problem.dtype), -(-problem.value_dim // 2)
    blocks = -(-problem.seq_q * words // RESTORE_THREADS)
    numbers = {"heads": problem.heads, "rows": problem.seq_q, "words": words, "blocks": blocks}
    text = stage_text("restore", problem, restore_entry(), render_restore, traits)
    return Stage(text, problem.batch * problem.heads * blocks, numbers)


def blocks_of_heads(problem: Problem, rows: int, resident: int) -> dict[str, int]:
    """How many blocks share the rows of a head, so that all blocks are resident at once."""
    tiles = -(-rows // TILE)
    blocks = max(resident // max(problem.batch * problem.heads, 1), 1)
    tiles_of_block = max(-(-tiles // blocks), 1)
    return {"heads": problem.heads, "blocks": -(-tiles // tiles_of_block), "tiles_of_block": tiles_of_block}


def accumulate_stage(problem: Problem, traits: AccumulateTraits, rows: int, shares: int) -> Stage:
    """Sums over a sequence of so many rows, in so many shares of a state."""
    states = problem.batch * problem.heads * traits.blocks[0] * traits.blocks[1]
    numbers = {"heads": problem.heads, "rows": rows, "shares_of_state": shares}
    if traits.of == "keys":
        numbers["row_weights"] = 0  # which are all 1
    text = stage_text("accumulate", problem, accumulate_entry(traits), render_accumulate, traits)
    return Stage(text, states * shares, numbers)


def images_stage(
    problem: Problem, states: int, shares: int, *, natural_features: bool = False, natural_values: bool = False,
    of: str = "keys", compressed: bool = False,
) -> Stage:  # fmt: skip
    """Shares of states to images. natural_features, natural_values, of, compressed: see ImageTraits."""
    dims = problem.head_dim, problem.value_dim, problem.dtype
    traits = ImageTraits(*dims, natural_features, natural_values, of, compressed)
    text = stage_text("images", problem, images_entry(traits), render_images, traits)
    return Stage(text, PARTS * states, {"shares_of_state": shares})


def shares_of_state(states: int, slots: int, least: int, multiprocessors: int) -> int:
    """Blocks that share the slots of a state: two a multiprocessor, where each has ``least`` slots."""
    wanted = 2 * multiprocessors // max(states, 1)
    return max(1, min(wanted, LARGEST_SHARES, slots // least))


def shares_of_sequence(states: int, rows: int, multiprocessors: int) -> int:
    """The same for accumulate, of which twice as many blocks are resident."""
    return shares_of_state(states, rows, LEAST_TILES * TILE, 2 * multiprocessors)
