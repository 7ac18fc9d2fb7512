"""Gradients of queries, and the sums over them that make dS and dz, in one pass over q and dout.

What gradients.py and accumulate.py do one after the other, for heads of 33 to 64 features and values: a block then
holds the state's gradient, 64 x 64 numbers, beside both products' results. The next rows are on their way to registers
while these are worked on, and dq is written while the tensor cores add to dS.
"""

from __future__ import annotations

from flurka_numba.targets.sm90.accumulate import (
    BUFFERS,
    TILE_BYTES,
    emit_next_buffer,
    emit_products,
    emit_row_weights,
    emit_share,
    emit_tile,
)
from flurka_numba.targets.sm90.features import gpu_slope, gpu_text
from flurka_numba.targets.sm90.gradients import (
    COUNTS,
    OPERANDS,
    GradientTraits,
    emit_product,
    emit_start,
    emit_sum_step,
    emit_weights,
)
from flurka_numba.targets.sm90.images import turned_rows
from flurka_numba.targets.sm90.rows import emit_load, emit_real_columns, emit_store, words
from flurka_numba.targets.sm90.shape import CHUNK, STATE_SIDE, SUM_ROWS, chunks, state_rows
from splat_numba.gen.entry import Entry
from splat_numba.gen.writer import SourceWriter

ENTRY = "query_gradients"
POINTERS = (*OPERANDS["queries"], "states", "turned", "shares")
CHUNKS = 2  # of features, and of values: the heads that this is for
BUFFER_BYTES = BUFFERS * 3 * TILE_BYTES


def has_one_pass(head_dim: int, value_dim: int) -> bool:
    """Whether a head is of the size that this is for."""
    return chunks(head_dim) == chunks(value_dim) == CHUNKS


def query_parameters() -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    strides = (f"{name}_{axis}" for name in OPERANDS["queries"] for axis in ("row", "head", "batch"))
    return (
        *((name, "l") for name in POINTERS),
        *((name, "r") for name in COUNTS),
        *((name, "l") for name in strides),
    )


def query_entry(traits: GradientTraits) -> Entry:
    """How the kernel is called."""
    whole = not (traits.head_dim % STATE_SIDE or traits.value_dim % STATE_SIDE)
    resident = 3 if whole else 2  # narrower heads take up to 229 registers
    return Entry(ENTRY, query_parameters(), 128, resident, traits.shared_bytes + BUFFER_BYTES)


