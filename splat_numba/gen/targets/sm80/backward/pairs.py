"""A tile of a kernel of keys whose warps are paired: two have the same 32 rows, and one sum each.

The first makes weights, P = exp2(score - lse), and dv; the second dP, then slopes with the first one's weights, and dk.
Both multiply twice, by the same statements at other places: left k or v, right q or dout, then dout or q. So what a
warp reads of a right tile serves 32 rows in place of 16: a tile of 64 x 64 of head_dim 128 takes 176 KiB of shared
memory's reads and writes, and 288 where each warp makes both sums of 16 rows. Weights go through shared memory rounded,
as products take them; a lane of the second warp reads what the same lane of the first one wrote.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import (
    ATOM,
    LANE_COLUMNS,
    LANE_ROWS,
    LEFT_WORDS,
    MATRIX,
    SUMS,
    log2,
    sums_of,
)
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES
from splat_numba.gen.targets.sm80.backward.keeping import emit_keep
from splat_numba.gen.targets.sm80.backward.shape import atoms_of, row_threads, total_registers
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.products import emit_helpers, emit_row_product, emit_sum_product
from splat_numba.gen.targets.sm80.shape import CHUNK
from splat_numba.gen.targets.sm80.softmax import emit_masks
from splat_numba.gen.targets.sm80.tiles import OPAQUE_THREAD, RowProduct, SumProduct, of_atoms
from splat_numba.gen.targets.sm80.walk import LEFT, RIGHT, TRANSPOSED, Operand, emit_lane_places, emit_place_in_warp

SIXTEEN = sums_of(ATOM)  # numbers of a lane in sixteen columns


def of_pair(number: int) -> str:
    """A test that all lanes of a warp answer alike: whether it is the first of its pair, 0, or the second, 1."""
    return f"ptx.any_lane(second_of_pair(ptx.thread_index())) == u32({number})"


def thread_of_rows(traits: GradientTraits) -> str:
    """This thread's number among those that have rows of their own."""
    return f"u32({OPAQUE_THREAD} & u32({row_threads(traits) - 1}))"


def paired_arrays(traits: GradientTraits) -> dict[str, int]:
    """Registers of an atom, by name: scores and weights, or dP and slopes; dv, or dk."""
    return {"score": sums_of(traits.boxes.tile_kv), "total": total_registers(traits.boxes.head_dim)}


def emit_paired_steps(out: SourceWriter, traits: GradientTraits) -> None:
    """In a tile: both products, and between them what differs. Nobody writes weights before the next tile's barrier."""
    atoms = atoms_of(traits)
    scores, totals = of_atoms("score", atoms), of_atoms("total", atoms)
    out.line("second = second_of_pair(ptx.thread_index())")
    out.line("left, right, _, _ = places(u32(base + LEFT_2 * second), u32(tile + RIGHT_2 * second))")
    wrapped(out, "multiply", (*scores, "left", "right"))
    out.lines(
        f"""
        thread = {thread_of_rows(traits)}
        row, column = place_in_warp(thread)
        levels = u32(tile + LEVELS + u32({LEVEL_BYTES}) * column)
        weights = u32(base + WEIGHTS + u32({CHUNK}) * thread)
        """
    )
    with out.block(f"if {of_pair(0)}"):
        for name in scores:
            out.line(f"weigh({name}, scale_log2, levels)")
        emit_masks(out, traits.walked, [scores])
        for atom, name in enumerate(scores):
            out.line(f"give_weights({name}, {_of_atom(traits, atom)})")
    out.line("ptx.block_barrier()  # weights are there")
    with out.block(f"if {of_pair(1)}"):
        for atom, name in enumerate(scores):
            out.line(f"make_slopes({name}, {_of_atom(traits, atom)}, levels)")
        emit_masks(out, traits.walked, [scores])
        emit_keep(out, traits, scores)
    out.line("second = second_of_pair(ptx.thread_index())")
    out.line("columns, _, _ = places_of_columns(base, u32(tile + RIGHT_2 * u32(u32(1) - second)))")
    wrapped(out, "add", (*totals, *scores, "columns"))


def _of_atom(traits: GradientTraits, atom: int) -> str:
    return f"u32(weights + u32({_steps_bytes(traits) * atom}))" if atom else "weights"


