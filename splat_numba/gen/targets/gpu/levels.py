"""What gradients by tensor cores need of every query, made once: lse in base 2, and delta = sum(dout * out) - dlse.

A query that keeps nothing gets an infinite lse, which makes its weights 0, and a delta of 0; and where there can be
such queries, dout is copied with their rows as 0, since 0 x NaN is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import WARP, log2
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import STEPS
from splat_numba.gen.targets.gpu.functions import wrapped
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES

ENTRY = "levels_of_queries"
THREADS = 128
CHUNK = 16  # bytes of a load


@dataclass(frozen=True, slots=True)
class LevelTraits:
    """value_dim: elements of a row; dtype: of out and dout; clears: whether dout is copied."""

    value_dim: int
    dtype: str
    clears: bool

    @property
    def of_chunk(self) -> int:
        """Numbers of a load."""
        return CHUNK // ITEMSIZE[self.dtype]

    @property
    def chunks(self) -> int:
        """Loads of a row."""
        return -(-self.value_dim // self.of_chunk)

    @property
    def lanes(self) -> int:
        """That share a row."""
        return min(WARP, 1 << (self.chunks - 1).bit_length())

    @property
    def rows(self) -> int:
        """Of a block."""
        return THREADS // self.lanes


def _arrays(traits: LevelTraits) -> tuple[str, ...]:
    return ("out", "dout", "lse", "dlse", *("cleared",) * traits.clears)


def levels_text(traits: LevelTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits."""
    name = f"attention_levels_{arch}_d{traits.value_dim}_{traits.dtype}"
    return EmittedText(name, Entry(ENTRY, _parameters(traits), THREADS, 16, 0, arch=arch), render_levels, (traits,))


def _parameters(traits: LevelTraits) -> tuple[tuple[str, str], ...]:
    strides = (f"{name}_{step}" for name in _arrays(traits) for step in STEPS)
    return (
        *((name, "l") for name in (*_arrays(traits), "levels")),
        *((name, "r") for name in ("heads", "seq", "rows")),
        *((name, "l") for name in strides),
    )


