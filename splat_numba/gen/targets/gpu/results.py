"""Results of tensor cores, from registers to memory: out divided by the row's sum, and lse. Or back, to resume.

Who holds what is as in softmax.py.
"""

from __future__ import annotations

import math

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, MATRIX, ROW_LANES, SUMS, sum_at
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.real_rows import emit_real_row, emit_resume_real_row
from splat_numba.gen.targets.gpu.softmax import value_columns

QUARTER = MATRIX * ROW_LANES  # columns of a row that its lanes store together: eight each, 16 bytes


def resumed(traits: Traits) -> tuple[str, ...]:
    """Parameters of ``resume_row``."""
    return ("row", "q_idx", "column", "out_at", "out_row", *_rest(traits), "lse_at", "seq_q", "total", "peak", "added")


def stored(traits: Traits) -> tuple[str, ...]:
    """Parameters of ``store_row``."""
    rest = _rest(traits) * traits.hands_on
    return ("row", "q_idx", "column", "total", "peak", "added", "out_at", "out_row", *rest, "lse", "lse_at", "seq_q")


def _rest(traits: Traits) -> tuple[str, ...]:
    return ("rest_at",) * traits.keeps_rest


def rest_pointer(traits: Traits) -> tuple[str, ...]:
    """The parameter, if a text has it, that says where the rows are of what rounding takes off."""
    return ("rest",) * traits.keeps_rest


def emit_places_of_results(out: SourceWriter, traits: Traits) -> None:
    """Where results of this head and batch entry stand."""
    out.lines(
        """
        out_at = out + u64(entry) * out_batch + u64(head) * out_head
        lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
        """
    )
    if traits.keeps_rest:
        emit_place_of_rest(out, traits)


def emit_place_of_rest(out: SourceWriter, traits: Traits) -> None:
    """Where this head's rows are of what rounding took off."""
    out.line(f"rest_at = rest + u64({traits.rest_row}) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)")


def emit_lost(out: SourceWriter, dtype: str) -> None:
    """``lost_in_rounding(a, b)``."""
    text = "What rounding takes off two numbers; nothing off those that become inf or NaN."
    with device_function(out, "lost_in_rounding", ("a", "b"), text):
        out.lines(
            f"""
            x, y = ptx.unpack_{dtype}(ptx.pack_{dtype}(a, b))
            return a - x if abs(x) < f32(np.inf) else f32(0.0), b - y if abs(y) < f32(np.inf) else f32(0.0)
            """
        )


def emit_epilogue(out: SourceWriter, traits: Traits) -> None:
    """Functions that store a row, and the one that reads what an earlier pass left."""
    if traits.resumes:
        _emit_resume(out, traits)
    _emit_store(out, traits)
    if traits.hands_on:
        emit_lost(out, traits.dtype)
    if traits.value_dim >= QUARTER and traits.dtype != "float32":
        emit_quarter(out, traits.dtype)


def _emit_resume(out: SourceWriter, traits: Traits) -> None:
    """A chunk that reaches beyond value_dim reads its first place there instead, for columns that nobody stores."""
    whole, columns = traits.value_dim // MATRIX, value_columns(traits)
    first, second = (sum_at("total", "row", x) for x in range(LANE_COLUMNS))
    text = "out and lse as a softmax state: a sum of 1 at the peak lse."
    with device_function(out, "resume_row", resumed(traits), text):
        out.lines(
            f"""
            safe = q_idx if q_idx < seq_q else u32(0)
            peak[row] = ptx.load_state(lse_at + u64(4) * u64(safe)) * f32({math.log2(math.e)!r})
            added[row] = f32(0.0) if peak[row] == NONE_KEPT else f32(0.25)  # four lanes add up to a row, NaN or not
            """
        )
        if traits.dtype == "float32":
            out.line("start = out_at + u64(safe) * out_row")
            emit_resume_real_row(out, traits.value_dim)
            return
        out.lines(
            f"""
            start = out_at + u64(safe) * out_row + u64(2) * u64(column)
            rest = rest_at + u64({traits.rest_row}) * u64(safe) + u64(2) * u64(column)
            for j in range({whole}):
                {first}, {second} = whole_pair(start + u64(16) * u64(j), rest + u64(16) * u64(j))
            """
        )
        if MATRIX * whole < columns:
            first, second = (sum_at("total", "row", x, whole) for x in range(LANE_COLUMNS))
            inside = f"if column < u32({traits.value_dim - MATRIX * whole}) else"
            out.lines(
                f"""
                start = start + u64({16 * whole}) {inside} out_at
                rest = rest + u64({16 * whole}) {inside} rest_at
                {first}, {second} = whole_pair(start, rest)
                """
            )
    with device_function(out, "whole_pair", ("at", "rest_at"), "Two numbers of out, with what rounding took off."):
        out.lines(
            f"""
            a, b = ptx.unpack_{traits.dtype}(ptx.load_pair(at))
            x, y = ptx.unpack_{traits.dtype}(ptx.load_pair(rest_at))
            return a + x, b + y
            """
        )


