"""Mask, online softmax and rescaling of a tile of scores, in registers: as targets/gpu/softmax.py has them, by calls.

The compilers for chips from 10.0 on unroll no loop of many statements, and an array is local memory then: a function
takes 32 columns, and is called for each 32 of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from splat_numba.gen.boxes.passes import GROUP_ROWS, NONE, SOME, WORD_BITS, Traits
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, sum_at
from splat_numba.gen.language.writer import INDENT, SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.softmax import MOVED, emit_negate, emit_peak, emit_valid
from splat_numba.gen.targets.sm80.shape import mask_bytes, steps, words_per_row

NONE_KEPT, ZERO = "NONE_KEPT", "f32(0.0)"  # what stands where a pair is not kept: of scores, of weights
_WHAT, _WORDS = {NONE_KEPT: "Scores", ZERO: "Numbers"}, {NONE_KEPT: "-inf", ZERO: "0"}
COLUMNS = 32  # of a tile or of the results that one call takes: 8 registers a row


def emit_softmax(out: SourceWriter, traits: Traits) -> None:
    """All functions between the two products of a tile."""
    if traits.negate:
        emit_negate(out, traits)
    emit_mask_functions(out, traits, NONE_KEPT, traits.tile_kv)
    _emit_weights(out, traits)
    _emit_rescaling(out, traits)


def emit_mask_functions(out: SourceWriter, traits: Traits, fill: str, columns: int) -> None:
    """What emit_masks calls. fill: what stands where a pair is not kept; columns: of a tile, that are there at once."""
    if traits.partial:
        _emit_mask(out, traits, fill, columns)
    if traits.ragged:
        emit_valid(out, traits)
        _emit_limit(out, traits, fill)


def chunks_of(columns: int) -> range:
    """Where the columns of each call begin, as a number of eights."""
    return range(0, columns // MATRIX, COLUMNS // MATRIX)


@contextmanager
def columns_of(out: SourceWriter, name: str, parameters: tuple[str, ...], columns: int, text: str) -> Iterator[None]:
    """A function of 32 columns, of which ``j`` is each eight: tiles have 16 columns, or a multiple of 32."""
    count = min(columns, COLUMNS) // MATRIX
    with device_function(out, name, ("first", *parameters), text), out.block(f"for j in range(first, first + {count})"):
        yield


def skips(traits: Traits) -> bool:
    """Whether a group may keep nothing of a tile that another one wants."""
    return traits.skips and traits.groups > 1


def knows_status(traits: Traits) -> bool:
    """Whether the text reads what a group keeps of a tile."""
    return traits.partial or skips(traits)


def any_status(status: int) -> str:
    """A test that all lanes of a warp answer alike: their rows are of one group."""
    return f"ptx.any_lane(u32(1) if u32(mask & u32(3)) == u32({status}) else u32(0)) != u32(0)"


def some_kept() -> str:
    """Likewise: whether the group keeps anything of the tile."""
    return f"ptx.any_lane(u32(1) if u32(mask & u32(3)) != u32({NONE}) else u32(0)) != u32(0)"


def emit_masks(out: SourceWriter, traits: Traits, arrays: Sequence[tuple[str, ...]], part: str = "") -> None:
    """Of each of the arrays, of all atoms of a tile, what belongs to pairs that are not kept is put aside. part: which
    32 columns of the tile they are, as text, where not all.
    """
    words = words_per_row(traits)
    if traits.partial:
        with out.block(f"if {any_status(SOME)}"):
            start = f"bits + u64({mask_bytes(traits)}) * u64(mask >> u32(2))"
            row = f" + u64({4 * words}) * u64(row & u32({GROUP_ROWS - 1}))"
            out.line(f"mask_at = {start}{row}" + f" + u64(4) * u64({part})" * bool(part))
            for names in arrays:
                for atom, name in enumerate(names):
                    out.line(f"mask_scores({name}, mask_at + u64({4 * words * ATOM * atom}), column)")
    if traits.ragged:
        out.line("valid = valid_keys(corner, inner_step, limit)")
        for names in arrays:
            for name in names:
                out.line(f"limit_scores({name}, valid, column)")


def _emit_mask(out: SourceWriter, traits: Traits, fill: str, columns: int) -> None:
    """A row's words are shifted so that bit 0 is this thread's first column; heads share them in the cache."""
    words = words_per_row(traits)
    text = f"{_WHAT[fill]} of pairs that are not kept become {_WORDS[fill]}, of a thread's two rows."
    with device_function(out, "mask_scores", ("score", "mask_at", "column"), text):
        for row in range(LANE_ROWS):
            for word in range(-(-columns // WORD_BITS)):
                at = f"mask_at + u64({4 * (MATRIX * row * words + word)})"
                out.line(f"mask_columns({COLUMNS // MATRIX * word}, score, {row}, ptx.load_word({at}) >> column)")
    with columns_of(out, "mask_columns", ("score", "row", "bits"), columns, "The same of a word's columns."):
        for x in range(LANE_COLUMNS):
            at = sum_at("score", "row", str(x))
            out.line(f"{at} = {at} if bits & u32(1 << ({MATRIX} * (j - first) + {x})) else {fill}")


def _emit_limit(out: SourceWriter, traits: Traits, fill: str) -> None:
    """Of keys beyond a length."""
    text = f"{_WHAT[fill]} of keys beyond the batch entry's length become {_WORDS[fill]}."
    function = device_function(out, "limit_scores", ("score", "valid", "column"), text)
    with function, out.block(f"if valid < u32({traits.tile_kv})"):
        for first in chunks_of(traits.tile_kv):
            out.line(f"limit_columns({first}, score, valid, column)")
    with columns_of(out, "limit_columns", ("score", "valid", "column"), traits.tile_kv, "The same of 32 columns."):
        for x in range(LANE_COLUMNS):
            out.line(f"below = column + u32({MATRIX} * j + {x}) < valid")
            for row in range(LANE_ROWS):
                at = sum_at("score", row, x)
                out.line(f"{at} = {at} if below else {fill}")


def _emit_weights(out: SourceWriter, traits: Traits) -> None:
    state = ("score", "scale_log2", "peak", "added", "rescale")
    text = "Scores become weights relative to their row's peak; rescale is the factor for what was added up before."
    first, second = (sum_at("score", "row", x) for x in range(LANE_COLUMNS))
    with device_function(out, "softmax", state, text):
        for row in range(LANE_ROWS):
            out.line(f"weigh_row({row}, {', '.join(state)})")
    with device_function(out, "weigh_row", ("row", *state), "The same of one row."):
        out.line("top = NONE_KEPT")
        for chunk in chunks_of(traits.tile_kv):
            out.line(f"top = top_of_columns({chunk}, score, row, top)")
        emit_peak(out)
        out.line("weights = f32(0.0)")
        for chunk in chunks_of(traits.tile_kv):
            out.line(f"weights = weigh_columns({chunk}, score, row, scale_log2, safe, weights)")
        out.line("added[row] = added[row] * rescale[row] + weights")
    text = "The largest of a row's 32 scores and ``top``."
    with columns_of(out, "top_of_columns", ("score", "row", "top"), traits.tile_kv, text):
        out.line(f"top = ptx.maximum(top, ptx.maximum({first}, {second}))")
    out.line(f"{INDENT}return top")
    text = "A row's 32 scores as weights, and their sum with ``weights``."
    with columns_of(out, "weigh_columns", ("score", "row", "scale_log2", "safe", "weights"), traits.tile_kv, text):
        for one in (first, second):
            out.line(f"{one} = ptx.exp2({one} * scale_log2 - safe)")
        out.line(f"weights += {first} + {second}")
    out.line(f"{INDENT}return weights")


def _emit_rescaling(out: SourceWriter, traits: Traits) -> None:
    """In pairs of eights: results are as many as the products leave."""
    text = "Bring the results to the new peaks, where any row of the warp has one."
    columns = ATOM * steps(traits.value_dim)
    with device_function(out, "bring_to_peak", ("total", "rescale"), text), out.block(f"if {MOVED}"):
        for first in range(0, columns // MATRIX, ATOM // MATRIX):
            out.line(f"rescale_columns({first}, total, rescale)")
    with columns_of(out, "rescale_columns", ("total", "rescale"), ATOM, "The same of sixteen columns."):
        for row in range(LANE_ROWS):
            for x in range(LANE_COLUMNS):
                out.line(f"{sum_at('total', row, x)} *= rescale[{row}]")