def render_levels(traits: LevelTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out, quotes = SourceWriter(), '"' * 3
    out.lines(
        f"""
        {quotes}lse in base 2, and delta = sum(dout * out) - dlse, of each query, by {traits.lanes} lanes.{quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        NONE_KEPT = f32(-np.inf)


        """
    )
    wrapped(out, f"def {ENTRY}", [name for name, _ in _parameters(traits)], end="):")
    with out.suite():
        _emit_place(out, traits)
        _emit_sum(out, traits)
        _emit_levels(out, traits)
    return out.text()


def _emit_place(out: SourceWriter, traits: LevelTraits) -> None:
    """Which row is this lane's, and where it stands in every array; a lane without a row reads the first one."""
    out.line("thread = ptx.thread_index()")
    out.line(f"lane = u32(thread & u32({traits.lanes - 1}))")
    emit_row_place(out, _arrays(traits), traits.rows, f"(thread >> u32({log2(traits.lanes)}))")
    out.line("level = ptx.load_state(lse_at)")
    out.line("kept = u32(1) if level != NONE_KEPT else u32(0)  # NaN counts")
    out.line("total = f32(0.0)")


def emit_row_place(out: SourceWriter, arrays: Iterable[str], rows: int, row: str) -> None:
    """``number`` of this lane's row among all, ``there``, and ``NAME_at``: where the row stands in every array; a lane
    without a row reads the first one. rows: of a block; row: among these, as text.
    """
    out.lines(
        f"""
        number = u32(ptx.block_index() * u32({rows}) + {row})
        there = u32(1) if number < rows else u32(0)
        number = number if there != u32(0) else u32(0)
        pair = u32(number // seq)
        row = u32(number - pair * seq)
        entry = u32(pair // heads)
        head = u32(pair - entry * heads)
        """
    )
    for name in arrays:
        at = f"u64(entry) * {name}_batch + u64(head) * {name}_head + u64(row) * {name}_row"
        out.line(f"{name}_at = {name} + {at}")


def _emit_sum(out: SourceWriter, traits: LevelTraits) -> None:
    """sum(dout * out): whole chunks, then what is left in pairs."""
    if traits.dtype == "float32":
        _emit_sum_of_reals(out, traits)
        return
    whole, left = divmod(traits.value_dim, traits.of_chunk)
    if whole:
        with out.block(f"for first in range(u32(0), u32({whole}), u32({traits.lanes}))"):
            out.lines(
                f"""
                chunk = u32(u32(first) + lane)
                here = u32(1) if chunk < u32({whole}) else u32(0)
                b_0, b_1, b_2, b_3 = ptx.load_words4_when(dout_at + u64(16) * u64(chunk), here & kept)
                a_0, a_1, a_2, a_3 = ptx.load_words4_when(out_at + u64(16) * u64(chunk), here & kept)
                """
            )
            _emit_products(out, traits, 4)
            if traits.clears:
                to = "cleared_at + u64(16) * u64(chunk)"
                out.line(f"ptx.store_words4({to}, b_0, b_1, b_2, b_3, here & there)")
    if left:
        pairs = -(-left // 2)
        out.line("mine = u32(1) if (lane == u32(0)) and (kept != u32(0)) else u32(0)")
        for i in range(pairs):
            at = f"u64({CHUNK * whole + 4 * i})"
            for name, array in (("b", "dout"), ("a", "out")):
                out.line(f"{name}_{i} = ptx.select(ptx.load_pair({array}_at + {at}), u32(0), mine)")
            if 2 * i + 1 == left:  # the row ends within a word
                for name in "ba":
                    out.line(f"{name}_{i} = u32({name}_{i} & u32(65535))")
            if traits.clears:
                out.line(f"ptx.store_word(cleared_at + {at}, b_{i}, there if lane == u32(0) else u32(0))")
        _emit_products(out, traits, pairs)


def _emit_sum_of_reals(out: SourceWriter, traits: LevelTraits) -> None:
    """The same of float32: whole chunks, then the numbers that are left."""
    whole, left = divmod(traits.value_dim, traits.of_chunk)
    if whole:
        with out.block(f"for first in range(u32(0), u32({whole}), u32({traits.lanes}))"):
            out.lines(
                f"""
                chunk = u32(u32(first) + lane)
                here = kept if chunk < u32({whole}) else u32(0)
                place = u64(16) * u64(chunk if chunk < u32({whole}) else u32(0))
                b_0, b_1, b_2, b_3 = ptx.load_reals4(dout_at + place)
                a_0, a_1, a_2, a_3 = ptx.load_reals4(out_at + place)
                """
            )
            for i in range(traits.of_chunk):
                out.line(f"b_{i} = b_{i} if here != u32(0) else f32(0.0)")
                out.line(f"total += a_{i} * b_{i} if here != u32(0) else f32(0.0)")
            if traits.clears:
                inside = f"there if chunk < u32({whole}) else u32(0)"
                out.line(f"ptx.store_reals4(cleared_at + place, b_0, b_1, b_2, b_3, {inside})")
    if left:
        out.line("mine = kept if lane == u32(0) else u32(0)")
    for i in range(left):
        at = f"u64({CHUNK * whole + 4 * i})"
        out.line(f"b_{i} = ptx.load_real_when(dout_at + {at}, mine)")
        out.line(f"total += ptx.load_real_when(out_at + {at}, mine) * b_{i}")
        if traits.clears:
            out.line(f"ptx.store_real(cleared_at + {at}, b_{i}, there if lane == u32(0) else u32(0))")


def _emit_products(out: SourceWriter, traits: LevelTraits, words: int) -> None:
    for i in range(words):
        out.lines(
            f"""
            low, high = ptx.unpack_{traits.dtype}(a_{i})
            other_low, other_high = ptx.unpack_{traits.dtype}(b_{i})
            total += low * other_low + high * other_high
            """
        )


def _emit_levels(out: SourceWriter, traits: LevelTraits) -> None:
    apart = traits.lanes // 2
    while apart:
        out.line(f"total += ptx.shuffle_xor(total, u32({apart}))")
        apart //= 2
    out.lines(
        f"""
        if dlse != u64(0):
            total -= ptx.load_state(dlse_at)
        delta = total if kept != u32(0) else f32(0.0)
        level = level * f32({math.log2(math.e)!r}) if kept != u32(0) else f32(np.inf)
        one_lane = there if lane == u32(0) else u32(0)
        to = levels + u64({LEVEL_BYTES}) * u64(number)
        ptx.store_reals4(to, level, delta, f32(0.0), f32(0.0), one_lane)
        """
    )
