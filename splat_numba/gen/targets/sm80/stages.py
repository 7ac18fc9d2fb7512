"""An item's tiles of keys and values: what is fetched of each, and what is made of it."""

from __future__ import annotations

from contextlib import nullcontext

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import LISTED, TILE, TOKEN_OF_ROW, TOKEN_OF_TILE
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.products import (
    emit_helpers,
    emit_row_product,
    emit_sum_product,
    in_reals,
    in_three,
    kind_of_columns,
)
from splat_numba.gen.targets.sm80.repair import emit_repair
from splat_numba.gen.targets.sm80.shape import CHUNK, atoms_of, shared_layout, threads_of
from splat_numba.gen.targets.sm80.softmax import emit_masks, knows_status, skips, some_kept
from splat_numba.gen.targets.sm80.standing import emit_call, emit_pack, emit_standing, emit_words, stands
from splat_numba.gen.targets.sm80.tiles import (
    Load,
    RowProduct,
    SumProduct,
    of_atoms,
    of_stages,
)
from splat_numba.gen.targets.sm80.walk import (
    LEFT,
    RIGHT,
    Operand,
    Walk,
    emit_keep_note,
    emit_lane_places,
    emit_place_in_warp,
    emit_walk,
)

PLACES = "queries, keys, values, row, column = places(base, tile)"


def emit_stages(out: SourceWriter, traits: Traits) -> None:
    """The loop ``attend``, and what it calls between copies and products."""
    text = "All tiles of a row block: while one is computed the next is fetched."
    walk = Walk(
        "attend", text, arguments(traits), traits, threads_of(traits), lambda out: _emit_fetch(out, traits),
        "attend_tile", _tile_parameters(traits),
    )  # fmt: skip
    emit_walk(out, walk)
    _emit_tile(out, traits)
    size = ITEMSIZE[traits.dtype]
    operands = {
        "queries": Operand(LEFT, "base + QUERIES", traits.head_dim, size),
        "keys": Operand(RIGHT, "tile", traits.head_dim, size),
        "values": Operand(kind_of_columns(traits), "tile + VALUES", traits.value_dim, size),
    }
    text = "Where a lane's rows of the first matrices of queries, keys and values begin; its row and column of scores."
    emit_lane_places(out, "places", operands, atoms_of(traits), text)
    emit_place_in_warp(out, atoms_of(traits))
    _emit_notes(out)


def _state(traits: Traits) -> tuple[str, ...]:
    return (*of_atoms("score total peak added", atoms_of(traits)), "rescale")


def arguments(traits: Traits) -> tuple[str, ...]:
    """Of ``attend``, which goes through the tiles of a row block."""
    bits = ("bits",) * traits.partial
    return ("block_at", "piece", "views", *bits, "k_row", "v_row", "base", "note", "scale_log2",
            *_state(traits), "box_shift", "limit")  # fmt: skip


def loads_of(traits: Traits) -> tuple[Load, Load, Load]:
    """Of queries, keys and values. A pass without masks and lengths has only tiles all of whose keys there are."""
    threads, guarded, size = threads_of(traits), traits.partial or traits.ragged, ITEMSIZE[traits.dtype]
    stepped = not in_reals(traits)
    return (
        Load("queries", traits.tile_q, traits.head_dim, threads, LISTED, TOKEN_OF_ROW, True, True, size),
        Load("keys", traits.tile_kv, traits.head_dim, threads, TILE, TOKEN_OF_TILE, guarded, True, size, stepped),
        Load("values", traits.tile_kv, traits.value_dim, threads, TILE, TOKEN_OF_TILE, guarded, False, size, stepped),
    )


def loaded(traits: Traits) -> list[tuple[Load, list[str]]]:
    """With the places in shared memory that each fills."""
    size = shared_layout(traits).stage_bytes
    places = (
        ["base + QUERIES"],
        of_stages("base + TILES", size, traits.stages),
        of_stages("base + TILES + VALUES", size, traits.stages),
    )
    return list(zip(loads_of(traits), places, strict=True))


