"""Results from registers to memory and back, by the arrays' dtype; an item's last step, and its first if resumed."""

from __future__ import annotations

import math

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.results import emit_lost
from splat_numba.gen.targets.simt.shape import LANES_OF_ROW, Numbers, share_of
from splat_numba.gen.targets.simt.softmax import emit_for_rows


def chunk_bytes(dtype: str) -> int:
    """Bytes in an array of the numbers that make a chunk of shared memory."""
    return Numbers(dtype).of_chunk * ITEMSIZE[dtype]


def emit_store_chunk(out: SourceWriter, dtype: str) -> None:
    """``store_chunk(to, numbers, when)`` into an array of this dtype."""
    names = [f"x_{y}" for y in range(Numbers(dtype).of_chunk)]
    with device_function(out, "store_chunk", ("to", *names, "when"), f"Neighbouring numbers of an array, as {dtype}."):
        if dtype == "float32":
            out.line("ptx.store_reals4(to, x_0, x_1, x_2, x_3, when)")
        elif dtype == "float64":
            out.lines(
                """
                a, b = words_of(x_0)
                c, d = words_of(x_1)
                ptx.store_words4(to, a, b, c, d, when)
                """
            )
        else:
            out.line(f"ptx.store_word(to, ptx.pack_{dtype}(x_0, x_1), when)")
            out.line(f"ptx.store_word(to + u64(4), ptx.pack_{dtype}(x_2, x_3), when)")


def emit_store_number(out: SourceWriter, dtype: str) -> None:
    """``store_number(to, x, when)`` into an array of this dtype."""
    with device_function(out, "store_number", ("to", "x", "when"), f"A number of an array, as {dtype}."):
        if dtype == "float32":
            out.line("ptx.store_real(to, x, when)")
            return
        if dtype != "float64":
            out.line(f"ptx.store_half(to, ptx.pack_{dtype}(x, x), when)")
            return
        out.lines(
            """
            low, high = words_of(x)
            ptx.store_word(to, low, when)
            ptx.store_word(to + u64(4), high, when)
            """
        )


def emit_load_chunk(out: SourceWriter, dtype: str) -> None:
    """``load_chunk(at)`` from an array of this dtype."""
    with device_function(out, "load_chunk", ("at",), "Neighbouring numbers of an array that launches may write."):
        if dtype == "float32":
            out.line("return ptx.load_reals4(at)")
        elif dtype == "float64":
            words = [f"ptx.load_pair(at + u64({4 * x}))" for x in range(4)]
            out.line(f"return joined({words[0]}, {words[1]}), joined({words[2]}, {words[3]})")
        else:
            out.lines(
                f"""
                x_0, x_1 = ptx.unpack_{dtype}(ptx.load_pair(at))
                x_2, x_3 = ptx.unpack_{dtype}(ptx.load_pair(at + u64(4)))
                return x_0, x_1, x_2, x_3
                """
            )


def emit_load_number(out: SourceWriter, computed: str) -> None:
    """``load_number(at)`` of what was stored as it was computed."""
    with device_function(out, "load_number", ("at",), "A number that an earlier launch may have written."):
        if computed == "float32":
            out.line("return ptx.load_state(at)")
        else:
            out.line("return joined(ptx.load_pair(at), ptx.load_pair(at + u64(4)))")


def resumed(traits: Traits) -> tuple[str, ...]:
    """Where a thread's rows begin anew from what an earlier pass left."""
    return ("row_at", "out_at", "out_row", *("rest_at",) * traits.keeps_rest, "lse_at", "seq_q")


def stored(traits: Traits) -> tuple[str, ...]:
    """Where a thread's rows go."""
    return ("row_at", "column", "out_at", "out_row", *("rest_at",) * traits.hands_on, "lse", "lse_at", "seq_q")


def emit_epilogue(out: SourceWriter, traits: Traits) -> None:
    """The functions that begin and end an item."""
    numbers = Numbers(traits.dtype)
    _emit_begin(out, traits)
    emit_store_chunk(out, traits.dtype)
    emit_store_number(out, numbers.computed)
    if traits.hands_on:
        emit_lost(out, traits.dtype)
    if traits.resumes:
        emit_load_chunk(out, traits.dtype)
        emit_load_number(out, numbers.computed)
    _emit_store_rows(out, traits)


