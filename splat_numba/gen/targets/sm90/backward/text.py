"""A gradient kernel's text: imports, places in shared memory, the entry function, then those that it calls."""

from __future__ import annotations

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.plans.backward import KEYS
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES, NOWHERE, READ, WRITTEN
from splat_numba.gen.targets.sm90.attention import emit_barriers, emit_head, emit_places, emit_roles, emit_turns
from splat_numba.gen.targets.sm90.backward import consumer, producer
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits, left_stages, shared_bytes, shared_layout
from splat_numba.gen.targets.sm90.shape import WARPGROUP, threads_per_block

ENTRY = "attention_gradients"
TABLES = ("right_maps", "rows", "block", "piece", "owners", "heads")
COUNTS = ("blocks", "heads_count", "batch", "heads_per_wave", "seq", "heads_left", "left_views", "right_views")


def results(traits: BackwardTraits) -> tuple[str, ...]:
    """Of the kernel: addresses of the gradients."""
    return tuple(traits.dims)


def pointers(traits: BackwardTraits) -> tuple[str, ...]:
    """All addresses that the kernel is given."""
    ragged = ("kv_lengths",) * traits.ragged + ("views",) * traits.clears
    levels = () if traits.columns_are_queries else ("levels",)
    left = ("left_maps",) * bool(traits.pairs)
    bits, slopes = ("bits",) * traits.scores, ("slopes",) * bool(traits.kept)
    return (*left, *TABLES, *bits, *slopes, *ragged, *levels, *traits.written, "counter")


def counts(traits: BackwardTraits) -> tuple[str, ...]:
    """All counts that it is given. images: of a batch entry and head; listed: heads of all owners."""
    return (*COUNTS, *("images", "listed") * bool(traits.kept))


def parameters(traits: BackwardTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of all parameters."""
    return (
        *((name, "l") for name in pointers(traits)),
        ("scale_log2", "f"),
        ("scale", "f"),
        *((name, "r") for name in counts(traits)),
        *((name, "l") for name in traits.strides),
    )


def backward_text(traits: BackwardTraits) -> EmittedText:
    """The text of the kernel with these traits, named after shape and type."""
    boxes = traits.boxes
    size = f"d{boxes.head_dim}_{boxes.dtype}_{boxes.tile_q}x{boxes.tile_kv}"
    kept = {NOWHERE: (), WRITTEN: ("slopes",), READ: ("of_slopes",)}[traits.kept]
    name = f"attention_{'_'.join((*results(traits), *kept))}_sm_90a_{size}"
    entry = Entry(ENTRY, parameters(traits), threads_per_block(boxes), boxes.blocks_per_multiprocessor,
                  shared_bytes(traits))  # fmt: skip
    return EmittedText(name, entry, render_gradients, (traits,))


def render_gradients(traits: BackwardTraits) -> str:
    """Python source of the kernel that serves every mask of these traits. Pure and deterministic."""
    out = SourceWriter()
    _emit_head(out, traits)
    _emit_places(out, traits)
    _emit_entry(out, traits)
    _emit_barriers(out, traits)
    emit_turns(out)
    producer.emit_producer(out, traits)
    consumer.emit_consumer(out, traits)
    return out.text()


def _emit_head(out: SourceWriter, traits: BackwardTraits) -> None:
    """Docstring, imports, and the instructions that depend on the traits."""
    boxes = traits.boxes
    rows, columns = ("keys", "queries") if traits.of == KEYS else ("queries", "keys")
    left, right = ("k and v", "q and dout") if traits.of == KEYS else ("q and dout", "k and v")
    if traits.kept == READ:
        left, right = "slopes that are kept", "k"
    made = (*results(traits), *("slopes",) * (traits.kept == WRITTEN))
    subject = f"{' and '.join(made)} of sparse attention on Hopper, for every mask that boxes describe."
    emit_head(out, boxes, subject, (rows, columns), f"; left are {left}, right {right}", "both sides")
    if traits.scores:
        pair = f'{boxes.tile_kv}, "{boxes.dtype}", from_registers=False, transposed=False'
        out.line(f"pair_product = ptx.matrix_product({pair})")
    for name, dim in traits.dims.items():
        gradient = f'{-(-dim // 8) * 8}, "{boxes.dtype}", from_registers=True, transposed=True'
        out.line(f"{name}_product = ptx.matrix_product({gradient})")


def _emit_places(out: SourceWriter, traits: BackwardTraits) -> None:
    """Shared memory as constants: tiles, what goes with them, barriers."""
    layout = shared_layout(traits)
    tiles = {f"LEFT_{i}": at for i, at in enumerate(zip(layout.left, layout.left_sizes, strict=True), 1)}
    tiles |= {f"RIGHT_{i}": at for i, at in enumerate(zip(layout.right, layout.right_sizes, strict=True), 1)}
    if traits.columns_are_queries:
        tiles["LEVELS"] = (layout.levels, traits.boxes.tile_kv * LEVEL_BYTES)
    if traits.boxes.partial:
        tiles["MASK"] = (layout.mask, layout.mask_bytes)
    if traits.kept == READ:
        tiles["SLOPES"] = (layout.slopes, layout.slopes_bytes)
    stages = {"LEFT_STAGES": left_stages(traits), "STAGES": traits.boxes.stages}
    barriers = {"LEFT": (layout.left_full, layout.left_empty), "RIGHT": (layout.right_full, layout.right_empty)}
    emit_places(out, stages, tiles, (layout.tile_info, layout.item_info), barriers)
    if traits.clears:
        out.line(f"CLEARED = u32({layout.cleared})")


def _emit_entry(out: SourceWriter, traits: BackwardTraits) -> None:
    """Barriers, then the two roles."""
    out.line()
    out.line()
    out.line(f"def {ENTRY}(")
    with out.suite():
        for names in (pointers(traits), ("scale_log2", "scale"), counts(traits), traits.strides):
            if names:
                out.line(f"{', '.join(names)},")
    out.line("):")
    emit_roles(out, traits.boxes.groups, producer.arguments(traits), consumer.arguments(traits))


def _emit_barriers(out: SourceWriter, traits: BackwardTraits) -> None:
    text, rings = "With the arrivals that complete a phase of each.", {"LEFT_STAGES": ("LEFT",), "STAGES": ("RIGHT",)}
    emit_barriers(out, text, rings, WARPGROUP * traits.boxes.groups, cleared=traits.clears)
