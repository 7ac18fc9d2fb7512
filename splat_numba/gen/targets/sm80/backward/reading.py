"""The text of a kernel of queries that reads kept slopes: dq = dS k, a product a tile in place of three.

Images and keys of a few tiles are on their way at a time, as memory is further away than the cache. keeping.py has the
order of an image, in which rows of a product are queries 8 i + 2 t and the next.
"""

from __future__ import annotations

from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.boxes.passes import GROUP_ROWS
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, ROW_LANES, WARP, log2
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu import gradient_text
from splat_numba.gen.targets.gpu.addresses import ITEM, STEPS, TILE, TOKEN_OF_TILE, emit_header, emit_token
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, wrapped
from splat_numba.gen.targets.sm80.backward.keeping import ATOM_BYTES, KEYS_BYTES, PART_BYTES, PART_QUERIES
from splat_numba.gen.targets.sm80.backward.reading_shape import (
    atoms_of,
    reading_bytes,
    reading_layout,
    threads_of,
    total_registers,
)
from splat_numba.gen.targets.sm80.backward.results import emit_results
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.shape import CHUNK
from splat_numba.gen.targets.sm80.tiles import (
    Load,
    SumProduct,
    emit_add,
    emit_load,
    emit_padding,
    emit_sum_product,
    of_atoms,
    of_stages,
    padded,
)
from splat_numba.gen.targets.sm80.walk import TRANSPOSED, Operand, emit_lane_places, emit_place_in_warp

ENTRY = "attention_gradients"
ARRAYS = ("right_1", "dq")
POINTERS = ("rows", "block", "piece", "views", "owners", "heads", *ARRAYS, "slopes", "levels")
STRIDES = tuple(f"{name}_{step}" for name in ARRAYS for step in STEPS)
COUNTS = (*ITEM, "heads_levels", "seq_left", "seq_right", "seq_q", "images", "listed")
_THREAD = "ptx.thread_index()"
READ_AHEAD = ("status", "image_0", "image_1", "corner", "inner_step", "outer_step")  # what is known of the next tile
FETCH = (*READ_AHEAD, "keys_at", "keys_row", "slopes_at", "limit", "to")


