"""The online softmax of a tile: running maximum, weights, running sum, and the factor that rescales older sums."""

from __future__ import annotations

from collections.abc import Callable

from splat_numba.gen.targets.cpu.prelude import FUNCTION
from splat_numba.gen.targets.cpu.products import SHIFT, VECTORS
from splat_numba.gen.targets.cpu.shape import TileShape
from splat_numba.gen.writer import SourceWriter

#: predicate name -> (extra parameters, text of the mask of a vector of lanes at ``at`` for the key number ``key``)
PREDICATES: dict[str, tuple[str, Callable[[str], str]]] = {
    "full": ("", lambda _: ""),
    "inside": (", first, low, high", lambda at: f"inside(low, high, {at}, first + key)"),
    "bits": (", lane_bits", lambda at: f"bits(element(lane_bits, key), {at})"),
}
MEANING = {
    "full": "every query keeps every key",
    "inside": "a query keeps lattice columns low <= first + key < high",
    "bits": "bit ``lane`` of lane_bits[key] says whether the query keeps the key",
}


def _at(vector: int) -> str:
    return f"lane{SHIFT[vector]}"


def _emit_maximum(out: SourceWriter, mask: Callable[[str], str], predicate: str) -> None:
    for vector in range(VECTORS):
        out.line(f"old{vector} = load(maxima, {_at(vector)})")
        out.line(f"new{vector} = old{vector}")
    with out.block("for key in range(count)"):
        for vector in range(VECTORS):
            out.line(f"x = load(scores, key * TILE_Q + {_at(vector)})")
            if predicate != "full":
                out.line(f"x = select({mask(_at(vector))}, x, nothing)")
            out.line(f"new{vector} = maximum(x, new{vector})")


def _emit_weights(out: SourceWriter, mask: Callable[[str], str], predicate: str) -> None:
    for vector in range(VECTORS):
        out.line(f"sum{vector} = zero")
    with out.block("for key in range(count)"):
        for vector in range(VECTORS):
            place = f"key * TILE_Q + {_at(vector)}"
            out.line(f"p = exp2(load(scores, {place}) - new{vector})")
            if predicate != "full":
                out.line(f"p = select({mask(_at(vector))}, p, zero)")
            out.line(f"store(scores, {place}, p)")
            out.line(f"sum{vector} = sum{vector} + p")


def emit_softmax(out: SourceWriter, shape: TileShape, predicate: str) -> None:
    """soften: scores become weights 2**(score - maximum); maxima, sums and alpha are brought up to date."""
    extra, mask = PREDICATES[predicate]
    header = f"soften_{predicate}_{shape.suffix}(scores, count, maxima, sums, alpha{extra})"
    with out.function(FUNCTION, header, f"scores become weights, where {MEANING[predicate]}."):
        out.line(f"TILE_Q = {shape.tile_q}")
        out.line("zero, nothing = splat(real(0.0)), splat(real(-np.inf))")
        with out.block(f"for lane in range(0, {shape.tile_q}, {VECTORS} * WIDTH)"):
            _emit_maximum(out, mask, predicate)
            _emit_weights(out, mask, predicate)
            for vector in range(VECTORS):
                at = _at(vector)
                out.line(f"store(maxima, {at}, new{vector})")
                # An empty row has -inf in both, and -inf - -inf is NaN: nothing is summed yet, so 0 is right.
                out.line(f"factor = select(old{vector} == nothing, zero, exp2(old{vector} - new{vector}))")
                out.line(f"store(alpha, {at}, factor)")
                out.line(f"store(sums, {at}, fma(load(sums, {at}), factor, sum{vector}))")
