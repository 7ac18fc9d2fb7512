"""Barriers of the stages in shared memory through which one warp feeds the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splat_numba.gen.writer import SourceWriter


def emit_rings(out: SourceWriter, rings: Mapping[str, int], warps: int, others: Sequence[str] = ()) -> None:
    """Start a block: who it is, and its barriers, before anybody uses them.

    rings: stages by a prefix of their names, {prefix}full (a phase ends with the copies' bytes) and {prefix}empty (with
    a lane of each of so many warps); others: barriers of one arrival.
    """
    out.lines(
        """
        thread = ptx.thread_index()
        lane = u32(thread & u32(31))
        leader = u32(1) if lane == u32(0) else u32(0)
        """
    )
    with out.block("if thread == u32(0)"):
        for prefix, stages in rings.items():
            for stage in range(stages):
                out.line(f"ptx.mbarrier_init({prefix}full + u32({8 * stage}), u32(1))")
                out.line(f"ptx.mbarrier_init({prefix}empty + u32({8 * stage}), u32({warps}))")
        for name in others:
            out.line(f"ptx.mbarrier_init({name}, u32(1))")
        out.line("ptx.fence_mbarrier_init()")
    out.line("ptx.block_barrier()")
