"""The producer's part of a gradient text: it takes items, and has boxes of both sides copied into shared memory.

An item is a left tile of an owner (the query head of dq, the key head of dk and dv); its right tiles are those of the
mask's row block, once for every head of the owner's list, in that order.
"""

from __future__ import annotations

from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.tensor_map import MAP_BYTES
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.gradient_kernels import READ, WRITTEN
from splat_numba.gen.targets.gpu.items import emit_rank
from splat_numba.gen.targets.gpu.softmax import emit_valid
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits
from splat_numba.gen.targets.sm90.lengths import emit_clear_tile, emit_cleared
from splat_numba.gen.targets.sm90.loads import Passing, emit_copies, emit_masks, tile_loop
from splat_numba.gen.targets.sm90.producer import emit_end, emit_fences, item_loop
from splat_numba.gen.targets.sm90.shape import INFO_BYTES

ITEM = ("items", "block", "owners", "blocks", "heads_count", "batch", "heads_per_wave")
HEAD, FIRST, END = 8, 9, 10  # lanes that have an owner's words


def arguments(traits: BackwardTraits) -> tuple[str, ...]:
    """Of the function ``produce``."""
    left, bits = ("left_maps",) * bool(traits.pairs), ("bits",) * traits.scores
    tables = (*left, "right_maps", "block", "piece", *bits, *("slopes",) * (traits.kept == READ), "owners", "heads")
    ragged = ("kv_lengths", "views") if traits.clears else ()
    counts = ("blocks", "heads_count", "batch", "heads_per_wave", "left_views", "right_views")
    return ("base", *tables, "counter", *ragged, *counts, *("images", "listed") * bool(traits.kept))


def _maps_a_view(traits: BackwardTraits) -> tuple[int, int]:
    """Tensor maps of a view of the left side, and of the right: lse and delta come as boxes of queries do."""
    return len(traits.left_dims), len(traits.right_dims) + traits.columns_are_queries


def emit_producer(out: SourceWriter, traits: BackwardTraits) -> None:
    """The producer's functions: its loop over items, then what it calls."""
    _emit_items(out, traits)
    emit_end(out, "LEFT")
    emit_fences(out)
    _emit_read_item(out)
    if traits.pairs:
        _emit_load_left(out, traits)
    text = "The right tiles of one head, as stages become free."
    with tile_loop(out, _passing(traits), _tile_loop(traits), text):
        _emit_tile(out, traits)
    _emit_load_right(out, traits)
    if traits.clears:
        emit_valid(out, traits.boxes)
        _emit_clearing(out, traits)


def _emit_items(out: SourceWriter, traits: BackwardTraits) -> None:
    left, right = _maps_a_view(traits)
    text = "The producer: boxes of each item's left tile, then of its right ones."
    with device_function(out, "produce", arguments(traits), text):
        if left:
            out.line(f"fence_maps(left_maps, u32({left}) * left_views)")
        out.lines(
            f"""
            fence_maps(right_maps, u32({right}) * right_views)
            """
        )
        with item_loop(out, "left", ITEM, clears=traits.clears):
            _emit_item(out, traits)


