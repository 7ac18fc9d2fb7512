"""Where stage 2 reads its slots: the parts that stage 1 left, in float32, or tokens of k and v, in 16 bits."""

from __future__ import annotations

from flurka_numba.targets.sm90.features import gpu_text
from flurka_numba.targets.sm90.shape import SLOTS, STATE_SIDE, CompressTraits, StateTraits
from splat_numba.gen.targets.sm90.shape import SPAN, spans
from splat_numba.gen.writer import SourceWriter


def emit_slot_places(out: SourceWriter, traits: StateTraits) -> None:
    """This block's slots, from ``chunk`` to ``last``, and where its columns stand."""
    out.line("length = slots")
    if traits.ragged:
        out.line("length = ptx.load_word(kv_lengths + u64(4) * u64(entry))")
    out.lines(
        f"""
        chunks = u32((length + u32({SLOTS - 1})) // u32({SLOTS}))
        chunks = u32((chunks + shares_of_state - u32(1)) // shares_of_state * u32({SLOTS}))
        chunk = u32(min(share * chunks, length))
        last = u32(min(chunk + chunks, length))
        """
    )
    if traits.parts is None:
        _emit_token_places(out)
    else:
        _emit_part_places(out, traits, traits.parts)


def emit_slots(out: SourceWriter, traits: StateTraits) -> None:
    """The next slots' features and values into shared memory."""
    if traits.parts is None:
        _emit_tokens(out, traits)
    else:
        _emit_parts(out, traits, traits.parts)


def _emit_part_places(out: SourceWriter, traits: StateTraits, parts: CompressTraits) -> None:
    """Of every slot a thread has 4 adjacent columns: of one slot, and of the one 16 further on."""
    out.lines(
        f"""
        span_k = u32(head * u32({spans(traits.head_dim)}) + feature_block)
        span_v = u32(head * u32({spans(traits.value_dim)}) + value_block)
        pair_k = u32(span_k // u32({parts.tile_spans}))
        pair_v = u32(span_v // u32({parts.tile_spans}))
        tile_k = u32((entry * pairs_k + pair_k) * row_blocks)
        tile_v = u32(tiles_k + (entry * pairs_v + pair_v) * row_blocks)
        column_k = u32((span_k - pair_k * u32({parts.tile_spans})) * u32({SPAN}) + column)
        column_v = u32((span_v - pair_v * u32({parts.tile_spans})) * u32({SPAN}) + column)
        to_part = u64(tiles) * u64({4 * parts.rows * parts.columns})
        got = cuda.local.array(16, dtype=np.float32)
        """
    )


def _emit_parts(out: SourceWriter, traits: StateTraits, parts: CompressTraits) -> None:
    """The parts of a slot are added up in their order."""
    row_bytes = 4 * parts.columns
    for place, half in enumerate((0, SLOTS // 2)):
        out.lines(
            f"""
            slot_{place} = u32(chunk + (thread >> u32(4)) + u32({half}))
            row_block = u32(slot_{place} // u32({parts.rows}))
            row = u32(slot_{place} - row_block * u32({parts.rows}))
            """
        )
        for name in ("k", "v"):
            at = f"(u64(tile_{name} + row_block) * u64({parts.rows}) + u64(row))"
            out.line(f"{name}_at_{place} = parts + u64({row_bytes}) * {at} + u64(4) * u64(column_{name})")
    with out.block("for i in range(16)"):
        out.line("got[i] = f32(0.0)")
    with out.block(f"for part in range({traits.splits})"):
        for number, name in enumerate(("k_at_0", "k_at_1", "v_at_0", "v_at_1")):
            names = ", ".join(f"{letter}_{number}" for letter in "abcd")
            out.line(f"{names} = ptx.load_reals4({name} + to_part * u64(part))")
        for number in range(4):
            for i, letter in enumerate("abcd"):
                out.line(f"got[{4 * number + i}] += {letter}_{number}")
    for place, half in enumerate((0, SLOTS // 2)):
        for i in range(4):
            _emit_feature(out, traits, f"got[{4 * place + i}]", f"slot_{place} < last", f"column + u32({i})")
        for tile, first in (("feature_tile", 4 * place), ("value_tile", 8 + 4 * place)):
            _emit_store(out, f"{tile} + u32(16) * thread + u32({half * STATE_SIDE * 4})", "got", first)


def _emit_token_places(out: SourceWriter) -> None:
    """Of every token a thread has 8 adjacent columns, which are 16 bytes."""
    out.lines(
        f"""
        eighth = u32((thread & u32(7)) * u32(8))
        k_column = u32(feature_block * u32({STATE_SIDE}) + eighth)
        v_column = u32(value_block * u32({STATE_SIDE}) + eighth)
        k_at = k + u64(entry) * k_batch + u64(head) * k_head + u64(2) * u64(k_column)
        v_at = v + u64(entry) * v_batch + u64(head) * v_head + u64(2) * u64(v_column)
        feature = cuda.local.array(8, dtype=np.float32)
        value = cuda.local.array(8, dtype=np.float32)
        """
    )


def _emit_tokens(out: SourceWriter, traits: StateTraits) -> None:
    """A token beyond the last is left out: its features are 0, not phi(0)."""
    out.line("slot = u32(chunk + (thread >> u32(3)))")
    for name, dim in (("k", traits.head_dim), ("v", traits.value_dim)):
        when = f"u32(1) if slot < last and {name}_column < u32({dim}) else u32(0)"
        words = ", ".join(f"{name}_{i}" for i in range(4))
        out.line(f"{words} = ptx.load_words4_when({name}_at + u64(slot) * {name}_row, {when})")
    for i in range(4):
        out.line(f"feature[{2 * i}], feature[{2 * i + 1}] = ptx.unpack_{traits.dtype}(k_{i})")
        out.line(f"value[{2 * i}], value[{2 * i + 1}] = ptx.unpack_{traits.dtype}(v_{i})")
    for i in range(8):
        _emit_feature(out, traits, f"feature[{i}]", "slot < last", f"eighth + u32({i})")
        if traits.value_dim % 8:  # a row may end within the 16 bytes, and what stands behind it may be NaN
            kept = f"u32(1) if v_column + u32({i}) < u32({traits.value_dim}) else u32(0)"
            out.line(f"value[{i}] = ptx.select_real(value[{i}], f32(0.0), {kept})")
    for name, tile in (("feature", "feature_tile"), ("value", "value_tile")):
        for half in (0, 1):
            _emit_store(out, f"{tile} + u32(32) * thread + u32({16 * half})", name, 4 * half)


def _emit_feature(out: SourceWriter, traits: StateTraits, place: str, slot_is_kept: str, column: str) -> None:
    """A number becomes its feature; 0 for a slot or a column that is not there, as phi(0) is not 0."""
    kept = slot_is_kept
    if traits.head_dim % STATE_SIDE:
        kept = f"{kept} and feature_block * u32({STATE_SIDE}) + {column} < u32({traits.head_dim})"
    out.line(f"x = {place}")
    out.line(f"phi = {gpu_text(traits.feature_map.source, 'x')}")
    out.line(f"{place} = ptx.select_real(phi, f32(0.0), u32(1) if {kept} else u32(0))")


def _emit_store(out: SourceWriter, to: str, name: str, first: int) -> None:
    four = ", ".join(f"{name}[{first + i}]" for i in range(4))
    out.line(f"ptx.store_shared_reals4({to}, {four}, u32(1))")
