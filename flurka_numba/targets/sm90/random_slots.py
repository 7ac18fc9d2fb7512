"""Random features of the slots of stage 2: u = omega K' in float32, and what favor or rfa make of it.

Slots and this block's rows of omega stand in shared memory, with rows of ``row_bytes``. Thread 16 s + g has features
4 g to 4 g + 3 of slots s and s + 16; row 16 i + g of the tile is that of feature 4 g + i, so that lanes that read at
once read neighbouring rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.gpu.lanes import QUAD, QUAD_BYTES, quad_of
from flurka_numba.targets.sm90.random_features import inverse_norm, rfa_factor, slope, square_slope
from flurka_numba.targets.sm90.shape import (
    SIDE_COLUMN,
    SIDE_ROW,
    SIDE_THREADS,
    SLOTS,
    STATE_SIDE,
    RandomFeatures,
    StateTraits,
)
from flurka_numba.targets.sm90.slots import HeadColumns
from splat_numba.gen.language.lane_layout import log2
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import spans


def random_parameters(phi: FeatureMap | RandomFeatures) -> tuple[tuple[str, str], ...]:
    """(name, kind) of what stage 2 knows of omega, and of what the launch before favor's left."""
    if isinstance(phi, FeatureMap):
        return ()
    return (("omega", "l"), *((("tops", "l"), ("tops_of_head", "r")) if phi.name == "favor" else ()))


def key_columns(traits: StateTraits) -> Sequence[HeadColumns]:
    """A feature needs all columns of its slot."""
    return [
        HeadColumns(f"k_{span}", "k", f"u32({span})", f"slot_tile + u32({4 * SPAN * span})", traits.row_bytes)
        for span in range(spans(traits.head_dim))
    ]


def emit_omega(out: KernelWriter, traits: StateTraits, phi: RandomFeatures) -> None:
    """This block's rows of omega into shared memory, with zeros behind them."""
    of_row = spans(traits.head_dim)
    out.lines(
        f"""
        slot_tile = u32(feature_tile + u32({traits.tile_bytes}))
        omega_tile = u32(slot_tile + u32({SLOTS * traits.row_bytes}))
        """
    )
    with out.part("load_omega", "This block's rows of omega into shared memory, with zeros behind them."):
        _emit_rows_of_omega(out, traits, phi, of_row)


