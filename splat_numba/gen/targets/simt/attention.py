"""The forward text: parameters, an item and its tiles; the functions that it calls stand in the other files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import (
    ITEM,
    LISTED,
    POINTERS,
    STRIDES,
    TILE,
    TOKEN_OF_ROW,
    TOKEN_OF_TILE,
    emit_header,
    emit_item,
    emit_length,
    emit_operands,
    emit_token,
)
from splat_numba.gen.targets.gpu.functions import device_function, emit_shared_start, wrapped
from splat_numba.gen.targets.gpu.results import emit_place_of_rest, rest_pointer
from splat_numba.gen.targets.simt import tiles
from splat_numba.gen.targets.simt.arithmetic import emit_arithmetic
from splat_numba.gen.targets.simt.results import emit_epilogue, resumed, stored
from splat_numba.gen.targets.simt.shape import (
    CHUNK,
    LANES_OF_ROW,
    Numbers,
    share_of,
    shared_bytes,
    shared_layout,
    sums,
    words_per_row,
)
from splat_numba.gen.targets.simt.softmax import emit_softmax

ENTRY = "attention"
COUNTS = (*ITEM, "heads_q", "group", "seq_q", "seq_kv", "box_shift", "head_steps", "key_steps")
WHERE = TILE


def parameters(traits: Traits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of all parameters; the scale of float64 is its bits, as no parameter is of that kind."""
    scale = ("scale", "f") if Numbers(traits.dtype).computed == "float32" else ("scale_bits", "l")
    return (
        *((name, "l") for name in (*POINTERS, *rest_pointer(traits), *STRIDES)),
        scale,
        *((name, "r") for name in COUNTS),
    )


def attention_text(traits: Traits, arch: str) -> EmittedText:
    """The text of the kernel with these traits for an architecture, named after shape and type."""
    name = f"attention_simt_{arch}_d{traits.head_dim}_{traits.dtype}_{traits.tile_q}x{traits.tile_kv}"
    entry = Entry(
        ENTRY, parameters(traits), share_of(traits).threads, traits.blocks_per_multiprocessor, shared_bytes(traits),
        arch=arch,
    )  # fmt: skip
    return EmittedText(name, entry, render_attention, (traits,))


def render_attention(traits: Traits) -> str:
    """Python source of the kernel ``attention`` that serves every mask of these traits. Pure and deterministic."""
    out = SourceWriter()
    _emit_head(out, traits)
    _emit_entry(out, traits)
    _emit_tiles(out, traits)
    _emit_tile(out, traits)
    _emit_products(out, traits)
    emit_softmax(out, traits)
    emit_epilogue(out, traits)
    emit_item(out)
    return out.text()


def _emit_head(out: SourceWriter, traits: Traits) -> None:
    """Docstring, imports, places in shared memory, and arithmetic."""
    numbers, share, layout = Numbers(traits.dtype), share_of(traits), shared_layout(traits)
    quotes = '"' * 3
    out.lines(
        f"""
        {quotes}Sparse attention on any GPU, generated for every mask that tables of boxes describe.

        head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}, computed in {numbers.computed};
        {traits.tile_q} queries x {traits.tile_kv} keys a tile, by {share.threads} threads: {LANES_OF_ROW} lanes share
        {share.rows} rows; of each a lane has every {LANES_OF_ROW}th key and every {LANES_OF_ROW}th chunk of results.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        """
    )
    emit_arithmetic(out, numbers)
    out.line()
    out.line()
    out.lines(
        f"""
        # Shared memory, in bytes from its aligned start. Keys and their values take the tile in turn.
        QUERIES, TILE, WEIGHTS = u32({layout.queries}), u32({layout.tile}), u32({layout.weights})
        """
    )


def emit_start(out: SourceWriter, threads_rows: int) -> None:
    """Where shared memory begins, and which rows and columns are this thread's."""
    emit_shared_start(out, "base", CHUNK)
    out.lines(
        f"""
        thread = ptx.thread_index()
        row = u32(u32(thread // u32({LANES_OF_ROW})) * u32({threads_rows}))
        column = u32(thread & u32({LANES_OF_ROW - 1}))
        """
    )


def _emit_entry(out: SourceWriter, traits: Traits) -> None:
    numbers, share, arrays = Numbers(traits.dtype), share_of(traits), ("peak", "added", "total")
    scale = "scale" if numbers.computed == "float32" else "scale_bits"
    emit_header(out, ENTRY, ((*POINTERS, *rest_pointer(traits)), STRIDES, (scale,), COUNTS))
    with out.suite():
        emit_start(out, share.rows)
        for name, size in zip(arrays, (1, 1, share.pieces * numbers.of_chunk), strict=True):
            out.line(f"{name} = cuda.local.array({share.rows * size}, dtype=np.{numbers.computed})")
        if scale != "scale":
            out.line("scale = double_of(scale_bits)")
        wrapped(out, "rank, head, entry = item_of_block", ("heads", *ITEM))
        out.lines(
            f"""
            rows_at = rows + u64({4 * GROUP_ROWS}) * u64(rank)
            row_at = rows_at + u64(4) * u64(row)
            """
        )
        emit_operands(out)
        out.lines(
            f"""
            out_at = out + u64(entry) * out_batch + u64(head) * out_head
            lse_at = lse + u64({numbers.size}) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
            load_queries(q_at, q_row, base + QUERIES, rows_at, seq_q)
            """
        )
        if traits.keeps_rest:
            emit_place_of_rest(out, traits)
        wrapped(out, "begin_rows", (*arrays, *(resumed(traits) if traits.resumes else ())))
        out.line("limit = seq_kv")
        if traits.ragged:
            emit_length(out, "limit", "seq_kv")
        wrapped(out, "attend", ("block + u64(32) * u64(rank)", *_arguments(traits)[1:]))
        wrapped(out, "store_rows", (*arrays, *stored(traits)))


