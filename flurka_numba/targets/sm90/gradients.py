"""Gradients along a sequence: of queries, from dout and the state; of keys and values, from the state's gradient.

Queries, with r = phi(q).z + eps and w = -dout.out: dq = phi'(q) (dout S^T + w z^T) / r; 1 / r and w of every row are
kept for the sums that make dS and dz (accumulate.py). Nothing is divided by r before it is rounded to 16 bits: r may be
small, and float16 ends at 65504. Keys and values: dk = phi'(k) (v dS^T + dz^T), dv = phi(k) dS.
Both are two products of a tile's rows with the two images of a state (images.py), whose sums stand where the rows do.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.formulas import gpu_slope, gpu_text
from flurka_numba.targets.gpu_text import emit_shared_start, parameters_of, start_text
from flurka_numba.targets.powers import emit_inverse
from flurka_numba.targets.sm90.images import turned_bytes, turned_rows
from flurka_numba.targets.sm90.rows import (
    emit_lane,
    emit_load,
    emit_real_columns,
    emit_row_scales,
    emit_share,
    emit_spread,
    emit_store,
    left_operand,
    words,
)
from flurka_numba.targets.sm90.scales import emit_carried, emit_weight, has_row_scale, is_scaled
from flurka_numba.targets.sm90.shape import CHUNK, SUM_ROWS, chunks, state_bytes, state_rows
from splat_numba.gen.entry import Entry
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, keys_descriptor, score_offset
from splat_numba.gen.writer import SourceWriter

COUNTS = ("heads", "rows", "blocks", "tiles_of_block")
OPERANDS = {"queries": ("q", "dout", "dq"), "slots": ("k", "v", "dk", "dv")}  # x, y and what is written
SPREAD = ("dk_spread", "dv_spread")
ENTRY = "gradients"
LARGEST_CHUNKS = 8  # of head_dim and value_dim together: more do not fit in registers
CHUNKS_AT_ONCE = 5  # with more, y is loaded after the first product


@dataclass(frozen=True, slots=True)
class GradientTraits:
    """of: "queries", or "slots", for which the images are those of the state's gradient.

    denominator, eps: as in Problem; ragged: the gradients of slots at or beyond a batch entry's length are 0; spread:
    those of slots are written twice, once with columns in the order that token_gradients.py wants.
    """

    of: str
    head_dim: int
    value_dim: int
    dtype: str
    feature_map: FeatureMap
    denominator: str
    eps: float
    ragged: bool
    spread: bool

    @property
    def row_scaled(self) -> bool:
        """Whether features are multiplied with a power of two of their row."""
        return has_row_scale(self.dtype, self.feature_map)

    @property
    def written(self) -> tuple[str, ...]:
        """What is read and written by address."""
        return (*OPERANDS[self.of], *(SPREAD if self.spread else ()))

    @property
    def shared_bytes(self) -> int:
        """Both images, then a barrier."""
        return self.image_bytes + self.turned_bytes + 8 + ALIGNMENT

    @property
    def image_bytes(self) -> int:
        """Of the image for rows of features."""
        return state_bytes(self.head_dim, self.value_dim)

    @property
    def turned_bytes(self) -> int:
        """Of the image for rows of values."""
        return turned_bytes(self.head_dim, self.value_dim)

    @property
    def resident(self) -> int:
        """Blocks on a multiprocessor: a thread holds x, phi(x), y, both products' results, and about 50 more."""
        both = chunks(self.head_dim) + chunks(self.value_dim)
        registers = 16 * both + 8 * both + 8 * chunks(self.head_dim) + 50
        return max(1, min(4, 65536 // (128 * registers), (227 << 10) // (self.shared_bytes + 1024)))


def gradient_parameters(traits: GradientTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    operands = traits.written
    strides = [f"{name}_{axis}" for name in operands for axis in ("row", "head", "batch")]
    pointers = (*operands, "states", "turned", "row_weights", "kv_lengths")
    return parameters_of(pointers, COUNTS, strides)


def gradient_entry(traits: GradientTraits) -> Entry:
    """How the kernel is called."""
    return Entry(ENTRY, gradient_parameters(traits), 128, traits.resident, traits.shared_bytes)


def render_gradients(traits: GradientTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    values, features = CHUNK * chunks(traits.value_dim), turned_rows(traits.head_dim)
    sums = SUM_ROWS if traits.of == "queries" else 0
    options = f'"{traits.dtype}", from_registers=True, transposed=False'
    out = start_text(
        gradient_entry(traits),
        f"Gradients of {traits.of}, generated for feature map {traits.feature_map.name}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; 64 rows at a time.",
        {
            "add_values": f"matrix_product({values + sums}, {options})",
            "add_features": f"matrix_product({features}, {options})",
        },
    )
    with out.suite():
        emit_start(out, traits, values + sums, features)
        emit_images_there(out, traits)
        with out.block("while tile < last"):
            _emit_tile(out, traits, values + sums, features)
    return out.text()


def emit_start(out: SourceWriter, traits: GradientTraits, columns: int, features: int, further: int = 0) -> None:
    """This block's head and rows; the images on the way to shared memory. further: bytes between them and the barrier
    ``full``, for others.
    """
    length = "ptx.load_word(kv_lengths + u64(4) * u64(entry))" if traits.ragged else "rows"
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
    out.lines(
        f"""
        block = ptx.block_index()
        pair = u32(block // blocks)
        tile = u32((block - pair * blocks) * tiles_of_block)
        last = u32(min(tile + tiles_of_block, (rows + u32(63)) // u32(64)))
        entry = u32(pair // heads)
        head = u32(pair - entry * heads)
        length = {length}
        if thread == u32(0):
            ptx.mbarrier_init(full, u32(1))
            ptx.fence_mbarrier_init()
        ptx.block_barrier()
        first = u32(1) if thread == u32(0) else u32(0)
        ptx.mbarrier_expect(full, u32({both}), first)
        from_state = states + u64({traits.image_bytes}) * u64(pair)
        ptx.bulk_copy(image, from_state, u32({traits.image_bytes}), full, first)
        from_state = turned + u64({traits.turned_bytes}) * u64(pair)
        ptx.bulk_copy(turned_image, from_state, u32({traits.turned_bytes}), full, first)
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
        of_values = cuda.local.array({columns // 2}, dtype=np.float32)
        of_features = cuda.local.array({features // 2}, dtype=np.float32)
        """
    )


def emit_images_there(out: SourceWriter, traits: GradientTraits) -> None:
    """Wait for the images; ``state_scale`` that they have, or of a gradient ``unscale``, which undoes it."""
    out.line("ptx.mbarrier_wait(full, u32(0))")
    if is_scaled(traits.dtype):
        name = "state_scale" if traits.of == "queries" else "unscale"
        emit_carried(out, name, "image", CHUNK * chunks(traits.value_dim), inverse=traits.of == "slots")


def _emit_tile(out: SourceWriter, traits: GradientTraits, columns: int, features: int) -> None:
    out.line("first_row = u32(tile * u32(64))")
    out.line("tile = u32(tile + u32(1))")
    x, y, *_ = OPERANDS[traits.of]
    emit_load(out, x, traits.head_dim, "length", "x_word")
    wide = chunks(traits.head_dim) + chunks(traits.value_dim) > CHUNKS_AT_ONCE
    if not wide:
        _emit_y(out, traits, y)
    emit_features(out, traits)
    emit_product(out, "of_values", columns, "feature", traits.head_dim, "image_rows", state_rows(traits.value_dim))
    out.line("ptx.wgmma_commit()")
    out.line("ptx.wgmma_wait_all()")
    if wide:
        _emit_y(out, traits, y)
    if traits.of == "queries":
        emit_weights(out, traits)
        _emit_row_weights(out)
    else:
        _emit_values(out, traits)
    emit_sum_words(out, traits)
    emit_product(out, "of_features", features, "y_word", traits.value_dim, "turned_rows", turned_rows(traits.head_dim))
    emit_sum_step(out, traits, "add_features")
    out.line("ptx.wgmma_commit()")
    out.line("ptx.wgmma_wait_all()")
    _emit_slopes(out, traits)


def _emit_y(out: SourceWriter, traits: GradientTraits, y: str) -> None:
    """The tile's rows of y."""
    emit_load(out, y, traits.value_dim, "length", "y_word")
    if traits.value_dim % 8:
        emit_real_y(out, traits)


def emit_features(out: SourceWriter, traits: GradientTraits) -> None:
    """phi of a lane's words of x; with the rows' scales and their inverses, where traits have them."""
    if traits.row_scaled:
        out.line(f"phi = cuda.local.array({2 * words(traits.head_dim)}, dtype=np.float32)")
    with out.block(f"for i in range({words(traits.head_dim)})"):
        out.line(f"low, high = ptx.unpack_{traits.dtype}(x_word[i])")
        emit_real_columns(out, traits.head_dim, ("low", "high"))
        low, high = (gpu_text(traits.feature_map.source, name) for name in ("low", "high"))
        if traits.row_scaled:
            out.line(f"phi[2 * i], phi[2 * i + 1] = {low}, {high}")
        else:
            out.line(f"feature[i] = ptx.pack_{traits.dtype}({low}, {high})")
    if traits.row_scaled:
        emit_row_scales(out, "phi", 0, words(traits.head_dim), "(i // 4) % 2 == 1")
        with out.block(f"for i in range({words(traits.head_dim)})"):
            out.line("factor = row_scale_1 if (i // 4) % 2 == 1 else row_scale_0")
            out.line(f"feature[i] = ptx.pack_{traits.dtype}(phi[2 * i] * factor, phi[2 * i + 1] * factor)")
        for row in (0, 1):
            emit_inverse(out, f"row_inverse_{row}", f"row_scale_{row}")


def emit_real_y(out: SourceWriter, traits: GradientTraits) -> None:
    """y is 0 in columns behind the last, where a row ends within 16 bytes."""
    with out.block(f"for i in range({words(traits.value_dim)})"):
        out.line(f"low, high = ptx.unpack_{traits.dtype}(y_word[i])")
        emit_real_columns(out, traits.value_dim, ("low", "high"))
        out.line(f"y_word[i] = ptx.pack_{traits.dtype}(low, high)")


def emit_product(
    out: SourceWriter, total: str, columns: int, left: str, dim: int, descriptor: str, image_rows: int
) -> None:
    """Begin a product of the tile's rows with an image."""
    with out.block(f"for i in range({columns // 2})"):
        out.line(f"{total}[i] = f32(0.0)")
    out.line("ptx.wgmma_fence()")
    for chunk in range(chunks(dim)):
        for step in (0, 1):
            at = score_offset(2 * chunk + step, image_rows)
            out.line(f"add_{total[3:]}({total}, {left_operand(left, chunk, step)}, {descriptor} + u64({at}))")


def emit_sum_words(out: SourceWriter, traits: GradientTraits) -> None:
    """w_0 and w_1: a row's w, or 1, in the first of 16 columns. Before wgmma_fence, as a product takes them."""
    for row in (0, 1):
        _emit_weight_of_lane(out, traits, row)


def emit_sum_step(out: SourceWriter, traits: GradientTraits, product: str) -> None:
    """One more step: w times z, or 1 times dz."""
    at = score_offset(2 * chunks(traits.value_dim), turned_rows(traits.head_dim))
    out.line(f"{product}(of_features, w_0, w_1, u32(0), u32(0), turned_rows + u64({at}))")


def _emit_weight_of_lane(out: SourceWriter, traits: GradientTraits, row: int) -> None:
    """A row's w, or 1, for the lane that has the step's first columns: ``w_0`` or ``w_1``."""
    if traits.of == "queries":
        emit_weight(out, "number", f"weight_{row}", traits.dtype)
        out.line(f"w_{row} = number if eighth == u32(0) else u32(0)")
        return
    out.line(f"number = f32(1.0) if real_{row} else f32(0.0)")
    out.line(f"w_{row} = ptx.pack_{traits.dtype}(number, f32(0.0)) if eighth == u32(0) else u32(0)")


def emit_weights(out: SourceWriter, traits: GradientTraits) -> None:
    """1 / r and w = -dout.out of a row. Of scaled rows and states, 1 / r times that of the state alone."""
    values = 16 * chunks(traits.value_dim)
    for row in (0, 1):
        scale = "state_scale" if is_scaled(traits.dtype) else None
        scale = f"(state_scale * row_scale_{row})" if traits.row_scaled else scale
        emit_share(out, f"scale_{row}", f"of_values[{values + 2 * row}]", traits.denominator, traits.eps, scale)
        out.line(f"weight_{row} = f32(0.0)")
    with out.block(f"for i in range({words(traits.value_dim)})"):
        out.lines(
            f"""
            low, high = ptx.unpack_{traits.dtype}(y_word[i])
            at = 16 * (i // 8) + 4 * (i % 4) + 2 * ((i // 4) % 2)
            product = low * of_values[at] + high * of_values[at + 1]
            weight_0 += product if (i // 4) % 2 == 0 else f32(0.0)
            weight_1 += f32(0.0) if (i // 4) % 2 == 0 else product
            """
        )
    for row in (0, 1):
        out.lines(
            f"""
            weight_{row} += ptx.shuffle_xor(weight_{row}, u32(1))
            weight_{row} += ptx.shuffle_xor(weight_{row}, u32(2))
            weight_{row} = -(weight_{row} * scale_{row})
            """
        )
        if traits.row_scaled:
            out.line(f"scale_{row} = scale_{row} * row_scale_{row}")


def _emit_row_weights(out: SourceWriter) -> None:
    """Both into memory."""
    for row in (0, 1):
        out.lines(
            f"""
            one_lane = real_{row} if eighth == u32(0) else u32(0)
            at = row_weights + u64(8) * (u64(pair) * u64(rows) + u64(row_{row}))
            ptx.store_reals2(at, scale_{row}, weight_{row}, one_lane)
            """
        )


def _emit_values(out: SourceWriter, traits: GradientTraits) -> None:
    """dv = phi(k) dS; 0 beyond a length. y itself is the next product's operand."""
    out.line(f"dy_word = cuda.local.array({words(traits.value_dim)}, dtype=np.uint32)")
    with out.block(f"for i in range({words(traits.value_dim)})"):
        out.line("at = 16 * (i // 8) + 4 * (i % 4) + 2 * ((i // 4) % 2)")
        out.line("kept = real_0 if (i // 4) % 2 == 0 else real_1")
        undone = ""
        if is_scaled(traits.dtype):
            undone = " * factor"
            inverse = " * (row_inverse_0 if (i // 4) % 2 == 0 else row_inverse_1)" if traits.row_scaled else ""
            out.line(f"factor = unscale{inverse}")
        out.line(f"both = ptx.pack_{traits.dtype}(of_values[at]{undone}, of_values[at + 1]{undone})")
        out.line("dy_word[i] = ptx.select(both, u32(0), kept)")
    _emit_all_rows(out)
    emit_store(out, "dv", traits.value_dim, "dy_word")
    if traits.spread:
        emit_spread(out, "dv_spread", traits.value_dim, "dy_word")
    _emit_kept_rows(out)


def _emit_slopes(out: SourceWriter, traits: GradientTraits) -> None:
    """dx = phi'(x) times the gradient of phi(x); 0 beyond a length."""
    phi = traits.feature_map
    with out.block(f"for i in range({words(traits.head_dim)})"):
        out.line("at = 16 * (i // 8) + 4 * (i % 4) + 2 * ((i // 4) % 2)")
        out.line("kept = real_0 if (i // 4) % 2 == 0 else real_1")
        out.line(f"low, high = ptx.unpack_{traits.dtype}(x_word[i])")
        emit_real_columns(out, traits.head_dim, ("low", "high"))
        for name in ("low", "high"):
            out.line(f"y_{name} = {gpu_text(phi.source, name)}")
            out.line(f"slope_{name} = {gpu_slope(phi.derivative_source, name, f'y_{name}')}")
        if traits.of == "queries":
            out.line("factor = scale_0 if (i // 4) % 2 == 0 else scale_1")
            out.line("slope_low, slope_high = slope_low * factor, slope_high * factor")
        elif is_scaled(traits.dtype):
            out.line("slope_low, slope_high = slope_low * unscale, slope_high * unscale")
        pair = "of_features[at] * slope_low, of_features[at + 1] * slope_high"
        out.line(f"feature[i] = ptx.select(ptx.pack_{traits.dtype}({pair}), u32(0), kept)")
    _emit_all_rows(out)
    emit_store(out, OPERANDS[traits.of][2], traits.head_dim, "feature")
    if traits.spread:
        emit_spread(out, "dk_spread", traits.head_dim, "feature")


def _emit_all_rows(out: SourceWriter) -> None:
    """Gradients are written for rows beyond a length, too."""
    for row in (0, 1):
        out.line(f"kept_{row} = real_{row}")
        out.line(f"real_{row} = u32(1) if row_{row} < rows else u32(0)")


def _emit_kept_rows(out: SourceWriter) -> None:
    for row in (0, 1):
        out.line(f"real_{row} = kept_{row}")
