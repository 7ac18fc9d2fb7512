"""The design that makes slopes (dS) once: a kernel of keys keeps them in memory, and one of queries reads them.

Five products a pair instead of seven, for 4 bytes a pair moved. Memory is bounded by taking key heads a few at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.backward import KEYS, QUERIES
from splat_numba.gen.box_cost import Work
from splat_numba.gen.box_passes import search
from splat_numba.gen.boxes import GROUP_ROWS, MAX_GROUPS, BoxPass, Traits
from splat_numba.gen.kept_slopes import Images, images_of, reading_pass
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice
from splat_numba.gen.problem import Conditions, Problem
from splat_numba.gen.targets.gpu.gradient_plans import reasons_of
from splat_numba.gen.targets.sm90.backward.gradient_tiles import GradientTiles
from splat_numba.gen.targets.sm90.backward.tile_shapes import WHOLE, candidates, feasible
from splat_numba.gen.targets.sm90.backward.traits import IMAGE_BYTES, READ, ROUNDED, BackwardTraits
from splat_numba.gen.targets.sm90.cost import LAUNCH_SECONDS
from splat_numba.plain import duration, memory_size

KEPT = "one kernel that keeps dS for the other"
MOST_BYTES = 1 << 30  # of slopes that are kept at a time
CANDIDATES = 3  # orders of keys and tile shapes that are looked at, until one's tiles are rows of queries
# Measured on an H200 (window512, head_dim 64 and 128): slopes and keys come to the multiprocessors at this rate
# together; a kernel that stores slopes takes longer by their bytes over the other rate, 10 % (128) to 30 % (64).
READ_BYTES_PER_SECOND = 5.0e12
WRITTEN_BYTES_PER_SECOND = 8.0e12
TURN_SECONDS = 20e-6  # both kernels once more, for other heads
WORTH_MEMORY = 1.04  # time spent for less memory
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


@dataclass(frozen=True, slots=True)
class AlignedTiles:
    """Tiles of 64 queries, as images are."""

    tiles: GradientTiles

    @property
    def shapes(self) -> tuple[Traits, ...]:
        """Of the gradients of keys, those whose tiles are as wide as an image; perhaps none."""
        return tuple(one for one in self.tiles.shapes if one.tile_kv == GROUP_ROWS)

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        return self.tiles.seconds(work, traits)


def plan_kept(transposed: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> Kept | str:
    """Both passes; or the reason why there are none."""
    turned = problem.transposed()
    if conditions.ragged:
        return "key lengths differ, and slopes of keys beyond them are not known to be 0"
    if candidates(turned, KEYS, gpu)[1] != WHOLE[KEYS]:
        return "a kernel each makes dk and dv, of dims so large"
    tiles = AlignedTiles(GradientTiles(turned, gpu, KEYS))
    if not tiles.shapes:
        return f"no tile of {GROUP_ROWS} queries fits"
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
    written = images.number.size * IMAGE_BYTES * problem.batch * problem.heads_q
    seconds += written / WRITTEN_BYTES_PER_SECOND + seconds_of_reading(reader, problem)
    heads = heads_at_once(problem.heads_kv, MOST_BYTES // max(head, 1), seconds)
    seconds += TURN_SECONDS * (-(-problem.heads_kv // heads) - 1)
    return Kept(replace(keys, images=images.total), reader, reasons, seconds, heads, heads * head)


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


def heads_at_once(heads: int, most: int, seconds: float) -> int:
    """Key heads whose slopes are kept at a time, of all, at most so many: the fewest that cost little time.

    seconds: of all heads at once.
    """
    fewest = -(-heads // max(most, 1)) or 1
    turns = fewest
    while turns < heads and seconds + TURN_SECONDS * turns <= WORTH_MEMORY * (seconds + TURN_SECONDS * (fewest - 1)):
        turns += 1
    return max(-(-heads // turns), 1)
