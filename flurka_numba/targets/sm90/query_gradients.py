"""Gradients of queries, and the sums over them that make dS and dz, in one pass over q and dout.

What gradients.py and accumulate.py do one after the other, for heads of 33 to 64 features and values: a block then
holds the state's gradient, 64 x 64 numbers, beside both products' results. The next rows are copied to shared memory
while these are worked on; were they on their way to registers, ptxas would ask for them at the end of the loop, as it
has too few. dout is where products read it then, and q is read again for its slopes.
"""

from __future__ import annotations

from flurka_numba.targets.formulas import gpu_slope, gpu_text
from flurka_numba.targets.gpu.lanes import OCTET
from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.accumulate_results import emit_products, emit_share
from flurka_numba.targets.sm90.accumulate_rows import emit_row_weights, emit_tile, lane_place
from flurka_numba.targets.sm90.accumulate_shape import TILE_BYTES
from flurka_numba.targets.sm90.gradient_rows import (
    emit_features,
    emit_images_there,
    emit_product,
    emit_real_y,
    emit_start,
    emit_sum_step,
    emit_sum_words,
    emit_unscaled_results,
    emit_weights,
)
from flurka_numba.targets.sm90.gradient_shape import OPERANDS, GradientTraits
from flurka_numba.targets.sm90.gradients import COUNTS
from flurka_numba.targets.sm90.image_shape import turned_rows
from flurka_numba.targets.sm90.lanes import CHUNK, CHUNK_STEPS, COLUMN_OF_WORD, RESULT_OF_WORD, of_row, words_of_chunk
from flurka_numba.targets.sm90.rows import emit_store, when, words
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import STATE_SIDE, SUM_ROWS, chunks, state_rows
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import LANE_ROWS, MATRIX, sums_of
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import GROUP, WARPGROUP, keys_descriptor, score_offset

ENTRY = "query_gradients"
POINTERS = (*OPERANDS["queries"], "states", "turned", "shares")
CHUNKS = 2  # of features, and of values: the heads that this is for
STAGES = 2
STAGE_BYTES = 2 * TILE_BYTES  # q, then dout
BUFFER_BYTES = STAGES * STAGE_BYTES + 2 * TILE_BYTES  # and features over the divisor, and w


def has_one_pass(head_dim: int, value_dim: int) -> bool:
    """Whether a head is of the size that this is for."""
    return chunks(head_dim) == chunks(value_dim) == CHUNKS


def query_parameters() -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    strides = (f"{name}_{axis}" for name in OPERANDS["queries"] for axis in ("row", "head", "batch"))
    return parameters_of(POINTERS, COUNTS, strides)


def query_entry(traits: GradientTraits) -> Entry:
    """How the kernel is called."""
    whole = not (traits.head_dim % STATE_SIDE or traits.value_dim % STATE_SIDE)
    resident = 3 if whole else 2  # narrower heads take up to 229 registers
    return Entry(ENTRY, query_parameters(), WARPGROUP, resident, traits.shared_bytes + BUFFER_BYTES)