def _emit_item(out: SourceWriter, traits: BackwardTraits) -> None:
    """Its left tile, then the right ones of each of its heads."""
    out.lines(
        f"""
        owner = ptx.word_of_lane(words, u32({HEAD}))
        place = ptx.word_of_lane(words, u32({FIRST}))
        end = ptx.word_of_lane(words, u32({END}))
        ptx.mbarrier_wait(base + LEFT_EMPTY + left_stage * u32(8), left_free)
        tiles = u32(ptx.word_of_lane(words, u32(5)) * (end - place))
        ptx.store_shared_words4(base + ITEM_INFO + left_stage * u32({INFO_BYTES}), tiles, rank, owner, entry, leader())
        """
    )
    if traits.pairs:
        out.line("load_left(base, left_stage, left_maps, words, owner, entry)")
    else:
        out.line("ptx.mbarrier_arrive(base + LEFT_FULL + left_stage * u32(8), leader())")
    out.lines(
        """
        left_stage, left_free = advance(left_stage, left_free, LEFT_STAGES)
        """
    )
    if traits.clears:
        emit_length(out, "length")
    out.line("taken = ptx.fetch_add(counter, u32(1), leader())  # blocks take what is left in turn")
    with out.block("while place < end"):
        out.line("head = ptx.load_word(heads + u64(4) * u64(place))")
        if traits.kept:
            first = f" + u32({traits.boxes.groups}) * ptx.word_of_lane(words, u32(6))" * (traits.kept == WRITTEN)
            out.line(f"image = u32((entry * listed + place) * images{first})")
        wrapped(out, f"{_passing(traits).state} = load_tiles", _tile_loop(traits))
        out.line("place = u32(place + u32(1))")


def _passing(traits: BackwardTraits) -> Passing:
    return Passing(traits.boxes, "right", _maps_a_view(traits)[1], traits.clears)


def _tile_loop(traits: BackwardTraits) -> tuple[str, ...]:
    ragged = ("views", "length", "cleared_phase") if traits.clears else ()
    kept = ("image",) * bool(traits.kept) + ("slopes",) * (traits.kept == READ)
    bits = ("bits",) * traits.scores
    return ("base", "right_maps", "piece", *bits, *kept, "words", "head", "entry", "stage", "free", *ragged)


def _emit_read_item(out: SourceWriter) -> None:
    text = "Row block and batch entry of an item; by lane, the words of its row block, then of its owner."
    with device_function(out, "read_item", ("item", *ITEM), text):
        emit_rank(out)
        out.lines(
            f"""
            owner_at = owners + u64(16) * u64(pair - entry * heads_count)
            lane = u32(ptx.thread_index() & u32(31))
            word_at = block + u64(32) * u64(rank) + u64(4) * u64(lane)
            owner_word = owner_at + u64(4) * u64((lane - u32({HEAD})) & u32(3))
            words = ptx.load_word(word_at if lane < u32({HEAD}) else owner_word)
            return rank, entry, words
            """
        )


def _emit_load_left(out: SourceWriter, traits: BackwardTraits) -> None:
    maps, _ = _maps_a_view(traits)
    sizes = " + ".join(f"LEFT_{i}_BYTES" for i in range(1, maps + 1))
    parameters = ("base", "left_stage", "left_maps", "words", "owner", "entry")
    with device_function(out, "load_left", parameters, "An item's left tile: the box that its row block names."):
        out.lines(
            f"""
            left_map = left_maps + u64({MAP_BYTES * maps}) * u64(ptx.word_of_lane(words, u32(0)))
            c1 = ptx.word_of_lane(words, u32(1))
            c2 = ptx.word_of_lane(words, u32(2))
            full = base + LEFT_FULL + left_stage * u32(8)
            stage = left_stage
            ptx.mbarrier_expect(full, u32({sizes}), leader())
            """
        )
        for i, dim in enumerate(traits.left_dims):
            out.line(f"tensor_map = left_map + u64({MAP_BYTES * i})")
            emit_copies(out, f"LEFT_{i + 1}", traits.boxes.tile_q, dim, "c1, c2, owner, entry")


