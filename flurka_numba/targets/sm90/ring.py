"""Stages in shared memory through which one warp feeds the others: their barriers, and products of what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from flurka_numba.targets.gpu.lanes import LANE
from flurka_numba.targets.sm90.shape import BARRIER_BYTES
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.attention import emit_advance as emit_on
from splat_numba.gen.targets.sm90.shape import WARPGROUP


def emit_rings(
    out: KernelWriter, rings: Mapping[str, int], warps: int, others: Mapping[str, int] | None = None
) -> None:
    """Start a block: who it is, and its barriers, before anybody uses them.

    rings: stages by a prefix of their names, {prefix}full (a phase ends with the copies' bytes) and {prefix}empty (with
    a lane of each of so many warps); others: barriers, and how many arrivals end their phases.
    """
    out.lines(
        f"""
        thread = ptx.thread_index()
        lane = u32{LANE}
        leader = u32(1) if lane == u32(0) else u32(0)
        """
    )
    with out.part("make_barriers", "With the arrivals that complete a phase of each, before anybody uses them."):
        with out.block("if thread == u32(0)"):
            for prefix, stages in rings.items():
                with out.block(f"for stage in range({stages})"):
                    out.line(f"ptx.mbarrier_init({prefix}full + u32({BARRIER_BYTES}) * u32(stage), u32(1))")
                    out.line(f"ptx.mbarrier_init({prefix}empty + u32({BARRIER_BYTES}) * u32(stage), u32({warps}))")
            for name, arrivals in (others or {}).items():
                out.line(f"ptx.mbarrier_init({name}, u32({arrivals}))")
            out.line("ptx.fence_mbarrier_init()")
        out.line("ptx.block_barrier()")


@contextmanager
def producing(out: KernelWriter, groups: int, text: str, *, gives_registers: bool = False) -> Iterator[None]:
    """What the warp behind so many warpgroups does, as a part; or the first one of a warpgroup that gives registers."""
    with out.block(f"if thread >= u32({WARPGROUP * groups})"):
        if not gives_registers:
            with out.part("produce", text):
                yield
            return
        out.line("fewer_registers()")
        with out.block(f"if thread < u32({WARPGROUP * groups + WARP})"), out.part("produce", text):
            yield


@contextmanager
def consuming(out: KernelWriter, text: str, *, takes_registers: bool = False) -> Iterator[None]:
    """What each of the warpgroups does, likewise. producing() comes first."""
    with out.block("else"):
        if takes_registers:
            out.line("more_registers()")
        with out.part("consume", text):
            yield


def emit_steps(out: KernelWriter, last: str, stages: int, operands: str, products: Sequence[str]) -> None:
    """Multiply what each step brings, from ``step`` to ``last``, as a consumer; ``held`` is 1 after the first.

    A step is given back when the products of the next one have been issued. operands: lines that name them, where
    ``stage`` says which is full; products: of one step.
    """
    with out.block(f"while step < {last}"):
        _emit_products(out, "multiply_step", operands, products)
        out.line("ptx.wgmma_wait_but_one()")
        out.line(f"ptx.mbarrier_arrive(empty + before * u32({BARRIER_BYTES}), leader & held)")
        _emit_next(out, stages)


def emit_first_step(out: KernelWriter, stages: int, operands: str, products: Sequence[str]) -> None:
    """The same of a first step with products of its own. emit_steps() follows."""
    _emit_products(out, "multiply_first_step", operands, products)
    _emit_next(out, stages)


def _emit_products(out: KernelWriter, name: str, operands: str, products: Sequence[str]) -> None:
    """A step's, when it is full, as a group."""
    with out.part(name, "Issue the products of a step, when it is full."):
        out.line(f"ptx.mbarrier_wait(full + stage * u32({BARRIER_BYTES}), phase)")
        out.lines(operands)
        out.line("ptx.wgmma_fence()")
        for product in products:
            out.line(product)
        out.line("ptx.wgmma_commit()")


def _emit_next(out: KernelWriter, stages: int) -> None:
    out.lines(
        """
        before = stage
        held = u32(1)
        step = u32(step + u32(1))
        """
    )
    emit_advance(out, "stage", "phase", stages)


def emit_advance(out: KernelWriter, stage: str, phase: str, stages: int) -> None:
    """On to the next stage; its barriers' phase turns over with the round."""
    if stages == 1:
        out.line(f"{phase} = u32({phase} ^ u32(1))")
        return
    out.needs("advance", emit_on)
    out.line(f"{stage}, {phase} = advance({stage}, {phase}, u32({stages}))")
