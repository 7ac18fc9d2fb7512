"""Launches of simt's and sm80's texts over matrices: what each reads and writes, its grid, and its scratch memory."""

from __future__ import annotations

from collections.abc import Mapping

from flurka_numba.gpu.composed.matrix import (
    ALONE,
    FLOAT_BYTES,
    NO_LIMIT,
    Extent,
    Fused,
    Limit,
    in_lines,
    is_turned,
    stride_numbers,
)
from flurka_numba.gpu.composed.plan import (
    ProductPlan,
    direct_product_plan,
    product_plan,
    rows_product_plan,
    warp_product_plan,
)
from flurka_numba.gpu.recorder import GpuRecorder
from flurka_numba.targets.gpu.compiled import CompiledText
from flurka_numba.targets.simt.add_up import THREADS as ADD_UP_THREADS
from flurka_numba.targets.simt.add_up import AddUpTraits
from flurka_numba.targets.simt.head_scales import HeadScaleTraits
from flurka_numba.targets.simt.largest import LargestTraits
from flurka_numba.targets.simt.product_shape import LIMITS, NONE
from flurka_numba.targets.simt.rows import WARPS
from flurka_numba.targets.simt.text import OPERAND_STRIDES, RESULT_STRIDES
from flurka_numba.targets.sm80.product import LINE_STRIDES, WarpProductTraits
from flurka_numba.targets.sm80.product_shape import tile_of
from flurka_numba.targets.sm80.rows_product import RowsProductTraits
from flurka_numba.targets.sm80.rows_shape import rounded, stays_in_shared_memory
from splat_numba.gen.language.instructions import MATRIX_TYPE
from splat_numba.gen.schedules.schedule import Place, Text, place_of
from splat_numba.gen.schedules.tensor import Tensor, padded
from splat_numba.gen.targets.gpu.launches import arch_of
from splat_numba.gen.targets.sm80.target import SM80


