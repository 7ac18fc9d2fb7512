"""A gradient kernel's text: an item and its heads, a tile, and what is done in registers.

P = exp2(score - lse), dS = P (dP - delta); dq or dk gains dS times the first right array, dv gains P times the second.
"""

from __future__ import annotations

from splat_numba.gen.boxes.passes import GROUP_ROWS
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.plans.backward import KEYS
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu import gradient_text
from splat_numba.gen.targets.gpu.addresses import (
    ITEM,
    LISTED,
    TILE,
    TOKEN_OF_ROW,
    TOKEN_OF_TILE,
    emit_header,
    emit_length,
    emit_token,
)
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES
from splat_numba.gen.targets.simt import tiles
from splat_numba.gen.targets.simt.arithmetic import emit_arithmetic
from splat_numba.gen.targets.simt.attention import WHERE, emit_start, walk
from splat_numba.gen.targets.simt.backward.results import emit_results, emit_store
from splat_numba.gen.targets.simt.backward.slopes import emit_slopes
from splat_numba.gen.targets.simt.backward.traits import GradientTraits, share_of, shared_bytes, shared_layout, sums
from splat_numba.gen.targets.simt.results import emit_load_number
from splat_numba.gen.targets.simt.shape import LANES_OF_ROW, Numbers, Share
from splat_numba.gen.targets.simt.softmax import emit_for_rows, emit_limit, emit_mask, emit_scale

ENTRY = "attention_gradients"
COUNTS = (*gradient_text.COUNTS, "first_steps", "second_steps", "pair_steps")


def scales(traits: GradientTraits) -> tuple[str, ...]:
    """The factors: of scores in base 2, and of gradients."""
    bits = "" if Numbers(traits.boxes.dtype).computed == "float32" else "_bits"
    return f"scale_log2{bits}", f"scale{bits}"


