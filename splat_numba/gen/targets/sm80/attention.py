"""The forward text: parameters and an item; what they call stands in the other files."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import ATOM, LANE_ROWS, MATRIX
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import (
    ITEM,
    POINTERS,
    STRIDES,
    emit_header,
    emit_item,
    emit_length,
    emit_operands,
    emit_token,
)
from splat_numba.gen.targets.gpu.functions import DEVICE, emit_shared_start, wrapped
from splat_numba.gen.targets.gpu.results import emit_epilogue, emit_places_of_results, rest_pointer, resumed, stored
from splat_numba.gen.targets.sm80.products import described, numbers_of
from splat_numba.gen.targets.sm80.rests import CALL as KEEP_RESTS
from splat_numba.gen.targets.sm80.rests import emit_rests
from splat_numba.gen.targets.sm80.shape import (
    CHUNK,
    NOTE_BYTES,
    REGISTERS,
    atoms_of,
    resident_blocks,
    score_registers,
    shared_bytes,
    shared_layout,
    threads_of,
    total_registers,
)
from splat_numba.gen.targets.sm80.softmax import emit_softmax
from splat_numba.gen.targets.sm80.stages import arguments, emit_products, emit_stages, loaded
from splat_numba.gen.targets.sm80.tiles import OPAQUE_THREAD, emit_load, emit_padding, of_atoms, padded

ENTRY = "attention"
WALKS = {1: "A tile is fetched, waited for and computed.", 2: "A tile is fetched while one is computed."}
COUNTS = (*ITEM, "heads_q", "group", "seq_q", "seq_kv", "box_shift")
PARAMETERS = (
    *((name, "l") for name in (*POINTERS, *STRIDES)), ("scale_log2", "f"), *((name, "r") for name in COUNTS),
)  # fmt: skip


def attention_text(traits: Traits, arch: str) -> EmittedText:
    """The text of the kernel with these traits for an architecture, named after shape and type."""
    shape = f"{traits.tile_q}x{traits.tile_kv}"
    name = f"attention_sm80_{arch}_d{traits.head_dim}_{numbers_of(traits)}_{shape}"
    blocks = max(min(traits.blocks_per_multiprocessor, resident_blocks(traits, REGISTERS)), 1)
    rest = [(name, "l") for name in rest_pointer(traits)]
    entry = Entry(ENTRY, (*PARAMETERS, *rest), threads_of(traits), blocks, shared_bytes(traits), arch=arch)
    return EmittedText(name, entry, render_attention, (traits,))


def render_attention(traits: Traits) -> str:
    """Python source of the kernel ``attention`` that serves every mask of these traits. Pure and deterministic."""
    out = SourceWriter()
    _emit_head(out, traits)
    _emit_entry(out, traits)
    emit_stages(out, traits)
    emit_token(out)
    for load, _ in loaded(traits):
        emit_load(out, load)
    if _padded(traits):
        emit_padding(out, loaded(traits))
    emit_products(out, traits)
    if traits.rests:
        emit_rests(out, traits)
    emit_softmax(out, traits)
    emit_epilogue(out, traits)
    emit_item(out)
    return out.text()


def _padded(traits: Traits) -> bool:
    return padded((traits.head_dim, traits.value_dim), ITEMSIZE[traits.dtype])


def _emit_head(out: SourceWriter, traits: Traits) -> None:
    """Docstring, imports, places in shared memory."""
    layout, atoms = shared_layout(traits), atoms_of(traits)
    quotes, tile = '"' * 3, f"{traits.tile_q} queries x {traits.tile_kv} keys"
    out.lines(
        f"""
        {quotes}Sparse attention by a warp's matrix products, generated for every mask that tables of boxes describe.

        head_dim {traits.head_dim}, value_dim {traits.value_dim}, {described(traits)}; {tile} a tile, by
        {threads_of(traits)} threads: each warp has {ATOM * atoms} rows. {WALKS[traits.stages]}
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        NONE_KEPT = f32(-np.inf)
        {DEVICE}
        wait_for_copies = ptx.async_wait(0)

        # Shared memory, in bytes from its aligned start: queries, stages, a note a warp; in a stage: keys, values.
        QUERIES, TILES, NOTES = u32({layout.queries}), u32({layout.stages}), u32({layout.notes})
        VALUES, STAGE_BYTES = u32({layout.values}), u32({layout.stage_bytes})
        """
    )


def _emit_entry(out: SourceWriter, traits: Traits) -> None:
    emit_header(out, ENTRY, (POINTERS, STRIDES, ("scale_log2",), COUNTS, rest_pointer(traits)))
    with out.suite():
        emit_shared_start(out, "base", CHUNK)
        _emit_state(out, traits)
        wrapped(out, "rank, head, entry = item_of_block", ("heads", *ITEM))
        out.line(f"rows_at = rows + u64({4 * traits.tile_q}) * u64(rank)")
        emit_operands(out)
        out.lines(
            f"""
            note = u32(base + NOTES + u32({NOTE_BYTES}) * u32(ptx.thread_index() >> u32(5)))
            keep_notes(note, rank, head, entry, k_at, v_at)
            copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
            """
        )
        if _padded(traits):
            out.line("clear_padding(base)")
        if traits.rests:
            out.lines(KEEP_RESTS)
        if traits.resumes:
            _emit_places(out, traits)
            _emit_for_rows(out, traits, "resume_row", resumed(traits))
        out.line("limit = seq_kv")
        if traits.ragged:
            emit_length(out, "limit", "seq_kv")
        wrapped(out, "attend", ("block + u64(32) * u64(rank)", *arguments(traits)[1:]))
        out.line("rank, head, entry, _ = ptx.load_shared_words4(note)")
        _emit_places(out, traits)
        _emit_for_rows(out, traits, "store_row", stored(traits))


def _emit_places(out: SourceWriter, traits: Traits) -> None:
    """Where a thread's rows are listed, and results of its head go: registers that the tiles are not to find taken."""
    out.lines(
        f"""
        row, column = place_in_warp({OPAQUE_THREAD})
        row_at = rows + u64({4 * traits.tile_q}) * u64(rank) + u64(4) * u64(row)
        """
    )
    emit_places_of_results(out, traits)


def _emit_state(out: SourceWriter, traits: Traits) -> None:
    """Each atom's scores, results, peaks and sums: an empty softmax."""
    for name, size in (
        ("score", score_registers(traits)),
        ("total", total_registers(traits)),
        ("peak", LANE_ROWS),
        ("added", LANE_ROWS),
    ):
        for one in of_atoms(name, atoms_of(traits)):
            out.line(f"{one} = cuda.local.array({size}, dtype=np.float32)")
    out.line(f"rescale = cuda.local.array({LANE_ROWS}, dtype=np.float32)")
    for atom in range(atoms_of(traits)):
        out.lines(
            f"""
            for i in range({LANE_ROWS}):
                peak_{atom}[i], added_{atom}[i] = NONE_KEPT, f32(0.0)
            for i in range({total_registers(traits)}):
                total_{atom}[i] = f32(0.0)
            """
        )


def _emit_for_rows(out: SourceWriter, traits: Traits, function: str, parameters: tuple[str, ...]) -> None:
    """A call for each of a thread's rows; of each atom's arrays its own."""
    for atom in range(atoms_of(traits)):
        own = {name: f"{name}_{atom}" for name in ("total", "peak", "added")}
        for row in range(LANE_ROWS):
            out.line(f"q_idx = ptx.load_word(row_at + u64({4 * (ATOM * atom + MATRIX * row)}))")
            wrapped(out, function, (str(row), *(own.get(name, name) for name in parameters[1:])))
