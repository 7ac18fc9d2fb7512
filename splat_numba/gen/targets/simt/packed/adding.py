"""The results of a long row's parts, added up in their order, a warp a row; rounded once."""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.simt.packed.rows import COUNTS, emit_head, emit_store_chunk, entry, row_of, scale_name
from splat_numba.gen.targets.simt.packed.traits import PackedTraits
from splat_numba.gen.targets.simt.shape import CHUNK

ARRAYS = ("parts", "out")


def parameter_names(traits: PackedTraits) -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts."""
    return ("rows", *ARRAYS), (scale_name(traits.numbers),), COUNTS


def render_adding(traits: PackedTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out, of, numbers = SourceWriter(), traits.numbers.loaded, traits.numbers
    names = [f"x_{x}" for x in range(of)]
    emit_head(out, traits, "Sums of the parts of long rows")
    with entry(out, "adding", groups):
        out.line(f"parts_at = {row_of('parts', row='slot')}")
        out.line(f"out_at = {row_of('out', row='row')}")
        out.line(f"total = cuda.local.array({of}, dtype=np.{numbers.computed})")
        out.line("chunk = lane")
        with out.block(f"while chunk < u32({-(-traits.loads // WARP) * WARP})"):
            out.line(f"inside = u32(1) if chunk < u32({traits.loads}) else u32(0)")
            out.line("safe = chunk if inside != u32(0) else u32(0)")
            with out.block(f"for n in range({of})"):
                out.line("total[n] = ZERO")
            out.line("part = u32(0)")
            with out.block("while part < count"):
                out.line(f"at = parts_at + u64(part) * parts_row + u64({CHUNK * of // numbers.of_chunk}) * u64(safe)")
                for first in range(0, of, numbers.of_chunk):
                    chunk = ", ".join(names[first : first + numbers.of_chunk])
                    out.line(f"{chunk} = load_chunk(at + u64({CHUNK * first // numbers.of_chunk}))")
                for x, name in enumerate(names):
                    out.line(f"total[{x}] += {name}")
                out.line("part = u32(part + u32(1))")
            out.line(f"to = out_at + u64({CHUNK}) * u64(chunk)")
            emit_store_chunk(out, traits, [f"total[{x}] * scale" for x in range(of)], "inside")
            out.line(f"chunk = u32(chunk + u32({WARP}))")
    with device_function(out, "load_chunk", ("at",), "Neighbouring numbers that an earlier launch has written."):
        if numbers.computed == "float32":
            out.line("return ptx.load_reals4(at)")
        else:
            out.line("a, b, c, d = ptx.load_words4(at)")
            out.line("return joined(a, b), joined(c, d)")
    return out.text()
