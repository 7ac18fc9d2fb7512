"""Attention's texts, and its passes as launches of them: numbers that only FMA units' texts have."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import EmittedText, ScheduleBuilder
from splat_numba.gen.targets.gpu.launches import arch_of, boxes_of, record_by_address
from splat_numba.gen.targets.simt import attention
from splat_numba.gen.targets.simt.shape import Numbers
from splat_numba.gen.targets.target import AttentionCall, HeadsPass


def attention_text(traits: Traits, gpu: Gpu) -> EmittedText:
    """The text of the kernel with these traits; the sign of the scale is no trait of it."""
    return attention.attention_text(replace(traits, negate=False, skips=False), arch_of(gpu))


def record_pass(builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall) -> None:
    """Add the launch of a call's pass of this number; chunks are counted for loops that are not to be unrolled."""
    traits = boxes_of(one.planned).traits
    numbers = Numbers(traits.dtype)
    steps = {"head_steps": numbers.chunks(traits.head_dim), "key_steps": numbers.chunks(traits.tile_kv)}
    scale = scale_of(numbers, "scale", call.scale * math.log2(math.e))
    record_by_address(builder, number, one, call, {**scale, **steps})


def scale_of(numbers: Numbers, name: str, factor: float) -> dict[str, int | float]:
    """A factor as a text's parameter: a float32, or the bits of a float64."""
    if numbers.computed == "float32":
        return {name: factor}
    return {f"{name}_bits": struct.unpack("<Q", struct.pack("<d", factor))[0]}
