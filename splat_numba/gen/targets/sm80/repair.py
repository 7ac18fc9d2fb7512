"""Scores of infinite keys, where float32 is multiplied in three products.

The rest of an infinite number is NaN, and 0 times infinity is too: three products give NaN where float32 gives
infinity, or -inf, which weighs nothing. One product of TF32 has no rests. So where a score of a tile is NaN, which
costs an addition a score to know, those scores become what one product gives: infinite, or NaN where they must be.
"""

from __future__ import annotations

from dataclasses import replace

from splat_numba.gen.language.dtypes import TF32
from splat_numba.gen.language.lane_layout import ATOM, SUMS
from splat_numba.gen.language.writer import INDENT, SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.real_products import FLOAT, SIXTEEN, emit_real_row_product, emit_round_four
from splat_numba.gen.targets.sm80.shape import row_bytes
from splat_numba.gen.targets.sm80.softmax import chunks_of, columns_of
from splat_numba.gen.targets.sm80.tiles import RowProduct


def emit_repair(out: SourceWriter, one: RowProduct) -> None:
    """``repair_scores``, after the product ``one``."""
    again = tuple(f"again_{atom}" for atom in range(len(one.sums)))
    parameters, pitch = (*one.sums, one.left, one.right), row_bytes(one.dim, FLOAT)
    with device_function(out, "repair_scores", parameters, "Scores that are NaN, where keys may be infinite, anew."):
        partial_sums = [f"sum_{i}" for i in range(SUMS)]  # not one, which each addition would wait for
        out.line(f"{' = '.join(partial_sums)} = f32(0.0)")
        for name in one.sums:
            for first in chunks_of(one.columns):
                call = f"{', '.join(partial_sums)} = add_up_columns"
                wrapped(out, call, (str(first), name, *partial_sums))
        out.line(f"total = {' + '.join(partial_sums)}")
        with out.block("if ptx.any_lane(u32(0) if total == total else u32(1)) != u32(0)"):
            for j in range(one.columns // ATOM):
                right = f"u32({one.right} + u32({ATOM * pitch * j}))"
                wrapped(out, "repair_sixteen", (str(SIXTEEN * j), *one.sums, one.left, right))
    text = "32 columns of both rows, each number of a lane's four to a sum; NaN if one is."
    with columns_of(out, "add_up_columns", ("score", *partial_sums), one.columns, text):
        for i, name in enumerate(partial_sums):
            out.line(f"{name} += score[{SUMS} * j + {i}]")
    out.line(f"{INDENT}return {', '.join(partial_sums)}")
    with device_function(out, "repair_sixteen", ("at", *parameters), "Sixteen columns."):
        for name in again:
            out.line(f"{name} = cuda.local.array({SIXTEEN}, dtype=np.float32)")
        wrapped(out, "multiply_again", (*again, one.left, one.right))
        with out.block(f"for i in range({SIXTEEN})"):
            for name, new in zip(one.sums, again, strict=True):
                at = f"{name}[at + i]"
                out.line(f"{at} = {at} if {at} == {at} else {new}[i]")
    emit_round_four(out)
    texts = ("Scores of sixteen keys, by one product of TF32.", "")
    emit_real_row_product(
        out, replace(one, name="multiply_again", sums=again, columns=ATOM, texts=texts, rests=0), TF32
    )