def _emit_begin(out: SourceWriter, traits: Traits) -> None:
    numbers, share = Numbers(traits.dtype), share_of(traits)
    state, parameters = ("peak", "added", "total"), resumed(traits)
    if not traits.resumes:
        with device_function(out, "begin_rows", state, "An empty softmax."):
            out.lines(
                f"""
                for i in range({share.rows}):
                    peak[i], added[i] = NONE_KEPT, ZERO
                for i in range({share.rows * share.pieces * numbers.of_chunk}):
                    total[i] = ZERO
                """
            )
        return
    with device_function(out, "begin_rows", (*state, *parameters), "A thread's rows."):
        emit_for_rows(out, share.rows, "begin_row", (*state, *parameters))
    with device_function(out, "begin_row", ("i", *state, *parameters), "out and lse as a softmax: a sum of 1 at lse."):
        out.lines(
            f"""
            q_idx = ptx.load_word(row_at + u64(4 * i))
            safe = q_idx if q_idx < seq_q else u32(0)
            peak[i] = load_number(lse_at + u64({numbers.size}) * u64(safe)) * real({math.log2(math.e)!r})
            added[i] = ZERO if peak[i] == NONE_KEPT else real({1 / LANES_OF_ROW})  # a row's lanes add up, NaN or not
            """
        )
        with out.block(f"for piece in range({share.pieces})"):
            first = f"{numbers.of_chunk} * ({share.pieces} * i + piece)"
            names = ", ".join(f"total[{first} + {y}]" for y in range(numbers.of_chunk))
            size = chunk_bytes(traits.dtype)
            out.lines(
                f"""
                chunk = chunk_of(piece)
                chunk = chunk if chunk < u32({numbers.chunks(traits.value_dim)}) else u32(0)
                {names} = load_chunk(out_at + u64(safe) * out_row + u64({size}) * u64(chunk))
                """
            )
            if traits.keeps_rest:
                out.line(f"rest = load_chunk(rest_at + u64({traits.rest_row}) * u64(safe) + u64({size}) * u64(chunk))")
                out.lines("\n".join(f"total[{first} + {y}] += rest[{y}]" for y in range(numbers.of_chunk)))


def _emit_store_rows(out: SourceWriter, traits: Traits) -> None:
    numbers, share = Numbers(traits.dtype), share_of(traits)
    parameters = ("peak", "added", "total", *stored(traits))
    with device_function(out, "store_rows", parameters, "A thread's rows."):
        emit_for_rows(out, share.rows, "store_row", parameters)
    text = "out = total / sum, 0 where nothing is kept; lse = (peak + log2 sum) ln 2, then -inf."
    with device_function(out, "store_row", ("i", *parameters), text):
        out.lines(
            """
            q_idx = ptx.load_word(row_at + u64(4 * i))
            there = u32(1) if q_idx < seq_q else u32(0)  # padding is 2**32 - 1 here
            row_sum = sum_of_row(added[i])
            factor = reciprocal(row_sum) if row_sum != ZERO else ZERO
            """
        )
        emit_row(out, numbers, share.pieces, traits.value_dim, "total", "out_at + u64(q_idx) * out_row", "factor")
        out.lines(
            f"""
            if lse != u64(0):
                safe = ZERO if peak[i] == NONE_KEPT else peak[i]
                one_lane = there if column == u32(0) else u32(0)
                level = (safe + log2(row_sum)) * real({math.log(2)!r})
                store_number(lse_at + u64({numbers.size}) * u64(q_idx), level, one_lane)
            """
        )
        if traits.hands_on:
            _emit_rest(out, traits)


def _emit_rest(out: SourceWriter, traits: Traits) -> None:
    """What rounding took off a row, which is not wanted any more."""
    numbers, share = Numbers(traits.dtype), share_of(traits)
    with out.block(f"for piece in range({share.pieces})"):
        first = f"{numbers.of_chunk} * ({share.pieces} * i + piece)"
        for y in range(0, numbers.of_chunk, 2):
            names = [f"total[{first} + {x}]" for x in (y, y + 1)]
            scaled = ", ".join(f"{name} * factor" for name in names)
            out.line(f"{', '.join(names)} = lost_in_rounding({scaled})")
    row = f"rest_at + u64({traits.rest_row}) * u64(q_idx)"
    emit_row(out, numbers, share.pieces, traits.value_dim, "total", row, "f32(1.0)")


def emit_row(out: SourceWriter, numbers: Numbers, of_row: int, dim: int, total: str, row: str, factor: str) -> None:
    """Row i of a thread's sums, times a factor, to an array's row where the thread is ``there``."""
    with out.block(f"for piece in range({of_row})"):
        first = f"{numbers.of_chunk} * ({of_row} * i + piece)"
        scaled = ", ".join(f"{total}[{first} + {y}] * {factor}" for y in range(numbers.of_chunk))
        out.lines(
            f"""
            chunk = chunk_of(piece)
            inside = there if chunk < u32({numbers.chunks(dim)}) else u32(0)
            store_chunk({row} + u64({chunk_bytes(numbers.dtype)}) * u64(chunk), {scaled}, inside)
            """
        )
