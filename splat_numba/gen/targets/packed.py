"""PackedPlan: which texts make a packed operator's call on a GPU, rows in tiles by matrix products or one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.packed.columns import ColumnTiles
from splat_numba.gen.packed.lists import PackedLists, Words
from splat_numba.gen.packed.parts import PackedParts
from splat_numba.gen.packed.problem import PackedProblem
from splat_numba.gen.packed.tiles import TILE_PLACES, TILE_ROWS, PackedTiles, TileBlocks
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.schedule import InPlace, Schedule, ScheduleBuilder, place_of
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gpu.copying import Copying
from splat_numba.gen.targets.gpu.fma import fma_rate
from splat_numba.gen.targets.gpu.launches import CHUNK, in_chunks
from splat_numba.gen.targets.gpu.tiled_operator import FAMILY_OF
from splat_numba.gen.targets.simt.packed.schedule import (
    gathering_blocks,
    record_fma_tiles,
    record_gathering,
    record_rows,
)
from splat_numba.gen.targets.simt.packed.tile_traits import FmaTraits
from splat_numba.gen.targets.sm80.cost import HERTZ, slower_than_fma
from splat_numba.gen.targets.sm80.packed.schedule import record_tiles
from splat_numba.gen.targets.sm80.packed.traits import HALF, NARROW, TiledTraits
from splat_numba.gen.targets.sm80.target import FIRST
from splat_numba.plain import counted, duration

# Cycles of a multiprocessor. On an H200 tiles of 64 numbers a row took 900 to 1300, for the same pairs 770 to 1170
# where 128 rows share them (benchmarks/results/gpu_operators.md). What the first-level cache gives a warp that reads
# keys is an estimate.
PRODUCT_TILE_CYCLES = 1000
REAL_TILE_CYCLES = 1500  # of float32, an estimate: 800 instructions of each scheduler, and twice the bytes
PAIR_BYTES_PER_CYCLE = 64
# Three products of TF32 cut off up to 16 units of the last place of a product, and their sum some more: float32's own
# bound allows a sum of n terms n + 6. So none of fewer is made by them. Of longer rows a multiprocessor has one block.
REAL_TERMS = 32
REAL_DIMS = (REAL_TERMS, NARROW)
SHARED_TILE = 0.88  # of these for the same pairs, where 128 rows share it
COLUMN_TILE = 1.3  # of these where packed values are transposed on the way, on an H200 1.13 to 1.36
COPIED_PAIR_CYCLES = 1.2  # of a pair that is copied to the order of the transposed mask, on an H200 0.6 to 1.4
IN_CHUNKS = frozenset({"q", "k", "v", "out"})  # whose rows are read and written 16 bytes at a time


def in_place(tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
    """Rows of tokens must be whole chunks; packed values may stand anywhere."""
    return {
        name: InPlace(in_chunks(one), CHUNK) if name in IN_CHUNKS else InPlace(True, 1) for name, one in tensors.items()
    }


@dataclass(frozen=True, slots=True, eq=False)
class PackedPlan:
    """tiles: of the rows that share tiles, None if none do, for the reason ``refusal``; the others of ``lists`` have a
    warp each. by_products: tiles go through matrix products, else, for the reason ``without``, through FMA units.
    """

    problem: PackedProblem
    lists: PackedLists
    gpu: Gpu
    tiles: TileBlocks | None
    by_products: bool = False
    refusal: str = ""
    without: str = ""

    @classmethod
    def of(cls, problem: PackedProblem, lists: PackedLists, gpu: Gpu, *, side_by_side: bool = True) -> PackedPlan:
        """side_by_side: whether each head's packed values are."""
        if problem.operator not in FAMILY_OF:
            return cls(problem, lists, gpu, None, refusal=f"{problem.operator} has no text for them")
        if problem.group > 1:
            return cls(problem, lists, gpu, None, refusal=f"{problem.group} heads add up in one, a row at a time")
        without = _without_products(problem, gpu, side_by_side or lists.places is not None)
        if without and FmaTraits.of(problem).shared_bytes > gpu.shared_bytes:
            room = f"{gpu.shared_bytes >> 10} KiB do not hold one of rows of {problem.dim} numbers"
            return cls(problem, lists, gpu, None, refusal=room, without=without)
        least = least_kept(problem, gpu, by_products=not without)
        tiles = [
            lists.tiles(size).denser(least) for size in ((TILE_ROWS,) if without else TiledTraits.of(problem).sizes)
        ]  # fmt: skip
        plans = [
            cls(problem, lists, gpu, one if without else _exact(problem, one), not without, without=without)
            for one in tiles
        ]  # fmt: skip
        if not without and side_by_side:
            plans += [cls(problem, lists, gpu, one.denser(least), True) for one in _of_columns(problem, lists)]
        fastest = min(plans, key=lambda plan: sum(plan.seconds))
        if fastest.tiles is None or not len(fastest.tiles.blocks):
            return cls(problem, lists, gpu, None, refusal="no rows share enough columns", without=without)
        return fastest

    @property
    def rows(self) -> Words:
        """Those of the lists' rows that have a warp each."""
        return self.lists.rows if self.tiles is None else self.lists.rows_outside(self.tiles)

    @property
    def turns(self) -> bool:
        """Whether packed values are copied to the order of the transposed mask first, where tiles read them."""
        return isinstance(self.tiles, PackedTiles) and self.lists.places is not None

    @property
    def seconds(self) -> tuple[float, float]:
        """Predicted, of tiles and of rows, as far as multiprocessors and their caches limit them."""
        heads = self.problem.batch * self.problem.heads * self.problem.group
        rate = self.gpu.multiprocessors * HERTZ / max(heads, 1)
        tiles = 0.0
        if self.tiles is not None:
            size, idle = self.tiles.size, self.gpu.multiprocessors / max(len(self.tiles.blocks) * heads, 1)
            tiles = self.tiles.tiles * size / TILE_ROWS * (SHARED_TILE if size > TILE_ROWS else 1) * max(idle, 1)
            tiles *= COLUMN_TILE if isinstance(self.tiles, ColumnTiles) else 1
        of_tile = tile_cycles(self.problem, self.gpu, by_products=self.by_products)
        copied = 0.0
        if self.turns:
            idle = self.gpu.multiprocessors / max(gathering_blocks(self.problem.dtype, self.lists) * heads, 1)
            copied = COPIED_PAIR_CYCLES * self.lists.pairs * max(idle, 1)
        return (tiles * of_tile + copied) / rate, int(self.rows[:, 2].sum()) * pair_cycles(
            self.problem, self.gpu
        ) / rate

    def explain(self) -> str:
        """What goes through matrix products and what does not, why, and what it is predicted to take."""
        problem = self.problem
        dim = f", rows of {problem.dim} numbers" if problem.dim else ""
        lines = [
            f"operator    {problem.operator}, batch {problem.batch}, heads {problem.heads}{dim}, {problem.dtype}",
            f"target      {self.gpu.words}, {self.gpu.describe()}",
            f"kept        {counted(self.lists.pairs, 'pair')} a head, in {counted(len(self.lists.rows), 'row')}",
            f"tiles       {self._tiles_in_words()}",
        ]
        if len(self.rows):
            lines.append(f"rows        {self._rows_in_words()}")
        return "\n".join(lines)

    def _tiles_in_words(self) -> str:
        tiles = self.tiles
        if tiles is None:
            return f"none: {self.refusal}"
        number, kept = tiles.tiles, tiles.pairs / tiles.area
        units = "by mma.sync" if self.by_products else f"on FMA units, as {self.without}"
        units += "; packed values are copied to their order first" if self.turns else ""
        in_columns = isinstance(tiles, ColumnTiles)
        units += "; packed values are transposed there" if in_columns else ""
        shape = f"{TILE_ROWS} x {tiles.size}" if in_columns else f"{tiles.size} x {TILE_PLACES}"
        whose = "columns that share rows" if in_columns else "rows that share columns"
        blocks = counted(len(tiles.blocks), "block")
        predicted = f"predicted {duration(self.seconds[0])}"
        return f"{number:,} of {shape}, {kept:.0%} kept, in {blocks} of {whose}; {units}; {predicted}"

    def _rows_in_words(self) -> str:
        pairs, lists = self.rows[:, 2], self.lists
        columns = "listed, 4 bytes a pair" if lists.columns is not None else "made from runs"
        parts = PackedParts.of(self.rows, lists.runs, lists.run_ptr, listed=True) if self.problem.dim else None
        cut = (
            ""
            if parts is None
            else f", {len(parts.long):,} of them in {counted(len(parts.parts), 'part')} with one each"
        )
        return (
            f"{len(pairs):,} with a warp each{cut}; {counted(int(pairs.sum()), 'pair')}, the longest "
            f"{int(pairs.max()):,}; columns {columns}; predicted {duration(self.seconds[1])}"
        )

    def schedule(self, tensors: Mapping[str, Tensor], copied: frozenset[str] = frozenset()) -> Schedule:
        """The launches of a call. tensors: the operator's arrays by name, the result last: tokens as (batch, heads,
        seq, dim), packed values as (batch, heads, pairs, 1); copied: which are copied to padded rows first, the result
        after.
        """
        *given, result = tensors
        builder = ScheduleBuilder(*tensors, copying=Copying(self.gpu.arch))
        arrays = {name: builder.readable(tensors[name], copied=name in copied) for name in given}
        whole = tensors[result]
        if 0 in whole.sizes:
            return builder.finish()
        written = builder.tensor(whole.sizes, whole.dtype) if result in copied else whole
        arrays[result] = written
        self._record_tiles(builder, arrays)
        record_rows(builder, self.problem, self.lists, self.rows, arrays, self.gpu)
        if written is not whole:
            builder.copy(written, whole)
        return builder.finish()

    def _record_tiles(self, builder: ScheduleBuilder, arrays: Mapping[str, Tensor]) -> None:
        """The launch over tiles, if there are any, and before it the copy of packed values that it may need."""
        if self.tiles is None:
            return
        record = record_tiles if self.by_products else record_fma_tiles
        if not self.turns:
            record(builder, self.problem, self.tiles, arrays, self.gpu)
            return
        turned = record_gathering(builder, self.problem, self.lists, arrays["values"], self.gpu)
        record(builder, self.problem, self.tiles, {**arrays, "values": turned}, self.gpu)
        builder.release(place_of(turned))


