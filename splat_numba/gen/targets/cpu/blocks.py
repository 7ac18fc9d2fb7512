"""The walk of one row block over its key tiles: by intervals of a closed form, or by the pieces of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.prelude import FUNCTION
from splat_numba.gen.targets.cpu.shape import TileShape

KEYS = "k, k_stride, k_dim, v, v_stride, v_dim"


@dataclass(frozen=True, slots=True)
class Walk:
    """What is done with the key tiles of a row block, forward or back.

    name: its functions begin with it; sources, state: their parameters, of keys and of the row block; arrays: what is
    given for sources: a pointer to a head's first row, its strides from key to key and from number to number; weigh:
    what makes weights of scores, see softmax.PREDICATES, and with which arguments. tile: prints what is done with
    ``count`` keys from number ``start`` on, ``step`` rows apart (both as text), and gathered: the same for keys listed
    one by one; both get the text of the weighing.
    """

    name: str
    sources: str
    arrays: tuple[tuple[str, str, str], ...]
    state: str
    weigh: str
    weights: str
    tile: Callable[[SourceWriter, TileShape, str, str, str], None]
    gathered: Callable[[SourceWriter, TileShape, str], None]

    def weighing(self, shape: TileShape, whole: str, predicate: str, more: str) -> str:
        """Text: without a mask where ``whole``, else with this predicate and its arguments."""
        return f"""
            if {whole}:
                {self.weigh}_full_{shape.suffix}({self.weights})
            else:
                {self.weigh}_{predicate}_{shape.suffix}({self.weights}, {more})
            """


def emit_interval_walk(out: SourceWriter, shape: TileShape, walk: Walk) -> None:
    """attend_interval: one band of a row block; tiles start at the first key that a row needs and end at the last."""
    with out.function(
        FUNCTION,
        f"{walk.name}_interval_{shape.suffix}({walk.sources}, low, high, rows, {walk.state})",
        "Keys low[lane] <= key < high[lane] of one lattice; where all rows keep all keys no mask is needed.",
    ):
        out.lines(
            """
            start, stop, full_start, full_stop = np.int64(1 << 62), np.int64(0), np.int64(0), np.int64(1 << 62)
            for lane in range(rows):
                here, end = np.int64(element(low, lane)), np.int64(element(high, lane))
                if here < end:
                    start, stop = min(start, here), max(stop, end)
                full_start, full_stop = max(full_start, here), min(full_stop, end)
            """
        )
        whole = "full_start <= start and start + count <= full_stop"
        weighing = walk.weighing(shape, whole, "inside", "start, low, high")
        with out.block("while start < stop"):
            out.line(f"count = min(np.int64({shape.tile_kv}), stop - start)")
            walk.tile(out, shape, "start", "", weighing)
            out.line("start += count")


def emit_piece_walk(out: SourceWriter, shape: TileShape, walk: Walk) -> None:
    """attend_pieces: the pieces of a row block, as gen.rows.passes.TileTable lists them.

    Full, masked and gathered pieces are all provided for, used or not: then all masks of a tile size share one text.
    """
    tables = "piece, first, last, lane_bits, cols, limit"
    with (
        out.function(
            FUNCTION,
            f"{walk.name}_pieces_{shape.suffix}({walk.sources}, {tables}, {walk.state})",
            "Pieces first .. last - 1, each (start, step, count, mask); keys at or beyond limit are left out.",
        ),
        out.block("for number in range(first, last)"),
    ):
        out.line("start, step = element(piece, 4 * number), element(piece, 4 * number + 1)")
        out.line("keys, mask = element(piece, 4 * number + 2), element(piece, 4 * number + 3)")
        with out.block("while step == 0 and keys > 0 and element(cols, start + keys - 1) >= limit"):
            out.line("keys -= 1")
        with out.block("if step > 0"):
            out.line("keys = min(keys, (limit - start + step - 1) // step)")
        with out.block(f"for done in range(0, keys, {shape.tile_kv})"):
            out.line(f"count = min(np.int64({shape.tile_kv}), keys - done)")
            weighing = walk.weighing(shape, "mask < 0", "bits", "advance(lane_bits, mask + done)")
            with out.block("if step == 0"):
                walk.gathered(out, shape, weighing)
                out.line("continue")
            walk.tile(out, shape, "(start + done * step)", "step * ", weighing)


def _emit_tile(out: SourceWriter, shape: TileShape, start: str, step: str, soften: str) -> None:
    """Scores, softmax and weighted values of ``count`` keys from number ``start`` on, ``step`` rows apart."""
    keys = f"advance(k, {start} * k_stride), {step}k_stride, k_dim"
    values = f"advance(v, {start} * v_stride), {step}v_stride, v_dim"
    stage_values = f"stage_{shape.suffix}({values}, count, {shape.value_dim}, staged)"
    if shape.staged:
        out.line(f"stage_{shape.suffix}({keys}, count, {shape.head_dim}, staged)")
        _emit_products(out, shape, f"staged, {shape.head_dim}, 1", soften, [stage_values], _staged_values(shape))
        return
    place = [
        f"values, apart, unit = {values}",
        f"if apart != {shape.value_dim}:  # rows a power of two apart share a few cache sets, and are read many times",
        f"    {stage_values}",
        f"    values, apart, unit = {_staged_values(shape)}",
    ]
    _emit_products(out, shape, keys, soften, place, "values, apart, unit")


def _emit_gathered_tile(out: SourceWriter, shape: TileShape, soften: str) -> None:
    """As _emit_tile, for keys listed one by one."""
    listed = "advance(cols, start + done), count"
    out.line(f"gather_{shape.suffix}(k, k_stride, k_dim, {listed}, {shape.head_dim}, staged)")
    gather_values = f"gather_{shape.suffix}(v, v_stride, v_dim, {listed}, {shape.value_dim}, staged)"
    _emit_products(out, shape, f"staged, {shape.head_dim}, 1", soften, [gather_values], _staged_values(shape))


def _staged_values(shape: TileShape) -> str:
    return f"staged, {shape.value_dim}, 1"


def _emit_products(
    out: SourceWriter, shape: TileShape, keys: str, soften: str, place_values: list[str], values: str
) -> None:
    """The two products around the softmax."""
    out.line(f"multiply_keys_{shape.suffix}({keys}, count, queries, scores)")
    out.lines(soften)
    for line in place_values:
        out.line(line)
    out.line(f"multiply_values_{shape.suffix}({values}, count, scores, alpha, total)")


KEY_ARRAYS = (("k_head", "k_at[2]", "k_at[3]"), ("v_head", "v_at[2]", "v_at[3]"))
ATTEND = Walk(
    "attend", KEYS, KEY_ARRAYS, "queries, scores, maxima, sums, alpha, total, staged", "soften",
    "scores, count, maxima, sums, alpha", _emit_tile, _emit_gathered_tile,
)  # fmt: skip
