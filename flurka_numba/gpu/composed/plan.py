"""What a GPU does by products of matrices and passes over rows: chunks of how many rows, products with which tiles.

That path takes every shape, dtype, method and map: it is that of the targets simt and sm80, of float32 everywhere and
of what Hopper's stages have not.
Features, scores and their gradients are float32 in scratch memory, of a chunk of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.gpu.composed.matrix import FLOAT_BYTES, Extent
from flurka_numba.gpu.gradient_plan import over_slots, takes_gradients
from flurka_numba.gpu.stages import apply_traits
from flurka_numba.problem import Problem
from flurka_numba.targets.simt.product import ProductTraits
from flurka_numba.targets.simt.product_shape import DEPTH, LARGE, MEDIUM, SMALL
from flurka_numba.targets.sm80.direct_product import DirectProductTraits
from flurka_numba.targets.sm80.direct_shape import direct_tile, stages_for
from flurka_numba.targets.sm80.product import WarpProductTraits
from flurka_numba.targets.sm80.product_shape import MOST_COLUMNS
from flurka_numba.targets.sm80.rows_product import RowsProductTraits
from flurka_numba.targets.sm80.rows_shape import LEAST_TILES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.tensor import padded

LARGEST_SCRATCH = 256 << 20  # bytes of a chunk's rows, unless heads are so many that LEAST_ROWS of each are more
LEAST_ROWS = 128
LEAST_STEPS = 8  # of a share of a product's depth
LARGEST_SHARES = 64
SLOTS_OF_BLOCK = 128  # of the gradients of attention's keys and values
LEAST_QUERIES = 1024  # of a share of queries


def composes_forward(problem: Problem) -> bool:
    """Whether Hopper's stages do not take a forward call."""
    if problem.dtype == "float32":
        return True
    return problem.method != "low_rank" and not apply_traits(problem).fits


def composes_gradients(problem: Problem) -> bool:
    """Whether a call with gradients does."""
    if problem.dtype == "float32" or problem.method == "low_rank" or not isinstance(problem.feature_map, FeatureMap):
        return True
    inner = problem if problem.method == "kernel" else over_slots(problem)
    return (problem.method == "flurka" and problem.ragged) or not takes_gradients(inner)


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Batch entries and rows that are computed at once."""

    entry: int
    entries: int
    row: int
    rows: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """A matrix's rows in chunks: of all batch entries as long as enough rows fit, else of fewer."""

    whole: Extent
    entries: int
    rows: int

    @property
    def largest(self) -> Extent:
        """Of one chunk."""
        return Extent(self.entries, self.whole.heads, self.rows)

    def __iter__(self) -> Iterator[RowChunk]:
        """All of them; one of no rows where there are none, so that sums over them are 0."""
        for entry in range(0, self.whole.batch, max(self.entries, 1)):
            for row in range(0, max(self.whole.rows, 1), max(self.rows, 1)):
                yield RowChunk(
                    entry, min(self.entries, self.whole.batch - entry), row, min(self.rows, self.whole.rows - row)
                )


