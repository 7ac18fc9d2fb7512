"""A kernel of keys whose warps are paired: two have the same 32 rows, make weights and slopes of half a tile's columns
each, and then one gradient each of all columns.

The first warp has dv, the second dk: so the sums take as many registers as both of sixteen rows would, and what a warp
reads of a right tile serves 32 rows. A tile of 64 x 64 of head_dim 128 takes 208 KiB of shared memory's reads and
writes, and 288 where each warp makes both sums of sixteen rows. The first gives its half's slopes to the second, which
gives its weights, rounded, as words of the last product's left operand: a lane reads what the same lane of the other
warp wrote. Meanwhile each warp multiplies its own half.
"""

from __future__ import annotations

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LEFT_WORDS, log2, sums_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.backward.shape import atoms_of, columns_at_once, row_threads
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.shape import CHUNK, row_bytes
from splat_numba.gen.targets.sm80.tiles import OPAQUE_THREAD, SumProduct, emit_sum_product, of_atoms
from splat_numba.gen.targets.sm80.walk import TRANSPOSED, Operand, emit_lane_places

SIXTEEN = sums_of(ATOM)  # numbers of a lane in sixteen columns
NUMBER_OF_PAIR = "second_of_pair(ptx.thread_index())"


def of_pair(number: int) -> str:
    """A test that all lanes of a warp answer alike: whether it is the first of its pair, 0, or the second, 1."""
    return f"ptx.any_lane({NUMBER_OF_PAIR}) == u32({number})"


def thread_of_rows(traits: GradientTraits) -> str:
    """This thread's number among those that have rows of their own."""
    return f"u32({OPAQUE_THREAD} & u32({row_threads(traits) - 1}))" if traits.paired else OPAQUE_THREAD


def emit_shared_sums(out: SourceWriter, traits: GradientTraits) -> None:
    """In a tile, when weights and slopes are made. Nobody writes what is given before the next tile's barrier."""
    atoms, half = atoms_of(traits), columns_at_once(traits) * row_bytes(traits.boxes.head_dim)
    scores, slopes, totals = (of_atoms(name, atoms) for name in ("score", "slope", "total"))
    places = [f"u32(given + u32({_atom_bytes(traits) * atom}))" for atom in range(atoms)]
    warps = f"u32({_atom_bytes(traits) * atoms})"  # bytes from what one warp of a pair gives to what the other one does
    out.lines(
        f"""
        ptx.warp_barrier()  # so that nothing of what follows is made yet, and kept in registers
        second = {NUMBER_OF_PAIR}
        given = u32(base + GIVEN + {warps} * second + u32({CHUNK}) * {thread_of_rows(traits)})
        """
    )
    with out.block(f"if {of_pair(0)}"):
        for slope, to in zip(slopes, places, strict=True):
            out.line(f"give_half({slope}, {to})")
    with out.block(f"if {of_pair(1)}"):
        for score, slope, to in zip(scores, slopes, places, strict=True):
            out.line(f"give_half({score}, {to})")
            out.line(f"keep_half({score}, {slope})")
    out.lines(
        f"""
        second = {NUMBER_OF_PAIR}
        other = u32(u32(1) - second)
        columns, _, _ = places_of_columns(base, u32(tile + RIGHT_2 * other))
        """
    )
    wrapped(out, "add_own", (*totals, *scores, f"u32(columns + u32({half}) * second)"))
    out.line(f"given = u32(base + GIVEN + {warps} * other + u32({CHUNK}) * {thread_of_rows(traits)})")
    out.line("ptx.block_barrier()  # what the other warp gives is there")
    wrapped(out, "add_given", (*totals, *places, f"u32(columns + u32({half}) * other)"))


def _atom_bytes(traits: GradientTraits) -> int:
    """Of an atom's numbers of half a tile, of all lanes that have rows of their own."""
    return CHUNK * row_threads(traits) * columns_at_once(traits) // ATOM


def emit_sums(out: SourceWriter, traits: GradientTraits) -> None:
    """The functions that emit_shared_sums() calls."""
    boxes, atoms, columns = traits.boxes, atoms_of(traits), columns_at_once(traits)
    totals, step = of_atoms("total", atoms), CHUNK * row_threads(traits)
    with device_function(out, "second_of_pair", ("thread",), "0 for the first warp of its pair, 1 for the second."):
        out.line(f"return u32(thread >> u32({log2(row_threads(traits))}))")
    operand = Operand(TRANSPOSED, "tile", boxes.head_dim, ITEMSIZE[boxes.dtype])
    text = "The same of what weights or slopes are multiplied with."
    emit_lane_places(out, "places_of_columns", {"columns": operand}, atoms, text, thread_of_rows(traits))
    with device_function(out, "give_half", ("numbers", "to"), "Rounded, to the other warp of the pair."):
        for i in range(columns // ATOM):
            out.line(f"give_sixteen({SIXTEEN * i}, numbers, u32(to + u32({step * i})))")
    with device_function(out, "give_sixteen", ("first", "numbers", "to"), "Those of sixteen columns."):
        for i in range(LEFT_WORDS):
            pair = ", ".join(f"numbers[first + {LANE_COLUMNS * i + x}]" for x in range(LANE_COLUMNS))
            out.line(f"word_{i} = ptx.pack_{boxes.dtype}({pair})")
        out.line(f"ptx.store_shared_words4(to, {', '.join(f'word_{i}' for i in range(LEFT_WORDS))}, u32(1))")
    function = device_function(out, "keep_half", ("score", "slope"), "Slopes are what this warp multiplies.")
    with function, out.block(f"for i in range({sums_of(columns)})"):
        out.line("score[i] = slope[i]")
    texts = ("Weights or slopes of its own half times a right tile.", "Of sixteen columns; rounded, two a word.")
    dim, scores = boxes.head_dim, of_atoms("score", atoms)
    emit_sum_product(out, SumProduct("add_own", totals, scores, "right", columns, dim, texts), boxes.dtype)
    texts = ("The same of the half that the other warp made.", "Of sixteen columns.")
    given = SumProduct("add_given", totals, of_atoms("given", atoms), "right", columns, dim, texts, step, as_words=True)
    emit_sum_product(out, given, boxes.dtype)
