"""A consumer warpgroup's part of a gradient text: its 64 tokens of the left tile against the right tiles that pass.

Groups take turns by themselves: while one takes exponentials, the other's products keep the tensor cores busy.
"""

from __future__ import annotations

from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.language.lane_layout import LANE_ROWS, MATRIX, sums_of, words_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.gradient_kernels import FINISHED, READ, WRITTEN
from splat_numba.gen.targets.sm90.backward.products import emit_products
from splat_numba.gen.targets.sm90.backward.results import emit_results
from splat_numba.gen.targets.sm90.backward.slopes import emit_slopes
from splat_numba.gen.targets.sm90.backward.traits import IMAGE_PART, BackwardTraits
from splat_numba.gen.targets.sm90.epilogue import emit_rows
from splat_numba.gen.targets.sm90.handover import emit_status
from splat_numba.gen.targets.sm90.shape import INFO_BYTES
from splat_numba.gen.targets.sm90.softmax import emit_mask_place, emit_place, masks


def may_skip(traits: BackwardTraits) -> bool:
    """Whether a group may have to skip a tile: by the mask, or because key lengths leave it out."""
    return traits.boxes.skips or traits.clears


def arguments(traits: BackwardTraits) -> tuple[str, ...]:
    """Of the function ``consume``."""
    lengths = ("kv_lengths",) * (traits.ragged and not traits.clears)
    levels = () if traits.columns_are_queries else ("levels",)
    numbers = ("scale_log2", "scale", "seq", "heads_left")
    slopes = ("slopes",) * (traits.kept == WRITTEN)
    return (
        "base", "thread", "warpgroup", "rows", *lengths, *levels, *slopes, *traits.written, *numbers, *traits.strides,
    )  # fmt: skip


def emit_consumer(out: SourceWriter, traits: BackwardTraits) -> None:
    """The consumers' functions: their loop over items, over tiles, and what these call."""
    _emit_items(out, traits)
    _emit_tiles(out, traits)
    _emit_wait(out, traits)
    _emit_giving_back(out)
    emit_products(out, traits)
    emit_slopes(out, traits)
    emit_results(out, traits)


