"""A gradient kernel's text: an item and its heads, a tile, and what is copied and multiplied.

P = exp2(score - lse), dS = P (dP - delta); dq or dk gains dS times the first right array, dv gains P times the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import ATOM, sums_of, words_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.plans.backward import KEYS
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu import gradient_text
from splat_numba.gen.targets.gpu.addresses import ITEM, TILE, emit_header, emit_length, emit_token
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, wrapped
from splat_numba.gen.targets.gpu.gradient_kernels import WRITTEN
from splat_numba.gen.targets.sm80.backward.keeping import (
    emit_first_image,
    emit_keep,
    emit_keeping,
    emit_next_images,
    emit_present,
)
from splat_numba.gen.targets.sm80.backward.pairs import NUMBER_OF_PAIR, emit_shared_sums, emit_sums, thread_of_rows
from splat_numba.gen.targets.sm80.backward.results import emit_results, emit_store
from splat_numba.gen.targets.sm80.backward.shape import (
    HEAD_NOTE,
    NOTE_BYTES,
    atoms_of,
    columns_at_once,
    shared_bytes,
    shared_layout,
    threads_of,
    total_registers,
)
from splat_numba.gen.targets.sm80.backward.slopes import emit_pairs, emit_slopes, part_of
from splat_numba.gen.targets.sm80.backward.tiles import emit_copies, emit_places, emit_products, operands_of, padded
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.products import described, numbers_of
from splat_numba.gen.targets.sm80.shape import CHUNK, row_bytes
from splat_numba.gen.targets.sm80.softmax import ZERO, emit_mask_functions, knows_status, skips, some_kept
from splat_numba.gen.targets.sm80.tiles import of_atoms
from splat_numba.gen.targets.sm80.walk import LEFT, Operand, Walk, emit_keep_note, emit_walk

ENTRY = "attention_gradients"
SCALES = ("scale_log2", "scale")


def gradients_text(traits: GradientTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits for an architecture, named after shape and type."""
    boxes = traits.boxes
    size = f"d{boxes.head_dim}_{numbers_of(boxes)}_{boxes.tile_q}x{boxes.tile_kv}"
    places, strides = gradient_text.addresses(traits.written)
    parameters = (
        *((name, "l") for name in (*places, *_kept(traits, "slopes"), *strides)), *((name, "f") for name in SCALES),
        *((name, "r") for name in _counts(traits)),
    )  # fmt: skip
    entry = Entry(ENTRY, parameters, threads_of(traits), boxes.blocks_per_multiprocessor, shared_bytes(traits),
                  arch=arch)  # fmt: skip
    made = "_".join((*traits.dims, *_kept(traits, "slopes")))
    return EmittedText(f"attention_{made}_sm80_{arch}_{size}", entry, render_gradients, (traits,))


def _kept(traits: GradientTraits, *names: str) -> tuple[str, ...]:
    """What stands only in kernels that keep slopes."""
    return names * (traits.kept == WRITTEN)


def _counts(traits: GradientTraits) -> tuple[str, ...]:
    """images: of a batch entry and head; listed: heads of all owners."""
    return (*gradient_text.COUNTS, *_kept(traits, "images", "listed"))


def render_gradients(traits: GradientTraits) -> str:
    """Python source of the kernel that serves every mask of these traits. Pure and deterministic."""
    out, boxes = SourceWriter(), traits.walked
    _emit_head(out, traits)
    _emit_entry(out, traits)
    walk = Walk(
        "work", "All tiles of a row block with one head.", _work_arguments(traits), boxes, threads_of(traits),
        lambda out: _emit_fetch(out, traits), "work_on_tile", _tile_parameters(traits),
    )  # fmt: skip
    emit_walk(out, walk)
    _emit_tile(out, traits)
    emit_places(out, traits)
    _emit_notes(out, traits)
    emit_token(out)
    emit_copies(out, traits)
    emit_products(out, traits)
    if traits.paired:
        emit_sums(out, traits)
    emit_mask_functions(out, boxes, ZERO, columns_at_once(traits))
    emit_slopes(out, traits)
    if traits.kept == WRITTEN:
        emit_keeping(out, traits)
    emit_results(out, traits)
    gradient_text.emit_owner_of_block(out)
    return out.text()


