"""What the products of slot_state.py take: parts of slots added up, their features, and both in shared memory."""

from __future__ import annotations

from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.powers import emit_inverse, emit_scale
from flurka_numba.targets.sm90.rows import emit_largest_of_block
from flurka_numba.targets.sm90.scales import TOP
from flurka_numba.targets.sm90.shape import STATE_SIDE
from flurka_numba.targets.sm90.slot_state_shape import ROWS, THREADS, SlotStateTraits
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES
from splat_numba.gen.writer import SourceWriter


def emit_loads(out: SourceWriter, traits: SlotStateTraits, first: int = 0) -> None:
    """got[16 turn + 8 of_values + i]: the parts of a slot's columns added up; for a slot too many, of the last one.

    first: of the turns that are loaded now; scaled texts have no loop over them.
    """
    parts, turns = traits.parts, range(first, first + traits.turns_at_once)
    if traits.scaled:
        out.line("turn = u32(0)")
    for turn in turns:
        out.lines(
            f"""
            row_{turn} = u32(slot + (turn + u32({turn})) * u32({ROWS}) + row_in_turn)
            kept_{turn} = u32(1) if row_{turn} < last else u32(0)
            row = ptx.select(row_{turn}, u32(last - u32(1)), kept_{turn})
            row_block = u32(row // u32({parts.rows}))
            row = u32(row - row_block * u32({parts.rows}))
            """
        )
        for name in "kv":
            at = f"(u64(tile_{name} + row_block) * u64({parts.rows}) + u64(row))"
            out.line(f"{name}_from_{turn} = {name}_at + u64({4 * parts.columns}) * {at}")
    start, end = 16 * turns.start, 16 * turns.stop
    with out.block(f"for i in range({start}, {end})" if start else f"for i in range({end})"):
        out.line("got[i] = f32(0.0)")
    whole = traits.splits // traits.parts_at_once
    with out.block(f"for step in range({whole})"):
        _emit_parts(out, turns, f"u64(step) * u64({traits.parts_at_once})", traits.parts_at_once)
    if rest := traits.splits % traits.parts_at_once:
        _emit_parts(out, turns, f"u64({traits.splits - rest})", rest)


def _emit_parts(out: SourceWriter, turns: range, first: str, count: int) -> None:
    """Neighbouring parts: all loads, then all sums."""
    every = [(part, turn, of, half) for part in range(count) for turn in turns for of in (0, 1) for half in (0, 1)]
    for part, turn, of, half in every:
        names = ", ".join(f"{letter}_{part}_{turn}_{of}_{half}" for letter in "abcd")
        at = f"{'kv'[of]}_from_{turn} + to_part * ({first} + u64({part})) + u64({16 * half})"
        out.line(f"{names} = ptx.load_reals4({at})")
    for part, turn, of, half in every:
        for i, letter in enumerate("abcd"):
            out.line(f"got[{16 * turn + 8 * of + 4 * half + i}] += {letter}_{part}_{turn}_{of}_{half}")


def emit_features(out: SourceWriter, traits: SlotStateTraits) -> None:
    """phi of keys; 0 for slots and columns that are not there, unlike phi(0)."""
    parts = traits.parts
    for turn in range(traits.turns_held):
        for i in range(8):
            kept = f"kept_{turn}"
            if parts.head_dim % STATE_SIDE:
                column = f"feature_block * u32({STATE_SIDE}) + eighth + u32({i})"
                kept = f"{kept} if {column} < u32({parts.head_dim}) else u32(0)"
            out.line(f"x = got[{16 * turn + i}]")
            out.line(f"phi = {gpu_text(traits.feature_map.source, 'x')}")
            out.line(f"got[{16 * turn + i}] = ptx.select_real(phi, f32(0.0), {kept})")


def emit_feature_scale(out: SourceWriter, traits: SlotStateTraits) -> None:
    """Features of these slots, and sums of those before, times a scale that does for both; values times theirs."""
    out.line(f"top = inverse * f32({2.0 ** (TOP - 1)!r})  # what the sums have been scaled by")
    for turn in range(traits.turns_held):
        for i in range(8):
            out.line(f"top = ptx.maximum(top, got[{16 * turn + i}])")
    emit_largest_of_block(out, "top", "flag + u32(16)", THREADS)
    emit_scale(out, "scale", "top", TOP)
    with out.block(f"for i in range({STATE_SIDE // 2})"):
        out.line("total[i], sums[i] = total[i] * (scale * inverse), sums[i] * (scale * inverse)")
    emit_inverse(out, "inverse", "scale")
    for turn in range(traits.turns_held):
        with out.block(f"for i in range({16 * turn}, {16 * turn + 8})"):
            out.line("got[i], got[i + 8] = got[i] * scale, got[i + 8] * value_scale")


def emit_operands(out: SourceWriter, traits: SlotStateTraits) -> None:
    """Features and values into shared memory. A pair of columns 8 t + 4 s + 2 h goes to columns 16 s + 8 h + 2 t of its
    chunk of 32.
    """
    parts = traits.parts
    for turn in range(traits.turns_held):
        out.line(f"row = u32((turn + u32({turn})) * u32({ROWS}) + row_in_turn)")
        out.line("swizzle = u32((row & u32(7)) << u32(4))")
        for of, tile in enumerate(("feature_tile", "value_tile")):
            for pair in range(4):  # 2 s + h
                first = 16 * turn + 8 * of + 2 * pair
                at = f"{tile} + row * u32({SPAN_BYTES}) + ((place + u32({16 * pair})) ^ swizzle)"
                word = f"ptx.pack_{parts.dtype}(got[{first}], got[{first + 1}])"
                out.line(f"ptx.store_shared_word({at}, {word}, u32(1))")