def render_query_gradients(traits: GradientTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out = SourceWriter()
    quotes = '"' * 3
    values, features = CHUNK * CHUNKS + SUM_ROWS, turned_rows(traits.head_dim)
    rows = f'"{traits.dtype}", from_registers=True, transposed=False'
    columns = f'"{traits.dtype}", from_registers=False, transposed=True, a_transposed=True'
    out.lines(
        f"""
        {quotes}Gradients of queries and of a state, generated for feature map {traits.feature_map.name}.

        head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; 64 rows at a time.
        {quotes}

        import numpy as np
        from numba import cuda

        from splat_numba.runtime.cuda import intrinsics as ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        add_values = ptx.matrix_product({values}, {rows})
        add_features = ptx.matrix_product({features}, {rows})
        add_products = ptx.matrix_product({STATE_SIDE}, {columns})
        add_weights = ptx.matrix_product({SUM_ROWS}, {columns})
        """
    )
    out.line()
    out.line()
    out.line(f"def {ENTRY}({', '.join(name for name, _ in query_parameters())}):")
    with out.suite():
        emit_start(out, traits, values, features, BUFFER_BYTES)
        _emit_sums(out, traits)
        _emit_ahead(out, traits)
        out.line("ptx.mbarrier_wait(full, u32(0))")
        with out.block("while tile < last"):
            _emit_tile(out, traits, values, features)
        emit_share(out)
    return out.text()


def _emit_sums(out: SourceWriter, traits: GradientTraits) -> None:
    out.lines(
        f"""
        buffers = u32(image + u32({traits.image_bytes + traits.turned_bytes}))
        buffer = u32(0)
        x_ahead = cuda.local.array({words(traits.head_dim)}, dtype=np.uint32)
        y_ahead = cuda.local.array({words(traits.value_dim)}, dtype=np.uint32)
        total = cuda.local.array({STATE_SIDE // 2}, dtype=np.float32)
        sums = cuda.local.array({SUM_ROWS // 2}, dtype=np.float32)
        for i in range({STATE_SIDE // 2}):
            total[i] = f32(0.0)
        for i in range({SUM_ROWS // 2}):
            sums[i] = f32(0.0)
        """
    )


def _emit_ahead(out: SourceWriter, traits: GradientTraits) -> None:
    """The next rows on their way to registers."""
    x, y, _ = OPERANDS["queries"]
    out.line("first_row = u32(tile * u32(64))")
    out.line("end = rows if tile < last else u32(0)")
    emit_load(out, x, traits.head_dim, "end", "x_ahead", "next_")
    emit_load(out, y, traits.value_dim, "end", "y_ahead", "next_")


def _emit_tile(out: SourceWriter, traits: GradientTraits, values: int, features: int) -> None:
    with out.block(f"for i in range({words(traits.head_dim)})"):
        out.line("x_word[i] = x_ahead[i]")
        out.line(f"low, high = ptx.unpack_{traits.dtype}(x_ahead[i])")
        emit_real_columns(out, traits.head_dim, ("low", "high"))
        low, high = (gpu_text(traits.feature_map.source, name) for name in ("low", "high"))
        out.line(f"feature[i] = ptx.pack_{traits.dtype}({low}, {high})")
    _emit_values(out, traits)
    for row in (0, 1):
        out.line(f"row_{row}, real_{row} = next_row_{row}, next_real_{row}")
    out.line("tile = u32(tile + u32(1))")
    _emit_ahead(out, traits)
    emit_product(out, "of_values", values, "feature", traits.head_dim, "image_rows", state_rows(traits.value_dim))
    out.line("ptx.wgmma_commit()")
    out.line("ptx.wgmma_wait_all()")
    emit_weights(out, traits)
    _emit_operands(out, traits)
    emit_product(out, "of_features", features, "y_word", traits.value_dim, "turned_rows", turned_rows(traits.head_dim))
    emit_sum_step(out, traits)
    out.line("ptx.wgmma_commit()")
    emit_products(out)
    out.line("ptx.wgmma_wait_but_one()")
    _emit_slopes(out, traits)
    out.line("ptx.wgmma_wait_all()")
    emit_next_buffer(out)


def _emit_values(out: SourceWriter, traits: GradientTraits) -> None:
    """y: 0 in columns behind the last, where a row ends within 16 bytes."""
    with out.block(f"for i in range({words(traits.value_dim)})"):
        if traits.value_dim % 8 == 0:
            out.line("y_word[i] = y_ahead[i]")
            return
        out.line(f"low, high = ptx.unpack_{traits.dtype}(y_ahead[i])")
        emit_real_columns(out, traits.value_dim, ("low", "high"))
        out.line(f"y_word[i] = ptx.pack_{traits.dtype}(low, high)")


def _emit_operands(out: SourceWriter, traits: GradientTraits) -> None:
    """phi of x over the divisor, y and w into this tile's buffer. Rows that are not there have y = w = 0, and the
    factor is set to 0 for them as well, since 0 times an infinite one were NaN; columns are 0, as phi(0) is not.
    """
    out.line(f"base = u32(buffers + buffer * u32({3 * TILE_BYTES}))")
    out.line(f"scaled = cuda.local.array({words(traits.head_dim)}, dtype=np.uint32)")
    for row in (0, 1):
        out.line(f"scale_{row} = ptx.select_real(scale_{row}, f32(0.0), real_{row})")
    with out.block(f"for i in range({words(traits.head_dim)})"):
        out.line(f"low, high = ptx.unpack_{traits.dtype}(feature[i])")
        if traits.head_dim % STATE_SIDE:
            at = f"u32({CHUNK} * (i // 8) + 2 * (i % 4)) + eighth"
            for x, name in enumerate(("low", "high")):
                there = f"u32(1) if {at} < u32({traits.head_dim - x}) else u32(0)"
                out.line(f"{name} = ptx.select_real({name}, f32(0.0), {there})")
        out.line("factor = scale_0 if (i // 4) % 2 == 0 else scale_1")
        out.line(f"scaled[i] = ptx.pack_{traits.dtype}(low * factor, high * factor)")
    emit_tile(out, "scaled", 0)
    emit_tile(out, "y_word", TILE_BYTES)
    emit_row_weights(out, traits.dtype)


def _emit_slopes(out: SourceWriter, traits: GradientTraits) -> None:
    """dq = phi'(q) times the gradient of phi(q), from phi(q) as it was rounded for the products."""
    phi = traits.feature_map
    with out.block(f"for i in range({words(traits.head_dim)})"):
        out.line("at = 16 * (i // 8) + 4 * (i % 4) + 2 * ((i // 4) % 2)")
        out.line(f"low, high = ptx.unpack_{traits.dtype}(x_word[i])")
        out.line(f"y_low, y_high = ptx.unpack_{traits.dtype}(feature[i])")
        out.line("factor = scale_0 if (i // 4) % 2 == 0 else scale_1")
        for x, name in enumerate(("low", "high")):
            slope = gpu_slope(phi.derivative_source, name, f"y_{name}")
            out.line(f"d_{name} = of_features[at + {x}] * ({slope} * factor)")
        out.line(f"feature[i] = ptx.pack_{traits.dtype}(d_low, d_high)")
    emit_store(out, OPERANDS["queries"][2], traits.head_dim, "feature")