def _emit_head(out: SourceWriter, traits: GradientTraits) -> None:
    """Docstring, imports, places in shared memory."""
    boxes, layout, quotes = traits.boxes, shared_layout(traits), '"' * 3
    made = " and ".join((*traits.dims, *_kept(traits, "slopes")))
    rows, columns = ("keys", "queries") if traits.of == KEYS else ("queries", "keys")
    left, right = ("k and v", "q and dout") if traits.of == KEYS else ("q and dout", "k and v")
    tile = f"{boxes.tile_q} {rows} x {boxes.tile_kv} {columns}"
    out.lines(
        f"""
        {quotes}{made} of sparse attention by a warp's matrix products, for every mask of boxes.

        head_dim {boxes.head_dim}, value_dim {boxes.value_dim}, {described(boxes)}; {tile} a tile, by
        {threads_of(traits)} threads: each warp has {ATOM * atoms_of(traits)} rows. Left are {left}, right {right}.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        INFINITE = f32(np.inf)
        {DEVICE}
        wait_for_copies = ptx.async_wait(0)

        # Shared memory, in bytes from its aligned start: left tiles, stages, a note a warp; in a stage: right tiles.
        LEFT_1, LEFT_2 = u32({layout.left[0]}), u32({layout.left[1]})
        TILES, NOTES = u32({layout.stages}), u32({layout.notes})
        RIGHT_2, LEVELS, STAGE_BYTES = u32({layout.right_2}), u32({layout.levels}), u32({layout.stage_bytes})
        """
    )
    if traits.paired:
        out.line(f"GIVEN = u32({layout.given})")
    if traits.padded:
        out.line(f"PRESENT = u32({layout.present})")


def _emit_entry(out: SourceWriter, traits: GradientTraits) -> None:
    places, strides = gradient_text.addresses(traits.written)
    emit_header(out, ENTRY, ((*places, *_kept(traits, "slopes")), strides, SCALES, _counts(traits)))
    with out.suite():
        out.lines(
            f"""
            start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
            base = u32((start + u32({CHUNK - 1})) & u32({2**32 - CHUNK}))
            """
        )
        _emit_arrays(out, traits)
        wrapped(out, "rank, owner, entry = item_of_block", ITEM)
        out.lines(
            f"""
            head, first, end, _ = ptx.load_words4(owners + u64(16) * u64(owner))
            rows_at = rows + u64({4 * traits.boxes.tile_q}) * u64(rank)
            note = u32(base + NOTES + u32({NOTE_BYTES}) * u32(ptx.thread_index() >> u32(5)))
            keep_head(u32(note + u32({HEAD_NOTE})), head)
            left_1_at = left_1 + u64(entry) * left_1_batch + u64(head) * left_1_head
            copy_left_1(left_1_at, left_1_row, u32(base + LEFT_1), rows_at, seq_left)
            """
        )
        if traits.slopes:
            out.line("left_2_at = left_2 + u64(entry) * left_2_batch + u64(head) * left_2_head")
            out.line("copy_left_2(left_2_at, left_2_row, u32(base + LEFT_2), rows_at, seq_left)")
        if padded(traits):
            out.line("clear_padding(base)")
        if traits.padded:
            emit_present(out, traits)
        if not traits.columns_are_queries:
            out.line(f"levels_at = {gradient_text.levels_of('head')}")
            out.line("copy_levels(levels_at, u32(base + LEVELS), rows_at, seq_left)")
        out.line("limit = seq_right")
        if traits.limited:
            emit_length(out, "limit", "seq_right")
        _emit_heads(out, traits)
        if not traits.columns_are_queries:
            out.line("ptx.async_commit()  # lse and delta, of a row block without tiles")
            out.line("wait_for_copies()")
            out.line("ptx.block_barrier()")
        out.line(f"head, _, _, _ = ptx.load_shared_words4(u32(note + u32({HEAD_NOTE})))")
        _emit_places(out, traits)
        emit_store(out, traits)