def reading_text(traits: GradientTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits for an architecture, named after shape and type."""
    boxes = traits.boxes
    name = f"attention_dq_of_slopes_sm80_{arch}_d{boxes.head_dim}_{boxes.dtype}_{boxes.tile_q}x{boxes.tile_kv}"
    parameters = (
        *((name, "l") for name in (*POINTERS, *STRIDES)), ("scale", "f"), *((name, "r") for name in COUNTS),
    )  # fmt: skip
    entry = Entry(ENTRY, parameters, threads_of(traits), boxes.blocks_per_multiprocessor, reading_bytes(traits),
                  arch=arch)  # fmt: skip
    return EmittedText(name, entry, render_reading, (traits,))


def render_reading(traits: GradientTraits) -> str:
    """Python source of the kernel that serves every mask of these traits. Pure and deterministic."""
    out, load = SourceWriter(), _load(traits)
    _emit_head(out, traits)
    _emit_entry(out, traits)
    _emit_walk(out, traits)
    _emit_read_ahead(out)
    _emit_fetch(out, traits)
    _emit_copy_image(out, traits)
    _emit_tile(out, traits)
    _emit_places(out, traits)
    emit_token(out)
    emit_load(out, load)
    if padded((load.dim,)):
        emit_padding(out, [(load, of_stages("base", reading_layout(traits).stage_bytes, traits.boxes.stages))])
    emit_add(out, traits.boxes.dtype)
    emit_sum_product(out, _product(traits), traits.boxes.dtype)
    emit_results(out, traits)
    gradient_text.emit_owner_of_block(out)
    return out.text()


def _load(traits: GradientTraits) -> Load:
    """Of keys; beyond the last one slopes are 0, and what is there must be a number. That a tile is one line is
    not made use of: some shapes would spill two registers then.
    """
    boxes, padding = traits.boxes, traits.padded
    return Load("keys", boxes.tile_kv, boxes.head_dim, threads_of(traits), TILE, TOKEN_OF_TILE, padding, False)


def _product(traits: GradientTraits) -> SumProduct:
    atoms, boxes = atoms_of(traits), traits.boxes
    texts = ("Slopes of a warp's queries times a tile's keys.", "Sixteen keys.")
    return SumProduct(
        "add_dq", of_atoms("total", atoms), of_atoms("slopes", atoms), "keys", boxes.tile_kv, boxes.head_dim, texts,
        ATOM_BYTES,
    )  # fmt: skip


def _emit_head(out: SourceWriter, traits: GradientTraits) -> None:
    """Docstring, imports, places in a stage."""
    boxes, layout, quotes = traits.boxes, reading_layout(traits), '"' * 3
    out.lines(
        f"""
        {quotes}dq of sparse attention of slopes that are kept, by a warp's matrix products, for every mask of boxes.

        head_dim {boxes.head_dim}, {boxes.dtype}; {boxes.tile_q} queries x {boxes.tile_kv} keys a tile, by
        {threads_of(traits)} threads: each warp has {ATOM * atoms_of(traits)} rows. {boxes.stages} stages.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        INFINITE = f32(np.inf)
        {DEVICE}
        wait_for_copies = ptx.async_wait({boxes.stages - 2})

        # Of shared memory: stages, in each keys, an image a group, and which of these there are.
        IMAGES, STATUS = u32({layout.images}), u32({layout.status})
        STAGE_BYTES, LAST_STAGE = u32({layout.stage_bytes}), u32({(boxes.stages - 1) * layout.stage_bytes})
        """
    )


def _emit_entry(out: SourceWriter, traits: GradientTraits) -> None:
    totals = of_atoms("total", atoms_of(traits))
    emit_header(out, ENTRY, (POINTERS, STRIDES, ("scale",), COUNTS))
    with out.suite():
        out.lines(
            f"""
            start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
            base = u32((start + u32({CHUNK - 1})) & u32({2**32 - CHUNK}))
            """
        )
        for name in totals:
            out.line(f"{name} = cuda.local.array({total_registers(traits)}, dtype=np.float32)")
            with out.block(f"for i in range({total_registers(traits)})"):
                out.line(f"{name}[i] = f32(0.0)")
        wrapped(out, "rank, owner, entry = item_of_block", ITEM)
        out.lines(
            f"""
            head, first, _, _ = ptx.load_words4(owners + u64(16) * u64(owner))  # a query head has one key head
            other = ptx.load_word(heads + u64(4) * u64(first))
            keys_at = right_1 + u64(entry) * right_1_batch + u64(other) * right_1_head
            slopes_at = slopes + u64({IMAGE_BYTES}) * u64(entry * listed + first) * u64(images)
            """
        )
        if padded((traits.boxes.head_dim,)):
            out.line("clear_padding(base)")
        wrapped(out, "work", ("block + u64(32) * u64(rank)", *_work_arguments(traits)[1:]))
        _emit_store(out, traits)


def _emit_store(out: SourceWriter, traits: GradientTraits) -> None:
    """Rows are queries in the order of the images. 0 x NaN is NaN: what a row without gradient has is put aside."""
    out.lines(
        f"""
        row, column = place_of_thread({_THREAD})
        row_at = rows + u64({4 * traits.boxes.tile_q}) * u64(rank) + u64(4) * u64(row)
        levels_at = {gradient_text.levels_of("head")}
        dq_at = dq + u64(entry) * dq_batch + u64(head) * dq_head
        """
    )
    for atom in range(atoms_of(traits)):
        for half in range(LANE_ROWS):
            place = LANE_COLUMNS * (LANE_ROWS * atom + half)
            out.lines(
                f"""
                token = ptx.load_word(row_at + u64({4 * place}))
                safe = token if token < seq_left else u32(0)
                level, _, _, _ = ptx.load_reals4(levels_at + u64(16) * u64(safe))
                share = scale if level < INFINITE else f32(0.0)
                store_dq({half}, token, total_{atom}, column, share, dq_at, dq_row, seq_left)
                """
            )


def _work_arguments(traits: GradientTraits) -> tuple[str, ...]:
    totals = of_atoms("total", atoms_of(traits))
    return ("block_at", "piece", "views", "keys_at", "right_1_row", "slopes_at", "base", *totals, "seq_right")


def _emit_walk(out: SourceWriter, traits: GradientTraits) -> None:
    """With n stages tile i is fetched when tile i - n + 1 is about to be computed: one barrier a tile, after which
    nobody reads the stage that is filled next. What is read of the tables for a tile is on its way in the step before.
    """
    ahead, totals = ", ".join(READ_AHEAD), ", ".join(of_atoms("total", atoms_of(traits)))
    text = "All tiles of a row block: while one is computed the next are fetched."
    with device_function(out, "work", _work_arguments(traits), text):
        out.lines(
            f"""
            place = ptx.load_word(block_at + u64(12))
            left = ptx.load_word(block_at + u64(20))
            tiles = left
            before = u32({traits.boxes.stages - 1})
            fetched = computed = u32(0)
            {" = ".join(READ_AHEAD)} = u32(0)
            if left > u32(0):
                {ahead} = read_tile(piece, views, place)
            """
        )
        with out.block("while tiles > u32(0)"):
            out.lines(
                """
                if before == u32(0):
                    wait_for_copies()
                    ptx.block_barrier()  # the tile is there, and nobody reads the one before it any more
                """
            )
            with out.block("if left > u32(0)"):
                arguments = {"keys_row": "right_1_row", "limit": "seq_right", "to": "u32(base + fetched)"}
                wrapped(out, "fetch_tile", [arguments.get(name, name) for name in FETCH])
                out.lines(
                    f"""
                    left = u32(left - u32(1))
                    place = u32(place + u32(1)) if left > u32(0) else place
                    {ahead} = read_tile(piece, views, place)
                    """
                )
            out.lines(
                f"""
                ptx.async_commit()
                fetched = u32(fetched + STAGE_BYTES) if fetched < LAST_STAGE else u32(0)
                if before == u32(0):
                    work_on_tile(u32(base + computed), {totals})
                    computed = u32(computed + STAGE_BYTES) if computed < LAST_STAGE else u32(0)
                    tiles = u32(tiles - u32(1))
                else:
                    before = u32(before - u32(1))
                """
            )


def _emit_read_ahead(out: SourceWriter) -> None:
    """A piece is one tile, whose keys are neighbours in their view."""
    with device_function(out, "read_tile", ("piece", "views", "place"), "Which images and keys a tile has."):
        out.lines(
            f"""
            view, c1, c2, _ = ptx.load_words4(piece + u64(32) * u64(place))
            status, image_0, image_1, _ = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
            offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
            corner = u32(offset + inner_step * c1 + outer_step * c2)
            return {", ".join(READ_AHEAD)}
            """
        )


def _emit_fetch(out: SourceWriter, traits: GradientTraits) -> None:
    """Of a group that keeps nothing of the tile there is no image."""
    shift = log2(traits.boxes.tile_kv)
    with device_function(out, "fetch_tile", FETCH, "Begin to copy a tile's keys and images."):
        out.line(f"copy_keys(keys_at, keys_row, to, corner, inner_step, outer_step, u32({shift}), limit)")
        for group in range(traits.boxes.groups):
            source = f"slopes_at + u64({IMAGE_BYTES}) * u64(image_{group})"
            there = f"u32(status >> u32({2 * group})) & u32(1)"
            out.line(f"copy_image({source}, u32(to + IMAGES + u32({IMAGE_BYTES * group})), {there})")
        out.line("first = u32(1) if ptx.thread_index() == u32(0) else u32(0)")
        out.line("ptx.store_shared_word(u32(to + STATUS), status, first)")


def _emit_copy_image(out: SourceWriter, traits: GradientTraits) -> None:
    with device_function(out, "copy_image", ("source", "to", "there"), "Begin to copy an image, if there is one."):
        out.line(f"at = u32(u32({CHUNK}) * ptx.thread_index())")
        for first in range(0, IMAGE_BYTES, CHUNK * threads_of(traits)):
            out.line(f"ptx.async_copy(u32(to + at + u32({first})), source + u64(at) + u64({first}), there)")


def _emit_tile(out: SourceWriter, traits: GradientTraits) -> None:
    """All lanes of a warp have rows of one group."""
    atoms = atoms_of(traits)
    totals, slopes = of_atoms("total", atoms), of_atoms("slopes", atoms)
    with device_function(out, "work_on_tile", ("tile", *totals), "Slopes of a tile times its keys."):
        out.line(f"keys, {', '.join(slopes)}, group = places(tile)")
        if traits.boxes.groups == 1:
            wrapped(out, "add_dq", (*totals, *slopes, "keys"))
            return
        out.line("status = u32(ptx.load_shared_word(u32(tile + STATUS)) >> u32(u32(2) * group))")
        with out.block("if ptx.any_lane(u32(status & u32(1))) != u32(0)"):
            wrapped(out, "add_dq", (*totals, *slopes, "keys"))


def _emit_places(out: SourceWriter, traits: GradientTraits) -> None:
    """Of the four matrices of a product's left operand the second one has other queries, the third one other keys."""
    atoms, slopes = atoms_of(traits), of_atoms("slopes", atoms_of(traits))
    text = "Where a lane's rows of the first matrices of keys and slopes begin; its group."
    with device_function(out, "places", ("tile",), text):
        out.lines(
            f"""
            keys, _, _ = place_of_keys(u32(0), tile)
            thread = {_THREAD}
            lane, first_row = u32(thread & u32({WARP - 1})), u32(u32(thread >> u32({log2(WARP)})) * u32({ATOM * atoms}))
            matrix, key = u32(lane >> u32({log2(MATRIX)})), u32(lane & u32({MATRIX - 1}))
            place = u32(u32(matrix & u32(1)) + {_second_sixteen(atoms)})
            part = u32(first_row >> u32({log2(PART_QUERIES)}))
            group = u32(part >> u32({log2(GROUP_ROWS // PART_QUERIES)}))
            images = u32(tile + IMAGES + u32({IMAGE_BYTES}) * group)
            images = u32(images + u32({PART_BYTES}) * u32(part & u32({GROUP_ROWS // PART_QUERIES - 1})))
            images = u32(images + u32({KEYS_BYTES}) * u32(matrix >> u32(1)) + u32({CHUNK * ROW_LANES}) * key)
            """
        )
        for atom, name in enumerate(slopes):
            lane_of_row = f"u32(place + u32({LANE_ROWS * atom}))" if atom else "place"
            out.line(f"{name} = u32(images + u32({CHUNK}) * u32({lane_of_row} ^ u32(key >> u32(1))))")
        out.line(f"return keys, {', '.join(slopes)}, group")
    text = "Where a lane's row of the first matrices of keys begins."
    emit_lane_places(out, "place_of_keys", {"keys": Operand(TRANSPOSED, "tile", traits.boxes.head_dim)}, atoms, text)
    emit_place_in_warp(out, atoms)
    _emit_place_of_thread(out, atoms)


def _second_sixteen(atoms: int) -> str:
    """Of the lanes that share a row, whose words are queries of a warp's first product: 0, or where a warp has sixteen
    rows of the 32 that go together perhaps the others.
    """
    if ATOM * atoms == PART_QUERIES:
        return "u32(0)"
    return f"u32(u32(u32(first_row >> u32({log2(ATOM)})) & u32(1)) * u32({LANE_ROWS}))"


def _emit_place_of_thread(out: SourceWriter, atoms: int) -> None:
    """Row 2 i + x of a matrix is query 8 i + 2 t + x."""
    text = "A thread's first row of the block's, whose others are two apart, and its first column of each eight."
    with device_function(out, "place_of_thread", ("thread",), text):
        out.lines(
            f"""
            first_row = u32(u32(thread >> u32({log2(WARP)})) * u32({ATOM * atoms}))
            row = u32(u32(thread & u32({WARP - 1})) >> u32({log2(ROW_LANES)}))
            row = u32(u32({MATRIX}) * u32(row >> u32(1)) + u32(row & u32(1)))
            row = u32(row + u32({LANE_COLUMNS}) * {_second_sixteen(atoms)})
            first = u32(first_row & u32({2**32 - PART_QUERIES}))
            return u32(first + row), u32(u32(thread & u32({ROW_LANES - 1})) * u32({LANE_COLUMNS}))
            """
        )