def emit_products(out: SourceWriter, traits: Traits) -> None:
    """Scores of a tile, and weights times its values."""
    score, total = (of_atoms(name, atoms_of(traits)) for name in ("score", "total"))
    emit_helpers(out, traits)
    texts = ("Scores of a warp's rows with a tile's keys.", "Sixteen numbers of each row and key.")
    product = RowProduct(
        "multiply_keys", score, "queries", "keys", traits.tile_kv, traits.head_dim, texts, shared_layout(traits).rests
    )
    emit_row_product(out, product, traits)
    if in_three(traits):
        emit_repair(out, product)
    texts = (
        "Weights of a warp's rows times a tile's values.",
        "Sixteen keys; their weights in the arrays' dtype, two a word.",
    )
    weights = of_atoms("word", atoms_of(traits)) if stands(traits) else score
    sums = SumProduct(
        "multiply_values", total, weights, "values", traits.tile_kv, traits.value_dim, texts, packed=stands(traits)
    )
    emit_sum_product(out, sums, traits)
    if stands(traits):
        emit_standing(out, traits)


def _emit_fetch(out: SourceWriter, traits: Traits) -> None:
    """What is wholly beyond the length is not fetched."""
    where = ", ".join(TILE)
    with out.block("if corner < limit") if traits.ragged else nullcontext():
        out.line("k_at, v_at = keys_and_values(note)")
        out.line(f"copy_keys(k_at, k_row, u32(fetched + stage), {where})")
        out.line(f"copy_values(v_at, v_row, u32(fetched + VALUES + stage), {where})")


def _tile_parameters(traits: Traits) -> tuple[str, ...]:
    masks = ("mask",) * knows_status(traits)
    table = ("bits",) * traits.partial
    lengths = ("corner", "inner_step", "limit") * traits.ragged
    return (*masks, *table, *lengths, "base", "tile", "scale_log2", *_state(traits))


def _emit_tile(out: SourceWriter, traits: Traits) -> None:
    parameters = _tile_parameters(traits)
    text = "One tile: scores, weights, and its values."
    with device_function(out, "attend_tile", parameters, text):
        out.line(PLACES)
        if skips(traits):
            with out.block(f"if {some_kept()}"):
                _emit_steps(out, traits)
        else:
            _emit_steps(out, traits)


def _emit_notes(out: SourceWriter) -> None:
    """Which item it is, and where its keys and values are."""
    emit_keep_note(out, "keep_notes", "For each warp.", ("rank", "head", "entry"), ("k_at", "v_at"))
    with device_function(out, "keys_and_values", ("note",), "Where keys and values of the item's head are."):
        out.lines(
            f"""
            k_low, k_high, v_low, v_high = ptx.load_shared_words4(u32(note + u32({CHUNK})))
            return u64(u64(k_low) | (u64(k_high) << u64(32))), u64(u64(v_low) | (u64(v_high) << u64(32)))
            """
        )


def _emit_steps(out: SourceWriter, traits: Traits) -> None:
    scores, totals = (of_atoms(name, atoms_of(traits)) for name in ("score", "total"))
    if not stands(traits):
        _emit_weights(out, traits, scores)
        wrapped(out, "multiply_values", (*totals, *scores, "values"))
        return
    emit_words(out, traits)
    emit_call(out, traits)
    with out.block("if settled == u32(0)"):
        out.line(PLACES)  # again, so that they are not kept in registers until here
        _emit_weights(out, traits, scores)
        emit_pack(out, traits)
    wrapped(out, "multiply_values", (*totals, *of_atoms("word", atoms_of(traits)), "values"))


def _emit_weights(out: SourceWriter, traits: Traits, scores: tuple[str, ...]) -> None:
    """Of the scores that count, relative to peaks that are brought up to them."""
    wrapped(out, "multiply_keys", (*scores, "queries", "keys"))
    if in_three(traits):
        wrapped(out, "repair_scores", (*scores, "queries", "keys"))
    if traits.negate:
        for name in scores:
            out.line(f"negate({name})")
    emit_masks(out, traits, [scores])
    for atom in range(atoms_of(traits)):
        out.line(f"softmax(score_{atom}, scale_log2, peak_{atom}, added_{atom}, rescale)")
        out.line(f"bring_to_peak(total_{atom}, rescale)")