class Launches:
    """Steps of one recorder. Scratch memory is its own until close()."""

    def __init__(self, recorder: GpuRecorder) -> None:
        self._recorder = recorder
        self._builder = recorder.builder
        self._scratch: list[Place] = []

    @property
    def fuses(self) -> bool:
        """Whether products do more than multiply."""
        return self._recorder.target == SM80.name

    def scratch(self, extent: Extent, columns: int) -> Tensor:
        """A float32 matrix, of which nothing is known."""
        found = self._builder.tensor((extent.batch, extent.heads, extent.rows, columns), "float32")
        self._scratch.append(place_of(found))
        return found

    def numbers(self, count: int) -> Place:
        """So many float32 numbers."""
        self._scratch.append(self._builder.scratch(4 * count))
        return self._scratch[-1]

    def close(self) -> None:
        """No later step wants what is in the scratch memory."""
        for place in self._scratch:
            self._builder.release(place)
        self._scratch.clear()

    def _launch(
        self, text: Text, blocks: int, numbers: Mapping[str, int | float], places: Mapping[str, Place | Tensor | None]
    ) -> None:
        """Of a text as it is compiled for this GPU."""
        self._builder.launch(CompiledText(text, arch_of(self._recorder.gpu)), blocks, numbers, places)

    def product(
        self, a: Tensor, b: Tensor, result: Tensor, grid: tuple[int, int], sizes: tuple[int, int, int], *,
        outer: tuple[int, int] = (1, 1), scale: float = 1.0, addend: Tensor | None = None, limited: str | None = None,
        limit: Limit = NO_LIMIT, a_ones: bool = False, b_ones: bool = False, fused: Fused = ALONE,
    ) -> None:  # fmt: skip
        """result = scale A B + addend. grid: batch entries and heads of results; outer: of which products are summed.

        sizes: rows, depth, columns. a_ones: the last place of A's depth is 1; b_ones: the last column of B. fused: what
        tensor cores' products do beside.
        """
        rows, depth, columns = sizes
        pairs = grid[0] * grid[1]
        if not pairs * rows * columns:
            return
        plan, operands = self._planned(a, b, result, pairs, sizes, outer[0] * outer[1], (a_ones, b_ones), fused)
        part_row = FLOAT_BYTES * padded(columns, FLOAT_BYTES)
        limits = limit if limited else NO_LIMIT
        common: dict[str, int | float] = {
            **stride_numbers(result, "result", RESULT_STRIDES), **stride_numbers(addend, "addend", RESULT_STRIDES),
            "limit_first": limits.first, "heads": grid[1], "rows": rows, "columns": columns, "shares": plan.shares,
            "part_row": part_row, "limited": LIMITS[limited], "scale": scale,
        }  # fmt: skip
        parts = None
        if plan.shares > 1:
            parts = self._builder.scratch(plan.shares * pairs * rows * part_row)
        places = {"result": result, "addend": addend, "kv_lengths": limits.lengths, "parts": parts}
        values: dict[str, int | float] = {
            **common, **operands,
            "outer_heads": outer[1], "depth": depth, "depth_blocks": plan.depth_blocks, "steps": plan.steps,
            "steps_of_share": plan.steps_of_share, "row_blocks": plan.row_blocks, "column_blocks": plan.column_blocks,
            "a_ones": depth - 1 if a_ones else NONE, "b_ones": columns - 1 if b_ones else NONE,
        }  # fmt: skip
        blocks = pairs * plan.row_blocks * plan.column_blocks * plan.shares
        beside: dict[str, Place | Tensor] = dict(fused.matrices)
        if fused.scales is not None:
            beside["scales"] = fused.scales
        self._launch(plan.traits, blocks, values, {**places, **beside, "a": a, "b": b})
        if parts is not None:
            self._add_up(AddUpTraits(result.dtype), pairs, common, places)
            self._builder.release(parts)

    def _add_up(
        self, text: AddUpTraits, pairs: int, numbers: Mapping[str, int | float],
        places: Mapping[str, Place | Tensor | None],
    ) -> None:  # fmt: skip
        """A thread four columns of a row."""
        quads = -(-int(numbers["columns"]) // 4)
        blocks = -(-pairs * int(numbers["rows"]) * quads // ADD_UP_THREADS)
        self._launch(text, blocks, {**numbers, "quads": quads, "pairs": pairs}, places)

    def add_up(self, parts: Tensor, result: Tensor) -> None:
        """result = the sum of parts, of as many batch entries each, one after the other in memory in padded rows."""
        batch, heads, rows, columns = result.sizes
        numbers: dict[str, int | float] = {
            **stride_numbers(result, "result", RESULT_STRIDES), **stride_numbers(None, "addend", RESULT_STRIDES),
            "limit_first": 0, "heads": heads, "rows": rows, "columns": columns, "limited": LIMITS[None], "scale": 1.0,
            "shares": parts.sizes[0] // batch, "part_row": parts.strides[2],
        }  # fmt: skip
        places = {"result": result, "addend": None, "kv_lengths": None, "parts": place_of(parts)}
        self._add_up(AddUpTraits(result.dtype, parts.dtype), batch * heads, numbers, places)

    def _planned(
        self, a: Tensor, b: Tensor, result: Tensor, pairs: int, sizes: tuple[int, int, int], outer: int,
        ones: tuple[bool, bool], fused: Fused,
    ) -> tuple[ProductPlan, dict[str, int | float]]:  # fmt: skip
        """By the target's text, and what that is told of its operands."""
        gpu, dtypes = self._recorder.gpu, (a.dtype, b.dtype, result.dtype)
        if not self.fuses:
            along = {"a_along": int(abs(a.strides[3]) < abs(a.strides[2])),
                     "b_along": int(abs(b.strides[2]) < abs(b.strides[3]))}  # fmt: skip
            if fused != ALONE:
                raise ValueError(f"a plain product wanted for {self._recorder.target}, got {fused}")
            strides = stride_numbers(a, "a", OPERAND_STRIDES) | stride_numbers(b, "b", OPERAND_STRIDES)
            return product_plan(dtypes, pairs, sizes, outer, gpu.multiprocessors), {**strides, **along}
        turned = is_turned(a), is_turned(b)
        if any(one and far for one, far in zip(ones, turned, strict=True)):
            raise ValueError(f"ones wanted along a line, got operands turned {turned}")
        strides = stride_numbers(in_lines(a), "a", LINE_STRIDES) | stride_numbers(in_lines(b), "b", LINE_STRIDES)
        for name, one in fused.matrices:
            strides |= stride_numbers(one, name, RESULT_STRIDES)
        if a.dtype == b.dtype in MATRIX_TYPE and fused == ALONE and not any(ones):
            return direct_product_plan(a.dtype, result.dtype, turned, pairs, sizes, outer, gpu), {**strides}
        if outer == 1 and not ones[1] and stays_in_shared_memory(sizes, b.dtype, a_turned=turned[0]):
            of_rows = RowsProductTraits(*dtypes, *rounded(*sizes[1:]), turned[1], fused.feature_map, ones[0], fused.end)
            return rows_product_plan(of_rows, pairs, sizes[0], gpu), {**strides}
        traits = WarpProductTraits(*dtypes, *tile_of(sizes[0], sizes[2]), *turned, fused.feature_map, *ones, fused.end)
        return warp_product_plan(traits, pairs, sizes, outer, gpu), {**strides}

    def of_rows(
        self, text: Text, extent: Extent, operands: Mapping[str, Tensor], results: Mapping[str, Tensor],
        limit: Limit = NO_LIMIT, pointers: Mapping[str, Place | None] | None = None, **values: int,
    ) -> None:  # fmt: skip
        """A text that takes rows one by one. pointers: those to other than matrices."""
        if not extent.pairs * extent.rows:
            return
        numbers = {"limit_first": limit.first, "heads": extent.heads, "rows": extent.rows, "pairs": extent.pairs}
        for name, one in operands.items():
            numbers |= stride_numbers(one, name, OPERAND_STRIDES)
        for name, one in results.items():
            numbers |= stride_numbers(one, name, RESULT_STRIDES)
        places = {**operands, **results, "kv_lengths": limit.lengths, **(pointers or {})}
        self._launch(text, -(-extent.pairs * extent.rows // WARPS), numbers | values, places)

    def scale(
        self, x: Tensor, y: Tensor, extent: Extent, columns: int, scales: Place, *, state: bool = False,
        finding: bool = False,
    ) -> None:  # fmt: skip
        """y = x times a power of two for each head, at ``scales``. finding: first found there, for a state or keys."""
        numbers = {**stride_numbers(x, "x", RESULT_STRIDES), **stride_numbers(y, "y", RESULT_STRIDES)}
        numbers |= {"heads": extent.heads, "rows": extent.rows, "columns": columns, "finding": int(finding)}
        self._launch(HeadScaleTraits(state), extent.pairs, numbers, {"x": x, "y": y, "scales": scales})

    def largest(
        self, u: Tensor, extent: Extent, columns: int, tops: Place | None, limit: Limit, *, adding: bool
    ) -> None:
        """The largest number of each head, to the float32 numbers at ``tops``."""
        numbers = {**stride_numbers(u, "u", RESULT_STRIDES), "limit_first": limit.first, "heads": extent.heads}
        numbers |= {"rows": extent.rows, "columns": columns, "adding": int(adding)}
        places = {"u": u, "kv_lengths": limit.lengths, "tops": tops}
        self._launch(LargestTraits(), extent.pairs, numbers, places)