def _emit_store(out: SourceWriter, traits: Traits) -> None:
    text = "out = total / sum, 0 where nothing is kept; lse = (peak + log2 sum) ln 2, then -inf."
    with device_function(out, "store_row", stored(traits), text):
        out.lines(
            """
            real = u32(1) if q_idx < seq_q else u32(0)  # padding is 2**32 - 1 here
            row_sum = added[row] + ptx.shuffle_xor(added[row], u32(1))
            row_sum += ptx.shuffle_xor(row_sum, u32(2))
            share = ptx.reciprocal(row_sum) if row_sum != f32(0.0) else f32(0.0)
            to = out_at + u64(q_idx) * out_row
            """
        )
        emit_rounded(out, traits.dtype, traits.value_dim)
        out.lines(
            f"""
            if lse != u64(0):
                safe = f32(0.0) if peak[row] == NONE_KEPT else peak[row]
                one_lane = real if column == u32(0) else u32(0)
                value = (safe + ptx.log2(row_sum)) * f32({math.log(2)!r})
                ptx.store_real(lse_at + u64(4) * u64(q_idx), value, one_lane)
            """
        )
        if traits.hands_on:
            first, second = (sum_at("total", "row", x) for x in range(LANE_COLUMNS))
            out.lines(
                f"""
                to = rest_at + u64({traits.rest_row}) * u64(q_idx)
                for j in range({value_columns(traits) // MATRIX}):
                    {first}, {second} = lost_in_rounding({first} * share, {second} * share)
                """
            )
            emit_rounded(out, traits.dtype, traits.value_dim, share="f32(1.0)")


def emit_rounded(out: SourceWriter, dtype: str, dim: int, total: str = "total", share: str = "share") -> None:
    """A row of ``total`` times a share in the arrays' dtype; of 16 bits whole quarters, then chunks of 8 columns."""
    if dtype == "float32":
        emit_real_row(out, dim, total, share)
        return
    quarters = dim // QUARTER
    if quarters:
        with out.block(f"for quarter in range({quarters})"):
            place = "to + u64(64) * u64(quarter)"
            first = f"{SUMS * ROW_LANES} * quarter + {LANE_COLUMNS} * row"
            out.line(f"{quarter_name(total)}({total}, {first}, {share}, {place}, real)")
    for j in range(ROW_LANES * quarters, -(-dim // MATRIX)):
        pair = ", ".join(f"{sum_at(total, 'row', str(x), j)} * {share}" for x in range(LANE_COLUMNS))
        when = "real"
        if MATRIX * (j + 1) > dim:
            when = f"real if column < u32({dim - MATRIX * j}) else u32(0)"
        at = f"to + u64({16 * j}) + u64(2) * u64(column)"
        out.line(f"ptx.store_word({at}, ptx.pack_{dtype}({pair}), {when})")


def quarter_name(total: str) -> str:
    """Of the function that stores 32 columns of an accumulator."""
    return "store_quarter" if total == "total" else f"store_{total}_quarter"


def emit_quarter(out: SourceWriter, dtype: str, total: str = "total") -> None:
    """The four lanes of a row hand words round until each has 8 columns, 16 bytes.

    Lane t of them holds word t of four chunks of 8 columns, and ends with all words of chunk t: twice, it keeps half
    of what it has and swaps the other half with the lane whose number differs in one bit.
    """
    parameters = (total, "first", "share", "to", "real")
    text = "32 columns of a row: its four lanes hand words round until each has 8 columns side by side."
    with device_function(out, quarter_name(total), parameters, text):
        for i in range(ROW_LANES):
            pair = ", ".join(f"{total}[first + {SUMS * i + x}] * share" for x in range(LANE_COLUMNS))
            out.line(f"word_{i} = ptx.pack_{dtype}({pair})")
        out.lines(
            """
            odd = ptx.thread_index() & u32(1)
            upper = ptx.thread_index() & u32(2)
            got_0 = ptx.shuffle_xor_word(ptx.select(word_0, word_1, odd), u32(1))
            got_1 = ptx.shuffle_xor_word(ptx.select(word_2, word_3, odd), u32(1))
            low_0 = ptx.select(got_0, word_0, odd)
            low_1 = ptx.select(word_1, got_0, odd)
            high_0 = ptx.select(got_1, word_2, odd)
            high_1 = ptx.select(word_3, got_1, odd)
            got_0 = ptx.shuffle_xor_word(ptx.select(low_0, high_0, upper), u32(2))
            got_1 = ptx.shuffle_xor_word(ptx.select(low_1, high_1, upper), u32(2))
            ptx.store_words4(
                to + u64(16) * u64(ptx.thread_index() & u32(3)),
                ptx.select(got_0, low_0, upper),
                ptx.select(got_1, low_1, upper),
                ptx.select(high_0, got_0, upper),
                ptx.select(high_1, got_1, upper),
                real,
            )
            """
        )
