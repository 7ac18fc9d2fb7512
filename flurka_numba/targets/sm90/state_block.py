"""Which part of which head's state a block makes, and how it writes that: the stages that make states share it."""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.sm90.lanes import CHUNK, swizzle
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, MATRIX, log2
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES


def emit_state_block(out: KernelWriter, blocks: tuple[int, int]) -> None:
    """``pair`` (batch entry and head), ``feature_block`` and ``value_block`` of the number ``state``.

    blocks: of features and of values that make up a head's state.
    """
    of_features, of_values = blocks
    out.lines(
        f"""
        pair = u32(state // u32({of_features * of_values}))
        rest = u32(state - pair * u32({of_features * of_values}))
        feature_block = u32(rest // u32({of_values}))
        value_block = u32(rest - feature_block * u32({of_values}))
        """
    )


def emit_state_share(out: KernelWriter, blocks: tuple[int, int]) -> None:
    """The same of this block, of which ``shares_of_state`` share a state; ``share``, ``entry`` and ``head``."""
    with out.part("find_state", "Which part of which head's state this block makes, and which share of it."):
        out.line("state = u32(ptx.block_index() // shares_of_state)")
        out.line("share = u32(ptx.block_index() - state * shares_of_state)")
        emit_state_block(out, blocks)
        out.line("entry = u32(pair // heads)")
        out.line("head = u32(pair - entry * heads)")


def emit_last_share(out: KernelWriter, flag: str) -> None:
    """``is_last``: whether this block has left its share of ``state`` last, so that it reads what all have left.

    flag: the address of a shared word that nobody reads any more, as text. Counters are 0 again for the next launch.
    """
    with out.part("count_share", "Whether all shares of this state are there, this one being the last.", flag=flag):
        out.lines(
            """
            ptx.fence_device()
            ptx.block_barrier()
            first = u32(1) if thread == u32(0) else u32(0)
            count = ptx.fetch_add(counters + u64(4) * u64(state), u32(1), first) + u32(1)
            ptx.store_shared_word(flag, u32(1) if count == shares_of_state else u32(0), first)
            ptx.block_barrier()
            is_last = ptx.load_shared_word(flag)
            ptx.store_word(counters + u64(4) * u64(state), u32(0), first & is_last)
            ptx.fence_device()
            """
        )


def operand_place(four: str) -> str:
    """Where numbers 4 n and 4 n + 1 of a chunk stand, as a column of a left operand or a row of a right one (rows.py);
    4 n + 2 and 4 n + 3 stand 8 further on. four: the name of n.
    """
    within = f"({four} & u32(1)) * u32({ATOM}) + (({four} & u32({CHUNK // QUAD - 1})) >> u32(1)) * u32({LANE_COLUMNS})"
    return f"u32(({four} >> u32({log2(CHUNK // QUAD)})) * u32({CHUNK}) + {within})"


def row_of_four(number: int) -> int:
    """Where number 0 to 3 of four neighbours stands, from operand_place() on."""
    return MATRIX * (number // LANE_COLUMNS) + number % LANE_COLUMNS


def emit_image_row(
    out: KernelWriter, dtype: str, numbers: list[str], when: str, *, further: int = MATRIX, carries: bool = False
) -> None:
    """Four neighbouring numbers of ``row`` at ``place`` of the swizzled image ``to``, the second two ``further`` on.

    carries: ``carried`` in their place, where the text says so; see scales.py.
    """
    for half in (0, 1):
        word = f"ptx.pack_{dtype}({numbers[2 * half]}, {numbers[2 * half + 1]})"
        if carries:
            word = f"ptx.select(carried, {word}, carries)"
        at = f"((u32(2) * (place + u32({further * half}))) ^ {swizzle('row')})"
        out.line(f"ptx.store_word(to + u64({SPAN_BYTES}) * u64(row) + u64{at}, {word}, {when})")
