"""The design that makes slopes (dS) once: a kernel of keys keeps them in memory, and one of queries reads them.

Five products a pair instead of seven, for 4 bytes a pair moved. Memory is bounded by taking key heads a few at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES, Images, images_of, reading_pass
from splat_numba.gen.boxes.passes import GROUP_ROWS, MAX_GROUPS, BoxPass, Traits
from splat_numba.gen.boxes.search import search
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.gpu.gradient_kernels import READ, ROUNDED, WHOLE
from splat_numba.gen.targets.gpu.gradient_plans import reasons_of
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates, feasible, gradient_tiles
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits
from splat_numba.gen.targets.sm90.cost import LAUNCH_SECONDS, MEMORY_BYTES_PER_SECOND
from splat_numba.plain import duration, memory_size

KEPT = "one kernel that keeps dS for the other"
MOST_BYTES = 1 << 30  # of slopes that are kept at a time
CANDIDATES = 3  # orders of keys and tile shapes that are looked at, until one's tiles are rows of queries
# Measured on an H200 with window512: slopes and keys come to the multiprocessors at this rate together.
READ_BYTES_PER_SECOND = 5.0e12
TURN_SECONDS = 20e-6  # both kernels once more, for other heads
WORTH_MEMORY = 1.04  # time spent for less memory
LEAST_ROUNDS = 3.5  # of row blocks, in a turn: fewer leave multiprocessors idle
LEAST_DIM = 96  # at head_dim 64 slopes were kept at no gain (8 masks of 8192 tokens: 5 % slower in the mean), 128 gains
STAGES = (5, 4, 3, 2)  # of keys and images: memory is further away than the cache


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A pass over keys that keeps slopes, one over queries that reads them, and why; nbytes: kept at a time."""

    keys: BoxPass
    queries: BoxPass
    reasons: tuple[Choice, ...]
    seconds: float
    heads_at_once: int
    nbytes: int

    @property
    def words(self) -> str:
        """What it costs."""
        heads = f"{self.heads_at_once} key head{'s' * (self.heads_at_once > 1)} at a time"
        size = memory_size(self.nbytes)
        return f"five products a tile, {size} of memory, {heads}; predicted {duration(self.seconds)}"


def plan_kept(transposed: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> Kept | str:
    """Both passes; or the reason why there are none."""
    turned = problem.transposed()
    if conditions.ragged:
        return "key lengths differ, and slopes of keys beyond them are not known to be 0"
    if min(problem.head_dim, problem.value_dim) < LEAST_DIM:
        return f"no gain was measured below head_dim {LEAST_DIM}"
    if candidates(turned, KEYS, gpu)[1] != WHOLE[KEYS]:
        return "a kernel each makes dk and dv, of dims so large"
    tiles = gradient_tiles(turned, gpu, KEYS)
    as_images = tuple(one for one in tiles.shapes if one.tile_kv == GROUP_ROWS)
    if not as_images:
        return f"no tile of {GROUP_ROWS} queries fits"
    tiles = replace(tiles, shapes=as_images)
    found = search(transposed.table, turned, tiles, ragged=False, negate=conditions.negate, aligned=True)
    for one in found.best(CANDIDATES):
        if len(one.trials) > 1:
            return "keys are taken in several passes, which is slower (measured: sparse_transformer_strided(128), 8 %)"
        (keys,) = one.passes()
        if (images := images_of(keys)) is not None:
            reasons = reasons_of(found, one, KEYS)
            return _finish(keys, images, problem, gpu, reasons, one.seconds)
    return "a query is in several tiles"


def _finish(
    keys: BoxPass, images: Images, problem: Problem, gpu: Gpu, reasons: tuple[Choice, ...], seconds: float
) -> Kept | str:
    group = problem.heads_q // problem.heads_kv
    head = images.total * IMAGE_BYTES * problem.batch * group
    if head > MOST_BYTES:
        return f"{memory_size(head)} a key head, more than {memory_size(MOST_BYTES)}"
    readers = [reading_pass(keys, images, problem.seq_q, traits) for traits in reading_traits(problem, gpu)]
    reader = min(readers, key=lambda one: seconds_of_reading(one, problem))
    seconds = writing_seconds(seconds, images, problem) + seconds_of_reading(reader, problem)
    per_head = keys.table.block[:, 5].repeat(problem.batch * group)
    turns = turns_of(per_head, problem.heads_kv, MOST_BYTES // max(head, 1), gpu.multiprocessors, seconds)
    heads = -(-problem.heads_kv // turns)
    seconds = seconds_in_turns(per_head, problem.heads_kv, turns, gpu.multiprocessors, seconds)
    return Kept(replace(keys, images=images.total), reader, reasons, seconds, heads, heads * head)


def writing_seconds(seconds: float, images: Images, problem: Problem) -> float:
    """Of the kernel of keys, which takes so long without: stores go on beside its products, the less so the more there
    are. Measured on an H200 with window512: 0.45 ms become 0.50 at head_dim 128, 0.25 become 0.33 at 64.
    """
    stored = images.number.size * IMAGE_BYTES * problem.batch * problem.heads_q / MEMORY_BYTES_PER_SECOND
    return seconds + stored**2 / seconds


def reading_traits(problem: Problem, gpu: Gpu) -> tuple[Traits, ...]:
    """Of kernels that read slopes, by their groups, which share keys; each with as many stages as fit."""
    found: list[Traits] = []
    for groups in range(1, MAX_GROUPS + 1):
        shapes = (
            Traits(problem.head_dim, problem.value_dim, problem.dtype, groups, GROUP_ROWS, stages, 1, partial=False)
            for stages in STAGES
        )
        found += [one for one in shapes if feasible(reads(one), gpu)][:1]
    return tuple(found)


def reads(boxes: Traits) -> BackwardTraits:
    """Of a kernel that makes dq of kept slopes."""
    return BackwardTraits(boxes, QUERIES, ("dq",), ROUNDED, ragged=False, kept=READ)


def seconds_of_reading(one: BoxPass, problem: Problem) -> float:
    """Predicted: all that multiprocessors fetch, images once and their keys for every block of queries."""
    keys = len(one.table.piece) * GROUP_ROWS * problem.head_dim * 2
    images = int(((one.table.piece[:, 4, None] >> 2 * np.arange(MAX_GROUPS)) & 1).sum()) * IMAGE_BYTES
    return LAUNCH_SECONDS + (keys + images) * problem.batch * problem.heads_q / READ_BYTES_PER_SECOND


def turns_of(tiles: NDArray[np.int32], heads: int, most: int, slots: int, seconds: float) -> int:
    """Turns that key heads take, at most ``most`` at a time: as many as cost little time, for the sake of memory.

    tiles: of every row block of a key head; slots: row blocks at a time; seconds: of all heads at once.
    """
    fewest = -(-heads // max(most, 1)) or 1
    took = {
        turns: seconds_in_turns(tiles, heads, turns, slots, seconds)
        for turns in range(fewest, max(heads, 1) + 1)
        if turns == fewest or tiles.size * heads >= LEAST_ROUNDS * slots * turns
    }
    least = min(took.values())
    return max(turns for turns, each in took.items() if each <= WORTH_MEMORY * least)


def seconds_in_turns(tiles: NDArray[np.int32], heads: int, turns: int, slots: int, seconds: float) -> float:
    """Predicted: a turn takes as long as its longest row block at least."""
    whole, longest = int(tiles.sum()) * heads / slots, int(tiles.max(initial=0))
    if not whole:
        return seconds
    each = max(whole / turns, longest)
    return seconds * turns * each / max(whole, longest) + TURN_SECONDS * (turns - 1)
