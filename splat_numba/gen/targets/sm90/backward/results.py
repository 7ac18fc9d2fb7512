"""An item's gradients, from registers to memory."""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import LANE_COLUMNS, MATRIX, sum_at
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.gradient_kernels import ADDED, FINISHED, ROUNDED
from splat_numba.gen.targets.gpu.results import QUARTER, emit_quarter, emit_rounded
from splat_numba.gen.targets.gpu.softmax import each_pair
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits

AT_ONCE = 16  # chunks of 8 columns whose sums are read together


def emit_results(out: SourceWriter, traits: BackwardTraits) -> None:
    """A function for each gradient, which stores a row of it."""
    for name, dim in traits.dims.items():
        total = f"{name}_total"
        sums = ("sums", "sums_step") if traits.result == FINISHED else ()
        parameters = ("row", "place", "column", total, "share", "to_first", "step", *sums, "seq")
        text = f"A row of {name}: its sums times share, 0 where share is."
        with device_function(out, f"store_{name}", parameters, text):
            _emit_store(out, traits, total, dim)
        if traits.result in {ROUNDED, FINISHED} and dim >= QUARTER:
            emit_quarter(out, traits.boxes.dtype, total)


def _emit_store(out: SourceWriter, traits: BackwardTraits, total: str, dim: int) -> None:
    """0 x NaN is NaN, so that what a row without gradient summed up is put aside."""
    out.lines(
        """
        real = u32(1) if place < seq else u32(0)  # padding is 2**32 - 1 here
        to = to_first + u64(place) * step
        """
    )
    with each_pair(out, -(-dim // MATRIX) * MATRIX):
        at = sum_at(total, "row", "x")
        out.line(f"{at} = {at} * share if share != f32(0.0) else f32(0.0)")
    if traits.result in {ADDED, FINISHED}:
        _emit_added(out, "sums + u64(place) * sums_step" if traits.result == FINISHED else "to", total, dim)
    if traits.result in {ROUNDED, FINISHED}:
        out.line("share = f32(1.0)")
        emit_rounded(out, traits.boxes.dtype, dim, total)
        return
    with out.block(f"for j in range({-(-dim // MATRIX)})"):
        pair = ", ".join(sum_at(total, "row", str(x)) for x in range(LANE_COLUMNS))
        out.line(f"ptx.store_reals2(to + u64(4) * u64(column) + u64({4 * MATRIX}) * u64(j), {pair}, real)")


def _emit_added(out: SourceWriter, place: str, total: str, dim: int) -> None:
    """float32 sums of a row, which is padded to whole chunks of 8 columns: many are read before any is used, so that a
    row of up to 128 columns waits for memory once.
    """
    chunks = -(-dim // MATRIX)
    out.line(f"before = cuda.local.array({LANE_COLUMNS * min(chunks, AT_ONCE)}, dtype=np.float32)")
    out.line(f"sums_at = {place} + u64(4) * u64(column)")  # what is added to it is constant: no register an address
    for first in range(0, chunks, AT_ONCE):
        count = min(AT_ONCE, chunks - first)
        with each_pair(out, count * MATRIX):
            at = f"sums_at + u64({4 * MATRIX * first}) + u64({4 * MATRIX}) * u64(j) + u64(4) * u64(x)"
            out.line(f"before[{LANE_COLUMNS} * j + x] = ptx.load_real_when({at}, real)")
        with each_pair(out, count * MATRIX):
            at = sum_at(total, "row", "x", f"(j + {first})")
            out.line(f"{at} += before[{LANE_COLUMNS} * j + x]")
