"""What the products of slot_state.py take: parts of slots added up, their features, and both in shared memory."""

from __future__ import annotations

from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu.lanes import OCTET, QUAD, QUAD_BYTES, quad_of
from flurka_numba.targets.gpu.warps import emit_largest_of_block
from flurka_numba.targets.powers import emit_inverse, emit_scale
from flurka_numba.targets.sm90.lanes import swizzle
from flurka_numba.targets.sm90.scales import TOP
from flurka_numba.targets.sm90.shape import STATE_SIDE
from flurka_numba.targets.sm90.slot_state_shape import ROWS, THREAD_NUMBERS, THREADS, SlotStateTraits
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, MATRIX, sums_of
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES

UNROLLED_STEPS = 4
NUMBER_OF_KEY = f"{THREAD_NUMBERS} * (i // {OCTET}) + i % {OCTET}"  # the values' follow each eight


def emit_loads(out: KernelWriter, traits: SlotStateTraits, first: int = 0) -> None:
    """got[16 turn + 8 of_values + i]: the parts of a slot's columns added up; for a slot too many, of the last one.

    first: of the turns that are loaded now; scaled texts have no loop over them.
    """
    turns, at_once = traits.turns_at_once, traits.parts_at_once
    if traits.scaled:
        out.line("turn = u32(0)")
    whole, rest = divmod(traits.splits, at_once)
    with out.part("load_slots", "The parts of some slots' columns added up, in their order.", first=str(first)):
        out.line(f"k_from = cuda.local.array({turns}, dtype=np.uint64)")
        out.line(f"v_from = cuda.local.array({turns}, dtype=np.uint64)")
        with out.block(f"for i in range({turns})"):
            _emit_places(out, traits)
        with out.block(f"for i in range({THREAD_NUMBERS * turns})"):
            out.line(f"got[{THREAD_NUMBERS} * first + i] = f32(0.0)")
        _emit_steps(out, turns, whole, at_once)
        if rest:
            with out.part("add_last_parts", "Those that are fewer.", part=f"u64({traits.splits - rest})"):
                _emit_parts(out, turns, rest)


def _emit_steps(out: KernelWriter, turns: int, steps: int, at_once: int) -> None:
    """Few steps are written down: their loads overlap, and of a loop over them NVVM would make one."""
    text = "Neighbouring parts: all loads are issued, then all are added."
    if steps > UNROLLED_STEPS:
        with out.block(f"for step in range({steps})"), out.part("add_parts", text, part=f"u64(step) * u64({at_once})"):
            _emit_parts(out, turns, at_once)
        return
    for step in range(steps):
        with out.part("add_parts", text, part=f"u64({step * at_once})"):
            _emit_parts(out, turns, at_once)


def _emit_places(out: KernelWriter, traits: SlotStateTraits) -> None:
    """Where slot i of these stands among the parts of keys and of values."""
    parts = traits.parts
    _emit_kept(out, "first + i")
    out.lines(
        f"""
        row = ptx.select(row, u32(last - u32(1)), kept)
        row_block = u32(row // u32({parts.rows}))
        row = u32(row - row_block * u32({parts.rows}))
        """
    )
    for name in "kv":
        at = f"(u64(tile_{name} + row_block) * u64({parts.rows}) + u64(row))"
        out.line(f"{name}_from[i] = {name}_at + u64({4 * parts.columns}) * {at}")


def _emit_kept(out: KernelWriter, number: str) -> None:
    """``row``: the slot of one of this thread's turns; ``kept``: whether there is such a one."""
    out.line(f"row = u32(slot + (turn + u32({number})) * u32({ROWS}) + row_in_turn)")
    out.line("kept = u32(1) if row < last else u32(0)")


