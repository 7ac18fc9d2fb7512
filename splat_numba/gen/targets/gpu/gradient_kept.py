"""The design that makes slopes (dS) once: a kernel of keys keeps them in memory, and one of queries reads them.

Five products a pair instead of seven, for 4 bytes a pair moved. Memory is bounded by taking key heads a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES, Images, images_of, reading_pass
from splat_numba.gen.boxes.passes import GROUP_ROWS, MAX_GROUPS, BoxPass, Traits
from splat_numba.gen.boxes.search import search
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.plans.backward import KEYS, BackwardPlan
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.gpu.gradient_plans import MADE_TWICE, plan_twice, reasons_of
from splat_numba.plain import duration, memory_size

KEPT = "one kernel that keeps dS for the other"
LEAST_GAIN = 0.97  # what is kept takes memory
MOST_BYTES = 1 << 30  # of slopes that are kept at a time
CANDIDATES = 3  # orders of keys and tile shapes that are looked at, until one's tiles are rows of queries
TURN_SECONDS = 20e-6  # both kernels once more, for other heads
WORTH_MEMORY = 1.035  # time spent for less memory
LEAST_ROUNDS = 3.5  # of row blocks, in a turn: fewer leave multiprocessors idle


@dataclass(frozen=True, slots=True)
class KeptRates:
    """What keeping costs on a GPU: bytes a second at which slopes go to memory, and at which slopes and keys come from
    there and from the cache together; seconds of the launch that reads.
    """

    written: float
    read: float
    launch_seconds: float


@dataclass(frozen=True, slots=True)
class Keeping:
    """What differs among targets. least_dim: of both dims, below which no gain is known; rates: by compute capability,
    where they are known; tiles: of a turned problem for the kernel that keeps slopes, or why there are none; readers:
    traits of kernels that read them; dealt: whether a launch has a block an item, and all that a multiprocessor holds
    share it, or blocks that take items in turn; share: of the rate of reading that a kernel of these traits gets.
    """

    least_dim: int
    rates: Mapping[tuple[int, int], KeptRates]
    tiles: Callable[[Problem, Gpu], Tiles | str]
    readers: Callable[[Problem, Gpu], tuple[Traits, ...]]
    dealt: bool = False
    share: Callable[[Traits], float] = lambda _: 1.0


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


def plan_least(
    target: str, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions,
    tiles: Callable[[Problem, Gpu, str], Tiles], keeping: Keeping,
) -> BackwardPlan:  # fmt: skip
    """The plan of the least predicted time: two kernels that both make slopes, or one that keeps them for the other.

    tiles: as plan_twice() wants them. Raises PlanError where no tile shape fits the head dimensions.
    """
    twice = plan_twice(target, geometry, problem, gpu, conditions, tiles)
    kept = plan_kept(geometry.transposed(), problem, gpu, conditions, keeping)
    seconds = twice.seconds or 0.0
    if isinstance(kept, Kept) and faster(kept, seconds):
        choice = Choice("gradients", KEPT, kept.words, ((MADE_TWICE, f"predicted {duration(seconds)}"),))
        return replace(
            twice, queries=(kept.queries,), keys=(kept.keys,), choices=(choice, *kept.reasons), seconds=kept.seconds,
            keys_first=True, heads_at_once=kept.heads_at_once,
        )  # fmt: skip
    refused = kept.words if isinstance(kept, Kept) else kept
    choice = replace(twice.choices[0], refused=((KEPT, refused),))
    return replace(twice, choices=(choice, *twice.choices[1:]))


def faster(kept: Kept, twice: float) -> bool:
    """Whether slopes had better be kept than made again: memory has to be worth its while."""
    return kept.seconds < LEAST_GAIN * twice


def plan_kept(
    transposed: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, keeping: Keeping
) -> Kept | str:  # fmt: skip
    """Both passes; or the reason why there are none."""
    turned = problem.transposed()
    if conditions.ragged:
        return "key lengths differ, and slopes of keys beyond them are not known to be 0"
    if min(problem.head_dim, problem.value_dim) < keeping.least_dim:
        return f"no gain was measured below head_dim {keeping.least_dim}"
    if (rates := keeping.rates.get(gpu.capability)) is None:
        return f"how fast memory is beside products is not known of {gpu.words}"
    tiles = keeping.tiles(turned, gpu)
    if isinstance(tiles, str):
        return tiles
    found = search(transposed.table, turned, tiles, ragged=False, negate=conditions.negate, aligned=True)
    for one in found.best(CANDIDATES):
        if len(one.trials) > 1:
            return "keys are taken in several passes, which is slower (measured: sparse_transformer_strided(128), 8 %)"
        (keys,) = one.passes()
        if (images := images_of(keys)) is not None:
            return _finish(keys, images, problem, gpu, reasons_of(found, one, KEYS), one.seconds, keeping, rates)
    return "a query is in several tiles"


def _finish(
    keys: BoxPass, images: Images, problem: Problem, gpu: Gpu, reasons: tuple[Choice, ...], seconds: float,
    keeping: Keeping, rates: KeptRates,
) -> Kept | str:  # fmt: skip
    group = problem.heads_q // problem.heads_kv
    head = images.total * IMAGE_BYTES * problem.batch * group
    if head > MOST_BYTES:
        return f"{memory_size(head)} a key head, more than {memory_size(MOST_BYTES)}"
    readers = [reading_pass(keys, images, problem.seq_q, traits) for traits in keeping.readers(problem, gpu)]
    took = [seconds_of_reading(one, problem, rates, keeping.share(one.traits)) for one in readers]
    written, read = writing_seconds(seconds, images, problem, rates), min(took)
    reader = readers[took.index(read)]
    shares = [(keys, written), (reader, read)] if keeping.dealt else [(keys, written + read)]
    work = [
        TurnWork(
            one.table.block[:, 5].repeat(problem.batch * group), each,
            one.traits.blocks_per_multiprocessor if keeping.dealt else 1,
        )
        for one, each in shares
    ]  # fmt: skip
    turns = turns_of(work, problem.heads_kv, MOST_BYTES // max(head, 1), gpu.multiprocessors)
    heads = -(-problem.heads_kv // turns)
    seconds = seconds_in_turns(work, problem.heads_kv, turns, gpu.multiprocessors)
    return Kept(replace(keys, images=images.total), reader, reasons, seconds, heads, heads * head)


def of_image_tiles(tiles: Tiles) -> Tiles | str:
    """Those of them whose columns are an image's; or that there are none."""
    as_images = tuple(one for one in tiles.shapes if one.tile_kv == GROUP_ROWS)
    return replace(tiles, shapes=as_images) if as_images else f"no tile of {GROUP_ROWS} queries fits"


