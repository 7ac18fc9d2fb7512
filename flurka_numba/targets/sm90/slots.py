"""Where stage 2 reads its slots: the parts that stage 1 left, in float32, or tokens of k and v, in 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flurka_numba.targets.gpu.lanes import OCTET, QUAD, QUAD_BYTES, quad_of
from flurka_numba.targets.gpu_text import parameters_of
from flurka_numba.targets.sm90.shape import SIDE_COLUMN, SIDE_ROW, SLOTS, STATE_SIDE, CompressTraits, StateTraits
from flurka_numba.targets.sm90.state_block import emit_state_share
from splat_numba.gen.language.lane_layout import log2
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, spans


@dataclass(frozen=True, slots=True)
class HeadColumns:
    """A span of every slot on its way to shared memory. name: in the text; of: "k" or "v"; span: its number within the
    head, as text; tile: where to, as text, with rows of row_bytes.
    """

    name: str
    of: str
    span: str
    tile: str
    row_bytes: int = 4 * STATE_SIDE

    def dim(self, traits: StateTraits) -> int:
        """Columns of the head."""
        return traits.head_dim if self.of == "k" else traits.value_dim


VALUES = HeadColumns("v", "v", "value_block", "value_tile")
COUNTS = ("heads", "slots", "shares_of_state")
PART_COUNTS = ("tiles_k", "tiles", "row_blocks", "pairs_k", "pairs_v")
STRIDES = ("k_row", "k_head", "k_batch", "v_row", "v_head", "v_batch")


def slot_parameters(traits: StateTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of what tells a block where its slots are."""
    if traits.parts is None:
        return parameters_of(("k", "v", "kv_lengths"), COUNTS, STRIDES)
    return parameters_of(("parts",), (*PART_COUNTS, *COUNTS))


def emit_place(out: KernelWriter, blocks: tuple[int, int]) -> None:
    """Which head, features, values and share of the slots are this block's. blocks: of features and of values."""
    emit_shared_start(out, "feature_tile", ALIGNMENT)
    out.lines(
        """
        thread = ptx.thread_index()
        """
    )
    emit_state_share(out, blocks)
    out.lines(
        f"""
        column = u32({SIDE_COLUMN} * u32({QUAD}))
        ptx.allow_launch()
        ptx.await_launch()
        """
    )


def emit_slot_places(out: KernelWriter, traits: StateTraits, columns: Sequence[HeadColumns]) -> None:
    """This block's slots, from ``chunk`` to ``last``, and where its columns stand."""
    out.line("length = slots")
    if traits.ragged:
        emit_length(out, "length", "slots")
    with out.part("find_slots", "The slots of this share, up to the last."):
        out.lines(
            f"""
            chunks = u32((length + u32({SLOTS - 1})) // u32({SLOTS}))
            chunks = u32((chunks + shares_of_state - u32(1)) // shares_of_state * u32({SLOTS}))
            chunk = u32(min(share * chunks, length))
            last = u32(min(chunk + chunks, length))
            """
        )
    if traits.parts is None:
        _emit_token_places(out, columns)
    else:
        _emit_part_places(out, traits, traits.parts, columns)


def emit_slots(out: KernelWriter, traits: StateTraits, columns: Sequence[HeadColumns]) -> None:
    """The next slots into shared memory."""
    if traits.parts is None:
        _emit_tokens(out, traits, columns)
    else:
        _emit_parts(out, traits, traits.parts, columns)


def _emit_part_places(
    out: KernelWriter, traits: StateTraits, parts: CompressTraits, columns: Sequence[HeadColumns]
) -> None:
    """Of every slot a thread has 4 adjacent columns: of one slot, and of the one 16 further on; of two spans."""
    for one in columns:
        first = "" if one.of == "k" else "tiles_k + "
        with out.part(
            f"find_{one.name}_columns", "The first tile of a span, and where this thread's columns are in it."
        ):
            out.lines(
                f"""
                span = u32(head * u32({spans(one.dim(traits))}) + {one.span})
                tile_pair = u32(span // u32({parts.tile_spans}))
                tile_{one.name} = u32({first}(entry * pairs_{one.of} + tile_pair) * row_blocks)
                column_{one.name} = u32((span - tile_pair * u32({parts.tile_spans})) * u32({SPAN}) + column)
                """
            )
    out.line(f"to_part = u64(tiles) * u64({4 * parts.rows * parts.columns})")
    out.line(f"got = cuda.local.array({4 * QUAD}, dtype=np.float32)")


