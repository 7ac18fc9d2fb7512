"""How stage 1 is cut: tiles of slots x columns, and blocks that share the tokens of one. Pure numbers.

The choice is what a model of its time likes best, in units of a step of 64 tokens of a tile of 128 x 128 (0.37 us on an
H200): waves x (steps x work + FILLING + RESULTS x size), fitted to 4 x 8192, 1 x 65536 and 1 x 8192 tokens of 16 heads
x 64 with rank 256, where 256 x 128, 128 x 256 and 128 x 128 took 54.7, 52.3, 53.2; 114, 107, 116; and 22.9, 22.6,
20.0 us.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.shape import STEP
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.plans.machine import HOPPER_REGISTERS, THREAD_REGISTERS
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.sm90.shape import GROUP, WARPGROUP, spans

OTHER_REGISTERS = 40  # of a thread of stage 1, beside the sums
LARGEST_SPLIT = 16
FILLING = 11.0  # until a block's first product, with the launch
RESULTS = 6.5  # for the sums of 128 x 128 to be written, and read by the next stage
WORK_OF_SPANS = {1: 1.3, 2: 1.0, 4: 0.96}  # wider products read less shared memory for the same operations
WORK_OF_GROUPS = {1: 1.15, 2: 1.0, 3: 1.02, 4: 1.04}


@dataclass(frozen=True, slots=True)
class Tiling:
    """groups: warpgroups of 64 slots in a row block; tile_spans: spans of 64 columns of a tile; splits: blocks that
    share the steps of a tile; pairs_k, pairs_v: tiles beside each other; tiles_k of the tiles are of keys.
    """

    groups: int
    tile_spans: int
    splits: int
    row_blocks: int
    pairs_k: int
    pairs_v: int
    tiles_k: int
    tiles: int

    def time(self, steps: int, multiprocessors: int) -> float:
        """By the model."""
        size = self.groups * self.tile_spans / 4
        work = size * WORK_OF_SPANS[self.tile_spans] * WORK_OF_GROUPS[self.groups]
        waves = -(-self.tiles * self.splits // multiprocessors)
        return waves * (-(-steps // self.splits) * work + FILLING + RESULTS * size)


def choose_tiling(problem: Problem, multiprocessors: int) -> Tiling:
    """The tiling that ends first; of such the one with the fewest parts."""
    steps = -(-problem.seq_kv // STEP)
    every = (tiling for shape in _shapes(problem) for tiling in _tilings(problem, *shape, steps))
    return min(every, key=lambda tiling: (tiling.time(steps, multiprocessors), tiling.splits))


def _shapes(problem: Problem) -> Iterator[tuple[int, int]]:
    """(groups, spans) whose sums fit in registers. With projections of their own for each head, the spans of a tile are
    all of one head.
    """
    per_head = spans(problem.head_dim), spans(problem.value_dim)
    for groups in range(1, 5):
        registers = sum_registers(groups)
        for count in (1, 2, 4):
            if problem.per_head_proj:
                fits = not any(one % count for one in per_head)
            else:
                fits = count == 1 or count <= problem.heads * max(per_head)
            if fits and (count == 1 or GROUP * SPAN // WARPGROUP * count <= registers):
                yield groups, count


def _tilings(problem: Problem, groups: int, tile_spans: int, steps: int) -> Iterator[Tiling]:
    row_blocks = -(-problem.rank // (GROUP * groups))
    pairs_k, pairs_v = (-(-problem.heads * spans(dim) // tile_spans) for dim in (problem.head_dim, problem.value_dim))
    tiles_k = problem.batch * pairs_k * row_blocks
    tiles = tiles_k + problem.batch * pairs_v * row_blocks
    for splits in range(1, max(min(LARGEST_SPLIT, steps), 1) + 1):
        yield Tiling(groups, tile_spans, splits, row_blocks, pairs_k, pairs_v, tiles_k, tiles)


def slot_groups(rank: int) -> int:
    """Warpgroups of 64 slots in a row block: few slots in vain, and few row blocks, which fetch the tokens each."""
    return min(range(4, 0, -1), key=lambda groups: -(-rank // (GROUP * groups)) * (groups + 1))


def sum_registers(groups: int) -> int:
    """That a thread has for sums, beside a warp that fetches for so many warpgroups."""
    return min(HOPPER_REGISTERS // (WARPGROUP * groups + WARP), THREAD_REGISTERS) - OTHER_REGISTERS
