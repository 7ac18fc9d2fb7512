"""What becomes of the products of slot_state.py: a block's share, and the state that the last block writes."""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import QUAD_BYTES, WARP_OF_BLOCK
from flurka_numba.targets.powers import emit_scale
from flurka_numba.targets.sm90.lanes import CHUNK, LANE_OF_ROW, LANE_ROW, LANES_OF_ROW, swizzle
from flurka_numba.targets.sm90.scales import emit_carrier, inverse_word
from flurka_numba.targets.sm90.shape import STATE_SIDE, SUM_ROWS, chunks, state_bytes, state_rows
from flurka_numba.targets.sm90.slot_state_shape import SHARE_BYTES, SlotStateTraits
from flurka_numba.targets.sm90.state_block import emit_last_share
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, SUMS, log2, sum_at, sums_of
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES, WARPGROUP


def emit_share(out: KernelWriter) -> None:
    """Leave this block's share; who comes last adds up all of them in their order, which is the same at every run."""
    of_thread = f"u64({QUAD_BYTES}) * u64(thread)"
    out.line(f"share_at = shares + u64({SHARE_BYTES}) * (u64(state) * u64(shares_of_state)) + {of_thread}")
    with out.part("leave_share", "This block's products, and the sums of its columns' features."):
        out.line(f"to = share_at + u64({SHARE_BYTES}) * u64(share)")
        out.line("mine = u32(1) if warpgroup == u32(0) else u32(0)")
        for loop, at, four in _fours():
            with out.block(loop):
                out.line(f"ptx.store_reals4(to + {at}, {', '.join(four)}, mine)")
    emit_last_share(out, "flag")
    with (
        out.block("if is_last != u32(0) and warpgroup == u32(0)"),
        out.part("add_shares", "All shares of this state, in their order."),
    ):
        with out.block(f"for i in range({sums_of(STATE_SIDE)})"):
            out.line("total[i], sums[i] = f32(0.0), f32(0.0)")
        with out.block("for other in range(shares_of_state)"):
            out.line(f"at = share_at + u64({SHARE_BYTES}) * u64(other)")
            for loop, at, four in _fours():
                with out.block(loop):
                    out.line(f"a, b, c, d = ptx.load_reals4(at + {at})")
                    for name, letter in zip(four, "abcd", strict=True):
                        out.line(f"{name} += {letter}")


def _fours() -> list[tuple[str, str, list[str]]]:
    """Loops over a thread's numbers of a share, four at a time: where they stand, and what they are. Of the sums, the
    first of a lane's two rows has all.
    """
    products, apart = STATE_SIDE // MATRIX, QUAD_BYTES * WARPGROUP
    of_total = [f"total[{SUMS} * i + {j}]" for j in range(SUMS)]
    of_sums = [f"sums[{2 * SUMS} * i + {j}]" for j in (0, 1, SUMS, SUMS + 1)]
    return [
        (f"for i in range({products})", f"u64({apart}) * u64(i)", of_total),
        (f"for i in range({products // 2})", f"u64({apart * products}) + u64({apart}) * u64(i)", of_sums),
    ]


def _emit_state_scale(out: KernelWriter) -> None:
    """S^T and the sums times the scale of this block's features; four lanes have all of their sums."""
    out.line("largest = f32(0.0)")
    with out.block(f"for j in range({STATE_SIDE // MATRIX})"):
        for x in range(LANE_COLUMNS):
            number = sum_at("sums", 0, x)
            out.line(f"largest = ptx.maximum(largest, ptx.maximum({number}, -{number}))")
    for apart in LANES_OF_ROW:
        out.line(f"largest = ptx.maximum(largest, ptx.shuffle_xor(largest, u32({apart})))")
    emit_scale(out, "scale", "largest")
    with out.block(f"for i in range({sums_of(STATE_SIDE)})"):
        out.line("total[i], sums[i] = total[i] * scale, sums[i] * scale")


def emit_state(out: KernelWriter, traits: SlotStateTraits) -> None:
    """A lane has two rows of S^T, and of every 8 columns two; of the sums 8 rows are written."""
    parts = traits.parts
    values = CHUNK * chunks(parts.value_dim)
    if traits.scaled:
        _emit_state_scale(out)
    out.lines(
        f"""
        row_in_block = u32({WARP_OF_BLOCK} * u32({ATOM}) + {LANE_ROW})
        to = states + u64({state_bytes(parts.head_dim, parts.value_dim)}) * u64(pair)
        to = to + u64({state_rows(parts.value_dim) * SPAN_BYTES}) * u64(feature_block)
        """
    )
    for further in range(LANE_ROWS):
        row = f"u32(value_block * u32({STATE_SIDE}) + row_in_block + u32({MATRIX * further}))"
        with out.part("store_row", "A row of S^T, two features a word.", row=row, first=str(LANE_COLUMNS * further)):
            out.line(f"real = u32(1) if row < u32({values}) else u32(0)")
            _emit_row(out, parts.dtype, "total", "first + ")
    with out.part("store_sums", "A row of the sums, or of what goes with them."):
        out.line(f"row = u32(u32({values}) + row_in_block)")
        out.line(f"real = u32(1) if row_in_block < u32({SUM_ROWS}) and value_block == u32(0) else u32(0)")
        if traits.scaled:
            emit_carrier(out, "scale", "row_in_block", inverse_word("value_scale"))
        _emit_row(out, parts.dtype, "sums", "", carries=traits.scaled)


def _emit_row(out: KernelWriter, dtype: str, name: str, first: str, *, carries: bool = False) -> None:
    """The lane's words of ``row``, at their swizzled places. carries: see emit_image_row()."""
    out.line(f"to_row = to + u64({SPAN_BYTES}) * u64(row)")
    with out.block(f"for j in range({STATE_SIDE // MATRIX})"):
        word = f"ptx.pack_{dtype}({name}[{first}{SUMS} * j], {name}[{first}{SUMS} * j + 1])"
        if carries:
            word = f"ptx.select(carried, {word}, carries)"
        of_lane = f"({LANE_OF_ROW} << u32({log2(2 * LANE_COLUMNS)}))"
        out.line(f"at = u64((u32({2 * MATRIX}) * u32(j) + {of_lane}) ^ {swizzle('row')})")
        out.line(f"ptx.store_word(to_row + at, {word}, real)")