def _emit_tile(out: SourceWriter, traits: BackwardTraits) -> None:
    """One tile: both arrays, and what goes with them."""
    second = "image" if traits.kept == WRITTEN else "bits_0"
    out.lines(
        f"""
        ptx.mbarrier_wait(base + RIGHT_EMPTY + stage * u32(8), free)
        info = base + TILE_INFO + stage * u32({INFO_BYTES})
        ptx.store_shared_words4(info, status, {second}, bits_1, bits_2, leader())
        """
    )
    if traits.kept == WRITTEN:
        out.line(f"image = u32(image + u32({traits.boxes.groups}))")
    full = "base + RIGHT_FULL + stage * u32(8)"
    if not traits.clears:
        wrapped(out, "load_right", _right_arguments(traits, full))
        return
    with out.block(f"if valid == u32({traits.boxes.tile_kv})"):
        wrapped(out, "load_right", _right_arguments(traits, full))
    with out.block("else"):
        wrapped(out, "load_right", _right_arguments(traits, "base + CLEARED"))
        out.line("clear_tile(base, stage, valid, cleared_phase)")
        out.line("cleared_phase = u32(cleared_phase ^ u32(1))")


def _right_arguments(traits: BackwardTraits, full: str) -> tuple[str, ...]:
    numbers = tuple(f"bits_{group}" for group in range(traits.boxes.groups))
    masks = ("status", "bits", *numbers) * traits.boxes.partial
    kept = ("status", "slopes", "image", *numbers) * (traits.kept == READ)
    return ("base", "stage", "right_map", "c1", "c2", "head", "entry", full, *masks, *kept)


def _emit_load_right(out: SourceWriter, traits: BackwardTraits) -> None:
    boxes = traits.boxes
    tiles = (f"RIGHT_{i}_BYTES" for i, _ in enumerate(traits.right_dims, 1))
    sizes = " + ".join((*tiles, *("LEVELS_BYTES",) * traits.columns_are_queries))
    with device_function(out, "load_right", _right_arguments(traits, "full"), "A right tile, and what goes with it."):
        if boxes.partial:
            emit_masks(out, boxes, sizes)
        elif traits.kept == READ:
            _emit_load_slopes(out, boxes.groups)
        else:
            out.line(f"ptx.mbarrier_expect(full, {sizes}, leader())")
        for i, dim in enumerate(traits.right_dims):
            out.line(f"tensor_map = right_map + u64({MAP_BYTES * i})")
            emit_copies(out, f"RIGHT_{i + 1}", boxes.tile_kv, dim, "c1, c2, head, entry")
        if traits.columns_are_queries:
            out.line(f"tensor_map = right_map + u64({MAP_BYTES * len(traits.right_dims)})")
            to = "base + LEVELS_TILE + stage * LEVELS_BYTES"
            out.line(f"ptx.tensor_copy({to}, tensor_map, full, u32(0), c1, c2, head, entry, leader())")


def _emit_load_slopes(out: SourceWriter, groups: int) -> None:
    """Images of the groups that have one: of the others nothing was written."""
    for group in range(groups):
        out.line(f"has_{group} = u32((status >> u32({2 * group})) & u32(1))")
    count = " + ".join(f"has_{group}" for group in range(groups))
    out.lines(
        f"""
        ptx.mbarrier_expect(full, RIGHT_1_BYTES + ({count}) * u32({IMAGE_BYTES}), leader())
        to = base + SLOPES_TILE + stage * SLOPES_BYTES
        """
    )
    for group in range(groups):
        source = f"slopes + u64({IMAGE_BYTES}) * (u64(image) + u64(bits_{group})), u32({IMAGE_BYTES})"
        out.line(f"ptx.bulk_copy(to + u32({group * IMAGE_BYTES}), {source}, full, leader() & has_{group})")


def _emit_clearing(out: SourceWriter, traits: BackwardTraits) -> None:
    parameters = ("base", "stage", "valid", "cleared_phase")
    text = "Keys and values beyond the length become 0 when they are there: they may be NaN, and 0 x NaN is NaN."
    with device_function(out, "clear_tile", parameters, text):
        out.line("ptx.mbarrier_wait(base + CLEARED, cleared_phase)")
        for i, dim in enumerate(traits.right_dims, 1):
            emit_clear_tile(out, f"RIGHT_{i}", traits.boxes.tile_kv, dim)
        emit_cleared(out, "RIGHT")
