"""An item's gradients, from registers to memory."""

from __future__ import annotations

from splat_numba.gen.targets.sm90.backward.traits import ADDED, ROUNDED, BackwardTraits, result_dims
from splat_numba.gen.targets.sm90.epilogue import QUARTER, emit_quarter, emit_rounded
from splat_numba.gen.targets.sm90.functions import device_function
from splat_numba.gen.writer import SourceWriter


def emit_results(out: SourceWriter, traits: BackwardTraits) -> None:
    """A function for each gradient, which stores a row of it."""
    dims = result_dims(traits)
    for name, dim in dims.items():
        total = f"{name}_total"
        parameters = ("row", "place", "column", total, "share", "to_first", "step", "seq")
        text = f"A row of {name}: its sums times share, 0 where share is."
        with device_function(out, f"store_{name}", parameters, text):
            out.lines(
                """
                real = u32(1) if place < seq else u32(0)  # padding is 2**32 - 1 here
                to = to_first + u64(place) * step
                """
            )
            _emit_zeros(out, dim, total)
            if traits.result == ROUNDED:
                emit_rounded(out, traits.boxes.dtype, dim, total)
            else:
                _emit_sums(out, dim, total, added=traits.result == ADDED)
        if traits.result == ROUNDED and dim >= QUARTER:
            emit_quarter(out, traits.boxes.dtype, total)


def _emit_zeros(out: SourceWriter, dim: int, total: str) -> None:
    """0 x NaN is NaN, so that what a row without gradient summed up is put aside."""
    with out.block(f"for j in range({-(-dim // 8)})"), out.block("for x in range(2)"):
        at = f"{total}[4 * j + 2 * row + x]"
        out.line(f"{at} = {at} if share != f32(0.0) else f32(0.0)")


def _emit_sums(out: SourceWriter, dim: int, total: str, *, added: bool) -> None:
    """float32 sums of rows that are padded to whole chunks of 8 columns."""
    chunks = -(-dim // 8)
    pair = [f"{total}[4 * j + 2 * row + {x}] * share" for x in (0, 1)]
    if added:  # all are read before any is written, so that a row waits for memory once
        out.line(f"before = cuda.local.array({2 * chunks}, dtype=np.float32)")
        with out.block(f"for j in range({chunks})"):
            out.line("at = to + u64(4) * u64(u32(8 * j) + column)")
            for x in (0, 1):
                out.line(f"before[2 * j + {x}] = ptx.load_real_when(at + u64({4 * x}), real)")
        pair = [f"before[2 * j + {x}] + {one}" for x, one in enumerate(pair)]
    with out.block(f"for j in range({chunks})"):
        out.line("at = to + u64(4) * u64(u32(8 * j) + column)")
        out.line(f"ptx.store_reals2(at, {', '.join(pair)}, real)")
