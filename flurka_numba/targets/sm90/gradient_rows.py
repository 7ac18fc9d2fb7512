"""What gradients.py and query_gradients.py do with a tile's rows: features, products with the images, and weights."""

from __future__ import annotations

from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.powers import emit_inverse
from flurka_numba.targets.sm90.gradient_shape import SPREAD, GradientTraits
from flurka_numba.targets.sm90.image_shape import turned_rows
from flurka_numba.targets.sm90.lanes import (
    CHUNK,
    CHUNK_NUMBERS,
    CHUNK_STEPS,
    IN_SECOND_ROW,
    RESULT_OF_WORD,
    ROW_OF_WORD,
)
from flurka_numba.targets.sm90.rows import (
    emit_barrier,
    emit_lane,
    emit_real_columns,
    emit_row_scales,
    emit_share,
    emit_tiles,
    left_operand,
    words,
)
from flurka_numba.targets.sm90.scales import INVERSE_ROW, SCALE_ROW, VALUE_ROW, emit_carried, emit_weight, is_scaled
from flurka_numba.targets.sm90.shape import chunks
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS, sums_of
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, keys_descriptor, score_offset


def emit_start(out: KernelWriter, traits: GradientTraits, columns: int, features: int, further: int = 0) -> None:
    """This block's head and rows; the images on the way to shared memory. further: bytes between them and the barrier
    ``full``, for others.
    """
    both = traits.image_bytes + traits.turned_bytes
    emit_shared_start(out, "image", ALIGNMENT)
    out.lines(
        f"""
        turned_image = u32(image + u32({traits.image_bytes}))
        full = u32(image + u32({both + further}))
        thread = ptx.thread_index()
        """
    )
    emit_lane(out)
    emit_tiles(out, "rows")
    if traits.ragged:
        emit_length(out, "length", "rows")
    else:
        out.line("length = rows")
    emit_barrier(out)
    with out.part("load_images", "Begin to copy both images of the head's state to shared memory."):
        out.lines(
            f"""
            first = u32(1) if thread == u32(0) else u32(0)
            ptx.mbarrier_expect(full, u32({both}), first)
            from_state = states + u64({traits.image_bytes}) * u64(pair)
            ptx.bulk_copy(image, from_state, u32({traits.image_bytes}), full, first)
            from_state = turned + u64({traits.turned_bytes}) * u64(pair)
            ptx.bulk_copy(turned_image, from_state, u32({traits.turned_bytes}), full, first)
            """
        )
    out.lines(
        f"""
        image_rows = u64({keys_descriptor()}) | u64(image >> u32(4))
        turned_rows = u64({keys_descriptor()}) | u64(turned_image >> u32(4))
        """
    )
    for name in traits.written:
        column = "u64(eighth >> u32(1))" if name in SPREAD else "u64(2) * u64(eighth)"
        out.line(f"{name}_at = {name} + u64(entry) * {name}_batch + u64(head) * {name}_head + {column}")
    out.lines(
        f"""
        x_word = cuda.local.array({words(traits.head_dim)}, dtype=np.uint32)
        feature = cuda.local.array({words(traits.head_dim)}, dtype=np.uint32)
        y_word = cuda.local.array({words(traits.value_dim)}, dtype=np.uint32)
        of_values = cuda.local.array({sums_of(columns)}, dtype=np.float32)
        of_features = cuda.local.array({sums_of(features)}, dtype=np.float32)
        """
    )


def emit_images_there(out: KernelWriter, traits: GradientTraits) -> None:
    """Wait for the images; ``state_scale`` that they have, or of a gradient ``unscale``, which undoes it."""
    out.line("ptx.mbarrier_wait(full, u32(0))")
    if is_scaled(traits.dtype):
        name = "state_scale" if traits.of == "queries" else "unscale"
        row = SCALE_ROW if traits.of == "queries" else INVERSE_ROW
        emit_carried(out, name, "image", CHUNK * chunks(traits.value_dim), row)


def emit_features(out: KernelWriter, traits: GradientTraits) -> None:
    """phi of a lane's words of x; with the rows' scales and their inverses, where traits have them."""
    with out.part("make_features", "phi of a lane's words of x."):
        if traits.row_scaled:
            out.line(f"phi = cuda.local.array({LANE_COLUMNS * words(traits.head_dim)}, dtype=np.float32)")
        with out.block(f"for i in range({words(traits.head_dim)})"):
            out.line(f"low, high = ptx.unpack_{traits.dtype}(x_word[i])")
            emit_real_columns(out, traits.head_dim, ("low", "high"))
            emit_unscaled_slots(out, traits)
            low, high = (gpu_text(traits.feature_map.source, name) for name in ("low", "high"))
            if traits.row_scaled:
                out.line(f"phi[2 * i], phi[2 * i + 1] = {low}, {high}")
            else:
                out.line(f"feature[i] = ptx.pack_{traits.dtype}({low}, {high})")
        if traits.row_scaled:
            emit_row_scales(out, "phi", "0", words(traits.head_dim), IN_SECOND_ROW)
            with out.block(f"for i in range({words(traits.head_dim)})"):
                out.line(f"factor = row_scale_1 if {IN_SECOND_ROW} else row_scale_0")
                out.line(f"feature[i] = ptx.pack_{traits.dtype}(phi[2 * i] * factor, phi[2 * i + 1] * factor)")
            for row in range(LANE_ROWS):
                emit_inverse(out, f"row_inverse_{row}", f"row_scale_{row}")


