"""A block's way through a product, whatever units multiply: its tile, its steps along the depth, and their limits."""

from __future__ import annotations

from flurka_numba.targets.simt.product_shape import LIMITS
from flurka_numba.targets.simt.text import emit_length_here
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.parts import KernelWriter


def emit_find_tile(out: KernelWriter, rows: int, columns: int) -> None:
    """``first_row``, ``first_column`` of a tile of rows x columns, its ``entry`` and ``head``, and ``share``."""
    out.line("block = ptx.block_index()")
    with out.part("find_tile", "Which tile of which result is this block's, and which share of its depth."):
        out.lines(
            f"""
            tile = u32(block // shares)
            share = u32(block - tile * shares)
            tiles_of_pair = u32(row_blocks * column_blocks)
            pair = u32(tile // tiles_of_pair)
            rest = u32(tile - pair * tiles_of_pair)
            row_block = u32(rest // column_blocks)
            first_row = u32(row_block * u32({rows}))
            first_column = u32((rest - row_block * column_blocks) * u32({columns}))
            entry = u32(pair // heads)
            head = u32(pair - entry * heads)
            """
        )


def emit_find_depth(out: KernelWriter) -> None:
    """``first``, ``last`` and the current ``step``, its ``buffer``, and where in the depth it is."""
    out.lines(
        """
        first = u32(min(share * steps_of_share, steps))
        last = u32(min(first + steps_of_share, steps))
        step = first
        buffer = u32(0)
        """
    )
    with out.part("find_depth", "Where in the depth the first step is."):
        out.lines(
            """
            outer = u32(first // u32(max(depth_blocks, u32(1))))
            depth_block = u32(first - outer * depth_blocks)
            outer_entry = u32(outer // outer_heads)
            outer_head = u32(outer - outer_entry * outer_heads)
            """
        )


def emit_no_sums(out: SourceWriter, sums: int) -> None:
    """``total``: a thread's sums of products, 0."""
    out.lines(
        f"""
        total = cuda.local.array({sums}, dtype=np.float32)
        for i in range({sums}):
            total[i] = f32(0.0)
        """
    )


def emit_find_operands(out: KernelWriter, depth: int) -> None:
    """Where this step's tiles are, and how much of them is there. depth: of a step."""
    with out.part("find_operands", "Where a step's tiles are, and how much of them is there."):
        out.lines(
            f"""
            from_depth = u32(depth_block * u32({depth}))
            batch_entry = u64(u32(entry + outer_entry))
            batch_head = u64(u32(head + outer_head))
            a_end = rows
            b_end = columns
            depth_end = depth
            """
        )
        with out.block("if kv_lengths != u64(0)"):
            emit_length_here(out, "batch_entry")
            out.lines(
                f"""
                a_end = u32(min(rows, length)) if limited == u32({LIMITS["rows"]}) else rows
                depth_end = u32(min(depth, length)) if limited == u32({LIMITS["depth"]}) else depth
                b_end = u32(min(columns, length)) if limited == u32({LIMITS["columns"]}) else columns
                """
            )
        out.lines(
            """
            a_deep_end = u32(min(depth_end, a_ones))
            b_deep_end = depth_end
            b_end = u32(min(b_end, b_ones))
            """
        )


def emit_advance(out: KernelWriter) -> None:
    """To the next step: along the depth, then over heads, then over batch entries."""
    with out.part("advance_step", "To the next step: along the depth, then over heads, then over batch entries."):
        out.lines(
            """
            depth_block = u32(depth_block + u32(1))
            outer_head = u32(outer_head + u32(1)) if depth_block == depth_blocks else outer_head
            depth_block = u32(0) if depth_block == depth_blocks else depth_block
            outer_entry = u32(outer_entry + u32(1)) if outer_head == outer_heads else outer_entry
            outer_head = u32(0) if outer_head == outer_heads else outer_head
            """
        )