def _totals(traits: BackwardTraits) -> dict[str, int]:
    """The accumulators by name, and how many registers a thread has of each."""
    return {f"{name}_total": sums_of(-(-dim // MATRIX) * MATRIX) for name, dim in traits.dims.items()}


def _registers(traits: BackwardTraits) -> dict[str, tuple[int, str]]:
    """A thread's arrays: how many numbers of which type."""
    tile = traits.boxes.tile_kv
    found = {name: (size, "float32") for name, size in _totals(traits).items()}
    if traits.scores:
        found["score"] = sums_of(tile), "float32"
    if traits.weights:
        found["weight"] = words_of(tile), "uint32"
    if traits.slopes:
        found["slope"] = sums_of(tile), "float32"
    if traits.slopes or traits.kept:
        found["change"] = words_of(tile), "uint32"
    return found


def _levels(traits: BackwardTraits) -> tuple[str, ...]:
    """Arrays of the two rows' lse and delta, where those belong to rows."""
    return () if traits.columns_are_queries else ("lse", "delta")


def _tile_arguments(traits: BackwardTraits) -> tuple[str, ...]:
    mask = ("mask_base",) * traits.boxes.partial
    lefts = tuple(f"left_{i}_at" for i in range(1, len(traits.left_dims) + 1))
    state = ("tiles", "stage", "phase", "left_stage")
    kept = ("image_place",) * bool(traits.kept) + ("slopes",) * (traits.kept == WRITTEN)
    padded = ("keep_0", "keep_1") * traits.padded
    scores = ("column", *mask, *lefts, "scale_log2", *_levels(traits)) * traits.scores
    return ("base", "warpgroup", *scores, *kept, *padded, *state, *_registers(traits))


def _emit_items(out: SourceWriter, traits: BackwardTraits) -> None:
    with device_function(out, "consume", arguments(traits), "A consumer warpgroup: 64 tokens of each item."):
        _emit_registers(out, traits)
        with out.block("while True"):
            _emit_item(out, traits)
            wrapped(out, "stage, phase = work", _tile_arguments(traits))
            _emit_stores(out, traits)
            out.line("left_stage, left_phase = advance(left_stage, left_phase, LEFT_STAGES)")


def _emit_registers(out: SourceWriter, traits: BackwardTraits) -> None:
    """What a thread holds throughout: where its rows and columns are, and the arrays that become registers."""
    emit_place(out)
    for name, (size, dtype) in _registers(traits).items():
        out.line(f"{name} = cuda.local.array({size}, dtype=np.{dtype})")
    for name in _levels(traits):
        out.line(f"{name} = cuda.local.array({LANE_ROWS}, dtype=np.float32)")
    for name in ("score", "slope")[: traits.pairs]:
        with out.block(f"for i in range({sums_of(traits.boxes.tile_kv)})"):
            out.line(f"{name}[i] = f32(0.0)")
    out.line("stage = phase = left_stage = left_phase = u32(0)")
    if traits.boxes.partial:
        emit_mask_place(out, traits.boxes)
    if traits.kept:
        apart = IMAGE_PART * (4 if traits.kept == WRITTEN else 1)  # a warp writes 16 keys of all queries
        at = f"warpgroup * u32({IMAGE_BYTES}) + ((thread >> u32(5)) & u32(3)) * u32({apart})"
        out.line(f"image_place = {at} + (thread & u32(31)) * u32(16)")


def _emit_item(out: SourceWriter, traits: BackwardTraits) -> None:
    """The item's left tile has arrived; its gradients begin as 0."""
    out.lines(
        f"""
        ptx.mbarrier_wait(base + LEFT_FULL + left_stage * u32(8), left_phase)
        tiles, rank, head, entry = ptx.load_shared_words4(base + ITEM_INFO + left_stage * u32({INFO_BYTES}))
        if rank == NO_ITEM:
            break
        """
    )
    emit_rows(out, traits.boxes)
    for i in range(1, len(traits.left_dims) + 1):
        out.line(f"left_{i}_at = left_{i}_of(base, warpgroup, left_stage)")
    for row in (0, 1) if traits.padded else ():
        out.line(f"keep_{row} = u32(0xFFFFFFFF) if row_{row} < seq else u32(0)")
    if not traits.columns_are_queries:
        out.line("levels_at = levels + u64(16) * (u64(entry) * u64(heads_left) + u64(head)) * u64(seq)")
        for row in (0, 1):
            out.line(f"read_levels({row}, row_{row}, levels_at, seq, lse, delta)")
    for name, size in _totals(traits).items():
        with out.block(f"for i in range({size})"):
            out.line(f"{name}[i] = f32(0.0)")


def _emit_stores(out: SourceWriter, traits: BackwardTraits) -> None:
    """Both rows of every gradient."""
    out.line("give_left_back(base, tiles, left_stage)  # of an item without tiles")
    if traits.columns_are_queries and traits.ragged:
        emit_length(out, "end")
    for name in traits.dims:
        places = (name, f"{name}_sums") if traits.result == FINISHED else (name,)
        for one in places:
            out.line(f"{one}_at = {one} + u64(entry) * {one}_batch + u64(head) * {one}_head")
        where = ", ".join(f"{one}_at, {one}_row" for one in places)
        factor = "f32(1.0)" if name == "dv" else "scale"
        for row in (0, 1):
            share = factor
            if not traits.columns_are_queries:
                share = f"share_{row}"
                out.line(f"share_{row} = {factor} if lse[{row}] < f32(np.inf) else f32(0.0)")
            elif traits.ragged:
                share = f"share_{row}"
                out.line(f"share_{row} = {factor} if row_{row} < end else f32(0.0)")
            out.line(f"store_{name}({row}, row_{row}, column, {name}_total, {share}, {where}, seq)")


def _emit_tiles(out: SourceWriter, traits: BackwardTraits) -> None:
    """All tiles of an item, one after the other."""
    text = "An item's tiles; where the ring of tiles is then."
    with device_function(out, "work", _tile_arguments(traits), text):
        with out.block("while tiles > u32(0)"):
            _emit_read(out, traits)
            if may_skip(traits):
                with out.block("if kept != u32(0)"):
                    _emit_tile(out, traits)
            else:
                _emit_tile(out, traits)
            out.lines(
                """
                give_right_back(base, stage)
                tiles = u32(tiles - u32(1))
                give_left_back(base, tiles, left_stage)
                stage, phase = advance(stage, phase, STAGES)
                """
            )
        out.line("return stage, phase")


def _info(traits: BackwardTraits) -> tuple[str, ...]:
    """What of a tile this group keeps: the word for all groups, which has the length, and its own part."""
    status = ("status",) * (may_skip(traits) or traits.boxes.partial)
    return ("word",) * traits.clears + status + ("image",) * (traits.kept == WRITTEN)


def _emit_read(out: SourceWriter, traits: BackwardTraits) -> None:
    names = (*_info(traits), *("kept",) * may_skip(traits))
    group = ("warpgroup",) * bool(names)
    assigned = f"{', '.join(names)} = " if names else ""
    out.line(f"{assigned}wait_right({', '.join(('base', *group, 'stage', 'phase'))})")


def _emit_wait(out: SourceWriter, traits: BackwardTraits) -> None:
    names = (*_info(traits), *("kept",) * may_skip(traits))
    parameters = ("base", *("warpgroup",) * bool(names), "stage", "phase")
    with device_function(out, "wait_right", parameters, "A right tile is there; and which of its pairs are kept."):
        out.line("ptx.mbarrier_wait(base + RIGHT_FULL + stage * u32(8), phase)")
        if names:
            out.line(f"info = base + TILE_INFO + stage * u32({INFO_BYTES})")
            if traits.kept == WRITTEN:
                out.line("word, image, _, _ = ptx.load_shared_words4(info)")
            else:
                out.line("word = ptx.load_shared_word(info)")
            emit_status(out, skips=may_skip(traits))
            out.line(f"return {', '.join(names)}")


def _emit_giving_back(out: SourceWriter) -> None:
    """Every lane says so for itself: a leader would have to wait for the others at a barrier of the warp, which ptxas
    leaves out next to products, and then nothing orders their reads (racecheck).
    """
    with device_function(out, "give_right_back", ("base", "stage"), "A right tile may be overwritten."):
        out.line("ptx.mbarrier_arrive(base + RIGHT_EMPTY + stage * u32(8), u32(1))")
    text = "The left tile may be overwritten, if no right tile is left."
    with device_function(out, "give_left_back", ("base", "tiles", "left_stage"), text):
        out.lines(
            """
            if tiles == u32(0):
                ptx.mbarrier_arrive(base + LEFT_EMPTY + left_stage * u32(8), u32(1))
            """
        )


def _emit_tile(out: SourceWriter, traits: BackwardTraits) -> None:
    """Scores and dP are issued together; weights are made while dP is multiplied, and dv while slopes are made."""
    if traits.kept == READ:
        out.line("load_slopes(change, base, stage, image_place)")
        out.line(f"multiply_slopes({traits.of_slopes}_total, change, base, stage)")
        out.line("ptx.wgmma_wait_all()")
        return
    levels = ("base", "stage", "column") if traits.columns_are_queries else ()
    rows = _levels(traits)
    out.line("multiply_left_1(score, base, left_1_at, stage)")
    if traits.slopes:
        out.line("multiply_left_2(slope, base, left_2_at, stage)")
        out.line("ptx.wgmma_wait_but_one()")
    else:
        out.line("ptx.wgmma_wait_all()")
    for mask in masks(traits.boxes, limited=traits.clears):
        out.line(mask)
    out.line(f"weigh({', '.join(('score', 'scale_log2', *levels, *rows[:1]))})")
    if traits.weights:
        out.line("round_weights(weight, score)")
        out.line("multiply_weights(dv_total, weight, base, stage)")
    if traits.slopes:
        out.line("ptx.wgmma_wait_but_one()" if traits.weights else "ptx.wgmma_wait_all()")
        out.line(f"make_slopes({', '.join(('slope', 'weight' if traits.weights else 'score', *levels, *rows[1:]))})")
        out.line("round_slopes(change, slope)")
        if traits.kept:
            wrapped(
                out, "keep_slopes", ("change", "slopes", "image", "image_place", *("keep_0", "keep_1") * traits.padded)
            )
        if traits.of_slopes:
            out.line(f"multiply_slopes({traits.of_slopes}_total, change, base, stage)")
    out.line("ptx.wgmma_wait_all()")