def _emit_parts(out: KernelWriter, traits: StateTraits, parts: CompressTraits, columns: Sequence[HeadColumns]) -> None:
    """Two spans at a time, which are as many parts in flight as there are registers for."""
    with out.part("find_rows", "Where two slots of this thread are among the row blocks."):
        for place, half in enumerate((0, SLOTS // 2)):
            out.lines(
                f"""
                slot_{place} = u32(chunk + {SIDE_ROW} + u32({half}))
                row_block_{place} = u32(slot_{place} // u32({parts.rows}))
                row_{place} = u32(slot_{place} - row_block_{place} * u32({parts.rows}))
                """
            )
    for first in range(0, len(columns), 2):
        some = columns[first : first + 2]
        given = {f"tile_{number}": f"tile_{one.name}" for number, one in enumerate(some)}
        given |= {f"column_{number}": f"column_{one.name}" for number, one in enumerate(some)}
        given |= {f"to_{number}": one.tile for number, one in enumerate(some)}
        given |= {f"row_bytes_{number}": f"u32({one.row_bytes})" for number, one in enumerate(some)}
        name, text = (
            ("load_spans", "Two spans of two slots") if len(some) == 2 else ("load_span", "A span of two slots")
        )
        with out.part(name, f"{text}, parts added up in their order, to shared memory.", **given):
            _emit_sums(out, traits, parts, len(some))
            for number, place in ((number, place) for number in range(len(some)) for place in (0, 1)):
                _emit_quarter(out, number, place)


def _emit_quarter(out: KernelWriter, number: int, place: int) -> None:
    """4 columns of a slot to the tile."""
    row = f"row_bytes_{number} * ({SIDE_ROW} + u32({place * SLOTS // 2}))"
    _emit_store(out, f"to_{number} + {row} + u32(4) * column", "got", QUAD * (2 * number + place))


def _emit_sums(out: KernelWriter, traits: StateTraits, parts: CompressTraits, spans_at_once: int) -> None:
    """The parts of a slot are added up in their order."""
    places = [(number, place) for number in range(spans_at_once) for place in (0, 1)]
    for number, place in places:
        at = f"(u64(tile_{number} + row_block_{place}) * u64({parts.rows}) + u64(row_{place}))"
        out.line(f"at_{number}_{place} = parts + u64({4 * parts.columns}) * {at} + u64(4) * u64(column_{number})")
    numbers = QUAD * len(places)
    out.line(f"ahead = cuda.local.array({numbers}, dtype=np.float32)")
    with out.block(f"for i in range({numbers})"):
        out.line("got[i] = f32(0.0)")
    with out.block(f"for part in range({traits.splits})"):
        for first, (number, place) in enumerate(places):
            four = quad_of("ahead", QUAD * first)
            out.line(f"{four} = ptx.load_reals4(at_{number}_{place} + to_part * u64(part))")
        with out.block(f"for i in range({numbers})"):
            out.line("got[i] += ahead[i]")


def _emit_token_places(out: KernelWriter, columns: Sequence[HeadColumns]) -> None:
    """Of every token a thread has 8 adjacent columns, which are 16 bytes."""
    out.line(f"eighth = u32((thread & u32({SPAN // OCTET - 1})) * u32({OCTET}))")
    for one in columns:
        out.lines(
            f"""
            column_{one.name} = u32({one.span} * u32({SPAN}) + eighth)
            at_{one.name} = {one.of} + u64(entry) * {one.of}_batch + u64(head) * {one.of}_head
            at_{one.name} = at_{one.name} + u64(2) * u64(column_{one.name})
            """
        )
    out.line(f"word = cuda.local.array({QUAD * len(columns)}, dtype=np.uint32)")


def _emit_tokens(out: KernelWriter, traits: StateTraits, columns: Sequence[HeadColumns]) -> None:
    """A token beyond the last is left out: its features are 0, not phi(0)."""
    out.line(f"slot = u32(chunk + (thread >> u32({log2(SPAN // OCTET)})))")
    for number, one in enumerate(columns):
        when = f"u32(1) if slot < last and column_{one.name} < u32({one.dim(traits)}) else u32(0)"
        words = quad_of("word", QUAD * number)
        out.line(f"{words} = ptx.load_words4_when(at_{one.name} + u64(slot) * {one.of}_row, {when})")
    for number, one in enumerate(columns):
        given = {"number": str(number), "first_column": f"column_{one.name}", "to": one.tile}
        given |= {"row_bytes": f"u32({one.row_bytes})"}
        with out.part(f"store_{one.of}_token", "8 columns of a token, to shared memory.", **given):
            _emit_token(out, traits, one)


def _emit_token(out: KernelWriter, traits: StateTraits, one: HeadColumns) -> None:
    """Unpacked; 0 behind the last column, as a row may end within the 16 bytes, and NaN may follow."""
    out.line(f"x = cuda.local.array({OCTET}, dtype=np.float32)")
    with out.block(f"for i in range({QUAD})"):
        out.line(f"x[2 * i], x[2 * i + 1] = ptx.unpack_{traits.dtype}(word[{QUAD} * number + i])")
    if one.dim(traits) % OCTET:
        with out.block(f"for i in range({OCTET})"):
            out.line(f"kept = u32(1) if first_column + u32(i) < u32({one.dim(traits)}) else u32(0)")
            out.line("x[i] = ptx.select_real(x[i], f32(0.0), kept)")
    for half in (0, 1):
        at = f"to + row_bytes * (thread >> u32({log2(SPAN // OCTET)})) + u32(4) * eighth + u32({QUAD_BYTES * half})"
        _emit_store(out, at, "x", QUAD * half)


def _emit_store(out: KernelWriter, to: str, name: str, first: int) -> None:
    out.line(f"ptx.store_shared_reals4({to}, {quad_of(name, first)}, u32(1))")