def packed_schedule(
    problem: PackedProblem, lists: PackedLists, tensors: Mapping[str, Tensor], gpu: Gpu,
    copied: frozenset[str] = frozenset(),
) -> Schedule:  # fmt: skip
    """The launches of a call by its plan; tensors and copied as PackedPlan.schedule has them."""
    packed = [one for name, one in tensors.items() if name not in IN_CHUNKS]
    side_by_side = all(one.strides[2] == ITEMSIZE[one.dtype] for one in packed)
    return PackedPlan.of(problem, lists, gpu, side_by_side=side_by_side).schedule(tensors, copied)


def _without_products(problem: PackedProblem, gpu: Gpu, side_by_side: bool) -> str:
    """Why tiles do not go through matrix products; nothing if they do."""
    if ITEMSIZE[problem.dtype] > ITEMSIZE["float32"]:
        return f"mma.sync takes numbers of 16 and 32 bits, not {problem.dtype}"
    if gpu.capability < FIRST:
        return "compute capability {}.{} lacks the instructions".format(*gpu.capability)
    if problem.dtype == "float32" and (reason := _without_reals(problem.dim, gpu)):
        return reason
    if TiledTraits.of(problem).shared_bytes > gpu.shared_bytes:
        return f"two tiles of rows of {problem.dim} numbers do not fit in {gpu.shared_bytes >> 10} KiB"
    return "" if side_by_side else "packed values do not lie side by side"


