"""Sums over a sequence: phi(x)^T y, and phi(x)^T w for a number w a row, in float32 shares.

The state of kernel attention (x = k, y = v, w = 1), and the gradient of a state (x = q, features over the row's
divisor, y = dout, w as gradients.py has it). A block of one warpgroup makes 64 features x 64 values from its share of
the rows. Rows go through registers, where phi is taken, into shared memory, and both operands of the product are read
there with the rows as its depth. Two buffers, so that one barrier a tile does.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu_text import emit_shared_start, parameters_of, start_text
from flurka_numba.targets.powers import emit_inverse, emit_scale
from flurka_numba.targets.sm90.rows import emit_lane, emit_largest_of_block, emit_load
from flurka_numba.targets.sm90.scales import HIGH, SCALE_ROW, TOP, emit_slot_factors, emit_weight, is_scaled
from flurka_numba.targets.sm90.shape import CHUNK, STATE_SIDE, SUM_ROWS, chunks, state_bytes
from flurka_numba.targets.sm90.state_block import emit_state_share
from splat_numba.gen.entry import Entry
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    PRODUCT_DEPTH,
    SPAN_BYTES,
    STEP_OF_ROWS,
    WARPGROUP,
    spans,
    values_descriptor,
)

POINTERS = ("row_weights", "kv_lengths", "shares")
COUNTS = ("heads", "rows", "shares_of_state")
OPERANDS = {"keys": ("k", "v"), "queries": ("q", "dout")}  # x and y
ENTRY = "accumulate"
TILE = 64  # rows
TILE_BYTES = TILE * SPAN_BYTES
BUFFERS = 2
SHARE_COLUMNS = STATE_SIDE + SUM_ROWS  # values, then the sums and zeros, or the row's largest and what has no meaning
SHARE_NUMBERS = STATE_SIDE * SHARE_COLUMNS


@dataclass(frozen=True, slots=True)
class AccumulateTraits:
    """of: "keys", or "queries": then features are multiplied by the first of their row's weights, and w is the second.
    ragged: rows at or beyond a batch entry's length are left out. compressed: keys and values are slots.
    """

    of: str
    head_dim: int
    value_dim: int
    dtype: str
    feature_map: FeatureMap
    ragged: bool
    compressed: bool = False

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of features and of values that make up a head's state."""
        return spans(self.head_dim), spans(self.value_dim)

    @property
    def scaled(self) -> bool:
        """Whether sums are those of features over a divisor that has the state's scale, which is undone at the end."""
        return self.of == "queries" and is_scaled(self.dtype)

    @property
    def slots_scaled(self) -> bool:
        """Whether x and y have scales, so that features may be beyond float16: they have one then, too."""
        return self.compressed and self.of == "keys" and is_scaled(self.dtype)

    @property
    def shared_bytes(self) -> int:
        """Three buffers of features, values and weights; 16 bytes a warp."""
        return BUFFERS * 3 * TILE_BYTES + (64 if self.slots_scaled else 0) + ALIGNMENT


