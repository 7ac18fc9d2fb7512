"""Stage 3: out = phi(q) S / phi(q).z, one pass over the queries, which go from memory to registers and back.

The order of features within a product is free, so a lane takes the 16 adjacent bytes that it loads: of a chunk of 32,
elements 8 t to 8 t + 7 of a row for lane t of the row's four. Place 16 s + 8 h + 2 t + x of the product's two steps s
holds element 8 t + 4 s + 2 h + x, and the state stands in this order already. Random features come out of a product of
their own, see random_apply.py, and stay in their order.
"""

from __future__ import annotations

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu.lanes import quad_of
from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.apply_rows import (
    emit_products,
    emit_results,
    emit_scaled_words,
    emit_state_scale,
    emit_totals,
    product,
    products_of,
)
from flurka_numba.targets.sm90.apply_shape import ApplyTraits
from flurka_numba.targets.sm90.lanes import CHUNK, CHUNK_NUMBERS, CHUNK_STEPS, IN_SECOND_ROW, words_of_chunk
from flurka_numba.targets.sm90.random_apply import (
    OMEGA_POINTERS,
    emit_arrays,
    emit_exponents,
    emit_features,
    emit_images,
)
from flurka_numba.targets.sm90.rows import (
    emit_barrier,
    emit_lane,
    emit_real_columns,
    emit_tiles,
    left_operand,
    when,
    words,
)
from flurka_numba.targets.sm90.shape import RandomFeatures, chunks
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import LANE_ROWS, LEFT_WORDS, MATRIX
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, GROUP, PRODUCT_DEPTH, WARPGROUP, keys_descriptor

POINTERS = ("q", "states", "out")
COUNTS = ("heads", "seq_q", "blocks", "tiles_of_block")
STRIDES = ("q_row", "q_head", "q_batch", "out_row", "out_head", "out_batch")
ENTRY = "apply"


