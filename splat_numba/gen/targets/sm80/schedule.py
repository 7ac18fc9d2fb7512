"""Attention's texts, and its passes as launches of them."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import EmittedText, ScheduleBuilder
from splat_numba.gen.targets.gpu.launches import arch_of, record_by_address, scale_log2
from splat_numba.gen.targets.sm80 import attention
from splat_numba.gen.targets.target import AttentionCall, HeadsPass


def attention_text(traits: Traits, gpu: Gpu) -> EmittedText:
    """The text of the kernel with these traits."""
    return attention.attention_text(traits, arch_of(gpu))


def record_pass(builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall) -> None:
    """Add the launch of a call's pass of this number."""
    record_by_address(builder, number, one, call, {"scale_log2": scale_log2(call.scale)})
