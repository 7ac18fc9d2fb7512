"""An item's results from registers to memory: out divided by the row's sum, and lse."""

from __future__ import annotations

from splat_numba.gen.boxes import Traits
from splat_numba.gen.targets.sm90.shape import value_columns
from splat_numba.gen.writer import SourceWriter


def rows_early(traits: Traits) -> bool:
    """Whether rows are read before the loop over tiles, which hides the wait but keeps two registers busy in it."""
    return traits.groups < 3 or traits.resumes


def emit_rows(out: SourceWriter, traits: Traits) -> None:
    """This thread's two query rows."""
    out.lines(
        f"""
        row_at = rows + u64(4) * (u64(rank) * u64({traits.tile_q}) + u64(warpgroup * u32(64) + row_in_group))
        row_0 = ptx.load_word(row_at)
        row_1 = ptx.load_word(row_at + u64(32))
        """
    )


def emit_places(out: SourceWriter) -> None:
    """Where the rows' results stand."""
    out.lines(
        """
        real_0 = u32(1) if row_0 < seq_q else u32(0)  # padding is 2**32 - 1 here
        real_1 = u32(1) if row_1 < seq_q else u32(0)
        out_at = out + u64(entry) * out_batch + u64(head) * out_head
        lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
        """
    )


def emit_results(out: SourceWriter, traits: Traits) -> None:
    """out = total / sum, 0 where nothing is kept; lse = (peak + log2 sum) ln 2, then -inf."""
    if not rows_early(traits):
        emit_rows(out, traits)
    emit_places(out)
    if traits.value_dim >= 32:
        out.line("odd = lane & u32(1)")
        out.line("upper = lane & u32(2)")
        out.line("chunk = u64(16) * u64(lane & u32(3))")
    for row in (0, 1):
        out.lines(
            f"""
            sum_{row} += ptx.shuffle_xor(sum_{row}, u32(1))
            sum_{row} += ptx.shuffle_xor(sum_{row}, u32(2))
            share = ptx.reciprocal(sum_{row}) if sum_{row} != f32(0.0) else f32(0.0)
            to = out_at + u64(row_{row}) * out_row
            """
        )
        whole = traits.value_dim // 32
        if whole:
            with out.block(f"for quarter in range({whole})"):
                _emit_quarter(out, traits, row)
        for j in range(4 * whole, value_columns(traits) // 8):
            pair = ", ".join(f"total[{4 * j + 2 * row + x}] * share" for x in (0, 1))
            when = f"real_{row}"
            if 8 * j + 8 > traits.value_dim:
                when = f"real_{row} if column < u32({traits.value_dim - 8 * j}) else u32(0)"
            at = f"to + u64({16 * j}) + u64(2) * u64(column)"
            out.line(f"ptx.store_word({at}, ptx.pack_{traits.dtype}({pair}), {when})")
        with out.block("if lse != u64(0)"):
            out.lines(
                f"""
                safe = f32(0.0) if peak_{row} == NONE_KEPT else peak_{row}
                one_lane = real_{row} if column == u32(0) else u32(0)
                value = (safe + ptx.log2(sum_{row})) * f32(0.6931471805599453)
                ptx.store_real(lse_at + u64(4) * u64(row_{row}), value, one_lane)
                """
            )


def _emit_quarter(out: SourceWriter, traits: Traits, row: int) -> None:
    """32 columns of a row, 16 bytes a lane: the four lanes of a row hand words round until each has 8 columns.

    Lane t of them holds word t of four chunks of 8 columns, and ends with all words of chunk t: twice, it keeps half
    of what it has and swaps the other half with the lane whose number differs in one bit.
    """
    for i in range(4):
        pair = ", ".join(f"total[16 * quarter + {4 * i + 2 * row + x}] * share" for x in (0, 1))
        out.line(f"word_{i} = ptx.pack_{traits.dtype}({pair})")
    out.lines(
        f"""
        got_0 = ptx.shuffle_xor_word(ptx.select(word_0, word_1, odd), u32(1))
        got_1 = ptx.shuffle_xor_word(ptx.select(word_2, word_3, odd), u32(1))
        low_0 = ptx.select(got_0, word_0, odd)
        low_1 = ptx.select(word_1, got_0, odd)
        high_0 = ptx.select(got_1, word_2, odd)
        high_1 = ptx.select(word_3, got_1, odd)
        got_0 = ptx.shuffle_xor_word(ptx.select(low_0, high_0, upper), u32(2))
        got_1 = ptx.shuffle_xor_word(ptx.select(low_1, high_1, upper), u32(2))
        ptx.store_words4(
            to + u64(64) * u64(quarter) + chunk,
            ptx.select(got_0, low_0, upper),
            ptx.select(got_1, low_1, upper),
            ptx.select(high_0, got_0, upper),
            ptx.select(high_1, got_1, upper),
            real_{row},
        )
        """
    )
