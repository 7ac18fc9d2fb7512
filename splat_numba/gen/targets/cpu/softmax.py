"""The online softmax of a tile: running maximum, weights, running sum, and the factor that rescales older sums."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.prelude import FUNCTION
from splat_numba.gen.targets.cpu.shape import TileShape

#: predicate -> (extra parameters, text of the mask of the lanes from ``lane`` on for key number ``key``, meaning)
PREDICATES = {
    "full": ("", "", "every query keeps every key"),
    "inside": (
        ", first, low, high",
        "inside(low, high, lane, first + key)",
        "a query keeps lattice columns low <= first + key < high",
    ),
    "bits": (
        ", lane_bits",
        "bits(element(lane_bits, key), lane)",
        "bit ``lane`` of lane_bits[key] says whether the query keeps the key",
    ),
}


def emit_softmax(out: SourceWriter, shape: TileShape, predicate: str) -> None:
    """soften: scores become weights 2**(score - maximum); maxima, sums and alpha are brought up to date."""
    extra, mask, meaning = PREDICATES[predicate]
    header = f"soften_{predicate}_{shape.suffix}(scores, count, maxima, sums, alpha{extra})"
    place = f"key * {shape.tile_q} + lane"
    with out.function(FUNCTION, header, f"scores become weights, where {meaning}."):
        out.line("zero = splat(real(0.0))")
        if mask:
            out.line("nothing = splat(real(-np.inf))")
        with out.block(f"for lane in range(0, {shape.tile_q}, WIDTH)"):
            out.line("old = load(maxima, lane)")
            out.line("new = old")
            with out.block("for key in range(count)"):
                score = f"load(scores, {place})"
                out.line(f"new = maximum({f'select({mask}, {score}, nothing)' if mask else score}, new)")
            out.line("total = zero")
            with out.block("for key in range(count)"):
                weight = f"exp2(load(scores, {place}) - new)"
                out.line(f"weight = {f'select({mask}, {weight}, zero)' if mask else weight}")
                out.line(f"store(scores, {place}, weight)")
                out.line("total = total + weight")
            out.line("store(maxima, lane, new)")
            out.line("factor = exp2(old - new)")
            out.line("store(alpha, lane, factor)")
            out.line("store(sums, lane, fma(load(sums, lane), factor, total))")