def _emit_places(out: SourceWriter, traits: GradientTraits) -> None:
    """Where a thread's rows are listed."""
    out.lines(
        f"""
        row, column = place_in_warp({thread_of_rows(traits)})
        row_at = rows + u64({4 * traits.boxes.tile_q}) * u64(rank) + u64(4) * u64(row)
        """
    )


def _emit_heads(out: SourceWriter, traits: GradientTraits) -> None:
    """One head on the other side after the other."""
    levels = ("levels_at",) * traits.columns_are_queries
    with out.block("while first < end"):
        out.lines(
            """
            other = ptx.load_word(heads + u64(4) * u64(first))
            right_1_at = right_1 + u64(entry) * right_1_batch + u64(other) * right_1_head
            right_2_at = right_2 + u64(entry) * right_2_batch + u64(other) * right_2_head
            """
        )
        if levels:
            out.line(f"levels_at = {gradient_text.levels_of('other')}")
        if traits.kept == WRITTEN:
            emit_first_image(out, traits)
        out.line("ptx.block_barrier()  # nobody reads the tiles of the head before any more")
        sources = ("right_1_at", "right_2_at", *levels, *_kept(traits, "slopes_at"))
        wrapped(out, "keep_notes", ("note", "rank", "entry", "u32(first + u32(1))", "end", *sources))
        wrapped(out, "work", ("block + u64(32) * u64(rank)", *_work_arguments(traits)[1:]))
        out.line("rank, entry, first, end = ptx.load_shared_words4(note)")


def _arrays(traits: GradientTraits) -> dict[str, int]:
    """Registers of an atom, by name."""
    tile = sums_of(columns_at_once(traits))
    sizes = {"score": tile, **({"slope": tile} if traits.slopes else {})}
    if traits.packs:
        sizes["weight"] = words_of(columns_at_once(traits))
    if traits.paired:
        return sizes | {"total": total_registers(traits.boxes.head_dim)}
    return sizes | {f"{name}_total": total_registers(dim) for name, dim in traits.dims.items()}


def _emit_arrays(out: SourceWriter, traits: GradientTraits) -> None:
    """Each atom's scores, weights two a word, slopes and gradients."""
    for name, size in _arrays(traits).items():
        arrays, dtype = of_atoms(name, atoms_of(traits)), "uint32" if name == "weight" else "float32"
        for one in arrays:
            out.line(f"{one} = cuda.local.array({size}, dtype=np.{dtype})")
        if name.endswith("total"):
            with out.block(f"for i in range({size})"):
                for one in arrays:
                    out.line(f"{one}[i] = f32(0.0)")


def _state(traits: GradientTraits) -> tuple[str, ...]:
    return of_atoms(" ".join(_arrays(traits)), atoms_of(traits))


def _work_arguments(traits: GradientTraits) -> tuple[str, ...]:
    """Of ``work``, which goes through the tiles of a row block and a head."""
    return ("block_at", "piece", "views", *("bits",) * traits.boxes.partial, "right_1_row", "right_2_row", "base",
            "note", "scale_log2", *_state(traits), "box_shift", "limit")  # fmt: skip


def _tile_parameters(traits: GradientTraits) -> tuple[str, ...]:
    boxes = traits.walked
    masks = ("mask",) * knows_status(boxes)
    lengths = ("corner", "inner_step", "limit") * boxes.ragged
    return (*masks, *("bits",) * boxes.partial, *lengths, "base", "tile", "scale_log2", *_state(traits))


