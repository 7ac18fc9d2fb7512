"""An item's gradients, from registers to memory, beside what earlier launches stored there."""

from __future__ import annotations

from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.results import QUARTER, emit_quarter, emit_rounded
from splat_numba.gen.targets.simt.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.backward.shape import atoms_of
from splat_numba.gen.targets.sm80.shape import ATOM
from splat_numba.gen.writer import SourceWriter

AT_ONCE = 16  # chunks of 8 columns whose sums are read together


def emit_store(out: SourceWriter, traits: GradientTraits) -> None:
    """The entry's last statements. 0 x NaN is NaN: what a row without gradient summed up is put aside."""
    if traits.columns_are_queries:
        out.line("end = seq_left")
        if traits.ragged:
            out.line("end = ptx.load_word(kv_lengths + u64(4) * u64(entry))")
    for name in traits.dims:
        out.line(f"{name}_at = {name} + u64(entry) * {name}_batch + u64(head) * {name}_head")
    for atom in range(atoms_of(traits)):
        for row in (0, 1):
            out.line(f"token = ptx.load_word(row_at + u64({4 * (ATOM * atom + 8 * row)}))")
            for name in traits.dims:
                counts = "token < end" if traits.columns_are_queries else f"lse_{atom}[{row}] < INFINITE"
                factor = "f32(1.0)" if name == "dv" else "scale"
                out.line(f"share = {factor} if {counts} else f32(0.0)")
                total = f"{name}_total_{atom}"
                where = ("column", "share", f"{name}_at", f"{name}_row", "seq_left")
                wrapped(out, f"store_{name}", (str(row), "token", total, *where))


def emit_results(out: SourceWriter, traits: GradientTraits) -> None:
    """A function for each gradient, which stores a row of it."""
    for name, dim in traits.dims.items():
        parameters = ("row", "token", "total", "column", "share", "to_first", "step", "seq_left")
        text = f"A row of {name}: its sums times share, 0 where share is."
        with device_function(out, f"store_{name}", parameters, text):
            _emit_row(out, traits, dim)
    if traits.result != "float32" and max(traits.dims.values()) >= QUARTER:
        emit_quarter(out, traits.boxes.dtype)


def _emit_row(out: SourceWriter, traits: GradientTraits, dim: int) -> None:
    out.lines(
        """
        real = u32(1) if token < seq_left else u32(0)  # padding is 2**32 - 1 here
        to = to_first + u64(token) * step
        """
    )
    with out.block(f"for j in range({-(-dim // 8)})"), out.block("for x in range(2)"):
        at = "total[4 * j + 2 * row + x]"
        out.line(f"{at} = {at} * share if share != f32(0.0) else f32(0.0)")
    if traits.added:
        _emit_added(out, dim)
    if traits.result != "float32":
        out.line("share = f32(1.0)")
        emit_rounded(out, traits.boxes.dtype, dim)
        return
    with out.block(f"for j in range({-(-dim // 8)})"):
        pair = ", ".join(f"total[4 * j + 2 * row + {x}]" for x in (0, 1))
        out.line(f"ptx.store_reals2(to + u64(4) * u64(column) + u64(32) * u64(j), {pair}, real)")


def _emit_added(out: SourceWriter, dim: int) -> None:
    """float32 sums of a row, which is padded to whole chunks of 8 columns; many are read before any is used."""
    chunks = -(-dim // 8)
    out.line(f"before = cuda.local.array({2 * min(chunks, AT_ONCE)}, dtype=np.float32)")
    out.line("sums_at = to + u64(4) * u64(column)")
    for first in range(0, chunks, AT_ONCE):
        count = min(AT_ONCE, chunks - first)
        with out.block(f"for j in range({count})"), out.block("for x in range(2)"):
            at = f"sums_at + u64({32 * first}) + u64(32) * u64(j) + u64(4) * u64(x)"
            out.line(f"before[2 * j + x] = ptx.load_real_when({at}, real)")
        with out.block(f"for j in range({count})"), out.block("for x in range(2)"):
            out.line(f"total[4 * (j + {first}) + 2 * row + x] += before[2 * j + x]")