def chunks_of(whole: Extent, columns: int, largest: int = LARGEST_SCRATCH) -> Chunks:
    """columns: float32 numbers of scratch that a row takes."""
    of_row = max(4 * columns * whole.heads, 1)
    rows = largest // (of_row * max(whole.batch, 1))
    if rows >= min(LEAST_ROWS, whole.rows):
        fits = rows // LEAST_ROWS * LEAST_ROWS
        return Chunks(whole, whole.batch, min(fits or rows, whole.rows))
    rows = min(LEAST_ROWS, whole.rows)
    return Chunks(whole, max(largest // (of_row * max(rows, 1)), 1), rows)


@dataclass(frozen=True, slots=True)
class ComposedPlan:
    """queries, keys: the chunks of both sides. A "key" is a slot, if there are projections."""

    queries: Chunks
    keys: Chunks


def divides_in_product(problem: Problem, *, fuses: bool) -> bool:
    """Whether a product divides its rows itself: a tile has all of a row's columns."""
    return fuses and problem.value_dim + 1 <= MOST_COLUMNS


def slots_are_keys(problem: Problem, *, fuses: bool) -> bool:
    """Whether slots are rounded to be keys and values of splat_numba's attention. bfloat16 alone has the range of any
    slots; attention wants rows of both.
    """
    some = problem.batch * problem.heads * problem.seq_q * problem.rank > 0
    return fuses and some and problem.method == "low_rank" and problem.dtype == "bfloat16"


def query_shares(problem: Problem, multiprocessors: int) -> int:
    """In how many shares the queries of a batch entry are for the gradients of attention to slots, whose blocks have
    some slots and all queries of a share: as many, of those that divide the queries, as make one wave of blocks.
    """
    blocks = problem.heads * -(-problem.rank // SLOTS_OF_BLOCK)
    if 2 * problem.batch * blocks > multiprocessors:
        return 1
    most = min(multiprocessors // blocks, LARGEST_SHARES, problem.seq_q // LEAST_QUERIES)
    return max((share for share in range(1, most + 1) if problem.seq_q % share == 0), default=1)


def rounds_slot_gradients(problem: Problem, *, fuses: bool) -> bool:
    """Whether gradients of slots are rounded, so that the four long products with tokens and projections are of one
    type and take no pieces. bfloat16 alone has their range.
    """
    return fuses and problem.dtype == "bfloat16" and problem.method != "kernel"


def composed_plan(
    problem: Problem, largest: int = LARGEST_SCRATCH, *, fuses: bool = False, keeps: bool = True
) -> ComposedPlan:
    """The plan of a call. fuses: products take rows through elementwise maps and divide; keeps: gradients follow."""
    queries = Extent(problem.batch, problem.heads, problem.seq_q)
    keys = Extent(problem.batch, problem.heads, problem.slots)
    if problem.method == "low_rank":
        of_row = 2 * padded(problem.rank, FLOAT_BYTES)
        return ComposedPlan(chunks_of(queries, of_row, largest), chunks_of(keys, 1, largest))
    features, width = (padded(one, FLOAT_BYTES) for one in (problem.features, problem.value_dim + 1))
    of_features = 2 * features
    if not isinstance(problem.feature_map, FeatureMap):
        of_features += features + padded(problem.head_dim, FLOAT_BYTES) + 1
    elif fuses:
        of_features = 0
    of_rows = width * keeps if divides_in_product(problem, fuses=fuses) else 2 * width
    of_query, of_key = max(of_features + of_rows, 1), max(of_features, 1)
    return ComposedPlan(chunks_of(queries, of_query, largest), chunks_of(keys, of_key, largest))


@dataclass(frozen=True, slots=True)
class ProductPlan:
    """traits: of the text; row_blocks, column_blocks: of a result; shares: of the depth, steps_of_share each, as many
    as make one wave of blocks.
    """

    traits: ProductTraits | WarpProductTraits | DirectProductTraits | RowsProductTraits
    row_blocks: int
    column_blocks: int
    depth_blocks: int
    steps: int
    shares: int
    steps_of_share: int


def product_plan(
    dtypes: tuple[str, str, str], pairs: int, sizes: tuple[int, int, int], outer: int, multiprocessors: int
) -> ProductPlan:
    """On the FMA units. dtypes: of A, B and the result. sizes: rows, depth, columns. outer: how often the depth is gone
    through.
    """
    rows, _, columns = sizes
    tile = SMALL if min(rows, columns) <= SMALL[0] else MEDIUM if rows <= MEDIUM[0] else LARGE
    traits = ProductTraits(*dtypes, *tile)
    return _in_blocks(traits, DEPTH, pairs, sizes, outer, multiprocessors * traits.entry.blocks)


def direct_product_plan(
    dtype: str, result: str, turned: tuple[bool, bool], pairs: int, sizes: tuple[int, int, int], outer: int, gpu: Gpu
) -> ProductPlan:
    """On tensor cores, of two operands of one 16-bit dtype as they are. turned: see Operand. The others as above."""
    traits = DirectProductTraits(dtype, result, *direct_tile(sizes, outer), stages_for(gpu.shared_bytes), *turned)
    return warp_product_plan(traits, pairs, sizes, outer, gpu)


def rows_product_plan(traits: RowsProductTraits, pairs: int, rows: int, gpu: Gpu) -> ProductPlan:
    """Of rows with a small matrix: one wave of blocks, each of one head's rows. steps_of_share: a block's tiles."""
    resident = min(traits.resident, max(gpu.shared_bytes // traits.shared_bytes, 1))
    tiles = -(-rows // traits.rows)
    blocks = max(min(gpu.multiprocessors * resident // max(pairs, 1), tiles // LEAST_TILES), 1)
    of_block = -(-tiles // blocks)
    return ProductPlan(traits, -(-tiles // of_block), 1, 1, 1, 1, of_block)


def warp_product_plan(
    traits: WarpProductTraits | DirectProductTraits, pairs: int, sizes: tuple[int, int, int], outer: int, gpu: Gpu
) -> ProductPlan:
    """On tensor cores. The others as above."""
    resident = min(traits.resident, max(gpu.shared_bytes // traits.shared_bytes, 1))
    return _in_blocks(traits, traits.depth, pairs, sizes, outer, gpu.multiprocessors * resident)


def _in_blocks(
    traits: ProductTraits | WarpProductTraits | DirectProductTraits, depth_of_step: int, pairs: int,
    sizes: tuple[int, int, int], outer: int, resident: int,
) -> ProductPlan:  # fmt: skip
    """resident: blocks that run at once."""
    rows, depth, columns = sizes
    row_blocks, column_blocks = -(-rows // traits.rows), -(-columns // traits.columns)
    depth_blocks = -(-depth // depth_of_step)
    tiles, steps = max(pairs * row_blocks * column_blocks, 1), outer * depth_blocks
    most = 1 if isinstance(traits, WarpProductTraits) and traits.end else LARGEST_SHARES  # which wants whole sums
    shares = max(1, min(resident // tiles, steps // LEAST_STEPS, most))
    steps_of_share = max(-(-steps // shares), 1)
    shares = max(-(-steps // steps_of_share), 1)
    return ProductPlan(traits, row_blocks, column_blocks, depth_blocks, steps, shares, steps_of_share)