def _emit_parts(out: KernelWriter, turns: int, count: int) -> None:
    """Four numbers at a time: of keys or values, of the first or the second half of a slot's 8 columns."""
    out.line(f"ahead = cuda.local.array({THREAD_NUMBERS * turns * count}, dtype=np.float32)")
    with out.block(f"for i in range({turns * count})"):
        out.line(f"far = to_part * (part + u64(i // {turns}))")
        for of, name in enumerate("kv"):
            out.line(f"at = {name}_from[i % {turns}] + far")
            for half in (0, 1):
                four = quad_of("ahead", OCTET * of + QUAD * half, f"{THREAD_NUMBERS} * i + ")
                out.line(f"{four} = ptx.load_reals4(at + u64({QUAD_BYTES * half}))")
    with out.block(f"for i in range({THREAD_NUMBERS * turns * count})"):
        out.line(f"got[{THREAD_NUMBERS} * first + i % {THREAD_NUMBERS * turns}] += ahead[i]")


def emit_features(out: KernelWriter, traits: SlotStateTraits) -> None:
    """phi of keys; 0 for slots and columns that are not there, unlike phi(0)."""
    parts = traits.parts
    with (
        out.part("make_features", "phi of keys; 0 for slots and columns that are not there, unlike phi(0)."),
        out.block(f"for number in range({traits.turns_held})"),
    ):
        _emit_kept(out, "number")
        with out.block(f"for i in range({OCTET})"):
            kept = "kept"
            if parts.head_dim % STATE_SIDE:
                column = f"feature_block * u32({STATE_SIDE}) + eighth + u32(i)"
                kept = f"kept if {column} < u32({parts.head_dim}) else u32(0)"
            out.line(f"x = got[{THREAD_NUMBERS} * number + i]")
            out.line(f"phi = {gpu_text(traits.feature_map.source, 'x')}")
            out.line(f"got[{THREAD_NUMBERS} * number + i] = ptx.select_real(phi, f32(0.0), {kept})")


def emit_feature_scale(out: KernelWriter, traits: SlotStateTraits) -> None:
    """Features of these slots, and sums of those before, times a scale that does for both; values times theirs."""
    every = f"for i in range({OCTET * traits.turns_held})"
    with out.part("scale_features", "Features and sums times a scale that does for both; values times theirs."):
        out.line(f"top = inverse * f32({2.0 ** (TOP - 1)!r})  # what the sums have been scaled by")
        with out.block(every):
            out.line(f"top = ptx.maximum(top, got[{NUMBER_OF_KEY}])")
        emit_largest_of_block(out, "top", f"flag + u32({QUAD_BYTES})", THREADS)
        emit_scale(out, "scale", "top", TOP)
        with out.block(f"for i in range({sums_of(STATE_SIDE)})"):
            out.line("total[i], sums[i] = total[i] * (scale * inverse), sums[i] * (scale * inverse)")
        emit_inverse(out, "inverse", "scale")
        with out.block(every):
            out.line(f"at = {NUMBER_OF_KEY}")
            out.line(f"got[at], got[at + {OCTET}] = got[at] * scale, got[at + {OCTET}] * value_scale")


def emit_operands(out: KernelWriter, traits: SlotStateTraits) -> None:
    """Features and values into shared memory. A pair of columns 8 t + 4 s + 2 h goes to columns 16 s + 8 h + 2 t of its
    chunk of 32.
    """
    text = "Features and values into shared memory: pair 2 s + h of a lane's goes to columns 16 s + 8 h + 2 t."
    with out.part("store_operands", text), out.block(f"for number in range({traits.turns_held})"):
        out.line(f"row = u32((turn + u32(number)) * u32({ROWS}) + row_in_turn)")
        out.line(f"swizzle = u32{swizzle('row')}")
        with out.block(f"for two in range({OCTET // LANE_COLUMNS})"):
            out.line(f"to = row * u32({SPAN_BYTES}) + ((place + u32({2 * MATRIX}) * u32(two)) ^ swizzle)")
            for of, tile in enumerate(("feature_tile", "value_tile")):
                first = f"{THREAD_NUMBERS} * number + {OCTET * of} + {LANE_COLUMNS} * two"
                word = f"ptx.pack_{traits.parts.dtype}(got[{first}], got[{first} + 1])"
                out.line(f"ptx.store_shared_word({tile} + to, {word}, u32(1))")
