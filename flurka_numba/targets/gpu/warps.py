"""What a warp's lanes, or a block's threads, make of a number that each has: device functions of any text."""

from __future__ import annotations

from functools import partial

from flurka_numba.targets.gpu.lanes import LANE, QUAD_BYTES, WARP_OF_BLOCK
from splat_numba.gen.language.lane_layout import WARP, log2
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.parts import KernelWriter

LANES_OF_WARP = tuple(WARP >> halving for halving in range(1, log2(WARP) + 1))  # how far apart, one after the other


def emit_sum_of_warp(out: KernelWriter, name: str) -> None:
    """A number of each lane becomes the sum of the warp's, in an order that is always the same."""
    out.needs("sum_of_warp", _emit_sum_of_warp)
    out.line(f"{name} = sum_of_warp({name})")


def _emit_sum_of_warp(out: SourceWriter) -> None:
    with device_function(out, "sum_of_warp", ("number",), "The sum of a warp's numbers, in one order always."):
        for apart in LANES_OF_WARP:
            out.line(f"number += ptx.shuffle_xor(number, u32({apart}))")
        out.line("return number")


def emit_largest_of_warp(out: KernelWriter, name: str) -> None:
    """A number of each lane becomes the largest of the warp's."""
    out.needs("largest_of_warp", _emit_largest_of_warp)
    out.line(f"{name} = largest_of_warp({name})")


def _emit_largest_of_warp(out: SourceWriter) -> None:
    with device_function(out, "largest_of_warp", ("top",), "The largest of the numbers that a warp's lanes have."):
        for apart in LANES_OF_WARP:
            out.line(f"top = ptx.maximum(top, ptx.shuffle_xor(top, u32({apart})))")
        out.line("return top")


def emit_largest_of_block(out: KernelWriter, name: str, place: str, threads: int) -> None:
    """The same of the block's. place: a shared address of 16 bytes a warp that nobody else uses."""
    out.needs("largest_of_block", partial(_emit_largest_of_block, warps=threads // WARP))
    out.needs("largest_of_warp", _emit_largest_of_warp)
    out.line(f"{name} = largest_of_block({name}, {place})")


def _emit_largest_of_block(out: SourceWriter, warps: int) -> None:
    text = "The largest of a block's numbers; place: in shared memory, 16 bytes a warp."
    with device_function(out, "largest_of_block", ("top", "place"), text):
        out.lines(
            f"""
            top = largest_of_warp(top)
            thread = ptx.thread_index()
            leads = u32(1) if {LANE} == u32(0) else u32(0)
            ptx.store_shared_reals4(place + u32({QUAD_BYTES}) * {WARP_OF_BLOCK}, top, top, top, top, leads)
            ptx.block_barrier()
            for warp in range({warps}):
                a, b, c, d = ptx.load_shared_reals4(place + u32({QUAD_BYTES}) * u32(warp))
                top = ptx.maximum(top, a)
            return top
            """
        )
