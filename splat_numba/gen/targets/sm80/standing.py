"""Weights of a whole tile relative to the peaks that stand, made while its scores are: nobody looks for the largest.

A row's peak may be any number that its scores are not far above. So where a tile has no mask, its scores become weights
relative to the peaks of the tiles before, 32 columns while the products of the next 32 are made. Weights are positive:
if what a thread adds up of them is small, each is. If it is not, or NaN, some lane of the warp has a new peak, and the
scores are made again, for the largest ones this time: as it is of a block's first tile, of others hardly ever.
"""

from __future__ import annotations

from splat_numba.gen.boxes.passes import SOME, Traits
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS, MATRIX, sum_at, words_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.softmax import LAG
from splat_numba.gen.targets.sm80.products import emit_row_product, in_reals
from splat_numba.gen.targets.sm80.shape import atoms_of, row_bytes
from splat_numba.gen.targets.sm80.softmax import COLUMNS, any_status
from splat_numba.gen.targets.sm80.tiles import RowProduct, of_atoms

# What a row without a peak has for one: finite scores then weigh infinitely, and -inf as always nothing.
LEAST_PEAK = "f32(-3.4028234663852886e38)"


def stands(traits: Traits) -> bool:
    """Whether a text makes weights so: three products of TF32 leave no registers for it."""
    return not in_reals(traits)


def emit_standing(out: SourceWriter, traits: Traits) -> None:
    """``weigh_at_once``, which tells whether the weights count, and what turns others into words."""
    columns, words = min(COLUMNS, traits.tile_kv), of_atoms("word", atoms_of(traits))
    parts = of_atoms("part", len(words))
    texts = ("Scores of a warp's rows with some of a tile's keys.", "Sixteen numbers of each row and key.")
    product = RowProduct("multiply_part", parts, "queries", "keys", columns, traits.head_dim, texts)
    _emit_at_once(out, traits, product)
    emit_row_product(out, product, traits)
    _emit_part(out, traits, columns)
    text = "Weights in the arrays' dtype, two a word."
    function = device_function(out, "pack_weights", ("first", "score", "word"), text)
    with function, out.block(f"for i in range(first, first + {words_of(columns)})"):
        out.line(f"word[i] = ptx.pack_{traits.dtype}(score[{LANE_COLUMNS} * i], score[{LANE_COLUMNS} * i + 1])")


def emit_words(out: SourceWriter, traits: Traits) -> None:
    """Arrays for what weights become."""
    for word in of_atoms("word", atoms_of(traits)):
        out.line(f"{word} = cuda.local.array({words_of(traits.tile_kv)}, dtype=np.uint32)")


def emit_call(out: SourceWriter, traits: Traits) -> None:
    """``settled``: whether the weights of the tile are there."""
    out.line("whole = u32(1)")
    if traits.partial:
        out.line(f"whole = u32(0) if {any_status(SOME)} else u32(1)")
    if traits.ragged:
        out.line("valid = valid_keys(corner, inner_step, limit)")
        out.line(f"whole = whole if valid == u32({traits.tile_kv}) else u32(0)")
    out.line("settled = u32(0)")
    with out.block("if whole != u32(0)"):
        factor = "-scale_log2" if traits.negate else "scale_log2"
        given = of_atoms("word peak added", atoms_of(traits))
        wrapped(out, "settled = weigh_at_once", (*given, "queries", "keys", factor))


def emit_pack(out: SourceWriter, traits: Traits) -> None:
    """What the other way leaves becomes words, too."""
    columns = min(COLUMNS, traits.tile_kv)
    for atom in range(atoms_of(traits)):
        for first in range(0, words_of(traits.tile_kv), words_of(columns)):
            out.line(f"pack_weights({first}, score_{atom}, word_{atom})")


def _emit_at_once(out: SourceWriter, traits: Traits, product: RowProduct) -> None:
    atoms, columns, pitch = range(len(product.sums)), product.columns, row_bytes(traits.head_dim)
    parameters = (*of_atoms("word peak added", len(atoms)), "queries", "keys", "factor")
    text = "A tile's weights relative to the peaks that stand; 1 if these serve, and sums then have them."
    with device_function(out, "weigh_at_once", parameters, text):
        for part in product.sums:
            out.line(f"{part} = cuda.local.array({words_of(columns) * LANE_COLUMNS}, dtype=np.float32)")
        for sums in of_atoms("sums", len(atoms)):
            out.line(f"{sums} = cuda.local.array({LANE_ROWS}, dtype=np.float32)")
            out.line(f"{', '.join(f'{sums}[{row}]' for row in range(LANE_ROWS))} = f32(0.0), f32(0.0)")
        for at in range(0, traits.tile_kv, columns):
            wrapped(out, "multiply_part", (*product.sums, "queries", f"u32(keys + u32({pitch * at}))"))
            for atom in atoms:
                out.line(f"weigh_part({words_of(at)}, part_{atom}, word_{atom}, peak_{atom}, sums_{atom}, factor)")
        out.line(f"total = {' + '.join(f'sums_{atom}[{row}]' for atom in atoms for row in range(LANE_ROWS))}")
        with out.block(f"if ptx.any_lane(u32(0) if total <= f32({2**LAG}) else u32(1)) != u32(0)"):
            out.line("return u32(0)")
        for atom in atoms:
            for row in range(LANE_ROWS):
                out.line(f"added_{atom}[{row}] += sums_{atom}[{row}]")
        out.line("return u32(1)")


def _emit_part(out: SourceWriter, traits: Traits, columns: int) -> None:
    """Words of weights begin at ``at``."""
    text = "Scores of some columns as weights, two a word, and their sums with ``sums``."
    with device_function(out, "weigh_part", ("at", "part", "word", "peak", "sums", "factor"), text):
        for row in range(LANE_ROWS):
            out.line(f"weigh_part_row({row}, part, peak, sums, factor)")
        with out.block(f"for i in range({words_of(columns)})"):
            pair = ", ".join(f"part[{LANE_COLUMNS} * i + {x}]" for x in range(LANE_COLUMNS))
            out.line(f"word[at + i] = ptx.pack_{traits.dtype}({pair})")
    with device_function(out, "weigh_part_row", ("row", "part", "peak", "sums", "factor"), "The same of one row."):
        out.line(f"safe = ptx.maximum(peak[row], {LEAST_PEAK})")
        out.line("weights = sums[row]")
        first, second = (sum_at("part", "row", x) for x in range(LANE_COLUMNS))
        with out.block(f"for j in range({columns // MATRIX})"):
            for one in (first, second):
                out.line(f"{one} = ptx.exp2({one} * factor - safe)")
            out.line(f"weights += {first} + {second}")
        out.line("sums[row] = weights")