def _arguments(traits: Traits) -> tuple[str, ...]:
    """Of ``attend``, which goes through the tiles of a row block."""
    bits = ("bits",) * traits.partial
    state = ("base", "row", "column", "scale", "peak", "added", "total")
    return ("block_at", "piece", "views", *bits, "k_at", "k_row", "v_at", "v_row", *state, "box_shift", "limit",
            "head_steps", "key_steps")  # fmt: skip


def _emit_tiles(out: SourceWriter, traits: Traits) -> None:
    text = "All tiles of a row block, a piece of neighbouring ones after the other."
    with device_function(out, "attend", _arguments(traits), text):
        numbers, share = Numbers(traits.dtype), share_of(traits)
        out.line(f"score = cuda.local.array({share.rows * share.keys}, dtype=np.{numbers.computed})")
        with walk(out, traits):
            if traits.ragged:
                with out.block("if corner < limit"):  # a tile's first key is its least
                    wrapped(out, "attend_tile", _tile_arguments(traits))
            else:
                wrapped(out, "attend_tile", _tile_arguments(traits))


@contextmanager
def walk(out: SourceWriter, traits: Traits) -> Iterator[None]:
    """Loops over the pieces of a row block and their tiles, whose first key is ``corner``; inside: one tile."""
    out.lines(
        """
        place = ptx.load_word(block_at + u64(12))
        end = ptx.load_word(block_at + u64(16))
        """
    )
    with out.block("while place < end"):
        out.lines(
            """
            view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
            offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
            corner = u32(offset + inner_step * c1 + outer_step * c2)
            """
        )
        if traits.partial:
            size = 4 * words_per_row(traits)
            out.line("status, mask, _, _ = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))")
            out.line(f"mask_at = bits + u64({size}) * (u64({GROUP_ROWS}) * u64(mask) + u64(row))")
        with out.block("while count > u32(0)"):
            yield
            out.line(f"corner = u32(corner + u32({traits.tile_kv}) * inner_step)")
            out.line("count = u32(count - u32(1))")
        out.line("place = u32(place + u32(1))")


def _tile_arguments(traits: Traits) -> tuple[str, ...]:
    masks = ("status", "mask_at") * traits.partial
    state = ("base", "row", "column", "scale", "score", "peak", "added", "total", "head_steps", "key_steps")
    return (*masks, *WHERE, "k_at", "k_row", "v_at", "v_row", *state)


def _emit_tile(out: SourceWriter, traits: Traits) -> None:
    """The rows of weights are of the warp that reads them, but values are of all warps."""
    numbers = Numbers(traits.dtype)
    where = ", ".join(WHERE)
    with device_function(out, "attend_tile", _tile_arguments(traits), "One tile: scores, weights, and its values."):
        out.lines(
            f"""
            queries = u32(base + QUERIES + row * u32({numbers.row_bytes(traits.head_dim)}))
            weights = u32(base + WEIGHTS + row * u32({numbers.row_bytes(traits.tile_kv)}))
            ptx.block_barrier()  # nobody reads the tile before any more
            load_keys(k_at, k_row, base + TILE, {where})
            ptx.block_barrier()  # the keys are there
            keys = u32(base + TILE + column * u32({numbers.row_bytes(traits.head_dim)}))
            multiply_keys(score, queries, keys, head_steps)
            ptx.block_barrier()  # nobody reads the keys any more
            load_values(v_at, v_row, base + TILE, {where})
            scale_scores(score, scale)
            """
        )
        if traits.partial:
            out.line("mask_scores(score, status, mask_at, column)")
        if traits.ragged:
            out.line(f"limit_scores(score, column, {where})")
        out.lines(
            f"""
            softmax(score, u32(weights + column * u32({numbers.size})), peak, added, total)
            ptx.block_barrier()  # values and weights are there
            add_values(total, weights, base + TILE, key_steps)
            """
        )


def _emit_products(out: SourceWriter, traits: Traits) -> None:
    numbers, share, dims = Numbers(traits.dtype), share_of(traits), (traits.head_dim, traits.value_dim)
    spare = sums(numbers, share.rows, share.keys, share.pieces) <= 64
    at_once = tiles.AT_ONCE[spare]
    emit_token(out)
    for what, rows, dim, where, token in (
        ("queries", GROUP_ROWS, dims[0], LISTED, TOKEN_OF_ROW),
        ("keys", traits.tile_kv, dims[0], TILE, TOKEN_OF_TILE),
        ("values", traits.tile_kv, dims[1], TILE, TOKEN_OF_TILE),
    ):
        tiles.emit_load(out, tiles.Load(what, rows, dim, where, token), numbers, share.threads, at_once)
    tiles.emit_chunk_of(out)
    text = "Scores of a thread's rows and keys: products of a chunk of their numbers at a time."
    tiles.emit_row_product(out, "multiply_keys", numbers, share, dims[0], text)
    text = "Weights times values: a chunk of a row's weights at a time."
    tiles.emit_sum_product(out, "add_values", numbers, share, (traits.tile_kv, dims[1]), "total", text)
