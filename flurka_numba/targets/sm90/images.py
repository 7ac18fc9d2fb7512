"""States as later products read them: 16-bit images of S and of its transpose, from the float32 shares of accumulate.

The image for rows of features (out = phi(q) S): a row for each value, features along it, then SUM_ROWS rows of z. The
image for rows of values (dphi = g S^T + w z^T): a row for each feature, values along it, then a step of 16 columns of
which the first is z, and of keys in float16 the second 2^15 z. Both are spans of 64 columns, 128-byte rows with the
swizzle of shared memory; rows and columns stand in the orders of rows.py, unless Traits say natural. float16 has a
scale a head, which scales.py explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flurka_numba.targets.gpu.lanes import LANE, QUAD, QUAD_BYTES, quad_of
from flurka_numba.targets.gpu.warps import emit_largest_of_warp
from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.powers import emit_scale
from flurka_numba.targets.sm90.accumulate_shape import SHARE_COLUMNS, SHARE_NUMBERS
from flurka_numba.targets.sm90.image_shape import ImageTraits, turned_bytes, turned_rows
from flurka_numba.targets.sm90.lanes import CHUNK, swizzle
from flurka_numba.targets.sm90.scales import HIGH, SLOT_SCALE_BYTES, TOP, emit_carrier, is_scaled
from flurka_numba.targets.sm90.shape import (
    SIDE_COLUMN,
    SIDE_ROW,
    SIDE_THREADS,
    STATE_SIDE,
    SUM_ROWS,
    chunks,
    state_bytes,
    state_rows,
)
from flurka_numba.targets.sm90.state_block import emit_image_row, emit_state_block, operand_place, row_of_four
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, MATRIX, WARP
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES

POINTERS = ("shares", "states", "turned")
COUNTS = ("shares_of_state",)
ENTRY = "images"
PARTS = 4  # blocks of a state: with one, 16 heads keep 16 multiprocessors busy for 8 us
THREADS = SIDE_THREADS * SIDE_THREADS // PARTS
AT_ONCE = 4  # shares whose numbers are on their way together


def images_entry(traits: ImageTraits) -> Entry:
    """How the kernel is called."""
    pointers = (*POINTERS, "slot_scales") if traits.values_scaled else POINTERS
    return Entry(ENTRY, parameters_of(pointers, COUNTS), THREADS, 4, 0)


def render_images(traits: ImageTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out = start_text(
        images_entry(traits),
        f"Shares of states to images: {traits.head_dim} x {traits.value_dim}, {traits.dtype}.",
    )
    with out.suite():
        out.lines(
            f"""
            thread = ptx.thread_index()
            state = u32(ptx.block_index() // u32({PARTS}))
            part = u32(ptx.block_index() - state * u32({PARTS}))
            """
        )
        emit_state_block(out, traits.blocks)
        out.lines(
            f"""
            a = u32(part * u32({SIDE_THREADS // PARTS}) + {SIDE_ROW})  # features 4 a to 4 a + 3
            b = u32{SIDE_COLUMN}  # values 4 b to 4 b + 3
            total = cuda.local.array({QUAD * QUAD}, dtype=np.float32)
            sums = cuda.local.array({QUAD}, dtype=np.float32)
            """
        )
        _emit_total(out, traits)
        if is_scaled(traits.dtype):
            _emit_scaled(out, traits)
        with out.part("store_image", "The image for rows of features: a row for each value, features along it."):
            _emit_image(out, traits)
        with out.part("store_turned", "The image for rows of values: a row for each feature, values along it."):
            _emit_turned(out, traits)
    return out.text()


def _emit_total(out: KernelWriter, traits: ImageTraits) -> None:
    """The shares added up in their order; and the numbers that the head's scale follows from."""
    tops, rows_bytes = _tops(traits), 4 * QUAD * SHARE_COLUMNS
    out.lines(
        f"""
        for i in range({QUAD * QUAD}):
            total[i] = f32(0.0)
        for i in range({QUAD}):
            sums[i] = f32(0.0)
        at = shares + u64({4 * SHARE_NUMBERS}) * u64(state) * u64(shares_of_state) + u64({rows_bytes}) * u64(a)
        got = cuda.local.array({QUAD * QUAD * AT_ONCE}, dtype=np.float32)
        got_sums = cuda.local.array({QUAD * AT_ONCE}, dtype=np.float32)
        share = u32(0)
        """
    )
    if tops:
        out.lines(
            f"""
            lane = u32{LANE}
            top = cuda.local.array({len(tops)}, dtype=np.float32)
            got_tops = cuda.local.array({len(tops) * AT_ONCE}, dtype=np.float32)
            for i in range({len(tops)}):
                top[i] = f32(0.0)
            head_at = shares + u64({4 * SHARE_NUMBERS * math.prod(traits.blocks)}) * u64(pair) * u64(shares_of_state)
            head_at = head_at + u64({4 * SHARE_COLUMNS}) * u64(lane)
            """
        )
    with out.block("while share < shares_of_state"):
        for ahead in range(AT_ONCE):
            with out.part("load_share", "A thread's numbers of a share, or of the last one.", ahead=str(ahead)):
                _emit_load(out, tops)
        for ahead in range(AT_ONCE):
            with out.part("add_share", "A share that is there.", ahead=str(ahead)):
                _emit_add(out, len(tops))
        out.line(f"share = u32(share + u32({AT_ONCE}))")


def _emit_load(out: KernelWriter, tops: Sequence[tuple[int, int]]) -> None:
    """Of the share ``ahead`` further on."""
    out.line("one = u64(min(share + u32(ahead), shares_of_state - u32(1)))")
    out.line(f"here = at + u64({4 * SHARE_NUMBERS}) * one")
    with out.block(f"for i in range({QUAD})"):
        out.line(f"row = here + u64({4 * SHARE_COLUMNS}) * u64(i)")
        four = quad_of("got", 0, f"{QUAD * QUAD} * ahead + {QUAD} * i + ")
        out.line(f"{four} = ptx.load_reals4(row + u64({QUAD_BYTES}) * u64(b))")
        out.line(f"got_sums[{QUAD} * ahead + i] = ptx.load_state(row + u64({4 * STATE_SIDE}))")
    for i, (block, offset) in enumerate(tops):
        far = f"u64({4 * SHARE_NUMBERS}) * (u64({block}) * u64(shares_of_state) + one) + u64({offset})"
        out.line(f"got_tops[{len(tops)} * ahead + {i}] = ptx.load_state(head_at + {far})")


def _emit_add(out: KernelWriter, tops: int) -> None:
    """What was loaded of it."""
    out.line("real = u32(1) if share + u32(ahead) < shares_of_state else u32(0)")
    for total, got, count in (("total", "got", QUAD * QUAD), ("sums", "got_sums", QUAD), ("top", "got_tops", tops)):
        if count:
            with out.block(f"for i in range({count})"):
                out.line(f"{total}[i] += ptx.select_real({got}[{count} * ahead + i], f32(0.0), real)")


def _tops(traits: ImageTraits) -> list[tuple[int, int]]:
    """What a lane reads of a share of its head for the scale: the block, and bytes from its row's start. Of keys z,
    which all blocks of values have; of queries the largest number of each row, a bound once they are added up.
    """
    if not is_scaled(traits.dtype):
        return []
    of_features, of_values = traits.blocks
    column = STATE_SIDE if traits.of == "keys" else STATE_SIDE + 1
    every = range(0, of_features * of_values, of_values if traits.of == "keys" else 1)
    return [(block, 4 * (column + row * SHARE_COLUMNS)) for block in every for row in (0, WARP)]


def _emit_scaled(out: KernelWriter, traits: ImageTraits) -> None:
    """State and sums times the head's scale, which every warp finds for itself."""
    with out.part("scale_state", "State and sums times the head's scale, which every warp finds for itself."):
        out.line("largest = f32(0.0)")
        with out.block(f"for i in range({len(_tops(traits))})"):
            out.line("largest = ptx.maximum(largest, ptx.maximum(top[i], -top[i]))")
        emit_largest_of_warp(out, "largest")
        emit_scale(out, "scale", "largest", 0 if traits.of == "keys" else TOP)
        out.lines(
            f"""
            for i in range({QUAD * QUAD}):
                total[i] = total[i] * scale
            for i in range({QUAD}):
                sums[i] = sums[i] * scale
            """
        )


def _emit_image(out: KernelWriter, traits: ImageTraits) -> None:
    """Four features along a row for each of four values; sixteen threads write eight rows of z."""
    values, further = CHUNK * chunks(traits.value_dim), LANE_COLUMNS if traits.natural_features else MATRIX
    out.lines(
        f"""
        place = {f"u32({QUAD}) * a" if traits.natural_features else operand_place("a")}
        first_row = u32({operand_place("b")} + value_block * u32({STATE_SIDE}))
        to = states + u64({state_bytes(traits.head_dim, traits.value_dim)}) * u64(pair)
        to = to + u64({state_rows(traits.value_dim) * SPAN_BYTES}) * u64(feature_block)
        """
    )
    for j in range(QUAD):
        row = f"u32(first_row + u32({row_of_four(j)}))"
        with out.part("store_row", "Four features of a value.", row=row, j=str(j)):
            numbers, there = (
                [f"total[{QUAD * i} + j]" for i in range(QUAD)],
                f"u32(1) if row < u32({values}) else u32(0)",
            )
            emit_image_row(out, traits.dtype, numbers, there, further=further)
    with out.part("store_sums", "Four features of z, or of what goes with it."):
        out.line(f"row = u32(u32({values}) + b)")
        first = f"u32(1) if b < u32({SUM_ROWS}) and value_block == u32(0) else u32(0)"
        carries = is_scaled(traits.dtype)
        if traits.values_scaled:
            out.line(f"value_word = ptx.load_word(slot_scales + u64({SLOT_SCALE_BYTES}) * u64(pair) + u64(4))")
            emit_carrier(out, "scale", "b", "value_word")
        elif carries:
            emit_carrier(out, "scale", "b")
        emit_image_row(out, traits.dtype, [f"sums[{i}]" for i in range(QUAD)], first, further=further, carries=carries)


def _emit_turned(out: KernelWriter, traits: ImageTraits) -> None:
    """Four values along a row for each of four features; z, with the zeros behind it, by the first thread of four."""
    values, rows = CHUNK * chunks(traits.value_dim), turned_rows(traits.head_dim)
    out.lines(
        f"""
        place = {f"u32({QUAD}) * b" if traits.natural_values else operand_place("b")}
        first_row = u32({operand_place("a")} + feature_block * u32({STATE_SIDE}))
        image = turned + u64({turned_bytes(traits.head_dim, traits.value_dim)}) * u64(pair)
        to = image + u64({rows * SPAN_BYTES}) * u64(value_block)
        """
    )
    column = f"value_block * u32({STATE_SIDE}) + place"
    out.line(f"inside = u32(1) if {column} < u32({values}) else u32(0)")
    rows_of = [f"u32(first_row + u32({row_of_four(i)}))" for i in range(QUAD)]
    for i, row in enumerate(rows_of):
        with out.part("store_turned_row", "Four values of a feature.", row=row, i=str(i)):
            four, there = [f"total[{QUAD} * i + {j}]" for j in range(QUAD)], f"inside if row < u32({rows}) else u32(0)"
            emit_image_row(out, traits.dtype, four, there, further=LANE_COLUMNS if traits.natural_values else MATRIX)
    span, sums_column = divmod(values, STATE_SIDE)
    out.line(f"to = image + u64({rows * SPAN_BYTES * span})")
    for i, row in enumerate(rows_of):
        with out.part("store_turned_sums", "z of a feature, and zeros behind it.", row=row, i=str(i)):
            _emit_turned_sums(out, traits, sums_column)


def _emit_turned_sums(out: KernelWriter, traits: ImageTraits, column: int) -> None:
    """Of keys in float16 with 2^15 z beside z."""
    rows = turned_rows(traits.head_dim)
    out.line(f"first = u32(1) if b == u32(0) and value_block == u32(0) and row < u32({rows}) else u32(0)")
    for half in (0, 1):
        at = f"((u32({2 * column + QUAD_BYTES * half})) ^ {swizzle('row')})"
        second = f"sums[i] * f32({HIGH!r})" if is_scaled(traits.dtype) and traits.of == "keys" else "f32(0.0)"
        word = f"ptx.pack_{traits.dtype}(sums[i], {second})" if half == 0 else "u32(0)"
        four = f"{word}, u32(0), u32(0), u32(0)"
        out.line(f"ptx.store_words4(to + u64({SPAN_BYTES}) * u64(row) + u64{at}, {four}, first)")
