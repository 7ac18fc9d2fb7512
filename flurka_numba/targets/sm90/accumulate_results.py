"""Products of sums over a sequence, and the share of a state that they make."""

from __future__ import annotations

from flurka_numba.targets.sm90.accumulate_shape import (
    SHARE_COLUMNS,
    SHARE_NUMBERS,
    TILE,
)
from flurka_numba.targets.sm90.lanes import LANE_OF_ROW, LANES_OF_ROW
from flurka_numba.targets.sm90.scales import HIGH
from flurka_numba.targets.sm90.shape import STATE_SIDE
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS, MATRIX, sum_at
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    PRODUCT_DEPTH,
    STEP_OF_ROWS,
    values_descriptor,
)


def emit_products(out: KernelWriter, *places: str) -> None:
    """Begin to add a tile's products, as a group. places: of features, values and w."""
    with out.part("multiply_rows", "Begin to add a tile's products, as a group."):
        for name, place in zip(("features", "values", "weights"), places, strict=True):
            out.line(f"{name} = u64({values_descriptor(TILE)}) | u64({place} >> u32(4))")
        for step in range(TILE // PRODUCT_DEPTH):
            at = STEP_OF_ROWS * step
            out.line(f"add_products(total, features + u64({at}), values + u64({at}), u32(1))")
            out.line(f"add_weights(sums, features + u64({at}), weights + u64({at}), u32(1))")
        out.line("ptx.wgmma_commit()")


def _emit_undone(out: KernelWriter) -> None:
    """Sums without ``state_scale``, both parts of those of weights together; and behind these the row's largest."""
    with out.part("undo_scale", "Sums without the state's scale, and behind these the row's largest."):
        for row in range(LANE_ROWS):
            first, second = (f"sums[{LANE_COLUMNS * row + x}]" for x in range(LANE_COLUMNS))
            out.line(f"{first} = ({first} + {second} * f32({HIGH!r})) * state_scale")
            out.line(f"largest = ptx.maximum({first}, -{first})")
            with out.block(f"for j in range({STATE_SIDE // MATRIX})"):
                for x in range(LANE_COLUMNS):
                    name = sum_at("total", row, x)
                    out.line(f"{name} = {name} * state_scale")
                    out.line(f"largest = ptx.maximum(largest, ptx.maximum({name}, -{name}))")
            for apart in LANES_OF_ROW:
                out.line(f"largest = ptx.maximum(largest, ptx.shuffle_xor(largest, u32({apart})))")
            out.line(f"{second} = largest")


def emit_share(out: KernelWriter, *, scaled: bool) -> None:
    """(64, 72) float32: a row for each feature. scaled: see AccumulateTraits."""
    with out.part("store_share", "(64, 72) float32: a row for each feature."):
        if scaled:
            _emit_undone(out)
        out.lines(
            f"""
            to = shares + u64({4 * SHARE_NUMBERS}) * u64(ptx.block_index())
            to = to + u64({4 * SHARE_COLUMNS}) * u64(row_in_tile) + u64({4 * LANE_COLUMNS}) * u64{LANE_OF_ROW}
            for j in range({STATE_SIDE // MATRIX}):
                ptx.store_reals2(to + u64({4 * MATRIX}) * u64(j), total[4 * j], total[4 * j + 1], u32(1))
                at = to + u64({4 * MATRIX * SHARE_COLUMNS}) + u64({4 * MATRIX}) * u64(j)
                ptx.store_reals2(at, total[4 * j + 2], total[4 * j + 3], u32(1))
            ptx.store_reals2(to + u64({4 * STATE_SIDE}), sums[0], sums[1], u32(1))
            ptx.store_reals2(to + u64({(MATRIX * SHARE_COLUMNS + STATE_SIDE) * 4}), sums[2], sums[3], u32(1))
            """
        )