def apply_parameters(traits: ApplyTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    pointers = (*POINTERS, *OMEGA_POINTERS) if isinstance(traits.feature_map, RandomFeatures) else POINTERS
    return parameters_of(pointers, COUNTS, STRIDES)


def apply_entry(traits: ApplyTraits) -> Entry:
    """How the kernel is called."""
    return Entry(ENTRY, apply_parameters(traits), WARPGROUP, traits.resident, traits.shared_bytes, overlaps=True)


def render_apply(traits: ApplyTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    products = {name: columns for columns, _, name in products_of(traits)}
    if isinstance(traits.feature_map, RandomFeatures):
        products["u"] = traits.feature_map.part
    out = start_text(
        apply_entry(traits),
        f"The state of every head applied to its queries, generated for feature map {traits.feature_map.name}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; {GROUP} queries at a time.",
        {f"add_to_{name}": product(traits, columns) for name, columns in products.items()},
    )
    with out.suite():
        _emit_start(out, traits)
        if isinstance(traits.feature_map, RandomFeatures):
            _emit_random_rows(out, traits, traits.feature_map)
        else:
            _emit_elementwise_rows(out, traits, traits.feature_map)
    return out.text()


def _emit_elementwise_rows(out: KernelWriter, traits: ApplyTraits, phi: FeatureMap) -> None:
    """The next queries are on their way, in registers of their own, while features take the place of these."""
    if traits.prefetches:
        _emit_queries(out, traits, "ahead")
    _emit_state(out, traits)
    with out.block("while tile < last"):
        if traits.prefetches:
            with out.block(f"for i in range({words(traits.head_dim)})"):
                out.line("word[i] = ahead[i]")
            _emit_next_tile(out)
            _emit_queries(out, traits, "ahead")
        else:
            _emit_queries(out, traits, "word")
            _emit_next_tile(out)
        with out.part("make_features", "phi of every number, in place."):
            _emit_features(out, traits, phi)
        emit_products(out, traits, _words_of_steps(traits))
        emit_results(out, traits)


def _emit_random_rows(out: KernelWriter, traits: ApplyTraits, phi: RandomFeatures) -> None:
    """The next queries are on their way once these were multiplied with omega."""
    emit_arrays(out, phi)
    if traits.prefetches:
        _emit_queries(out, traits, "word")
    emit_images(out, traits, phi)
    _emit_state(out, traits)
    with out.block("while tile < last"):
        if not traits.prefetches:
            _emit_queries(out, traits, "word")
        _emit_next_tile(out)
        emit_exponents(out, traits, phi)
        if traits.prefetches:
            _emit_queries(out, traits, "word")
        emit_features(out, traits, phi)
        emit_products(out, traits, _words_of_steps(traits))
        emit_results(out, traits)


def _emit_state(out: KernelWriter, traits: ApplyTraits) -> None:
    """The head's state to shared memory, once the launch before has left it. Queries are on their way by then."""
    with out.part("load_state", "The head's state to shared memory, once the launch before has left it."):
        out.lines(
            f"""
            ptx.await_launch()
            first = u32(1) if thread == u32(0) else u32(0)
            ptx.mbarrier_expect(full, u32({traits.state_bytes}), first)
            from_state = states + u64({traits.state_bytes}) * u64(pair)
            ptx.bulk_copy(state, from_state, u32({traits.state_bytes}), full, first)
            ptx.mbarrier_wait(full, u32(0))
            """
        )
    emit_state_scale(out, traits, "state")


def _emit_next_tile(out: KernelWriter) -> None:
    out.line("now_0 = row_0")
    out.line("now_1 = row_1")
    out.line("tile = u32(tile + u32(1))")


def _emit_start(out: KernelWriter, traits: ApplyTraits) -> None:
    """This block's head and rows."""
    emit_shared_start(out, "state", ALIGNMENT)
    out.lines(
        f"""
        images = u32(state + u32({traits.state_bytes}))
        full = u32(images + u32({2 * traits.omega_bytes}))
        thread = ptx.thread_index()
        """
    )
    emit_lane(out)
    emit_tiles(out, "seq_q")
    emit_barrier(out)
    out.lines(
        f"""
        q_at = q + u64(entry) * q_batch + u64(head) * q_head + u64(2) * u64(eighth)
        out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(2) * u64(eighth)
        descriptor = u64({keys_descriptor()}) | u64(state >> u32(4))
        word = cuda.local.array({words(traits.head_dim)}, dtype=np.uint32)
        """
    )
    if traits.prefetches and isinstance(traits.feature_map, FeatureMap):
        out.line(f"ahead = cuda.local.array({words(traits.head_dim)}, dtype=np.uint32)")
    emit_totals(out, traits)


def _emit_queries(out: KernelWriter, traits: ApplyTraits, to: str) -> None:
    """This lane's numbers of the tile's two rows, 0 beyond the last row or column."""
    with out.part("load_queries", "This lane's numbers of the tile's two rows, 0 beyond the last row or column."):
        for row in range(LANE_ROWS):
            out.line(f"row_{row} = u32(tile * u32({GROUP}) + row_in_tile + u32({MATRIX * row}))")
            out.line(f"real = u32(1) if row_{row} < seq_q else u32(0)")
            for chunk in range(chunks(traits.head_dim)):
                names = words_of_chunk(to, chunk, row)
                at = f"q_at + u64(row_{row}) * q_row + u64({2 * CHUNK * chunk})"
                out.line(f"{names} = ptx.load_words4_when({at}, {when('real', chunk, traits.head_dim)})")


def _emit_features(out: KernelWriter, traits: ApplyTraits, phi: FeatureMap) -> None:
    """phi of every number, in place."""
    text = {name: gpu_text(phi.source, name) for name in ("low", "high")}
    if traits.scaled:
        out.line(f"phi = cuda.local.array({CHUNK_NUMBERS * chunks(traits.head_dim)}, dtype=np.float32)")
    with out.block(f"for i in range({words(traits.head_dim)})"):
        out.line(f"low, high = ptx.unpack_{traits.dtype}(word[i])")
        emit_real_columns(out, traits.head_dim, ("low", "high"))
        if traits.scaled:
            out.line(f"phi[2 * i], phi[2 * i + 1] = {text['low']}, {text['high']}")
        else:
            out.line(f"word[i] = ptx.pack_{traits.dtype}({text['low']}, {text['high']})")
    if traits.scaled:
        emit_scaled_words(out, traits, "phi", "0", IN_SECOND_ROW)


def _words_of_steps(traits: ApplyTraits) -> list[str]:
    """What a product of 16 features takes from a lane, for one after the other."""
    if isinstance(traits.feature_map, RandomFeatures):
        return [quad_of("phi", LEFT_WORDS * step) for step in range(traits.features // PRODUCT_DEPTH)]
    return [
        left_operand("word", chunk, step) for chunk in range(chunks(traits.head_dim)) for step in range(CHUNK_STEPS)
    ]
