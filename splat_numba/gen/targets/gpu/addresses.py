"""What texts share that read rows of arrays by address: parameters, a block's item, and the token at a place."""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.items import emit_rank

ARRAYS = ("q", "k", "v", "out")
TABLES = ("rows", "block", "piece", "bits", "views", "heads")
POINTERS = (*TABLES, *ARRAYS, "lse", "kv_lengths")
NEGATIVE = 1 << 31  # a word from here on is an int32 below 0
STEPS = ("row", "head", "batch")
STRIDES = tuple(f"{name}_{step}" for name in ARRAYS for step in STEPS)
ITEM = ("blocks", "heads_count", "batch", "heads_per_wave")
TILE = ("corner", "inner_step", "outer_step", "box_shift", "limit")  # of a box: its first token, steps, sizes
TOKEN_OF_TILE = "token = token_of(place, corner, inner_step, outer_step, box_shift)"  # noqa: S105 - a place in a sequence
TOKEN_OF_LINE = "token = u32(corner + inner_step * place)"  # noqa: S105 - likewise, of a box of one line
LISTED = ("rows_at", "limit")
TOKEN_OF_ROW = "token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1"  # noqa: S105 - likewise


def emit_header(out: SourceWriter, name: str, groups: Sequence[Sequence[str]]) -> None:
    """``def name(`` with a line or more for each group of parameters."""
    out.line()
    out.line()
    out.line(f"def {name}(")
    with out.suite():
        for names in groups:
            for first in range(0, len(names), 12):
                out.line(f"{', '.join(names[first : first + 12])},")
    out.line("):")


def emit_item(out: SourceWriter) -> None:
    """The item of a block: `emit_rank` has the order."""
    text = "Row block, head and batch entry of this block; longest row blocks first, wave by wave of heads."
    with device_function(out, "item_of_block", ("heads", *ITEM), text):
        out.line("item, items = ptx.block_index(), u32(blocks * heads_count * batch)")
        emit_rank(out)
        out.line("head = ptx.load_word(heads + u64(4) * u64(pair - entry * heads_count))")
        out.line("return rank, head, entry")


def emit_operands(out: SourceWriter) -> None:
    """Where q of a head and batch entry begins, and k and v of the key head that it shares."""
    out.lines(
        """
        q_at = q + u64(entry) * q_batch + u64(head) * q_head
        k_at = k + u64(entry) * k_batch + u64(head // group) * k_head
        v_at = v + u64(entry) * v_batch + u64(head // group) * v_head
        """
    )


def emit_length(out: SourceWriter, name: str, keys: str | None = None, entry: str = "entry") -> None:
    """``name``: the key length of a batch entry. Nobody on the host has seen it: it is the nearest number from 0 to the
    keys, so that no call reads other memory. Without ``keys`` it may be larger than them, where none is read beyond.
    """
    out.line(f"{name} = ptx.load_word(kv_lengths + u64(4) * u64({entry}))")
    out.line(f"{name} = {name} if {name} < u32({NEGATIVE}) else u32(0)")
    if keys is not None:
        out.line(f"{name} = {name} if {name} < {keys} else {keys}")


def emit_token(out: SourceWriter) -> None:
    """Where a place of a box is in the sequence."""
    parameters = ("place", "corner", "inner_step", "outer_step", "box_shift")
    with device_function(out, "token_of", parameters, "The token at a place of the box that begins at ``corner``."):
        out.lines(
            """
            line = u32(place >> box_shift)
            return u32(corner + inner_step * u32(place - u32(line << box_shift)) + outer_step * line)
            """
        )