def _emit_rows_of_omega(out: KernelWriter, traits: StateTraits, phi: RandomFeatures, of_row: int) -> None:
    """Four rows of a thread, of each 4 columns of every span."""
    out.line(f"got_omega = cuda.local.array({QUAD * QUAD * of_row}, dtype=np.float32)")
    with out.block(f"for i in range({QUAD})"):
        out.line(f"row = u32(feature_block * u32({STATE_SIDE}) + {SIDE_ROW} + u32({SIDE_THREADS}) * u32(i))")
        _emit_row_of_omega(out, phi, "row", "row")
        out.line(f"at = omega + u64(4) * (u64(row) * u64({traits.head_dim}) + u64(column))")
        for j in range(QUAD * of_row):
            place = SPAN * (j // QUAD) + j % QUAD
            when = f"u32(1) if column + u32({place}) < u32({traits.head_dim}) else u32(0)"
            out.line(f"got_omega[{QUAD * of_row} * i + {j}] = ptx.load_real_when(at + u64({4 * place}), {when})")
    with out.block(f"for i in range({QUAD})"):
        out.line(f"row = u32({SIDE_ROW} + u32({SIDE_THREADS}) * u32(i))")
        out.line(f"row = u32((row & u32({QUAD - 1})) * u32({SIDE_THREADS}) + (row >> u32({log2(QUAD)})))")
        for span in range(of_row):
            four = quad_of("got_omega", QUAD * span, f"{QUAD * of_row} * i + ")
            at = f"omega_tile + u32({traits.row_bytes}) * row + u32(4) * column + u32({4 * SPAN * span})"
            out.line(f"ptx.store_shared_reals4({at}, {four}, u32(1))")


def _emit_row_of_omega(out: KernelWriter, phi: RandomFeatures, place: str, row: str) -> None:
    """The row that makes the feature at a place; the first one for a place that has no feature."""
    if phi.name == "rfa":
        out.line(f"{row} = u32({place} - u32({phi.part})) if {place} >= u32({phi.part}) else {place}")
    out.line(f"{row} = {row} if {row} < u32({phi.rows}) else u32(0)")


def emit_exponents(out: KernelWriter, traits: StateTraits) -> None:
    """u of this thread's 4 features and 2 slots, and the slots' squares."""
    out.line(f"u = cuda.local.array({2 * QUAD}, dtype=np.float32)")
    with out.part("multiply_omega", "u of this thread's 4 features and 2 slots, and the slots' squares."):
        _emit_products(out, traits)


def _emit_products(out: KernelWriter, traits: StateTraits) -> None:
    """Four columns at a time."""
    out.lines(
        f"""
        square_0 = square_1 = f32(0.0)
        for i in range({2 * QUAD}):
            u[i] = f32(0.0)
        slot_at = u32(slot_tile + u32({traits.row_bytes}) * {SIDE_ROW})
        omega_at = u32(omega_tile + u32({traits.row_bytes}) * {SIDE_COLUMN})
        """
    )
    with out.block(f"for four in range({-(-traits.head_dim // QUAD)})"):
        for slot in (0, 1):
            names = ", ".join(f"x_{slot}_{j}" for j in range(QUAD))
            at = f"slot_at + u32({QUAD_BYTES}) * u32(four) + u32({slot * SLOTS // 2 * traits.row_bytes})"
            out.line(f"{names} = ptx.load_shared_reals4({at})")
            for j in range(QUAD):
                out.line(f"square_{slot} += x_{slot}_{j} * x_{slot}_{j}")
        for i in range(QUAD):
            at = f"omega_at + u32({QUAD_BYTES}) * u32(four) + u32({SIDE_THREADS * i * traits.row_bytes})"
            out.line(f"w_0, w_1, w_2, w_3 = ptx.load_shared_reals4({at})")
            for slot in (0, 1):
                for j in range(QUAD):
                    out.line(f"u[{QUAD * slot + i}] += x_{slot}_{j} * w_{j}")


def emit_slot_features(out: KernelWriter, traits: StateTraits, phi: RandomFeatures) -> None:
    """phi of u, to the tile of features; 0 for a slot that is not there, and at a place that has no feature."""
    for slot in (0, 1):
        text = "phi of a slot's u, to the tile of features; 0 for a slot or a feature that is not there."
        with out.part("store_features", text, slot_here=str(slot), square=f"square_{slot}"):
            out.line(f"slot = u32(chunk + {SIDE_ROW} + u32({SLOTS // 2}) * u32(slot_here))")
            if phi.name == "favor":
                out.line(f"shift = largest * {slope(traits.head_dim)} + square * {square_slope(traits.head_dim)}")
            else:
                out.line(f"inverse = {inverse_norm('square')}")
            out.line("there = u32(1) if slot < last else u32(0)")
            out.line(f"features = cuda.local.array({QUAD}, dtype=np.float32)")
            with out.block(f"for i in range({QUAD})"):
                _emit_feature(out, traits, phi)
            at = f"feature_tile + u32({4 * STATE_SIDE}) * (slot - chunk)"
            four = quad_of("features", 0)
            out.line(f"ptx.store_shared_reals4({at} + u32(4) * column, {four}, u32(1))")


def _emit_feature(out: KernelWriter, traits: StateTraits, phi: RandomFeatures) -> None:
    """Feature i of a thread's four."""
    u = f"u[{QUAD} * slot_here + i]"
    out.line(f"place = u32(feature_block * u32({STATE_SIDE}) + column + u32(i))")
    if phi.name == "favor":
        out.line(f"phi = ptx.exp2({u} * {slope(traits.head_dim)} - shift) + f32({phi.eps!r})")
        row = "place"
    else:
        out.line(f"sine, cosine = ptx.sine_cosine({u} * inverse)")
        out.line(f"of_cosine = u32(1) if place >= u32({phi.part}) else u32(0)")
        out.line(f"phi = ptx.select_real(cosine, sine, of_cosine) * {rfa_factor(phi)}")
        row = f"place - u32({phi.part}) * of_cosine"
    out.line(f"kept = there if {row} < u32({phi.rows}) else u32(0)")
    out.line("features[i] = ptx.select_real(phi, f32(0.0), kept)")