def gradients_text(traits: GradientTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits, named after shape and type."""
    boxes, kind = traits.boxes, "f" if Numbers(traits.boxes.dtype).computed == "float32" else "l"
    size = f"d{boxes.head_dim}_{boxes.dtype}_{boxes.tile_q}x{boxes.tile_kv}"
    places, strides = gradient_text.addresses(traits.dims)
    parameters = (
        *((name, "l") for name in (*places, *strides)), *((name, kind) for name in scales(traits)),
        *((name, "r") for name in COUNTS),
    )  # fmt: skip
    entry = Entry(ENTRY, parameters, share_of(traits).threads, boxes.blocks_per_multiprocessor, shared_bytes(traits),
                  arch=arch)  # fmt: skip
    return EmittedText(f"attention_{'_'.join(traits.dims)}_simt_{arch}_{size}", entry, render_gradients, (traits,))


def render_gradients(traits: GradientTraits) -> str:
    """Python source of the kernel that serves every mask of these traits. Pure and deterministic."""
    out, numbers, share = SourceWriter(), Numbers(traits.boxes.dtype), _share(traits)
    _emit_head(out, traits, numbers)
    _emit_entry(out, traits, numbers)
    _emit_work(out, traits)
    _emit_tile(out, traits, numbers)
    _emit_loads(out, traits, numbers)
    _emit_products(out, traits, numbers)
    emit_scale(out, share)
    if traits.boxes.partial:
        emit_mask(out, traits.boxes, share)
    if traits.limited:
        emit_limit(out, share)
    emit_slopes(out, traits, numbers)
    emit_results(out, traits)
    emit_load_number(out, numbers.computed)
    gradient_text.emit_owner_of_block(out)
    return out.text()


def _share(traits: GradientTraits) -> Share:
    """What a thread has, as the forward text's functions want it."""
    one = share_of(traits)
    return Share(one.rows, one.keys, 0, one.threads)


def _emit_head(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    boxes, layout, share, quotes = traits.boxes, shared_layout(traits), share_of(traits), '"' * 3
    rows, columns = ("keys", "queries") if traits.of == KEYS else ("queries", "keys")
    left, right = ("k and v", "q and dout") if traits.of == KEYS else ("q and dout", "k and v")
    out.lines(
        f"""
        {quotes}{" and ".join(traits.dims)} of sparse attention on any GPU, for every mask that boxes describe.

        head_dim {boxes.head_dim}, value_dim {boxes.value_dim}, {boxes.dtype}, computed in {numbers.computed};
        {boxes.tile_q} {rows} x {boxes.tile_kv} {columns} a tile, by {share.threads} threads; left are {left}, right
        {right}. {LANES_OF_ROW} lanes share {share.rows} rows; of each a lane has every {LANES_OF_ROW}th column.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        """
    )
    emit_arithmetic(out, numbers)
    places = {
        "LEFT_1": layout.left[0], "LEFT_2": layout.left[1], "RIGHT_1": layout.right[0], "RIGHT_2": layout.right[1],
        "WEIGHTS": layout.weights,
    }  # fmt: skip
    out.line()
    out.line()
    out.lines(
        f"""
        INFINITE = real(np.inf)
        # Shared memory, in bytes from its aligned start.
        {", ".join(places)} = {", ".join(f"u32({place})" for place in places.values())}
        """
    )


def _emit_entry(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    emit_header(out, ENTRY, (*gradient_text.addresses(traits.dims), scales(traits), COUNTS))
    with out.suite():
        emit_start(out, share_of(traits).rows)
        _emit_arrays(out, traits, numbers)
        if numbers.computed == "float64":
            out.line("scale_log2, scale = double_of(scale_log2_bits), double_of(scale_bits)")
        wrapped(out, "rank, owner, entry = item_of_block", ITEM)
        out.lines(
            f"""
            head, first, end, _ = ptx.load_words4(owners + u64(16) * u64(owner))
            rows_at = rows + u64({4 * GROUP_ROWS}) * u64(rank)
            row_at = rows_at + u64(4) * u64(row)
            block_at = block + u64(32) * u64(rank)
            """
        )
        out.line("left_1_at = left_1 + u64(entry) * left_1_batch + u64(head) * left_1_head")
        out.line("left_2_at = left_2 + u64(entry) * left_2_batch + u64(head) * left_2_head")
        out.line(f"levels_at = {gradient_text.levels_of('head')}")
        out.line("load_left_1(left_1_at, left_1_row, base + LEFT_1, rows_at, seq_left)")
        if traits.slopes:
            kept = ", levels_at" if _clears_left(traits) else ""
            out.line(f"load_left_2(left_2_at, left_2_row, base + LEFT_2, rows_at, seq_left{kept})")
        if not traits.columns_are_queries:
            emit_for_rows(out, share_of(traits).rows, "read_level", ("row_at", "levels_at", "seq_left", "lse", "delta"))
        out.line("limit = seq_right")
        if traits.limited:
            emit_length(out, "limit", "seq_right")
        with out.block("while first < end"):
            out.lines(
                """
                other = ptx.load_word(heads + u64(4) * u64(first))
                first = u32(first + u32(1))
                right_1_at = right_1 + u64(entry) * right_1_batch + u64(other) * right_1_head
                right_2_at = right_2 + u64(entry) * right_2_batch + u64(other) * right_2_head
                """
            )
            if traits.columns_are_queries:
                out.line(f"levels_at = {gradient_text.levels_of('other')}")
            wrapped(out, "work", _work_arguments(traits))
        emit_store(out, traits)


def _emit_arrays(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    """What a thread holds throughout."""
    share = share_of(traits)
    sizes = {"score": share.keys, **({"slope": share.keys} if traits.slopes else {}), "lse": 1, "delta": 1}
    if traits.columns_are_queries:
        del sizes["lse"], sizes["delta"]
    for name, size in sizes.items():
        out.line(f"{name} = cuda.local.array({share.rows * size}, dtype=np.{numbers.computed})")
    for name, dim in traits.dims.items():
        count = share.rows * -(-numbers.chunks(dim) // LANES_OF_ROW) * numbers.of_chunk
        out.line(f"{name}_total = cuda.local.array({count}, dtype=np.{numbers.computed})")
        with out.block(f"for i in range({count})"):
            out.line(f"{name}_total[i] = ZERO")


def _registers(traits: GradientTraits) -> tuple[str, ...]:
    levels = () if traits.columns_are_queries else ("lse", "delta")
    return ("score", *("slope",) * traits.slopes, *levels, *(f"{name}_total" for name in traits.dims))


def _work_arguments(traits: GradientTraits) -> tuple[str, ...]:
    """Of ``work``, which goes through the tiles of a row block and a head."""
    tables = ("block_at", "piece", "views", *("bits",) * traits.boxes.partial)
    rights = ("right_1_at", "right_1_row", "right_2_at", "right_2_row")
    levels = ("levels_at",) * traits.columns_are_queries
    steps = ("first_steps", "second_steps", "pair_steps")
    return (*tables, *rights, *levels, "base", "row", "column", "scale_log2", "box_shift", "limit", *steps,
            *_registers(traits))  # fmt: skip


def _tile_arguments(traits: GradientTraits) -> tuple[str, ...]:
    masks = ("status", "mask_at") * traits.boxes.partial
    skipped = {"block_at", "piece", "views", "bits", *WHERE}
    return (*masks, *WHERE, *(one for one in _work_arguments(traits) if one not in skipped))


def _emit_work(out: SourceWriter, traits: GradientTraits) -> None:
    function = device_function(out, "work", _work_arguments(traits), "All tiles of a row block with one head.")
    with function, walk(out, traits.boxes):
        if traits.limited:
            with out.block("if corner < limit"):
                wrapped(out, "work_on_tile", _tile_arguments(traits))
        else:
            wrapped(out, "work_on_tile", _tile_arguments(traits))


def _emit_tile(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    boxes, where = traits.boxes, ", ".join(WHERE)
    first, second, pair = (numbers.row_bytes(dim) for dim in (boxes.head_dim, boxes.value_dim, boxes.tile_kv))
    kept = ", levels_at" if _clears_right(traits) else ""
    with device_function(out, "work_on_tile", _tile_arguments(traits), "One tile: weights, slopes, gradients."):
        out.lines(
            f"""
            ptx.block_barrier()  # nobody reads the tiles before any more
            load_right_1(right_1_at, right_1_row, base + RIGHT_1, {where})
            load_right_2(right_2_at, right_2_row, base + RIGHT_2, {where}{kept})
            ptx.block_barrier()  # the tiles are there
            left = u32(base + LEFT_1 + row * u32({first}))
            right = u32(base + RIGHT_1 + column * u32({first}))
            weights = u32(base + WEIGHTS + row * u32({pair}))
            place = u32(weights + column * u32({numbers.size}))
            multiply_first(score, left, right, first_steps)
            scale_scores(score, scale_log2)
            """
        )
        if boxes.partial:
            out.line("mask_scores(score, status, mask_at, column)")
        if traits.limited:
            out.line(f"limit_scores(score, column, {where})")
        if traits.slopes:
            out.line(f"left = u32(base + LEFT_2 + row * u32({second}))")
            out.line(f"right = u32(base + RIGHT_2 + column * u32({second}))")
            out.line("multiply_second(slope, left, right, second_steps)")
        slopes = ("slope",) * traits.slopes
        levels = (*WHERE, "column", "levels_at") if traits.columns_are_queries else ("lse", "delta")
        wrapped(out, "weigh", ("score", *slopes, *levels))
        for result, values, tile in (("dv", "score", "RIGHT_2"), (traits.of_slopes, "slope", "RIGHT_1")):
            if result in traits.dims:
                out.lines(
                    f"""
                    ptx.warp_barrier()  # its lanes have read what was there
                    put_numbers({values}, place)
                    ptx.warp_barrier()
                    add_{result}({result}_total, weights, base + {tile}, pair_steps)
                    """
                )


def _clears_left(traits: GradientTraits) -> bool:
    return traits.clears and not traits.columns_are_queries


def _clears_right(traits: GradientTraits) -> bool:
    return traits.clears and traits.columns_are_queries


def _emit_loads(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    """dout of a query that keeps nothing is 0, whatever is there."""
    boxes, threads = traits.boxes, share_of(traits).threads
    dims = boxes.head_dim, boxes.value_dim
    at_once = tiles.AT_ONCE[sums(traits, share_of(traits).rows) <= 64]
    kept = f"load_number(levels_at + u64({LEVEL_BYTES}) * u64(token)) < INFINITE"
    emit_token(out)
    for side, rows, where, token, clears in (
        ("left", GROUP_ROWS, LISTED, TOKEN_OF_ROW, _clears_left(traits)),
        ("right", boxes.tile_kv, TILE, TOKEN_OF_TILE, _clears_right(traits)),
    ):
        tiles.emit_load(out, tiles.Load(f"{side}_1", rows, dims[0], where, token), numbers, threads, at_once)
        if side == "right" or traits.slopes:
            given = (*where, *("levels_at",) * clears)
            load = tiles.Load(f"{side}_2", rows, dims[1], given, token, kept if clears else "")
            tiles.emit_load(out, load, numbers, threads, at_once)
    tiles.emit_chunk_of(out)


def _emit_products(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    boxes, share = traits.boxes, _share(traits)
    text = "Scores of a thread's rows and columns, a chunk of their numbers at a time."
    tiles.emit_row_product(out, "multiply_first", numbers, share, boxes.head_dim, text)
    if traits.slopes:
        text = "dP of a thread's rows and columns."
        tiles.emit_row_product(out, "multiply_second", numbers, share, boxes.value_dim, text, "slope")
    for name, dim in traits.dims.items():
        values = "Weights" if name == "dv" else "Slopes"
        text = f"{values} times the rows of a right tile, a chunk of them at a time."
        tiles.emit_sum_product(out, f"add_{name}", numbers, share, (boxes.tile_kv, dim), f"{name}_total", text)