def emit_unscaled_slots(out: KernelWriter, traits: GradientTraits) -> None:
    """``low`` and ``high`` of x as they are."""
    if traits.slots_scaled:
        out.line("low, high = low * key_factor, high * key_factor")


def emit_unscaled_results(out: KernelWriter, traits: GradientTraits) -> None:
    """``scale_0`` and ``scale_1`` of queries without the values' scale, which the state's image carries."""
    if traits.values_scaled:
        emit_carried(out, "value_factor", "image", CHUNK * chunks(traits.value_dim), VALUE_ROW)
        out.line("scale_0, scale_1 = scale_0 * value_factor, scale_1 * value_factor")


def emit_real_y(out: KernelWriter, traits: GradientTraits) -> None:
    """y is 0 in columns behind the last, where a row ends within 16 bytes."""
    with (
        out.part("clear_rest", "y is 0 in columns behind the last, where a row ends within 16 bytes."),
        out.block(f"for i in range({words(traits.value_dim)})"),
    ):
        out.line(f"low, high = ptx.unpack_{traits.dtype}(y_word[i])")
        emit_real_columns(out, traits.value_dim, ("low", "high"))
        out.line(f"y_word[i] = ptx.pack_{traits.dtype}(low, high)")


def emit_product(
    out: KernelWriter, total: str, columns: int, left: str, dim: int, descriptor: str, image_rows: int
) -> None:
    """Begin a product of the tile's rows with an image."""
    with out.part(f"issue_{total}", "Begin the product of a tile's rows with an image."):
        with out.block(f"for i in range({sums_of(columns)})"):
            out.line(f"{total}[i] = f32(0.0)")
        out.line("ptx.wgmma_fence()")
        for chunk in range(chunks(dim)):
            for step in range(CHUNK_STEPS):
                at = score_offset(CHUNK_STEPS * chunk + step, image_rows)
                out.line(f"add_{total[3:]}({total}, {left_operand(left, chunk, step)}, {descriptor} + u64({at}))")


def emit_sum_words(out: KernelWriter, traits: GradientTraits) -> None:
    """w_0 and w_1: a row's w, or 1, in the first of 16 columns. Before wgmma_fence, as a product takes them."""
    with out.part("make_sum_words", "A row's w, or 1, for the lane that has the first of the last step's columns."):
        for row in range(LANE_ROWS):
            _emit_weight_of_lane(out, traits, row)


def emit_sum_step(out: KernelWriter, traits: GradientTraits, product: str) -> None:
    """One more step: w times z, or 1 times dz."""
    at = score_offset(CHUNK_STEPS * chunks(traits.value_dim), turned_rows(traits.head_dim))
    out.line(f"{product}(of_features, w_0, w_1, u32(0), u32(0), turned_rows + u64({at}))")


def _emit_weight_of_lane(out: KernelWriter, traits: GradientTraits, row: int) -> None:
    """A row's w, or 1, for the lane that has the step's first columns: ``w_0`` or ``w_1``."""
    if traits.of == "queries":
        emit_weight(out, "number", f"weight_{row}", traits.dtype)
        out.line(f"w_{row} = number if eighth == u32(0) else u32(0)")
        return
    out.line(f"number = f32(1.0) if real_{row} else f32(0.0)")
    out.line(f"w_{row} = ptx.pack_{traits.dtype}(number, f32(0.0)) if eighth == u32(0) else u32(0)")


def emit_weights(out: KernelWriter, traits: GradientTraits) -> None:
    """1 / r and w = -dout.out of a row. Of scaled rows and states, 1 / r times that of the state alone."""
    with out.part("make_weights", "The divisor's inverse of a row, and w = -dout.out."):
        values = CHUNK_NUMBERS * chunks(traits.value_dim)
        for row in range(LANE_ROWS):
            scale = "state_scale" if is_scaled(traits.dtype) else None
            scale = f"(state_scale * row_scale_{row})" if traits.row_scaled else scale
            emit_share(
                out, f"scale_{row}", f"of_values[{values + LANE_COLUMNS * row}]", traits.denominator, traits.eps, scale
            )
            out.line(f"weight_{row} = f32(0.0)")
        with out.block(f"for i in range({words(traits.value_dim)})"):
            out.lines(
                f"""
                low, high = ptx.unpack_{traits.dtype}(y_word[i])
                at = {RESULT_OF_WORD}
                product = low * of_values[at] + high * of_values[at + 1]
                weight_0 += product if {ROW_OF_WORD} == 0 else f32(0.0)
                weight_1 += f32(0.0) if {ROW_OF_WORD} == 0 else product
                """
            )
        for row in range(LANE_ROWS):
            out.lines(
                f"""
                weight_{row} += ptx.shuffle_xor(weight_{row}, u32(1))
                weight_{row} += ptx.shuffle_xor(weight_{row}, u32(2))
                weight_{row} = -(weight_{row} * scale_{row})
                """
            )
            if traits.row_scaled:
                out.line(f"scale_{row} = scale_{row} * row_scale_{row}")