def _emit_fetch(out: SourceWriter, traits: GradientTraits) -> None:
    """What is wholly beyond the length is not fetched."""
    where, by_column = ", ".join(TILE), traits.columns_are_queries
    with out.block("if corner < limit") if traits.limited else nullcontext():
        out.line("right_1_at, right_2_at = right_arrays(note)")
        if by_column:
            out.line("levels_at = levels_of_head(note)")
        out.line(f"copy_right_1(right_1_at, right_1_row, u32(fetched + stage), {where})")
        out.line(f"copy_right_2(right_2_at, right_2_row, u32(fetched + RIGHT_2 + stage), {where})")
        if by_column:
            out.line(f"copy_levels(levels_at, u32(fetched + LEVELS + stage), {where})")


def _emit_tile(out: SourceWriter, traits: GradientTraits) -> None:
    """Where it is worked on in parts, these are a loop that stays one."""
    text, part, parameters = "One tile: weights, slopes, gradients.", part_of(traits), _tile_parameters(traits)
    with device_function(out, "work_on_tile", parameters, text):
        with out.block(f"if {some_kept()}") if skips(traits.walked) else nullcontext():
            if traits.paired:
                out.line(f"{part} = {NUMBER_OF_PAIR}")
                _emit_steps(out, traits)
            elif part:
                out.line(f"{part} = u32(0)")
                with out.block(f"while {part} < u32({traits.boxes.tile_kv // columns_at_once(traits)})"):
                    wrapped(out, "work_on_part", (part, *parameters))
                    out.line(f"{part} = u32({part} + u32(1))")
            else:
                _emit_steps(out, traits)
        if traits.kept == WRITTEN:
            emit_next_images(out)
    if part and not traits.paired:
        with device_function(out, "work_on_part", (part, *parameters), "The same of some of its columns."):
            _emit_steps(out, traits)


def _emit_steps(out: SourceWriter, traits: GradientTraits) -> None:
    atoms = atoms_of(traits)
    first, last = operands_of(traits)
    out.line(f"{', '.join(first)}, _, _ = places(base, tile)")
    _emit_to_part(out, traits, first)
    emit_pairs(out, traits)
    if traits.kept == WRITTEN:
        emit_keep(out, traits, of_atoms("slope", atoms))
    if traits.paired:
        emit_shared_sums(out, traits)
        return
    if last:
        out.line(f"{', '.join(last)}, _, _ = places_of_columns(base, tile)")
        _emit_to_part(out, traits, last)
    for name, values, right in (("dv", "score", "columns_2"), (traits.of_slopes, "slope", "columns_1")):
        if name in traits.dims:
            wrapped(out, f"add_{name}", (*of_atoms(f"{name}_total", atoms), *of_atoms(values, atoms), right))


def _emit_to_part(out: SourceWriter, traits: GradientTraits, operands: Mapping[str, Operand]) -> None:
    """What is right begins with the part's columns."""
    if part := part_of(traits):
        for name, one in operands.items():
            if one.kind != LEFT:
                apart = columns_at_once(traits) * row_bytes(one.dim)
                out.line(f"{name} = u32({name} + u32({apart}) * {part})")


def _emit_notes(out: SourceWriter, traits: GradientTraits) -> None:
    levels = ("levels_at",) * traits.columns_are_queries
    emit_keep_note(out, "keep_head", "For each warp: whose gradients it makes.", ("head",), ())
    text, item = "Its item, which heads are left, and where right arrays are.", ("rank", "entry", "following", "end")
    emit_keep_note(out, "keep_notes", text, item, ("right_1_at", "right_2_at", *levels, *_kept(traits, "slopes_at")))
    with device_function(out, "right_arrays", ("note",), "Where the right arrays of the head are."):
        out.lines(
            f"""
            low_1, high_1, low_2, high_2 = ptx.load_shared_words4(u32(note + u32({CHUNK})))
            return u64(u64(low_1) | (u64(high_1) << u64(32))), u64(u64(low_2) | (u64(high_2) << u64(32)))
            """
        )
    if levels:
        with device_function(out, "levels_of_head", ("note",), "Where lse and delta of the head's queries are."):
            out.lines(
                f"""
                low, high, _, _ = ptx.load_shared_words4(u32(note + u32({2 * CHUNK})))
                return u64(u64(low) | (u64(high) << u64(32)))
                """
            )