def writing_seconds(seconds: float, images: Images, problem: Problem, rates: KeptRates) -> float:
    """Of the kernel of keys, which takes so long without: stores go on beside its products, the less so the more there
    are. Measured on an H200 with window512, target sm90: 0.45 ms become 0.50 at head_dim 128, 0.25 become 0.33 at 64.
    """
    stored = images.number.size * IMAGE_BYTES * problem.batch * problem.heads_q / rates.written
    return seconds + stored**2 / seconds


def seconds_of_reading(one: BoxPass, problem: Problem, rates: KeptRates, share: float) -> float:
    """Predicted: all that multiprocessors fetch, images once and their keys for every block of queries."""
    keys = len(one.table.piece) * GROUP_ROWS * problem.head_dim * 2
    images = int(((one.table.piece[:, 4, None] >> 2 * np.arange(MAX_GROUPS)) & 1).sum()) * IMAGE_BYTES
    return rates.launch_seconds + (keys + images) * problem.batch * problem.heads_q / (rates.read * share)


@dataclass(frozen=True, slots=True, eq=False)
class TurnWork:
    """Of a kernel: tiles of every row block of a key head; seconds of all heads at once; resident: blocks that share a
    multiprocessor from the beginning.
    """

    tiles: NDArray[np.int32]
    seconds: float
    resident: int


def turns_of(work: Sequence[TurnWork], heads: int, most: int, multiprocessors: int) -> int:
    """Turns that key heads take, at most ``most`` at a time: as many as cost little time, for the sake of memory."""
    fewest = -(-heads // max(most, 1)) or 1
    blocks = min(one.tiles.size for one in work) * heads
    took = {
        turns: seconds_in_turns(work, heads, turns, multiprocessors)
        for turns in range(fewest, max(heads, 1) + 1)
        if turns == fewest or blocks >= LEAST_ROUNDS * multiprocessors * turns
    }
    least = min(took.values())
    return max(turns for turns, each in took.items() if each <= WORTH_MEMORY * least)


def seconds_in_turns(work: Sequence[TurnWork], heads: int, turns: int, multiprocessors: int) -> float:
    """Predicted: of a turn's row blocks, longest first, a multiprocessor has to do those that it begins with."""
    return TURN_SECONDS * (turns - 1) + sum(_in_turns(one, heads, turns, multiprocessors) for one in work)


def _in_turns(one: TurnWork, heads: int, turns: int, multiprocessors: int) -> float:
    whole = int(one.tiles.sum()) * heads / multiprocessors
    if not whole:
        return one.seconds

    def least(heads_at_once: int) -> int:
        longest = np.sort(one.tiles)[::-1].repeat(heads_at_once)
        return int(longest[: one.resident * multiprocessors : multiprocessors].sum())

    each = max(whole / turns, least(-(-heads // turns)))
    return one.seconds * turns * each / max(whole, least(heads))