def _steps_bytes(traits: GradientTraits) -> int:
    """Between an atom's weights and the next one's."""
    return CHUNK * row_threads(traits) * traits.boxes.tile_kv // ATOM


def emit_paired(out: SourceWriter, traits: GradientTraits) -> None:
    """The functions that it calls."""
    boxes, atoms = traits.boxes, atoms_of(traits)
    scores, totals = of_atoms("score", atoms), of_atoms("total", atoms)
    with device_function(out, "second_of_pair", ("thread",), "0 for the first warp of its pair, 1 for the second."):
        out.line(f"return u32(thread >> u32({log2(row_threads(traits))}))")
    first = {"left": Operand(LEFT, "base", boxes.head_dim), "right": Operand(RIGHT, "tile", boxes.head_dim)}
    text = "Where a lane's rows of the first matrices of operands begin; its row and column of scores."
    emit_lane_places(out, "places", first, atoms, text, thread_of_rows(traits))
    last = {"columns": Operand(TRANSPOSED, "tile", boxes.head_dim)}
    text = "The same of what weights or slopes are multiplied with."
    emit_lane_places(out, "places_of_columns", last, atoms, text, thread_of_rows(traits))
    emit_place_in_warp(out, atoms)
    emit_helpers(out, boxes)
    texts = ("Scores, or dP, of a warp's rows with a right tile's.", "Sixteen numbers of each row and column.")
    emit_row_product(
        out, RowProduct("multiply", scores, "left", "right", boxes.tile_kv, boxes.head_dim, texts), boxes
    )  # fmt: skip
    texts = ("Weights, or slopes, of a warp's rows times a right tile.", "Of sixteen columns; rounded, two a word.")
    emit_sum_product(out, SumProduct("add", totals, scores, "right", boxes.tile_kv, boxes.head_dim, texts), boxes)
    _emit_give(out, traits)
    _emit_slopes(out, traits)


def _emit_give(out: SourceWriter, traits: GradientTraits) -> None:
    """As words of the next product's left operand, four of sixteen columns."""
    step = CHUNK * row_threads(traits)
    with device_function(out, "give_weights", ("score", "to"), "Rounded, to the warp that makes slopes."):
        for i in range(traits.boxes.tile_kv // ATOM):
            out.line(f"give_sixteen({SIXTEEN * i}, score, u32(to + u32({step * i})))")
    with device_function(out, "give_sixteen", ("first", "score", "to"), "Those of sixteen columns."):
        for i in range(LEFT_WORDS):
            pair = ", ".join(f"score[first + {LANE_COLUMNS * i + x}]" for x in range(LANE_COLUMNS))
            out.line(f"word_{i} = ptx.pack_{traits.boxes.dtype}({pair})")
        out.line(f"ptx.store_shared_words4(to, {', '.join(f'word_{i}' for i in range(LEFT_WORDS))}, u32(1))")


def _emit_slopes(out: SourceWriter, traits: GradientTraits) -> None:
    """levels: of the thread's first column."""
    step, parameters = CHUNK * row_threads(traits), ("slope", "weights", "levels")
    with device_function(out, "make_slopes", parameters, "dP becomes slopes, with the weights that are given."):
        for i in range(traits.boxes.tile_kv // ATOM):
            at = f"u32(weights + u32({step * i})), u32(levels + u32({ATOM * LEVEL_BYTES * i}))"
            out.line(f"slopes_of_sixteen({SIXTEEN * i}, slope, {at})")
    with device_function(out, "slopes_of_sixteen", ("first", *parameters), "Those of sixteen columns."):
        out.line(f"{', '.join(f'word_{i}' for i in range(LEFT_WORDS))} = ptx.load_shared_words4(weights)")
        for eight in range(ATOM // MATRIX):
            for x in range(LANE_COLUMNS):
                at = f"levels + u32({LEVEL_BYTES * (MATRIX * eight + x)})"
                out.line(f"_, change_{x} = ptx.load_shared_reals2(u32({at}))")
            for row in range(LANE_ROWS):
                out.line(f"weight_0, weight_1 = ptx.unpack_{traits.boxes.dtype}(word_{LANE_ROWS * eight + row})")
                for x in range(LANE_COLUMNS):
                    at = f"slope[first + {SUMS * eight + LANE_COLUMNS * row + x}]"
                    out.line(f"{at} = weight_{x} * ({at} - change_{x})")