def render_query_gradients(traits: GradientTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    values, features = CHUNK * CHUNKS + SUM_ROWS, turned_rows(traits.head_dim)
    rows = f'"{traits.dtype}", from_registers=True, transposed=False'
    whole = f'"{traits.dtype}", from_registers=False, transposed=False'
    columns = f'"{traits.dtype}", from_registers=False, transposed=True, a_transposed=True'
    out = start_text(
        query_entry(traits),
        f"Gradients of queries and of a state, generated for feature map {traits.feature_map.name}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; {GROUP} rows at a time.",
        {
            "add_values": f"matrix_product({values}, {rows})",
            "add_features": f"matrix_product({features}, {whole})",
            "add_sums": f"matrix_product({features}, {rows})",
            "add_products": f"matrix_product({STATE_SIDE}, {columns})",
            "add_weights": f"matrix_product({SUM_ROWS}, {columns})",
            "wait_for_copies": "async_wait(0)",
        },
    )
    with out.suite():
        emit_start(out, traits, values, features, BUFFER_BYTES)
        _emit_sums(out, traits)
        _emit_ahead(out, traits)
        emit_images_there(out, traits)
        with out.block("while tile < last"):
            _emit_tile(out, traits, values)
        emit_share(out, scaled=is_scaled(traits.dtype))
    return out.text()


def _emit_sums(out: KernelWriter, traits: GradientTraits) -> None:
    out.lines(
        f"""
        rows_place = u32(image + u32({traits.image_bytes + traits.turned_bytes}))
        feature_place = u32(rows_place + u32({STAGES * STAGE_BYTES}))
        weight_place = u32(feature_place + u32({TILE_BYTES}))
        stage = u32(0)
        total = cuda.local.array({sums_of(STATE_SIDE)}, dtype=np.float32)
        sums = cuda.local.array({sums_of(SUM_ROWS)}, dtype=np.float32)
        for i in range({sums_of(STATE_SIDE)}):
            total[i] = f32(0.0)
        for i in range({sums_of(SUM_ROWS)}):
            sums[i] = f32(0.0)
        """
    )


def _emit_ahead(out: KernelWriter, traits: GradientTraits) -> None:
    """Begin to copy the rows of ``tile`` to ``stage``: a lane those that it works on, see rows.py."""
    with out.part("copy_rows", "Begin to copy a tile's rows of q and dout to a stage: a lane those that it works on."):
        x, y, _ = OPERANDS["queries"]
        out.line(f"first_row = u32(tile * u32({GROUP}))")
        out.line("end = rows if tile < last else u32(0)")
        out.line(f"x_next = u32(rows_place + stage * u32({STAGE_BYTES}))")
        out.line(f"y_next = u32(x_next + u32({TILE_BYTES}))")
        for row in range(LANE_ROWS):
            out.line(f"row = u32(first_row + row_in_tile + u32({MATRIX * row}))")
            out.line("real = u32(1) if row < end else u32(0)")
            for name, dim, to in ((x, traits.head_dim, "x_next"), (y, traits.value_dim, "y_next")):
                for chunk in range(CHUNKS):
                    at = f"{name}_at + u64(row) * {name}_row + u64({2 * CHUNK * chunk})"
                    out.line(f"ptx.async_copy({lane_place(to, row, chunk)}, {at}, {when('real', chunk, dim)})")
        out.line("ptx.async_commit()")
        whole = traits.head_dim > STATE_SIDE - OCTET and traits.value_dim > STATE_SIDE - OCTET
        with out.block(f"if tile < last and first_row + u32({GROUP}) > rows" if whole else "if tile < last"):
            for row in range(LANE_ROWS):
                out.line(f"real = u32(1) if first_row + row_in_tile + u32({MATRIX * row}) < rows else u32(0)")
                for dim, to in ((traits.head_dim, "x_next"), (traits.value_dim, "y_next")):
                    for chunk in range(CHUNKS):
                        out.line(f"there = {when('real', chunk, dim)}")
                        zeros = "u32(0), u32(0), u32(0), u32(0), u32(1) - there"
                        out.line(f"ptx.store_shared_words4({lane_place(to, row, chunk)}, {zeros})")


def _emit_tile(out: KernelWriter, traits: GradientTraits, values: int) -> None:
    out.line(f"now = u32(tile * u32({GROUP}) + row_in_tile)")
    for row in range(LANE_ROWS):
        out.line(f"row_{row} = u32(now + u32({MATRIX * row}))")
        out.line(f"real_{row} = u32(1) if row_{row} < rows else u32(0)")
    out.lines(
        """
        wait_for_copies()
        ptx.block_barrier()  # nobody reads the other stage or w any more
        tile = u32(tile + u32(1))
        stage = u32(stage ^ u32(1))
        """
    )
    _emit_ahead(out, traits)
    out.line(f"x_place = u32(rows_place + (stage ^ u32(1)) * u32({STAGE_BYTES}))")
    out.line(f"y_place = u32(x_place + u32({TILE_BYTES}))")
    _emit_words(out, "x_word", "x_place")
    emit_features(out, traits)
    emit_product(out, "of_values", values, "feature", traits.head_dim, "image_rows", state_rows(traits.value_dim))
    out.line("ptx.wgmma_commit()")
    _emit_words(out, "y_word", "y_place")
    if traits.value_dim % OCTET:
        emit_real_y(out, traits)
        emit_tile(out, "y_word", "y_place")
    out.line("ptx.wgmma_wait_all()")
    emit_weights(out, traits)
    _emit_operands(out, traits)
    _emit_features(out, traits)
    out.line("ptx.wgmma_commit()")
    emit_products(out, "feature_place", "y_place", "weight_place")
    out.line("ptx.wgmma_wait_but_one()")
    _emit_words(out, "x_word", "x_place")
    _emit_slopes(out, traits)
    out.line("ptx.wgmma_wait_all()")


def _emit_words(out: KernelWriter, name: str, place: str) -> None:
    """What a lane copied, to registers."""
    with out.part(f"read_{name}", "What a lane copied, to registers."):
        for row in range(LANE_ROWS):
            for chunk in range(CHUNKS):
                four = words_of_chunk(name, chunk, row)
                out.line(f"{four} = ptx.load_shared_words4({lane_place(place, row, chunk)})")


def _emit_operands(out: KernelWriter, traits: GradientTraits) -> None:
    """phi of x over the divisor, and w. Rows that are not there have y = w = 0, and the factor is set to
    0 for them as well, since 0 times an infinite one were NaN; columns are 0, as phi(0) is not.
    """
    with out.part("store_operands", "phi over the divisor, and w, where the products of the sums read them."):
        out.line(f"scaled = cuda.local.array({words(traits.head_dim)}, dtype=np.uint32)")
        for row in range(LANE_ROWS):
            out.line(f"scale_{row} = ptx.select_real(scale_{row}, f32(0.0), real_{row})")
        with out.block(f"for i in range({words(traits.head_dim)})"):
            out.line(f"low, high = ptx.unpack_{traits.dtype}(x_word[i])")
            low, high = (gpu_text(traits.feature_map.source, name) for name in ("low", "high"))
            out.line(f"low, high = {low}, {high}")
            if traits.head_dim % STATE_SIDE:
                for x, name in enumerate(("low", "high")):
                    there = f"u32(1) if {COLUMN_OF_WORD} < u32({traits.head_dim - x}) else u32(0)"
                    out.line(f"{name} = ptx.select_real({name}, f32(0.0), {there})")
            out.line(f"factor = {of_row('scale')}")
            out.line(f"scaled[i] = ptx.pack_{traits.dtype}(low * factor, high * factor)")
        emit_tile(out, "scaled", "feature_place")
        emit_row_weights(out, traits.dtype, "weight_place")


def _emit_features(out: KernelWriter, traits: GradientTraits) -> None:
    """dout S^T + w z^T, with dout from shared memory: in registers there would be too few for three blocks."""
    out.line(f"dout_rows = u64({keys_descriptor()}) | u64(y_place >> u32(4))")
    rows = turned_rows(traits.head_dim)
    with out.block(f"for i in range({sums_of(rows)})"):
        out.line("of_features[i] = f32(0.0)")
    emit_sum_words(out, traits)
    with out.part("issue_of_features", "Begin dout S^T + w z^T."):
        out.line("ptx.wgmma_fence()")
        for step in range(CHUNK_STEPS * CHUNKS):
            at = score_offset(step, rows)
            out.line(f"add_features(of_features, dout_rows + u64({2 * step}), turned_rows + u64({at}), u32(1))")
        emit_sum_step(out, traits, "add_sums")


def _emit_slopes(out: KernelWriter, traits: GradientTraits) -> None:
    """dq = phi'(q) times the gradient of phi(q), from phi(q) as it was rounded for the products."""
    with out.part("store_slopes", "dq = phi'(q) times the gradient of phi(q), from phi(q) as it was rounded."):
        phi = traits.feature_map
        emit_unscaled_results(out, traits)
        with out.block(f"for i in range({words(traits.head_dim)})"):
            out.line(f"at = {RESULT_OF_WORD}")
            out.line(f"low, high = ptx.unpack_{traits.dtype}(x_word[i])")
            out.line(f"y_low, y_high = ptx.unpack_{traits.dtype}(feature[i])")
            if traits.row_scaled:
                out.line(f"factor = {of_row('row_inverse')}")
                out.line("y_low, y_high = y_low * factor, y_high * factor")
            out.line(f"factor = {of_row('scale')}")
            for x, name in enumerate(("low", "high")):
                slope = gpu_slope(phi.derivative_source, name, f"y_{name}")
                out.line(f"d_{name} = of_features[at + {x}] * ({slope} * factor)")
            out.line(f"feature[i] = ptx.pack_{traits.dtype}(d_low, d_high)")
        emit_store(out, OPERANDS["queries"][2], traits.head_dim, "feature")