def accumulate_parameters(traits: AccumulateTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    operands = OPERANDS[traits.of]
    strides = (f"{name}_{axis}" for name in operands for axis in ("row", "head", "batch"))
    further = ("states",) if traits.scaled else ("slot_scales",) if traits.slots_scaled else ()
    return parameters_of((*operands, *POINTERS, *further), COUNTS, strides)


def accumulate_entry(traits: AccumulateTraits) -> Entry:
    """How the kernel is called."""
    whole = not (traits.head_dim % STATE_SIDE or traits.value_dim % STATE_SIDE)
    resident = 4 if whole and not traits.slots_scaled else 2  # narrower blocks take up to 168 registers
    return Entry(ENTRY, accumulate_parameters(traits), WARPGROUP, resident, traits.shared_bytes)


def render_accumulate(traits: AccumulateTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    options = f'"{traits.dtype}", from_registers=False, transposed=True, a_transposed=True'
    out = start_text(
        accumulate_entry(traits),
        f"Sums of features times values over a sequence, generated for feature map {traits.feature_map.name}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; {TILE} rows at a time.",
        {
            "add_products": f"matrix_product({STATE_SIDE}, {options})",
            "add_weights": f"matrix_product({SUM_ROWS}, {options})",
        },
    )
    with out.suite():
        _emit_start(out, traits)
        _emit_rows(out, traits, "ahead")
        with out.block("while tile < last"):
            out.line(f"base = u32(buffers + buffer * u32({3 * TILE_BYTES}))")
            out.line(f"value_place = u32(base + u32({TILE_BYTES}))")
            out.line(f"weight_place = u32(base + u32({2 * TILE_BYTES}))")
            _emit_operands(out, traits)
            out.line("tile = u32(tile + u32(1))")
            _emit_rows(out, traits, "ahead")
            out.line("ptx.wgmma_fence()")
            emit_products(out, "base", "value_place", "weight_place")
            out.line("ptx.wgmma_wait_all()  # left open over the end of the loop, ptxas would serialise them (C7515)")
            out.line("buffer = u32(buffer + u32(1))")
            with out.block(f"if buffer == u32({BUFFERS})"):
                out.line("buffer = u32(0)")
        if traits.slots_scaled:
            _emit_factors(out, "inverse")
        emit_share(out, scaled=traits.scaled)
    return out.text()


def _emit_start(out: KernelWriter, traits: AccumulateTraits) -> None:
    """Which head, features, values and rows."""
    x, y = OPERANDS[traits.of]
    length = "ptx.load_word(kv_lengths + u64(4) * u64(entry))" if traits.ragged else "rows"
    emit_shared_start(out, "buffers", ALIGNMENT)
    out.lines(
        """
        thread = ptx.thread_index()
        """
    )
    emit_lane(out)
    emit_state_share(out, traits.blocks)
    out.lines(
        f"""
        length = {length}
        tiles = u32((length + u32({TILE - 1})) // u32({TILE}))
        tiles = u32((tiles + shares_of_state - u32(1)) // shares_of_state)
        tile = u32(share * tiles)
        last = u32(min(tile + tiles, (length + u32({TILE - 1})) // u32({TILE})))
        {x}_at = {x} + u64(entry) * {x}_batch + u64(head) * {x}_head + u64(2) * u64(feature_block * u32(64) + eighth)
        {y}_at = {y} + u64(entry) * {y}_batch + u64(head) * {y}_head + u64(2) * u64(value_block * u32(64) + eighth)
        x_columns = u32(u32({traits.head_dim}) - u32({STATE_SIDE}) * feature_block)
        y_columns = u32(u32({traits.value_dim}) - u32({STATE_SIDE}) * value_block)
        weight_at = row_weights + u64(8) * u64(pair) * u64(rows)
        buffer = u32(0)
        {_state_scale(traits)}
        total = cuda.local.array({STATE_SIDE // 2}, dtype=np.float32)
        sums = cuda.local.array({SUM_ROWS // 2}, dtype=np.float32)
        x_ahead = cuda.local.array(16, dtype=np.uint32)
        y_ahead = cuda.local.array(16, dtype=np.uint32)
        word = cuda.local.array(16, dtype=np.uint32)
        for i in range({STATE_SIDE // 2}):
            total[i] = f32(0.0)
        for i in range({SUM_ROWS // 2}):
            sums[i] = f32(0.0)
        """
    )
    if traits.slots_scaled:
        emit_slot_factors(out, "key_factor")
        out.line("inverse = f32(0.0)  # of the features' scale up to now")
        out.line("phi = cuda.local.array(32, dtype=np.float32)")


def _state_scale(traits: AccumulateTraits) -> str:
    """The text that reads it from a state's image in memory."""
    if not traits.scaled:
        return ""
    row = CHUNK * chunks(traits.value_dim) + SCALE_ROW
    at = f"states + u64({state_bytes(traits.head_dim, traits.value_dim)}) * u64(pair) + u64({SPAN_BYTES * row})"
    return f"state_scale = ptx.load_state({at})"


def _emit_rows(out: KernelWriter, traits: AccumulateTraits, to: str) -> None:
    """The next tile's rows on their way to registers; a last block of features or values may be narrower."""
    with out.part("load_rows", "The next tile's rows on their way to registers, and what a row counts."):
        out.line(f"first_row = u32(tile * u32({TILE}))")
        out.line("end = length if tile < last else u32(0)")
        for place, name, dim in zip("xy", OPERANDS[traits.of], (traits.head_dim, traits.value_dim), strict=True):
            if dim % STATE_SIDE == 0:
                emit_load(out, name, STATE_SIDE, "end", f"{place}_{to}")
                continue
            for row in (0, 1):
                out.line(f"row_{row} = u32(first_row + row_in_tile + u32({8 * row}))")
                out.line(f"real_{row} = u32(1) if row_{row} < end else u32(0)")
                for chunk in (0, 1):
                    names = ", ".join(f"{place}_{to}[{4 * (2 * chunk + row) + i}]" for i in range(4))
                    at = f"{name}_at + u64(row_{row}) * {name}_row + u64({64 * chunk})"
                    there = f"real_{row} if eighth + u32({32 * chunk}) < {place}_columns else u32(0)"
                    out.line(f"{names} = ptx.load_words4_when({at}, {there})")
        if traits.of == "queries":
            for row in (0, 1):
                out.line(f"at = weight_at + u64(8) * u64(row_{row} if real_{row} else u32(0))")
                out.line(f"scale_{row} = ptx.load_state(at) if real_{row} else f32(0.0)")
                out.line(f"weight_{row} = ptx.load_state(at + u64(4)) if real_{row} else f32(0.0)")
        else:
            for row in (0, 1):
                out.line(f"weight_{row} = f32(1.0) if real_{row} else f32(0.0)")


def _emit_operands(out: KernelWriter, traits: AccumulateTraits) -> None:
    """phi of x, y and w into this tile's buffer; 0 for rows and columns that are not there, as phi(0) is not 0."""
    with out.part(
        "store_operands", "phi of x, y and w into this tile's buffer; 0 for rows and columns that are not there."
    ):
        with out.block("for i in range(16)"):
            out.line(f"low, high = ptx.unpack_{traits.dtype}(x_ahead[i])")
            if traits.slots_scaled:
                out.line("low, high = low * key_factor, high * key_factor")
            low, high = (gpu_text(traits.feature_map.source, name) for name in ("low", "high"))
            out.line(f"low, high = {low}, {high}")
            if traits.of == "queries":
                out.line("factor = scale_0 if (i // 4) % 2 == 0 else scale_1")
                out.line("low, high = low * factor, high * factor")
            out.line("kept = real_0 if (i // 4) % 2 == 0 else real_1")
            at = "u32(32 * (i // 8) + 2 * (i % 4)) + eighth"
            whole = traits.head_dim % STATE_SIDE == 0
            kept = ["kept" if whole else f"kept if {at} + u32({x}) < x_columns else u32(0)" for x in (0, 1)]
            pair = f"ptx.select_real(low, f32(0.0), {kept[0]}), ptx.select_real(high, f32(0.0), {kept[1]})"
            if traits.slots_scaled:
                out.line(f"phi[2 * i], phi[2 * i + 1] = {pair}")
            else:
                out.line(f"word[i] = ptx.pack_{traits.dtype}({pair})")
        if traits.slots_scaled:
            _emit_scaled_features(out, traits)
        emit_tile(out, "word", "base")
        if traits.value_dim % 8:  # a row may end within its last 16 bytes, and what stands behind it may be NaN
            with out.block("for i in range(16)"):
                out.line(f"low, high = ptx.unpack_{traits.dtype}(y_ahead[i])")
                at = "u32(32 * (i // 8) + 2 * (i % 4)) + eighth"
                for x, name in enumerate(("low", "high")):
                    there = f"u32(1) if {at} + u32({x}) < y_columns else u32(0)"
                    out.line(f"{name} = ptx.select_real({name}, f32(0.0), {there})")
                out.line(f"y_ahead[i] = ptx.pack_{traits.dtype}(low, high)")
        emit_tile(out, "y_ahead", "value_place")
        emit_row_weights(out, traits.dtype, "weight_place", real=traits.of == "queries")


def _emit_scaled_features(out: KernelWriter, traits: AccumulateTraits) -> None:
    """Features of this tile, and sums of those before, times a scale that does for both."""
    with out.part(
        "scale_features", "Features of this tile, and sums of those before, times a scale that does for both."
    ):
        out.line(f"top = inverse * f32({2.0 ** (TOP - 1)!r})  # what the sums have been scaled by")
        with out.block("for i in range(32)"):
            out.line("top = ptx.maximum(top, phi[i])")
        emit_largest_of_block(out, "top", f"buffers + u32({BUFFERS * 3 * TILE_BYTES})", TILE * 2)
        emit_scale(out, "scale", "top", TOP)
        _emit_factors(out, "(scale * inverse)")
        emit_inverse(out, "inverse", "scale")
        with out.block("for i in range(16)"):
            out.line(f"word[i] = ptx.pack_{traits.dtype}(phi[2 * i] * scale, phi[2 * i + 1] * scale)")


def _emit_factors(out: KernelWriter, factor: str) -> None:
    """All sums times a factor."""
    for name, count in (("total", STATE_SIDE // 2), ("sums", SUM_ROWS // 2)):
        with out.block(f"for i in range({count})"):
            out.line(f"{name}[i] = {name}[i] * {factor}")


def emit_row_weights(out: KernelWriter, dtype: str, place: str, *, real: bool = True) -> None:
    """w into its buffer at ``place``, after which all of the tile is there for everybody. real: not 0 or 1."""
    with out.part("store_row_weights", "w into its buffer, after which all of the tile is there for everybody."):
        out.line("first = u32(1) if eighth == u32(0) else u32(0)")
        for row in (0, 1):
            swizzled = "((row_in_tile & u32(7)) << u32(4))"
            at = f"{place} + u32({8 * SPAN_BYTES * row}) + row_in_tile * u32({SPAN_BYTES}) + {swizzled}"
            weight = f"ptx.pack_{dtype}(weight_{row}, f32(0.0))"
            if real and is_scaled(dtype):
                emit_weight(out, "weight", f"weight_{row}", dtype)
                weight = "weight"
            out.line(f"ptx.store_shared_words4({at}, {weight}, u32(0), u32(0), u32(0), first)")
        out.line("ptx.fence_shared()")
        out.line("ptx.block_barrier()")


def emit_tile(out: KernelWriter, name: str, place: str) -> None:
    """The lane's 16 bytes of each row and chunk into the tile at ``place``."""
    text = "The lane's 16 bytes of each row and chunk into a tile in shared memory."
    with out.part("store_tile", text, numbers=name, place=place):
        for row in (0, 1):
            for chunk in (0, 1):
                four = ", ".join(f"numbers[{4 * (2 * chunk + row) + i}]" for i in range(4))
                out.line(f"ptx.store_shared_words4({lane_place('place', row, chunk)}, {four}, u32(1))")


def lane_place(place: str, row: int, chunk: int) -> str:
    """Where 16 bytes of a lane stand, with the swizzle of shared memory; 8 rows further on it is the same."""
    swizzled = f"((u32({64 * chunk}) + u32(2) * eighth) ^ ((row_in_tile & u32(7)) << u32(4)))"
    return f"{place} + u32({8 * SPAN_BYTES * row}) + row_in_tile * u32({SPAN_BYTES}) + {swizzled}"


def emit_products(out: KernelWriter, *places: str) -> None:
    """Begin to add a tile's products, as a group. places: of features, values and w."""
    with out.part("multiply_rows", "Begin to add a tile's products, as a group."):
        for name, place in zip(("features", "values", "weights"), places, strict=True):
            out.line(f"{name} = u64({values_descriptor(TILE)}) | u64({place} >> u32(4))")
        for step in range(TILE // PRODUCT_DEPTH):
            at = STEP_OF_ROWS * step
            out.line(f"add_products(total, features + u64({at}), values + u64({at}), u32(1))")
            out.line(f"add_weights(sums, features + u64({at}), weights + u64({at}), u32(1))")
        out.line("ptx.wgmma_commit()")


def _emit_undone(out: KernelWriter) -> None:
    """Sums without ``state_scale``, both parts of those of weights together; and behind these the row's largest."""
    with out.part("undo_scale", "Sums without the state's scale, and behind these the row's largest."):
        for row in (0, 1):
            out.line(f"sums[{2 * row}] = (sums[{2 * row}] + sums[{2 * row + 1}] * f32({HIGH!r})) * state_scale")
            out.line(f"largest = ptx.maximum(sums[{2 * row}], -sums[{2 * row}])")
            with out.block(f"for j in range({STATE_SIDE // 8})"):
                for x in (0, 1):
                    name = f"total[4 * j + {2 * row + x}]"
                    out.line(f"{name} = {name} * state_scale")
                    out.line(f"largest = ptx.maximum(largest, ptx.maximum({name}, -{name}))")
            for apart in (1, 2):
                out.line(f"largest = ptx.maximum(largest, ptx.shuffle_xor(largest, u32({apart})))")
            out.line(f"sums[{2 * row + 1}] = largest")


def emit_share(out: KernelWriter, *, scaled: bool) -> None:
    """(64, 72) float32: a row for each feature. scaled: see AccumulateTraits."""
    with out.part("store_share", "(64, 72) float32: a row for each feature."):
        if scaled:
            _emit_undone(out)
        out.lines(
            f"""
            to = shares + u64({4 * SHARE_NUMBERS}) * u64(ptx.block_index())
            to = to + u64({4 * SHARE_COLUMNS}) * u64(row_in_tile) + u64(8) * u64(lane & u32(3))
            for j in range({STATE_SIDE // 8}):
                ptx.store_reals2(to + u64(32) * u64(j), total[4 * j], total[4 * j + 1], u32(1))
                at = to + u64({8 * 4 * SHARE_COLUMNS}) + u64(32) * u64(j)
                ptx.store_reals2(at, total[4 * j + 2], total[4 * j + 3], u32(1))
            ptx.store_reals2(to + u64({4 * STATE_SIDE}), sums[0], sums[1], u32(1))
            ptx.store_reals2(to + u64({(8 * SHARE_COLUMNS + STATE_SIDE) * 4}), sums[2], sums[3], u32(1))
            """
        )