def _of_columns(problem: PackedProblem, lists: PackedLists) -> list[ColumnTiles]:
    """Of numbers of 16 bits: float32's rows have no text that transposes them. Blocks of 128 columns were slower."""
    found = lists.column_tiles(TILE_PLACES) if ITEMSIZE[problem.dtype] == HALF else None
    return [] if found is None else [found]


def _exact(problem: PackedProblem, tiles: PackedTiles) -> PackedTiles:
    """Those that products make as exactly as float32 would; sddmm's sums have as many terms as a row numbers."""
    few = problem.dtype == "float32" and problem.operator != "sddmm"
    return tiles.fuller(REAL_TERMS) if few else tiles


def _without_reals(dim: int, gpu: Gpu) -> str:
    """Why float32 is not multiplied by three products of TF32, as attention does it; nothing if it is."""
    if not REAL_DIMS[0] <= dim <= REAL_DIMS[1]:
        return f"products of TF32 take rows of {REAL_DIMS[0]} to {REAL_DIMS[1]} numbers, not {dim}"
    return slower_than_fma(Problem(1, 1, dim, dim, "float32"), gpu) or ""


def tile_cycles(problem: PackedProblem, gpu: Gpu, *, by_products: bool) -> float:
    """Of a multiprocessor, for a tile."""
    if by_products:
        cycles = REAL_TILE_CYCLES if problem.dtype == "float32" else PRODUCT_TILE_CYCLES
        return cycles * max(problem.dim / 64, 1)
    return TILE_ROWS * TILE_PLACES * problem.dim / fma_rate(problem.compute_dtype, gpu)


def pair_cycles(problem: PackedProblem, gpu: Gpu) -> float:
    """Of a multiprocessor, for a pair of a row that has a warp: the larger one of its reads and its multiply-adds."""
    reads = max(problem.dim, 1) * ITEMSIZE[problem.dtype] / PAIR_BYTES_PER_CYCLE
    return max(reads, problem.dim / fma_rate(problem.compute_dtype, gpu))


def least_kept(problem: PackedProblem, gpu: Gpu, *, by_products: bool) -> float:
    """The share of a tile's pairs from which on it takes less time than their rows would."""
    pairs = tile_cycles(problem, gpu, by_products=by_products) / pair_cycles(problem, gpu)
    return pairs / (TILE_ROWS * TILE_PLACES)
