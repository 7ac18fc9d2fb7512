"""An item's gradients, from registers to memory, beside what earlier launches stored there."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.simt.backward.traits import GradientTraits, share_of
from splat_numba.gen.targets.simt.results import chunk_bytes, emit_load_chunk, emit_store_chunk
from splat_numba.gen.targets.simt.shape import Numbers, pieces
from splat_numba.gen.targets.simt.softmax import emit_for_rows


def emit_store(out: SourceWriter, traits: GradientTraits) -> None:
    """The entry's last statements. 0 x NaN is NaN: what a row without gradient summed up is put aside."""
    if traits.columns_are_queries:
        out.line("end = seq_left")
        if traits.ragged:
            emit_length(out, "end")
    level = "end" if traits.columns_are_queries else "lse"
    for name in traits.dims:
        out.line(f"{name}_at = {name} + u64(entry) * {name}_batch + u64(head) * {name}_head")
        factor = "real(1.0)" if name == "dv" else "scale"
        arguments = (f"{name}_total", factor, level, "row_at", f"{name}_at", f"{name}_row", "seq_left")
        emit_for_rows(out, share_of(traits).rows, f"store_{name}", arguments)


def emit_results(out: SourceWriter, traits: GradientTraits) -> None:
    """A function for each gradient, which stores a row of it."""
    level = "end" if traits.columns_are_queries else "lse"
    for name in traits.dims:
        parameters = ("i", "total", "factor", level, "row_at", "to_first", "step", "seq_left")
        with device_function(out, f"store_{name}", parameters, f"A row of {name}: its sums times a factor, or 0."):
            _emit_row(out, traits, name)
    emit_store_chunk(out, traits.result)
    if traits.added:
        emit_load_chunk(out, traits.result)


def _emit_row(out: SourceWriter, traits: GradientTraits, name: str) -> None:
    numbers, dim = Numbers(traits.boxes.dtype), traits.dims[name]
    of, of_row = numbers.of_chunk, pieces(numbers, dim)
    counts = "token < end" if traits.columns_are_queries else "lse[i] < INFINITE"
    out.lines(
        f"""
        token = ptx.load_word(row_at + u64(4 * i))
        there = u32(1) if token < seq_left else u32(0)  # padding is 2**32 - 1 here
        counts = {counts}
        """
    )
    with out.block(f"for piece in range({of_row})"):
        out.lines(
            f"""
            chunk = chunk_of(piece)
            inside = there if chunk < u32({numbers.chunks(dim)}) else u32(0)
            to = to_first + u64(token) * step + u64({chunk_bytes(traits.result)}) * u64(chunk)
            """
        )
        for y in range(of):
            out.line(f"x_{y} = total[{of} * ({of_row} * i + piece) + {y}] * factor if counts else ZERO")
        if traits.added:
            names = ", ".join(f"y_{y}" for y in range(of))
            out.line(f"{names} = load_chunk(to if inside != u32(0) else to_first)")
        sums = [f"x_{y} + y_{y}" if traits.added else f"x_{y}" for y in range(of)]
        out.line(f"store_chunk(to, {', '.join(sums)}, inside)")
