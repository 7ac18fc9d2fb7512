"""Copies of left and right tiles into shared memory, and the products of a gradient kernel over what stands there."""

from __future__ import annotations

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import LISTED, TILE, TOKEN_OF_LINE, TOKEN_OF_ROW, TOKEN_OF_TILE
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES, WRITTEN
from splat_numba.gen.targets.sm80.backward.pairs import thread_of_rows
from splat_numba.gen.targets.sm80.backward.shape import (
    MOST_COLUMNS,
    atoms_of,
    columns_at_once,
    shared_layout,
    threads_of,
)
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.products import emit_helpers, emit_row_product, emit_sum_product, kind_of_columns
from splat_numba.gen.targets.sm80.tiles import (
    ZEROS,
    Load,
    RowProduct,
    SumProduct,
    emit_load,
    emit_padding,
    of_atoms,
    of_stages,
)
from splat_numba.gen.targets.sm80.tiles import padded as dims_padded
from splat_numba.gen.targets.sm80.walk import LEFT, RIGHT, Operand, emit_lane_places, emit_place_in_warp


def padded(traits: GradientTraits) -> bool:
    """Whether the last step of some rows has a chunk that no load fills."""
    return dims_padded((traits.boxes.head_dim, traits.boxes.value_dim), ITEMSIZE[traits.boxes.dtype])


def _loaded(traits: GradientTraits) -> list[tuple[Load, list[str]]]:
    """Loads, with the places in shared memory that each fills. A pass without masks and lengths has only tiles all of
    whose tokens there are.
    """
    boxes, threads = traits.boxes, threads_of(traits)
    first, second, size = boxes.head_dim, boxes.value_dim, shared_layout(traits).stage_bytes
    guarded, stages, item = boxes.partial or traits.limited, boxes.stages, ITEMSIZE[boxes.dtype]
    loads = [(Load("left_1", boxes.tile_q, first, threads, LISTED, TOKEN_OF_ROW, True, True, item), ["base + LEFT_1"])]
    if traits.slopes:
        load = Load("left_2", boxes.tile_q, second, threads, LISTED, TOKEN_OF_ROW, True, True, item)
        loads.append((load, ["base + LEFT_2"]))
    token = _token_of_column(traits)
    load = Load("right_1", boxes.tile_kv, first, threads, TILE, token, guarded, True, item)
    loads.append((load, of_stages("base + TILES", size, stages)))
    load = Load("right_2", boxes.tile_kv, second, threads, TILE, token, guarded, True, item)
    return [*loads, (load, of_stages("base + TILES + RIGHT_2", size, stages))]


def _token_of_column(traits: GradientTraits) -> str:
    """An image's queries are neighbours of one line."""
    return TOKEN_OF_LINE if traits.kept == WRITTEN else TOKEN_OF_TILE


def emit_copies(out: SourceWriter, traits: GradientTraits) -> None:
    """A function of each array, and of the levels of a tile's queries."""
    loaded = _loaded(traits)
    for load, _ in loaded:
        emit_load(out, load)
    if padded(traits):
        emit_padding(out, loaded)
    _emit_copy_levels(out, traits)


def _emit_copy_levels(out: SourceWriter, traits: GradientTraits) -> None:
    """A lane has those of one query, or of none."""
    boxes, by_column = traits.boxes, traits.columns_are_queries
    queries, token = (boxes.tile_kv, _token_of_column(traits)) if by_column else (boxes.tile_q, TOKEN_OF_ROW)
    if queries > threads_of(traits):
        raise AssertionError(traits)
    text = "Begin to copy lse and delta of a tile's queries; 0 beyond the last."
    with device_function(out, "copy_levels", ("first", "to", *(TILE if by_column else LISTED)), text):
        out.lines(
            f"""
            place = ptx.thread_index()
            mine = u32(1) if place < u32({queries}) else u32(0)
            place = place if mine != u32(0) else u32(0)
            {token}
            inside = mine if token < limit else u32(0)
            at = u32(to + place * u32({LEVEL_BYTES}))
            ptx.async_copy(at, first + u64({LEVEL_BYTES}) * u64(token), inside)
            ptx.store_shared_words4(at, {ZEROS}, u32(mine - inside))
            """
        )


def emit_places(out: SourceWriter, traits: GradientTraits) -> None:
    """Where a lane's rows of the products' operands begin."""
    atoms = atoms_of(traits)
    first, last = operands_of(traits)
    text = "Where a lane's rows of the first matrices of operands begin; its row and column of scores."
    emit_lane_places(out, "places", first, atoms, text, thread_of_rows(traits))
    if last and not traits.paired:
        text = "The same of what weights and slopes are multiplied with."
        emit_lane_places(out, "places_of_columns", last, atoms, text)
    emit_place_in_warp(out, atoms)


def operands_of(traits: GradientTraits) -> tuple[dict[str, Operand], dict[str, Operand]]:
    """By name, those that are there before a tile's first product, and those that are made after its slopes, as
    registers are short between: of 128 x 32 of head_dim 64 20 bytes are spilled else on 8.0, of 64 x 32 of 192 and 128
    40 on 8.6. But of 64 keys x 64 queries of head_dim 128 112 bytes are spilled if they are made late, on 9.0, with
    masks; without masks none, on the chips where slopes are kept.
    """
    pairs, columns = _pair_operands(traits), _column_operands(traits)
    early = traits.columns_are_queries and atoms_of(traits) == 1 and traits.boxes.tile_kv == MOST_COLUMNS
    early = early and (traits.boxes.partial or traits.kept != WRITTEN)
    return ({**pairs, **columns}, {}) if early else (pairs, columns)


def _pair_operands(traits: GradientTraits) -> dict[str, Operand]:
    first, second, item = traits.boxes.head_dim, traits.boxes.value_dim, ITEMSIZE[traits.boxes.dtype]
    found = {"left_1": Operand(LEFT, "base + LEFT_1", first, item), "right_1": Operand(RIGHT, "tile", first, item)}
    if traits.slopes:
        found["left_2"] = Operand(LEFT, "base + LEFT_2", second, item)
        found["right_2"] = Operand(RIGHT, "tile + RIGHT_2", second, item)
    return found


def _column_operands(traits: GradientTraits) -> dict[str, Operand]:
    places = {"dv": ("columns_2", "tile + RIGHT_2"), traits.of_slopes: ("columns_1", "tile")}
    kind, item = kind_of_columns(traits.boxes), ITEMSIZE[traits.boxes.dtype]
    return {places[name][0]: Operand(kind, places[name][1], dim, item) for name, dim in traits.dims.items()}


def emit_products(out: SourceWriter, traits: GradientTraits) -> None:
    """Scores and dP of a tile; weights and slopes times what is right."""
    boxes, atoms, columns = traits.boxes, atoms_of(traits), columns_at_once(traits)
    score, slope = (of_atoms(name, atoms) for name in ("score", "slope"))
    emit_helpers(out, boxes)
    step = "Sixteen numbers of each row and column."
    texts = ("Scores of a warp's rows with a right tile's.", step)
    first = RowProduct("multiply_first", score, "left", "right", columns, boxes.head_dim, texts)
    emit_row_product(out, first, boxes)
    if traits.slopes:
        texts = ("dP of a warp's rows and a right tile's.", step)
        second = RowProduct("multiply_second", slope, "left", "right", columns, boxes.value_dim, texts)
        emit_row_product(out, second, boxes)
    if traits.paired:
        return
    for name, dim in traits.dims.items():
        what, values = ("Weights", score) if name == "dv" else ("Slopes", slope)
        texts = (f"{what} of a warp's rows times a right tile.", "Of sixteen columns; rounded, two a word.")
        product = SumProduct(f"add_{name}", of_atoms("total", atoms), values, "right", columns, dim, texts)
        emit_sum_product(out, product, boxes)
